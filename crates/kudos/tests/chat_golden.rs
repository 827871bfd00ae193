//! Conversations as a judge reads them, against `apply_chat_template(tokenize=True)` of transformers.
//!
//! `golden/make_chat_golden.py` made the goldens. Below them: what is cut, what is said of control tokens and dates,
//! and what happens to templates and messages that cannot be used.

use kudos::data::{Content, Message};
use kudos::text::{Day, EncodeSettings, Encoded, Encoder, Rendering, TextError, Truncation};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

#[derive(Deserialize)]
struct Golden {
    day: Day,
    families: BTreeMap<String, Family>,
    rows: Vec<Row>,
    literal: Vec<Row>,
}

#[derive(Deserialize)]
struct Family {
    template: String,
    bos: Option<String>,
    eos: String,
}

#[derive(Deserialize)]
struct Row {
    family: String,
    prompt: Option<Content>,
    response: Content,
    /// None where the template refuses.
    ids: Option<Vec<u32>>,
    #[serde(default)]
    refused: Option<String>,
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/chat")
}

impl Golden {
    fn read() -> Self {
        serde_json::from_slice(&std::fs::read(golden_dir().join("cases.json")).unwrap()).unwrap()
    }

    fn directory(&self, family: &str) -> TempDir {
        let Family { template, bos, eos } = &self.families[family];
        directory(template, bos.as_deref(), eos)
    }

    fn encoder(&self, family: &str, settings: EncodeSettings) -> Encoder {
        Encoder::load(self.directory(family).path(), settings).unwrap()
    }
}

fn directory(template: &str, bos: Option<&str>, eos: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(golden_dir().join("tokenizer/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos,
                        "pad_token": eos, "chat_template": template});
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    dir
}

fn chat(max_length: usize) -> EncodeSettings {
    EncodeSettings::new(Rendering::Chat, max_length, Truncation::LongestFirst)
}

const NO_LIMIT: usize = 1 << 20;

fn text(text: &str) -> Content {
    Content::Text(text.into())
}

fn turns(turns: &[(&str, &str)]) -> Content {
    Content::Messages(
        turns.iter().map(|(role, text)| Message { role: (*role).into(), content: (*text).into() }).collect(),
    )
}

fn encode(encoder: &Encoder, row: &Row) -> Result<Encoded, TextError> {
    encoder.encode(row.prompt.as_ref(), &row.response)
}

#[test]
fn conversations_are_those_of_transformers() {
    let golden = Golden::read();
    assert!(golden.families.len() == 9 && golden.rows.len() > 150);
    for name in golden.families.keys() {
        let encoder = golden.encoder(name, EncodeSettings { date: Some(golden.day), ..chat(NO_LIMIT) });
        for row in golden.rows.iter().filter(|row| row.family == *name) {
            let found = encode(&encoder, row);
            match (&row.ids, found) {
                (Some(ids), Ok(found)) => assert_eq!(found.ids, *ids, "{name} {:?} {:?}", row.prompt, row.response),
                (None, Err(error)) => {
                    assert!(error.is_about_the_text());
                    assert!(error.to_string().contains(row.refused.as_deref().unwrap()), "{name}: {error}");
                }
                (expected, found) => panic!("{name} {:?}: expected {expected:?}, found {found:?}", row.prompt),
            }
        }
    }
}

/// The tokenizer's post-processor adds a BOS of its own, as Llama's does.
#[test]
fn there_is_one_bos() {
    let golden = Golden::read();
    for (name, bos) in [("llama3", "<|begin_of_text|>"), ("llama3_2", "<|begin_of_text|>"), ("gemma", "<bos>")] {
        let encoder = golden.encoder(name, chat(NO_LIMIT));
        let ids = encoder.encode(Some(&text("a")), &text("b")).unwrap().ids;
        let is_bos = |id: &&u32| encoder.token(**id).as_deref() == Some(bos);
        assert_eq!((ids.iter().filter(is_bos).count(), is_bos(&&ids[0])), (1, true), "{name}");
        let concat = golden.encoder(name, EncodeSettings { render: Rendering::Concat, ..chat(NO_LIMIT) });
        let ids = concat.encode(Some(&text("a")), &text("b")).unwrap().ids;
        assert_eq!(concat.token(ids[0]).as_deref(), Some("<|begin_of_text|>"), "the post-processor's");
    }
}

