//! Texts that begin alike: what they share is computed once, if no token sees those after it.
//!
//! Texts are compared as ids, so it does not matter who says that they belong together, nor where a prompt ends: two
//! responses may begin alike, and two prompts may have the same instruction before them. It must not be asked of
//! encoders, whose tokens see those after them.
//!
//! The kernels know one level of sharing: a beginning, and texts that continue it. [`families`] cuts the texts into such
//! families so that the fewest tokens are computed.

use crate::nn::{Batch, BatchError, Sequence};

/// Fewer tokens are not shared: texts that are apart are computed in parallel, and their first tokens cost little.
const LEAST: usize = 16;

/// Texts with one beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Family {
    /// Places of the texts, in the order of their ids. Equal ones are neighbours.
    pub(super) members: Vec<usize>,
    /// Tokens that all of them begin with; all tokens of a text without others.
    pub(super) shared: usize,
    /// Tokens that are computed.
    pub(super) tokens: usize,
}

impl Family {
    /// A text on its own.
    pub(super) fn single(place: usize, tokens: usize) -> Self {
        Self { members: vec![place], shared: tokens, tokens }
    }

    /// Appends the family to a batch: what is shared, then what each text has of its own. Gives for each member the
    /// sequence of the batch that ends where the text does.
    ///
    /// # Errors
    /// [`BatchError::Empty`] for a text without tokens.
    pub(super) fn push(&self, texts: &[&[u32]], batch: &mut Batch) -> Result<Vec<usize>, BatchError> {
        let parent = batch.sequences();
        let ids = &texts[self.members[0]][..self.shared];
        batch.push(Sequence { ids, type_ids: &vec![0; ids.len()] }, None)?;
        let mut before = ids;
        let push = |place: &usize| {
            if texts[*place] != before {
                batch.push_child(&texts[*place][self.shared..], parent)?;
                before = texts[*place];
            }
            Ok(batch.sequences() - 1)
        };
        self.members.iter().map(push).collect()
    }
}

/// How many tokens of a text need not be computed in a batch that also holds the text `before`.
pub fn saved_tokens(before: &[u32], ids: &[u32]) -> usize {
    let same = same_beginning(before, ids);
    if same < LEAST { 0 } else { same }
}

/// Texts that are equal.
struct Distinct<'a> {
    ids: &'a [u32],
    places: Vec<usize>,
}

/// Cuts the texts into families, each text into one, so that the fewest tokens are computed. A family has at most `most`
/// of them, or twice as many as its longest text: that much memory is needed in any case.
pub(super) fn families(texts: &[&[u32]], most: usize) -> Vec<Family> {
    let (alone, mut found) = cut(distinct(texts), most);
    // Texts that stood between larger families may have each other's beginning.
    let (alone, more) = cut(alone, most);
    found.extend(more);
    found.extend(alone.into_iter().map(|text| family(vec![text], usize::MAX)));
    found
}

/// Texts in the order of their ids, equal ones in one.
fn distinct<'a>(texts: &[&'a [u32]]) -> Vec<Distinct<'a>> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|place| texts[*place]);
    let mut found: Vec<Distinct> = Vec::new();
    for place in order {
        match found.last_mut().filter(|last| last.ids == texts[place]) {
            Some(last) => last.places.push(place),
            None => found.push(Distinct { ids: texts[place], places: vec![place] }),
        }
    }
    found
}

/// The family of these texts, which begin with `shared` same tokens; a text alone shares all it has with itself.
fn family(texts: Vec<Distinct>, shared: usize) -> Family {
    let shared = if texts.len() == 1 { texts[0].ids.len() } else { shared };
    let own: usize = texts.iter().map(|text| text.ids.len() - shared).sum();
    let members = texts.into_iter().flat_map(|text| text.places).collect();
    Family { members, shared, tokens: shared + own }
}

/// The best way to compute the texts before a place.
#[derive(Clone, Copy)]
struct Best {
    tokens: usize,
    /// Where the last family begins.
    start: usize,
    /// What it shares.
    shared: usize,
}

/// Cuts a list in order where the fewest tokens are computed: the texts that stay alone, and the families of the others.
fn cut(texts: Vec<Distinct>, most: usize) -> (Vec<Distinct>, Vec<Family>) {
    let mut best = vec![Best { tokens: 0, start: 0, shared: 0 }];
    for end in 1..=texts.len() {
        best.push(last_family(&texts, end, &best, most));
    }
    let (mut alone, mut found, mut texts) = (Vec::new(), Vec::new(), texts);
    while !texts.is_empty() {
        let Best { start, shared, .. } = best[texts.len()];
        let own = texts.split_off(start);
        if own.len() == 1 {
            alone.extend(own);
        } else {
            found.push(family(own, shared));
        }
    }
    alone.reverse(); // In their order again.
    (alone, found)
}

/// The best last family of the texts before `end`, where those before any smaller place are solved.
fn last_family(texts: &[Distinct], end: usize, best: &[Best], most: usize) -> Best {
    let last = texts[end - 1].ids;
    let alone = best[end - 1].tokens.saturating_add(last.len());
    let mut found = Best { tokens: alone, start: end - 1, shared: 0 };
    let (mut shared, mut all, mut longest) = (last.len(), last.len(), last.len());
    for start in (0..end - 1).rev() {
        let ids = texts[start].ids;
        shared = same_beginning(&ids[..ids.len().min(shared)], texts[start + 1].ids);
        (all, longest) = (all + ids.len(), longest.max(ids.len()));
        let tokens = all - (end - start - 1) * shared;
        if shared < LEAST || tokens > most.max(2 * longest) {
            break;
        }
        let total = best[start].tokens.saturating_add(tokens);
        if total < found.tokens {
            found = Best { tokens: total, start, shared };
        }
    }
    found
}

