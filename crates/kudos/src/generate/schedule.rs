//! Which responses are still to be drawn, and which of those drawn are the answers.
//!
//! A prompt needs `n` responses; one that repeats another is drawn again, up to [`MAX_RETRIES`] times. The rule goes in
//! rounds, and a round is judged when all its responses are there: in the order of the indices, each is compared
//! with those of smaller indices that stand; one that repeats any of them falls and needs its next retry. When none falls, the
//! round's responses are the answers. So the outcome is a function of the texts alone: it does not know in
//! which order they came, nor whether the run was interrupted.
//!
//! A response that could not be had is not compared, and its index keeps the error. One that is a repeat after its last retry is
//! kept, and counted.
//!
//! This module draws nothing and writes nothing.

use super::diversity::{Distinct, Fingerprint};
use super::job::{Attempt, FinishReason, Generated};
use crate::random::Stream;
use std::collections::BTreeMap;

/// How often a response is drawn again because it repeats another.
pub const MAX_RETRIES: u32 = 5;

/// What every prompt is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Responses a prompt.
    pub n: usize,
    /// Which of them count as the same.
    pub distinct: Distinct,
    /// How often one is drawn again; [`MAX_RETRIES`] unless there is a reason.
    pub max_retries: u32,
}

/// Where one prompt stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// These are missing, in the order of their indices; the next decision needs them all.
    Needs(Vec<Attempt>),
    /// All is there.
    Complete {
        /// The answer for each index `0..n`.
        accepted: Vec<Attempt>,
        /// Indices of answers that repeat one before them even after the last retry.
        repeats_left: Vec<usize>,
    },
}

/// Decides for one prompt from what is finished of it (what is finished of other prompts is not looked at).
pub fn decide<'a>(prompt: usize, wanted: &Wanted, finished: impl IntoIterator<Item = &'a Generated>) -> Decision {
    let of_prompt = finished.into_iter().filter(|one| one.attempt.prompt == prompt);
    let finished: BTreeMap<Attempt, &Generated> = of_prompt.map(|one| (one.attempt, one)).collect();
    let mut prints = BTreeMap::new();
    let mut round: Vec<Attempt> = (0..wanted.n).map(|index| Attempt { prompt, index, retry: 0 }).collect();
    loop {
        let missing: Vec<Attempt> = round.iter().filter(|attempt| !finished.contains_key(attempt)).copied().collect();
        if !missing.is_empty() {
            return Decision::Needs(missing);
        }
        for attempt in &round {
            prints.entry(*attempt).or_insert_with(|| fingerprint(finished[attempt]));
        }
        let repeats = judge(&round, &prints, wanted);
        if repeats.iter().all(|index| round[*index].retry >= wanted.max_retries) {
            return Decision::Complete { accepted: round, repeats_left: repeats };
        }
        for index in repeats {
            round[index].retry += u32::from(round[index].retry < wanted.max_retries);
        }
    }
}

/// `None` for what has no text.
fn fingerprint(one: &Generated) -> Option<Fingerprint> {
    (one.finish_reason != FinishReason::Error).then(|| Fingerprint::new(&one.text))
}

/// Indices that repeat one that stands; those without a retry left stand all the same.
fn judge(round: &[Attempt], prints: &BTreeMap<Attempt, Option<Fingerprint>>, wanted: &Wanted) -> Vec<usize> {
    let mut standing: Vec<&Fingerprint> = Vec::with_capacity(round.len());
    let mut repeats = Vec::new();
    for (index, attempt) in round.iter().enumerate() {
        let Some(print) = &prints[attempt] else {
            continue;
        };
        let is_repeat = standing.iter().any(|earlier| print.repeats(earlier, wanted.distinct));
        if is_repeat {
            repeats.push(index);
        }
        if !is_repeat || attempt.retry >= wanted.max_retries {
            standing.push(print);
        }
    }
    repeats
}

/// The seed of a response, from the seed of the run: 31 bits, which every server and file format can hold.
pub fn seed_of(seed: u64, attempt: Attempt) -> u64 {
    let prompt = Stream::new(seed, attempt.prompt as u64);
    prompt.fork(attempt.index as u64).fork(u64::from(attempt.retry)).bits() >> 33
}

/// All prompts of a run: what is finished, and what is next.
#[derive(Clone, Debug)]
pub struct Schedule {
    prompts: usize,
    wanted: Wanted,
    finished: BTreeMap<Attempt, Generated>,
    /// How many of each prompt's requested responses have not come yet.
    awaited: Vec<usize>,
}