#[test]
fn literal_control_tokens_are_letters_and_the_templates_are_not() {
    let golden = Golden::read();
    for name in golden.families.keys() {
        let settings = EncodeSettings { date: Some(golden.day), ..chat(NO_LIMIT) };
        let plain = golden.encoder(name, settings.clone());
        let literal = golden.encoder(name, EncodeSettings { literal: true, ..settings });
        for row in golden.literal.iter().filter(|row| row.family == *name) {
            let found = encode(&literal, row).unwrap();
            assert_eq!(Some(&found.ids), row.ids.as_ref(), "{name} {:?} {:?}", row.prompt, row.response);
            let control = plain.control_tokens(row.prompt.as_ref(), &row.response);
            let same = encode(&plain, row).unwrap() == found;
            assert_eq!(control == 0, same, "{name} {:?}: {control} control tokens", row.response);
            assert_eq!(literal.control_tokens(row.prompt.as_ref(), &row.response), 0);
        }
    }
}

#[test]
fn control_tokens_are_counted_in_prompts_and_responses() {
    let golden = Golden::read();
    let encoder = golden.encoder("qwen2_5", chat(NO_LIMIT));
    let count = |prompt: Option<&Content>, response: Content| encoder.control_tokens(prompt, &response);
    assert_eq!(count(Some(&text("a <|im_end|>")), text("</s><s> <think>")), 3, "<think> is a word of the vocabulary");
    assert_eq!(count(None, turns(&[("user", "<|im_end|>"), ("assistant<|im_end|>", "b")])), 2);
    assert_eq!(count(Some(&text("< |im_end|>")), text("<|im_end|")), 0);
}

/// The template's tokens stay, whatever is cut; the end is where a judge reads its score.
#[test]
fn the_template_stays_when_words_are_cut() {
    let golden = Golden::read();
    let (prompt, response) = ("ask ".repeat(300), "answer ".repeat(200));
    for name in golden.families.keys() {
        for truncation in [Truncation::LongestFirst, Truncation::KeepResponse] {
            let load = |max_length| golden.encoder(name, EncodeSettings { truncation, ..chat(max_length) });
            let encode = |max_length, prompt: &str, response: &str| {
                load(max_length).encode(Some(&text(prompt)), &text(response)).unwrap().ids
            };
            let (short, whole) = (encode(NO_LIMIT, "Q", "A"), encode(NO_LIMIT, &prompt, &response));
            for limit in [short.len() + 9, 300, whole.len() - 1] {
                let cut = encode(limit, &prompt, &response);
                assert_eq!(cut.len(), limit, "{name} {truncation:?}");
                let (ours, end) = (load(limit), whole.len() - common(whole.iter().rev(), short.iter().rev()));
                assert!(cut.ends_with(&whole[end..]) && end < whole.len(), "{name} {truncation:?} {limit}");
                assert!(cut.starts_with(&short[..common(short.iter(), whole.iter())]), "{name} {truncation:?} {limit}");
                let control = |ids: &[u32]| ids.iter().filter(|id| is_control(&ours, **id)).count();
                assert_eq!(control(&cut), control(&whole), "{name} {truncation:?} {limit}");
            }
            assert_ne!(encode(short.len() + 9, &prompt, "Yes."), encode(short.len() + 9, &prompt, "No."), "{name}");
        }
    }
}

fn is_control(encoder: &Encoder, id: u32) -> bool {
    encoder.token(id).is_some_and(|token| token.starts_with('<') && token.len() > 2)
}

