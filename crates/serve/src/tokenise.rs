//! Texts → ids, on arrival, on threads of their own: the I/O threads never tokenise.
//!
//! Requests take turns here too, a few texts each. A text that takes longer than the limit is answered as an error of
//! that item, and its thread is left to itself and replaced by a new one; such threads are bounded, and beyond the
//! bound further texts wait for one to come back. A panic in a tokenizer costs one text.

use crate::ask::{Cut, FaultKind, Item, ItemFault};
use crate::batcher::Lane;
use crate::gather::Gathering;
use crate::metrics::Metrics;
use crate::queue::{Load, RequestId, Waiting};
use kudos::text::Encoded;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Texts of one request that are to be tokenised.
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) texts: VecDeque<Text>,
}

/// Whose texts they are, and where their ids go.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) id: RequestId,
    pub(crate) lane: Arc<Lane>,
    pub(crate) gathering: Arc<Gathering>,
    /// Set when the client has gone.
    pub(crate) is_dropped: Arc<AtomicBool>,
}

/// One text.
pub(crate) struct Text {
    pub(crate) item: Item,
    pub(crate) index: usize,
    pub(crate) characters: usize,
    /// Tokens that room was given for.
    pub(crate) estimate: usize,
}

/// Characters that a thread takes of one request before it is another's turn.
const TURN: usize = 16 * 1024;
/// Threads that may be stuck in a text, besides those that work.
const MOST_STUCK: usize = 8;

/// The threads.
pub(crate) struct Pool {
    state: Mutex<State>,
    work: Condvar,
    metrics: Arc<Metrics>,
    limit: Duration,
}

struct State {
    jobs: VecDeque<Job>,
    /// Those that work.
    threads: Vec<Arc<Slot>>,
    /// Threads that were given up, and have not come back.
    stuck: usize,
    is_closed: bool,
}

/// What one thread is doing. Who takes it out of the slot finishes it: the thread itself, or who gave the thread up.
#[derive(Default)]
struct Slot(Mutex<Option<Doing>>);

struct Doing {
    request: Request,
    rest: VecDeque<Text>,
    done: Vec<Waiting>,
    /// Estimates of those that are done, and of those that failed.
    settled: Load,
    current: Option<Current>,
}

/// The text that is being tokenised.
#[derive(Clone, Copy)]
struct Current {
    index: usize,
    characters: usize,
    estimate: usize,
    since: Instant,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Doing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Starts the threads, which end when the pool is closed.
    pub(crate) fn start(threads: usize, limit: Duration, metrics: Arc<Metrics>) -> Arc<Pool> {
        let state = State { jobs: VecDeque::new(), threads: Vec::new(), stuck: 0, is_closed: false };
        let pool = Arc::new(Pool { state: Mutex::new(state), work: Condvar::new(), metrics, limit });
        for _ in 0..threads.max(1) {
            pool.add_thread(&mut pool.lock()).expect("a thread can be started");
        }
        let weak = Arc::downgrade(&pool);
        let tick = (limit / 4).clamp(Duration::from_millis(5), Duration::from_millis(250));
        spawn("tokenising watch", move || watch(&weak, tick)).expect("a thread can be started");
        pool
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_thread(self: &Arc<Self>, state: &mut State) -> std::io::Result<()> {
        let slot = Arc::new(Slot::default());
        state.threads.push(slot.clone());
        let pool = self.clone();
        spawn("tokeniser", move || work(&pool, &slot))
    }

    /// Takes texts in.
    pub(crate) fn submit(&self, job: Job) {
        self.lock().jobs.push_back(job);
        self.work.notify_one();
    }

    /// Ends the threads as soon as nothing is left to do.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.work.notify_all();
    }

