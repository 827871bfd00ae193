//! The post-norm transformer encoder that BERT, DistilBERT and RoBERTa share, and its head.
//!
//! The three families differ in names, sizes and which tables they have, not in calculus; each states
//! its [`TensorNames`] in its own file.

use super::config::{EncoderConfig, EncoderFamily};
use super::layer::{Adapters, Layer, Norms};
use super::network::{Declared, Dense, Head, Names, Network};
use crate::nn::weights::WeightError;
use crate::nn::{
    Activation, Asker, AttentionSpec, EmbedSpec, Initial, LinearSpec, NormKind, NormSpec, Parameters, Place, Role, Span,
};

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

/// Declares parameters in wiring order.
struct Declare<'a> {
    config: &'a EncoderConfig,
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

    fn wiring(&mut self, names: &TensorNames) -> Result<(Network, Head), WeightError> {
        let EncoderConfig { hidden, vocabulary, positions, types, layers, labels, .. } = *self.config;
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
        let embedding = EmbedSpec { words, scale: 1.0, types, positions, padding: None };
        let embedding_norm = Some(self.norm(&table("LayerNorm"))?);
        let layers = (0..layers).map(|index| self.layer(index, names)).collect::<Result<_, _>>()?;
        let network = Network { hidden, embedding, embedding_norm, layers, final_norm: None, frozen_below: None };
        let dense = Dense {
            linear: self.head(Role::Head, names.head_dense, [hidden, hidden])?,
            activation: names.head_activation,
        };
        let out = self.head(Role::Output, names.head_out, [labels, hidden])?;
        Ok((network, Head { asker: Asker::First, dense: Some(dense), out }))
    }
}

/// The parameters and the wiring of an encoder, with the matrices of the layers in the flat buffer or packed.
///
/// # Errors
/// [`WeightError::TooLarge`] for impossible sizes.
pub(super) fn declare(config: &EncoderConfig, layers: Place) -> Result<Declared, WeightError> {
    let names = names(config.family);
    let mut declare = Declare { config, parameters: Parameters::default(), layers };
    let (network, head) = declare.wiring(names)?;
    Ok(Declared { parameters: declare.parameters, network, head })
}

/// The names of the tensors that an encoder's checkpoints have.
pub(super) fn tensor_names(config: &EncoderConfig) -> Names {
    let TensorNames { prefix, unused, .. } = names(config.family);
    Names { prefix, unused, unused_ends: &[] }
}

fn names(family: EncoderFamily) -> &'static TensorNames {
    match family {
        EncoderFamily::DistilBert => &super::distilbert::NAMES,
        EncoderFamily::Bert => &super::bert::NAMES,
        EncoderFamily::Roberta => &super::roberta::NAMES,
    }
}
