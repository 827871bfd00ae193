//! The config of an encoder: what its family's file makes of `config.json`, in terms of the one wiring in `encoder.rs`.

use super::config::{ConfigError, Fields};
use super::decoder_config::Rotary;
use super::network::Pool;
use kernels::activation::Activation;
use kernels::attention::first::MAX_HEAD;
use serde_json::{Map, Value};

/// Checkpoint names of a family. A layer's names follow `layers` and its number.
#[derive(Debug)]
pub struct EncoderNames {
    /// Prefix of the encoder in a checkpoint with a head (`bert.`).
    pub prefix: &'static str,
    /// Table of words, after `prefix`, as the next three.
    pub words: &'static str,
    /// Table of positions, in families that have one.
    pub positions: Option<&'static str>,
    /// Norm over what the tables give.
    pub embedding_norm: &'static str,
    /// Prefix of a layer, up to its number.
    pub layers: &'static str,
    /// Queries, keys and values: three, or one that holds all.
    pub qkv: &'static [&'static str],
    /// The attention's output.
    pub attention_out: &'static str,
    /// The norm of attention.
    pub attention_norm: &'static str,
    /// Up; where the family has a gate, gate and up in one.
    pub up: &'static str,
    /// Whether it has a gate.
    pub gated: bool,
    /// Down.
    pub down: &'static str,
    /// The norm of the feed-forward part.
    pub mlp_norm: &'static str,
    /// The norm after the last layer, in families whose layers norm before their parts. The first of such layers has no
    /// norm of attention: it reads the normed embedding.
    pub final_norm: Option<&'static str>,
    /// The table of scores by distance that all layers add to their own, in families that have one.
    pub distances: Option<&'static str>,
    /// The head's hidden layer, by full name, as the next two.
    pub head_dense: &'static str,
    /// The norm after it, in families that have one.
    pub head_norm: Option<&'static str>,
    /// The output layer.
    pub head_out: &'static str,
    /// Activation between the head's two layers.
    pub head_activation: Activation,
    /// Tensors of pretraining heads and other parts a reward model has no use for, by prefix.
    pub unused: &'static [&'static str],
}

/// Which layers have biases. The output layer always has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderBiases {
    /// Queries, keys, values, and the attention's output.
    pub attention: bool,
    /// The feed-forward part.
    pub mlp: bool,
    /// All norms.
    pub norms: bool,
    /// The head's hidden layer.
    pub head: bool,
}

/// What differs from layer to layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncoderLayer {
    /// Index of its turns.
    pub rotary: Option<usize>,
    /// Tokens that it sees on each side; all, if `None`.
    pub reach: Option<usize>,
}

/// What a config can change of how an encoder is put together. BERT's, unless a family says otherwise.
#[derive(Clone, Debug)]
pub struct EncoderShape {
    /// Biases.
    pub biases: EncoderBiases,
    /// The kinds of turn.
    pub rotaries: Vec<Rotary>,
    /// What each layer does; layers beyond the list turn nothing and see all tokens.
    pub layers: Vec<EncoderLayer>,
    /// The token whose vectors training leaves alone: PyTorch's `padding_idx`.
    pub untrained: Option<u32>,
    /// What the head reads.
    pub pool: Pool,
}

impl Default for EncoderShape {
    fn default() -> Self {
        let biases = EncoderBiases { attention: true, mlp: true, norms: true, head: true };
        Self { biases, rotaries: Vec::new(), layers: Vec::new(), untrained: None, pool: Pool::FIRST }
    }
}

/// A checked `config.json` of an encoder.
#[derive(Clone, Debug)]
pub struct EncoderConfig {
    /// The whole file, kept so that a trained judge can state it again.
    pub json: Map<String, Value>,
    /// Checkpoint names.
    pub names: &'static EncoderNames,
    /// How it is put together.
    pub shape: EncoderShape,
    /// Width of the states.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the feed-forward block.
    pub intermediate: usize,
    /// Rows of the word table.
    pub vocabulary: usize,
    /// Rows of the position table, or the most tokens of a text in families without one.
    pub positions: usize,
    /// Rows of the segment table; 0 when the family has none.
    pub types: usize,
    /// ε of the layer norms.
    pub epsilon: f32,
    /// Activation of the feed-forward block, or of its gate.
    pub activation: Activation,
    /// Standard deviation of new weights.
    pub initial_deviation: f32,
    /// Outputs of the classification head.
    pub labels: usize,
    /// Padding token, from which RoBERTa counts its positions.
    pub padding: Option<u32>,
}

impl EncoderConfig {
    /// What the families have in common.
    pub(super) fn check(&self, fields: &Fields) -> Result<(), ConfigError> {
        let field = if fields.json.contains_key("n_heads") { "n_heads" } else { "num_attention_heads" };
        if !self.hidden.is_multiple_of(self.heads) {
            return Err(fields.error(field, format!("a divisor of the width {}", self.hidden)));
        }
        let head = self.hidden / self.heads;
        if head > MAX_HEAD {
            let least = self.hidden.div_ceil(MAX_HEAD);
            let expected = format!("at least {least}, so that a head has at most {MAX_HEAD} columns and not {head}");
            return Err(fields.error(field, expected));
        }
        if self.max_tokens() == 0 {
            let expected = "more positions than pad_token_id + 1, from which the first is counted";
            return Err(fields.error("max_position_embeddings", expected));
        }
        Ok(())
    }

    /// The most tokens a text may have.
    pub fn max_tokens(&self) -> usize {
        self.padding.map_or(self.positions, |padding| self.positions.saturating_sub(padding as usize + 1))
    }
}
