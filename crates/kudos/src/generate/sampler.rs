//! The next token: transformers' logits processors in transformers' order, then a draw.
//!
//! Repetition penalty, temperature, top-k, top-p, min-p, multinomial. A vocabulary has up to 256,000 tokens and
//! every sequence draws at every step, so nothing is sorted as a whole: passes over all tokens are branch-free
//! and keep the largest logit of each block of them; what a filter keeps is then looked for in the few blocks
//! that can hold it.
//!
//! A draw is a function of the logits, the settings and one uniform number. This module must not know models.

use super::Sampling;
use crate::random::Stream;

/// Tokens that are skipped or looked at together.
const BLOCK: usize = 64;
/// Independent accumulators of a pass, so that it vectorises.
const LANES: usize = 8;

/// The distinct ids of a sequence, which the repetition penalty falls on.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    ids: Vec<u32>,
    /// One bit for each id.
    known: Vec<u64>,
}

impl Seen {
    /// Takes note of a token.
    pub fn insert(&mut self, id: u32) {
        let (word, bit) = (id as usize / 64, 1 << (id % 64));
        if self.known.len() <= word {
            self.known.resize(word + 1, 0);
        }
        if self.known[word] & bit == 0 {
            self.known[word] |= bit;
            self.ids.push(id);
        }
    }
}

impl Extend<u32> for Seen {
    fn extend<T: IntoIterator<Item = u32>>(&mut self, ids: T) {
        ids.into_iter().for_each(|id| self.insert(id));
    }
}

/// A token that a filter looks at.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    /// e^(logit − largest logit), so the most probable token has 1.
    weight: f32,
}

/// Draws tokens with one set of settings; holds the memory that this takes.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    /// 1 − top-p.
    tail: f64,
    /// Of each block, the largest logit.
    largest: Vec<f32>,
    /// Of every token, e^(logit − largest logit); of each block, their sum.
    weights: Vec<f32>,
    sums: Vec<f64>,
    /// Whether there is no filter, so that `weights` holds what is drawn from, not `kept`.
    all: bool,
    /// What passed the filters so far, in order of id.
    kept: Vec<Candidate>,
    /// `kept` or a part of it in another order.
    scratch: Vec<Candidate>,
}