impl Schedule {
    /// Begins, or goes on from what an earlier run finished.
    pub fn new(prompts: usize, wanted: Wanted, finished: impl IntoIterator<Item = Generated>) -> Self {
        let finished = finished.into_iter().map(|one| (one.attempt, one)).collect();
        let mut schedule = Schedule { prompts, wanted, finished, awaited: Vec::new() };
        schedule.awaited = (0..prompts).map(|prompt| schedule.missing(prompt).len()).collect();
        schedule
    }

    /// All that is to be drawn now, prompt by prompt. Some of it will call for more ([`Schedule::finish`]).
    pub fn needed(&self) -> impl Iterator<Item = Attempt> + use<> {
        let missing: Vec<_> = (0..self.prompts).flat_map(|prompt| self.missing(prompt)).collect();
        missing.into_iter()
    }

    /// Takes in a response; returns what its prompt needs now in addition.
    pub fn finish(&mut self, one: Generated) -> Vec<Attempt> {
        let attempt = one.attempt;
        if attempt.prompt >= self.prompts || self.finished.insert(attempt, one).is_some() {
            return Vec::new();
        }
        let awaited = &mut self.awaited[attempt.prompt];
        *awaited = awaited.saturating_sub(1);
        if *awaited > 0 {
            return Vec::new();
        }
        let more = self.missing(attempt.prompt);
        self.awaited[attempt.prompt] = more.len();
        more
    }

    /// The answers so far, ordered by (prompt, index): of a prompt that is complete, its accepted responses; of
    /// one that is not, the latest try for each index.
    pub fn answers(&self) -> Vec<&Generated> {
        (0..self.prompts).flat_map(|prompt| self.answers_to(prompt)).collect()
    }

    fn answers_to(&self, prompt: usize) -> Vec<&Generated> {
        match self.decide(prompt) {
            Decision::Complete { accepted, .. } => accepted.iter().map(|attempt| &self.finished[attempt]).collect(),
            Decision::Needs(_) => {
                let latest: BTreeMap<usize, &Generated> = self.of(prompt).map(|one| (one.attempt.index, one)).collect();
                latest.into_values().collect()
            }
        }
    }

    /// The answers to a prompt that has them all.
    pub fn complete(&self, prompt: usize) -> Option<Vec<&Generated>> {
        match self.decide(prompt) {
            Decision::Complete { accepted, .. } => {
                Some(accepted.iter().map(|attempt| &self.finished[attempt]).collect())
            }
            Decision::Needs(_) => None,
        }
    }

    /// Answers that repeat another one of their prompt although every retry was used.
    pub fn repeats_left(&self) -> usize {
        let left = |prompt| match self.decide(prompt) {
            Decision::Complete { repeats_left, .. } if self.wanted.distinct != Distinct::Off => repeats_left.len(),
            _ => 0,
        };
        (0..self.prompts).map(left).sum()
    }

    /// True when every prompt has its `n` answers (or errors).
    pub fn is_complete(&self) -> bool {
        (0..self.prompts).all(|prompt| self.missing(prompt).is_empty())
    }

    fn missing(&self, prompt: usize) -> Vec<Attempt> {
        match self.decide(prompt) {
            Decision::Needs(missing) => missing,
            Decision::Complete { .. } => Vec::new(),
        }
    }

    fn decide(&self, prompt: usize) -> Decision {
        decide(prompt, &self.wanted, self.of(prompt))
    }

