//! Frozen features: what the head's last layer reads of each text while the encoder is as the run found it.
//!
//! Choosing the start, fitting the head, measuring it, fitting it again, every member of an ensemble and every training of
//! the folds want the features of the same texts under the same encoder. Each text is read once for all of them.

use super::{Example, TrainError};
use crate::models::{JudgeError, Model, ScoreError, Workspace, features_each};
use crate::nn::{Place, Precision};
use crate::text::Encoded;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};

/// The features of the texts that were read so far, for one encoder. Reading with another one starts anew.
#[derive(Default)]
pub struct Features {
    encoder: u64,
    rows: HashMap<Key, Box<[f32]>>,
    reads: usize,
}

/// A text by its ids and segments.
type Key = [u8; 32];

impl Features {
    /// Texts that went through the network so far.
    pub fn reads(&self) -> usize {
        self.reads
    }

    /// What the head's last layer reads of the texts, `[texts, width]`, in the order given.
    ///
    /// # Errors
    /// [`JudgeError::Unscored`] for the first text that has none.
    pub fn of(
        &mut self,
        model: &Model,
        precision: Precision,
        texts: &[&Encoded],
        workspace: &mut Workspace,
    ) -> Result<Vec<f32>, JudgeError> {
        let encoder = fingerprint(model, precision);
        if encoder != self.encoder {
            (self.encoder, self.rows) = (encoder, HashMap::new());
        }
        let keys: Vec<Key> = texts.iter().map(|text| key(text)).collect();
        self.read_new(model, texts, &keys, workspace)?;
        Ok(keys.iter().flat_map(|key| self.rows[key].iter().copied()).collect())
    }

    /// Reads the texts that were not read before, each once.
    fn read_new(
        &mut self,
        model: &Model,
        texts: &[&Encoded],
        keys: &[Key],
        workspace: &mut Workspace,
    ) -> Result<(), JudgeError> {
        let mut seen = HashSet::new();
        let is_new = |at: &usize| !self.rows.contains_key(&keys[*at]) && seen.insert(keys[*at]);
        let new: Vec<usize> = (0..texts.len()).filter(is_new).collect();
        let unread: Vec<&Encoded> = new.iter().map(|at| texts[*at]).collect();
        let rows = features_each(model, &unread, workspace);
        self.reads += new.len();
        for (at, row) in new.into_iter().zip(rows) {
            let row = row.map_err(|error| JudgeError::Unscored { text: at, error })?;
            self.rows.insert(keys[at], row.into());
        }
        Ok(())
    }

    /// The features of each example, `[responses, width]`.
    ///
    /// # Errors
    /// As [`Self::of`]; a feature that is not finite is an error with the row of its group.
    pub(super) fn of_examples(
        &mut self,
        model: &Model,
        precision: Precision,
        examples: &[&Example],
        workspace: &mut Workspace,
    ) -> Result<Vec<Vec<f32>>, TrainError> {
        let texts: Vec<&Encoded> = examples.iter().flat_map(|example| &example.sequences).collect();
        let rows = match self.of(model, precision, &texts, workspace) {
            Err(JudgeError::Unscored { text, error: ScoreError::NotFinite { value } }) => {
                let groups = examples.iter().flat_map(|e| std::iter::repeat_n(&e.location, e.sequences.len()));
                let place = groups.clone().nth(text).expect("the text is one of the examples'").to_string();
                return Err(TrainError::Features { place, value });
            }
            rows => rows?,
        };
        let width = rows.len() / texts.len().max(1);
        let mut rows = rows.as_slice();
        let own =
            |example: &&Example| rows.split_off(..example.sequences.len() * width).expect("a row a text").to_vec();
        Ok(examples.iter().map(own).collect())
    }
}

fn key(text: &Encoded) -> Key {
    let mut hash = Sha256::new();
    hash.update((text.ids.len() as u64).to_le_bytes());
    hash.update(bytemuck::cast_slice::<u32, u8>(&text.ids));
    hash.update(bytemuck::cast_slice::<u32, u8>(&text.type_ids));
    hash.finalize().into()
}

/// A number for everything that features depend on besides the text: all weights that may move but the output layer's, the number of
/// layers, the arithmetic.
fn fingerprint(model: &Model, precision: Precision) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let output = model.head_out();
    let mut hash = FACTOR ^ (model.config.layers() as u64) << 8 ^ precision as u64;
    for spec in model.parameters.specs() {
        // What is packed is frozen, so it is the base's in every model of a run.
        if [output.weight.start, output.bias.start].contains(&spec.span.start) || spec.place() == Place::Packed {
            continue;
        }
        for value in &model.parameters.values[spec.span.range()] {
            hash = (hash ^ u64::from(value.to_bits())).wrapping_mul(FACTOR).rotate_left(29);
        }
    }
    hash
}