impl Sampler {
    /// A sampler with these settings.
    pub fn new(sampling: Sampling) -> Self {
        // 0.8 is a little more as f32; as f64 it is what was asked for, which decides among equal tokens.
        let top_p: f64 = sampling.top_p.to_string().parse().unwrap_or(1.0);
        Self {
            sampling,
            tail: 1.0 - top_p,
            largest: Vec::new(),
            weights: Vec::new(),
            sums: Vec::new(),
            all: true,
            kept: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// The next token. `logits` has one value for each token of the vocabulary and is changed; `seen` are the
    /// tokens of the prompt and of the response so far. At temperature 0 the most probable token, of equals the
    /// one with the lowest id; otherwise one number of `random` is used.
    pub fn next(&mut self, logits: &mut [f32], seen: &Seen, random: &mut Stream) -> u32 {
        penalise(logits, seen, self.sampling.repetition_penalty);
        if self.sampling.temperature == 0.0 {
            return self.most_probable(logits);
        }
        self.filter(logits);
        self.draw(random.uniform())
    }

    fn most_probable(&mut self, logits: &[f32]) -> u32 {
        let largest = self.find_largest(logits);
        let block = self.largest.iter().position(|l| *l == largest).unwrap_or(0);
        let within = logits.iter().skip(block * BLOCK).position(|l| *l == largest).unwrap_or(0);
        (block * BLOCK + within) as u32
    }

    /// The largest logit, and that of each block in `self.largest`.
    fn find_largest(&mut self, logits: &[f32]) -> f32 {
        self.largest.clear();
        self.largest.extend(logits.chunks(BLOCK).map(largest_of));
        largest_of(&self.largest)
    }

    /// Applies everything from temperature to min-p.
    fn filter(&mut self, logits: &mut [f32]) {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        if temperature != 1.0 {
            logits.iter_mut().for_each(|logit| *logit /= temperature);
        }
        let largest = self.find_largest(logits);
        let mut outside = 0.0;
        self.all = false;
        if 0 < top_k && top_k < logits.len() {
            self.keep_top_k(logits, largest, top_k);
        } else {
            let total = self.weigh(logits, largest);
            if top_p < 1.0 {
                outside = total - self.keep_most(total, largest);
            } else {
                self.all = min_p <= 0.0;
                self.keep_heavy(if self.all { f32::INFINITY } else { min_p }, largest);
            }
        }
        if top_p < 1.0 {
            self.keep_top_p(outside);
        }
        // The most probable token weighs 1, and top-p always keeps it.
        self.kept.retain(|c| c.weight >= min_p);
    }

    /// Keeps the `k` largest logits and those equal to the smallest of them.
    fn keep_top_k(&mut self, logits: &[f32], largest: f32, k: usize) {
        let bound = self.bound(k);
        collect(&mut self.kept, logits, bound, |block| self.largest[block] >= bound);
        self.scratch.clone_from(&self.kept);
        let bound = kth_heaviest(&mut self.scratch, k);
        self.kept.retain(|c| c.weight >= bound);
        self.kept.iter_mut().for_each(|c| c.weight = weight(c.weight - largest));
    }

    /// A logit that at least `k` tokens have: each of the k blocks with the largest maxima has one.
    fn bound(&mut self, k: usize) -> f32 {
        self.scratch.clear();
        self.scratch.extend(self.largest.iter().map(|&weight| Candidate { id: 0, weight }));
        kth_heaviest(&mut self.scratch, k)
    }

    /// Fills `weights` and `sums`; the sum of all.
    fn weigh(&mut self, logits: &[f32], largest: f32) -> f64 {
        self.weights.resize(logits.len(), 0.0);
        self.sums.clear();
        let blocks = self.weights.chunks_mut(BLOCK).zip(logits.chunks(BLOCK));
        self.sums.extend(blocks.map(|(weights, logits)| weigh_block(weights, logits, largest)));
        self.sums.iter().sum()
    }

    /// Keeps the tokens that weigh at least `floor`.
    fn keep_heavy(&mut self, floor: f32, largest: f32) {
        // Rounding can make a weight the least bit larger than that of the block's largest logit.
        let blocks = |block: usize| weight(self.largest[block] - largest) * 1.000_001 >= floor;
        collect(&mut self.kept, &self.weights, floor, blocks);
    }

    /// Keeps the heaviest tokens, at least those that top-p of `total` keeps; their weight.
    fn keep_most(&mut self, total: f64, largest: f32) -> f64 {
        for blocks in [64, 512] {
            let bound = self.bound(blocks);
            self.keep_heavy(weight(bound - largest), largest);
            let inside = sum(&self.kept);
            if inside >= total - self.tail * total {
                return inside;
            }
        }
        // All tokens lighter than this together weigh less than the tail.
        let floor = self.tail * total / self.weights.len() as f64;
        self.keep_heavy(floor as f32, largest);
        sum(&self.kept)
    }

    /// Keeps a token if those before it, in falling order of weight and rising order of id, weigh less than top-p of all.
    /// `outside` is the weight of tokens that are not among the kept, all of them lighter.
    fn keep_top_p(&mut self, outside: f64) {
        let total = sum(&self.kept) + outside;
        let limit = total - self.tail * total;
        self.scratch.clone_from(&self.kept);
        let Some(last) = last_before(&mut self.scratch, limit) else { return };
        self.kept.retain(|c| heaviest_first(c, &last).is_le());
    }

    /// The token at `u` of [0, 1): tokens in order of id, each as wide as its probability.
    fn draw(&self, u: f64) -> u32 {
        if !self.all {
            return walk(self.kept.iter().copied(), u * sum(&self.kept));
        }
        let target = u * self.sums.iter().sum::<f64>();
        let (mut reached, mut chosen, mut before) = (0.0, 0, 0.0);
        for (block, sum) in self.sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
            (chosen, before) = (block, reached);
            reached += sum;
            if reached > target {
                break;
            }
        }
        let block = self.weights.chunks(BLOCK).nth(chosen).unwrap_or(&[]);
        let ids = chosen as u32 * BLOCK as u32..;
        walk(ids.zip(block).map(|(id, &weight)| Candidate { id, weight }), target - before)
    }
}

/// Makes seen tokens less probable (`penalty` above 1).
fn penalise(logits: &mut [f32], seen: &Seen, penalty: f32) {
    if penalty == 1.0 {
        return;
    }
    for &id in &seen.ids {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
    }
}

/// Replaces `kept` by the tokens of the wanted blocks that have at least `floor`.
fn collect(kept: &mut Vec<Candidate>, values: &[f32], floor: f32, wanted: impl Fn(usize) -> bool) {
    kept.clear();
    for (block, values) in values.chunks(BLOCK).enumerate().filter(|(block, _)| wanted(*block)) {
        let ids = block as u32 * BLOCK as u32..;
        let candidates = ids.zip(values).map(|(id, &weight)| Candidate { id, weight });
        kept.extend(candidates.filter(|c| c.weight >= floor));
    }
}

/// The last token, heaviest first, before which there is less than `limit`; the first in any case.
fn last_before(candidates: &mut [Candidate], limit: f64) -> Option<Candidate> {
    let (mut rest, mut before) = (candidates, 0.0);
    while rest.len() > 32 {
        let middle = rest.len() / 4; // few tokens hold most of the weight
        rest.select_nth_unstable_by(middle, heaviest_first);
        let (heavier, lighter) = rest.split_at_mut(middle);
        let weight = sum(heavier);
        if before + weight < limit {
            before += weight;
            rest = lighter;
        } else {
            rest = heavier;
        }
    }
    rest.sort_unstable_by(heaviest_first);
    let passed = rest.iter().take_while(|c| {
        let passes = before < limit;
        before += f64::from(c.weight);
        passes
    });
    let last = passed.count().saturating_sub(1);
    rest.get(last).copied()
}

/// The first token with more than `target` up to and with it; the last with any weight if rounding leaves none.
fn walk(candidates: impl Iterator<Item = Candidate>, target: f64) -> u32 {
    let (mut reached, mut last) = (0.0, 0);
    for candidate in candidates.filter(|c| c.weight > 0.0) {
        reached += f64::from(candidate.weight);
        last = candidate.id;
        if reached > target {
            break;
        }
    }
    last
}

/// Of equal tokens the one with the lowest id comes first (transformers leaves open which of them top-p keeps).
fn heaviest_first(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

/// The `k`-th largest weight, or −∞ if there are fewer.
fn kth_heaviest(candidates: &mut [Candidate], k: usize) -> f32 {
    if k > candidates.len() {
        return f32::NEG_INFINITY;
    }
    candidates.select_nth_unstable_by(k - 1, heaviest_first).1.weight
}

fn sum(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|c| f64::from(c.weight)).sum()
}

/// The larger of two numbers in a form that vectorises.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

fn largest_of(values: &[f32]) -> f32 {
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in whole {
        for l in 0..LANES {
            lanes[l] = larger(lanes[l], chunk[l]);
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

/// `weights[i] = e^(logits[i] − largest)`; their sum.
fn weigh_block(weights: &mut [f32], logits: &[f32], largest: f32) -> f64 {
    for (w, l) in weights.iter_mut().zip(logits) {
        *w = weight(l - largest);
    }
    let (whole, rest) = weights.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in whole {
        for l in 0..LANES {
            lanes[l] += f64::from(chunk[l]);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().copied().map(f64::from).sum::<f64>()
}

/// e^x for x ≤ 0, relative error below 3e-7, 0 below −87. [`kernels::math::exp`] without fused multiply-adds, which
/// are a function call each in code that is compiled for every processor.
#[inline(always)]
fn weight(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer in the low bits.
    let clamped = larger(-87.0, x);
    let shifted = clamped * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    // ln 2 in two parts, the first so short that its product with n is exact.
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4f32;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.0 { 0.0 } else { value * scale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use safetensors::SafeTensors;
    use serde_json::Value;
    use std::path::Path;

    const PLAIN: Sampling = Sampling { repetition_penalty: 1.0, temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 };

    /// What `next` draws from: the tokens with a probability above 1e-30, in order of id.
    fn probabilities(sampling: Sampling, logits: &[f32], seen: &Seen) -> Vec<(u32, f64)> {
        let (mut sampler, mut logits) = (Sampler::new(sampling), logits.to_vec());
        penalise(&mut logits, seen, sampling.repetition_penalty);
        if sampling.temperature == 0.0 {
            return vec![(sampler.most_probable(&logits), 1.0)];
        }
        sampler.filter(&mut logits);
        let kept: Vec<(u32, f32)> = if sampler.all {
            (0..).zip(sampler.weights).collect()
        } else {
            sampler.kept.iter().map(|c| (c.id, c.weight)).collect()
        };
        let total: f64 = kept.iter().map(|(_, weight)| f64::from(*weight)).sum();
        kept.iter().map(|(id, weight)| (*id, f64::from(*weight) / total)).filter(|k| k.1 > 1e-30).collect()
    }

    /// The same by sorting all tokens, one filter after the other as transformers writes them.
    fn probabilities_reference(sampling: Sampling, logits: &[f32]) -> Vec<(u32, f64)> {
        let scaled: Vec<f32> = logits.iter().map(|l| l / sampling.temperature).collect();
        let largest = scaled.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut tokens: Vec<Candidate> =
            (0..).zip(&scaled).map(|(id, l)| Candidate { id, weight: weight(l - largest) }).collect();
        tokens.sort_by(|a, b| scaled[b.id as usize].total_cmp(&scaled[a.id as usize]).then(a.id.cmp(&b.id)));
        if sampling.top_k > 0 {
            let last = scaled[tokens[sampling.top_k.min(tokens.len()) - 1].id as usize];
            tokens.retain(|t| scaled[t.id as usize] >= last);
        }
        if sampling.top_p < 1.0 {
            let (total, mut before) = (sum(&tokens), 0.0);
            let limit = total - (1.0 - sampling.top_p.to_string().parse::<f64>().unwrap()) * total;
            let mut first = true;
            tokens.retain(|t| {
                let stays = before < limit || std::mem::take(&mut first);
                first = false;
                before += f64::from(t.weight);
                stays
            });
        }
        tokens.retain(|t| t.weight >= sampling.min_p);
        tokens.sort_by_key(|t| t.id);
        let total = sum(&tokens);
        tokens.iter().map(|t| (t.id, f64::from(t.weight) / total)).filter(|t| t.1 > 1e-30).collect()
    }

    fn assert_same(found: &[(u32, f64)], expected: &[(u32, f64)], tolerance: f64, what: &str) {
        let ids = |pairs: &[(u32, f64)]| pairs.iter().map(|p| p.0).collect::<Vec<_>>();
        assert_eq!(ids(found), ids(expected), "{what}");
        for ((id, f), (_, e)) in found.iter().zip(expected) {
            assert!((f - e).abs() <= tolerance, "{what}, token {id}: {f} instead of {e}");
        }
    }

    #[test]
    fn weights_are_within_their_error() {
        for i in 0..=87_000 {
            let x = i as f32 / -1000.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(weight(x)) - expected).abs() / expected;
            assert!(error < 3e-7, "weight({x}): relative error {error:e}");
        }
        assert_eq!([weight(0.0), weight(-1e4), weight(f32::NEG_INFINITY)], [1.0, 0.0, 0.0]);
    }

    /// A list of the golden file, which is one tensor.
    fn numbers<T>(tensors: &SafeTensors, name: &str, read: impl Fn([u8; 4]) -> T) -> Vec<T> {
        let data = tensors.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec();
        data.into_iter().map(read).collect()
    }

    /// Every setting of `golden/make_sampler_golden.py` keeps the tokens that transformers keeps.
    #[test]
    fn kept_tokens_and_probabilities_are_transformers() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/sampler");
        let bytes = std::fs::read(dir.join("expected.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let cases: Value = serde_json::from_slice(&std::fs::read(dir.join("cases.json")).unwrap()).unwrap();
        let ids = numbers(&tensors, "kept.ids", u32::from_le_bytes);
        let kept = numbers(&tensors, "kept.probabilities", f32::from_le_bytes);
        let mut at = 0;
        for case in cases["cases"].as_array().unwrap() {
            let name = case["logits"].as_str().unwrap();
            let logits = numbers(&tensors, &format!("logits.{name}"), f32::from_le_bytes);
            let sampling: Sampling = serde_json::from_value(case["sampling"].clone()).unwrap();
            let mut seen = Seen::default();
            seen.extend(numbers(&tensors, &format!("seen.{name}"), u32::from_le_bytes));
            let end = at + case["kept"].as_u64().unwrap() as usize;
            let expected: Vec<_> =
                ids[at..end].iter().copied().zip(kept[at..end].iter().map(|p| f64::from(*p))).collect();
            at = end;
            assert_same(&probabilities(sampling, &logits, &seen), &expected, 1e-6, &format!("{name}, {sampling:?}"));
        }
        assert!(at == ids.len() && at > 0);
    }

    /// Logits of `tokens` tokens; with `steps`, rounded so that many are equal.
    fn logits(seed: u64, tokens: usize, spread: f64, steps: bool) -> Vec<f32> {
        let mut random = Stream::new(seed, 0);
        let mut next = || spread * random.normal();
        (0..tokens).map(|_| if steps { next().round() + 0.0 } else { next() } as f32).collect()
    }

    proptest! {
        #[test]
        fn filters_keep_what_sorting_keeps(
            (seed, tokens, spread, steps) in (0u64..1000, 1usize..3000, 0.1f64..6.0, any::<bool>()),
            (temperature, top_k) in (0.2f32..3.0, prop_oneof![Just(0usize), 1usize..100, 1usize..4000]),
            top_p in prop_oneof![Just(1.0f32), 0.0f32..1.0, 0.9f32..1.0],
            min_p in prop_oneof![Just(0.0f32), 0.0f32..1.0, 0.0f32..0.01],
        ) {
            let sampling = Sampling { temperature, top_k, top_p, min_p, ..PLAIN };
            let logits = logits(seed, tokens, spread, steps);
            let expected = probabilities_reference(sampling, &logits);
            assert_same(&probabilities(sampling, &logits, &Seen::default()), &expected, 1e-9, "against sorting");
        }
    }

    /// Pearson's statistic of many draws against the probabilities, by its normal approximation (Wilson and
    /// Hilferty 1931): below 4 standard deviations.
    #[test]
    fn draws_follow_the_probabilities() {
        let settings = [
            PLAIN,
            Sampling { top_k: 12, ..PLAIN },
            Sampling { temperature: 0.7, top_p: 0.9, ..PLAIN },
            Sampling { min_p: 0.05, repetition_penalty: 1.3, ..PLAIN },
        ];
        let (logits, mut seen) = (logits(5, 200, 1.5, false), Seen::default());
        seen.extend(0..50);
        for (stream, sampling) in (0..).zip(settings) {
            let expected = probabilities(sampling, &logits, &seen);
            let (mut sampler, mut random) = (Sampler::new(sampling), Stream::new(11, stream));
            let (draws, mut counts) = (100_000, vec![0.0; logits.len()]);
            for _ in 0..draws {
                counts[sampler.next(&mut logits.clone(), &seen, &mut random) as usize] += 1.0;
            }
            let distance =
                |(id, p): &(u32, f64)| (counts[*id as usize] - p * draws as f64).powi(2) / (p * draws as f64);
            let statistic: f64 = expected.iter().map(distance).sum();
            let freedom = expected.len() as f64 - 1.0;
            let spread = 2.0 / (9.0 * freedom);
            let deviations = ((statistic / freedom).cbrt() - (1.0 - spread)) / spread.sqrt();
            assert!(deviations.abs() < 4.0, "{sampling:?}: {deviations}");
            assert_eq!(expected.iter().map(|(id, _)| counts[*id as usize]).sum::<f64>(), draws as f64);
        }
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals_and_still_penalises() {
        let greedy = Sampling { temperature: 0.0, ..PLAIN };
        let (mut random, mut seen) = (Stream::new(1, 1), Seen::default());
        let mut logits = vec![-1.0; 200];
        (logits[70], logits[150]) = (3.0, 3.0);
        assert_eq!(Sampler::new(greedy).next(&mut logits.clone(), &seen, &mut random), 70);
        seen.extend([70, 70, 900]);
        let penalised = Sampling { repetition_penalty: 1.1, ..greedy };
        assert_eq!(Sampler::new(penalised).next(&mut logits.clone(), &seen, &mut random), 150);
        assert_eq!(random.bits(), Stream::new(1, 1).bits(), "greedy decoding uses no random numbers");
    }

    #[test]
    fn logits_without_a_choice_do_not_panic() {
        for sampling in [PLAIN, Sampling { top_k: 3, ..PLAIN }, Sampling { top_p: 0.5, ..PLAIN }] {
            for value in [f32::NEG_INFINITY, f32::NAN] {
                let mut logits = vec![value; 70];
                assert!(Sampler::new(sampling).next(&mut logits, &Seen::default(), &mut Stream::new(1, 1)) < 70);
            }
        }
    }

    #[test]
    fn the_ends_of_the_interval_are_tokens_with_weight() {
        for sampling in [PLAIN, Sampling { top_k: 100, ..PLAIN }, Sampling { top_p: 0.99, ..PLAIN }] {
            let mut logits = vec![f32::NEG_INFINITY; 300];
            logits[100..200].fill(0.5);
            let mut sampler = Sampler::new(sampling);
            sampler.filter(&mut logits);
            let drawn = [0.0, 0.5, 1.0 - f64::EPSILON, 1.0].map(|u| sampler.draw(u));
            assert!(drawn.is_sorted() && drawn.iter().all(|id| (100..200).contains(id)), "{drawn:?}");
        }
    }
}
