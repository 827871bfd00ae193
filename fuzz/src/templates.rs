//! A chat template made of the bytes, and conversations through it.

use kudos::data::{Content, Message};
use kudos::text::{EncodeSettings, Encoder, Rendering, Truncation};
use std::path::Path;

const TOKENIZER: &[u8] = include_bytes!("../../golden/chat/tokenizer/tokenizer.json");

/// The part of the bytes before the first NUL is the template, the rest is what is said: `role:words` a line.
///
/// Whatever the template does, a conversation is refused by an error, or its ids fit the limit and are the same twice.
pub fn render(directory: &Path, data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (template, said) = text.split_once('\0').unwrap_or((&text, "user:a"));
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).unwrap();
    write("tokenizer.json", TOKENIZER);
    write("chat_template.jinja", template.as_bytes());
    let turn = |line: &str| {
        let (role, content) = line.split_once(':').unwrap_or(("user", line));
        Message { role: role.into(), content: content.into() }
    };
    let turns: Vec<Message> = said.lines().map(turn).collect();
    let (prompt, response) = (Content::Messages(turns.clone()), Content::Text(said.into()));
    for (max_length, truncation, literal) in [
        (1 << 20, Truncation::LongestFirst, false),
        (40, Truncation::KeepResponse, true),
        (25, Truncation::LongestFirst, false),
    ] {
        let settings = EncodeSettings { literal, ..EncodeSettings::new(Rendering::Chat, max_length, truncation) };
        let Ok(encoder) = Encoder::load(directory, settings) else { continue };
        for input in [(Some(&prompt), &response), (None, &prompt)] {
            if let Ok(encoded) = encoder.encode(input.0, input.1) {
                assert!(!encoded.ids.is_empty() && encoded.ids.len() <= max_length);
                assert_eq!(encoded.truncated, encoded.tokens_before_truncation > encoded.ids.len());
                assert_eq!(encoder.encode(input.0, input.1).ok(), Some(encoded));
            }
            let _ = encoder.keeps_response(input.0, input.1);
            assert!(!literal || encoder.control_tokens(input.0, input.1) == 0);
        }
    }
}
