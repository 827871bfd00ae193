//! The one network: token ids → states, for encoders and decoders alike. What is read off the states is the head's, which
//! the models have.

use super::layer::{Layer, Reach, Stream};
use crate::nn::{
    Activation, Asker, AttentionSpec, Batch, DistancesSpec, EmbedSpec, LinearSpec, NormSpec, Parameters, State, Tape,
    Var,
};
use kernels::rotary::RotaryTable;
use std::sync::Arc;

/// How the states of a model come about, and by which parameters.
#[derive(Clone, Debug)]
pub(super) struct Network {
    /// Columns of the states.
    pub(super) hidden: usize,
    /// The tables that ids are looked up in.
    pub(super) embedding: EmbedSpec,
    /// The norm over what the tables give.
    pub(super) embedding_norm: Option<NormSpec>,
    /// The scores by distance that all layers add to their own.
    pub(super) distances: Option<DistancesSpec>,
    /// The layers.
    pub(super) layers: Vec<Layer>,
    /// The norm after the last layer.
    pub(super) final_norm: Option<NormSpec>,
    /// Where training begins: nothing is trained of the tables and the layers before this one. `None` trains the tables.
    pub(super) frozen_below: Option<usize>,
    /// So many of the lowest layers that have a way back are computed again there instead of being kept.
    pub(super) recomputed: usize,
}

impl Network {
    /// Pushes the network: tokens of the batch → states, `[tokens, hidden]`, or `[sequences, hidden]` where the last layer
    /// reaches for one token of each sequence. `turns` are the tables that the layers' turns are in.
    pub(super) fn push(
        &self,
        tape: &mut Tape,
        batch: &Batch,
        turns: &[Arc<RotaryTable>],
        reach: impl Fn(usize) -> Reach,
    ) -> State {
        let x = self.layered(tape, batch, turns, reach);
        match self.final_norm {
            None => x.state(),
            Some(norm) => x.normed(tape, norm).1,
        }
    }

    /// Pushes the tables and the lowest `layers` layers: what the next one would get, `[tokens, hidden]`.
    pub(super) fn push_below(
        &self,
        tape: &mut Tape,
        batch: &Batch,
        turns: &[Arc<RotaryTable>],
        layers: usize,
    ) -> State {
        let mut lower = self.clone();
        lower.layers.truncate(layers);
        let x = lower.layered(tape, batch, turns, |_| Reach::Batch);
        match self.final_norm {
            None => x.state(),
            Some(norm) => x.normed(tape, norm).0.state(), // Only to have added what is pending.
        }
    }

    /// All but the norm after the last layer.
    fn layered(
        &self,
        tape: &mut Tape,
        batch: &Batch,
        turns: &[Arc<RotaryTable>],
        reach: impl Fn(usize) -> Reach,
    ) -> Stream {
        if self.frozen_below.is_some() {
            tape.begin_detached();
        }
        let full = tape.embed_by(batch, self.hidden, self.embedding);
        let mut x = Stream::new(match self.embedding_norm {
            None => State { full, operand: full },
            Some(norm) => tape.post_norm(full, None, norm),
        });
        let bias = self.distances.map(|distances| tape.distances(distances, batch));
        for (index, layer) in self.layers.iter().enumerate() {
            if self.frozen_below == Some(index) {
                tape.detach();
            }
            tape.mark();
            let first = self.frozen_below.unwrap_or(0);
            let again = (first..first + self.recomputed).contains(&index);
            if again {
                tape.begin_recomputed();
            }
            let rotary = layer.turns.map(|table| Arc::clone(&turns[table]));
            let attention = AttentionSpec { rotary, bias, ..layer.attention.clone() };
            x = layer.push(tape, batch, &attention, x, reach(index));
            if again {
                tape.end_recomputed();
            }
        }
        if self.frozen_below == Some(self.layers.len()) {
            tape.detach();
        }
        x
    }

