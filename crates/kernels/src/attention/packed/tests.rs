use super::reference::{self, TextInputs};
use super::*;
use crate::attention::tests::{refusal, values};
use crate::bf16::Bf16;
use crate::parallel::with_threads;
use crate::simd::tests::{on_both, on_twins_and_instructions};
use proptest::prelude::*;

/// A batch and what is asked of it.
#[derive(Clone, Debug)]
struct Case {
    offsets: Vec<usize>,
    parents: Vec<Option<usize>>,
    heads: usize,
    key_heads: usize,
    head_dim: usize,
    mask: Mask,
    soft_cap: Option<f32>,
    bias: Option<Vec<f32>>,
    queries: Asked,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    All,
    First,
    Last,
    /// The token in the middle.
    At,
}

/// What a run gives, in f32: output, log-sums, gradients of queries, of keys and values, and of the bias.
#[derive(Clone, Debug, Default, PartialEq)]
struct Found {
    out: Vec<f32>,
    log_sums: Vec<f32>,
    d_q: Vec<f32>,
    d_kv: Vec<f32>,
    d_bias: Vec<f32>,
}

/// Values of T on a word boundary, as the tape's buffers are.
struct Aligned<T>(Vec<u32>, usize, std::marker::PhantomData<T>);

impl<T: Element> Aligned<T> {
    fn new(data: &[f32]) -> Self {
        let mut words = vec![0u32; (data.len() * size_of::<T>()).div_ceil(4)];
        let own: &mut [T] = bytemuck::cast_slice_mut(&mut words);
        own.iter_mut().zip(data).for_each(|(own, value)| *own = T::narrow(*value));
        Self(words, data.len(), std::marker::PhantomData)
    }

    fn get(&self) -> &[T] {
        &bytemuck::cast_slice(&self.0)[..self.1]
    }

    fn get_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.0)[..self.1]
    }

    fn wide(&self) -> Vec<f32> {
        self.get().iter().map(|v| v.widen()).collect()
    }
}

impl Case {
    fn count(&self) -> usize {
        self.offsets.len() - 1
    }

    fn tokens(&self) -> usize {
        self.offsets[self.count()]
    }

    fn rows(&self) -> usize {
        if self.queries == Asked::All { self.tokens() } else { self.count() }
    }

    /// Rows of the batch that a text consists of.
    fn text(&self, i: usize) -> Vec<usize> {
        let parent = self.parents[i].map_or(0..0, |p| self.offsets[p]..self.offsets[p + 1]);
        parent.chain(self.offsets[i]..self.offsets[i + 1]).collect()
    }

    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn key_width(&self) -> usize {
        self.key_heads * self.head_dim
    }

    fn with<R>(&self, work: impl FnOnce(&Sequences, &Spec) -> R) -> R {
        let positions: Vec<usize> = (0..self.count()).map(|i| self.text(i).len() / 2).collect();
        let queries = match self.queries {
            Asked::All => Queries::All,
            Asked::First => Queries::First,
            Asked::Last => Queries::Last,
            Asked::At => Queries::At(&positions),
        };
        let Case { heads, key_heads, head_dim, mask, soft_cap, .. } = *self;
        let scale = 1.3 / (head_dim as f32).sqrt();
        let bias = self.bias.as_deref();
        let spec = Spec { heads, key_heads, head_dim, scale, mask, soft_cap, bias, queries };
        work(&Sequences::with_parents(&self.offsets, &self.parents), &spec)
    }

    fn q(&self) -> Vec<f32> {
        values(self.rows() * self.width(), self.seed)
    }

    fn kv(&self) -> Vec<f32> {
        values(self.tokens() * 2 * self.key_width(), self.seed ^ 1)
    }

    fn d_out(&self) -> Vec<f32> {
        values(self.rows() * self.width(), self.seed ^ 2)
    }

