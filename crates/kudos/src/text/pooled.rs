//! Which token a decoder judge reads its score at.
//!
//! `…ForSequenceClassification` of transformers pools by id: the rightmost token that is not `pad_token_id`, whether it
//! is padding or not. A text that ends in the pad token is therefore read before its end: with pad = eos, `text` and
//! `text</s>` have one score. Judges read the same token ([`pooled_index`]). A judge that is to be made anew should not
//! need that: [`check_pad`] refuses such texts.
//!
//! These are facts about ids. This file must not know models or tokenizers.

use super::TextError;

/// The index that transformers pools: the rightmost token that is not `pad`, or 0 where all are. Without a pad id it is
/// the last one. `None` without tokens.
pub fn pooled_index(ids: &[u32], pad: Option<u32>) -> Option<usize> {
    let last = ids.len().checked_sub(1)?;
    Some(match pad {
        None => last,
        Some(pad) => ids.iter().rposition(|id| *id != pad).unwrap_or(0),
    })
}

/// Refuses ids that end in the judge's pad id. `token` gives the text of an id, for the message.
///
/// # Errors
/// [`TextError::EndsInPad`], which says what transformers would pool.
pub fn check_pad(ids: &[u32], pad: Option<u32>, token: impl Fn(u32) -> Option<String>) -> Result<(), TextError> {
    let (Some(last), Some(pooled)) = (ids.len().checked_sub(1), pooled_index(ids, pad)) else { return Ok(()) };
    let Some(pad) = pad.filter(|pad| ids[last] == *pad) else { return Ok(()) };
    let name = |id: u32| token(id).unwrap_or_else(|| id.to_string());
    Err(TextError::EndsInPad { pad, token: name(pad), last, pooled, pooled_token: name(ids[pooled]) })
}

/// The pad id that a new judge should write into its `config.json`: the tokenizer's, unless its renderings end in it.
/// Then it is that of a token kept for the purpose, or none: transformers refuses a batch without one, which is better
/// than a score read at the wrong token.
pub fn pad_for_judge(last: Option<u32>, pad: Option<u32>, spare: Option<u32>) -> Option<u32> {
    let fits = |pad: &u32| last != Some(*pad);
    pad.filter(fits).or(spare.filter(fits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Case {
        ids: Vec<u32>,
        pad: Option<u32>,
        /// What transformers pools.
        pooled: usize,
    }

    /// `golden/make_chat_golden.py` has them from a tiny `Qwen3ForSequenceClassification`.
    #[test]
    fn the_pooled_token_is_that_of_transformers() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/chat/pooled.json");
        let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert!(cases.len() >= 20 && cases.iter().any(|case| case.pooled + 1 < case.ids.len()));
        for Case { ids, pad, pooled } in cases {
            assert_eq!(pooled_index(&ids, pad), Some(pooled), "{ids:?} {pad:?}");
        }
        assert_eq!(pooled_index(&[], Some(1)), None);
    }

    #[test]
    fn ids_that_end_in_the_pad_are_refused() {
        let check = |ids: &[u32], pad| check_pad(ids, pad, |id| (id == 2).then(|| "</s>".to_owned()));
        assert!(check(&[1, 2, 3], Some(2)).is_ok() && check(&[1, 2], None).is_ok() && check(&[], Some(2)).is_ok());
        let error = check(&[1, 7, 2, 2], Some(2)).unwrap_err().to_string();
        for part in ["\"</s>\"", "pad_token_id 2", "index 1", "\"7\""] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(check(&[2, 2], Some(2)).unwrap_err().to_string().contains("index 0"));
    }

    #[test]
    fn a_new_judge_gets_a_pad_that_ends_no_text() {
        assert_eq!(pad_for_judge(Some(5), Some(2), Some(9)), Some(2));
        assert_eq!(pad_for_judge(Some(2), Some(2), Some(9)), Some(9));
        assert_eq!(pad_for_judge(Some(2), Some(2), None), None);
        assert_eq!(pad_for_judge(Some(2), None, Some(9)), Some(9));
        assert_eq!(pad_for_judge(None, Some(2), None), Some(2));
    }
}
