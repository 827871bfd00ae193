//! THE model: a config, its parameters, and how they are put together. It gives each text its outputs, be it an encoder or a
//! decoder, to score or to train.

use super::config::Config;
use super::layer::{Layer, Norms};
use super::load::ClassifierSource;
use super::network::{Declared, Dense, Head, Names, Network};
use super::{decoder, encoder};
use crate::nn::weights::WeightError;
use crate::nn::{
    Activation, Batch, LinearSpec, Packed, ParameterSpec, Parameters, Place, Precision, Role, State, Storage, Tape,
    Var, Weights,
};
use crate::text::{Encoder, TextError};
use kernels::activation;
use kernels::attention::packed;
use kernels::bf16::Bf16;
use kernels::gemm::{self, Int8Weight, PackedWeight};
use kernels::rotary::RotaryTable;
use serde_json::Value;
use std::sync::Arc;

/// A sequence-classification model.
#[derive(Clone, Debug)]
pub struct Model {
    /// What `config.json` says.
    pub config: Config,
    /// All tensors. Those that are packed have no values here.
    pub parameters: Parameters,
    /// The matrices of the layers as the kernels want them; none in f32, which reads the parameters in place.
    pub packed: Packed,
    network: Network,
    head: Head,
    /// The turns of as many positions as texts may have tokens.
    pub(crate) turns: Vec<Arc<RotaryTable>>,
}

impl Model {
    /// Wires the model a config describes; parameters are declared, not yet allocated.
    ///
    /// # Errors
    /// [`WeightError::TooLarge`] for impossible sizes.
    pub fn declare(config: Config) -> Result<Self, WeightError> {
        Self::declare_with(config, Place::Flat, Place::Flat)
    }

    /// As [`Self::declare`], with the matrices of the layers, and of a decoder the table of words, in the flat buffer or
    /// packed.
    pub(super) fn declare_with(config: Config, layers: Place, words: Place) -> Result<Self, WeightError> {
        let Declared { parameters, network, head } = match &config {
            Config::Encoder(config) => encoder::declare(config, layers)?,
            Config::Decoder(config) => decoder::declare_judge(config, layers, words)?,
        };
        Ok(Self { config, parameters, packed: Packed::default(), network, head, turns: Vec::new() })
    }

    /// The model as it was declared, with its values, before adapters were attached. What is packed is left out.
    pub(super) fn without_adapters(&self) -> Result<Self, WeightError> {
        let packed = self.parameters.specs().iter().any(|spec| spec.place() == Place::Packed);
        let layers = if packed { Place::Packed } else { Place::Flat };
        let mut bare = Self::declare_with(self.config.clone(), layers, Place::Flat)?;
        bare.parameters.values = self.parameters.values[..bare.parameters.len()].to_vec();
        bare.turns.clone_from(&self.turns);
        Ok(bare)
    }

    /// Prepares the turns of texts of up to so many tokens; a model without rotary positions has none.
    pub fn prepare_turns(&mut self, positions: usize) {
        let known = self.turns.first().map_or(0, |table| table.positions());
        if known < positions {
            self.turns = self.config.rotaries().iter().map(|rotary| rotary.table(positions)).collect();
        }
    }

    /// Makes a base read texts as `encoder` gives them: turns for as many positions; and for a new head, a pad id in which no
    /// text ends, since transformers reads a score before it.
    ///
    /// # Errors
    /// A template that renders nothing.
    pub fn read_with(&mut self, encoder: &Encoder, head: ClassifierSource) -> Result<(), TextError> {
        self.prepare_turns(encoder.settings().max_length);
        let Config::Decoder(config) = &mut self.config else { return Ok(()) };
        if head == ClassifierSource::New {
            config.pad = encoder.pad_for_judge()?;
            let pad = config.pad.map_or(Value::Null, Value::from);
            config.json.insert("pad_token_id".into(), pad);
            self.network.embedding.padding = config.padding();
        }
        Ok(())
    }

    /// Takes all but the top `layers` layers and the head from training, and their way back with them.
    pub fn freeze_below_top(&mut self, layers: usize) {
        let first = self.config.layers().saturating_sub(layers);
        self.parameters.freeze(|spec| spec.role < Role::Layer(first));
        self.network.frozen_below = Some(first);
    }