    fn run<T: Element>(&self) -> Found {
        self.run_on::<T>(&self.q(), &self.kv(), &self.d_out())
    }

    fn run_on<T: Element>(&self, q: &[f32], kv: &[f32], d_out: &[f32]) -> Found {
        let [q, kv, d_out] = [q, kv, d_out].map(Aligned::<T>::new);
        let (mut out, mut log_sums) = (Aligned::<T>::new(&vec![9.0; q.1]), vec![9.0; self.heads * self.rows()]);
        let (mut d_q, mut d_kv) = (Aligned::<T>::new(&vec![9.0; q.1]), Aligned::<T>::new(&vec![9.0; kv.1]));
        let mut d_bias = vec![1.0; self.bias.as_ref().map_or(0, Vec::len)];
        let inputs = Inputs::Apart { q: q.get(), kv: kv.get() };
        self.with(|sequences, spec| {
            forward(out.get_mut(), &mut log_sums, inputs, sequences, spec);
            let saved = Saved { inputs, out: out.get(), log_sums: &log_sums };
            let bias = self.bias.as_ref().map(|_| (d_bias.as_mut_slice(), Store::Replace));
            let gradients = Gradients { inputs: InputGradients::Apart { q: d_q.get_mut(), kv: d_kv.get_mut() }, bias };
            backward(gradients, d_out.get(), saved, sequences, spec);
        });
        Found { out: out.wide(), log_sums, d_q: d_q.wide(), d_kv: d_kv.wide(), d_bias }
    }

    /// Inputs of text `i`, as the kernels see them in T.
    fn inputs<T: Element>(&self, i: usize) -> TextInputs {
        let row = |data: &[f32], row: usize, columns: Range<usize>, width: usize| -> Vec<f64> {
            data[row * width..][columns].iter().map(|v| f64::from(T::narrow(*v).widen())).collect()
        };
        let (text, width, keys) = (self.text(i), self.width(), self.key_width());
        let (q, kv) = (self.q(), self.kv());
        let query_rows = if self.queries == Asked::All { text.clone() } else { vec![i; text.len().min(1)] };
        let distances = self.bias.as_ref().map_or(1, |bias| bias.len() / self.heads);
        let bias = self.bias.iter().flat_map(|bias| bias.chunks(distances));
        TextInputs {
            q: query_rows.iter().map(|r| row(&q, *r, 0..width, width)).collect(),
            k: text.iter().map(|r| row(&kv, *r, 0..keys, 2 * keys)).collect(),
            v: text.iter().map(|r| row(&kv, *r, keys..2 * keys, 2 * keys)).collect(),
            bias: bias.map(|head| head.iter().map(|v| f64::from(*v)).collect()).collect(),
        }
    }

    /// What the plain twins give, in the layout of a run. Each token's query counts in the sequence that holds it.
    fn expected<T: Element>(&self) -> Found {
        self.expected_from::<T>(None)
    }

