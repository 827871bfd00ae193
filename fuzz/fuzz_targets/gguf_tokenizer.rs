//! Vocabularies of GGUF files: settings made of the bytes, a text encoded with whatever they make, and decoded again.
#![no_main]

use kudos::text::{GgufVocabulary, Prompter};

const SPLITS: [&str; 6] = ["default", "gpt-2", "smollm", "llama-bpe", "qwen2", "mystery"];

/// The first bytes are the settings; the rest is four lines: tokens, merges, a template, a text.
fn vocabulary(settings: &[u8], tokens: &str, merges: &str, template: &str) -> GgufVocabulary {
    let words = |line: &str| line.split('|').map(str::to_owned).collect::<Vec<_>>();
    let tokens = words(tokens);
    let id = |at: usize| (settings[at] != 255).then(|| u32::from(settings[at]));
    let flag = |at: u32| (settings[6] >> at & 1 == 1).then_some(settings[7] >> at & 1 == 1);
    GgufVocabulary {
        model: if settings[0] % 2 == 0 { "gpt2" } else { "llama" }.into(),
        pre: SPLITS.get(usize::from(settings[0] / 2)).map(|split| (*split).into()),
        scores: tokens.iter().map(|token| f32::from_bits((token.len() as u32).wrapping_mul(0x1020_3040))).collect(),
        token_types: tokens.iter().zip(settings.iter().cycle()).map(|(_, kind)| u32::from(kind % 8)).collect(),
        merges: if merges.is_empty() { Vec::new() } else { words(merges) },
        tokens,
        bos: id(1),
        eos: id(2),
        end_of_turn: id(3),
        unknown: id(4),
        padding: id(5),
        add_bos: flag(0),
        add_eos: flag(1),
        add_space_prefix: flag(2),
        chat_template: (!template.is_empty()).then(|| template.to_owned()),
        ..GgufVocabulary::default()
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((settings, rest)) = data.split_at_checked(8) else { return };
    let rest = String::from_utf8_lossy(rest);
    let mut lines = rest.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let vocabulary = vocabulary(settings, line(), line(), line());
    let (text, tokens) = (line(), vocabulary.tokens.len());
    let Ok(prompter) = Prompter::from_gguf(vocabulary) else { return };
    if let Ok(ids) = prompter.encode(text, true) {
        assert!(ids.iter().all(|id| (*id as usize) < tokens), "an id that no token has");
        let _ = prompter.decode(&ids, true);
    }
    let message = kudos::data::Message { role: "user".into(), content: text.into() };
    let _ = prompter.render_chat(&[message], true);
});
