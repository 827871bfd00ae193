//! Texts of many threads in one packed batch.
//!
//! There is no thread of its own. A thread that wants scores puts its texts into the lane. If nobody computes, it takes all
//! that waits, as much as one batch holds, and computes it for everyone; the others wait. So a lone caller waits for nobody,
//! and sixty-four callers with one text each are served in a few batches.

use crate::border::{Signals, fault, kudos_error};
use kudos::models::{Rated, RewardModel, SCORING_TOKENS, ScoreError, Workspace};
use kudos::text::Encoded;
use pyo3::prelude::*;
use rayon::ThreadPool;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A result for each text, in order.
pub type Results = Vec<Result<Rated, ScoreError>>;

/// What one thread waits for.
struct Waiting {
    texts: Vec<Encoded>,
    tokens: usize,
    answer: Arc<Mutex<Option<Answer>>>,
}

/// `Err` is what a panic said.
type Answer = Result<Results, String>;

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Whether a thread computes now. It has taken the workspace.
    busy: bool,
    workspace: Workspace,
}

/// The way of texts to one judge.
#[derive(Default)]
pub struct Lane {
    state: Mutex<State>,
    changed: Condvar,
}

/// How long a thread waits before it looks for signals.
const LOOK: Duration = Duration::from_millis(25);

impl Lane {
    /// The scores of texts that run together, computed with those of other threads.
    ///
    /// # Errors
    /// If a signal ends the wait, or if the computation panics.
    pub fn rate(
        &self,
        judge: &RewardModel,
        pool: &ThreadPool,
        texts: Vec<Encoded>,
        signals: &mut Signals,
    ) -> PyResult<Results> {
        let tokens = texts.iter().map(|text| text.ids.len()).sum();
        let answer = Arc::new(Mutex::new(None));
        let mut state = self.lock();
        state.waiting.push_back(Waiting { texts, tokens, answer: answer.clone() });
        loop {
            if let Some(answer) = answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return answer
                    .map_err(|fault| kudos_error(format!("a fault in Kudos itself, please report it: {fault}")));
            }
            if state.busy {
                state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            } else {
                state = self.run_next(state, judge, pool);
            }
            drop(state);
            if let Err(error) = signals.check() {
                self.lock().waiting.retain(|waiting| !Arc::ptr_eq(&waiting.answer, &answer));
                return Err(error);
            }
            state = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Computes the next batch for whoever waits for it.
    fn run_next<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        judge: &RewardModel,
        pool: &ThreadPool,
    ) -> MutexGuard<'a, State> {
        let batch = state.cut();
        state.busy = true;
        let mut workspace = std::mem::take(&mut state.workspace);
        drop(state);
        pool.install(|| run(judge, batch, &mut workspace));
        let mut state = self.lock();
        (state.busy, state.workspace) = (false, workspace);
        self.changed.notify_all();
        state
    }
}

impl State {
    /// What waits longest, up to the tokens of one batch.
    fn cut(&mut self) -> Vec<Waiting> {
        let (mut batch, mut tokens) = (Vec::new(), 0);
        while let Some(next) = self.waiting.front() {
            tokens += next.tokens;
            if !batch.is_empty() && tokens > SCORING_TOKENS {
                break;
            }
            batch.extend(self.waiting.pop_front());
        }
        batch
    }
}

/// Computes a batch and answers each thread. After a panic each thread's texts run alone, so that the others get theirs.
fn run(judge: &RewardModel, batch: Vec<Waiting>, workspace: &mut Workspace) {
    let texts: Vec<&Encoded> = batch.iter().flat_map(|waiting| &waiting.texts).collect();
    match catch_unwind(AssertUnwindSafe(|| judge.run(&texts, workspace))) {
        Ok(results) => {
            let mut results = results.into_iter();
            for waiting in &batch {
                waiting.answer(Ok(results.by_ref().take(waiting.texts.len()).collect()));
            }
        }
        Err(panic) => {
            *workspace = Workspace::default();
            match batch.len() {
                1 => batch[0].answer(Err(fault(&*panic))),
                _ => batch.into_iter().for_each(|waiting| run(judge, vec![waiting], workspace)),
            }
        }
    }
}

impl Waiting {
    fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }
}
