//! One text, one score: alone, in any company, on any number of threads; and a number at every edge.

use super::probes::{self, Probe};
use super::{Check, Found, Reference, Trouble, require};
use crate::models::{JudgeError, Scored, Scorer};
use crate::random::Stream;
use kernels::parallel::with_threads;

/// Scores each edge alone. Returns a check of each and those that have a score.
pub(super) fn edges(judge: &mut Scorer) -> (Vec<Check>, Vec<Probe>) {
    let edges = match probes::edges(&judge.encoder) {
        Ok(edges) => edges,
        Err(error) => return (vec![Check::new("edges", Err(error.into()))], Vec::new()),
    };
    let (mut checks, mut scored) = (Vec::new(), Vec::new());
    for probe in edges {
        let found = edge(judge, &probe);
        let name = probe.name;
        if found.is_ok() {
            scored.push(probe);
        }
        checks.push(Check::new(format!("edge: {name}"), found));
    }
    (checks, scored)
}

fn edge(judge: &mut Scorer, probe: &Probe) -> Found {
    let Scored { score, tokens, truncated } = judge.score(&[probe.input()])?[0];
    let limit = judge.encoder.settings().max_length;
    require(tokens <= limit, || format!("{tokens} tokens, the limit is {limit}"))?;
    Ok(format!("{score:.4} of {tokens} tokens{}", if truncated { ", cut" } else { "" }))
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

fn ordinary(reference: &Reference) -> impl Iterator<Item = usize> {
    (0..reference.probes.len()).filter(|p| !reference.probes[*p].is_huge())
}

/// The probes without the long ones, whose company the reference itself was.
fn short(reference: &Reference) -> Vec<usize> {
    ordinary(reference).filter(|p| reference.scores[*p].tokens < 200).collect()
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

/// All short probes and the longest one at once.
pub(super) fn together(judge: &mut Scorer, reference: &Reference) -> Found {
    let mut batch = short(reference);
    let longest = ordinary(reference).max_by_key(|p| reference.scores[*p].tokens);
    batch.extend(longest.filter(|p| !batch.contains(p)));
    expect(reference, &batch, &score(judge, reference, &batch)?)?;
    Ok(format!("{} texts, bit for bit", batch.len()))
}
