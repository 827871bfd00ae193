//! The post-norm transformer encoder that BERT, DistilBERT and RoBERTa share, and its head.
//!
//! The three families differ in names, sizes and which tables they have, not in calculus; each states
//! its [`TensorNames`] in its own file.

use super::config::{Config, Family};
use super::layer::{Adapters, Layer, Norms};
use super::network::Network;
use crate::nn::weights::WeightError;
use crate::nn::{
    Activation, Asker, AttentionSpec, Batch, EmbedSpec, Initial, LinearSpec, NormKind, NormSpec, Packed, Parameters,
    Place, Precision, Role, Span, State, Tape, Var, Weights,
};
use kernels::activation;
use kernels::gemm::{self, Int8Weight, PackedWeight};

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
struct Wiring {
    network: Network,
    head_dense: LinearSpec,
    head_activation: Activation,
    head_out: LinearSpec,
}

/// The head reads the first token alone, so the last layer computes that one alone.
const ASKED: Option<Asker> = Some(Asker::First);

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
        let (beta, epsilon) = (Some(self.bias(name, width)?), self.config.epsilon);
        Ok(NormSpec { kind: NormKind::Layer, gamma, beta, epsilon })
    }

    fn head(&mut self, role: Role, name: &str, shape: [usize; 2]) -> Result<LinearSpec, WeightError> {
        self.parameters.begin(role);
        self.linear(Place::Flat, name, shape)
    }

    fn layer(&mut self, index: usize, names: &TensorNames) -> Result<Layer, WeightError> {
        self.parameters.begin(Role::Layer(index));
        let name = |part: &str| format!("{}{}.{index}.{part}", names.prefix, names.layers);
        let (hidden, intermediate, place) = (self.config.hidden, self.config.intermediate, self.layers);
        let heads = self.config.heads;
        let qkv = self.joined([names.query, names.key, names.value].map(name))?;
        let attention_out = self.linear(place, &name(names.attention_out), [hidden, hidden])?;
        let attention_norm = self.norm(&name(names.attention_norm))?;
        let up = self.linear(place, &name(names.up), [intermediate, hidden])?;
        let down = self.linear(place, &name(names.down), [hidden, intermediate])?;
        let norms = Norms::Post([attention_norm, self.norm(&name(names.out_norm))?]);
        let (gated, activation) = (false, self.config.activation);
        let attention = AttentionSpec::bidirectional(heads, hidden / heads);
        let adapters = Adapters::default();
        Ok(Layer { attention, turns: None, qkv, attention_out, up, down, gated, activation, norms, adapters })
    }

    fn wiring(&mut self, names: &TensorNames) -> Result<Wiring, WeightError> {
        let Config { hidden, vocabulary, positions, types, layers, labels, .. } = *self.config;
        let table = |part: &str| format!("{}embeddings.{part}", names.prefix);
        let words = self.parameters.declare_sparse(
            format!("{}.weight", table("word_embeddings")),
            &[vocabulary, hidden],
            Initial::Normal(self.config.initial_deviation),
        )?;
        let positions = Some(self.weight(Place::Flat, &table("position_embeddings"), &[positions, hidden])?);
        let types = match types {
            0 => None,
            types => Some(self.weight(Place::Flat, &table("token_type_embeddings"), &[types, hidden])?),
        };
        let embedding = EmbedSpec { words, scale: 1.0, types, positions };
        let embedding_norm = Some(self.norm(&table("LayerNorm"))?);
        let layers = (0..layers).map(|index| self.layer(index, names)).collect::<Result<_, _>>()?;
        Ok(Wiring {
            network: Network { hidden, embedding, embedding_norm, layers, final_norm: None },
            head_dense: self.head(Role::Head, names.head_dense, [hidden, hidden])?,
            head_activation: names.head_activation,
            head_out: self.head(Role::Output, names.head_out, [labels, hidden])?,
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
        let network = &self.wiring.network;
        let state = network.push(tape, batch, &[], network.whole(ASKED)); // [sequences, hidden]
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
        let network = &self.wiring.network;
        network.push(tape, batch, &[], network.whole(None))
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
        self.wiring.network.products(ASKED)
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

    /// The head's first layer, and the activation after it.
    pub fn head_dense(&self) -> (LinearSpec, Activation) {
        (self.wiring.head_dense, self.wiring.head_activation)
    }

    /// The parameters of the last layer.
    pub fn last_layer(&self) -> &Layer {
        self.wiring.network.layers.last().expect("a config has at least one layer")
    }

    /// How far from the ids a tensor works: 0 for the embeddings, then the layers from 1, then the head.
    pub fn depth(&self, role: Role) -> usize {
        match role {
            Role::Embedding => 0,
            Role::Layer(layer) => layer + 1,
            Role::Head | Role::Output => self.config.layers + 1,
        }
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
