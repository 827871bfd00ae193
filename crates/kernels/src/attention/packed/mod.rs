//! Attention over packed sequences, for encoders and decoders, in f32 and bf16, forward and backward.
//!
//! A family of sequences shares its beginning ([`Sequences`]): rows of the parent are computed once, and each child
//! attends to them and to its own. Everything is told by the position in the whole text. A query's scores lie at their
//! keys' positions, its sum of exponentials runs in lanes by position, and its product with the values runs over the
//! positions in order. So a row has the same bits whether its text is split between a parent and a child or not.
//!
//! One task owns one head of one family (of keys and values, on the way back), so a result depends neither on the number
//! of threads nor on the batch's other families. Only the log-sum-exp of each row is kept, and the way back computes
//! the probabilities again (Dao et al. 2022, FlashAttention). Several query heads may share one head of keys and values
//! (Ainslie et al. 2023, GQA).

mod backward;
mod forward;
mod one;
mod operand;
pub mod reference;
mod score;
mod sequences;
#[cfg(test)]
mod tests;

pub use sequences::Sequences;

use crate::bf16::Element;
use crate::gemm::Store;
use crate::parallel::{Shared, area};
use sequences::{Family, Text};
use std::ops::Range;

/// Which keys a query sees, by their positions in its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All of its text.
    Bidirectional,
    /// Itself and all before it.
    Causal,
    /// Itself, `before` keys before it and `after` keys after it. A causal window of w keys, its own included, is
    /// `before: w − 1, after: 0`.
    Window {
        /// Keys before the query.
        before: usize,
        /// Keys after the query.
        after: usize,
    },
}

impl Mask {
    /// The keys that a query at `position` of a text of `end` tokens sees.
    #[inline(always)]
    fn seen(self, position: usize, end: usize) -> Range<usize> {
        match self {
            Mask::Bidirectional => 0..end,
            Mask::Causal => 0..position + 1,
            Mask::Window { before, after } => {
                position.saturating_sub(before)..end.min(position.saturating_add(after).saturating_add(1))
            }
        }
    }

    /// The queries of a text of `end` tokens that see the key at `position`.
    fn seeing(self, position: usize, end: usize) -> Range<usize> {
        match self {
            Mask::Bidirectional => 0..end,
            Mask::Causal => position..end,
            Mask::Window { before, after } => Mask::Window { before: after, after: before }.seen(position, end),
        }
    }

    fn looks_ahead(self) -> bool {
        !matches!(self, Mask::Causal | Mask::Window { after: 0, .. })
    }
}

/// Which queries are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queries<'a> {
    /// Every token's.
    All,
    /// One for each sequence: that of the text's first token.
    First,
    /// One for each sequence: that of the text's last token, which is the parent's last if the child has no own.
    Last,
    /// One for each sequence: that of the token at this position of its text.
    At(&'a [usize]),
}

/// The shape of an attention, and how its scores are made: `cap(scale · q·k) + bias`, where the mask lets them.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// Query heads; a multiple of `key_heads`.
    pub heads: usize,
    /// Heads of keys and of values. Query head h reads number h / (heads / key_heads).
    pub key_heads: usize,
    /// Columns of a head; even in bf16.
    pub head_dim: usize,
    /// Multiplies the products of queries and keys, usually `1/√head_dim`.
    pub scale: f32,
    /// Which keys a query sees.
    pub mask: Mask,
    /// Scores become `cap · tanh(score / cap)` (Gemma 2).
    pub soft_cap: Option<f32>,
    /// Added to the scores by distance: `[heads, 2·reach − 1]`, where the entry of a query at i and a key at j is number
    /// `j − i + reach − 1` of its head. `reach` is at least the longest text.
    pub bias: Option<&'a [f32]>,
    /// Which queries are computed.
    pub queries: Queries<'a>,
}

/// Queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub enum Inputs<'a, T> {
    /// `[tokens, (heads + 2·key_heads)·head_dim]`: all heads of queries, then of keys, then of values.
    Together(&'a [T]),
    /// Queries have a buffer of their own.
    Apart {
        /// `[tokens or sequences, heads·head_dim]`.
        q: &'a [T],
        /// `[tokens, 2·key_heads·head_dim]`: all heads of keys, then of values.
        kv: &'a [T],
    },
}

