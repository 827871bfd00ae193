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
            if theirs.birth > life.death || theirs.death < life.birth {
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

    proptest! {
        #[test]
        fn buffers_alive_together_never_overlap(lives in proptest::collection::vec(proptest::option::of((1usize..100, 0usize..20, 0usize..8)), 0..40)) {
            let lives: Vec<_> = lives.into_iter().map(|l| l.map(|(len, birth, span)| Life { len, birth, death: birth + span })).collect();
            let mut planner = Planner::default();
            let total = planner.place(&lives);
            for (i, a) in lives.iter().enumerate() {
                let Some(a) = a else { continue };
                prop_assert!(planner.range(i).len() == a.len && planner.range(i).end <= total);
                for (j, b) in lives.iter().enumerate().skip(i + 1) {
                    let Some(b) = b else { continue };
                    let together = a.birth <= b.death && b.birth <= a.death;
                    let (a, b) = (planner.range(i), planner.range(j));
                    prop_assert!(!together || a.end <= b.start || b.end <= a.start);
                }
            }
        }
    }

    #[test]
    fn memory_is_shared_after_death() {
        let life = |birth, death| Some(Life { len: 16, birth, death });
        let mut planner = Planner::default();
        assert_eq!(planner.place(&[life(0, 1), life(2, 3), life(1, 2)]), 32);
    }
}
