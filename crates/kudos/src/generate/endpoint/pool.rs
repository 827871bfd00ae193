//! Many responses at a time: plain threads that take requests from one queue and lay events into another.
//!
//! Requests are made out and events handed over on the thread of the caller, so that neither prompts nor the
//! caller's state are shared. The threads are not waited for when the caller stops: their requests are cut off, and
//! they end on their own.

use super::super::job::{Attempt, FinishReason, Generated, Task};
use super::Event;
use super::client::Client;
use super::wire::Answer;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the caller goes without an event.
const PATIENCE: Duration = Duration::from_millis(200);

/// A task as a thread needs it.
struct Call {
    attempt: Attempt,
    seed: u64,
    temperature: f32,
    /// Of the request, or why there is none.
    body: Result<String, String>,
}

impl Call {
    fn new(client: &Client, task: &Task) -> Self {
        let Task { attempt, seed, sampling, .. } = *task;
        Call { attempt, seed, temperature: sampling.temperature, body: client.body(task) }
    }

    fn done(&self, outcome: Result<Answer, String>) -> Generated {
        let (answer, error) = match outcome {
            Ok(answer) => (answer, None),
            Err(words) => (Answer { text: String::new(), finish_reason: FinishReason::Error, tokens: 0 }, Some(words)),
        };
        let Answer { text, finish_reason, tokens } = answer;
        let Call { attempt, seed, temperature, .. } = *self;
        Generated { attempt, text, seed, temperature, tokens, finish_reason, stopped_by: None, error }
    }
}

/// See [`super::Endpoint::run`].
pub(super) fn run<'a>(
    client: Client,
    mut work: impl Iterator<Item = Task<'a>>,
    mut on_event: impl FnMut(Event) -> ControlFlow<(), Vec<Task<'a>>>,
) -> ControlFlow<()> {
    let (calls, events) = start_threads(&client);
    let mut added: VecDeque<Task> = VecDeque::new();
    let mut under_way = 0;
    loop {
        while under_way < client.concurrency() {
            let Some(task) = added.pop_front().or_else(|| work.next()) else { break };
            // It cannot fail: the threads hold the other end until this one is dropped.
            let _ = calls.send(Call::new(&client, &task));
            under_way += 1;
        }
        if under_way == 0 {
            return ControlFlow::Continue(());
        }
        let event = match events.recv_timeout(PATIENCE) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => Event::Waiting,
            Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
        };
        under_way -= usize::from(matches!(event, Event::Done(_)));
        match on_event(event) {
            ControlFlow::Continue(more) => added.extend(more),
            ControlFlow::Break(()) => {
                client.shut_down();
                return ControlFlow::Break(());
            }
        }
    }
}

fn start_threads(client: &Client) -> (Sender<Call>, Receiver<Event>) {
    let (calls, queue) = mpsc::channel();
    let (outbox, events) = mpsc::channel();
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..client.concurrency() {
        let (client, queue, outbox) = (client.clone(), queue.clone(), outbox.clone());
        std::thread::spawn(move || serve(&client, &queue, &outbox));
    }
    (calls, events)
}

/// Until there are no more calls, or nobody to hear of them.
fn serve(client: &Client, queue: &Mutex<Receiver<Call>>, outbox: &Sender<Event>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(call) = next else { return };
        // A thread that died in silence would leave the caller waiting for ever.
        let outcome = catch_unwind(AssertUnwindSafe(|| answer(client, &call, outbox)));
        let outcome = outcome.unwrap_or_else(|_| Err("the HTTP client panicked; this is a bug".to_owned()));
        if client.stop.has_rung() || outbox.send(Event::Done(call.done(outcome))).is_err() {
            return;
        }
    }
}

fn answer(client: &Client, call: &Call, outbox: &Sender<Event>) -> Result<Answer, String> {
    let body = call.body.as_ref().map_err(String::clone)?;
    client.complete(body, &mut |note| drop(outbox.send(Event::Note(note))))
}
