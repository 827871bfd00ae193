//! What a GGUF file says, in Hugging Face's terms.
//!
//! llama.cpp's converter renames every setting and every tensor of a checkpoint, and changes some of the values:
//! it reorders the rows of Llama's queries and keys for its own kind of rotary embedding, adds 1 to Gemma's norm
//! weights, turns GPT-2's matrices round. Here all of that is undone, so that a model family reads one set of
//! keys and names, those of its `config.json` and its safetensors, wherever its weights lie:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use kudos::models::gguf;
//! let file = kudos::nn::gguf::Gguf::open(std::path::Path::new("SmolLM2-135M-Instruct.Q4_1.gguf"))?;
//! let config = gguf::config(&file)?; // {"model_type": "llama", "hidden_size": 576, …}
//! let name = "model.layers.3.self_attn.q_proj.weight";
//! let shape = gguf::shape(&file, name).expect("a Llama has it");
//! let mut values = vec![0.0; shape.iter().product()];
//! gguf::read_tensor(&file, name, &mut values)?;
//! let prompter = kudos::text::Prompter::from_gguf(gguf::vocabulary(&file)?)?;
//! # Ok(()) }
//! ```
//!
//! | file | purpose |
//! |---|---|
//! | `mod` | the functions above |
//! | `config` | settings → `config.json` |
//! | `names` | parameter names → tensor names, and what was done to the values |
//! | `rope` | scaled rotary embeddings |
//! | `vocabulary` | settings → [`GgufVocabulary`](crate::text::GgufVocabulary) |
//!
//! Families: Llama, Qwen2, Qwen3, Gemma 3 (text), Phi-2 and GPT-2. llama.cpp writes Mistral's models as Llamas, and so
//! they are read. One whose file names a sliding window is described as Mistral's, and `Decoder` refuses it.

mod config;
mod names;
mod rope;
mod vocabulary;

pub use vocabulary::vocabulary;

use crate::nn::gguf::{Gguf, GgufError};
use names::{StoredTensor, Transform};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// One way for a sound GGUF file to be no model that is known here each.
#[derive(Debug, thiserror::Error)]
pub enum GgufModelError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] GgufError),
    /// A family that is not known.
    #[error("{path}: architecture {found:?}, expected one of {known}")]
    Architecture {
        /// File.
        path: PathBuf,
        /// What `general.architecture` says.
        found: String,
        /// What it may say.
        known: String,
    },
    /// A setting is missing or has an impossible value.
    #[error("{path}: `{key}` is {found}, expected {expected}")]
    Setting {
        /// File.
        path: PathBuf,
        /// Setting.
        key: String,
        /// What would do.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A parameter that the family does not have or the file does not hold.
    #[error("{path}: no tensor for the parameter `{parameter}`")]
    Parameter {
        /// File.
        path: PathBuf,
        /// Its Hugging Face name.
        parameter: String,
    },
    /// A tensor whose shape contradicts what was done to it.
    #[error("{path}: tensor `{tensor}` of shape {shape:?}: {reason}")]
    Shape {
        /// File.
        path: PathBuf,
        /// Its name in the file.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// What it should be.
        reason: String,
    },
}

/// The model families whose files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
    Phi,
    Gpt2,
}

const ARCHITECTURES: [(&str, Architecture); 6] = [
    ("llama", Architecture::Llama),
    ("qwen2", Architecture::Qwen2),
    ("qwen3", Architecture::Qwen3),
    ("gemma3", Architecture::Gemma3),
    ("phi2", Architecture::Phi),
    ("gpt2", Architecture::Gpt2),
];

impl Architecture {
    fn of(gguf: &Gguf) -> Result<Self, GgufModelError> {
        let found = gguf.text("general.architecture")?.unwrap_or_default();
        let family = ARCHITECTURES.iter().find(|(name, _)| *name == found).map(|(_, family)| *family);
        family.ok_or_else(|| GgufModelError::Architecture {
            path: gguf.path().into(),
            found: found.into(),
            known: ARCHITECTURES.map(|(name, _)| name).join(", "),
        })
    }

    /// How its settings begin.
    fn prefix(self) -> &'static str {
        ARCHITECTURES.iter().find(|(_, family)| *family == self).map_or("", |(name, _)| name)
    }
}

/// The `config.json` of the same checkpoint on the Hugging Face hub, as far as its model is concerned.
///
/// `rope_theta` stands at the top level; `rope_scaling` only if the rotary embedding is scaled.
///
/// # Errors
/// An unknown architecture; settings that are missing or contradict each other or the tensors.
pub fn config(gguf: &Gguf) -> Result<Map<String, Value>, GgufModelError> {
    config::config(gguf, Architecture::of(gguf)?)
}

/// Whether the file holds a parameter, by its Hugging Face name. A tied `lm_head.weight` is not held.
pub fn has(gguf: &Gguf, parameter: &str) -> bool {
    shape(gguf, parameter).is_some()
}

/// What the file calls the tensor that holds a parameter; `None` if it holds none.
pub(super) fn stored_name(gguf: &Gguf, parameter: &str) -> Option<String> {
    let source = names::source(gguf, Architecture::of(gguf).ok()?, parameter)?;
    gguf.tensors.contains_key(&source.tensor).then_some(source.tensor)
}

