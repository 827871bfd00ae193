//! The vocabulary of a GGUF file, taken over for `text` as it stands.

use super::GgufModelError;
use crate::nn::gguf::{Gguf, Value};
use crate::text::GgufVocabulary;

/// The tokenizer's settings of a file. What they mean, and whether they make sense, is for
/// [`Prompter::from_gguf`](crate::text::Prompter::from_gguf) to say.
///
/// # Errors
/// No tokenizer, settings of another type, more tokens than the model has embeddings.
pub fn vocabulary(gguf: &Gguf) -> Result<GgufVocabulary, GgufModelError> {
    let text = |name| Ok::<_, GgufModelError>(gguf.text(&key(name))?.map(str::to_owned));
    let texts = |name| Ok::<_, GgufModelError>(gguf.texts(&key(name))?.unwrap_or_default().to_vec());
    let id = |name| token_id(gguf, name);
    let vocabulary = GgufVocabulary {
        origin: gguf.path().into(),
        model: text("model")?.ok_or_else(|| missing(gguf, "model", "gpt2 or llama"))?,
        pre: text("pre")?,
        tokens: texts("tokens")?,
        scores: list(gguf, "scores", |value| value.as_float().map(|score| score as f32))?,
        token_types: list(gguf, "token_type", |value| value.as_unsigned().and_then(|kind| u32::try_from(kind).ok()))?,
        merges: texts("merges")?,
        bos: id("bos_token_id")?,
        eos: id("eos_token_id")?,
        end_of_turn: id("eot_token_id")?,
        end_of_message: id("eom_token_id")?,
        unknown: id("unknown_token_id")?,
        padding: id("padding_token_id")?,
        add_bos: gguf.flag(&key("add_bos_token"))?,
        add_eos: gguf.flag(&key("add_eos_token"))?,
        add_space_prefix: gguf.flag(&key("add_space_prefix"))?,
        chat_template: gguf.text("tokenizer.chat_template")?.map(str::to_owned),
    };
    check_rows(gguf, vocabulary.tokens.len()).map(|()| vocabulary)
}

fn key(name: &str) -> String {
    format!("tokenizer.ggml.{name}")
}

fn missing(gguf: &Gguf, name: &str, expected: &str) -> GgufModelError {
    let found = gguf.metadata.get(&key(name)).map_or("missing".into(), Value::to_string);
    GgufModelError::Setting { path: gguf.path().into(), key: key(name), expected: expected.into(), found }
}

fn token_id(gguf: &Gguf, name: &str) -> Result<Option<u32>, GgufModelError> {
    let Some(id) = gguf.unsigned(&key(name))? else {
        return Ok(None);
    };
    u32::try_from(id).map(Some).map_err(|_| missing(gguf, name, "a token's id"))
}

fn list<T>(gguf: &Gguf, name: &str, read: impl Fn(Value) -> Option<T>) -> Result<Vec<T>, GgufModelError> {
    let Some(numbers) = gguf.numbers(&key(name))? else {
        return Ok(Vec::new());
    };
    let values: Option<Vec<T>> = numbers.iter().map(read).collect();
    values.ok_or_else(|| missing(gguf, name, "one number a token"))
}

/// A token without an embedding could be made and not be read.
fn check_rows(gguf: &Gguf, tokens: usize) -> Result<(), GgufModelError> {
    let rows = gguf.tensors.get("token_embd.weight").and_then(|table| table.shape.first().copied());
    match rows {
        Some(rows) if tokens > rows => Err(missing(gguf, "tokens", &format!("at most {rows}, one for each embedding"))),
        _ => Ok(()),
    }
}
