//! From encoded texts to outputs: which texts run together, one packed batch, a result for each text.
//!
//! Packing and running are separate calls. Whoever has a queue of texts packs it as he likes and runs one batch at a
//! time; a text's result has the same bits in any batch. Texts of a decoder that begin alike share their beginning
//! ([`super::sharing`]), whoever hands them in.

use super::model::Model;
use super::reward_model::JudgeError;
use super::sharing::{Family, families};
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

    /// The ids of a text that its outputs depend on, where no token sees those after it: such texts can share their
    /// beginning. `None` for a model whose tokens see all of their text.
    ///
    /// # Errors
    /// As [`Self::push`], but for a text without tokens.
    fn causal_ids<'a>(&self, _encoded: &'a Encoded) -> Option<Result<&'a [u32], ScoreError>> {
        None
    }

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

/// A family of texts has at most so many computed tokens, or twice as many as its longest text: two batches, so that a
/// long prompt of many responses is seldom computed twice.
const FAMILY_TOKENS: usize = 2 * SCORING_TOKENS;

/// Texts with what of each enters a batch.
struct Texts<'a> {
    texts: Vec<&'a Encoded>,
    /// What of each text its outputs depend on, where texts can share their beginning; nothing of a text that fails.
    ids: Option<Vec<&'a [u32]>>,
    /// For each text the sequence of the batch that ends where it does, or why it has none.
    sequences: Vec<Result<usize, ScoreError>>,
}

impl<'a> Texts<'a> {
    /// The texts, and which of them share their beginning.
    fn new<E: Borrow<Encoded>>(model: &dyn Scores, texts: &'a [E]) -> (Self, Vec<Family>) {
        let texts: Vec<&Encoded> = texts.iter().map(Borrow::borrow).collect();
        let read: Option<Vec<_>> = texts.iter().map(|text| model.causal_ids(text)).collect();
        let Some(read) = read else {
            let single = |(place, text): (usize, &&Encoded)| Family::single(place, text.ids.len());
            let alone = texts.iter().enumerate().map(single).collect();
            let sequences = vec![Ok(0); texts.len()];
            return (Self { texts, ids: None, sequences }, alone);
        };
        let ids: Vec<&[u32]> = read.iter().map(|ids| *ids.as_ref().unwrap_or(&[].as_slice())).collect();
        let families = families(&ids, FAMILY_TOKENS);
        let sequences = read.into_iter().map(|ids| ids.map(|_| 0)).collect();
        (Self { texts, ids: Some(ids), sequences }, families)
    }

    /// Appends a family to the batch.
    fn push(&mut self, model: &dyn Scores, family: &Family, batch: &mut Batch) {
        let pushed = match &self.ids {
            None => model.push(self.texts[family.members[0]], batch).map(|()| vec![batch.sequences() - 1]),
            Some(ids) => family.push(ids, batch).map_err(ScoreError::from),
        };
        for (member, place) in family.members.iter().enumerate() {
            let own = &mut self.sequences[*place];
            if own.is_ok() {
                *own = pushed.as_ref().map(|sequences| sequences[member]).map_err(Clone::clone);
            }
        }
    }
}

/// Appends texts to a batch, where the model allows it those that begin alike with one beginning. Gives for each text the
/// sequence that ends where it does, or why it is not in the batch.
pub fn push_all<E: Borrow<Encoded>>(
    model: &dyn Scores,
    texts: &[E],
    batch: &mut Batch,
) -> Vec<Result<usize, ScoreError>> {
    let (mut texts, families) = Texts::new(model, texts);
    families.iter().for_each(|family| texts.push(model, family, batch));
    texts.sequences
}

/// Which texts run together, each text once: groups of places in `texts`, of at most `budget` computed tokens. Texts that
/// share their beginning stand in one group. Scoring runs the groups one by one ([`super::RewardModel::run`]), and a caller
/// can look around between them.
pub fn batches<E: Borrow<Encoded>>(model: &dyn Scores, texts: &[E], budget: usize) -> Vec<Vec<usize>> {
    let families = Texts::new(model, texts).1;
    let tokens: Vec<usize> = families.iter().map(|family| family.tokens).collect();
    let members = |group: Vec<usize>| group.into_iter().flat_map(|family| families[family].members.clone()).collect();
    pack(&tokens, budget).into_iter().map(members).collect()
}