/// How many first tokens are the same.
fn same_beginning(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(texts: &[Vec<u32>], most: usize) -> Vec<Family> {
        families(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>(), most)
    }

    /// A text of `shared` tokens of a kind, then `own` ones that no other text has.
    fn text(kind: u32, shared: usize, number: u32, own: usize) -> Vec<u32> {
        [vec![kind; shared], vec![1000 + number; own]].concat()
    }

    #[test]
    fn responses_of_a_prompt_are_a_family_wherever_they_stand() {
        let texts = [text(1, 40, 0, 5), text(2, 50, 1, 5), text(1, 40, 2, 7), text(3, 30, 3, 1), text(2, 50, 4, 1)];
        let families = found(&texts, 1000);
        let of = |members: &[usize], shared, tokens| Family { members: members.to_vec(), shared, tokens };
        assert_eq!(families, [of(&[1, 4], 50, 56), of(&[0, 2], 40, 52), of(&[3], 31, 31)]);
    }

    #[test]
    fn a_beginning_that_is_too_short_is_not_shared() {
        for (shared, families) in [(LEAST - 1, 2), (LEAST, 1)] {
            assert_eq!(found(&[text(1, shared, 0, 9), text(1, shared, 1, 9)], 1000).len(), families);
        }
    }

    /// A text can be the beginning of others, or equal to them: each is computed once.
    #[test]
    fn equal_texts_and_whole_beginnings_are_computed_once() {
        let texts = [text(1, 20, 0, 0), text(1, 20, 1, 3), text(1, 20, 0, 0), text(1, 20, 1, 3), vec![7], vec![7]];
        let families = found(&texts, 1000);
        assert_eq!(families.iter().map(|family| family.tokens).sum::<usize>(), 24);
        let mut batch = Batch::default();
        let ids: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let mut sequences = vec![9; 6];
        for family in &families {
            let own = family.push(&ids, &mut batch).unwrap();
            family.members.iter().zip(own).for_each(|(place, sequence)| sequences[*place] = sequence);
        }
        assert_eq!(sequences, [0, 1, 0, 1, 2, 2]);
        assert_eq!((batch.offsets(), batch.parents()), (&[0, 20, 23, 24][..], &[None, Some(0), None][..]));
    }

    /// A prompt with responses shares more with them than with other prompts of the same instruction. Prompts with one
    /// response share the instruction, though they do not stand side by side.
    #[test]
    fn instructions_and_prompts_are_shared_where_it_saves_most() {
        let prompt = |number: u32, response: u32| {
            let own = if response > 0 { vec![response; 4] } else { Vec::new() };
            [text(1, 100, number, 200), own].concat()
        };
        let texts = [prompt(0, 1), prompt(0, 2), prompt(1, 1), prompt(2, 1), prompt(2, 2), prompt(3, 1)];
        let families = found(&texts, 2000);
        let members: Vec<_> = families.iter().map(|family| (family.members.as_slice(), family.shared)).collect();
        assert_eq!(members, [(&[3, 4][..], 300), (&[0, 1], 300), (&[2, 5], 100)]);
        let (one, many) = (found(&[prompt(0, 1), prompt(1, 1), prompt(2, 1)], 1000), found(&texts, 0));
        assert_eq!((one.len(), one[0].tokens), (1, 100 + 3 * 204));
        assert!(many.iter().all(|family| family.tokens <= 2 * 304), "a family is at most twice its longest text");
    }

    #[test]
    fn a_family_is_cut_where_it_grows_too_large() {
        let texts: Vec<Vec<u32>> = (0..64).map(|number| text(1, 100, number, 50)).collect();
        let families = found(&texts, 1000);
        assert_eq!(families.iter().map(|family| family.tokens).max(), Some(1000));
        assert_eq!(families.iter().map(|family| family.members.len()).sum::<usize>(), 64);
        assert_eq!(families.len(), 4);
    }

    fn any_text() -> impl Strategy<Value = Vec<u32>> {
        let run = |length: std::ops::Range<usize>| (0u32..2, length).prop_map(|(id, length)| vec![id; length]);
        proptest::collection::vec(run(0..40), 0..4).prop_map(|runs| runs.concat())
    }

    proptest! {
        /// A text that is lost, doubled, or given another's beginning would get a wrong score.
        #[test]
        fn every_text_can_be_read_in_the_batch(texts in proptest::collection::vec(any_text(), 0..20), most in 0usize..300) {
            let families = found(&texts, most);
            let ids: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let (mut batch, mut met) = (Batch::default(), vec![0; texts.len()]);
            for family in &families {
                let before = batch.tokens();
                let sequences = match family.push(&ids, &mut batch) {
                    Ok(sequences) => sequences,
                    Err(error) => {
                        prop_assert!(error == BatchError::Empty && family.tokens == 0);
                        family.members.iter().for_each(|place| met[*place] += 1);
                        continue;
                    }
                };
                prop_assert_eq!(batch.tokens() - before, family.tokens);
                let longest = family.members.iter().map(|place| ids[*place].len()).max().unwrap();
                prop_assert!(family.tokens <= most.max(2 * longest));
                for (place, sequence) in family.members.iter().zip(sequences) {
                    met[*place] += 1;
                    let own = |sequence: usize| &batch.ids()[batch.offsets()[sequence]..batch.offsets()[sequence + 1]];
                    let parent = batch.parents()[sequence].map_or(&[][..], own);
                    prop_assert_eq!([parent, own(sequence)].concat(), texts[*place].clone());
                }
            }
            prop_assert!(met.iter().all(|times| *times == 1));
            let all: usize = texts.iter().map(Vec::len).sum();
            prop_assert!(batch.tokens() <= all);
        }
    }
}