    /// Puts the next texts into the slot; false when there will be none.
    fn take(&self, slot: &Slot) -> bool {
        let mut state = self.lock();
        loop {
            if let Some(mut job) = state.jobs.pop_front() {
                if job.request.is_dropped.load(Ordering::Relaxed) {
                    continue;
                }
                let rest = turn_of(&mut job);
                let request = job.request.clone();
                if !job.texts.is_empty() {
                    state.jobs.push_back(job);
                    self.work.notify_one();
                }
                let settled = Load::default();
                *slot.lock() = Some(Doing { request, rest, done: Vec::new(), settled, current: None });
                return true;
            }
            if state.is_closed {
                return false;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives up threads that are in one text for too long.
    fn relieve(self: &Arc<Self>) {
        let mut state = self.lock();
        let mut given_up = Vec::new();
        let is_late = |slot: &Slot| {
            let mut doing = slot.lock();
            let since = doing.as_ref().and_then(|doing| doing.current).map(|current| current.since);
            since.filter(|since| since.elapsed() > self.limit).and_then(|_| doing.take())
        };
        let mut place = 0;
        while place < state.threads.len() {
            let Some(doing) = is_late(&state.threads[place]) else {
                place += 1;
                continue;
            };
            given_up.push(doing);
            state.threads.swap_remove(place);
            state.stuck += 1;
        }
        for doing in given_up {
            self.metrics.stuck_tokenisers.add(1);
            if state.stuck <= MOST_STUCK {
                // Without it, texts wait longer.
                let _ = self.add_thread(&mut state);
            }
            if let Some(rest) = give_up(doing, self.limit) {
                state.jobs.push_front(rest);
                self.work.notify_one();
            }
        }
    }

    /// A thread that was given up is out of its text: it works on if it was not replaced.
    fn came_back(&self, slot: &Arc<Slot>) -> bool {
        let mut state = self.lock();
        let was_replaced = state.stuck <= MOST_STUCK;
        state.stuck -= 1;
        if !was_replaced {
            state.threads.push(slot.clone());
        }
        !was_replaced
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(work).map(drop)
}

fn watch(pool: &Weak<Pool>, tick: Duration) {
    loop {
        std::thread::sleep(tick);
        let Some(pool) = pool.upgrade() else { return };
        pool.relieve();
    }
}

fn work(pool: &Arc<Pool>, slot: &Arc<Slot>) {
    while pool.take(slot) {
        let was_given_up = !tokenise_all(slot, &pool.metrics);
        if was_given_up && !pool.came_back(slot) {
            return;
        }
    }
}

/// As many texts as one turn has.
fn turn_of(job: &mut Job) -> VecDeque<Text> {
    let mut characters = 0;
    let is_over = |text: &Text| {
        characters += text.characters.max(16);
        characters > TURN
    };
    let taken = job.texts.iter().position(is_over).unwrap_or(job.texts.len()).max(1);
    let rest = job.texts.split_off(taken.min(job.texts.len()));
    std::mem::replace(&mut job.texts, rest)
}

/// Works off what is in the slot; false if the thread was given up meanwhile.
fn tokenise_all(slot: &Slot, metrics: &Metrics) -> bool {
    loop {
        let Some((item, request)) = next_text(slot) else {
            // The lock is not held here: the lane's may be waited for.
            let doing = slot.lock().take();
            return doing.map(hand_over).is_some();
        };
        let result = tokenise(&item, &request.lane);
        let mut doing = slot.lock();
        match doing.as_mut() {
            None => return false,
            Some(doing) => doing.settle(result, metrics),
        }
    }
}

/// The next text of the slot, which is then its current one. Of a client that has gone, there is none.
fn next_text(slot: &Slot) -> Option<(Item, Request)> {
    let mut doing = slot.lock();
    let doing = doing.as_mut()?;
    if doing.request.is_dropped.load(Ordering::Relaxed) {
        return None;
    }
    let Text { item, index, characters, estimate } = doing.rest.pop_front()?;
    doing.current = Some(Current { index, characters, estimate, since: Instant::now() });
    Some((item, doing.request.clone()))
}

fn tokenise(item: &Item, lane: &Lane) -> Result<Encoded, ItemFault> {
    let encoded = catch_unwind(AssertUnwindSafe(|| lane.tokeniser.encode(item)));
    let sentence = "the tokenizer failed on this text; the other texts of the request are not concerned";
    let encoded = encoded.unwrap_or_else(|_| Err(ItemFault::new(FaultKind::Panicked, sentence)))?;
    if encoded.ids.is_empty() {
        return Err(ItemFault::new(FaultKind::Tokenise, "the text has no tokens, expected at least one"));
    }
    if item.cut == Cut::Refuse && encoded.truncated {
        let (found, limit) = (encoded.tokens_before_truncation, lane.facts.max_length);
        let sentence = format!("the text has {found} tokens, the judge reads at most {limit}; allow it to be cut");
        return Err(ItemFault::new(FaultKind::TooLong, sentence));
    }
    Ok(encoded)
}

impl Doing {
    fn settle(&mut self, result: Result<Encoded, ItemFault>, metrics: &Metrics) {
        let Some(Current { index, characters, estimate, .. }) = self.current.take() else { return };
        self.settled.tokens += estimate;
        self.settled.items += 1;
        match result {
            Ok(encoded) => {
                metrics.input(encoded.ids.len());
                self.request.lane.pace.tokenised(characters, encoded.tokens_before_truncation);
                let gathering = self.request.gathering.clone();
                self.done.push(Waiting { encoded, index, characters, gathering });
            }
            Err(fault) => {
                self.request.lane.metrics.fault(fault.kind);
                self.request.gathering.fault(index, fault);
            }
        }
    }
}

/// Sends the ids to the judge.
fn hand_over(doing: Doing) {
    let Doing { request, done, settled, .. } = doing;
    request.gathering.tokenised(settled.items);
    request.lane.add(request.id, settled, done);
}

/// Answers the text that took too long; what was behind it is returned.
fn give_up(mut doing: Doing, limit: Duration) -> Option<Job> {
    let sentence = format!("the text could not be tokenised within {} ms", limit.as_millis());
    let fault = ItemFault::new(FaultKind::TimedOut, sentence);
    if let Some(Current { index, estimate, .. }) = doing.current.take() {
        doing.settled.tokens += estimate;
        doing.settled.items += 1;
        doing.request.lane.metrics.fault(fault.kind);
        doing.request.gathering.fault(index, fault);
    }
    let (request, texts) = (doing.request.clone(), std::mem::take(&mut doing.rest));
    hand_over(doing);
    (!texts.is_empty()).then_some(Job { request, texts })
}
