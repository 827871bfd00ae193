//! Which parameters a decoder has, and how they are put together. Llama, Mistral, Phi, GPT-2, Qwen and Gemma differ in names,
//! sizes, norms and in how a layer adds up, not in calculus; each states its [`DecoderConfig`] in its own file.

use super::decoder_config::{DecoderConfig, LayerKind, NormKind};
use super::layer::{Adapters, Layer, Norms};
use super::network::{Declared, Head, Names, Network, Pool};
use crate::nn;
use crate::nn::weights::WeightError;
use crate::nn::{
    Asker, AttentionSpec, EmbedSpec, Form, HeadNormSpec, Initial, LinearSpec, Mask, NormSpec, Parameters, Place, Role,
    Span,
};

/// Deviation of new weights (`initializer_range` of the families).
const DEVIATION: f32 = 0.02;

/// What is read off the last states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderHead {
    /// A logit for each word.
    Words,
    /// A score for each label (`score.weight`, as in `…ForSequenceClassification`).
    Score,
}

/// Declares tensors in wiring order.
struct Declare<'a> {
    config: &'a DecoderConfig,
    parameters: Parameters,
    /// Where the matrices of the layers are kept, and the tables of words.
    places: [Place; 2],
    /// Whether words are read off the table that they are looked up in.
    tied: bool,
}

impl Declare<'_> {
    fn bias(&mut self, name: &str, len: usize) -> Result<Span, WeightError> {
        self.parameters.declare(format!("{name}.bias"), &[len], Initial::Zero)
    }

    /// The scale of a norm.
    fn gamma(&mut self, name: &str, len: usize) -> Result<Span, WeightError> {
        let span = self.parameters.declare(format!("{name}.weight"), &[len], Initial::One)?;
        if self.config.norm == NormKind::RmsPlusOne {
            self.parameters.stored_as(Form::LessOne);
        }
        Ok(span)
    }

    fn matrix(&mut self, place: Place, name: &str, shape: &[usize; 2]) -> Result<Span, WeightError> {
        self.parameters.declare_at(place, format!("{name}.weight"), shape, Initial::Normal(DEVIATION))
    }

    /// One layer of several tensors, whose outputs stand side by side.
    fn linear(
        &mut self,
        names: &[String],
        inputs: usize,
        outputs: &[usize],
        bias: bool,
    ) -> Result<LinearSpec, WeightError> {
        let (transposed, place) = (self.config.names.transposed, self.places[0]);
        let mut spans = Vec::new();
        for (name, outputs) in names.iter().zip(outputs) {
            let shape = if transposed { [inputs, *outputs] } else { [*outputs, inputs] };
            spans.push(self.matrix(place, name, &shape)?);
            if transposed {
                self.parameters.stored_as(Form::Transposed);
            }
        }
        let mut biases = Vec::new();
        for (name, outputs) in names.iter().zip(outputs).filter(|_| bias) {
            biases.push(self.bias(name, *outputs)?);
        }
        let weight = Span::join(&spans);
        let bias = if biases.is_empty() { Span { start: 0, len: 0 } } else { Span::join(&biases) };
        Ok(LinearSpec { weight, bias, inputs, outputs: outputs.iter().sum() })
    }

    /// A table of words or a head: never stored transposed.
    fn table(&mut self, name: &str, rows: usize, bias: bool) -> Result<LinearSpec, WeightError> {
        let (width, place) = (self.config.hidden, self.places[1]);
        // What only the ids of a step read has gradients for their rows alone.
        let weight = if place == Place::Flat && name == self.config.names.words && !self.tied {
            self.parameters.declare_sparse(format!("{name}.weight"), &[rows, width], Initial::Normal(DEVIATION))?
        } else {
            self.matrix(place, name, &[rows, width])?
        };
        let none = Span { start: 0, len: 0 };
        let bias = if bias { self.bias(name, rows)? } else { none };
        Ok(LinearSpec { weight, bias, inputs: width, outputs: rows })
    }

    fn norm(&mut self, name: &str) -> Result<NormSpec, WeightError> {
        let width = self.config.hidden;
        let gamma = self.gamma(name, width)?;
        let beta = match self.config.norm {
            NormKind::Layer => Some(self.bias(name, width)?),
            NormKind::Rms | NormKind::RmsPlusOne => None,
        };
        let kind = match self.config.norm {
            NormKind::Layer => nn::NormKind::Layer,
            NormKind::Rms | NormKind::RmsPlusOne => nn::NormKind::Rms,
        };
        Ok(NormSpec { kind, gamma, beta, epsilon: self.config.epsilon })
    }

    fn layer(&mut self, index: usize) -> Result<Layer, WeightError> {
        self.parameters.begin(Role::Layer(index));
        let config = self.config;
        let (names, hidden, biases) = (config.names, config.hidden, config.biases);
        let name = |part: &str| format!("{}{index}.{part}", names.layers);
        let names_of = |parts: &[&str]| parts.iter().map(|part| name(part)).collect::<Vec<_>>();
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let qkv = if names.qkv.len() == 1 { vec![q + 2 * kv] } else { vec![q, kv, kv] };
        let ups = vec![config.intermediate; names.up.len()];
        let head_norms = match names.head_norms {
            None => None,
            Some([q, k]) => {
                let mut one = |part: &str| self.gamma(&name(part), config.head_dim);
                Some([one(q)?, one(k)?])
            }
        };
        let norms = self.norms(&name)?;
        let attention_out = names.out;
        let LayerKind { window, rotary: turns } = config.kinds[index];
        Ok(Layer {
            turns,
            attention: AttentionSpec {
                heads: config.heads,
                key_heads: config.kv_heads,
                head_dim: config.head_dim,
                scale: config.scale,
                mask: window.map_or(Mask::Causal, |window| Mask::Window { before: window - 1, after: 0 }),
                soft_cap: config.soft_cap,
                norms: head_norms.map(|[q, k]| HeadNormSpec { q, k, epsilon: config.epsilon }),
                rotary: None,
                bias: None,
            },
            qkv: self.linear(&names_of(names.qkv), hidden, &qkv, biases.qkv)?,
            attention_out: self.linear(&[name(attention_out)], q, &[hidden], biases.out)?,
            up: self.linear(&names_of(names.up), hidden, &ups, biases.mlp)?,
            down: self.linear(&[name(names.down)], config.intermediate, &[hidden], biases.mlp)?,
            gated: names.up.len() > 1,
            activation: config.activation,
            norms,
            adapters: Adapters::default(),
        })
    }

    /// The norms of a layer, whose tensors `name` names.
    fn norms(&mut self, name: &dyn Fn(&str) -> String) -> Result<Norms, WeightError> {
        let names = self.config.names;
        let attention = self.norm(&name(names.attention_norm))?;
        let Some(mlp) = names.mlp_norm else {
            return Ok(Norms::Parallel(attention));
        };
        let before = [attention, self.norm(&name(mlp))?];
        Ok(match names.post_norms {
            None => Norms::Pre(before),
            Some([attention, mlp]) => {
                Norms::Sandwich { before, after: [self.norm(&name(attention))?, self.norm(&name(mlp))?] }
            }
        })
    }

    fn wiring(&mut self, head: DecoderHead) -> Result<(Network, LinearSpec), WeightError> {
        let (config, names) = (self.config, self.config.names);
        let words = self.table(names.words, config.vocabulary, false)?;
        let positions = match names.positions {
            None => None,
            Some(name) => Some(self.matrix(Place::Flat, name, &[config.positions, config.hidden])?),
        };
        let layers = (0..config.layers).map(|index| self.layer(index)).collect::<Result<_, _>>()?;
        let final_norm = self.norm(names.final_norm)?;
        self.parameters.begin(Role::Output);
        let head = match head {
            DecoderHead::Score => {
                self.places[1] = Place::Flat;
                self.table("score", config.labels, false)?
            }
            DecoderHead::Words if config.tied => words,
            DecoderHead::Words => self.table("lm_head", config.vocabulary, config.biases.head)?,
        };
        let embedding = EmbedSpec {
            words: words.weight,
            scale: config.word_scale,
            types: None,
            positions,
            padding: config.padding(),
        };
        let (hidden, final_norm) = (config.hidden, Some(final_norm));
        let (embedding_norm, distances) = (None, None);
        let (frozen_below, recomputed) = (None, 0);
        let network =
            Network { hidden, embedding, embedding_norm, distances, layers, final_norm, frozen_below, recomputed };
        Ok((network, head))
    }
}

