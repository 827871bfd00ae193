//! What a decoder needs beyond writing to become better at it: −ln p of the words of whole texts with a way back, and
//! copies of itself that write and that remember.
//!
//! The policy is a [`Decoder`] with all values in the flat buffer. Its writer is a packed copy, made anew when the values
//! have moved.

use super::decoder::{self, DecoderHead};
use super::generator::{Decoder, Kept};
use super::layer::Norms;
use super::load::LoadError;
use super::model::attention_fits;
use crate::nn::weights::WeightError;
use crate::nn::{
    Batch, LinearSpec, Packed, PackedLayer, Parameters, Place, Precision, State, Storage, Tape, Var, WordsSpec,
};
use kernels::gemm::PackedWeight;
use std::path::Path;

/// The words of some texts in a batch: at each of these rows, which word comes next.
#[derive(Clone, Debug, Default)]
pub struct NextWords {
    /// Rows of the batch.
    pub rows: Vec<usize>,
    /// `[rows]`.
    pub words: Vec<u32>,
}

impl Decoder {
    /// Loads a model to read whole texts and be asked how likely they are, now and never changed: in bf16 with half of the
    /// memory, or in f32.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_to_read(path: &Path, precision: Precision) -> Result<Self, LoadError> {
        Self::load_as(path, DecoderHead::Words, Kept::ToRead(precision))
    }

    /// The precision it can be trained in when `asked` for one.
    pub fn training_precision(&self, asked: Precision) -> Precision {
        let products = self.network.products(None);
        let mut layers = self.network.layers.iter();
        let fits = products.iter().all(|product| PackedWeight::fits(product.inputs, product.outputs))
            && layers.all(|layer| attention_fits(layer) && !matches!(layer.norms, Norms::Parallel(_)));
        if asked == Precision::Bf16 && asked.runs_here() && fits { asked } else { Precision::F32 }
    }

    /// Packs the layers as they are now for training, in a precision that [`Self::training_precision`] gave. There is nothing
    /// to pack in f32.
    pub fn pack_for_training(&mut self, precision: Precision) {
        self.precision = precision;
        self.packed = match precision {
            Precision::Bf16 => Packed::for_training(&self.network.products(None), &self.parameters.values),
            _ => Packed::default(),
        };
    }

    /// Computes so many layers again on the way back instead of keeping what is in them.
    pub fn recompute(&mut self, layers: usize) {
        self.network.recomputed = layers.min(self.network.layers.len());
    }

    /// How values flow between its layers.
    pub fn storage(&self) -> Storage {
        self.packed.storage()
    }

    /// What an optimizer moves.
    pub fn trained_mut(&mut self) -> (&mut Parameters, &mut Packed) {
        (&mut self.parameters, &mut self.packed)
    }

    /// Pushes −ln p of the next words at these rows of whole texts, at a temperature: `[rows, 1]`.
    ///
    /// # Panics
    /// When a text has more tokens than [`Self::prepare_turns`] was told.
    pub fn word_losses(&self, tape: &mut Tape, batch: &Batch, next: &NextWords, temperature: f32) -> Var {
        let State { full, .. } = self.push_whole(tape, batch, None);
        let rows = tape.rows(State { full, operand: full }, next.rows.clone());
        let spec = WordsSpec { head: self.head, soft_cap: None, temperature };
        tape.word_losses(rows.full, spec, next.words.clone())
    }

    /// A copy that writes over a cache, once it follows the policy.
    ///
    /// # Errors
    /// [`WeightError::TooLarge`] for impossible sizes.
    pub fn writer(&self, precision: Precision) -> Result<Decoder, WeightError> {
        let (mut parameters, network, head) = decoder::declare(&self.config, DecoderHead::Words, Place::Packed)?;
        parameters.allocate();
        let (config, turns) = (self.config.clone(), self.turns.clone());
        Ok(Decoder { config, parameters, packed: Packed::default(), network, head, turns, precision })
    }

    /// Gives its packed weights' memory back, until it follows again.
    pub fn forget(&mut self) {
        self.packed = Packed::default();
    }

    /// Takes over the values that a policy has now.
    ///
    /// # Panics
    /// When it is not a writer of this policy.
    pub fn follow(&mut self, policy: &Decoder) {
        let values = &policy.parameters.values;
        for (own, source) in self.parameters.specs().to_vec().iter().zip(policy.parameters.specs()) {
            if own.place() == Place::Flat {
                self.parameters.values[own.span.range()].copy_from_slice(&values[source.span.range()]);
            }
        }
        self.packed = Packed::default(); // Its memory is free before it is needed again.
        let pack = |(own, source): (LinearSpec, LinearSpec)| {
            let weight = &values[source.weight.range()];
            (own, PackedLayer::for_decoding(weight, own.inputs, own.outputs, self.precision))
        };
        self.packed = Packed::new(self.matrices().into_iter().zip(policy.matrices()).map(pack).collect());
    }
}
