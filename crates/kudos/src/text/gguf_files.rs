//! The tokenizer of a GGUF file as the files of a model directory.
//!
//! A judge made from a GGUF file is a directory like any other, so other programs must get the same ids from its files
//! as are made here. `tokenizer.json` holds the tokenizer of [`super::gguf_tokenizer`] whole. `tokenizer_config.json`
//! names transformers' generic class, which takes that file as it is, the special tokens and the chat template.
//! transformers gives a Qwen2 model the class of Qwen2 whatever is named there, and so does [`super::Encoder`].

use super::encoder::{TOKENIZER_FILES, TokenizerFile};
use super::gguf_tokenizer::{GgufVocabulary, build};
use super::tokenizer_config::malformed;
use super::{TOKENIZER_CONFIG, TextError};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The class that takes `tokenizer.json` as it is, in transformers 4 and 5.
const CLASS: &str = "PreTrainedTokenizerFast";

impl GgufVocabulary {
    /// `tokenizer.json` and `tokenizer_config.json` of a directory with this tokenizer.
    ///
    /// # Errors
    /// A vocabulary that makes no tokenizer, as [`super::Prompter::from_gguf`] refuses it.
    pub fn files(&self) -> Result<Vec<TokenizerFile>, TextError> {
        let tokenizer = build(self)?.to_string(true).map_err(|error| malformed(&self.origin, "a tokenizer", &error))?;
        let config = format!("{:#}\n", Value::Object(self.tokenizer_config()));
        Ok(vec![
            TokenizerFile { name: "tokenizer.json", bytes: tokenizer.into_bytes() },
            TokenizerFile { name: TOKENIZER_CONFIG, bytes: config.into_bytes() },
        ])
    }

    fn tokenizer_config(&self) -> Map<String, Value> {
        let mut config = Map::new();
        config.insert("tokenizer_class".into(), CLASS.into());
        // The class would hand over segments, which decoders do not take.
        config.insert("model_input_names".into(), json!(["input_ids", "attention_mask"]));
        config.insert("clean_up_tokenization_spaces".into(), false.into());
        for (name, token) in self.named_tokens() {
            config.insert(name.into(), token.into());
        }
        if let Some(template) = &self.chat_template {
            config.insert("chat_template".into(), template.as_str().into());
        }
        config
    }
}

/// Writes the tokenizer of a GGUF file into a directory. `models::gguf::vocabulary` reads what it needs. Files of another
/// tokenizer are removed from there.
///
/// # Errors
/// As [`GgufVocabulary::files`]; a directory that cannot be written.
pub fn write_tokenizer(vocabulary: &GgufVocabulary, dir: &Path) -> Result<(), TextError> {
    let files = vocabulary.files()?;
    for name in TOKENIZER_FILES {
        let path = dir.join(name);
        let written = match files.iter().find(|file| file.name == name) {
            Some(file) => crate::files::write(&path, &file.bytes),
            None => std::fs::remove_file(&path).or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }),
        };
        written.map_err(|source| TextError::Unwritable { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::gguf_tokenizer::tests::{bytes, pieces};
    use super::super::{EncodeSettings, Encoder, Prompter, Rendering, Truncation};
    use super::*;
    use crate::data::Content;
    use crate::data::Message;

    const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}";

    fn vocabularies() -> Vec<GgufVocabulary> {
        let template = Some(TEMPLATE.to_owned());
        let splits = ["gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "deepseek-r1-qwen", "default"];
        let of_bytes = splits.map(|pre| GgufVocabulary { pre: Some(pre.into()), ..bytes() });
        let of_pieces = [
            pieces(),
            GgufVocabulary { add_space_prefix: Some(false), add_bos: Some(false), ..pieces() },
            GgufVocabulary { add_eos: Some(true), padding: Some(2), ..pieces() },
        ];
        let all = of_bytes.into_iter().chain(of_pieces);
        all.map(|vocabulary| GgufVocabulary { chat_template: template.clone(), ..vocabulary }).collect()
    }

    /// Through the files, every text has the ids that it has without them.
    #[test]
    fn the_files_make_the_same_tokenizer() {
        let texts =
            ["", "a", "ab ab12", " 12ab\n", "é", "a<turn><tool>b", "b  b</s>a", "\n\n", "x e\u{301} ▁ab", "ab12 "];
        for vocabulary in vocabularies() {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("chat_template.jinja"), "of another tokenizer").unwrap();
            write_tokenizer(&vocabulary, dir.path()).unwrap();
            let (own, through) =
                (Prompter::from_gguf(vocabulary.clone()).unwrap(), Prompter::load(dir.path()).unwrap());
            for (text, special) in texts.iter().flat_map(|text| [(text, false), (text, true)]) {
                let ids = own.encode(text, special).unwrap();
                assert_eq!(through.encode(text, special).unwrap(), ids, "{:?} {text:?}", vocabulary.pre);
                assert_eq!(through.decode(&ids, true).unwrap(), own.decode(&ids, true).unwrap());
            }
            let chat = [Message { role: "user".into(), content: "ab".into() }];
            assert_eq!(through.render_chat(&chat, false).unwrap(), own.render_chat(&chat, false).unwrap());
            assert_eq!(through.bos_token_id(), own.bos_token_id());
            assert_eq!(through.eos_token_id(), own.eos_token_id());
            assert!(through.notes().iter().all(|note| !note.contains("replaces")), "{:?}", through.notes());
        }
    }

    #[test]
    fn a_judge_of_a_gguf_file_reads_no_segments_and_knows_its_pad() {
        let dir = tempfile::tempdir().unwrap();
        write_tokenizer(
            &GgufVocabulary { padding: Some(1), chat_template: Some(TEMPLATE.into()), ..pieces() },
            dir.path(),
        )
        .unwrap();
        let encoder =
            Encoder::load(dir.path(), EncodeSettings::new(Rendering::Chat, 64, Truncation::LongestFirst)).unwrap();
        assert_eq!((encoder.pad_token_id(), encoder.eos_token_id()), (Some(1), Some(2)));
        let text = |text: &str| Content::Text(text.into());
        let encoded = encoder.encode(Some(&text("ab")), &text("a")).unwrap();
        assert_eq!(encoded.type_ids, vec![0; encoded.ids.len()]);
        let pair =
            Encoder::load(dir.path(), EncodeSettings::new(Rendering::Pair, 64, Truncation::LongestFirst)).unwrap();
        assert_eq!(pair.encode(Some(&text("ab")), &text("a")).unwrap().type_ids.iter().max(), Some(&0));
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let missing = Path::new("/nowhere/at/all");
        let error = write_tokenizer(&bytes(), missing).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all/tokenizer.json"), "{error}");
    }
}
