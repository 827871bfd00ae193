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
    pub(crate) fn new(room: Load) -> Self {
        Queue {
            room,
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

    /// The next batch: of at most `budget` tokens, unless its only text has more.
    pub(crate) fn cut(&mut self, budget: usize) -> Vec<Waiting> {
        let (mut batch, mut tokens) = (Vec::new(), 0);
        while let Some(id) = self.first() {
            let turn = self.change(id, |entry| entry.take(budget, &mut tokens, &mut batch));
            match turn {
                Some(Turn::BatchFull) => break,
                Some(Turn::Over { has_more: true }) => self.next.push(id),
                Some(Turn::Over { has_more: false }) | None => {}
            }
            self.round.pop_front();
        }
        batch
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

impl Entry {
    fn take(&mut self, budget: usize, tokens: &mut usize, batch: &mut Vec<Waiting>) -> Turn {
        while let Some(next) = self.waiting.front() {
            let len = next.tokens();
            if self.given > 0 && self.given + len > budget / TURNS {
                self.given = 0;
                return Turn::Over { has_more: true };
            }
            if !batch.is_empty() && *tokens + len > budget {
                return Turn::BatchFull;
            }
            batch.extend(self.waiting.pop_front());
            *tokens += len;
            self.tokens -= len;
            self.given += len;
        }
        (self.given, self.in_line) = (0, false);
        Turn::Over { has_more: false }
    }
}
