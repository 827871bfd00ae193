//! Sequences laid end to end: the one batch form of Kudos.
//!
//! Ops index tables and states by what stands here, so a batch cannot be put together inconsistently: its fields are
//! private, and [`Batch::push`], [`Batch::push_child`] and [`Batch::push_cached`] are the only ways in. Offsets begin
//! with 0, ascend and end at the number of tokens; every token has an id, a segment and a position; no sequence is empty.
//! A child stands behind its parent, with other children of the same parent between them at most.

use kernels::attention::cached::Piece;

/// The token ids of one encoded text.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// Token ids.
    pub ids: &'a [u32],
    /// Segment of each token; all zero for families without segments.
    pub type_ids: &'a [u32],
}

/// Why a sequence cannot join a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// It has no tokens: there is no first or last state to read.
    #[error("a text without tokens cannot be computed: expected at least one token")]
    Empty,
    /// Ids and segments differ in number.
    #[error("a text of {ids} token ids has {type_ids} segments: expected one for each token")]
    Segments {
        /// Token ids.
        ids: usize,
        /// Segments.
        type_ids: usize,
    },
    /// A batch holds texts that a cache knows, or whole texts, not both.
    #[error("tokens of a cache and whole texts cannot stand in one batch: clear it in between")]
    Mixed,
    /// A child whose parent does not stand before it.
    #[error("sequence {parent} cannot be continued: expected the last one that continues no other")]
    Parent {
        /// The parent that was named.
        parent: usize,
    },
    /// Two pieces of one slot.
    #[error("slot {slot} of the cache stands in the batch already: expected one piece a slot")]
    SlotTwice {
        /// The slot.
        slot: usize,
    },
    /// A position that no table has.
    #[error("position {position} of slot {slot} exceeds 2^32")]
    Position {
        /// The slot.
        slot: usize,
        /// First position of the piece.
        position: usize,
    },
}

/// Sequences laid end to end.
#[derive(Clone, Debug)]
pub struct Batch {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    positions: Vec<u32>,
    /// Sequence `i` is the tokens `offsets[i]..offsets[i + 1]`; `[sequences + 1]`.
    offsets: Vec<usize>,
    /// The sequence that each one continues; `[sequences]`.
    parents: Vec<Option<usize>>,
    /// Slot of the cache that each sequence goes to; empty without a cache.
    slots: Vec<usize>,
}

impl Default for Batch {
    fn default() -> Self {
        let (ids, type_ids, positions, parents, slots) = Default::default();
        Self { ids, type_ids, positions, offsets: vec![0], parents, slots }
    }
}

