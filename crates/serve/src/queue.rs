//! What waits to be scored by one judge, and what is cut from it as the next batch.
//!
//! Requests take turns. A round gives each request that has texts waiting one turn, the one with the fewest tokens left
//! first; a turn is a quarter of a batch's budget, or one text. Who comes during a round waits for the next one, so no
//! stream of newcomers keeps anyone from their turn, and a huge request takes no more of a batch than a small one.
//!
//! Room is given before texts are tokenised, by an estimate, which the real number of tokens then replaces. A request
//! fills at most a quarter of the room, however large it is: so a large one can be taken at all, and leaves room for
//! others while it is worked off.
//!
//! This module knows neither threads nor clocks.

use crate::gather::Gathering;
use kudos::models::saved_tokens;
use kudos::text::Encoded;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Number of a request, which no other has.
pub(crate) type RequestId = u64;

/// A text on its way into a batch.
pub(crate) struct Waiting {
    pub(crate) encoded: Encoded,
    /// Place in its request.
    pub(crate) index: usize,
    /// Characters of the text.
    pub(crate) characters: usize,
    pub(crate) gathering: Arc<Gathering>,
}

impl Waiting {
    pub(crate) fn tokens(&self) -> usize {
        self.encoded.ids.len()
    }
}

/// Tokens and items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) tokens: usize,
    pub(crate) items: usize,
}

impl Load {
    fn add(&mut self, other: Load) {
        self.tokens += other.tokens;
        self.items += other.items;
    }

    fn remove(&mut self, other: Load) {
        self.tokens = self.tokens.saturating_sub(other.tokens);
        self.items = self.items.saturating_sub(other.items);
    }

    fn capped(self, most: Load) -> Load {
        Load { tokens: self.tokens.min(most.tokens), items: self.items.min(most.items) }
    }
}

/// Why a request gets no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// So many tokens have to be worked off first.
    Full {
        /// At least 1.
        tokens: usize,
    },
    /// The judge was replaced by another.
    Closed,
}

#[derive(Default)]
struct Entry {
    /// Items that are not tokenised yet, by their estimate.
    reserved: Load,
    waiting: VecDeque<Waiting>,
    /// Tokens of those that wait.
    tokens: usize,
    /// Tokens of its present turn that are in a batch already.
    given: usize,
    /// Whether it stands in the round or for the next.
    in_line: bool,
}

impl Entry {
    fn load(&self) -> Load {
        Load { tokens: self.reserved.tokens + self.tokens, items: self.reserved.items + self.waiting.len() }
    }
}

/// Texts of all requests to one judge.
pub(crate) struct Queue {
    room: Load,
    shares: bool,
    requests: HashMap<RequestId, Entry>,
    /// Who has their turn yet in this round, in this order.
    round: VecDeque<RequestId>,
    /// Who waits for the next.
    next: Vec<RequestId>,
    /// Sum over requests of what each counts for.
    counted: Load,
    /// Sum over requests of all that they have.
    whole: Load,
    /// Texts that are tokenised.
    waiting: usize,
    closed: bool,
}

/// A request counts for at most this part of the room.
const SHARE: usize = 4;
/// A turn is this part of a batch.
const TURNS: usize = 4;

impl Queue {
    /// An empty queue with so much room. `shares` says whether a text costs less behind one that begins alike.
    pub(crate) fn new(room: Load, shares: bool) -> Self {
        Queue {
            room,
            shares,
            requests: HashMap::new(),
            round: VecDeque::new(),
            next: Vec::new(),
            counted: Load::default(),
            whole: Load::default(),
            waiting: 0,
            closed: false,
        }
    }

    /// Gives a request room for what it is estimated to be, or none.
    pub(crate) fn admit(&mut self, id: RequestId, estimate: Load) -> Result<(), NoRoom> {
        if self.closed {
            return Err(NoRoom::Closed);
        }
        if let Some(tokens) = self.would_refuse(estimate) {
            return Err(NoRoom::Full { tokens });
        }
        self.requests.insert(id, Entry { reserved: estimate, ..Entry::default() });
        self.counted.add(estimate.capped(self.most()));
        self.whole.add(estimate);
        Ok(())
    }

    /// Whether a request that is estimated so gets no room now, and how many tokens have to leave for it. The first
    /// request is taken whatever the settings are.
    pub(crate) fn would_refuse(&self, estimate: Load) -> Option<usize> {
        let mut after = self.counted;
        after.add(estimate.capped(self.most()));
        let fits = after.tokens <= self.room.tokens && after.items <= self.room.items;
        (!fits && !self.requests.is_empty()).then(|| self.excess(after))
    }

