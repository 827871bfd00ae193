//! The self-test of a judge: what must hold of any judge, whatever it was trained on.
//!
//! A judge can be wrong in ways that no accuracy shows: its scores move with the batch, its tokenizer
//! belongs to another model, it answers NaN to an empty text. [`self_test`] takes a directory, not a
//! loaded judge, because loading is what goes wrong first. It needs no data: [`probes`] are texts of our
//! own, and every requirement is one of agreement or of bounds. Whether the judge is any good is for
//! `eval` to say. The commands that score are not known here; whoever has them compares them with
//! [`SelfTest::reference`].
//!
//! | file | subject |
//! |---|---|
//! | `probes.rs` | the texts |
//! | `tokens.rs` | vocabulary, round trip, rendering, truncation |
//! | `scores.rs` | the same score alone, in any batch, on any number of threads; the edges |
//! | `stored.rs` | after save and load, and in each precision |

pub mod probes;
mod scores;
mod stored;
mod tokens;

use crate::models::{JudgeError, RewardModel, Scored, Scorer};
use probes::Probe;
use std::path::Path;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Ok,
    /// It cannot be tried here.
    Skipped,
    /// It does not hold.
    Fail,
}

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// The measured figure; of a failure what was expected and found, of a skipped check why.
    pub figure: String,
}

/// Why a check does not end with `ok`.
pub enum Trouble {
    /// It does not hold, and how.
    Fails(String),
    /// It cannot be tried, and why.
    Skipped(String),
}

impl<E: std::error::Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        Trouble::Fails(error.to_string())
    }
}

/// The figure of a check that holds, or what is the trouble.
pub type Found = Result<String, Trouble>;

/// Fails with the message unless the condition holds.
fn require(holds: bool, message: impl FnOnce() -> String) -> Result<(), Trouble> {
    if holds { Ok(()) } else { Err(Trouble::Fails(message())) }
}

impl Check {
    /// Gives a finding its name.
    pub fn new(name: impl Into<String>, found: Found) -> Self {
        let (verdict, figure) = match found {
            Ok(figure) => (Verdict::Ok, figure),
            Err(Trouble::Skipped(why)) => (Verdict::Skipped, why),
            Err(Trouble::Fails(how)) => (Verdict::Fail, how),
        };
        Self { name: name.into(), verdict, figure }
    }
}

/// The probes with the scores that every other way to score must repeat.
pub struct Reference {
    /// The texts.
    pub probes: Vec<Probe>,
    /// Their scores, all scored together in the precision that the judge is used in.
    pub scores: Vec<Scored>,
}

/// What a self-test found.
pub struct SelfTest {
    /// Every check, in the order in which it was done.
    pub checks: Vec<Check>,
    /// What the commands are compared with; `None` when the judge cannot be loaded or cannot score.
    pub reference: Option<Reference>,
}

/// Tests the judge of a directory in the precision that it is used in by default.
///
/// Nothing here is an error: a judge that cannot be loaded fails its first check.
pub fn self_test(dir: &Path) -> SelfTest {
    let mut checks = Vec::new();
    let mut judge = match Scorer::load(dir, None) {
        Ok(judge) => judge,
        Err(error) => {
            checks.push(Check::new("loads", Err(error.into())));
            return SelfTest { checks, reference: None };
        }
    };
    checks.push(Check::new("loads", Ok(description(&judge))));
    checks.extend(tokens::checks(dir, &judge));
    let mut budget = scores::Budget::of(&judge);
    let (edges, scored) = scores::edges(&mut judge, &mut budget);
    checks.extend(edges);
    let limit = judge.encoder.settings().max_length;
    let long = budget.company(limit);
    // What characters a text has changes its ids alone. So in a large model the edges stand in no company.
    let company = if long < limit { Vec::new() } else { scored };
    let reference = match reference(&mut judge, company, long) {
        Ok(reference) => reference,
        Err(error) => {
            checks.push(Check::new("scores", Err(error.into())));
            return SelfTest { checks, reference: None };
        }
    };
    checks.extend(scores::checks(&mut judge, &reference));
    checks.extend(stored::checks(dir, &judge, &reference));
    SelfTest { checks, reference: Some(reference) }
}

fn description(judge: &RewardModel) -> String {
    let (layers, length) = (judge.model.config.layers(), judge.encoder.settings().max_length);
    let parameters = judge.model.parameters.count() as f64 / 1e6;
    let family = judge.model.config.family();
    format!("{family}, {} layers, {parameters:.1} M parameters, {}, {length} tokens", layers, judge.precision())
}

/// Scores the plain probes, those edges that keep them company, and a long text, together.
fn reference(judge: &mut Scorer, edges: Vec<Probe>, long: usize) -> Result<Reference, JudgeError> {
    let long = probes::long(&judge.encoder, long)?;
    let probes: Vec<Probe> = probes::plain().into_iter().chain(edges).chain([long]).collect();
    let scores = judge.score(&probes::inputs(&probes))?;
    Ok(Reference { probes, scores })
}
