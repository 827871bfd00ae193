//! The post-norm transformer encoder that BERT, DistilBERT and RoBERTa share, and its head.
//!
//! The three families differ in names, sizes and which tables they have, not in calculus; each states
//! its [`TensorNames`] in its own file.

use super::config::{Config, Family};
use crate::nn::weights::WeightError;
use crate::nn::{
    Activation, Batch, Initial, LinearSpec, NormSpec, Packed, Parameters, Place, Precision, Span, State, Tape, Var,
    Weights,
};
use kernels::activation;
use kernels::gemm::{self, Int8Weight, PackedWeight};
use std::collections::HashMap;

/// Checkpoint names of one family. A layer's names follow its prefix.
pub(super) struct TensorNames {
    /// Prefix of the encoder in a checkpoint with a head (`bert.`).
    pub prefix: &'static str,
    /// Prefix of layer `i`, after `prefix`, up to the number.
    pub layers: &'static str,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub attention_out: &'static str,
    pub attention_norm: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub out_norm: &'static str,
    /// Head: the hidden layer and the output, by full name.
    pub head_dense: &'static str,
    pub head_out: &'static str,
    /// Activation between the head's two layers.
    pub head_activation: Activation,
    /// Tensors of pretraining heads and other parts a reward model has no use for, by prefix.
    pub unused: &'static [&'static str],
}

#[derive(Clone, Debug)]
struct Layer {
    qkv: LinearSpec,
    attention_out: LinearSpec,
    attention_norm: NormSpec,
    up: LinearSpec,
    down: LinearSpec,
    out_norm: NormSpec,
}

#[derive(Clone, Debug)]
struct Wiring {
    words: Span,
    positions: Span,
    types: Option<Span>,
    embedding_norm: NormSpec,
    layers: Vec<Layer>,
    head_dense: LinearSpec,
    head_activation: Activation,
    head_out: LinearSpec,
}

impl Layer {
    fn query(&self) -> LinearSpec {
        self.qkv.rows(0..self.qkv.outputs / 3)
    }

    fn key_value(&self) -> LinearSpec {
        self.qkv.rows(self.qkv.outputs / 3..self.qkv.outputs)
    }
}

/// A sequence-classification model: its config, its parameters and how they are wired.
#[derive(Clone, Debug)]
pub struct Model {
    /// What `config.json` says.
    pub config: Config,
    /// All tensors.
    pub parameters: Parameters,
    /// The matrices of the layers as the kernels want them; none in f32, which reads the parameters in place.
    pub packed: Packed,
    wiring: Wiring,
}

/// Layers that are kept in any case below a new last one: a judge of few layers is the lower half of a sentence encoder already.
const FEWEST_LAYERS: usize = 3;

/// What [`Model::open_head`] made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Nothing: the head's first layer was trained, or no tanh follows it.
    Nothing,
    /// The head's first layer.
    Head,
    /// It and a new last layer that gives the first token the mean of all, above so many layers of the base.
    HeadAndLastLayer {
        /// Layers that were kept below it.
        kept: usize,
    },
}

/// Declares parameters in wiring order.
struct Declare<'a> {
    config: &'a Config,
    parameters: Parameters,
    /// Where the matrices of the layers are kept.
    layers: Place,
}