    /// As [`Self::expected`], with gradients from an output that was saved, and rounded, by a run.
    fn expected_from<T: Element>(&self, saved: Option<&[f32]>) -> Found {
        let (width, keys) = (self.width(), self.key_width());
        let mut found = Found {
            out: vec![0.0; self.rows() * width],
            d_q: vec![0.0; self.rows() * width],
            d_bias: vec![0.0; self.bias.as_ref().map_or(0, Vec::len)],
            ..Found::default()
        };
        let mut d_kv = vec![0.0f64; self.tokens() * 2 * keys];
        for i in 0..self.count() {
            let (inputs, text) = (self.inputs::<T>(i), self.text(i));
            let foreign = text.len() - (self.offsets[i + 1] - self.offsets[i]);
            let rows = if self.queries == Asked::All { text.clone() } else { vec![i; text.len().min(1)] };
            let d_out = self.d_out();
            let own = |row: usize| self.queries != Asked::All || row >= foreign;
            let d_out: Vec<Vec<f64>> = rows
                .iter()
                .enumerate()
                .map(|(i, r)| {
                    let factor = if own(i) { 1.0 } else { 0.0 };
                    d_out[r * width..][..width].iter().map(|v| factor * f64::from(T::narrow(*v).widen())).collect()
                })
                .collect();
            let out = self.with(|_, spec| reference::forward(&inputs, spec, i));
            let wide = |row: &usize, all: &[f32]| all[row * width..][..width].iter().map(|v| f64::from(*v)).collect();
            let saved = saved.map_or(out.clone(), |saved| rows.iter().map(|row| wide(row, saved)).collect());
            let gradients = self.with(|_, spec| reference::backward(&inputs, &saved, &d_out, spec, i));
            for (at, row) in rows.iter().enumerate().filter(|(at, _)| own(*at)) {
                for c in 0..width {
                    found.out[row * width + c] = out[at][c] as f32;
                    found.d_q[row * width + c] = gradients.q[at][c] as f32;
                }
            }
            for (at, row) in text.iter().enumerate() {
                for c in 0..keys {
                    d_kv[row * 2 * keys + c] += gradients.k[at][c];
                    d_kv[row * 2 * keys + keys + c] += gradients.v[at][c];
                }
            }
            let d_bias = gradients.bias.iter().flatten();
            found.d_bias.iter_mut().zip(d_bias).for_each(|(sum, d)| *sum += *d as f32);
        }
        found.d_kv = d_kv.into_iter().map(|v| v as f32).collect();
        found
    }
}

impl Found {
    fn parts(&self) -> [(&str, &[f32]); 4] {
        [("out", &self.out), ("d_q", &self.d_q), ("d_kv", &self.d_kv), ("d_bias", &self.d_bias)]
    }
}

/// Mean of |found − expected| over the mean of |expected|.
fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    if expected.is_empty() {
        return 0.0;
    }
    let error: f32 = found.iter().zip(expected).map(|(f, e)| (f - e).abs()).sum();
    error / expected.iter().map(|e| e.abs()).sum::<f32>().max(1e-3 * expected.len() as f32)
}

fn masks() -> impl Strategy<Value = Mask> {
    let before = prop_oneof![0usize..6, 30usize..40, 60usize..200];
    prop_oneof![
        Just(Mask::Bidirectional),
        Just(Mask::Causal),
        before.clone().prop_map(|before| Mask::Window { before, after: 0 }),
        (before.clone(), before).prop_map(|(before, after)| Mask::Window { before, after }),
    ]
}

/// Families of texts, or texts alone where the mask looks ahead.
fn batches() -> impl Strategy<Value = (Vec<usize>, Vec<Option<usize>>, Mask)> {
    let lengths = proptest::collection::vec((0usize..110, any::<bool>()), 1..5);
    (lengths, masks()).prop_map(|(lengths, mask)| {
        let (mut offsets, mut parents, mut parent) = (vec![0], Vec::new(), 0);
        for (i, (len, child)) in lengths.into_iter().enumerate() {
            offsets.push(offsets[i] + len);
            let child = child && i > 0 && !mask.looks_ahead();
            parent = if child { parent } else { i };
            parents.push(child.then_some(parent));
        }
        (offsets, parents, mask)
    })
}

fn cases() -> impl Strategy<Value = Case> {
    let heads = (1usize..3, 1usize..3);
    let dims = prop_oneof![1usize..36, Just(32), Just(40), Just(48)];
    let queries = prop_oneof![
        3 => Just(Asked::All),
        1 => prop_oneof![Just(Asked::First), Just(Asked::Last), Just(Asked::At)],
    ];
    let extras = (proptest::option::of(0.5f32..3.0), any::<bool>());
    (batches(), heads, dims, queries, extras, any::<u64>()).prop_map(
        |((offsets, parents, mask), (key_heads, shared), half, queries, (soft_cap, biased), seed)| {
            let mut case = Case {
                heads: key_heads * shared,
                key_heads,
                head_dim: 2 * half,
                bias: None,
                offsets,
                parents,
                mask,
                soft_cap,
                queries,
                seed,
            };
            let longest = (0..case.count()).map(|i| case.text(i).len()).max().unwrap().max(1);
            let reach = longest + seed as usize % 3;
            case.bias = biased.then(|| values(case.heads * (2 * reach - 1), seed ^ 7));
            // A text without a token has no position.
            let empty = (0..case.count()).any(|i| case.text(i).is_empty());
            case.queries = if empty && queries == Asked::At { Asked::Last } else { queries };
            case
        },
    )
}

