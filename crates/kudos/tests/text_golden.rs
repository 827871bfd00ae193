//! Ids, type ids and truncation against transformers, on the tokenizers and texts of `golden/text`.
//!
//! `golden/make_text_golden.py` made them; no Python is needed here. Below the goldens: what must hold for any text
//! at any limit, and what is said when a directory or a setting is wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kudos::data::{Content, Message};
use kudos::text::{EncodeSettings, Encoder, Rendering, TextError, Truncation};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value};
use tempfile::TempDir;

#[derive(Deserialize)]
struct Golden {
    variants: BTreeMap<String, Variant>,
    checks: Vec<Check>,
}

/// A tokenizer directory with some files changed.
#[derive(Deserialize)]
struct Variant {
    files: String,
    over: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Check {
    tokenizer: String,
    #[serde(flatten)]
    settings: EncodeSettings,
    rows: Vec<(Value, Value)>,
    /// For each row the ids, and where type id 1 begins; nothing where the template alone fills the limit.
    expected: Vec<Option<(Vec<u32>, usize)>>,
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/text")
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Golden {
    fn read() -> Self {
        read_json(&golden_dir().join("checks.json"))
    }

    /// A directory of the test's own with the files of a tokenizer or variant.
    fn directory(&self, name: &str) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let variant = self.variants.get(name);
        let files = variant.map_or(name, |variant| &variant.files);
        for file in fs::read_dir(golden_dir().join(files)).unwrap() {
            let path = file.unwrap().path();
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        for (file, change) in variant.into_iter().flat_map(|variant| &variant.over) {
            lay_over(&folder.path().join(file), change);
        }
        folder
    }
}

/// A string replaces the file; an object's fields replace fields, and null removes one.
fn lay_over(path: &Path, change: &Value) {
    let Value::Object(change) = change else {
        return fs::write(path, change.as_str().unwrap()).unwrap();
    };
    let mut fields: Map<String, Value> = read_json(path);
    fields.extend(change.clone());
    fields.retain(|_, value| !value.is_null());
    fs::write(path, serde_json::to_vec(&fields).unwrap()).unwrap();
}

/// A text by its index, a list of messages, or null.
fn content(texts: &[String], value: &Value) -> Option<Content> {
    match value.as_u64() {
        Some(index) => Some(Content::Text(texts[usize::try_from(index).unwrap()].clone())),
        None => serde_json::from_value(value.clone()).unwrap(),
    }
}

#[test]
fn every_check_of_the_goldens() {
    let golden = Golden::read();
    let texts: Vec<String> = read_json(&golden_dir().join("texts.json"));
    let wrong: Vec<String> = golden.checks.iter().flat_map(|check| check.differences(&golden, &texts)).collect();
    let rows: usize = golden.checks.iter().map(|check| check.rows.len()).sum();
    assert!(wrong.is_empty(), "{} of {rows} differ, such as\n{}", wrong.len(), wrong[..wrong.len().min(5)].join("\n"));
    assert!(rows > 4000, "only {rows} rows");
}

impl Check {
    fn differences(&self, golden: &Golden, texts: &[String]) -> Vec<String> {
        let folder = golden.directory(&self.tokenizer);
        let encoder = Encoder::load(folder.path(), self.settings.clone()).unwrap();
        let row = |(prompt, response): &(Value, Value)| (content(texts, prompt), content(texts, response).unwrap());
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        let encoded: Vec<_> = rows.iter().map(|(prompt, response)| encoder.encode(prompt.as_ref(), response)).collect();
        let mut wrong = Vec::new();
        for ((found, expected), row) in encoded.into_iter().zip(&self.expected).zip(&rows) {
            let (found, (ids, second)) = match (found, expected) {
                (Ok(found), Some(expected)) => (found, expected),
                (Err(TextError::TemplateTooLong { .. }), None) => continue,
                (found, expected) => panic!("{} {row:?}: expected {expected:?}, found {found:?}", self.tokenizer),
            };
            let types = (0..ids.len()).map(|position| u32::from(position >= *second));
            if found.ids != *ids || !found.type_ids.iter().copied().eq(types) {
                let name = &self.tokenizer;
                wrong.push(format!(
                    "{name} {:?} {row:?}\n  expected {ids:?} {second}\n  found {found:?}",
                    self.settings
                ));
            }
        }
        wrong
    }
}

const NO_LIMIT: usize = 1 << 20;
const TOKENIZERS: [&str; 5] = ["wordpiece", "byte_level", "unigram", "chatml", "metaspace"];

fn load(name: &str, render: Rendering, max_length: usize, truncation: Truncation) -> Result<Encoder, TextError> {
    Encoder::load(&golden_dir().join(name), EncodeSettings::new(render, max_length, truncation))
}

/// Any Unicode, and what the tokenizers treat specially.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        "[a-z ]{0,40}",
        "\\PC{0,8}",
        "[\\s\\x00-\\x1f]{0,4}",
        Just("[SEP]".to_owned()),
        Just("</s><mask> <|im_end|>".to_owned()),
        Just("👩‍👩‍👧‍👦 e\u{301} שלום 你好".to_owned()),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn any_content() -> impl Strategy<Value = Content> {
    let message = (prop_oneof![Just("user"), Just("assistant"), Just("system")], any_text())
        .prop_map(|(role, content)| Message { role: role.to_owned(), content });
    prop_oneof![
        3 => any_text().prop_map(Content::Text),
        1 => prop::collection::vec(message, 0..4).prop_map(Content::Messages),
    ]
}

fn any_truncation() -> impl Strategy<Value = Truncation> {
    prop_oneof![Just(Truncation::LongestFirst), Just(Truncation::KeepResponse)]
}

fn common_suffix(a: &[u32], b: &[u32]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

proptest! {
    #[test]
    fn any_text_at_any_limit(
        name in prop::sample::select(&TOKENIZERS[..]),
        render in prop_oneof![Just(Rendering::Pair), Just(Rendering::Concat), Just(Rendering::Chat)],
        truncation in any_truncation(),
        max_length in 5usize..60,
        prompt in prop::option::of(any_content()),
        response in any_content(),
    ) {
        let render = if name == "chatml" || render != Rendering::Chat { render } else { Rendering::Pair };
        // Beyond what the template itself writes around the longest role.
        let max_length = if render == Rendering::Chat { max_length + 50 } else { max_length };
        let encoder = load(name, render, max_length, truncation).unwrap();
        let whole = load(name, render, NO_LIMIT, truncation).unwrap().encode(prompt.as_ref(), &response);
        let cut = encoder.encode(prompt.as_ref(), &response);
        let (Ok(whole), Ok(cut)) = (whole, cut) else {
            // A whole transcript as plain text has no messages for a template, and an empty list has none either.
            let empty = |content: &Content| *content == Content::Messages(Vec::new());
            let transcript = prompt.is_none() && matches!(response, Content::Text(_));
            let nothing = empty(&response) && prompt.as_ref().is_none_or(empty);
            prop_assert!(render == Rendering::Chat && (transcript || nothing));
            return Ok(());
        };
        prop_assert!(!whole.truncated && whole.tokens_before_truncation == whole.ids.len());
        prop_assert_eq!(cut.tokens_before_truncation, whole.ids.len());
        prop_assert_eq!(cut.ids.len(), whole.ids.len().min(max_length));
        prop_assert_eq!(cut.truncated, whole.ids.len() > max_length);
        prop_assert_eq!(cut.ids.len(), cut.type_ids.len());
        prop_assert!(cut.truncated || cut == whole);
        prop_assert!(cut.ids.iter().all(|&id| encoder.token(id).is_some()));
    }

    #[test]
    fn keep_response_keeps_it_when_it_fits(
        name in prop::sample::select(&TOKENIZERS[..]),
        max_length in 5usize..60,
        prompt in any_text(),
        response in any_text(),
    ) {
        let encode = |max_length, prompt: &str| {
            let encoder = load(name, Rendering::Pair, max_length, Truncation::KeepResponse).unwrap();
            encoder.encode(Some(&Content::Text(prompt.into())), &Content::Text(response.clone())).unwrap()
        };
        let (whole, alone, cut) = (encode(NO_LIMIT, &prompt), encode(NO_LIMIT, ""), encode(max_length, &prompt));
        prop_assume!(!response.is_empty());
        if alone.ids.len() <= max_length {
            let kept = common_suffix(&whole.ids, &alone.ids);
            prop_assert!(cut.ids.ends_with(&whole.ids[whole.ids.len() - kept..]), "{:?} {:?}", whole.ids, cut.ids);
        } else {
            prop_assert_eq!(&cut.ids[..], &encode(max_length, "").ids[..]);
        }
    }

    #[test]
    fn a_batch_is_its_texts_one_by_one(texts in prop::collection::vec((any_content(), any_content()), 0..9)) {
        let encoder = load("byte_level", Rendering::Pair, 20, Truncation::LongestFirst).unwrap();
        let texts: Vec<_> = texts.iter().map(|(prompt, response)| (Some(prompt), response)).collect();
        let one_by_one: Result<Vec<_>, _> = texts.iter().map(|(prompt, response)| encoder.encode(*prompt, response)).collect();
        prop_assert_eq!(encoder.encode_batch(&texts).unwrap(), one_by_one.unwrap());
    }
}

/// A tokenizer directory with one file replaced, loaded for pairs of 30 tokens.
fn load_broken(name: &str, file: &str, content: &str) -> Result<Encoder, TextError> {
    let folder = Golden::read().directory(name);
    fs::write(folder.path().join(file), content).unwrap();
    let settings = EncodeSettings::new(Rendering::Pair, 30, Truncation::LongestFirst);
    Encoder::load(folder.path(), settings)
}

#[test]
fn errors_are_one_line_and_say_what_to_do() {
    let pair = |dir: &str, max_length| load(dir, Rendering::Pair, max_length, Truncation::LongestFirst);
    let as_roberta = r#"{"tokenizer_class": "RobertaTokenizer"}"#;
    let no_separator = r#"{"sep_token": null}"#;
    let cases = [
        (pair("nowhere", 9), "no tokenizer.json here"),
        (pair("wordpiece", 3), "set max_length to at least 4"),
        (load("wordpiece", Rendering::Chat, 9, Truncation::KeepResponse), "needs a chat template"),
        (load("chatml", Rendering::Chat, 9, Truncation::KeepResponse), "the chat template writes"),
        (load_broken("wordpiece", "tokenizer.json", "{\"version\": "), "expected a tokenizer"),
        (load_broken("wordpiece", "tokenizer_config.json", "[1]"), "expected a JSON object"),
        (
            load_broken("wordpiece", "tokenizer_config.json", as_roberta),
            "RobertaTokenizer needs a BPE model, found a WordPiece model",
        ),
        (
            load_broken("wordpiece", "tokenizer_config.json", no_separator),
            "needs its separator tokens, found no sep_token",
        ),
        (
            load_broken("wordpiece", "tokenizer_config.json", r#"{"added_tokens_decoder": {"x": {}}}"#),
            "added_tokens_decoder",
        ),
        (load_broken("chatml", "chat_template.jinja", "{% for %}"), "the chat template does not parse"),
    ];
    for (loaded, expected) in cases {
        let message = loaded.map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains('\n') && message.len() < 400, "{message}");
    }
}

#[test]
fn a_token_without_an_embedding_is_named() {
    let encoder = load_broken("wordpiece", "config.json", r#"{"model_type": "bert", "vocab_size": 5}"#).unwrap();
    let error = encoder.encode(None, &Content::Text("a".into())).unwrap_err().to_string();
    assert!(error.contains(r#"token "a" has id"#) && error.contains("vocab_size of 5"), "{error}");
}

#[test]
fn what_an_encoder_tells() {
    let encoder = load("chatml", Rendering::Chat, 60, Truncation::KeepResponse).unwrap();
    assert_eq!(encoder.settings().max_length, 60);
    assert_eq!((encoder.pad_token_id(), encoder.eos_token_id()), (Some(2), Some(2)));
    assert!(encoder.has_chat_template() && encoder.vocab_size() > 256);
    assert!(encoder.notes()[0].contains("GPT2Tokenizer replaces the pre_tokenizer"), "{:?}", encoder.notes());
    let bert = load("wordpiece", Rendering::Pair, 9, Truncation::LongestFirst).unwrap();
    assert_eq!((bert.pad_token_id(), bert.eos_token_id(), bert.has_chat_template()), (Some(0), None, false));
    assert!(bert.notes().is_empty(), "{:?}", bert.notes());
}

#[test]
fn files_are_copied_byte_for_byte() {
    let encoder = load("byte_level", Rendering::Pair, 9, Truncation::LongestFirst).unwrap();
    let files = encoder.files().unwrap();
    let names: Vec<&str> = files.iter().map(|file| file.name).collect();
    assert_eq!(names, ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]);
    for file in files {
        assert_eq!(file.bytes, fs::read(golden_dir().join("byte_level").join(file.name)).unwrap());
    }
}

#[test]
fn settings_are_written_as_in_reward_json() {
    let json = r#"{"render":"concat","max_length":512,"truncation":"keep_response"}"#;
    let settings: EncodeSettings = serde_json::from_str(json).unwrap();
    assert_eq!(settings.render, Rendering::Concat);
    assert_eq!(serde_json::to_string(&settings).unwrap(), json);
}