impl Declare<'_> {
    fn weight(&mut self, place: Place, name: &str, shape: &[usize]) -> Result<Span, WeightError> {
        let initial = Initial::Normal(self.config.initial_deviation);
        self.parameters.declare_at(place, format!("{name}.weight"), shape, initial)
    }

    fn bias(&mut self, name: &str, len: usize) -> Result<Span, WeightError> {
        self.parameters.declare(format!("{name}.bias"), &[len], Initial::Zero)
    }

    fn linear(&mut self, place: Place, name: &str, shape: [usize; 2]) -> Result<LinearSpec, WeightError> {
        let [outputs, inputs] = shape;
        let weight = self.weight(place, name, &shape)?;
        Ok(LinearSpec { weight, bias: self.bias(name, outputs)?, inputs, outputs })
    }

    /// Three square layers side by side, used as one of three times the width.
    fn joined(&mut self, names: [String; 3]) -> Result<LinearSpec, WeightError> {
        let width = self.config.hidden;
        let mut weights = [Span { start: 0, len: 0 }; 3];
        let mut biases = weights;
        for (span, name) in weights.iter_mut().zip(&names) {
            *span = self.weight(self.layers, name, &[width, width])?;
        }
        for (span, name) in biases.iter_mut().zip(&names) {
            *span = self.bias(name, width)?;
        }
        Ok(LinearSpec { weight: Span::join(&weights), bias: Span::join(&biases), inputs: width, outputs: 3 * width })
    }

    fn norm(&mut self, name: &str) -> Result<NormSpec, WeightError> {
        let width = self.config.hidden;
        let gamma = self.parameters.declare(format!("{name}.weight"), &[width], Initial::One)?;
        Ok(NormSpec { gamma, beta: self.bias(name, width)?, epsilon: self.config.epsilon })
    }

    fn layer(&mut self, prefix: &str, names: &TensorNames) -> Result<Layer, WeightError> {
        let name = |part: &str| format!("{prefix}.{part}");
        let (hidden, intermediate, place) = (self.config.hidden, self.config.intermediate, self.layers);
        Ok(Layer {
            qkv: self.joined([names.query, names.key, names.value].map(name))?,
            attention_out: self.linear(place, &name(names.attention_out), [hidden, hidden])?,
            attention_norm: self.norm(&name(names.attention_norm))?,
            up: self.linear(place, &name(names.up), [intermediate, hidden])?,
            down: self.linear(place, &name(names.down), [hidden, intermediate])?,
            out_norm: self.norm(&name(names.out_norm))?,
        })
    }

    fn wiring(&mut self, names: &TensorNames) -> Result<Wiring, WeightError> {
        let Config { hidden, vocabulary, positions, types, layers, labels, .. } = *self.config;
        let table = |part: &str| format!("{}embeddings.{part}", names.prefix);
        Ok(Wiring {
            words: self.parameters.declare_sparse(
                format!("{}.weight", table("word_embeddings")),
                &[vocabulary, hidden],
                Initial::Normal(self.config.initial_deviation),
            )?,
            positions: self.weight(Place::Flat, &table("position_embeddings"), &[positions, hidden])?,
            types: match types {
                0 => None,
                types => Some(self.weight(Place::Flat, &table("token_type_embeddings"), &[types, hidden])?),
            },
            embedding_norm: self.norm(&table("LayerNorm"))?,
            layers: (0..layers)
                .map(|i| self.layer(&format!("{}{}.{i}", names.prefix, names.layers), names))
                .collect::<Result<_, _>>()?,
            head_dense: self.linear(Place::Flat, names.head_dense, [hidden, hidden])?,
            head_activation: names.head_activation,
            head_out: self.linear(Place::Flat, names.head_out, [labels, hidden])?,
        })
    }
}

impl Model {
    /// Wires the model a config describes; parameters are declared, not yet allocated.
    ///
    /// # Errors
    /// [`WeightError::TooLarge`] for impossible sizes.
    pub fn declare(config: Config) -> Result<Self, WeightError> {
        Self::declare_with(config, Place::Flat)
    }

    /// As [`Self::declare`], with the matrices of the layers in the flat buffer or packed.
    pub(super) fn declare_with(config: Config, layers: Place) -> Result<Self, WeightError> {
        let mut declare = Declare { config: &config, parameters: Parameters::default(), layers };
        let wiring = declare.wiring(names(config.family))?;
        let parameters = declare.parameters;
        Ok(Self { config, parameters, packed: Packed::default(), wiring })
    }