/// Where the gradients of the [`Inputs`] go, in the same layout. All of it is written.
#[derive(Debug)]
pub enum InputGradients<'a, T> {
    /// As [`Inputs::Together`].
    Together(&'a mut [T]),
    /// As [`Inputs::Apart`].
    Apart {
        /// As the queries.
        q: &'a mut [T],
        /// As keys and values.
        kv: &'a mut [T],
    },
}

/// What [`backward`] writes.
#[derive(Debug)]
pub struct Gradients<'a, T> {
    /// Of queries, keys and values.
    pub inputs: InputGradients<'a, T>,
    /// Of the bias, `[heads, 2·reach − 1]`: sums along the diagonals of all texts. Not wanted, if `None`.
    pub bias: Option<(&'a mut [f32], Store)>,
}

/// What the way back reads.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a, T> {
    /// The forward's inputs.
    pub inputs: Inputs<'a, T>,
    /// The forward's output.
    pub out: &'a [T],
    /// The forward's log-sum-exp.
    pub log_sums: &'a [f32],
}

/// Whether heads of this width can be computed with values of `size` bytes: a word of 32 bits holds whole values.
pub fn fits(head_dim: usize, size: usize) -> bool {
    (head_dim * size).is_multiple_of(4)
}

/// `out = softmax(scores)·v`: `out: [rows, heads·head_dim]`, and `log_sums: [heads, rows]` receives each row's
/// log-sum-exp. There is a row for each token or, when one query of each sequence is computed, for each sequence.
///
/// # Panics
/// When buffers, sequences and spec disagree, when a mask that looks ahead meets children (they would change what their
/// parent sees), and for bf16 where the processor has no such products ([`crate::has_bf16_products`]).
pub fn forward<T: Element>(out: &mut [T], log_sums: &mut [f32], inputs: Inputs<T>, sequences: &Sequences, spec: &Spec) {
    let work = Work::new(inputs, sequences, spec);
    assert_eq!(out.len(), area(work.rows, spec.width()), "out has a row for each query");
    assert_eq!(log_sums.len(), area(spec.heads, work.rows), "a log-sum for each head of each query");
    let (out, log_sums) = (Shared::new(out), Shared::new(log_sums));
    match spec.queries {
        Queries::All => forward::all(&work, out, log_sums),
        _ => one::forward(&work, out, log_sums),
    }
}

/// Gradient of [`forward`] from `d_out: [rows, heads·head_dim]`. Gradients of a parent's keys and values are those of its
/// own queries, then of each child's in order.
///
/// # Panics
/// As [`forward`], and when the gradients' buffers disagree with the inputs'.
pub fn backward<T: Element>(gradients: Gradients<T>, d_out: &[T], saved: Saved<T>, sequences: &Sequences, spec: &Spec) {
    let work = Work::new(saved.inputs, sequences, spec);
    assert_eq!([d_out.len(), saved.out.len()], [area(work.rows, spec.width()); 2], "a row for each query");
    assert_eq!(saved.log_sums.len(), area(spec.heads, work.rows), "a log-sum for each head of each query");
    let mut partial = BiasSums::new(&work, gradients.bias.is_some());
    let into = Targets::new(gradients.inputs, &work);
    match spec.queries {
        Queries::All => backward::all(&work, into, d_out, saved, partial.shared()),
        _ => one::backward(&work, into, d_out, saved, partial.shared()),
    }
    if let Some((bias, store)) = gradients.bias {
        partial.add_up(bias, store);
    }
}

