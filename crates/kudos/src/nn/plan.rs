//! Where each buffer lies in the arena: two buffers share memory when their lives do not overlap.

use std::ops::Range;

/// A buffer's size and the ticks at which it must hold its content, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Life {
    /// Elements.
    pub(super) len: usize,
    /// Tick of the first write.
    pub(super) birth: usize,
    /// Tick of the last use.
    pub(super) death: usize,
    /// The same once more, of a value that is computed again on the way back.
    pub(super) again: Option<(usize, usize)>,
}

impl Life {
    /// Of so many elements, at one tick.
    pub(super) fn at(len: usize, tick: usize) -> Self {
        Self { len, birth: tick, death: tick, again: None }
    }

    /// Stretches the life to hold at `tick`.
    pub(super) fn extend(&mut self, tick: usize) {
        (self.birth, self.death) = (self.birth.min(tick), self.death.max(tick));
    }

    /// Stretches the second life to hold at `tick`.
    pub(super) fn extend_again(&mut self, tick: usize) {
        let (birth, death) = self.again.unwrap_or((tick, tick));
        self.again = Some((birth.min(tick), death.max(tick)));
    }

    /// Whether both must hold something at one tick.
    fn meets(&self, other: &Life) -> bool {
        let spans = |life: &Life| [Some((life.birth, life.death)), life.again].into_iter().flatten();
        let mut pairs = spans(self).flat_map(|a| spans(other).map(move |b| (a, b)));
        pairs.any(|((birth, death), (other_birth, other_death))| birth <= other_death && other_birth <= death)
    }
}

/// Start of a buffer is a multiple of this many elements: a cache line of f32, as the arena starts on one.
const ALIGNMENT: usize = 16;

/// Offsets of all buffers; `None` for those never alive. Largest first, each at the lowest free place.
#[derive(Default)]
pub(super) struct Planner {
    order: Vec<usize>,
    placed: Vec<usize>,
    ranges: Vec<Range<usize>>,
    /// What the ranges were made for, and the arena's length: a program that comes again keeps its plan.
    last: (Vec<Option<Life>>, usize),
}

impl Planner {
    /// Places `lives`; [`Self::range`] then tells where. Returns the arena's length.
    pub(super) fn place(&mut self, lives: &[Option<Life>]) -> usize {
        if self.last.0 == lives {
            return self.last.1;
        }
        self.ranges.clear();
        self.ranges.resize(lives.len(), 0..0);
        self.placed.clear();
        self.order.clear();
        self.order.extend((0..lives.len()).filter(|i| lives[*i].is_some()));
        self.order.sort_by_key(|i| std::cmp::Reverse(lives[*i].map(|l| l.len)));
        let mut total = 0;
        for slot in 0..self.order.len() {
            let index = self.order[slot];
            let life = lives[index].expect("only living buffers are in the order");
            let start = self.lowest(life, lives);
            self.ranges[index] = start..start + life.len;
            let place = self.placed.partition_point(|p| self.ranges[*p].start <= start);
            self.placed.insert(place, index);
            total = total.max(start + life.len);
        }
        self.last.0.clear();
        self.last.0.extend_from_slice(lives);
        self.last.1 = total;
        total
    }

    /// Lowest start at which `life` meets no placed buffer that lives at the same time.
    fn lowest(&self, life: Life, lives: &[Option<Life>]) -> usize {
        let mut start = 0usize;
        for other in &self.placed {
            let theirs = lives[*other].expect("placed buffers live");
            if !theirs.meets(&life) {
                continue;
            }
            let range = &self.ranges[*other];
            if range.start >= start + life.len {
                break;
            }
            start = start.max(range.end.next_multiple_of(ALIGNMENT));
        }
        start
    }

    /// Where buffer `index` lies.
    pub(super) fn range(&self, index: usize) -> Range<usize> {
        self.ranges[index].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One life, or two.
    fn life() -> impl Strategy<Value = Life> {
        let again = proptest::option::of((20usize..40, 0usize..8));
        (1usize..100, 0usize..20, 0usize..8, again).prop_map(|(len, birth, span, again)| Life {
            again: again.map(|(birth, span)| (birth, birth + span)),
            ..Life { death: birth + span, ..Life::at(len, birth) }
        })
    }

    proptest! {
        #[test]
        fn buffers_alive_together_never_overlap(lives in proptest::collection::vec(proptest::option::of(life()), 0..40)) {
            let mut planner = Planner::default();
            let total = planner.place(&lives);
            for (i, a) in lives.iter().enumerate() {
                let Some(a) = a else { continue };
                prop_assert!(planner.range(i).len() == a.len && planner.range(i).end <= total);
                for (j, b) in lives.iter().enumerate().skip(i + 1) {
                    let Some(b) = b else { continue };
                    let holds = |life: &Life, tick| {
                        let again = life.again.is_some_and(|(birth, death)| (birth..=death).contains(&tick));
                        (life.birth..=life.death).contains(&tick) || again
                    };
                    let together = (0..60).any(|tick| holds(a, tick) && holds(b, tick));
                    let (a, b) = (planner.range(i), planner.range(j));
                    prop_assert!(!together || a.end <= b.start || b.end <= a.start);
                }
            }
        }
    }

    #[test]
    fn memory_is_shared_after_death() {
        let life = |birth, death| Some(Life { death, ..Life::at(16, birth) });
        let mut planner = Planner::default();
        assert_eq!(planner.place(&[life(0, 1), life(2, 3), life(1, 2)]), 32);
    }
}