    /// What each layer reaches for over whole texts, where the states of all tokens are wanted, or those of one of each
    /// text: then the last layer computes that one alone.
    pub(super) fn whole(&self, asked: Option<Asker>) -> impl Fn(usize) -> Reach + use<> {
        let last = self.layers.len() - 1;
        move |index| match asked {
            Some(asker) if index == last => Reach::One(asker),
            _ => Reach::Batch,
        }
    }

    /// The products of all layers, as [`Self::whole`] has them.
    pub(super) fn products(&self, asked: Option<Asker>) -> Vec<LinearSpec> {
        let reach = self.whole(asked);
        self.layers.iter().enumerate().flat_map(|(index, layer)| layer.products(reach(index))).collect()
    }
}

/// What of a text's states is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// That of one token.
    One(Asker),
    /// The mean over all tokens.
    Mean,
}

impl Pool {
    /// BERT's.
    pub const FIRST: Self = Self::One(Asker::First);

    /// The token, where it is one.
    pub(super) fn asker(self) -> Option<Asker> {
        match self {
            Self::One(asker) => Some(asker),
            Self::Mean => None,
        }
    }
}

/// What is read off the states, a hidden layer where the family has one, and the output layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// What is read.
    pub(super) pool: Pool,
    /// The hidden layer.
    pub(super) dense: Option<Dense>,
    /// The output layer.
    pub(super) out: LinearSpec,
}

/// The hidden layer of a head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dense {
    pub(super) linear: LinearSpec,
    pub(super) activation: Activation,
    /// After the activation.
    pub(super) norm: Option<NormSpec>,
}

impl Head {
    /// Pushes all but the output layer: the states of the tokens that are read, or of all → what that layer reads,
    /// `[sequences, hidden]`.
    pub(super) fn features(&self, tape: &mut Tape, batch: &Batch, states: State) -> Var {
        let read = match self.pool {
            Pool::One(_) => states.full,
            Pool::Mean => tape.mean(states, batch).full,
        };
        let Some(Dense { linear, activation, norm }) = self.dense else { return read };
        let hidden = tape.linear(read, linear, Some(activation));
        match norm {
            None => hidden,
            Some(norm) => tape.post_norm(hidden, None, norm).full,
        }
    }
}

/// A model without values: its parameters and how they are put together.
pub(super) struct Declared {
    pub(super) parameters: Parameters,
    pub(super) network: Network,
    pub(super) head: Head,
}

/// How the checkpoints of a family name what the model does not state by itself.
#[derive(Clone, Copy)]
pub(super) struct Names {
    /// What a checkpoint of the bare model leaves away.
    pub(super) prefix: &'static str,
    /// How names of tensors begin that a judge has no use for.
    pub(super) unused: &'static [&'static str],
    /// How they end.
    pub(super) unused_ends: &'static [&'static str],
}

impl Names {
    /// What a checkpoint may call a parameter: as declared, without the prefix, and with the `gamma` and `beta` of
    /// checkpoints that came from TensorFlow.
    pub(super) fn of(&self, parameter: &str) -> [String; 4] {
        let bare = parameter.strip_prefix(self.prefix).unwrap_or(parameter);
        let old = |name: &str| match name.strip_suffix("LayerNorm.weight") {
            Some(stem) => format!("{stem}LayerNorm.gamma"),
            None => match name.strip_suffix("LayerNorm.bias") {
                Some(stem) => format!("{stem}LayerNorm.beta"),
                None => name.to_owned(),
            },
        };
        [parameter.to_owned(), bare.to_owned(), old(parameter), old(bare)]
    }

    /// Whether a checkpoint may hold this tensor besides the model's own.
    pub(super) fn is_unused(&self, name: &str) -> bool {
        let whole = format!("{}{name}", self.prefix);
        let begins = |start: &&str| name.starts_with(*start) || whole.starts_with(*start);
        self.unused.iter().any(begins) || self.unused_ends.iter().any(|end| name.ends_with(end))
    }
}