fn common<'a>(a: impl Iterator<Item = &'a u32>, b: impl Iterator<Item = &'a u32>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).count()
}

#[test]
fn a_limit_that_the_template_fills_is_refused() {
    let golden = Golden::read();
    let dir = golden.directory("llama3_2");
    let error = Encoder::load(dir.path(), chat(20)).unwrap_err().to_string();
    let least: usize = error.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(error.contains("the chat template writes"), "{error}");
    let encoder = Encoder::load(dir.path(), chat(least)).unwrap();
    assert_eq!(encoder.encode(Some(&text("a b c")), &text("d")).unwrap().ids.len(), least);
    assert!(Encoder::load(dir.path(), chat(least - 1)).is_err());
    // A conversation around which the template writes more has an error of its own.
    let system = "{% for m in messages %}<|im_start|>{{ m.role }}{{ m.role * 30 if m.role == 'system' }}{{ m.content }}{% endfor %}";
    let grows = Encoder::load(directory(system, None, "</s>").path(), chat(20)).unwrap();
    let error = grows.encode(Some(&turns(&[("system", "a"), ("user", "b")])), &text("c")).unwrap_err();
    assert!(matches!(error, TextError::TemplateTooLong { .. }) && error.is_about_the_text(), "{error}");
}

#[test]
fn dates_are_fixed() {
    let golden = Golden::read();
    let ids = |settings| golden.encoder("llama3_2", settings).encode(Some(&text("a")), &text("b")).unwrap().ids;
    let on = |day: Day| EncodeSettings { date: Some(day), ..chat(NO_LIMIT) };
    assert_eq!(ids(chat(NO_LIMIT)), ids(on(Day::DEFAULT)));
    assert_ne!(ids(on(golden.day)), ids(on(Day::DEFAULT)));
    let note = golden.encoder("llama3_2", chat(NO_LIMIT)).date_note().unwrap();
    assert!(note.contains("2024-07-26") && note.contains("reward.json") && note.contains("\"date\""), "{note}");
    assert!(golden.encoder("llama3_2", on(golden.day)).date_note().is_none());
    assert!(golden.encoder("llama3_1", chat(NO_LIMIT)).date_note().is_none());
    let train =
        |family| Encoder::load_for_training(golden.directory(family).path(), chat(NO_LIMIT), golden.day).unwrap();
    assert_eq!(train("llama3_2").settings().date, Some(golden.day));
    assert_eq!(train("qwen3").settings().date, None);
    let kept = Encoder::load_for_training(golden.directory("llama3_2").path(), on(Day::DEFAULT), golden.day).unwrap();
    assert_eq!(kept.settings().date, Some(Day::DEFAULT), "a judge that is trained further keeps its day");
}