/// The parameters and the wiring of a judge, with the matrices of the layers and the table of words in the flat buffer or
/// packed. The head is in the flat buffer.
///
/// # Errors
/// [`WeightError::TooLarge`] for impossible sizes.
pub(super) fn declare_judge(config: &DecoderConfig, layers: Place, words: Place) -> Result<Declared, WeightError> {
    let mut declare = Declare { config, parameters: Parameters::default(), places: [layers, words], tied: false };
    let (network, out) = declare.wiring(DecoderHead::Score)?;
    Ok(Declared {
        parameters: declare.parameters,
        network,
        head: Head { pool: Pool::One(Asker::Last), dense: None, out },
    })
}

/// The parameters and the wiring of a decoder with this head: the network, and the head's product. All matrices are at `place`.
///
/// # Errors
/// As [`declare_judge`].
pub(super) fn declare(
    config: &DecoderConfig,
    head: DecoderHead,
    place: Place,
) -> Result<(Parameters, Network, LinearSpec), WeightError> {
    let tied = head == DecoderHead::Words && config.tied;
    let mut declare = Declare { config, parameters: Parameters::default(), places: [place; 2], tied };
    let (network, out) = declare.wiring(head)?;
    Ok((declare.parameters, network, out))
}

/// The names of the tensors that a decoder's checkpoints have, besides those that a model with this head declares.
pub(super) fn tensor_names(config: &DecoderConfig, head: DecoderHead) -> Names {
    let unused: &[&str] = match head {
        DecoderHead::Score => &["lm_head.", "output."],
        DecoderHead::Words if config.tied => &["score.weight", "lm_head.weight"],
        DecoderHead::Words => &["score.weight"],
    };
    Names { prefix: config.names.prefix, unused, unused_ends: config.names.ignored }
}
