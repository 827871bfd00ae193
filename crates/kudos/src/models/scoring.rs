//! From encoded texts to outputs: which texts run together, one packed batch, a result for each text.
//!
//! Packing and running are separate calls. Whoever has a queue of texts packs it as he likes and runs one batch at a
//! time; a text's result has the same bits in any batch.

use super::config::Config;
use super::model::Model;
use super::reward_model::JudgeError;
use crate::nn::{Batch, BatchError, Mode, Sequence, Storage, Tape, Var, Weights};
use crate::text::{Encoded, TextError, pooled_index};
use kernels::parallel::inside;
use std::borrow::Borrow;
use std::sync::Arc;

/// Why one text has no score. Others of its batch have theirs.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ScoreError {
    /// It cannot be rendered or tokenised.
    #[error(transparent)]
    Text(#[from] Arc<TextError>),
    /// The tokenizer knows more words than the model.
    #[error(
        "token id {id} lies outside the model's {vocabulary} embeddings: the tokenizer files belong to another model"
    )]
    Vocabulary {
        /// First id without an embedding.
        id: u32,
        /// Rows of the table.
        vocabulary: usize,
    },
    /// The tokenizer gives segments that the model has no vectors for.
    #[error(
        "a token has segment {segment}, but config.json gives the model a `type_vocab_size` of {segments}: \
         the tokenizer files belong to another model"
    )]
    Segment {
        /// First segment without a vector.
        segment: u32,
        /// Rows of the table.
        segments: usize,
    },
    /// It has more tokens than the model has positions.
    #[error(
        "a text has {tokens} tokens, the model has {limit} positions: encode it with a `max_length` of at most {limit}"
    )]
    Tokens {
        /// Tokens of the text.
        tokens: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// It cannot join a batch: mostly because it has no tokens.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// What the model computes for it is not a number.
    #[error("the judge gave the score {value}: its weights are broken or its training diverged")]
    NotFinite {
        /// The first output or feature that is none.
        value: f32,
    },
}

/// What one thread computes with: kept from batch to batch, so that a warm one allocates nothing. It knows no weights, so
/// it serves any model, and any number of workspaces serve one.
#[derive(Default)]
pub struct Workspace {
    /// The ops and their memory.
    pub tape: Tape,
    /// The packed sequences.
    pub batch: Batch,
}

/// What scoring asks of a network.
pub trait Scores: Sync {
    /// Appends one encoded text to a batch. Every id, segment and position is one that the model has a vector for.
    ///
    /// # Errors
    /// [`ScoreError::Vocabulary`], [`ScoreError::Segment`], [`ScoreError::Tokens`], and [`ScoreError::Batch`] for a text
    /// without tokens. The batch is then as it was.
    fn push(&self, encoded: &Encoded, batch: &mut Batch) -> Result<(), ScoreError>;

    /// Pushes all but the head's last layer: packed batch → what that layer reads, `[sequences, hidden]`.
    fn features(&self, tape: &mut Tape, batch: &Batch) -> Var;

    /// Pushes the whole model: packed batch → outputs, `[sequences, labels]`.
    fn outputs(&self, tape: &mut Tape, batch: &Batch) -> Var;

    /// The weights as ops read them.
    fn weights(&self) -> Weights<'_>;

    /// How values flow between its layers.
    fn storage(&self) -> Storage;
}

/// What one row a text is computed by.
type Build = fn(&dyn Scores, &mut Tape, &Batch) -> Var;

const OUTPUTS: Build = |model, tape, batch| model.outputs(tape, batch);

impl Workspace {
    /// Runs the model forward over the batch; the logits stay on the tape.
    pub fn forward(&mut self, model: &dyn Scores, mode: Mode) -> Var {
        self.run(model, mode, OUTPUTS)
    }

    fn run(&mut self, model: &dyn Scores, mode: Mode, build: Build) -> Var {
        self.tape.start(mode, model.storage());
        let output = build(model, &mut self.tape, &self.batch);
        self.tape.forward(output, model.weights(), &self.batch);
        output
    }
}