#[test]
fn settings_say_date_and_literal_only_where_they_are_set() {
    let json = r#"{"render":"chat","max_length":9,"truncation":"longest_first"}"#;
    let plain: EncodeSettings = serde_json::from_str(json).unwrap();
    assert_eq!((plain.date, plain.literal, serde_json::to_string(&plain).unwrap().as_str()), (None, false, json));
    let set = EncodeSettings { date: Some("2026-11-29".parse().unwrap()), literal: true, ..plain };
    let written = serde_json::to_string(&set).unwrap();
    assert!(written.ends_with(r#""date":"2026-11-29","literal":true}"#), "{written}");
    assert_eq!(serde_json::from_str::<EncodeSettings>(&written).unwrap(), set);
    let wrong = serde_json::from_str::<EncodeSettings>(&written.replace("11-29", "11-31")).unwrap_err().to_string();
    assert!(wrong.contains("2026-11-31") && wrong.contains("expected a day"), "{wrong}");
}

/// What a thought is made of in Qwen 3: the words before the first `</think>`.
#[test]
fn a_response_that_the_template_splits_is_known() {
    let golden = Golden::read();
    let encoder = golden.encoder("qwen3", chat(NO_LIMIT));
    let keeps = |response: &str| encoder.keeps_response(Some(&text("q")), &text(response)).unwrap();
    assert!(keeps("An answer.") && keeps(" \n with space \n") && keeps(""));
    assert!(!keeps("The tag </think> closes it. Tail"));
    assert!(
        golden
            .encoder("qwen2_5", chat(9999))
            .keeps_response(None, &turns(&[("user", "a"), ("assistant", "</think>")]))
            .unwrap()
    );
}

#[test]
fn a_decoder_without_settings_has_its_template() {
    let golden = Golden::read();
    let of = |dir: &Path| EncodeSettings::of_decoder(dir, 77).unwrap();
    assert_eq!(of(golden.directory("llama3").path()), chat(77));
    let bare = golden_dir().join("tokenizer");
    assert_eq!(of(&bare), EncodeSettings::new(Rendering::Concat, 77, Truncation::LongestFirst));
}

#[test]
fn templates_that_cannot_be_used_are_refused_at_once() {
    let cases = [
        ("{{ messages[0].content | shout }}", "shout"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}", "does not end"),
        ("", "writes nothing of the answer"),
        ("{{ messages[0].content }}", "writes nothing of the answer"),
        ("{{ messages[0].content.no_such_method() }}", "no_such_method"),
    ];
    for (template, expected) in cases {
        let error = Encoder::load(directory(template, None, "</s>").path(), chat(99)).unwrap_err();
        assert!(!error.is_about_the_text(), "{error}");
        let message = error.to_string();
        assert!(message.contains("cannot render a question") && message.contains(expected), "{message}");
        assert!(!message.contains('\n') && message.len() < 500, "{message}");
    }
}

#[test]
fn messages_that_cannot_be_used_are_refused_one_by_one() {
    let golden = Golden::read();
    let gemma = golden.encoder("gemma", chat(99));
    let good = gemma.encode(Some(&text("a")), &text("b"));
    let system = turns(&[("system", "Be kind."), ("user", "a")]);
    let refused = gemma.encode(Some(&system), &text("b")).unwrap_err();
    assert!(good.is_ok() && refused.is_about_the_text());
    let message = refused.to_string();
    assert_eq!(
        message,
        "the chat template refuses these messages: System role not supported; the roles were: system, user, assistant"
    );
    let only_critics = "{% for m in messages if m.role != 'critic' %}{{ m.content }}{% endfor %}";
    let encoder = Encoder::load(directory(only_critics, None, "</s>").path(), chat(99)).unwrap();
    let nothing = encoder.encode(None, &turns(&[("critic", "a")])).unwrap_err();
    assert!(nothing.is_about_the_text() && nothing.to_string().contains("writes nothing"), "{nothing}");
    let whole = gemma.encode(None, &text("Human: hi")).unwrap_err();
    assert!(whole.is_about_the_text() && whole.to_string().contains("list of messages"), "{whole}");
}

#[test]
fn a_million_tokens_are_cut() {
    let golden = Golden::read();
    let long = "a b ".repeat(500_000);
    for literal in [false, true] {
        let encoder = golden.encoder("qwen3", EncodeSettings { literal, ..chat(512) });
        let found = encoder.encode(Some(&text(&long)), &text("<|im_end|>")).unwrap();
        assert!(found.truncated && found.ids.len() == 512 && found.tokens_before_truncation > 900_000, "{found:?}");
    }
}

/// The tokenizers of `golden/text`: literal pairs, against `split_special_tokens` of the same file.
#[test]
fn literal_pairs_are_those_of_a_tokenizer_that_splits_special_tokens() {
    let texts = ["", "plain", "a [SEP] b</s><mask> <|im_end|> x", "[CLS]", "<s>", "</s>"];
    for name in ["wordpiece", "byte_level", "unigram", "metaspace"] {
        let source = golden_dir().join("../text").join(name);
        let dir = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(&source).unwrap().flatten() {
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
        let path = dir.path().join("tokenizer_config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["split_special_tokens"] = true.into();
        std::fs::write(&path, config.to_string()).unwrap();
        let settings = EncodeSettings::new(Rendering::Pair, 99, Truncation::LongestFirst);
        let split = Encoder::load(dir.path(), settings.clone()).unwrap();
        let literal = Encoder::load(&source, EncodeSettings { literal: true, ..settings.clone() }).unwrap();
        let plain = Encoder::load(&source, settings).unwrap();
        for prompt in texts {
            for response in texts {
                let [prompt, response] = [prompt, response].map(text);
                let found = literal.encode(Some(&prompt), &response).unwrap();
                // A Unigram vocabulary has `</s>` among its pieces, so that splitting alone gives the token again.
                let expected = split.encode(Some(&prompt), &response).unwrap();
                assert!(found == expected || name == "unigram", "{name} {prompt:?} {response:?}");
                let special = |encoded: &Encoded| encoded.ids.iter().filter(|id| [0, 2, 4].contains(*id)).count();
                let around = special(
                    &plain.encode(Some(&text("x")), &text(if response == text("") { "" } else { "y" })).unwrap(),
                );
                assert!(special(&found) == around || name != "unigram", "{prompt:?} {response:?}: {found:?}");
                let control = plain.control_tokens(Some(&prompt), &response);
                assert_eq!(split.control_tokens(Some(&prompt), &response), 0, "{name}: nothing is a token there");
                let same = found == plain.encode(Some(&prompt), &response).unwrap();
                assert_eq!(same, control == 0, "{name} {prompt:?} {response:?} {control}");
            }
        }
    }
}

proptest! {
    /// Without control tokens in the messages, `literal` changes nothing, at any limit.
    #[test]
    fn literal_changes_control_tokens_alone(
        family in prop::sample::select(vec!["llama3", "qwen3", "phi3", "gemma3"]),
        max_length in prop::sample::select(vec![60usize, 90, NO_LIMIT]),
        render in prop::sample::select(vec![Rendering::Chat, Rendering::Concat, Rendering::Pair]),
        prompt in any::<String>(),
        response in "[ -~é\\n]{0,200}",
    ) {
        let golden = Golden::read();
        let settings = EncodeSettings { render, ..chat(max_length) };
        let literal = golden.encoder(family, EncodeSettings { literal: true, ..settings.clone() });
        let plain = golden.encoder(family, settings);
        let (prompt, response) = (text(&prompt), text(&response));
        prop_assume!(plain.control_tokens(Some(&prompt), &response) == 0);
        let [a, b] = [&plain, &literal].map(|encoder| encoder.encode(Some(&prompt), &response).unwrap());
        prop_assert_eq!(a, b);
    }

    /// With a text of control tokens and anything else: no panic, at most the limit, no control token of a message left.
    #[test]
    fn any_words_among_control_tokens(
        family in prop::sample::select(vec!["llama3_2", "qwen3", "phi3", "gemma"]),
        max_length in 90usize..200,
        pieces in prop::collection::vec(prop::sample::select(
            vec!["<|im_end|>", "<|end|>", " ", "</s>", "<", "|end|>", "</think>", "é", "\u{f0000}", "word ", "<bos>"]), 0..40),
    ) {
        let golden = Golden::read();
        let literal = golden.encoder(family, EncodeSettings { literal: true, ..chat(max_length) });
        let (words, empty) = (text(&pieces.concat()), text("x"));
        let found = literal.encode(Some(&words), &words).unwrap();
        let control = |encoded: &Encoded| encoded.ids.iter().filter(|id| is_control(&literal, **id) && **id < 18).count();
        prop_assert!(found.ids.len() <= max_length);
        prop_assert_eq!(control(&found), control(&literal.encode(Some(&empty), &empty).unwrap()));
    }
}