impl Spec<'_> {
    /// Columns of the queries.
    fn width(&self) -> usize {
        area(self.heads, self.head_dim)
    }

    /// Columns of the keys.
    fn key_width(&self) -> usize {
        area(self.key_heads, self.head_dim)
    }

    /// Query heads that share a head of keys.
    fn shared(&self) -> usize {
        self.heads / self.key_heads
    }

    /// Distances of a head's bias.
    fn distances(&self) -> usize {
        self.bias.map_or(0, |bias| bias.len() / self.heads)
    }

    fn check(&self, sequences: &Sequences, size: usize) {
        let Spec { heads, key_heads, head_dim, .. } = *self;
        assert!(
            key_heads > 0 && head_dim > 0 && heads > 0 && heads.is_multiple_of(key_heads),
            "{heads} heads of {head_dim} columns cannot share {key_heads} heads of keys"
        );
        assert!(
            self.queries != Queries::All || fits(head_dim, size),
            "a head of {head_dim} columns of {size} bytes has no whole words"
        );
        assert!(
            !(self.mask.looks_ahead() && sequences.share()),
            "a mask that looks ahead cannot share a parent: {:?}",
            self.mask
        );
        if let Some(bias) = self.bias {
            let (distances, least) = (self.distances(), 2 * sequences.longest().max(1) - 1);
            let odd = bias.len() == heads * distances && !distances.is_multiple_of(2);
            assert!(
                odd && distances >= least,
                "a bias of {} values for {heads} heads and {least} distances",
                bias.len()
            );
        }
        if let Queries::At(positions) = self.queries {
            assert_eq!(positions.len(), sequences.count(), "a position for each sequence");
        }
    }
}

/// The columns of all heads of one input.
#[derive(Clone, Copy, Debug)]
struct Columns<'a, T> {
    data: &'a [T],
    /// Elements from one row to the next.
    stride: usize,
    /// First column.
    first: usize,
    /// Columns of a head.
    dim: usize,
}

impl<'a, T> Columns<'a, T> {
    /// A head's columns of a row.
    #[inline(always)]
    fn head(&self, row: usize, head: usize) -> &'a [T] {
        &self.data[row * self.stride + self.first + head * self.dim..][..self.dim]
    }
}

/// The columns of all heads of one gradient.
#[derive(Clone, Copy)]
struct ColumnsMut<'a, T> {
    data: Shared<'a, T>,
    stride: usize,
    first: usize,
    dim: usize,
}

impl<T> ColumnsMut<'_, T> {
    /// A head's columns of a row.
    ///
    /// # Safety
    /// As [`Shared::slice`].
    #[allow(clippy::mut_from_ref)] // Disjointness is the caller's promise.
    unsafe fn head(&self, row: usize, head: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { self.data.slice(row * self.stride + self.first + head * self.dim, self.dim) }
    }
}

/// Inputs, sequences and spec that fit together.
struct Work<'a, T> {
    q: Columns<'a, T>,
    k: Columns<'a, T>,
    v: Columns<'a, T>,
    /// Rows of queries.
    rows: usize,
    sequences: &'a Sequences<'a>,
    spec: &'a Spec<'a>,
}

impl<'a, T: Element> Work<'a, T> {
    fn new(inputs: Inputs<'a, T>, sequences: &'a Sequences<'a>, spec: &'a Spec<'a>) -> Self {
        spec.check(sequences, size_of::<T>());
        let (width, keys, dim) = (spec.width(), spec.key_width(), spec.head_dim);
        let tokens = sequences.tokens();
        let rows = if spec.queries == Queries::All { tokens } else { sequences.count() };
        let columns = |data, stride, first| Columns { data, stride, first, dim };
        let [q, k, v] = match inputs {
            Inputs::Together(qkv) => {
                assert_eq!(qkv.len(), area(tokens, width + 2 * keys), "queries, keys and values of each token");
                assert!(spec.queries == Queries::All, "one query of each sequence has a buffer of its own");
                [0, width, width + keys].map(|first| columns(qkv, width + 2 * keys, first))
            }
            Inputs::Apart { q, kv } => {
                assert_eq!(q.len(), area(rows, width), "a row for each query");
                assert_eq!(kv.len(), area(tokens, 2 * keys), "keys and values of each token");
                [columns(q, width, 0), columns(kv, 2 * keys, 0), columns(kv, 2 * keys, keys)]
            }
        };
        Self { q, k, v, rows, sequences, spec }
    }

