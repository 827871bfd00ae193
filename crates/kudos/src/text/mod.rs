//! Rendering of (prompt, response) to token ids: the one encode function of training, evaluation and scoring; and
//! of prompts to ids and ids to text, for generation.
//!
//! A reward model is only as good as the agreement between the ids it was trained on and the ids it
//! is asked about, so there is exactly one path from text to ids, and [`EncodeSettings`] travels with
//! the judge in `reward.json`. Ids, type ids and truncation are those of transformers 5, which is what a
//! user compares with; where transformers does not take `tokenizer.json` at its word, neither do we
//! (`tokenizer_class` holds the rules).
//!
//! | file | purpose |
//! |---|---|
//! | `encoder` | [`Encoder`]: load once, encode one or many, cut to the token limit |
//! | `prompter` | [`Prompter`]: prompts and chats → ids, ids → text, for generation |
//! | `ends` | which tokens end a response |
//! | `gguf_tokenizer` | the tokenizer of a GGUF file's vocabulary |
//! | `render` | contents → the text or pair of texts to tokenise |
//! | `chat` | chat templates, rendered as transformers renders them |
//! | `python`, `percent`, `tojson`, `dates` | what those use of Python: string methods, `'%s' % x`, `json.dumps`, `strftime` |
//! | `tokenizer_class` | which tokenizer class transformers picks |
//! | `rebuild` | what that class makes of `tokenizer.json` |
//! | `tokenizer_config` | `tokenizer_config.json` and the small files around it |
//! | `error` | [`TextError`] |
//!
//! This module knows text and ids. It must not know models, batches or where the records came from.

mod chat;
mod dates;
mod encoder;
mod ends;
mod error;
mod gguf_tokenizer;
mod percent;
mod prompter;
mod python;
mod rebuild;
mod render;
mod tojson;
mod tokenizer_class;
mod tokenizer_config;

pub use encoder::{Encoded, Encoder, TOKENIZER_CONFIG, TOKENIZER_FILES, TokenizerFile, with_max_length};
pub use error::TextError;
pub use gguf_tokenizer::GgufVocabulary;
pub use prompter::Prompter;

use serde::{Deserialize, Serialize};

fn tokenizer_failed(error: tokenizers::Error) -> TextError {
    TextError::Tokenize(error.to_string())
}

/// How a prompt and a response become the text that is tokenised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rendering {
    /// Two sequences with the tokenizer's separators: `tokenizer(prompt, response)`. For encoders.
    Pair,
    /// One sequence, the prompt followed by the response and the end-of-sequence token, as TRL does.
    Concat,
    /// The tokenizer's chat template over the prompt's messages and the response.
    Chat,
}

/// What is cut when a text has more tokens than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// The longer of the two sequences first, as `truncation=True` does in transformers; one sequence
    /// is cut on the tokenizer's `truncation_side` (its end, unless the config says otherwise).
    LongestFirst,
    /// The prompt's start first. A response that does not fit alone loses its end, and the prompt entirely.
    KeepResponse,
}

/// The part of `reward.json` that decides which ids a (prompt, response) becomes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EncodeSettings {
    /// How prompt and response are put together.
    pub render: Rendering,
    /// Most tokens of an encoded text, special tokens included.
    pub max_length: usize,
    /// What is cut beyond `max_length`.
    pub truncation: Truncation,
}