    /// What is finished of one prompt, by index and retry.
    fn of(&self, prompt: usize) -> impl Iterator<Item = &Generated> {
        let first = Attempt { prompt, index: 0, retry: 0 };
        let last = Attempt { prompt, index: usize::MAX, retry: u32::MAX };
        self.finished.range(first..=last).map(|(_, one)| one)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attempt(index: usize, retry: u32) -> Attempt {
        Attempt { prompt: 0, index, retry }
    }

    pub fn generated(attempt: Attempt, text: &str) -> Generated {
        let (seed, tokens) = (seed_of(42, attempt), text.len());
        let (finish_reason, stopped_by) = (FinishReason::Stop, Some("</s>".to_owned()));
        Generated {
            attempt,
            text: text.to_owned(),
            seed,
            temperature: 0.7,
            tokens,
            finish_reason,
            stopped_by,
            error: None,
        }
    }

    fn failed(attempt: Attempt) -> Generated {
        let error = Some("no answer".to_owned());
        Generated { finish_reason: FinishReason::Error, stopped_by: None, error, ..generated(attempt, "") }
    }

    fn wanted(n: usize) -> Wanted {
        Wanted { n, distinct: Distinct::Exact, max_retries: 2 }
    }

    #[test]
    fn rounds_by_hand() {
        let drawn = |list: &[(usize, u32, &str)]| -> Vec<Generated> {
            list.iter().map(|(index, retry, text)| generated(attempt(*index, *retry), text)).collect()
        };
        let needs = |list: &[(usize, u32)]| {
            Decision::Needs(list.iter().map(|(index, retry)| attempt(*index, *retry)).collect())
        };
        let complete = |list: &[(usize, u32)], left: &[usize]| Decision::Complete {
            accepted: list.iter().map(|(index, retry)| attempt(*index, *retry)).collect(),
            repeats_left: left.to_vec(),
        };
        let cases = [
            (vec![], needs(&[(0, 0), (1, 0), (2, 0)])),
            (vec![(1, 0, "a")], needs(&[(0, 0), (2, 0)])),
            (vec![(0, 0, "a"), (1, 0, "b"), (2, 0, "c")], complete(&[(0, 0), (1, 0), (2, 0)], &[])),
            (vec![(0, 0, "a"), (1, 0, "a"), (2, 0, " a ")], needs(&[(1, 1), (2, 1)])),
            // The new second text equals the third: the third falls.
            (vec![(0, 0, "a"), (1, 0, "a"), (1, 1, "c"), (2, 0, "c")], needs(&[(2, 1)])),
            (
                vec![(0, 0, "a"), (1, 0, "a"), (1, 1, "a"), (1, 2, "a"), (2, 0, "c")],
                complete(&[(0, 0), (1, 2), (2, 0)], &[1]),
            ),
        ];
        for (list, expected) in cases {
            assert_eq!(decide(0, &wanted(3), &drawn(&list)), expected, "{list:?}");
        }
    }

    #[test]
    fn an_error_holds_its_place_and_is_not_compared() {
        let drawn = [failed(attempt(0, 0)), failed(attempt(1, 0)), generated(attempt(2, 0), "")];
        let expected = Decision::Complete { accepted: (0..3).map(|at| attempt(at, 0)).collect(), repeats_left: vec![] };
        assert_eq!(decide(0, &wanted(3), &drawn), expected);
    }

    #[test]
    fn repeats_are_kept_when_they_may_be() {
        let off = Wanted { distinct: Distinct::Off, ..wanted(2) };
        let drawn = [generated(attempt(0, 0), "a"), generated(attempt(1, 0), "a")];
        let Decision::Complete { repeats_left, .. } = decide(0, &off, &drawn) else { panic!("not complete") };
        assert!(repeats_left.is_empty());
    }

    #[test]
    fn seeds_differ_and_fit() {
        let mut seen = std::collections::HashSet::new();
        for (prompt, index, retry) in (0..20).flat_map(|p| (0..20).flat_map(move |i| (0..3).map(move |r| (p, i, r)))) {
            let seed = seed_of(7, Attempt { prompt, index, retry });
            assert!(seed < 1 << 31 && seen.insert(seed));
        }
    }

    /// The text of an attempt: few different ones, so that repeats are frequent.
    fn text(salt: u64, attempt: Attempt) -> String {
        format!("text {}", seed_of(salt, attempt) % 5)
    }

    /// Draws what is needed, always the one that `choose` points at; stops after `limit`.
    fn run(salt: u64, wanted: Wanted, had: &[Generated], choose: &[usize], limit: usize) -> Vec<Generated> {
        let mut schedule = Schedule::new(3, wanted, had.to_vec());
        let mut waiting: Vec<Attempt> = schedule.needed().collect();
        let mut drawn = had.to_vec();
        while !waiting.is_empty() && drawn.len() < limit {
            let at = choose.get(drawn.len() % choose.len().max(1)).copied().unwrap_or(0) % waiting.len();
            let attempt = waiting.swap_remove(at);
            let one = generated(attempt, &text(salt, attempt));
            drawn.push(one.clone());
            waiting.extend(schedule.finish(one));
        }
        drawn
    }

    fn answers(wanted: Wanted, drawn: &[Generated]) -> (bool, Vec<Generated>, usize) {
        let schedule = Schedule::new(3, wanted, drawn.to_vec());
        (schedule.is_complete(), schedule.answers().into_iter().cloned().collect(), schedule.repeats_left())
    }

    proptest! {
        #[test]
        fn any_order_and_any_interruption_give_the_same_answers(
            salt: u64, n in 1usize..6, choose: Vec<usize>, other: Vec<usize>, cut in 0usize..40, max_retries in 0u32..4,
        ) {
            let wanted = Wanted { n, distinct: Distinct::Exact, max_retries };
            let straight = answers(wanted, &run(salt, wanted, &[], &[], usize::MAX));
            prop_assert!(straight.0 && straight.1.len() == 3 * n);
            let part = run(salt, wanted, &[], &choose, cut);
            let whole = run(salt, wanted, &part, &other, usize::MAX);
            prop_assert_eq!(answers(wanted, &whole), straight);
            let once: std::collections::HashSet<_> = whole.iter().map(|one| one.attempt).collect();
            prop_assert_eq!(once.len(), whole.len(), "nothing is drawn twice");
        }
    }
}
