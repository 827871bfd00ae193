//! What is asked for, and what comes back.

use crate::data::Content;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A prompt of the list, with the columns that go to the output beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// A text, or messages for a chat template.
    pub content: Content,
    /// Where it stands, for messages to people (`prompts.txt:3`).
    pub place: String,
}

/// How the next token is chosen, in transformers' terms; applied in the order of the fields.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Divides (or multiplies, when negative) the logits of tokens that occurred, the prompt's too; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keeps the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most probable tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this probable relative to the most probable; 0 keeps all.
    pub min_p: f32,
}

impl Default for Sampling {
    /// The settings that candidates for rankings are drawn with by default: varied, and seldom off the rails.
    fn default() -> Self {
        Self { repetition_penalty: 1.2, temperature: 0.8, top_k: 0, top_p: 0.92, min_p: 0.0 }
    }
}

/// Which text it is: response `index` of a prompt, in its `retry`-th try (after duplicates).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// Index in the list of prompts.
    pub prompt: usize,
    /// `0..n`.
    pub index: usize,
    /// 0, or the number of times that this response was a duplicate.
    pub retry: u32,
}

/// Why a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a stop string came.
    Stop,
    /// It reached `--max-new-tokens`, or the model's context.
    Length,
    /// It could not be had: `error` says why.
    Error,
}

/// A finished response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generated {
    /// Which one it is.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// The text, without prompt, special tokens and stop string.
    pub text: String,
    /// Seed of its random stream.
    pub seed: u64,
    /// The temperature it was drawn at.
    pub temperature: f32,
    /// Tokens drawn, the ending one included.
    pub tokens: usize,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What ended it, for [`FinishReason::Stop`]: the token's text or the stop string. A server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_by: Option<String>,
    /// What went wrong, for [`FinishReason::Error`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One response to draw: all that it depends on, but for the model.
#[derive(Clone, Debug)]
pub struct Task<'a> {
    /// Which one it is.
    pub attempt: Attempt,
    /// What is asked.
    pub prompt: &'a Prompt,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Seed of its random stream.
    pub seed: u64,
    /// Texts that end it; none of them is part of the response.
    pub stop: &'a [String],
    /// Most tokens it may have.
    pub max_new_tokens: usize,
}

/// The number as a person writes it: 0.7, and not 0.699999988079071.
pub fn shortest(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