    /// Tokens that have to leave before `after` fits. Where items are what is too many, by the tokens that they have.
    fn excess(&self, after: Load) -> usize {
        let tokens = after.tokens.saturating_sub(self.room.tokens);
        let items = after.items.saturating_sub(self.room.items);
        tokens.max(items * self.whole.tokens / self.whole.items.max(1)).max(1)
    }

    /// What one request counts for at most.
    fn most(&self) -> Load {
        Load { tokens: self.room.tokens.div_ceil(SHARE), items: self.room.items.div_ceil(SHARE) }
    }

    /// Changes a request and what it counts for; nothing if it is gone.
    fn change<T>(&mut self, id: RequestId, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let most = self.most();
        let entry = self.requests.get_mut(&id)?;
        let (before, waited) = (entry.load(), entry.waiting.len());
        let result = change(entry);
        let after = entry.load();
        self.waiting = self.waiting + entry.waiting.len() - waited;
        self.whole.remove(before);
        self.whole.add(after);
        self.counted.remove(before.capped(most));
        self.counted.add(after.capped(most));
        if after.items == 0 {
            self.requests.remove(&id);
        }
        Some(result)
    }

    /// Takes in texts that were tokenised, in the place of what was estimated for them and for those that could not be.
    pub(crate) fn add(&mut self, id: RequestId, estimated: Load, texts: Vec<Waiting>) {
        let is_new = self.change(id, |entry| {
            entry.reserved.remove(estimated);
            entry.tokens += texts.iter().map(Waiting::tokens).sum::<usize>();
            entry.waiting.extend(texts);
            let is_new = !entry.in_line && !entry.waiting.is_empty();
            entry.in_line |= is_new;
            is_new
        });
        if is_new == Some(true) {
            self.next.push(id);
        }
    }

    /// Forgets a request: all of it that is in no batch yet.
    pub(crate) fn remove(&mut self, id: RequestId) {
        self.change(id, |entry| *entry = Entry::default());
    }

    /// The next batch: of at most `budget` computed tokens, unless its only text has more.
    pub(crate) fn cut(&mut self, budget: usize) -> Vec<Waiting> {
        let mut batch = Batch { texts: Vec::new(), tokens: 0, budget, shares: self.shares };
        while let Some(id) = self.first() {
            let turn = self.change(id, |entry| entry.take(&mut batch));
            match turn {
                Some(Turn::BatchFull) => break,
                Some(Turn::Over { has_more: true }) => self.next.push(id),
                Some(Turn::Over { has_more: false }) | None => {}
            }
            self.round.pop_front();
        }
        batch.texts
    }

    /// Whose turn it is.
    fn first(&mut self) -> Option<RequestId> {
        loop {
            if self.round.is_empty() {
                let left = |id: &RequestId| self.requests.get(id).map_or(0, |entry| entry.load().tokens);
                self.next.sort_by_cached_key(left);
                self.round.extend(self.next.drain(..));
            }
            let id = *self.round.front()?;
            match self.requests.get(&id).is_some_and(|entry| !entry.waiting.is_empty()) {
                true => return Some(id),
                false => self.round.pop_front(),
            };
        }
    }

    /// Whether a batch could be cut.
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// All that is here, tokenised or not.
    pub(crate) fn load(&self) -> Load {
        self.whole
    }

    /// Takes no further requests.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether nothing is here and nothing will come.
    pub(crate) fn is_over(&self) -> bool {
        self.closed && self.requests.is_empty()
    }
}

/// How a turn ended.
enum Turn {
    /// The batch has no room for the next text: the turn goes on in the next batch.
    BatchFull,
    /// All texts that it had are in the batch, or as many as one turn may have.
    Over { has_more: bool },
}

/// A batch that is being cut.
struct Batch {
    texts: Vec<Waiting>,
    /// Tokens that it computes.
    tokens: usize,
    budget: usize,
    shares: bool,
}

impl Batch {
    /// Tokens that are computed if this text comes next.
    fn cost(&self, next: &Waiting) -> usize {
        let before = self.texts.last().filter(|_| self.shares);
        let saved = before.map_or(0, |before| saved_tokens(&before.encoded.ids, &next.encoded.ids));
        (next.tokens() - saved).max(1)
    }
}

