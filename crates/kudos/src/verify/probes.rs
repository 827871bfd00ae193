//! The texts that a judge is tested on: ordinary ones of several lengths, and the edges of what a text can be.

use crate::data::{Content, Message};
use crate::models::{Input, JudgeError};
use crate::text::{Encoder, Rendering};

/// A text to score.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What is special about it.
    pub name: &'static str,
    /// The prompt; `None` for a whole transcript.
    pub prompt: Option<Content>,
    /// The response.
    pub response: Content,
}

impl Probe {
    fn new(name: &'static str, prompt: Option<&str>, response: impl Into<String>) -> Self {
        let prompt = prompt.map(|prompt| Content::Text(prompt.into()));
        Self { name, prompt, response: Content::Text(response.into()) }
    }

    /// A chat template takes a transcript as turns, and nothing else.
    fn transcript_as_turns(&mut self) {
        if let (None, Content::Text(text)) = (&self.prompt, &self.response) {
            let turn = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
            self.response = Content::Messages(vec![turn("user", "Why?"), turn("assistant", text)]);
        }
    }

    /// What a judge takes.
    pub fn input(&self) -> Input<'_> {
        (self.prompt.as_ref(), &self.response)
    }
}

/// What a judge takes, of each.
pub fn inputs(probes: &[Probe]) -> Vec<Input<'_>> {
    probes.iter().map(Probe::input).collect()
}

/// Ordinary questions with answers of several lengths: those with a prompt stand in pairs, a better and a worse one.
const QUESTIONS: [(&str, [&str; 2]); 6] = [
    (
        "How do I keep bread fresh?",
        [
            "Keep it in a paper bag or a bread box, cut side down, and freeze what you will not eat in three days.",
            "Bread.",
        ],
    ),
    ("What is 17 + 25?", ["42", "It is about 40, but I would have to look it up in a table of sums to be quite sure."]),
    (
        "Write a line about the sea.",
        ["Grey water folds itself over the stones, again and again.", "The sea is wet, and there is a lot of it."],
    ),
    (
        "Is it safe to mix bleach and vinegar?",
        ["No. They make chlorine gas: open a window and leave.", "Sure, go ahead!"],
    ),
    (
        "Summarise: The council met on Monday. It raised the fee for parking from 2 to 3 euros.",
        ["On Monday the council raised the parking fee from 2 to 3 euros.", "A council met."],
    ),
    (
        "Who wrote the first computer program?",
        [
            "Ada Lovelace is usually named: her notes of 1843 on Babbage's Analytical Engine hold a program that computes \
             Bernoulli numbers. Babbage himself had written smaller ones some years earlier, which were not printed.",
            "A man in California.",
        ],
    ),
];

/// The ordinary texts: twelve responses, two to each prompt in turn, and a chat.
pub fn plain() -> Vec<Probe> {
    let both = |(prompt, responses): &(&'static str, [&'static str; 2])| {
        let prompt = Some(*prompt);
        responses.map(|response| Probe::new("plain", prompt, response))
    };
    QUESTIONS.iter().flat_map(both).chain([chat()]).collect()
}

fn chat() -> Probe {
    let turn = |(role, content): (&str, &str)| Message { role: role.into(), content: content.into() };
    let prompt = [("user", "Hello"), ("assistant", "Hello! What can I do?"), ("user", "Name a river.")].map(turn);
    let response = [turn(("assistant", "The Danube."))];
    Probe { name: "chat", prompt: Some(Content::Messages(prompt.into())), response: Content::Messages(response.into()) }
}

/// The long text that is scored in every company.
///
/// # Errors
/// As [`edges`].
pub fn long(encoder: &Encoder, tokens: usize) -> Result<Probe, JudgeError> {
    Ok(Probe { name: LONG, ..of_length(encoder, tokens)? })
}

/// What [`long`] is called.
pub const LONG: &str = "long";
/// What the text is called that is exactly as long as the judge allows.
pub const AT_THE_LIMIT: &str = "exactly the token limit";
/// A word that nearly every tokenizer has as one token.
const WORD: &str = "a";

/// The edges: the length of a text, and what characters it may hold. What the encoder cannot make to measure is
/// given in the nearest length.
///
/// # Errors
/// An encoder that refuses plain letters.
pub fn edges(encoder: &Encoder) -> Result<Vec<Probe>, JudgeError> {
    let (prompt, limit) = (Some("Why?"), encoder.settings().max_length);
    let mut edges = vec![
        Probe::new("empty response", prompt, ""),
        Probe::new("empty prompt", Some(""), "Because."),
        Probe::new("empty prompt and response", Some(""), ""),
        Probe::new("white space", Some(" \n\t"), "  \u{a0}\n"),
        Probe::new("no prompt", None, "User: Why? Assistant: Because."),
        Probe::new("one token", None, WORD),
        Probe { name: AT_THE_LIMIT, ..of_length(encoder, limit)? },
        Probe { name: "one token over the limit", ..of_length(encoder, limit + 1)? },
        Probe::new("100,000 characters", prompt, "a long answer ".repeat(7143)),
        Probe::new("100,000 characters, no space", prompt, "x".repeat(100_000)),
    ];
    edges.extend(UNICODE.iter().map(|(name, text)| Probe::new(name, Some(text), *text)));
    if encoder.settings().render == Rendering::Chat {
        edges.iter_mut().for_each(Probe::transcript_as_turns);
    }
    Ok(edges)
}

/// Kinds of characters that have broken tokenizers.
const UNICODE: [(&str, &str); 9] = [
    ("emoji joined by ZWJ", "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽"),
    ("right to left", "שלום עולם — مرحبا بالعالم \u{202e}reversed\u{202c}"),
    ("NUL and controls", "a\0b\u{7}\u{1b}[0m\u{7f}c"),
    ("lone combining marks", "\u{301}\u{308} \u{20d0}e\u{301}\u{301}\u{301}"),
    ("CJK", "銀河鉄道の夜 한국어 中文字符測試"),
    ("private use", "\u{e000}\u{f8ff}\u{100000}\u{10fffd}"),
    ("noncharacters", "\u{fffe}\u{ffff}\u{fdd0}\u{10ffff}\u{feff}"),
    ("Indic and Thai", "क्षत्रिय ภาษาไทย தமிழ்"),
    ("mathematics and old scripts", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ∑∂x² 𒀀𒁀 𓂀"),
];

/// A text of so many tokens before it is cut, or as near as one word repeated comes.
pub fn of_length(encoder: &Encoder, tokens: usize) -> Result<Probe, JudgeError> {
    let repeated = |words: usize| Probe::new("sized", Some("Why?"), [WORD].repeat(words).join(" "));
    let count = |words: usize| -> Result<usize, JudgeError> {
        let probe = repeated(words);
        let (prompt, response) = probe.input();
        Ok(encoder.encode(prompt, response)?.tokens_before_truncation)
    };
    let (one, two) = (count(1)?, count(2)?);
    let more = tokens.saturating_sub(one).checked_div(two.saturating_sub(one)).unwrap_or(0);
    Ok(repeated(1 + more))
}