    /// The family and the head of a task, of `heads` heads.
    fn task(&self, task: usize, heads: usize) -> (Family, usize) {
        (self.sequences.families()[task / heads], task % heads)
    }

    /// The bias of a head.
    fn bias(&self, head: usize) -> &'a [f32] {
        let distances = self.spec.distances();
        self.spec.bias.map_or(&[], |bias| &bias[head * distances..(head + 1) * distances])
    }

    /// A family's sums of the bias's gradient, of one head; empty if not wanted.
    ///
    /// # Safety
    /// As [`Shared::slice`].
    #[allow(clippy::mut_from_ref)] // Disjointness is the caller's promise.
    unsafe fn sums_of<'b>(&self, all: &'b Option<Shared<f32>>, family: usize, head: usize) -> &'b mut [f32] {
        let distances = self.spec.distances();
        let start = (family * self.spec.heads + head) * distances;
        // SAFETY: the caller's promise.
        all.as_ref().map_or(&mut [], |all| unsafe { all.slice(start, distances) })
    }

    /// The position of a text's one query, if the text has a token.
    ///
    /// # Panics
    /// When it is asked for beyond the text.
    fn position(&self, text: Text) -> Option<usize> {
        let last = text.end().checked_sub(1)?;
        Some(match self.spec.queries {
            Queries::All | Queries::Last => last,
            Queries::First => 0,
            Queries::At(positions) => {
                let position = positions[text.sequence];
                assert!(position <= last, "sequence {} has no position {position}", text.sequence);
                position
            }
        })
    }
}

/// Where the gradients of queries, keys and values go.
#[derive(Clone, Copy)]
struct Targets<'a, T> {
    q: ColumnsMut<'a, T>,
    k: ColumnsMut<'a, T>,
    v: ColumnsMut<'a, T>,
}

impl<'a, T: Element> Targets<'a, T> {
    fn new(gradients: InputGradients<'a, T>, work: &Work<T>) -> Self {
        let of = |data, columns: Columns<T>| {
            let Columns { stride, first, dim, .. } = columns;
            ColumnsMut { data, stride, first, dim }
        };
        let (q, kv) = match gradients {
            InputGradients::Together(qkv) => {
                assert!(work.k.first > 0 && qkv.len() == work.q.data.len(), "gradients lie as the inputs");
                let qkv = Shared::new(qkv);
                (qkv, qkv)
            }
            InputGradients::Apart { q, kv } => {
                let fits = q.len() == work.q.data.len() && kv.len() == work.k.data.len();
                assert!(fits && work.k.first == 0, "gradients lie as the inputs");
                (Shared::new(q), Shared::new(kv))
            }
        };
        Self { q: of(q, work.q), k: of(kv, work.k), v: of(kv, work.v) }
    }
}

/// Sums along diagonals, of each family and head by the task that owns it.
struct BiasSums {
    /// `[families][heads][distances]`; empty if not wanted.
    sums: Vec<f32>,
    /// Values of all heads.
    len: usize,
}

impl BiasSums {
    fn new<T: Element>(work: &Work<T>, wanted: bool) -> Self {
        assert!(!wanted || work.spec.bias.is_some(), "a gradient of the bias without a bias");
        let len = work.spec.heads * work.spec.distances();
        let families = if wanted { work.sequences.families().len() } else { 0 };
        Self { sums: vec![0.0; area(families, len)], len }
    }

    fn shared(&mut self) -> Option<Shared<'_, f32>> {
        (!self.sums.is_empty()).then(|| Shared::new(&mut self.sums))
    }

    /// Adds the families' sums in order.
    fn add_up(&self, bias: &mut [f32], store: Store) {
        assert_eq!(bias.len(), self.len, "the bias's gradient is as long as the bias");
        if store == Store::Replace {
            bias.fill(0.0);
        }
        for sums in self.sums.chunks_exact(self.len) {
            bias.iter_mut().zip(sums).for_each(|(bias, sum)| *bias += sum);
        }
    }
}