proptest! {
    #![proptest_config(crate::simd::tests::cases(96))]
    #[test]
    fn forward_and_backward_match_the_reference(case in cases()) {
        let (found, expected) = (case.run::<f32>(), case.expected::<f32>());
        for ((name, found), (_, expected)) in found.parts().into_iter().zip(expected.parts()) {
            // A place of the bias is a sum of one term a query, each rounded by itself.
            let terms = if name == "d_bias" { case.rows().max(1) } else { 1 };
            let bound = 2e-5 * (terms as f32).sqrt();
            for (i, (a, b)) in found.iter().zip(expected).enumerate() {
                prop_assert!((a - b).abs() < bound * (1.0 + b.abs()), "{name}[{i}]: {a} instead of {b}");
            }
        }
    }

    #[test]
    fn bf16_is_close_to_the_reference(case in cases()) {
        on_twins_and_instructions(|| {
            // A score's gradient is a difference from a sum over `out`. Where the two almost cancel, the rounding of
            // `out` shows. The function is given that output, and so is its twin.
            let found = case.run::<Bf16>();
            let expected = case.expected_from::<Bf16>(Some(&found.out));
            for ((name, found), (_, expected)) in found.parts().into_iter().zip(expected.parts()) {
                let error = relative_error(found, expected);
                prop_assert!(error < 0.02, "{name}: relative error {error}");
            }
            Ok(())
        })?;
    }
}

proptest! {
    #![proptest_config(crate::simd::tests::cases(96))]
    /// The plain twin's gradient, against its own forward.
    #[test]
    fn the_references_gradient_is_its_slope(case in cases(), at in any::<prop::sample::Index>(), part in 0usize..4) {
        let Some(i) = (0..case.count()).find(|i| !case.text(*i).is_empty()) else { return Ok(()) };
        let inputs = case.inputs::<f32>(i);
        case.with(|_, spec| {
            let d_out: Vec<Vec<f64>> = inputs.q.iter().map(|row| row.iter().rev().map(|v| v + 0.3).collect()).collect();
            let loss = |inputs: &TextInputs| -> f64 {
                let out = reference::forward(inputs, spec, i);
                out.iter().flatten().zip(d_out.iter().flatten()).map(|(o, d)| o * d).sum()
            };
            let pick = |inputs: &mut TextInputs, by: f64| {
                let rows = match part {
                    0 => &mut inputs.q,
                    1 => &mut inputs.k,
                    2 => &mut inputs.v,
                    _ => &mut inputs.bias,
                };
                let width = rows.first().map_or(0, Vec::len);
                (width > 0).then(|| {
                    let place = at.index(rows.len() * width);
                    rows[place / width][place % width] += by;
                    rows[place / width][place % width]
                })
            };
            let (mut up, mut down) = (inputs.clone(), inputs.clone());
            let out = reference::forward(&inputs, spec, i);
            let mut gradient = reference::backward(&inputs, &out, &d_out, spec, i);
            if let Some(found) = pick(&mut gradient, 0.0) {
                _ = (pick(&mut up, 1e-5), pick(&mut down, -1e-5));
                let difference = (loss(&up) - loss(&down)) / 2e-5;
                prop_assert!((found - difference).abs() < 1e-6 * (1.0 + found.abs()), "{found} instead of {difference}");
            }
            Ok(())
        })?;
    }
}

