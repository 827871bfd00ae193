//! One text, one score: alone, in any company, on any number of threads; and a number at every edge.

use super::probes::{self, AT_THE_LIMIT, Probe};
use super::{Check, Found, Reference, Trouble, require};
use crate::models::{JudgeError, Scored, Scorer};
use crate::nn::Role;
use crate::random::Stream;
use crate::text::Encoded;
use kernels::parallel::with_threads;

/// Texts of fewer tokens are in every batch.
const SHORT: usize = 200;

/// Scores each edge alone. Returns a check of each and the short ones that have a score. Of the long ones one is scored, and
/// of the others as many as `budget` has room for.
pub(super) fn edges(judge: &mut Scorer, budget: &mut Budget) -> (Vec<Check>, Vec<Probe>) {
    let edges = match probes::edges(&judge.encoder) {
        Ok(edges) => edges,
        Err(error) => return (vec![Check::new("edges", Err(error.into()))], Vec::new()),
    };
    let (mut checks, mut scored) = (Vec::new(), Vec::new());
    for probe in edges {
        let name = probe.name;
        let found = edge(judge, &probe, budget);
        checks.push(Check::new(
            format!("edge: {name}"),
            found.map(|(figure, tokens)| {
                if tokens < SHORT {
                    scored.push(probe);
                }
                figure
            }),
        ));
    }
    (checks, scored)
}

/// The figure of an edge, and its tokens.
fn edge(judge: &mut Scorer, probe: &Probe, budget: &mut Budget) -> Result<(String, usize), Trouble> {
    let (prompt, response) = probe.input();
    let Encoded { ids, truncated, .. } = judge.encoder.encode(prompt, response)?;
    let (tokens, limit) = (ids.len(), judge.encoder.settings().max_length);
    require(tokens <= limit, || format!("{tokens} tokens, the limit is {limit}"))?;
    let cut = if truncated { ", cut" } else { "" };
    if tokens >= SHORT && probe.name != AT_THE_LIMIT && !budget.take(tokens) {
        return Err(Trouble::Skipped(format!(
            "{tokens} tokens{cut}; in so large a model one text of that length is scored"
        )));
    }
    let Scored { score, .. } = judge.score(&[probe.input()])?[0];
    Ok((format!("{score:.4} of {tokens} tokens{cut}"), tokens))
}

/// How much of the long texts is scored: for a large model less, so that the test takes a time in which one waits.
pub(super) struct Budget {
    parameters: usize,
    left: usize,
}

impl Budget {
    /// Multiplications with weights that the long edges may take beside the first: seconds on two cores.
    const EDGES: usize = 200_000_000_000;
    /// Those that one text of every company may take.
    const COMPANY: usize = 20_000_000_000;
    /// Fewest tokens of that text: more than one tile of any kernel, and than one chunk of attention.
    const FEWEST: usize = 256;

    pub(super) fn of(judge: &Scorer) -> Self {
        let specs = judge.model.parameters.specs().iter().filter(|spec| matches!(spec.role, Role::Layer(_)));
        Self { parameters: specs.map(|spec| spec.span.len).sum(), left: Self::EDGES }
    }

    /// Whether a text of so many tokens still has room.
    fn take(&mut self, tokens: usize) -> bool {
        let work = tokens.saturating_mul(self.parameters);
        let fits = work <= self.left;
        if fits {
            self.left -= work;
        }
        fits
    }

    /// Tokens of the long text that is scored in every company.
    pub(super) fn company(&self, limit: usize) -> usize {
        limit.min((Self::COMPANY / self.parameters.max(1)).max(Self::FEWEST))
    }
}

pub(super) fn checks(judge: &mut Scorer, reference: &Reference) -> Vec<Check> {
    let mut checks = vec![
        Check::new("same score alone", alone(judge, reference)),
        Check::new("same score in any batch", batches(judge, reference)),
    ];
    for threads in 1..=3 {
        let found = with_threads(threads, || together(judge, reference));
        checks.push(Check::new(format!("same score on {threads} thread{}", if threads > 1 { "s" } else { "" }), found));
    }
    checks
}

fn alone(judge: &mut Scorer, reference: &Reference) -> Found {
    for (probe, expected) in reference.probes.iter().zip(&reference.scores) {
        agree(probe, judge.score(&[probe.input()])?[0].score, expected.score)?;
    }
    Ok(format!("{} texts, bit for bit", reference.probes.len()))
}

/// Fails when a score is not the reference's, bit for bit.
fn agree(probe: &Probe, found: f32, expected: f32) -> Result<(), Trouble> {
    require(found.to_bits() == expected.to_bits(), || {
        let difference = (found - expected).abs();
        format!("{} {:?}: {found} instead of {expected}, {difference:.1e} apart", probe.name, excerpt(probe))
    })
}

fn excerpt(probe: &Probe) -> String {
    probe.response.to_value().to_string().chars().take(40).collect()
}

/// Random companies of several sizes, each probe with others than before.
fn batches(judge: &mut Scorer, reference: &Reference) -> Found {
    let mut random = Stream::new(1, 0);
    let mut order: Vec<usize> = short(reference);
    let sizes = [2, 3, 7, order.len()];
    for size in sizes {
        random.shuffle(&mut order);
        for batch in order.chunks(size) {
            expect(reference, batch, &score(judge, reference, batch)?)?;
        }
    }
    Ok(format!("{} texts in batches of {}, {}, {} and {}", order.len(), sizes[0], sizes[1], sizes[2], sizes[3]))
}

/// The probes without the long one, whose company the reference itself was.
fn short(reference: &Reference) -> Vec<usize> {
    (0..reference.probes.len()).filter(|p| reference.scores[*p].tokens < SHORT).collect()
}

fn score(judge: &mut Scorer, reference: &Reference, batch: &[usize]) -> Result<Vec<Scored>, JudgeError> {
    let inputs: Vec<_> = batch.iter().map(|p| reference.probes[*p].input()).collect();
    judge.score(&inputs)
}

fn expect(reference: &Reference, batch: &[usize], found: &[Scored]) -> Result<(), Trouble> {
    batch
        .iter()
        .zip(found)
        .try_for_each(|(p, found)| agree(&reference.probes[*p], found.score, reference.scores[*p].score))
}

/// All probes at once.
pub(super) fn together(judge: &mut Scorer, reference: &Reference) -> Found {
    let batch: Vec<usize> = (0..reference.probes.len()).collect();
    expect(reference, &batch, &score(judge, reference, &batch)?)?;
    Ok(format!("{} texts, bit for bit", batch.len()))
}

#[cfg(test)]
mod tests {
    use super::Budget;

    /// What is scored of long texts: all of a small judge, little of a large one, and never nothing.
    #[test]
    fn large_models_score_fewer_long_texts() {
        let cases = [
            (10_000_000, 512, 512, 3),     // MiniLM
            (106_000_000, 1024, 256, 1),   // SmolLM2-135M
            (440_000_000, 1024, 256, 0),   // Qwen3-0.6B
            (7_000_000_000, 8192, 256, 0), // as large as it gets
            (7_000_000_000, 128, 128, 0),
        ];
        for (parameters, limit, company, scored) in cases {
            let mut budget = Budget { parameters, left: Budget::EDGES };
            assert_eq!(budget.company(limit), company, "{parameters}");
            assert_eq!((0..3).filter(|_| budget.take(limit)).count(), scored, "{parameters}");
        }
    }
}