    /// Layers that have a way back.
    pub fn trained_layers(&self) -> usize {
        self.network.layers.len() - self.network.frozen_below.unwrap_or(0)
    }

    /// Computes so many of these again on the way back, from the lowest on, instead of keeping what is in them: the same
    /// gradients with less memory, for as many more ways forward.
    pub fn recompute(&mut self, layers: usize) {
        self.network.recomputed = layers.min(self.trained_layers());
    }

    /// Pushes the whole model on the tape: packed batch → outputs, `[sequences, labels]`.
    ///
    /// Where the head reads one token of each text, the last layer computes keys and values for all tokens and everything
    /// else for that one.
    pub fn build(&self, tape: &mut Tape, batch: &Batch) -> Var {
        let features = self.features(tape, batch);
        tape.linear(features, self.head.out, None)
    }

    /// Pushes all but the output layer: packed batch → what that layer reads, `[sequences, hidden]`.
    ///
    /// # Panics
    /// When a text has more tokens than [`Self::prepare_turns`] was told.
    pub fn features(&self, tape: &mut Tape, batch: &Batch) -> Var {
        let whole = self.network.whole(self.head.pool.asker());
        let states = self.network.push(tape, batch, &self.turns, whole); // [sequences or tokens, hidden]
        self.head.features(tape, batch, states)
    }

    /// Pushes the network: packed batch → states of all tokens, `[tokens, hidden]`.
    pub fn hidden_states(&self, tape: &mut Tape, batch: &Batch) -> State {
        self.network.push(tape, batch, &self.turns, self.network.whole(None))
    }

    /// Pushes the tables and the lowest `layers` layers: packed batch → what leaves them, `[tokens, hidden]`.
    pub fn states_below(&self, tape: &mut Tape, batch: &Batch, layers: usize) -> State {
        self.network.push_below(tape, batch, &self.turns, layers)
    }

    /// The outputs `[texts, labels]` of features `[texts, hidden]`: what [`Self::build`] does after [`Self::features`], to
    /// the bit.
    pub fn logits(&self, features: &[f32]) -> Vec<f32> {
        let LinearSpec { weight, bias, inputs, outputs } = self.head.out;
        let rows = features.len() / inputs;
        let mut logits = vec![0.0; rows * outputs];
        gemm::linear(&mut logits, features, &self.parameters.values[weight.range()], rows, inputs, outputs);
        if bias.len > 0 {
            activation::add_bias(&mut logits, &mut [], &self.parameters.values[bias.range()], None);
        }
        logits
    }

    /// Makes output `i` of the head `scales[i]` times what it was, plus `shifts[i]`: new weights, rounded to f32. A head
    /// without biases cannot be shifted.
    pub(super) fn rescale_outputs(&mut self, scales: &[f64], shifts: &[f64]) {
        let LinearSpec { weight, bias, inputs, .. } = self.head.out;
        let rows = self.parameters.values[weight.range()].chunks_exact_mut(inputs);
        for (row, scale) in rows.zip(scales) {
            row.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
        }
        let biases = self.parameters.values[bias.range()].iter_mut();
        for (bias, (scale, shift)) in biases.zip(scales.iter().zip(shifts)) {
            *bias = (f64::from(*bias) * scale + shift) as f32;
        }
    }

    /// The numbers of the output layer: its weights, then its biases.
    pub fn output_layer(&self) -> Vec<f32> {
        let LinearSpec { weight, bias, .. } = self.head.out;
        [&self.parameters.values[weight.range()], &self.parameters.values[bias.range()]].concat()
    }

    /// Puts back what [`Self::output_layer`] gave.
    pub fn set_output_layer(&mut self, values: &[f32]) {
        let LinearSpec { weight, bias, .. } = self.head.out;
        let (weights, biases) = values.split_at(weight.len);
        self.parameters.values[weight.range()].copy_from_slice(weights);
        self.parameters.values[bias.range()].copy_from_slice(biases);
    }

    /// The linear layers that run on packed weights when there are such: all but the head's.
    pub(super) fn packed_layers(&self) -> Vec<LinearSpec> {
        self.network.products(self.head.pool.asker())
    }

