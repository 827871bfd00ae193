//! Which parameters an encoder has, and how they and its head's are put together. The families differ in names, sizes,
//! tables, and where a layer norms, not in calculus; each states its [`EncoderConfig`] in its own file.

use super::encoder_config::{EncoderConfig, EncoderLayer, EncoderNames};
use super::layer::{Adapters, Layer, Norms};
use super::network::{Declared, Dense, Head, Names, Network};
use crate::nn::weights::WeightError;
use crate::nn::{
    AttentionSpec, DistancesSpec, EmbedSpec, Initial, LinearSpec, Mask, NormKind, NormSpec, Parameters, Place, Role,
    Span,
};

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

    fn linear(
        &mut self,
        place: Place,
        name: &str,
        [outputs, inputs]: [usize; 2],
        bias: bool,
    ) -> Result<LinearSpec, WeightError> {
        let weight = self.weight(place, name, &[outputs, inputs])?;
        let bias = if bias { self.bias(name, outputs)? } else { Span { start: 0, len: 0 } };
        Ok(LinearSpec { weight, bias, inputs, outputs })
    }

    /// Queries, keys and values: square layers side by side, used as one of three times the width, or stored as one.
    fn joined(&mut self, names: &[String]) -> Result<LinearSpec, WeightError> {
        let (width, bias) = (self.config.hidden, self.config.shape.biases.attention);
        let outputs = 3 * width / names.len();
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for name in names {
            weights.push(self.weight(self.layers, name, &[outputs, width])?);
        }
        for name in names.iter().filter(|_| bias) {
            biases.push(self.bias(name, outputs)?);
        }
        let bias = if bias { Span::join(&biases) } else { Span { start: 0, len: 0 } };
        Ok(LinearSpec { weight: Span::join(&weights), bias, inputs: width, outputs: 3 * width })
    }

    fn norm(&mut self, name: &str) -> Result<NormSpec, WeightError> {
        let width = self.config.hidden;
        let gamma = self.parameters.declare(format!("{name}.weight"), &[width], Initial::One)?;
        let beta = if self.config.shape.biases.norms { Some(self.bias(name, width)?) } else { None };
        Ok(NormSpec { kind: NormKind::Layer, gamma, beta, epsilon: self.config.epsilon })
    }

    fn layer(&mut self, index: usize) -> Result<Layer, WeightError> {
        self.parameters.begin(Role::Layer(index));
        let EncoderConfig { names, hidden, intermediate, activation, ref shape, .. } = *self.config;
        let (biases, place, gated) = (shape.biases, self.layers, names.gated);
        let EncoderLayer { rotary: turns, reach } = shape.layers.get(index).copied().unwrap_or_default();
        let name = |part: &str| format!("{}{}.{index}.{part}", names.prefix, names.layers);
        let names_of = |parts: &[&str]| parts.iter().map(|part| name(part)).collect::<Vec<_>>();
        let qkv = self.joined(&names_of(names.qkv))?;
        let attention_out = self.linear(place, &name(names.attention_out), [hidden, hidden], biases.attention)?;
        let attention_norm = match (names.final_norm, index) {
            (Some(_), 0) => None,
            _ => Some(self.norm(&name(names.attention_norm))?),
        };
        let ups = if gated { 2 * intermediate } else { intermediate };
        let up = self.linear(place, &name(names.up), [ups, hidden], biases.mlp)?;
        let down = self.linear(place, &name(names.down), [hidden, intermediate], biases.mlp)?;
        let mlp_norm = self.norm(&name(names.mlp_norm))?;
        let norms = match (names.final_norm, attention_norm) {
            (_, None) => Norms::First(mlp_norm),
            (None, Some(norm)) => Norms::Post([norm, mlp_norm]),
            (Some(_), Some(norm)) => Norms::Pre([norm, mlp_norm]),
        };
        let attention = AttentionSpec {
            mask: reach.map_or(Mask::Bidirectional, |reach| Mask::Window { before: reach, after: reach }),
            ..AttentionSpec::bidirectional(self.config.heads, hidden / self.config.heads)
        };
        let adapters = Adapters::default();
        Ok(Layer { attention, turns, qkv, attention_out, up, down, gated, activation, norms, adapters })
    }

    fn embedding(&mut self) -> Result<EmbedSpec, WeightError> {
        let EncoderConfig { names, hidden, vocabulary, positions, types, .. } = *self.config;
        let table = |part: &str| format!("{}{part}", names.prefix);
        let words = self.parameters.declare_sparse(
            format!("{}.weight", table(names.words)),
            &[vocabulary, hidden],
            Initial::Normal(self.config.initial_deviation),
        )?;
        let positions = match names.positions {
            None => None,
            Some(name) => Some(self.weight(Place::Flat, &table(name), &[positions, hidden])?),
        };
        let types = match types {
            0 => None,
            types => Some(self.weight(Place::Flat, &table("embeddings.token_type_embeddings"), &[types, hidden])?),
        };
        Ok(EmbedSpec { words, scale: 1.0, types, positions, padding: self.config.shape.untrained })
    }

    fn network(&mut self) -> Result<Network, WeightError> {
        let EncoderConfig { names, hidden, layers, heads, .. } = *self.config;
        let name = |part: &str| format!("{}{part}", names.prefix);
        let embedding = self.embedding()?;
        let embedding_norm = Some(self.norm(&name(names.embedding_norm))?);
        let distances = match names.distances {
            None => None,
            Some(table) => {
                let table = self.weight(Place::Flat, &name(table), &[DistancesSpec::BUCKETS, heads])?;
                Some(DistancesSpec { table, heads })
            }
        };
        let layers = (0..layers).map(|index| self.layer(index)).collect::<Result<_, _>>()?;
        let final_norm = match names.final_norm {
            None => None,
            Some(norm) => Some(self.norm(&name(norm))?),
        };
        let (frozen_below, recomputed) = (None, 0);
        Ok(Network { hidden, embedding, embedding_norm, distances, layers, final_norm, frozen_below, recomputed })
    }

    fn head(&mut self) -> Result<Head, WeightError> {
        let EncoderConfig { names, hidden, labels, ref shape, .. } = *self.config;
        self.parameters.begin(Role::Head);
        let linear = self.linear(Place::Flat, names.head_dense, [hidden, hidden], shape.biases.head)?;
        let norm = match names.head_norm {
            None => None,
            Some(name) => Some(self.norm(name)?),
        };
        self.parameters.begin(Role::Output);
        let out = self.linear(Place::Flat, names.head_out, [labels, hidden], true)?;
        let dense = Dense { linear, activation: names.head_activation, norm };
        Ok(Head { pool: shape.pool, dense: Some(dense), out })
    }
}

/// The parameters and the wiring of an encoder, with the matrices of the layers in the flat buffer or packed.
///
/// # Errors
/// [`WeightError::TooLarge`] for impossible sizes.
pub(super) fn declare(config: &EncoderConfig, layers: Place) -> Result<Declared, WeightError> {
    let mut declare = Declare { config, parameters: Parameters::default(), layers };
    let (network, head) = (declare.network()?, declare.head()?);
    Ok(Declared { parameters: declare.parameters, network, head })
}

/// The names of the tensors that an encoder's checkpoints have.
pub(super) fn tensor_names(config: &EncoderConfig) -> Names {
    let EncoderNames { prefix, unused, .. } = *config.names;
    Names { prefix, unused, unused_ends: &[] }
}
