//! From texts that wait to results: a thread for each judge cuts a batch whenever it is free, and runs it.
//!
//! There is no waiting window: a lone text is a batch at once, and under load a batch holds what came while the last
//! one was computed. Judges take turns on the processor, one batch at a time, because a batch uses all of it.
//!
//! A panic costs one text alone. The batch is halved and run again until the text that causes it is found.

use crate::admission::Pace;
use crate::ask::{FaultKind, ItemFault, ItemScore, JudgeFacts, Refusal, Scorer, Tokeniser};
use crate::gather::Computed;
use crate::metrics::JudgeMetrics;
use crate::queue::{Load, NoRoom, Queue, RequestId, Waiting};
use kudos::models::Rated;
use kudos::text::Encoded;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One loaded judge with its queue.
pub(crate) struct Lane {
    pub(crate) facts: Arc<JudgeFacts>,
    pub(crate) tokeniser: Arc<dyn Tokeniser>,
    pub(crate) metrics: Arc<JudgeMetrics>,
    pub(crate) pace: Pace,
    queue: Mutex<Queue>,
    /// There is something to do for the worker.
    work: Condvar,
    budget: usize,
}

/// How a judge's queue is limited.
#[derive(Clone, Copy)]
pub(crate) struct LaneLimits {
    pub(crate) room: Load,
    pub(crate) budget: usize,
}

