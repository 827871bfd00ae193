//! Where the sequences of a batch lie, and which of them continue another.

use std::ops::Range;

/// Own rows of a task, where a family has as many: few large families must occupy all threads.
const PART_ROWS: usize = 256;

/// A run of sequences that share their beginning: the first one, and its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Family {
    /// The first sequence.
    pub(super) first: usize,
    /// Sequences, the first included.
    pub(super) count: usize,
}

/// Texts of a family that one task computes.
#[derive(Clone, Debug)]
pub(super) struct Portion {
    pub(super) family: Family,
    /// Places among the family's texts.
    pub(super) texts: Range<usize>,
}

impl Portion {
    /// All of a family.
    fn whole(family: Family) -> Self {
        Self { family, texts: 0..family.count }
    }

    /// Whether its family has no other portion.
    pub(super) fn is_whole(&self) -> bool {
        self.texts.len() == self.family.count
    }
}

/// Sequences that lie end to end in a batch. A child's text is its parent's rows and then its own.
///
/// Tasks write the rows of their own family without a lock, so the fields are closed: no two sequences overlap.
#[derive(Clone, Debug)]
pub struct Sequences<'a> {
    offsets: &'a [usize],
    families: Vec<Family>,
}

impl<'a> Sequences<'a> {
    /// Sequence `i` is the tokens `offsets[i]..offsets[i + 1]`, and stands alone.
    ///
    /// # Panics
    /// Unless the offsets start with 0 and ascend.
    pub fn new(offsets: &'a [usize]) -> Self {
        check(offsets);
        let families = (0..offsets.len() - 1).map(|first| Family { first, count: 1 }).collect();
        Self { offsets, families }
    }

    /// As [`Self::new`], where the text of sequence `i` begins with all rows of sequence `parents[i]`, if that is
    /// given. A parent stands right before its children, and has no parent.
    ///
    /// # Panics
    /// As [`Self::new`], when there are not as many parents as sequences, and when a child's parent is another than the
    /// last sequence before it that has none.
    pub fn with_parents(offsets: &'a [usize], parents: &[Option<usize>]) -> Self {
        check(offsets);
        assert_eq!(parents.len(), offsets.len() - 1, "a parent, or none, for each sequence");
        let mut families: Vec<Family> = Vec::new();
        for (i, parent) in parents.iter().enumerate() {
            match (parent, families.last_mut()) {
                (None, _) => families.push(Family { first: i, count: 1 }),
                (Some(parent), Some(family)) if family.first == *parent => family.count += 1,
                (Some(parent), _) => panic!("sequence {i} has parent {parent}, which does not stand before it"),
            }
        }
        Self { offsets, families }
    }

    /// Number of sequences.
    pub fn count(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Rows of all sequences.
    pub fn tokens(&self) -> usize {
        self.offsets[self.count()]
    }

    /// Tokens of the longest text.
    pub fn longest(&self) -> usize {
        self.families.iter().map(|family| self.longest_of(*family)).max().unwrap_or(0)
    }

    /// Whether any sequence has a parent.
    pub(super) fn share(&self) -> bool {
        self.families.iter().any(|family| family.count > 1)
    }

    pub(super) fn families(&self) -> &[Family] {
        &self.families
    }

    /// The texts of a family: its first sequence, then its children in order.
    pub(super) fn texts(&self, family: Family) -> impl Iterator<Item = Text> {
        (family.first..family.first + family.count).map(move |sequence| self.text(family, sequence))
    }

    /// The first sequence of a family.
    pub(super) fn parent(&self, family: Family) -> Text {
        self.text(family, family.first)
    }

    /// The texts of a portion, in order.
    pub(super) fn texts_of(&self, portion: &Portion) -> impl Iterator<Item = Text> + use<'_, 'a> {
        let Portion { family, texts } = portion.clone();
        self.texts(family).take(texts.end).skip(texts.start)
    }

    /// Each family in one.
    pub(super) fn wholes(&self) -> Vec<Portion> {
        self.families.iter().copied().map(Portion::whole).collect()
    }

    /// The families, large ones cut. Each portion packs its parent's rows anew, so it has at least as many of its own.
    pub(super) fn portions(&self) -> Vec<Portion> {
        let mut portions: Vec<Portion> = Vec::new();
        for family in &self.families {
            let (mut start, mut rows) = (0, 0);
            for (i, text) in self.texts(*family).enumerate() {
                rows += text.len;
                if rows >= PART_ROWS.max(text.prefix) {
                    portions.push(Portion { family: *family, texts: start..i + 1 });
                    (start, rows) = (i + 1, 0);
                }
            }
            match portions.last_mut().filter(|_| 0 < start && start < family.count) {
                Some(last) => last.texts.end = family.count,
                None if start == 0 => portions.push(Portion::whole(*family)),
                None => {}
            }
        }
        portions
    }

    pub(super) fn longest_of(&self, family: Family) -> usize {
        self.texts(family).map(|text| text.end()).max().unwrap_or(0)
    }

    fn text(&self, family: Family, sequence: usize) -> Text {
        let [first, last] = [family.first, family.first + 1].map(|i| self.offsets[i]);
        let prefix = if sequence == family.first { 0 } else { last - first };
        let start = self.offsets[sequence];
        Text { sequence, prefix_start: first, prefix, start, len: self.offsets[sequence + 1] - start }
    }
}

fn check(offsets: &[usize]) {
    assert_eq!(offsets.first(), Some(&0), "the offsets of sequences start with 0");
    let falls = offsets.windows(2).find(|pair| pair[1] < pair[0]);
    assert!(falls.is_none(), "the offsets of sequences ascend, found {falls:?}");
}

/// A text: rows of the parent, and own ones. Positions count from the text's beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    pub(super) sequence: usize,
    prefix_start: usize,
    /// Rows of the parent; 0 without one.
    pub(super) prefix: usize,
    /// First own row.
    pub(super) start: usize,
    /// Own rows.
    pub(super) len: usize,
}

