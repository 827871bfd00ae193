//! The post-norm transformer encoder that BERT, DistilBERT and RoBERTa share, and its head.
//!
//! The three families differ in names, sizes and which tables they have, not in calculus; each states
//! its [`Names`] in its own file.

use super::config::{Config, Family};
use crate::nn::weights::WeightError;
use crate::nn::{Activation, Batch, Initial, LinearSpec, NormSpec, Parameters, Span, Tape, Var};

/// Checkpoint names of one family. A layer's names follow its prefix.
pub(super) struct Names {
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

/// A sequence-classification model: its config, its parameters and how they are wired.
#[derive(Clone, Debug)]
pub struct Model {
    /// What `config.json` says.
    pub config: Config,
    /// All tensors.
    pub parameters: Parameters,
    wiring: Wiring,
}

/// Declares parameters in wiring order.
struct Declare<'a> {
    config: &'a Config,
    parameters: Parameters,
}

impl Declare<'_> {
    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Span, WeightError> {
        self.parameters.declare(format!("{name}.weight"), shape, Initial::Normal(self.config.initial_deviation))
    }

    fn bias(&mut self, name: &str, len: usize) -> Result<Span, WeightError> {
        self.parameters.declare(format!("{name}.bias"), &[len], Initial::Zero)
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<LinearSpec, WeightError> {
        let weight = self.weight(name, &[outputs, inputs])?;
        Ok(LinearSpec { weight, bias: self.bias(name, outputs)?, inputs, outputs })
    }

    /// Three square layers side by side, used as one of three times the width.
    fn joined(&mut self, names: [String; 3]) -> Result<LinearSpec, WeightError> {
        let width = self.config.hidden;
        let mut weights = [Span { start: 0, len: 0 }; 3];
        let mut biases = weights;
        for (span, name) in weights.iter_mut().zip(&names) {
            *span = self.weight(name, &[width, width])?;
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

    fn layer(&mut self, prefix: &str, names: &Names) -> Result<Layer, WeightError> {
        let name = |part: &str| format!("{prefix}.{part}");
        let (hidden, intermediate) = (self.config.hidden, self.config.intermediate);
        Ok(Layer {
            qkv: self.joined([names.query, names.key, names.value].map(name))?,
            attention_out: self.linear(&name(names.attention_out), hidden, hidden)?,
            attention_norm: self.norm(&name(names.attention_norm))?,
            up: self.linear(&name(names.up), hidden, intermediate)?,
            down: self.linear(&name(names.down), intermediate, hidden)?,
            out_norm: self.norm(&name(names.out_norm))?,
        })
    }

    fn wiring(&mut self, names: &Names) -> Result<Wiring, WeightError> {
        let Config { hidden, vocabulary, positions, types, layers, labels, .. } = *self.config;
        let table = |part: &str| format!("{}embeddings.{part}", names.prefix);
        Ok(Wiring {
            words: self.weight(&table("word_embeddings"), &[vocabulary, hidden])?,
            positions: self.weight(&table("position_embeddings"), &[positions, hidden])?,
            types: match types {
                0 => None,
                types => Some(self.weight(&table("token_type_embeddings"), &[types, hidden])?),
            },
            embedding_norm: self.norm(&table("LayerNorm"))?,
            layers: (0..layers)
                .map(|i| self.layer(&format!("{}{}.{i}", names.prefix, names.layers), names))
                .collect::<Result<_, _>>()?,
            head_dense: self.linear(names.head_dense, hidden, hidden)?,
            head_activation: names.head_activation,
            head_out: self.linear(names.head_out, hidden, labels)?,
        })
    }
}

impl Model {
    /// Wires the model a config describes; parameters are declared, not yet allocated.
    ///
    /// # Errors
    /// [`WeightError::TooLarge`] for impossible sizes.
    pub fn declare(config: Config) -> Result<Self, WeightError> {
        let mut declare = Declare { config: &config, parameters: Parameters::default() };
        let wiring = declare.wiring(names(config.family))?;
        let parameters = declare.parameters;
        Ok(Self { config, parameters, wiring })
    }

    /// Pushes the whole model on the tape: packed batch → logits `[sequences, labels]`.
    pub fn build(&self, tape: &mut Tape, batch: &Batch) -> Var {
        let hidden = self.hidden_states(tape, batch);
        let wiring = &self.wiring;
        let first = tape.pool_first(hidden, batch);
        let dense = tape.linear(first, wiring.head_dense, Some(wiring.head_activation));
        tape.linear(dense, wiring.head_out, None)
    }

    /// Pushes the encoder: packed batch → states `[tokens, hidden]`.
    pub fn hidden_states(&self, tape: &mut Tape, batch: &Batch) -> Var {
        let wiring = &self.wiring;
        let sum = tape.embed(batch, self.config.hidden, wiring.words, wiring.positions, wiring.types);
        let mut x = tape.layer_norm(sum, None, wiring.embedding_norm);
        for layer in &wiring.layers {
            let qkv = tape.linear(x, layer.qkv, None); // [tokens, 3·hidden]
            let mixed = tape.attention(qkv, self.config.heads); // [tokens, hidden]
            let out = tape.linear(mixed, layer.attention_out, None);
            x = tape.layer_norm(out, Some(x), layer.attention_norm);
            let up = tape.linear(x, layer.up, Some(self.config.activation)); // [tokens, intermediate]
            let down = tape.linear(up, layer.down, None);
            x = tape.layer_norm(down, Some(x), layer.out_norm);
        }
        x
    }

    /// True for the tensors of the classification head.
    pub(super) fn is_head(&self, name: &str) -> bool {
        let names = names(self.config.family);
        [names.head_dense, names.head_out]
            .iter()
            .any(|head| name.strip_prefix(head).is_some_and(|r| r.starts_with('.')))
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

fn names(family: Family) -> &'static Names {
    match family {
        Family::DistilBert => &super::distilbert::NAMES,
        Family::Bert => &super::bert::NAMES,
        Family::Roberta => &super::roberta::NAMES,
    }
}