impl Entry {
    fn take(&mut self, batch: &mut Batch) -> Turn {
        while let Some(next) = self.waiting.front() {
            let cost = batch.cost(next);
            if self.given > 0 && self.given + cost > batch.budget / TURNS {
                self.given = 0;
                return Turn::Over { has_more: true };
            }
            if !batch.texts.is_empty() && batch.tokens + cost > batch.budget {
                return Turn::BatchFull;
            }
            self.tokens -= next.tokens();
            batch.texts.extend(self.waiting.pop_front());
            batch.tokens += cost;
            self.given += cost;
        }
        (self.given, self.in_line) = (0, false);
        Turn::Over { has_more: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use std::collections::{BTreeMap, BTreeSet};

    const ROOM: Load = Load { tokens: 1000, items: 100 };

    fn text(id: RequestId, index: usize, tokens: usize) -> Waiting {
        let ids = vec![id as u32; tokens];
        let encoded = Encoded { type_ids: vec![0; tokens], ids, truncated: false, tokens_before_truncation: tokens };
        Waiting { encoded, index, characters: tokens, gathering: Arc::new(Gathering::new(Vec::new()).0) }
    }

    fn load(tokens: usize, items: usize) -> Load {
        Load { tokens, items }
    }

    /// A request whose texts are all tokenised.
    fn put(queue: &mut Queue, id: RequestId, lengths: &[usize]) {
        let estimate = load(lengths.iter().sum(), lengths.len());
        queue.admit(id, estimate).unwrap();
        queue.add(id, estimate, lengths.iter().enumerate().map(|(index, tokens)| text(id, index, *tokens)).collect());
    }

    /// The requests in a batch, each with its number of texts.
    fn owners(batch: &[Waiting]) -> BTreeMap<u32, usize> {
        let mut owners = BTreeMap::new();
        batch.iter().for_each(|waiting| *owners.entry(waiting.encoded.ids[0]).or_default() += 1);
        owners
    }

    /// Responses to one prompt stand side by side, so a batch holds as many as it has time to compute.
    #[test]
    fn what_texts_share_counts_once() {
        let with = |index: usize| {
            let ids = [vec![1; 60], vec![2 + index as u32; 10]].concat();
            let encoded = Encoded { type_ids: vec![0; 70], ids, truncated: false, tokens_before_truncation: 70 };
            Waiting { encoded, ..text(0, index, 1) }
        };
        for (shares, batches) in [(false, [1, 1, 1]), (true, [5, 5, 5])] {
            let mut queue = Queue::new(load(10_000, 100), shares);
            queue.admit(0, load(15 * 70, 15)).unwrap();
            queue.add(0, load(15 * 70, 15), (0..15).map(with).collect());
            let cut: Vec<usize> = (0..3).map(|_| queue.cut(110).len()).collect();
            assert_eq!(cut, batches, "60 + 5 × 10 tokens are computed, or 70 of one text");
        }
        let mut queue = Queue::new(load(10_000, 100), true);
        queue.admit(0, load(700, 10)).unwrap();
        queue.add(0, load(700, 10), (0..10).map(|index| text(0, index, 70)).collect());
        assert_eq!((queue.cut(110).len(), queue.load()), (10, load(0, 0)), "equal texts are computed once");
    }

    #[test]
    fn room_is_given_as_a_whole_and_comes_back_as_a_whole() {
        let mut queue = Queue::new(ROOM, false);
        (0..4).for_each(|id| queue.admit(id, load(200, 10)).unwrap());
        assert_eq!(queue.admit(9, load(201, 1)), Err(NoRoom::Full { tokens: 1 }));
        assert_eq!(queue.admit(9, load(250, 1)), Err(NoRoom::Full { tokens: 50 }));
        queue.admit(4, load(200, 10)).unwrap();
        assert_eq!(queue.load(), load(1000, 50));
        (0..5).for_each(|id| queue.remove(id));
        assert_eq!((queue.load(), queue.counted, queue.requests.len()), (load(0, 0), load(0, 0), 0));
    }

    #[test]
    fn too_many_items_are_refused_by_the_tokens_that_have_to_leave() {
        let mut queue = Queue::new(load(100_000, 100), false);
        (0..4).for_each(|id| queue.admit(id, load(250, 25)).unwrap());
        assert_eq!(queue.admit(9, load(50, 5)), Err(NoRoom::Full { tokens: 50 }));
    }

    #[test]
    fn a_request_larger_than_the_room_is_taken_and_leaves_room_for_others() {
        let mut queue = Queue::new(ROOM, false);
        queue.admit(0, load(50_000, 5_000)).unwrap();
        assert_eq!(queue.counted, load(250, 25));
        queue.admit(1, load(100, 1)).unwrap();
        queue.admit(2, load(50_000, 5_000)).unwrap();
        // When most of it is gone, it counts for what is left.
        queue.add(0, load(49_900, 4_990), Vec::new());
        assert_eq!(queue.counted, load(100 + 100 + 250, 10 + 1 + 25));
    }

    #[test]
    fn the_first_request_is_taken_whatever_the_room_is() {
        let mut queue = Queue::new(load(1, 1), false);
        queue.admit(0, load(512, 3)).unwrap();
        assert!(queue.admit(1, load(1, 1)).is_err());
    }

    #[test]
    fn estimates_give_way_to_what_was_found() {
        let mut queue = Queue::new(ROOM, false);
        queue.admit(0, load(100, 4)).unwrap();
        // Two texts are there, one could not be tokenised, one is still to come.
        queue.add(0, load(75, 3), vec![text(0, 0, 7), text(0, 1, 8)]);
        assert_eq!(queue.load(), load(25 + 15, 3));
        assert_eq!(queue.cut(100).len(), 2);
        assert_eq!((queue.load(), queue.has_waiting()), (load(25, 1), false));
        queue.add(0, load(25, 1), Vec::new());
        assert_eq!((queue.load(), queue.requests.len()), (load(0, 0), 0));
    }

    #[test]
    fn a_longer_text_than_the_budget_is_a_batch_of_its_own() {
        let mut queue = Queue::new(ROOM, false);
        put(&mut queue, 1, &[30, 300, 30]);
        let sizes = |queue: &mut Queue| queue.cut(100).iter().map(Waiting::tokens).collect::<Vec<_>>();
        assert_eq!([sizes(&mut queue), sizes(&mut queue), sizes(&mut queue)], [vec![30], vec![300], vec![30]]);
        assert!(queue.cut(100).is_empty());
    }

    #[test]
    fn a_huge_request_takes_turns_with_small_ones() {
        let mut queue = Queue::new(load(1_000_000, 100_000), false);
        put(&mut queue, 1, &[10; 1000]);
        assert_eq!(owners(&queue.cut(400)), BTreeMap::from([(1, 40)]), "alone, it has all of a batch");
        put(&mut queue, 2, &[10; 3]);
        put(&mut queue, 3, &[10; 30]);
        // Each has its turns, the shorter one first; no batch is left to the huge one.
        assert_eq!(owners(&queue.cut(400)), BTreeMap::from([(1, 20), (2, 3), (3, 17)]));
        assert_eq!(owners(&queue.cut(400)), BTreeMap::from([(1, 27), (3, 13)]));
    }

    #[test]
    fn shorter_requests_go_first_among_those_that_wait() {
        let mut queue = Queue::new(load(1_000_000, 100_000), false);
        (1..=5).for_each(|id| put(&mut queue, id, &vec![10; 6 - id as usize]));
        let batch: Vec<u32> = queue.cut(1000).iter().map(|waiting| waiting.encoded.ids[0]).collect();
        let mut order = batch.clone();
        order.dedup();
        assert_eq!(order, [5, 4, 3, 2, 1]);
    }

    /// What a random run of a queue must not do, checked against a plain list of what is in it.
    #[derive(Default)]
    struct Model {
        /// Texts that are in the queue, by request and place.
        inside: BTreeSet<(RequestId, usize)>,
        /// Texts that were cut.
        cut: BTreeSet<(RequestId, usize)>,
        /// Texts of each request that are not tokenised yet, with their place, estimate and real length.
        coming: BTreeMap<RequestId, VecDeque<(usize, usize, usize)>>,
        /// Tokens that others were given while a request waited for its next text to be cut, and how many requests
        /// waited at once meanwhile.
        waited: BTreeMap<RequestId, (usize, usize)>,
    }

    impl Model {
        fn come(&mut self, queue: &mut Queue, random: &mut Random, id: RequestId) {
            let texts: VecDeque<(usize, usize, usize)> =
                (0..1 + random.below(30)).map(|index| (index, 1 + random.below(40), 1 + random.below(60))).collect();
            let estimate = load(texts.iter().map(|text| text.1).sum(), texts.len());
            if queue.admit(id, estimate).is_ok() {
                self.coming.insert(id, texts);
            }
        }

        fn tokenise(&mut self, queue: &mut Queue, random: &mut Random) {
            let Some(id) = random.one_of(self.coming.keys().copied()) else { return };
            let texts = self.coming.get_mut(&id).unwrap();
            let taken: Vec<_> = (0..1 + random.below(8)).map_while(|_| texts.pop_front()).collect();
            let estimate = load(taken.iter().map(|text| text.1).sum(), taken.len());
            if texts.is_empty() {
                self.coming.remove(&id);
            }
            // Some texts cannot be tokenised.
            let good: Vec<_> = taken.iter().filter(|(index, ..)| index % 7 != 6).collect();
            self.inside.extend(good.iter().map(|(index, ..)| (id, *index)));
            if !good.is_empty() {
                self.waited.entry(id).or_default();
            }
            queue.add(id, estimate, good.iter().map(|(index, _, tokens)| text(id, *index, *tokens)).collect());
        }

        fn leave(&mut self, queue: &mut Queue, random: &mut Random) {
            let ids: BTreeSet<RequestId> =
                self.inside.iter().map(|(id, _)| *id).chain(self.coming.keys().copied()).collect();
            let Some(id) = random.one_of(ids.into_iter()) else { return };
            queue.remove(id);
            self.coming.remove(&id);
            self.waited.remove(&id);
            self.inside.retain(|(other, _)| *other != id);
        }

        fn cut(&mut self, queue: &mut Queue, budget: usize) {
            let batch = queue.cut(budget);
            let tokens: usize = batch.iter().map(Waiting::tokens).sum();
            assert!(tokens <= budget || batch.len() == 1, "{tokens} tokens in a batch of {budget}");
            assert_eq!(batch.is_empty(), self.inside.is_empty(), "a batch is cut whenever something waits");
            let requests = self.waited.len();
            self.waited.values_mut().for_each(|(_, most)| *most = requests.max(*most));
            for waiting in &batch {
                let own = RequestId::from(waiting.encoded.ids[0]);
                assert!(self.inside.remove(&(own, waiting.index)), "a text that nobody put there, or that has left");
                assert!(self.cut.insert((own, waiting.index)), "a text is cut twice");
                self.waited.insert(own, (0, requests));
                for (other, (tokens, most)) in self.waited.iter_mut().filter(|(other, _)| **other != own) {
                    *tokens += waiting.tokens();
                    // Two turns of each other request, and a turn is a quarter of the budget or one text.
                    let bound = 2 * *most * (budget / TURNS).max(60);
                    assert!(*tokens <= bound, "request {other} waited for {tokens} tokens");
                }
            }
            let inside = &self.inside;
            self.waited.retain(|id, _| inside.range((*id, 0)..=(*id, usize::MAX)).next().is_some());
        }
    }

    #[test]
    fn nothing_is_lost_or_doubled_and_nobody_waits_for_long() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let (mut queue, mut model) = (Queue::new(load(20_000, 2_000), false), Model::default());
            let budget = 50 + random.below(300);
            for id in 0..400 {
                match random.below(10) {
                    0..4 => model.come(&mut queue, &mut random, id),
                    4..7 => model.tokenise(&mut queue, &mut random),
                    7 => model.leave(&mut queue, &mut random),
                    _ => model.cut(&mut queue, budget),
                }
            }
            while !model.coming.is_empty() {
                model.tokenise(&mut queue, &mut random);
            }
            while queue.has_waiting() {
                model.cut(&mut queue, budget);
            }
            assert!(model.inside.is_empty(), "{:?} never left", model.inside);
            assert_eq!((queue.load(), queue.counted, queue.waiting), (load(0, 0), load(0, 0), 0));
            assert!(queue.requests.is_empty());
            queue.close();
            assert!(queue.is_over() && queue.admit(9999, load(1, 1)) == Err(NoRoom::Closed));
        }
    }

    #[test]
    fn a_stream_of_small_requests_does_not_keep_a_large_one_from_its_turns() {
        let mut queue = Queue::new(load(1_000_000, 100_000), false);
        put(&mut queue, 1, &[50; 100]);
        let (mut next, mut batches) = (2, 0);
        while queue.requests.contains_key(&1) {
            // Newcomers that fill three quarters of each batch.
            (0..6).for_each(|_| {
                put(&mut queue, next, &[50]);
                next += 1;
            });
            queue.cut(400);
            batches += 1;
            assert!(batches <= 60, "{:?}", queue.requests.get(&1).map(Entry::load));
        }
        assert!(batches >= 45, "it does not take the batches for itself either: {batches}");
    }
}