impl Text {
    /// Positions of the text.
    pub(super) fn end(&self) -> usize {
        self.prefix + self.len
    }

    /// Row of the batch that holds a position.
    #[inline(always)]
    pub(super) fn row(&self, position: usize) -> usize {
        if position < self.prefix { self.prefix_start + position } else { self.start + position - self.prefix }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::tests::refusal;

    #[test]
    fn a_childs_text_is_its_parents_rows_and_its_own() {
        let sequences = Sequences::with_parents(&[0, 2, 3, 7, 9, 9], &[None, Some(0), Some(0), None, Some(3)]);
        let rows = |family: usize| -> Vec<Vec<usize>> {
            let texts = sequences.texts(sequences.families()[family]);
            texts.map(|text| (0..text.end()).map(|position| text.row(position)).collect()).collect()
        };
        assert_eq!(rows(0), [vec![0, 1], vec![0, 1, 2], vec![0, 1, 3, 4, 5, 6]]);
        assert_eq!(rows(1), [[7, 8], [7, 8]]);
        assert_eq!((sequences.count(), sequences.tokens(), sequences.longest(), sequences.share()), (5, 9, 6, true));
        assert!(!Sequences::new(&[0, 2]).share() && Sequences::new(&[0]).longest() == 0);
    }

    #[test]
    fn c3_sequences_that_overlap_or_have_another_parent_are_refused() {
        for (offsets, said) in [(&[][..], "start with 0"), (&[0, 5, 1], "ascend"), (&[1, 2], "start with 0")] {
            let found = refusal(|| _ = Sequences::new(offsets));
            assert!(found.contains(said), "{offsets:?}: {found}");
        }
        let cases: [(&[Option<usize>], &str); 5] = [
            (&[None, None], "for each sequence"),
            (&[Some(0), None, None], "sequence 0 has parent 0"),
            (&[None, Some(2), None], "sequence 1 has parent 2"),
            (&[None, Some(0), Some(1)], "sequence 2 has parent 1"),
            (&[None, None, Some(0)], "sequence 2 has parent 0"),
        ];
        for (parents, said) in cases {
            let found = refusal(|| _ = Sequences::with_parents(&[0, 1, 2, 3], parents));
            assert!(found.contains(said), "{parents:?}: {found}");
        }
    }

    /// A text in no portion would be left as it was; one in two would be written by two tasks.
    #[test]
    fn large_families_are_cut_into_portions_that_hold_each_text_once() {
        let of = |lengths: &[usize], parents: &[Option<usize>]| -> Vec<(usize, usize)> {
            let offsets: Vec<usize> = (0..=lengths.len()).map(|i| lengths[..i].iter().sum()).collect();
            let portions = Sequences::with_parents(&offsets, parents).portions();
            let places = portions
                .into_iter()
                .map(|Portion { family, texts }| (family.first + texts.start, family.first + texts.end));
            places.collect()
        };
        assert_eq!(of(&[900, 5], &[None, None]), [(0, 1), (1, 2)], "texts alone are not cut");
        assert_eq!(of(&[100, 60, 60, 9], &[None, Some(0), Some(0), Some(0)]), [(0, 4)], "a small family");
        let family = [None, Some(0), Some(0), Some(0), Some(0), Some(0), None];
        assert_eq!(
            of(&[400, 200, 200, 300, 100, 90, 7], &family),
            [(0, 1), (1, 3), (3, 6), (6, 7)],
            "as large as the parent"
        );
        assert_eq!(
            of(&[0, 0, 256, 0], &[None, Some(0), Some(0), Some(0)]),
            [(0, 4)],
            "a remainder joins the last portion"
        );
        assert_eq!(of(&[], &[]), []);
    }
}