    /// Pushes the whole model on the tape: packed batch → logits `[sequences, labels]`.
    ///
    /// The head reads the first token alone, so the last layer computes keys and values for all tokens and
    /// everything else for that one.
    pub fn build(&self, tape: &mut Tape, batch: &Batch) -> Var {
        let features = self.features(tape, batch);
        tape.linear(features, self.wiring.head_out, None)
    }

    /// Pushes all but the head's last layer: packed batch → what that layer reads, `[sequences, hidden]`.
    pub fn features(&self, tape: &mut Tape, batch: &Batch) -> Var {
        let (last, lower) = self.wiring.layers.split_last().expect("a config has at least one layer");
        let x = self.encode(tape, batch, lower);
        let first = tape.pool_first(x, batch); // [sequences, hidden]
        let kv = tape.linear(x.operand, last.key_value(), None); // [tokens, 2·hidden]
        let q = tape.linear(first.operand, last.query(), None);
        let mixed = tape.attention_first(q, kv, self.config.heads);
        let state = self.finish_layer(tape, last, mixed, first);
        tape.linear(state.full, self.wiring.head_dense, Some(self.wiring.head_activation))
    }

    /// The logits `[texts, labels]` of features `[texts, hidden]`: what [`Self::build`] does after [`Self::features`], to
    /// the bit.
    pub fn logits(&self, features: &[f32]) -> Vec<f32> {
        let LinearSpec { weight, bias, inputs, outputs } = self.wiring.head_out;
        let rows = features.len() / inputs;
        let mut logits = vec![0.0; rows * outputs];
        gemm::linear(&mut logits, features, &self.parameters.values[weight.range()], rows, inputs, outputs);
        activation::add_bias(&mut logits, &mut [], &self.parameters.values[bias.range()], None);
        logits
    }

    /// Pushes the encoder: packed batch → states of all tokens, `[tokens, hidden]`.
    pub fn hidden_states(&self, tape: &mut Tape, batch: &Batch) -> State {
        self.encode(tape, batch, &self.wiring.layers)
    }

    fn encode(&self, tape: &mut Tape, batch: &Batch, layers: &[Layer]) -> State {
        let wiring = &self.wiring;
        let sum = tape.embed(batch, self.config.hidden, wiring.words, wiring.positions, wiring.types);
        let mut x = tape.layer_norm(sum, None, wiring.embedding_norm);
        for layer in layers {
            let qkv = tape.linear(x.operand, layer.qkv, None); // [tokens, 3·hidden]
            let mixed = tape.attention(qkv, self.config.heads); // [tokens, hidden]
            x = self.finish_layer(tape, layer, mixed, x);
        }
        x
    }

    /// What follows attention in a layer, for any rows of it.
    fn finish_layer(&self, tape: &mut Tape, layer: &Layer, mixed: Var, x: State) -> State {
        let out = tape.linear(mixed, layer.attention_out, None);
        let x = tape.layer_norm(out, Some(x.full), layer.attention_norm);
        let up = tape.linear(x.operand, layer.up, Some(self.config.activation)); // [rows, intermediate]
        let down = tape.linear(up, layer.down, None);
        tape.layer_norm(down, Some(x.full), layer.out_norm)
    }

    /// Makes output `i` of the head `scales[i]` times what it was, plus `shifts[i]`: new weights, rounded to f32.
    pub(super) fn rescale_outputs(&mut self, scales: &[f64], shifts: &[f64]) {
        let LinearSpec { weight, bias, inputs, .. } = self.wiring.head_out;
        let rows = self.parameters.values[weight.range()].chunks_exact_mut(inputs);
        for (row, scale) in rows.zip(scales) {
            row.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
        }
        let biases = self.parameters.values[bias.range()].iter_mut();
        for (bias, (scale, shift)) in biases.zip(scales.iter().zip(shifts)) {
            *bias = (f64::from(*bias) * scale + shift) as f32;
        }
    }

    /// The numbers of the head's last layer: its weights, then its biases.
    pub fn output_layer(&self) -> Vec<f32> {
        let LinearSpec { weight, bias, .. } = self.wiring.head_out;
        [&self.parameters.values[weight.range()], &self.parameters.values[bias.range()]].concat()
    }

