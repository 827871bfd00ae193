//! The vocabulary of the data files: contents, messages and the place a row came from.

use std::sync::Arc;

/// One turn of a conversation, as chat-format data sets store it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or whatever the file says.
    pub role: String,
    /// The text of the turn.
    pub content: String,
}

/// A prompt, a response or a whole transcript: plain text, or a list of messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// `[{role, content}, …]`.
    Messages(Vec<Message>),
}

/// Where a row stands: what an error or a finding points at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The file as the user named it; `-` is standard input.
    pub file: Arc<str>,
    /// Line the row starts at, from 1 (row number, from 1, for Parquet).
    pub line: u64,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