    /// The table of words of a decoder.
    pub(super) fn words(&self) -> Option<&ParameterSpec> {
        let is_words = |spec: &&ParameterSpec| spec.span == self.network.embedding.words;
        let specs = matches!(self.config, Config::Decoder(_)).then(|| self.parameters.specs());
        specs?.iter().find(is_words)
    }

    /// The precision this model runs in when `asked` for one: f32 when the processor or the model's sizes have no other.
    pub fn precision(&self, asked: Precision) -> Precision {
        let fits = |l: &LinearSpec| match asked {
            Precision::Int8 => Int8Weight::fits(l.inputs, l.outputs),
            _ => PackedWeight::fits(l.inputs, l.outputs),
        };
        // Without bf16, int8's attention is f32's, which takes heads of any size.
        let plain = asked == Precision::Int8 && !Precision::Bf16.runs_here();
        // What two parts add side by side is summed in f32 alone.
        let layer_fits = |layer: &Layer| (plain || attention_fits(layer)) && !matches!(layer.norms, Norms::Parallel(_));
        let fits = self.network.layers.iter().all(layer_fits) && self.packed_layers().iter().all(fits);
        if fits && asked.runs_here() { asked } else { Precision::F32 }
    }

    /// Packs the weights for training in a precision that [`Self::precision`] allows; for f32 there is nothing to pack.
    pub fn pack_for_training(&mut self, precision: Precision) {
        self.packed = match precision {
            Precision::F32 => Packed::default(),
            _ => Packed::for_training(&self.packed_layers(), &self.parameters.values),
        };
    }

    /// Brings the packed weights up to date, after the parameters have moved.
    pub fn repack(&mut self) {
        self.packed.refresh(&self.parameters.values);
    }

    /// The weights as ops read them.
    pub fn weights(&self) -> Weights<'_> {
        Weights { values: &self.parameters.values, packed: &self.packed }
    }

    /// How values flow between its layers.
    pub fn storage(&self) -> Storage {
        self.packed.storage()
    }

    /// The most tokens of a text that it can compute now: as many as it has positions, and turns that are prepared.
    pub fn max_tokens(&self) -> usize {
        let limit = self.config.max_tokens();
        match self.config.rotaries().iter().any(|rotary| !rotary.frequencies.is_empty()) {
            true => limit.min(self.turns.first().map_or(0, |table| table.positions())),
            false => limit,
        }
    }

    /// The output layer: features → outputs.
    pub fn head_out(&self) -> LinearSpec {
        self.head.out
    }

    /// The head's hidden layer, and the activation after it, in families that have one.
    pub fn head_dense(&self) -> Option<(LinearSpec, Activation)> {
        self.head.dense.map(|Dense { linear, activation, .. }| (linear, activation))
    }

    /// The parameters of the last layer.
    pub fn last_layer(&self) -> &Layer {
        self.network.layers.last().expect("a config has at least one layer")
    }

    /// All layers.
    pub(super) fn layers(&self) -> &[Layer] {
        &self.network.layers
    }

    /// All layers, to give them adapters.
    pub(super) fn layers_mut(&mut self) -> &mut [Layer] {
        &mut self.network.layers
    }

    /// How far from the ids a tensor works: 0 for the embeddings, then the layers from 1, then the head.
    pub fn depth(&self, role: Role) -> usize {
        match role {
            Role::Embedding => 0,
            Role::Layer(layer) => layer + 1,
            Role::Head | Role::Output => self.config.layers() + 1,
        }
    }

    /// How its checkpoints name what it does not state by itself.
    pub(super) fn names(&self) -> Names {
        match &self.config {
            Config::Encoder(config) => encoder::tensor_names(config),
            Config::Decoder(config) => decoder::tensor_names(config, decoder::DecoderHead::Score),
        }
    }
}

/// Whether the kernels of bf16 know heads of that size.
pub(super) fn attention_fits(layer: &Layer) -> bool {
    match layer.attention.is_bidirectional() {
        true => kernels::attention::bf16::fits(layer.attention.head_dim),
        false => packed::fits(layer.attention.head_dim, size_of::<Bf16>()),
    }
}