/// Place of the text that [`forked`] cuts.
const FORKED: usize = 4;

/// A causal text of 300 tokens, whole or cut after `fork`, as sequence [`FORKED`] among others: siblings that are large
/// enough to be another task's.
fn forked(fork: Option<usize>, queries: Asked) -> Case {
    let lengths = |fork| [5, fork, 9, 310, 300 - fork, 310];
    let (offsets, parents) = match fork {
        None => (vec![0, 300], vec![None]),
        Some(fork) => (
            (0..=6).map(|i| lengths(fork)[..i].iter().sum()).collect(),
            vec![None, None, Some(1), Some(1), Some(1), Some(1)],
        ),
    };
    let (mask, soft_cap, bias) = (Mask::Causal, None, None);
    Case { heads: 4, key_heads: 2, head_dim: 32, mask, soft_cap, bias, queries, offsets, parents, seed: 3 }
}

/// Scores of the text of [`forked`] in T: its rows' outputs and log-sums, from the fork on.
fn rows_of_fork<T: Element>(base: &Case, fork: Option<usize>, threads: usize) -> (Vec<f32>, Vec<f32>) {
    let case = Case { mask: base.mask, soft_cap: base.soft_cap, bias: base.bias.clone(), ..forked(fork, base.queries) };
    let whole = forked(None, base.queries);
    let own = fork.map_or(0, |_| FORKED);
    let text = case.text(own);
    let spread = |from: Vec<f32>, width: usize, rows: usize, at: &[usize]| {
        let mut all = values(rows * width, 77);
        for (row, from) in at.iter().zip(from.chunks_exact(width)) {
            all[row * width..(row + 1) * width].copy_from_slice(from);
        }
        all
    };
    let query_rows = if base.queries == Asked::All { text.clone() } else { vec![own] };
    let q = spread(whole.q(), case.width(), case.rows(), &query_rows);
    let kv = spread(whole.kv(), 2 * case.key_width(), case.tokens(), &text);
    let found = with_threads(threads, || case.run_on::<T>(&q, &kv, &case.d_out()));
    let rows = || query_rows.iter().copied();
    let out = rows().flat_map(|r| found.out[r * case.width()..][..case.width()].to_vec()).collect();
    let sums = (0..case.heads).flat_map(|h| rows().map(move |r| (h, r)));
    (out, sums.map(|(h, r)| found.log_sums[h * case.rows() + r]).collect())
}

fn same_bits_at_forks<T: Element>() {
    let distances = values(4 * 1239, 8);
    for queries in [Asked::All, Asked::Last] {
        let windows = [31, 63, 64, 100].map(|before| Mask::Window { before, after: 0 });
        for (mask, soft_cap, bias) in std::iter::once((Mask::Causal, None, None))
            .chain(windows.map(|mask| (mask, Some(5.0), None)))
            .chain([(Mask::Causal, Some(3.0), Some(distances.clone()))])
        {
            let base = Case { mask, soft_cap, bias, ..forked(None, queries) };
            let whole = rows_of_fork::<T>(&base, None, 1);
            for (i, fork) in [1, 11, 12, 13, 31, 32, 33, 63, 64, 65, 200, 299].into_iter().enumerate() {
                let shared = rows_of_fork::<T>(&base, Some(fork), 1 + i % 3);
                assert!(whole == shared, "{mask:?} {soft_cap:?} {queries:?}, fork at {fork}");
            }
        }
    }
}

#[test]
fn a_text_has_the_same_bits_whether_its_parent_is_shared_or_not() {
    same_bits_at_forks::<f32>();
}

#[test]
fn a_text_has_the_same_bits_whether_its_parent_is_shared_or_not_in_bf16() {
    on_both(same_bits_at_forks::<Bf16>);
}