impl Batch {
    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.type_ids.clear();
        self.positions.clear();
        self.offsets.truncate(1);
        self.parents.clear();
        self.slots.clear();
    }

    /// Appends one sequence. With `padding`, positions count as in RoBERTa: from `padding + 1`, and a
    /// token that is the padding token itself stays at `padding`.
    ///
    /// # Errors
    /// [`BatchError`]; the batch is then as it was.
    pub fn push(&mut self, sequence: Sequence, padding: Option<u32>) -> Result<(), BatchError> {
        let Sequence { ids, type_ids } = sequence;
        if ids.is_empty() {
            return Err(BatchError::Empty);
        }
        if ids.len() != type_ids.len() {
            return Err(BatchError::Segments { ids: ids.len(), type_ids: type_ids.len() });
        }
        if !self.slots.is_empty() {
            return Err(BatchError::Mixed);
        }
        self.ids.extend_from_slice(ids);
        self.type_ids.extend_from_slice(type_ids);
        match padding {
            None => self.positions.extend(0..ids.len() as u32),
            Some(padding) => {
                let counted = ids.iter().scan(padding, |position, id| {
                    *position += u32::from(*id != padding);
                    Some(if *id == padding { padding } else { *position })
                });
                self.positions.extend(counted);
            }
        }
        self.close(None);
        Ok(())
    }

    /// Appends the own tokens of a text that begins with all tokens of sequence `parent`: they see those, and positions
    /// go on. Only for models in which no token sees those after it, and which have no segments.
    ///
    /// # Errors
    /// As [`Self::push`], and [`BatchError::Parent`] unless `parent` is the last sequence without a parent.
    pub fn push_child(&mut self, ids: &[u32], parent: usize) -> Result<(), BatchError> {
        if ids.is_empty() {
            return Err(BatchError::Empty);
        }
        if !self.slots.is_empty() {
            return Err(BatchError::Mixed);
        }
        if self.parents.iter().rposition(Option::is_none) != Some(parent) {
            return Err(BatchError::Parent { parent });
        }
        let start = self.offsets[parent + 1] - self.offsets[parent];
        self.ids.extend_from_slice(ids);
        self.type_ids.resize(self.ids.len(), 0);
        self.positions.extend((start..start + ids.len()).map(|position| position as u32));
        self.close(Some(parent));
        Ok(())
    }

    /// Ends a sequence behind the last token.
    fn close(&mut self, parent: Option<usize>) {
        self.offsets.push(self.ids.len());
        self.parents.push(parent);
    }

    /// Appends new tokens of a slot, the first at `position`: they see the slot's tokens before them.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_cached(&mut self, ids: &[u32], slot: usize, position: usize) -> Result<(), BatchError> {
        if ids.is_empty() {
            return Err(BatchError::Empty);
        }
        if self.slots.len() != self.sequences() {
            return Err(BatchError::Mixed);
        }
        if self.slots.contains(&slot) {
            return Err(BatchError::SlotTwice { slot });
        }
        let end = position.checked_add(ids.len()).and_then(|end| u32::try_from(end).ok());
        let end = end.ok_or(BatchError::Position { slot, position })?;
        self.ids.extend_from_slice(ids);
        self.type_ids.resize(self.ids.len(), 0);
        self.positions.extend(position as u32..end);
        self.close(None);
        self.slots.push(slot);
        Ok(())
    }

    /// The sequences as attention over a cache wants them.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        assert_eq!(self.slots.len(), self.sequences(), "every sequence has a slot");
        let pieces = self.offsets.windows(2).zip(&self.slots);
        let piece = |(bounds, slot): (&[usize], &usize)| {
            let (row, rows) = (bounds[0], bounds[1] - bounds[0]);
            Piece { slot: *slot, position: self.positions[row] as usize, row, rows }
        };
        pieces.map(piece).collect()
    }

    /// Token ids, `[tokens]`.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Segments, `[tokens]`.
    pub fn type_ids(&self) -> &[u32] {
        &self.type_ids
    }

    /// Row of the position table, `[tokens]`.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Sequence `i` is the tokens `offsets[i]..offsets[i + 1]`; `[sequences + 1]`.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The sequence whose tokens come before those of each one, `[sequences]`.
    pub fn parents(&self) -> &[Option<usize>] {
        &self.parents
    }

    /// Whether any sequence has a parent.
    pub fn shares(&self) -> bool {
        self.parents.iter().any(Option::is_some)
    }

    /// Slots of the cache, `[sequences]`; none where whole texts stand.
    pub fn slots(&self) -> &[usize] {
        &self.slots
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.offsets.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn positions_follow_each_familys_rule() {
        let ids = [0, 5, 1, 7];
        let mut batch = Batch::default();
        batch.push(Sequence { ids: &ids, type_ids: &[0; 4] }, None).unwrap();
        batch.push(Sequence { ids: &ids, type_ids: &[0; 4] }, Some(1)).unwrap();
        assert_eq!(batch.positions, [0, 1, 2, 3, 2, 3, 1, 4]);
        assert_eq!((batch.offsets(), batch.tokens(), batch.sequences()), ([0, 4, 8].as_slice(), 8, 2));
    }

    #[test]
    fn a_child_goes_on_where_its_parent_ends() {
        let mut batch = Batch::default();
        batch.push(Sequence { ids: &[9], type_ids: &[0] }, None).unwrap();
        batch.push(Sequence { ids: &[3, 4], type_ids: &[0; 2] }, None).unwrap();
        batch.push_child(&[5, 6], 1).unwrap();
        batch.push_child(&[7], 1).unwrap();
        assert_eq!(batch.positions, [0, 0, 1, 2, 3, 2]);
        assert_eq!(
            (batch.offsets(), batch.parents()),
            ([0, 1, 3, 5, 6].as_slice(), &[None, None, Some(1), Some(1)][..])
        );
        let whole = format!("{batch:?}");
        for parent in [0, 2, 3, 4, usize::MAX] {
            assert_eq!(batch.push_child(&[7], parent), Err(BatchError::Parent { parent }));
        }
        assert_eq!(batch.push_child(&[], 1), Err(BatchError::Empty));
        assert_eq!(format!("{batch:?}"), whole, "a refused child leaves nothing behind");
        batch.clear();
        assert_eq!(batch.push_child(&[7], 0), Err(BatchError::Parent { parent: 0 }));
        batch.push_cached(&[1], 0, 0).unwrap();
        assert_eq!(batch.push_child(&[7], 0), Err(BatchError::Mixed));
    }

    /// The kernels index by offsets, ids and slots: a batch that contradicts itself must not exist.
    #[test]
    fn c3_a_batch_cannot_be_put_together_inconsistently() {
        let mut batch = Batch::default();
        batch.push(Sequence { ids: &[3, 4], type_ids: &[0, 1] }, None).unwrap();
        let whole = batch.clone();
        let wrong = [
            (batch.push(Sequence { ids: &[], type_ids: &[] }, None), BatchError::Empty),
            (batch.push(Sequence { ids: &[1, 2], type_ids: &[0] }, None), BatchError::Segments { ids: 2, type_ids: 1 }),
            (batch.push_cached(&[1], 0, 0), BatchError::Mixed),
            (batch.push_cached(&[], 0, 0), BatchError::Empty),
        ];
        for (result, expected) in wrong {
            assert_eq!(result, Err(expected));
        }
        assert_eq!(format!("{batch:?}"), format!("{whole:?}"), "a refused sequence leaves nothing behind");
        batch.clear();
        batch.push_cached(&[1, 2], 5, 7).unwrap();
        assert_eq!(batch.push_cached(&[3], 5, 9), Err(BatchError::SlotTwice { slot: 5 }));
        assert_eq!(batch.push(Sequence { ids: &[1], type_ids: &[0] }, None), Err(BatchError::Mixed));
        let far = u32::MAX as usize;
        assert_eq!(batch.push_cached(&[3, 4], 6, far), Err(BatchError::Position { slot: 6, position: far }));
        assert_eq!(batch.push_cached(&[3], 6, usize::MAX), Err(BatchError::Position { slot: 6, position: usize::MAX }));
    }

    /// What is pushed: ids, segments, slot or parent, position, padding, and which way.
    type Pushed = (Vec<u32>, Vec<u32>, usize, usize, Option<u32>, u8);

    fn any_push() -> impl Strategy<Value = Pushed> {
        let ids = || proptest::collection::vec(0u32..6, 0..5);
        (ids(), ids(), 0usize..4, 0usize..9, proptest::option::of(0u32..3), 0u8..3)
    }

    proptest! {
        #[test]
        fn whatever_is_pushed_the_batch_is_consistent(pushes in proptest::collection::vec(any_push(), 0..12)) {
            let mut batch = Batch::default();
            for (ids, type_ids, slot, position, padding, way) in pushes {
                let _ = match way {
                    0 => batch.push_cached(&ids, slot, position),
                    1 => batch.push_child(&ids, slot),
                    _ => batch.push(Sequence { ids: &ids, type_ids: &type_ids }, padding),
                };
                let tokens = batch.tokens();
                prop_assert_eq!([batch.type_ids().len(), batch.positions().len()], [tokens; 2]);
                prop_assert_eq!((batch.offsets()[0], *batch.offsets().last().unwrap()), (0, tokens));
                prop_assert!(batch.offsets().windows(2).all(|w| w[0] < w[1]));
                prop_assert!(batch.slots().is_empty() || batch.slots().len() == batch.sequences());
                prop_assert_eq!(batch.parents().len(), batch.sequences());
                // What the kernels demand of parents.
                kernels::attention::packed::Sequences::with_parents(batch.offsets(), batch.parents());
            }
        }
    }
}