impl Lane {
    /// Starts the judge's worker, which ends when the lane is closed and empty.
    pub(crate) fn start(
        facts: JudgeFacts,
        tokeniser: Arc<dyn Tokeniser>,
        scorer: Box<dyn Scorer>,
        limits: LaneLimits,
        shared: (Arc<JudgeMetrics>, Arc<Turns>),
    ) -> Arc<Lane> {
        let (metrics, turns) = shared;
        let lane = Arc::new(Lane {
            tokeniser,
            metrics,
            pace: Pace::new(facts.max_length),
            facts: Arc::new(facts),
            queue: Mutex::new(Queue::new(limits.room, scorer.shares())),
            work: Condvar::new(),
            budget: limits.budget,
        });
        let worker = Worker { lane: lane.clone(), scorer, turns };
        let named = std::thread::Builder::new().name(format!("judge {}", lane.facts.name));
        named.spawn(move || worker.run()).expect("a thread can be started");
        lane
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a request; `None` when the lane was closed and another is to be asked.
    pub(crate) fn admit(&self, id: RequestId, estimate: Load) -> Option<Result<(), Refusal>> {
        match self.lock().admit(id, estimate) {
            Ok(()) => Some(Ok(())),
            Err(NoRoom::Closed) => None,
            Err(NoRoom::Full { tokens }) => Some(Err(Refusal::Overloaded { retry_after: self.pace.time_for(tokens) })),
        }
    }

    /// Whether even the smallest request that a body of so many bytes can hold would get no room.
    pub(crate) fn no_room_for(&self, bytes: usize) -> Option<Refusal> {
        let smallest = Load { tokens: self.pace.estimate(bytes / 8), items: 1 };
        let tokens = self.lock().would_refuse(smallest)?;
        Some(Refusal::Overloaded { retry_after: self.pace.time_for(tokens) })
    }

    /// Takes in what was tokenised.
    pub(crate) fn add(&self, id: RequestId, estimated: Load, texts: Vec<Waiting>) {
        let mut queue = self.lock();
        queue.add(id, estimated, texts);
        let has_work = queue.has_waiting() || queue.is_over();
        drop(queue);
        if has_work {
            self.work.notify_one();
        }
    }

    /// Forgets a request whose client has gone.
    pub(crate) fn remove(&self, id: RequestId) {
        let mut queue = self.lock();
        queue.remove(id);
        let is_over = queue.is_over();
        drop(queue);
        if is_over {
            self.work.notify_one();
        }
    }

    /// Takes no further requests; those that are here are finished.
    pub(crate) fn close(&self) {
        self.lock().close();
        self.work.notify_one();
    }

    /// What waits.
    pub(crate) fn load(&self) -> Load {
        self.lock().load()
    }

    /// Waits until there is something to score; false when there will be nothing any more.
    fn wait(&self) -> bool {
        let mut queue = self.lock();
        while !queue.has_waiting() {
            if queue.is_over() {
                return false;
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }
}

struct Worker {
    lane: Arc<Lane>,
    scorer: Box<dyn Scorer>,
    turns: Arc<Turns>,
}

/// Numbers of batches, over all judges.
static BATCHES: AtomicU64 = AtomicU64::new(1);

impl Worker {
    fn run(mut self) {
        while self.lane.wait() {
            let waited = Instant::now();
            let turns = self.turns.clone();
            let turn = turns.take();
            let batch = self.lane.lock().cut(self.lane.budget);
            if batch.is_empty() {
                continue; // The clients have gone.
            }
            let started = Instant::now();
            let texts: Vec<&Encoded> = batch.iter().map(|waiting| &waiting.encoded).collect();
            let results = score_all(self.scorer.as_mut(), &texts);
            drop(turn);
            let tokens = texts.iter().map(|text| text.ids.len()).sum();
            // With the time until it was this judge's turn: a client waits for that, too.
            self.lane.pace.computed(tokens, waited.elapsed());
            self.deliver(batch, results, started.elapsed());
        }
    }

    fn deliver(&self, batch: Vec<Waiting>, results: Vec<Result<Rated, ItemFault>>, time: Duration) {
        let computed = Computed { number: BATCHES.fetch_add(1, Ordering::Relaxed), time };
        let tokens = batch.iter().map(Waiting::tokens).sum();
        self.lane.metrics.batch(batch.len(), tokens);
        for (waiting, result) in batch.into_iter().zip(results) {
            let Waiting { index, characters, gathering, .. } = waiting;
            self.lane.metrics.result(&result);
            gathering.scored(index, result.map(|rated| ItemScore { rated, characters }), computed);
        }
    }
}

/// One result for each text, whatever the scorer does.
pub(crate) fn score_all(scorer: &mut dyn Scorer, texts: &[&Encoded]) -> Vec<Result<Rated, ItemFault>> {
    if let Some(results) = attempt(scorer, texts) {
        return results.into_iter().map(finite).collect();
    }
    if let [_] = texts {
        let sentence = "the scorer failed on this text; the other texts of the request are not concerned";
        return vec![Err(ItemFault::new(FaultKind::Panicked, sentence))];
    }
    let (first, second) = texts.split_at(texts.len() / 2);
    let mut results = score_all(scorer, first);
    results.extend(score_all(scorer, second));
    results
}

/// The results, if there are as many as texts.
fn attempt(scorer: &mut dyn Scorer, texts: &[&Encoded]) -> Option<Vec<Result<Rated, ItemFault>>> {
    let results = catch_unwind(AssertUnwindSafe(|| scorer.run(texts))).ok();
    let results = results.filter(|results| results.len() == texts.len());
    if results.is_none() {
        let _ = catch_unwind(AssertUnwindSafe(|| scorer.renew()));
    }
    results
}

fn finite(result: Result<Rated, ItemFault>) -> Result<Rated, ItemFault> {
    let rated = result?;
    match rated.scored.score.is_finite() && rated.attributes.iter().all(|output| output.is_finite()) {
        true => Ok(rated),
        false => Err(ItemFault::new(FaultKind::NotFinite, "the judge gave no finite number for this text")),
    }
}

/// Whose batch is computed: one judge's at a time, in the order in which they asked.
#[derive(Default)]
pub(crate) struct Turns {
    state: Mutex<Tickets>,
    next: Condvar,
}

#[derive(Default)]
struct Tickets {
    given: u64,
    called: u64,
}

/// The processor, until it is dropped.
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits for one's turn.
    pub(crate) fn take(&self) -> Turn<'_> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let own = state.given;
        state.given += 1;
        while state.called != own {
            state = self.next.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).called += 1;
        self.0.next.notify_all();
    }
}
