//! The results of one request as they come in, from tokenisers and from batches.

use crate::ask::{ItemFault, ItemScore, Times};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// One result.
pub(crate) type ItemResult = Result<ItemScore, ItemFault>;

/// The results of one request.
pub(crate) struct Gathering {
    started: Instant,
    state: Mutex<State>,
}

struct State {
    results: Vec<Option<ItemResult>>,
    /// Results that are still to come.
    open: usize,
    /// Texts that are still to be tokenised.
    untokenised: usize,
    tokenise: Duration,
    inference: Duration,
    /// The latest batch that some of its texts were in.
    batch: u64,
    done: Option<oneshot::Sender<Gathered>>,
}

/// All results, and where the time went.
pub(crate) struct Gathered {
    pub(crate) results: Vec<ItemResult>,
    pub(crate) times: Times,
}

/// A batch that was computed.
#[derive(Clone, Copy)]
pub(crate) struct Computed {
    /// Its number: from 1, never the same twice.
    pub(crate) number: u64,
    pub(crate) time: Duration,
}

impl Gathering {
    /// For `results`, of which those are there already that need no scoring. The receiver gets them when all are there.
    pub(crate) fn new(results: Vec<Option<ItemResult>>) -> (Self, oneshot::Receiver<Gathered>) {
        let (done, receiver) = oneshot::channel();
        let open = results.iter().filter(|result| result.is_none()).count();
        let state = State {
            results,
            open,
            untokenised: open,
            tokenise: Duration::ZERO,
            inference: Duration::ZERO,
            batch: 0,
            done: Some(done),
        };
        let gathering = Gathering { started: Instant::now(), state: Mutex::new(state) };
        gathering.finish(gathering.lock());
        (gathering, receiver)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some texts were tokenised, or could not be.
    pub(crate) fn tokenised(&self, texts: usize) {
        let mut state = self.lock();
        state.untokenised = state.untokenised.saturating_sub(texts);
        if state.untokenised == 0 {
            state.tokenise = self.started.elapsed();
        }
    }

    /// The fault of a text that reached no batch.
    pub(crate) fn fault(&self, index: usize, fault: ItemFault) {
        let mut state = self.lock();
        state.put(index, Err(fault));
        self.finish(state);
    }

    /// The result of a text that was in a batch.
    pub(crate) fn scored(&self, index: usize, result: ItemResult, computed: Computed) {
        let mut state = self.lock();
        if state.batch != computed.number {
            state.batch = computed.number;
            state.inference += computed.time;
        }
        state.put(index, result);
        self.finish(state);
    }

    fn finish(&self, mut state: MutexGuard<'_, State>) {
        if state.open > 0 {
            return;
        }
        let Some(done) = state.done.take() else { return };
        let total = self.started.elapsed();
        let State { tokenise, inference, .. } = *state;
        let queue = total.saturating_sub(tokenise).saturating_sub(inference);
        let results = std::mem::take(&mut state.results).into_iter().flatten().collect();
        drop(state);
        // The client may have gone.
        let _ = done.send(Gathered { results, times: Times { tokenise, queue, inference, total } });
    }
}

impl State {
    fn put(&mut self, index: usize, result: ItemResult) {
        if let Some(place @ None) = self.results.get_mut(index) {
            *place = Some(result);
            self.open -= 1;
        }
    }
}