    /// Puts back what [`Self::output_layer`] gave.
    pub fn set_output_layer(&mut self, values: &[f32]) {
        let LinearSpec { weight, bias, .. } = self.wiring.head_out;
        let (weights, biases) = values.split_at(weight.len);
        self.parameters.values[weight.range()].copy_from_slice(weights);
        self.parameters.values[bias.range()].copy_from_slice(biases);
    }

    /// The linear layers that run on packed weights when there are such: all but the head's.
    pub(super) fn packed_layers(&self) -> Vec<LinearSpec> {
        let (last, lower) = self.wiring.layers.split_last().expect("a config has at least one layer");
        let lower = lower.iter().flat_map(|l| [l.qkv, l.attention_out, l.up, l.down]);
        lower.chain([last.query(), last.key_value(), last.attention_out, last.up, last.down]).collect()
    }

    /// The precision this model runs in when `asked` for one: f32 when the processor or the model's sizes have no other.
    pub fn precision(&self, asked: Precision) -> Precision {
        let fits = |l: &LinearSpec| match asked {
            Precision::Int8 => Int8Weight::fits(l.inputs, l.outputs),
            _ => PackedWeight::fits(l.inputs, l.outputs),
        };
        // Without bf16, int8's attention is f32's, which takes heads of any size.
        let attention = asked == Precision::Int8 && !Precision::Bf16.runs_here()
            || kernels::attention::bf16::fits(self.config.hidden / self.config.heads);
        let fits = attention && self.packed_layers().iter().all(fits);
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

    /// The head's last layer: features → logits.
    pub fn head_out(&self) -> LinearSpec {
        self.wiring.head_out
    }

    /// True for the tensors of the classification head.
    pub(super) fn is_head(&self, name: &str) -> bool {
        let names = names(self.config.family);
        [names.head_dense, names.head_out]
            .iter()
            .any(|head| name.strip_prefix(head).is_some_and(|r| r.starts_with('.')))
    }

    /// How far from the ids a tensor works: 0 for the embeddings, then the layers from 1, then the head.
    pub fn depth(&self, name: &str) -> usize {
        let names = names(self.config.family);
        let number = |rest: &str| rest.split('.').next().and_then(|n| n.parse::<usize>().ok());
        let in_layer = name.strip_prefix(names.prefix).and_then(|rest| rest.strip_prefix(names.layers));
        match in_layer.and_then(|rest| number(rest.strip_prefix('.')?)) {
            Some(layer) => layer + 1,
            None if self.is_head(name) => self.config.layers + 1,
            None => 0,
        }
    }

    /// Makes the last `count` layers new, as an untrained model has them: what pretraining left there is
    /// the most specific to its own task (Zhang et al. 2021, "Revisiting few-sample BERT fine-tuning").
    pub fn renew_top_layers(&mut self, count: usize, seed: u64) {
        let top = self.config.layers.saturating_sub(count) + 1..=self.config.layers;
        for index in 0..self.parameters.specs().len() {
            if top.contains(&self.depth(&self.parameters.specs()[index].name)) {
                self.parameters.initialise(index, seed);
            }
        }
    }

    /// Makes the head's first layer, between the first token and the output, the identity if it was never trained: its
    /// biases are all 0. A random one hides most of what the encoder says of a response (docs/recipe.md). Only where
    /// tanh follows; a rectifier (DistilBERT) would cut half of the identity away. Says what was changed.
    ///
    /// BERT's pretraining reads the first token through this very layer, so where that was not trained the first token was
    /// never read: then a last layer that gives it the mean of all tokens stands above the lower `keep` layers, half of them if it is `None`; what is
    /// above is dropped. A frozen head finds more there than higher up, and fine-tuning does not make up for it (docs/recipe.md). RoBERTa's
    /// pretraining has no such layer, so its absence says nothing there.
    pub fn open_head(&mut self, keep: Option<usize>) -> Opened {
        match self.parameters.values[self.wiring.head_dense.bias.range()].iter().all(|b| *b == 0.0) {
            true => self.open_anew(keep),
            false => Opened::Nothing,
        }
    }

    /// The same where the head's first layer was trained: for a new head that reads a judge's lower layers.
    pub fn open_anew(&mut self, keep: Option<usize>) -> Opened {
        if names(self.config.family).head_activation != Activation::Tanh {
            return Opened::Nothing;
        }
        let LinearSpec { weight, bias, .. } = self.wiring.head_dense;
        self.fill_identity(weight);
        self.parameters.values[bias.range()].fill(0.0);
        if self.config.family != Family::Bert {
            return Opened::Head;
        }
        let half = self.config.layers.div_ceil(2).max(FEWEST_LAYERS);
        let kept = keep.unwrap_or(half).min(self.config.layers - 1);
        self.keep_layers(kept + 1);
        self.read_mean();
        Opened::HeadAndLastLayer { kept }
    }

    /// Drops the layers above the lowest `count`.
    fn keep_layers(&mut self, count: usize) {
        let mut config = Config { layers: count, ..self.config.clone() };
        config.json.insert("num_hidden_layers".into(), count.into());
        let mut smaller = Self::declare(config).expect("fewer layers are no larger");
        smaller.parameters.allocate();
        let specs: HashMap<&str, Span> = self.parameters.specs().iter().map(|s| (s.name.as_str(), s.span)).collect();
        for spec in smaller.parameters.specs().to_vec() {
            let from = specs[spec.name.as_str()].range();
            smaller.parameters.values[spec.span.range()].copy_from_slice(&self.parameters.values[from]);
        }
        *self = smaller;
    }

    /// Makes the last layer give the first token the mean of what all tokens have below it: queries of 0 attend to every token
    /// alike, values pass unchanged, and the feed-forward part adds nothing until it is trained. Keys and the way up stay.
    fn read_mean(&mut self) {
        let last = self.wiring.layers.last().expect("a config has at least one layer").clone();
        let [query, value] = [0, 2]
            .map(|part| last.qkv.rows(part * last.attention_out.outputs..(part + 1) * last.attention_out.outputs));
        for span in [query.weight, query.bias, value.bias, last.attention_out.bias, last.down.weight, last.down.bias] {
            self.parameters.values[span.range()].fill(0.0);
        }
        for span in [value.weight, last.attention_out.weight] {
            self.fill_identity(span);
        }
        for NormSpec { gamma, beta, .. } in [last.attention_norm, last.out_norm] {
            self.parameters.values[gamma.range()].fill(1.0);
            self.parameters.values[beta.range()].fill(0.0);
        }
    }

    /// Makes a square weight the identity.
    fn fill_identity(&mut self, weight: Span) {
        let rows = self.parameters.values[weight.range()].chunks_exact_mut(self.config.hidden).enumerate();
        rows.for_each(|(i, row)| row.iter_mut().enumerate().for_each(|(j, w)| *w = f32::from(u8::from(i == j))));
    }

    /// True for the tensors of the head's last layer.
    pub(super) fn is_output(&self, name: &str) -> bool {
        let rest = name.strip_prefix(names(self.config.family).head_out);
        rest.is_some_and(|rest| rest.starts_with('.'))
    }

    /// True for tensors a checkpoint may hold besides the model's own.
    pub(super) fn is_unused(&self, name: &str) -> bool {
        names(self.config.family).unused.iter().any(|prefix| name.starts_with(prefix))
    }

    /// The encoder's prefix, which checkpoints without a head leave away.
    pub(super) fn prefix(&self) -> &'static str {
        names(self.config.family).prefix
    }
}

fn names(family: Family) -> &'static TensorNames {
    match family {
        Family::DistilBert => &super::distilbert::NAMES,
        Family::Bert => &super::bert::NAMES,
        Family::Roberta => &super::roberta::NAMES,
    }
}