/// The shape of a parameter as Hugging Face has it; `None` if the file does not hold it.
pub fn shape(gguf: &Gguf, parameter: &str) -> Option<Vec<usize>> {
    shape_of(gguf, &names::source(gguf, Architecture::of(gguf).ok()?, parameter)?)
}

/// `None` also for a tensor that cannot have been made by the converter: three dimensions to turn round.
fn shape_of(gguf: &Gguf, source: &StoredTensor) -> Option<Vec<usize>> {
    let mut shape = gguf.tensors.get(&source.tensor)?.shape.clone();
    match &source.transform {
        Transform::Transposed | Transform::Rows(_) if shape.len() > 2 => return None,
        Transform::Transposed => shape.reverse(),
        Transform::Rows(rows) => *shape.first_mut()? = rows.len(),
        Transform::Same | Transform::Heads(_) | Transform::MinusOne => {}
    }
    Some(shape)
}

/// Reads a parameter into `values`, with the values and in the order that Hugging Face has.
///
/// # Errors
/// A parameter that is not held, another number of values, and what [`Gguf::read`] refuses.
pub fn read_tensor(gguf: &Gguf, parameter: &str, values: &mut [f32]) -> Result<(), GgufModelError> {
    let family = Architecture::of(gguf)?;
    let missing = || GgufModelError::Parameter { path: gguf.path().into(), parameter: parameter.into() };
    let source = names::source(gguf, family, parameter).ok_or_else(missing)?;
    let expected = shape_of(gguf, &source).ok_or_else(missing)?.iter().product();
    let StoredTensor { tensor, transform } = source;
    if values.len() != expected {
        let (path, found) = (gguf.path().into(), values.len());
        return Err(GgufError::Length { path, tensor, expected, found }.into());
    }
    match transform {
        Transform::Same => gguf.read(&tensor, values)?,
        Transform::MinusOne => {
            gguf.read(&tensor, values)?;
            values.iter_mut().for_each(|value| *value -= 1.0);
        }
        Transform::Rows(rows) => read_part(gguf, &tensor, &rows, values)?,
        Transform::Transposed => {
            let stored = read_stored(gguf, &tensor)?;
            transpose(&stored, gguf.tensor(&tensor)?.shape.first().copied().unwrap_or(1), values);
        }
        Transform::Heads(heads) => {
            let rows = gguf.tensor(&tensor)?.shape.first().copied().unwrap_or(1);
            if heads == 0 || !rows.is_multiple_of(heads) || !(rows / heads).is_multiple_of(2) {
                let reason = format!("its rows should be those of {heads} heads, an even number each");
                return Err(bad_shape(gguf, &tensor, reason));
            }
            let stored = read_stored(gguf, &tensor)?;
            join_halves(&stored, rows / heads, rows, values);
        }
    }
    Ok(())
}

fn read_stored(gguf: &Gguf, tensor: &str) -> Result<Vec<f32>, GgufError> {
    let mut stored = vec![0.0; gguf.tensor(tensor)?.len()];
    gguf.read(tensor, &mut stored)?;
    Ok(stored)
}

/// Rows of a matrix, or as many values of a vector.
fn read_part(
    gguf: &Gguf,
    tensor: &str,
    rows: &std::ops::Range<usize>,
    values: &mut [f32],
) -> Result<(), GgufModelError> {
    let shape = &gguf.tensor(tensor)?.shape;
    if shape.len() > 1 {
        gguf.read_rows(tensor, rows.start, values)?;
    } else {
        let stored = read_stored(gguf, tensor)?;
        values.copy_from_slice(&stored[rows.clone()]);
    }
    Ok(())
}

fn bad_shape(gguf: &Gguf, tensor: &str, reason: String) -> GgufModelError {
    let shape = gguf.tensors.get(tensor).map(|tensor| tensor.shape.clone()).unwrap_or_default();
    GgufModelError::Shape { path: gguf.path().into(), tensor: tensor.into(), shape, reason }
}

/// A matrix of `rows` rows → its transpose.
fn transpose(stored: &[f32], rows: usize, values: &mut [f32]) {
    let width = stored.len() / rows.max(1);
    for (at, value) in values.iter_mut().enumerate() {
        *value = stored[(at % rows) * width + at / rows];
    }
}

/// llama.cpp's rotary embedding turns neighbouring rows of a head together (0 with 1, 2 with 3, …), Hugging Face's
/// turns row i of the first half with row i of the second: even rows become the first half, odd ones the second.
fn join_halves(stored: &[f32], head_rows: usize, rows: usize, values: &mut [f32]) {
    let width = stored.len() / rows.max(1);
    if width == 0 {
        return;
    }
    for (row, values) in values.chunks_exact_mut(width).enumerate() {
        let (head, place) = (row / head_rows, row % head_rows);
        let (half, place) = (place / (head_rows / 2), place % (head_rows / 2));
        let from = head * head_rows + 2 * place + half;
        values.copy_from_slice(&stored[from * width..(from + 1) * width]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_put_back_in_halves() {
        // Two heads of four rows, one value each: the converter made 0 2 1 3 of 0 1 2 3.
        let stored = [0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0];
        let mut values = [0.0; 8];
        join_halves(&stored, 4, 8, &mut values);
        assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]);
    }

    #[test]
    fn matrices_are_turned_round() {
        let mut values = [0.0; 6];
        transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, &mut values);
        assert_eq!(values, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