/// Tokens of one packed batch when nothing else is asked for: enough to keep the products large, small in memory.
pub const SCORING_TOKENS: usize = 2048;

/// Which texts run together: groups of places in `lengths`, each text once. Texts of similar length stand together. The
/// lengths of a group add up to at most `budget` tokens; a longer text is alone.
pub fn pack(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|place| lengths[*place]);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0usize;
    for place in order {
        let with_it = tokens.saturating_add(lengths[place]);
        match groups.last_mut().filter(|_| with_it <= budget) {
            Some(group) => {
                group.push(place);
                tokens = with_it;
            }
            None => {
                groups.push(vec![place]);
                tokens = lengths[place];
            }
        }
    }
    groups
}

/// Runs one packed batch and gives the row of logits of each text, in the order given. A text that cannot be computed
/// fails alone. It runs on a thread of the pool: from any other, each parallel loop would wake and await one.
pub(super) fn logits(
    model: &dyn Scores,
    texts: &[&Encoded],
    workspace: &mut Workspace,
) -> Vec<Result<Vec<f32>, ScoreError>> {
    inside(|| rows(model, texts, workspace, OUTPUTS))
}

/// As [`logits`], for any number of texts in batches of [`SCORING_TOKENS`].
pub(super) fn logits_each<E: Borrow<Encoded> + Sync>(
    model: &dyn Scores,
    texts: &[E],
    workspace: &mut Workspace,
) -> Vec<Result<Vec<f32>, ScoreError>> {
    each(model, texts, workspace, OUTPUTS)
}

/// What the head's last layer reads of each text, `[hidden]`, in the order given.
pub fn features_each<E: Borrow<Encoded> + Sync>(
    model: &dyn Scores,
    texts: &[E],
    workspace: &mut Workspace,
) -> Vec<Result<Vec<f32>, ScoreError>> {
    each(model, texts, workspace, |model, tape, batch| model.features(tape, batch))
}

/// The outputs of all texts, `[texts, labels]`, in the order given.
///
/// # Errors
/// [`JudgeError::Unscored`] for the first text without a score.
pub fn score_encoded(
    model: &dyn Scores,
    encoded: &[Encoded],
    workspace: &mut Workspace,
) -> Result<Vec<f32>, JudgeError> {
    Ok(all_or_first(logits_each(model, encoded, workspace))?.concat())
}

/// All results, where each text has one.
///
/// # Errors
/// [`JudgeError::Unscored`] for the first text that has none.
pub fn all_or_first<T>(results: Vec<Result<T, ScoreError>>) -> Result<Vec<T>, JudgeError> {
    let placed = results.into_iter().enumerate();
    placed.map(|(text, result)| result.map_err(|error| JudgeError::Unscored { text, error })).collect()
}

fn each<E: Borrow<Encoded> + Sync>(
    model: &dyn Scores,
    texts: &[E],
    workspace: &mut Workspace,
    build: Build,
) -> Vec<Result<Vec<f32>, ScoreError>> {
    let lengths: Vec<usize> = texts.iter().map(|text| text.borrow().ids.len()).collect();
    let run = |group: &Vec<usize>| {
        let own: Vec<&Encoded> = group.iter().map(|place| texts[*place].borrow()).collect();
        rows(model, &own, workspace, build)
    };
    let groups = pack(&lengths, SCORING_TOKENS);
    let found: Vec<_> = inside(|| groups.iter().flat_map(run).collect());
    let mut placed: Vec<_> = groups.into_iter().flatten().zip(found).collect();
    placed.sort_unstable_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, row)| row).collect()
}