/// Tokens that [`push_all`] appends.
pub fn computed_tokens<E: Borrow<Encoded>>(model: &dyn Scores, texts: &[E]) -> usize {
    Texts::new(model, texts).1.iter().map(|family| family.tokens).sum()
}

/// Runs one packed batch and gives the row of logits of each text, in the order given. A text that cannot be computed
/// fails alone. It runs on a thread of the pool: from any other, each parallel loop would wake and await one.
pub(super) fn logits(
    model: &dyn Scores,
    texts: &[&Encoded],
    workspace: &mut Workspace,
) -> Vec<Result<Vec<f32>, ScoreError>> {
    within(model, texts, workspace, (OUTPUTS, usize::MAX))
}

/// As [`logits`], for any number of texts in batches of [`SCORING_TOKENS`].
pub(super) fn logits_each<E: Borrow<Encoded>>(
    model: &dyn Scores,
    texts: &[E],
    workspace: &mut Workspace,
) -> Vec<Result<Vec<f32>, ScoreError>> {
    within(model, texts, workspace, (OUTPUTS, SCORING_TOKENS))
}

/// What the head's last layer reads of each text, `[hidden]`, in the order given.
pub fn features_each<E: Borrow<Encoded>>(
    model: &dyn Scores,
    texts: &[E],
    workspace: &mut Workspace,
) -> Vec<Result<Vec<f32>, ScoreError>> {
    within(model, texts, workspace, (|model, tape, batch| model.features(tape, batch), SCORING_TOKENS))
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

/// A row of what `build` computes for each text, in batches of so many computed tokens.
fn within<E: Borrow<Encoded>>(
    model: &dyn Scores,
    texts: &[E],
    workspace: &mut Workspace,
    (build, budget): (Build, usize),
) -> Vec<Result<Vec<f32>, ScoreError>> {
    let (mut texts, families) = Texts::new(model, texts);
    let tokens: Vec<usize> = families.iter().map(|family| family.tokens).collect();
    let mut results: Vec<Option<Result<Vec<f32>, ScoreError>>> = vec![None; texts.texts.len()];
    inside(|| {
        for group in pack(&tokens, budget) {
            let group: Vec<&Family> = group.into_iter().map(|family| &families[family]).collect();
            rows(model, &mut texts, &group, workspace, build, &mut results);
        }
    });
    results.into_iter().map(|result| result.expect("each text is of one family")).collect()
}

/// Runs the families as one batch, and puts the rows of their texts where these stand.
fn rows(
    model: &dyn Scores,
    texts: &mut Texts,
    families: &[&Family],
    workspace: &mut Workspace,
    build: Build,
    results: &mut [Option<Result<Vec<f32>, ScoreError>>],
) {
    workspace.batch.clear();
    families.iter().for_each(|family| texts.push(model, family, &mut workspace.batch));
    let sequences = workspace.batch.sequences();
    let values = if sequences == 0 {
        &[][..]
    } else {
        let output = workspace.run(model, Mode::Score, build);
        workspace.tape.value(output)
    };
    let width = values.len() / sequences.max(1);
    for place in families.iter().flat_map(|family| &family.members) {
        let sequence = texts.sequences[*place].clone();
        results[*place] = Some(sequence.and_then(|at| finite(&values[at * width..(at + 1) * width])));
    }
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
        if let Some(ids) = self.causal_ids(encoded) {
            let ids = ids?;
            return Ok(batch.push(Sequence { ids, type_ids: &vec![0; ids.len()] }, None)?);
        }
        self.check(encoded)?;
        let padding = self.config.encoder().and_then(|config| config.padding);
        Ok(batch.push(Sequence { ids: &encoded.ids, type_ids: &encoded.type_ids }, padding)?)
    }

    fn causal_ids<'a>(&self, encoded: &'a Encoded) -> Option<Result<&'a [u32], ScoreError>> {
        let config = self.config.decoder()?;
        // No token sees those after it, so what follows the token that is read changes nothing.
        let end = pooled_index(&encoded.ids, config.pad).map_or(0, |last| last + 1);
        Some(self.check(encoded).map(|()| &encoded.ids[..end]))
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
    /// Whether texts that begin alike share their beginning in a batch: no token sees those after it.
    pub fn shares_beginnings(&self) -> bool {
        self.config.decoder().is_some()
    }

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
