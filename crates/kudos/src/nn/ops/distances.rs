//! Scores by distance, which all layers of a model add to their own: a table of a few buckets, read for every distance of
//! the batch. Near distances have a bucket each, far ones share (Raffel et al. 2020, T5; Song et al. 2020, MPNet).

use super::{Op, Uses};
use crate::nn::Batch;
use crate::nn::parameters::Span;
use crate::nn::tape::{Backward, Buffer, Forward, Tape, Var};
use kernels::gemm::Store;

/// The table of scores by distance.
#[derive(Clone, Copy, Debug)]
pub struct DistancesSpec {
    /// `[BUCKETS, heads]`.
    pub table: Span,
    /// Heads of queries.
    pub heads: usize,
}

impl DistancesSpec {
    /// Buckets of the table: one half for keys before the query, the other for those behind it.
    pub const BUCKETS: usize = 32;

    /// The bucket of keys at this distance behind their query, which is negative before it. The first 8 distances to each
    /// side have one each; then there are two for each doubling, the last of which holds all from 91 on.
    fn bucket(distance: isize) -> usize {
        const SIDE: usize = DistancesSpec::BUCKETS / 2;
        const NEAR: usize = SIDE / 2;
        let far = distance.unsigned_abs();
        // 8 + ⌊log(far/8) / log(128/8) · 8⌋, in whole numbers.
        let place = if far < NEAR { far } else { (NEAR + (far * far / (NEAR * NEAR)).ilog2() as usize).min(SIDE - 1) };
        if distance > 0 { SIDE + place } else { place }
    }

    /// Where in the table a head's score of each of these distances stands, from that of the last key's query to the first.
    fn places(self, distances: usize, head: usize) -> impl Iterator<Item = usize> {
        let nearest = (distances / 2) as isize;
        (0..distances as isize).map(move |at| Self::bucket(at - nearest) * self.heads + head)
    }
}

pub(in crate::nn) struct Distances {
    y: Var,
    spec: DistancesSpec,
    /// Distances in the batch.
    count: usize,
}

impl Tape {
    /// The scores of every distance between two tokens of a sequence: `[heads, 2·longest − 1]`, as the spec of attention
    /// takes them.
    ///
    /// # Panics
    /// When a sequence has a parent, whose tokens belong to its distances.
    pub fn distances(&mut self, spec: DistancesSpec, batch: &Batch) -> Var {
        assert!(!batch.shares(), "the distances of a text need all of its tokens side by side");
        let longest = batch.offsets().windows(2).map(|bounds| bounds[1] - bounds[0]).max().unwrap_or(1);
        let count = 2 * longest - 1;
        let y = self.var(spec.heads, count);
        self.push(Op::Distances(Distances { y, spec, count }));
        y
    }
}

impl Distances {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.writes([self.y]).takes([self.y]);
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let [y] = pass.arena.buffers([Buffer::Value(self.y)]);
        let table = &pass.weights.values[self.spec.table.range()];
        for (head, y) in y.chunks_exact_mut(self.count).enumerate() {
            let places = self.spec.places(self.count, head);
            y.iter_mut().zip(places).for_each(|(y, place)| *y = table[place]);
        }
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        let [dy] = pass.arena.buffers([Buffer::Gradient(self.y)]);
        let Some(([table], store)) = pass.gradients.spans([self.spec.table]) else { return };
        if store == Store::Replace {
            table.fill(0.0);
        }
        for (head, dy) in dy.chunks_exact(self.count).enumerate() {
            let places = self.spec.places(self.count, head);
            dy.iter().zip(places).for_each(|(dy, place)| table[place] += dy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ops::check;
    use proptest::prelude::*;

    /// As transformers' `relative_position_bucket` of MPNet has them.
    #[test]
    fn buckets_are_mpnets() {
        let bucket = DistancesSpec::bucket;
        let near: Vec<usize> = (-8..=8).map(bucket).collect();
        assert_eq!(near, [8, 7, 6, 5, 4, 3, 2, 1, 0, 17, 18, 19, 20, 21, 22, 23, 24]);
        let firsts: Vec<isize> = (9..16).map(|place| (0..200).find(|far| bucket(-far) == place).unwrap()).collect();
        assert_eq!(firsts, [12, 16, 23, 32, 46, 64, 91]);
        assert_eq!((bucket(-100_000), bucket(100_000)), (15, 31));
    }

    proptest! {
        #[test]
        fn keys_behind_have_the_other_half(far in 1isize..1000) {
            prop_assert_eq!(DistancesSpec::bucket(far), DistancesSpec::bucket(-far) + 16);
            prop_assert!(DistancesSpec::bucket(-far - 1) >= DistancesSpec::bucket(-far));
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        let table = Span { start: 0, len: 2 * DistancesSpec::BUCKETS };
        check::gradients(table.len, |tape, batch| tape.distances(DistancesSpec { table, heads: 2 }, batch));
    }
}