/// Families whose rows are the same in every batch that holds them; the last is large enough for several tasks.
fn family_alone_and_in_a_batch<T: Element>(queries: Asked) {
    let lengths = [
        (130, false),
        (7, true),
        (70, true),
        (1, false),
        (0, false),
        (65, true),
        (3, true),
        (90, false),
        (200, true),
        (80, true),
        (0, true),
        (300, true),
        (9, true),
    ];
    let of = |range: Range<usize>| {
        let (mut offsets, mut parents, mut parent) = (vec![0], Vec::new(), 0);
        for (i, (len, child)) in lengths[range].iter().enumerate() {
            offsets.push(offsets[i] + len);
            parent = if *child { parent } else { i };
            parents.push(child.then_some(parent));
        }
        Case { offsets, parents, ..forked(None, queries) }
    };
    let all = of(0..lengths.len());
    let (q, kv, d_out) = (all.q(), all.kv(), all.d_out());
    let together = with_threads(2, || all.run_on::<T>(&q, &kv, &d_out));
    for (range, threads) in [(0..3, 1), (3..4, 2), (4..7, 3), (7..13, 1)] {
        let own = of(range.clone());
        let tokens = all.offsets[range.start]..all.offsets[range.end];
        let rows = if queries == Asked::All { tokens.clone() } else { range };
        let (rows, tokens) = (
            [rows.start, rows.end].map(|r| r * all.width()),
            [tokens.start, tokens.end].map(|t| t * 2 * all.key_width()),
        );
        let (rows, tokens) = (rows[0]..rows[1], tokens[0]..tokens[1]);
        let alone =
            with_threads(threads, || own.run_on::<T>(&q[rows.clone()], &kv[tokens.clone()], &d_out[rows.clone()]));
        assert!(alone.out == together.out[rows.clone()] && alone.d_q == together.d_q[rows], "{queries:?} {own:?}");
        assert!(alone.d_kv == together.d_kv[tokens], "{queries:?} {own:?}");
    }
}

#[test]
fn a_family_has_the_same_bits_alone_and_in_a_batch_with_any_threads() {
    for queries in [Asked::All, Asked::First, Asked::Last] {
        family_alone_and_in_a_batch::<f32>(queries);
        on_both(|| family_alone_and_in_a_batch::<Bf16>(queries));
    }
}

/// Queries, keys and values in one buffer give what they give apart.
#[test]
fn inputs_together_are_inputs_apart() {
    let case = Case { bias: Some(values(4 * 799, 8)), ..forked(Some(70), Asked::All) };
    let (q, kv, d_out, apart) = (case.q(), case.kv(), case.d_out(), case.run::<f32>());
    let (width, keys) = (case.width(), 2 * case.key_width());
    let rows = q.chunks(width).zip(kv.chunks(keys));
    let qkv: Vec<f32> = rows.flat_map(|(q, kv)| [q, kv].concat()).collect();
    let (mut out, mut log_sums, mut d_qkv) =
        (vec![0.0; q.len()], vec![0.0; apart.log_sums.len()], vec![9.0; qkv.len()]);
    case.with(|sequences, spec| {
        let inputs = Inputs::Together(&qkv);
        forward(&mut out, &mut log_sums, inputs, sequences, spec);
        let saved = Saved { inputs, out: &out, log_sums: &log_sums };
        backward(
            Gradients { inputs: InputGradients::Together(&mut d_qkv), bias: None },
            &d_out,
            saved,
            sequences,
            spec,
        );
    });
    assert!(out == apart.out && log_sums == apart.log_sums);
    let gradients = apart.d_q.chunks(width).zip(apart.d_kv.chunks(keys));
    assert_eq!(d_qkv, gradients.flat_map(|(q, kv)| [q, kv].concat()).collect::<Vec<f32>>());
}

