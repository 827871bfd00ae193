//! From text to ids: whether the tokenizer is this model's, and whether what it makes obeys `reward.json`.

use super::probes::{Probe, of_length, plain};
use super::{Check, Found, Trouble, require};
use crate::data::{Content, Message};
use crate::models::RewardModel;
use crate::text::{Encoded, Encoder, Prompter, Rendering};
use std::path::Path;

pub(super) fn checks(dir: &Path, judge: &RewardModel) -> Vec<Check> {
    vec![
        Check::new("tokenizer and vocabulary", vocabulary(judge)),
        Check::new("padding token", padding(judge)),
        Check::new("ids to text to ids", round_trip(dir)),
        Check::new("rendering", rendering(judge)),
        Check::new("text and messages", messages(&judge.encoder)),
        Check::new("truncation", truncation(&judge.encoder)),
    ]
}

/// Tables are padded to round sizes, so some rows may be idle; a tokenizer with far fewer tokens than rows, or with
/// more, belongs to another model.
fn vocabulary(judge: &RewardModel) -> Found {
    let (tokens, rows) = (judge.encoder.vocab_size(), judge.model.config.vocabulary());
    let figure = format!("{tokens} tokens, {rows} embeddings");
    let fits = tokens <= rows && rows - tokens <= (rows / 10).max(1024);
    require(fits, || format!("{figure}: the tokenizer files belong to another model"))?;
    Ok(figure)
}

/// RoBERTa counts positions from the padding token, so a wrong one shifts every text.
fn padding(judge: &RewardModel) -> Found {
    if judge.model.config.encoder().is_none() {
        return Ok(judge.pad_note().unwrap_or_else(|| "no rendering ends in it: the last token is read".into()));
    }
    let stated = judge.model.config.json().get("pad_token_id").and_then(serde_json::Value::as_u64);
    match (stated, judge.encoder.pad_token_id()) {
        (Some(config), Some(tokenizer)) => {
            require(config == u64::from(tokenizer), || {
                format!("config.json says {config}, the tokenizer {tokenizer}: one of them is another model's")
            })?;
            Ok(format!("{config} in config.json and in the tokenizer"))
        }
        _ => Err(Trouble::Skipped("not named by both config.json and the tokenizer".into())),
    }
}

/// Sentences whose ids all stand for known text come back to the same ids.
fn round_trip(dir: &Path) -> Found {
    let prompter = Prompter::load(dir)?;
    let texts: Vec<String> = plain().iter().filter_map(response_text).collect();
    let mut known = 0;
    for text in &texts {
        let ids = prompter.encode(text, false)?;
        if ids.iter().any(|id| is_unknown(&prompter, *id)) {
            continue;
        }
        let decoded = prompter.decode(&ids, true)?;
        let again = prompter.encode(&decoded, false)?;
        require(ids == again, || format!("{text:?} comes back as {decoded:?}, with other ids"))?;
        known += 1;
    }
    match known {
        0 => Err(Trouble::Skipped("every sentence holds words that the tokenizer does not know".into())),
        _ if known == texts.len() => Ok(format!("{known} sentences, the same ids")),
        _ => Ok(format!("{known} sentences, the same ids; {} hold unknown words", texts.len() - known)),
    }
}

/// `[UNK]` or `<unk>`: what stands for any word the tokenizer does not have, and so for none.
fn is_unknown(prompter: &Prompter, id: u32) -> bool {
    prompter.token(id).is_some_and(|token| token.trim_matches(['[', ']', '<', '>']).eq_ignore_ascii_case("unk"))
}

fn response_text(probe: &Probe) -> Option<String> {
    match &probe.response {
        Content::Text(text) => Some(text.clone()),
        Content::Messages(_) => None,
    }
}

fn text(text: &str) -> Content {
    Content::Text(text.into())
}

fn rendering(judge: &RewardModel) -> Found {
    let encoder = &judge.encoder;
    let (prompt, response) = (text("Name a river."), text("The Danube."));
    let both = encoder.encode(Some(&prompt), &response)?;
    let types = judge.model.config.segments();
    let largest = both.type_ids.iter().copied().max().unwrap_or(0) as usize;
    require(largest < types.max(1), || format!("segment {largest}, the model has {types}"))?;
    require(both.ids.len() == both.type_ids.len(), || "ids and segments differ in number".into())?;
    match encoder.settings().render {
        Rendering::Pair => pair(&both, &encoder.encode(None, &prompt)?, &encoder.encode(None, &response)?),
        single => {
            require(largest == 0, || "a single sequence has segment 1".into())?;
            Ok(format!("{single:?}: one sequence of {} tokens, segment 0", both.ids.len()).to_lowercase())
        }
    }
}

/// `tokenizer(prompt, response)`: as the prompt alone begins, as the response alone ends, segment 1 from where the
/// prompt's own sequence ends. A text of fewer tokens than either alone was cut; then only the segments can be told.
fn pair(both: &Encoded, first: &Encoded, second: &Encoded) -> Found {
    let whole = !both.truncated && !first.truncated && !second.truncated;
    let placed = both.ids.starts_with(&first.ids) && both.ids.ends_with(&second.ids[1.min(second.ids.len())..]);
    require(placed || !whole, || "the ids of prompt and response are not those of each alone, put together".into())?;
    let ones = both.type_ids.iter().filter(|t| **t == 1).count();
    let zeros = both.type_ids.len() - ones;
    let in_order = both.type_ids[..zeros].iter().all(|t| *t == 0);
    require(in_order && (ones == 0 || zeros == first.ids.len() || !whole), || {
        format!("segments {:?}, expected 0 for the first {} tokens, then 1", both.type_ids, first.ids.len())
    })?;
    Ok(format!("pair: {zeros} tokens of segment 0, {ones} of segment 1"))
}

/// A text and one message of its role are the same to a judge.
fn messages(encoder: &Encoder) -> Found {
    let message =
        |role: &str, content: &str| Content::Messages(vec![Message { role: role.into(), content: content.into() }]);
    let (question, answer) = ("Name a river.", "The Danube.");
    let texts = encoder.encode(Some(&text(question)), &text(answer))?;
    let turns = encoder.encode(Some(&message("user", question)), &message("assistant", answer))?;
    require(texts == turns, || format!("ids {:?} of texts, {:?} of messages", texts.ids, turns.ids))?;
    Ok(format!("{} ids, the same", texts.ids.len()))
}

/// What fits stays whole; what does not is cut to exactly the limit and says so.
fn truncation(encoder: &Encoder) -> Found {
    let limit = encoder.settings().max_length;
    let mut longest = 0;
    for tokens in [limit.saturating_sub(1), limit, limit + 1, 2 * limit, 20 * limit] {
        let probe = of_length(encoder, tokens)?;
        let (prompt, response) = probe.input();
        let Encoded { ids, truncated, tokens_before_truncation: whole, .. } = encoder.encode(prompt, response)?;
        require(truncated == (whole > limit), || format!("a text of {whole} tokens has truncated = {truncated}"))?;
        require(ids.len() == whole.min(limit), || {
            format!("a text of {whole} tokens is encoded as {}, expected {}", ids.len(), whole.min(limit))
        })?;
        longest = longest.max(whole);
    }
    Ok(format!("at most {limit} tokens of up to {longest}"))
}