fn rows(
    model: &dyn Scores,
    texts: &[&Encoded],
    workspace: &mut Workspace,
    build: Build,
) -> Vec<Result<Vec<f32>, ScoreError>> {
    workspace.batch.clear();
    let pushed: Vec<_> = texts.iter().map(|text| push(model, text, &mut workspace.batch)).collect();
    let sequences = workspace.batch.sequences();
    if sequences == 0 {
        return pushed.into_iter().map(|pushed| pushed.map(|()| Vec::new())).collect();
    }
    let output = workspace.run(model, Mode::Score, build);
    let values = workspace.tape.value(output);
    let mut rows = values.chunks_exact(values.len() / sequences);
    let row_of = |pushed: Result<(), ScoreError>| finite(pushed.map(|()| rows.next().expect("a row a sequence"))?);
    pushed.into_iter().map(row_of).collect()
}

fn finite(row: &[f32]) -> Result<Vec<f32>, ScoreError> {
    match row.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(ScoreError::NotFinite { value: *value }),
        None => Ok(row.to_vec()),
    }
}

/// As [`Scores::push`].
///
/// # Errors
/// As [`Scores::push`].
pub fn push(model: &dyn Scores, encoded: &Encoded, batch: &mut Batch) -> Result<(), ScoreError> {
    model.push(encoded, batch)
}

impl Scores for Model {
    fn push(&self, encoded: &Encoded, batch: &mut Batch) -> Result<(), ScoreError> {
        self.check(encoded)?;
        match &self.config {
            Config::Encoder(config) => {
                Ok(batch.push(Sequence { ids: &encoded.ids, type_ids: &encoded.type_ids }, config.padding)?)
            }
            Config::Decoder(config) => {
                // No token sees those after it, so what follows the token that is read changes nothing.
                let end = pooled_index(&encoded.ids, config.pad).map_or(0, |last| last + 1);
                Ok(batch.push(Sequence { ids: &encoded.ids[..end], type_ids: &vec![0; end] }, None)?)
            }
        }
    }

    fn features(&self, tape: &mut Tape, batch: &Batch) -> Var {
        Model::features(self, tape, batch)
    }

    fn outputs(&self, tape: &mut Tape, batch: &Batch) -> Var {
        self.build(tape, batch)
    }

    fn weights(&self) -> Weights<'_> {
        Model::weights(self)
    }

    fn storage(&self) -> Storage {
        Model::storage(self)
    }
}

impl Model {
    /// Refuses a text with what the model has no vectors for.
    fn check(&self, encoded: &Encoded) -> Result<(), ScoreError> {
        let (vocabulary, segments) = (self.config.vocabulary(), self.config.segments());
        if let Some(id) = encoded.ids.iter().copied().find(|id| *id as usize >= vocabulary) {
            return Err(ScoreError::Vocabulary { id, vocabulary });
        }
        // A family without segments reads none, whatever stands there.
        if let Some(segment) = encoded.type_ids.iter().copied().find(|s| segments > 0 && *s as usize >= segments) {
            return Err(ScoreError::Segment { segment, segments });
        }
        let (tokens, limit) = (encoded.ids.len(), self.max_tokens());
        if tokens > limit {
            return Err(ScoreError::Tokens { tokens, limit });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A text that is lost or scored twice would give a neighbour's score to somebody.
        #[test]
        fn every_text_is_packed_once_within_the_budget(
            lengths in proptest::collection::vec(0usize..60, 0..40), budget in 0usize..100,
        ) {
            let groups = pack(&lengths, budget);
            let mut all = groups.concat();
            prop_assert!(all.windows(2).all(|w| lengths[w[0]] <= lengths[w[1]]), "by length");
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            for group in groups {
                let tokens = group.iter().map(|place| lengths[*place]).sum::<usize>();
                prop_assert!(tokens <= budget || group.len() == 1);
            }
        }
    }

    #[test]
    fn groups_are_filled_before_the_next_begins() {
        assert_eq!(pack(&[5, 1, 9, 2, 3], 8), vec![vec![1, 3, 4], vec![0], vec![2]]);
        assert_eq!(pack(&[usize::MAX, usize::MAX], usize::MAX), vec![vec![0, 1]; 1], "no overflow");
        assert_eq!(pack(&[], 8), Vec::<Vec<usize>>::new());
    }
}
