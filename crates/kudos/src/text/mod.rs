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
//! | `encoder` | [`Encoder`]: load once, encode one or many, cut to the token limit; `conversations` through a template |
//! | `prompter` | [`Prompter`]: prompts and chats → ids, ids → text, for generation |
//! | `ends` | which tokens end a response |
//! | `gguf_tokenizer` | the tokenizer of a GGUF file's vocabulary |
//! | `gguf_files` | that tokenizer as the files of a model directory |
//! | `splitter` | text → tokens, with control tokens of messages taken for themselves or for plain text |
//! | `control` | control tokens inside messages |
//! | `render` | contents → the text or pair of texts to tokenise |
//! | `chat` | chat templates, rendered as transformers renders them |
//! | `judge_template` | the template of a judge that asks a model a question |
//! | `cut` | what is cut of a conversation that is too long |
//! | `pooled` | which token a decoder judge reads its score at |
//! | `max_length` | the token limit in `tokenizer_config.json` |
//! | `python`, `percent`, `tojson`, `dates` | what those use of Python: string methods, `'%s' % x`, `json.dumps`, `strftime` |
//! | `growth` | how large a text of a template may grow |
//! | `tokenizer_class` | which tokenizer class transformers picks |
//! | `rebuild` | what that class makes of `tokenizer.json` |
//! | `tokenizer_config` | `tokenizer_config.json` and the small files around it |
//! | `error` | [`TextError`] |
//!
//! This module knows text and ids. It must not know models, batches or where the records came from.

mod chat;
mod control;
mod cut;
mod dates;
mod encoder;
mod ends;
mod error;
mod gguf_files;
mod gguf_tokenizer;
mod growth;
mod judge_template;
mod max_length;
mod percent;
mod pooled;
mod prompter;
mod python;
mod rebuild;
mod render;
mod splitter;
mod tojson;
mod tokenizer_class;
mod tokenizer_config;

pub use dates::Day;
pub use encoder::{Encoded, Encoder, TOKENIZER_FILES, TokenizerFile};
pub use error::TextError;
pub use gguf_files::write_tokenizer;
pub use gguf_tokenizer::GgufVocabulary;
pub use judge_template::{Asked, QUESTION, TEMPLATE_FILE, judge_template, set_template, template_of};
pub use max_length::{TOKENIZER_CONFIG, with_max_length};
pub use pooled::{check_pad, pad_for_judge, pooled_index};
pub use prompter::Prompter;

use serde::{Deserialize, Serialize};
use std::path::Path;
use tokenizer_config::TokenizerConfig;

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

/// What is cut when a text has more tokens than the limit. Of a conversation, in [`Rendering::Chat`], only words of the
/// messages are ever cut: the template's own words stay, as special tokens do, and so does the end that a judge reads
/// its score at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// The longer of the two sequences first, as `truncation=True` does in transformers; one sequence
    /// is cut on the tokenizer's `truncation_side` (its end, unless the config says otherwise). Of a conversation, the
    /// prompt loses its start and the response its end.
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
    /// The day that a chat template gets where it asks for the date; [`Day::DEFAULT`] without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<Day>,
    /// Whether control tokens inside messages (`<|im_end|>`, `[SEP]`, …) are plain text. The tokenizer takes them for
    /// themselves otherwise, as transformers does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub literal: bool,
}

impl EncodeSettings {
    /// Settings without a date, with control tokens taken for themselves.
    pub fn new(render: Rendering, max_length: usize, truncation: Truncation) -> Self {
        Self { render, max_length, truncation, date: None, literal: false }
    }

    /// What a decoder without `reward.json` means: its chat template where it has one, else [`Rendering::Concat`].
    ///
    /// # Errors
    /// Tokenizer files that cannot be read.
    pub fn of_decoder(dir: &Path, max_length: usize) -> Result<Self, TextError> {
        let has_template = TokenizerConfig::read(dir)?.chat_template.is_some();
        let render = if has_template { Rendering::Chat } else { Rendering::Concat };
        Ok(Self::new(render, max_length, Truncation::LongestFirst))
    }
}