/// Heads of the widths that models have, and scores far outside of what exp can hold.
#[test]
fn wide_heads_and_large_scores_stay_right() {
    for head_dim in [64, 80, 96, 128, 256] {
        let case =
            Case { head_dim, offsets: vec![0, 20, 50], parents: vec![None, Some(0)], ..forked(None, Asked::All) };
        let (found, expected) = (case.run::<f32>(), case.expected::<f32>());
        for ((name, found), (_, expected)) in found.parts().into_iter().zip(expected.parts()) {
            assert!(relative_error(found, expected) < 1e-5, "{name} of {head_dim} columns");
        }
        let large: Vec<f32> = case.q().iter().map(|v| v * 1e4).collect();
        let found = case.run_on::<f32>(&large, &case.kv(), &case.d_out());
        assert!(found.parts().iter().all(|(_, part)| part.iter().all(|v| v.is_finite())));
    }
}

/// A NaN reaches the rows that see it, and no other text.
#[test]
fn a_nan_stays_in_its_text() {
    for queries in [Asked::All, Asked::Last] {
        let case =
            Case { offsets: vec![0, 40, 75, 90], parents: vec![None, Some(0), Some(0)], ..forked(None, queries) };
        let clean = case.run::<f32>();
        let mut kv = case.kv();
        kv[60 * 2 * case.key_width()..][..2 * case.key_width()].fill(f32::NAN);
        let found = case.run_on::<f32>(&case.q(), &kv, &case.d_out());
        let rows = if queries == Asked::All { [40, 74, 75] } else { [1, 1, 2] };
        let width = case.width();
        assert_eq!(found.out[..rows[0] * width], clean.out[..rows[0] * width]);
        assert!(found.out[rows[1] * width..rows[2] * width].iter().all(|v| v.is_nan()));
        assert_eq!(found.out[rows[2] * width..], clean.out[rows[2] * width..]);
    }
}

#[test]
fn c3_buffers_and_shapes_that_disagree_are_refused() {
    let base = Case { offsets: vec![0, 4, 6], parents: vec![None, Some(0)], ..forked(None, Asked::All) };
    let refused = |case: &Case, out: usize, sums: usize, q: usize, kv: usize| {
        let (q, kv) = (vec![0.0f32; q], vec![0.0; kv]);
        refusal(std::panic::AssertUnwindSafe(|| {
            let inputs = Inputs::Apart { q: &q, kv: &kv };
            case.with(|s, spec| forward(&mut vec![0.0; out], &mut vec![0.0; sums], inputs, s, spec));
        }))
    };
    let [out, sums, kv] = [6 * 128, 6 * 4, 6 * 128];
    assert!(refused(&base, out - 1, sums, out, kv).contains("out has a row"));
    assert!(refused(&base, out, sums - 1, out, kv).contains("log-sum"));
    assert!(refused(&base, out, sums, out + 128, kv).contains("a row for each query"));
    assert!(refused(&base, out, sums, out, kv - 64).contains("keys and values of each token"));
    let both = Case { mask: Mask::Bidirectional, ..base.clone() };
    assert!(refused(&both, out, sums, out, kv).contains("looks ahead"));
    let ahead = Case { mask: Mask::Window { before: 1, after: 1 }, ..base.clone() };
    assert!(refused(&ahead, out, sums, out, kv).contains("looks ahead"));
    let short = Case { bias: Some(vec![0.0; 4 * 9]), ..base.clone() };
    assert!(refused(&short, out, sums, out, kv).contains("11 distances"));
    let heads = Case { heads: 3, ..base.clone() };
    assert!(refused(&heads, out, sums, out, kv).contains("cannot share"));
    let together = refusal(std::panic::AssertUnwindSafe(|| {
        let last = Case { queries: Asked::Last, ..base.clone() };
        let qkv = vec![0.0f32; 6 * 256];
        last.with(|s, spec| forward(&mut [0.0; 256], &mut [0.0; 8], Inputs::Together(&qkv), s, spec));
    }));
    assert!(together.contains("a buffer of its own"), "{together}");
}
