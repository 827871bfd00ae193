//! The one network: token ids → states, for encoders and decoders alike. What is read off the states is the head's, which
//! the models have.

use super::layer::{Layer, Reach, Stream};
use crate::nn::{Asker, AttentionSpec, Batch, EmbedSpec, LinearSpec, NormSpec, State, Tape};
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
    /// The layers.
    pub(super) layers: Vec<Layer>,
    /// The norm after the last layer.
    pub(super) final_norm: Option<NormSpec>,
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
        let full = tape.embed_by(batch, self.hidden, self.embedding);
        let mut x = Stream::new(match self.embedding_norm {
            None => State { full, operand: full },
            Some(norm) => tape.post_norm(full, None, norm),
        });
        for (index, layer) in self.layers.iter().enumerate() {
            let rotary = layer.turns.map(|table| Arc::clone(&turns[table]));
            let attention = AttentionSpec { rotary, ..layer.attention.clone() };
            x = layer.push(tape, batch, &attention, x, reach(index));
        }
        match self.final_norm {
            None => x.state(),
            Some(norm) => x.normed(tape, norm).1,
        }
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
