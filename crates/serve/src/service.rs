//! The way of one request through the judges.

use crate::admission::Pace;
use crate::ask::{Answer, Ask, FaultKind, Item, ItemFault, JudgeFacts, Refusal, Scorer, Tokeniser};
use crate::batcher::{Lane, LaneLimits, Turns};
use crate::gather::{Gathered, Gathering, ItemResult};
use crate::metrics::{Gauges, Metrics};
use crate::queue::{Load, RequestId};
use crate::settings::Settings;
use crate::tokenise::{Job, Pool, Request, Text};
use kudos::data::Content;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::oneshot;

/// The judges of a server, with what stands before them.
pub struct Service {
    settings: Settings,
    metrics: Arc<Metrics>,
    /// In the order in which they were named.
    lanes: RwLock<Vec<Arc<Lane>>>,
    pool: Arc<Pool>,
    turns: Arc<Turns>,
    next: AtomicU64,
    in_flight: AtomicUsize,
    is_draining: AtomicBool,
}

/// A judge that is loaded.
pub struct Judge {
    /// What is known of it.
    pub facts: JudgeFacts,
    /// Texts → ids.
    pub tokeniser: Arc<dyn Tokeniser>,
    /// Ids → scores.
    pub scorer: Box<dyn Scorer>,
}

impl Service {
    /// A service without judges: not ready until some are installed.
    pub fn new(settings: Settings) -> Arc<Service> {
        let metrics = Arc::new(Metrics::default());
        let pool = Pool::start(settings.tokenisers, settings.tokenise_time, metrics.clone());
        Arc::new(Service {
            settings,
            metrics,
            lanes: RwLock::default(),
            pool,
            turns: Arc::default(),
            next: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            is_draining: AtomicBool::new(false),
        })
    }

    /// Adds a judge, or puts it in the place of the one of its name. What the old one has begun, it finishes.
    pub fn install(&self, facts: JudgeFacts, tokeniser: Arc<dyn Tokeniser>, scorer: Box<dyn Scorer>) {
        self.install_all(vec![Judge { facts, tokeniser, scorer }]);
    }

    /// Adds judges, all at once. Each must have scored a text: with them, the server is ready.
    pub fn install_all(&self, judges: Vec<Judge>) {
        let new: Vec<Arc<Lane>> = judges.into_iter().map(|judge| self.lane_of(judge)).collect();
        let mut old = Vec::new();
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        for lane in new {
            match lanes.iter_mut().find(|known| known.facts.name == lane.facts.name) {
                Some(place) => old.push(std::mem::replace(place, lane)),
                None => lanes.push(lane),
            }
        }
        drop(lanes);
        old.iter().for_each(|lane| lane.close());
    }

    fn lane_of(&self, Judge { facts, tokeniser, scorer }: Judge) -> Arc<Lane> {
        let Settings { queue_tokens, queue_items, max_batch_tokens, .. } = self.settings;
        let room = Load { tokens: queue_tokens, items: queue_items };
        let limits = LaneLimits { room, budget: max_batch_tokens };
        let metrics = self.metrics.judge(&facts.name);
        Lane::start(facts, tokeniser, scorer, limits, (metrics, self.turns.clone()))
    }

    /// Scores all items of a request, or refuses it as a whole.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was computed then.
    pub async fn score(&self, ask: Ask) -> Result<Answer, Refusal> {
        let items = ask.items.len();
        self.metrics.asked(items);
        let _guest = Guest::of(&self.in_flight);
        let running = self.start(ask)?;
        let answer = running.answer().await?;
        self.metrics.succeeded(items);
        Ok(answer)
    }

    /// Gives a request its place, and its texts to the tokenisers.
    fn start(&self, ask: Ask) -> Result<Running, Refusal> {
        if self.is_draining() {
            return Err(Refusal::Draining);
        }
        let Ask { judge, items } = ask;
        if items.len() > self.settings.max_items {
            return Err(Refusal::TooManyItems { found: items.len(), limit: self.settings.max_items });
        }
        let (results, mut texts) = self.sort(items)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let lane = self.admit(judge.as_deref(), id, &mut texts)?;
        let faults = results.iter().flatten().filter_map(|result| result.as_ref().err());
        faults.for_each(|fault| lane.metrics.fault(fault.kind));
        let (gathering, done) = Gathering::new(results);
        let is_dropped = Arc::default();
        let request = Request { id, lane, gathering: Arc::new(gathering), is_dropped };
        if !texts.is_empty() {
            self.pool.submit(Job { request: request.clone(), texts });
        }
        Ok(Running { request, done: Some(done) })
    }

    /// The items that need no scoring, and those that do.
    fn sort(&self, items: Vec<Result<Item, ItemFault>>) -> Result<(Vec<Option<ItemResult>>, VecDeque<Text>), Refusal> {
        let most = self.settings.max_item_characters;
        let (mut results, mut texts, mut whole) = (Vec::with_capacity(items.len()), VecDeque::new(), 0);
        let mut prompt = LastPrompt::default();
        for (index, item) in items.into_iter().enumerate() {
            let result = item.and_then(|item| {
                let characters = prompt.characters(&item) + characters(&item.response);
                match characters > most {
                    true => Err(too_many_characters(characters, most)),
                    false => Ok(Text { item, index, characters, estimate: 0 }),
                }
            });
            match result {
                Err(fault) => results.push(Some(Err(fault))),
                Ok(text) => {
                    whole += text.characters;
                    texts.push_back(text);
                    results.push(None);
                }
            }
        }
        let limit = self.settings.max_request_characters;
        match whole > limit {
            true => Err(Refusal::TooLarge { unit: "characters", found: whole as u64, limit: limit as u64 }),
            false => Ok((results, texts)),
        }
    }

    /// Room in the queue of the judge.
    fn admit(&self, judge: Option<&str>, id: RequestId, texts: &mut VecDeque<Text>) -> Result<Arc<Lane>, Refusal> {
        loop {
            let lane = self.lane(judge)?;
            if texts.is_empty() {
                return Ok(lane);
            }
            if let Some(refusal) = self.crowded(&lane) {
                return Err(refusal);
            }
            let load = estimate(&lane.pace, texts);
            match lane.admit(id, load) {
                Some(admitted) => return admitted.map(|()| lane),
                None => continue, // It was replaced at this moment.
            }
        }
    }

    /// Whether so many requests are being answered that further clients would soon find no connection: they could not even
    /// be told that the server is busy. It happens before the queue is full where requests are short.
    fn crowded(&self, lane: &Lane) -> Option<Refusal> {
        let is_crowded = self.in_flight() > self.settings.connections * 3 / 4;
        is_crowded.then(|| Refusal::Overloaded { retry_after: lane.pace.time_for(lane.load().tokens / 4) })
    }

    fn lane(&self, name: Option<&str>) -> Result<Arc<Lane>, Refusal> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        if lanes.is_empty() {
            return Err(Refusal::NotReady);
        }
        let found = lanes.iter().find(|lane| name.is_none_or(|name| lane.facts.name == name));
        let unknown = || Refusal::NoSuchJudge {
            asked: name.unwrap_or_default().chars().take(100).collect(),
            known: lanes.iter().map(|lane| lane.facts.name.clone()).collect(),
        };
        found.cloned().ok_or_else(unknown)
    }

    /// Whether there is no room even for a request of few characters: cheaper than to read one and find out.
    pub(crate) fn is_full(&self, bytes: usize) -> Option<Refusal> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        // With several judges, the body says which is meant.
        let [lane] = lanes.as_slice() else { return None };
        self.crowded(lane).or_else(|| lane.no_room_for(bytes))
    }

    /// The judges, the one that is asked without a name first.
    pub fn judges(&self) -> Vec<Arc<JudgeFacts>> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        lanes.iter().map(|lane| lane.facts.clone()).collect()
    }

    /// The judge of a name; without one, the first.
    ///
    /// # Errors
    /// [`Refusal::NoSuchJudge`], [`Refusal::NotReady`].
    pub fn judge(&self, name: Option<&str>) -> Result<Arc<JudgeFacts>, Refusal> {
        self.lane(name).map(|lane| lane.facts.clone())
    }

    /// Whether every judge is loaded and has scored a text, and the server is not about to end.
    pub fn is_ready(&self) -> bool {
        !self.is_draining() && !self.lanes.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Takes no further requests for scores.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
    }

    /// Whether the server is about to end.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }

    /// Requests for scores that are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// The limits.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// All that is counted, as Prometheus reads it.
    pub fn metrics_page(&self) -> String {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner).clone();
        let gauges = |lane: &Arc<Lane>| {
            let Load { tokens, items } = lane.load();
            let facts = lane.facts.clone();
            Gauges { facts, queue_items: items, queue_tokens: tokens, tokens_per_second: lane.pace.speed() }
        };
        self.metrics.render(&lanes.iter().map(gauges).collect::<Vec<_>>())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.pool.close();
        self.lanes.get_mut().unwrap_or_else(PoisonError::into_inner).iter().for_each(|lane| lane.close());
    }
}

/// Counts a request while it is answered.
struct Guest<'a>(&'a AtomicUsize);

impl<'a> Guest<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Guest(count)
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A request that is being worked on. Dropped before its end, it frees its place.
struct Running {
    request: Request,
    /// Taken when all results are there.
    done: Option<oneshot::Receiver<Gathered>>,
}

impl Running {
    async fn answer(mut self) -> Result<Answer, Refusal> {
        let Some(done) = self.done.as_mut() else { return Err(Refusal::Failed) };
        let gathered = done.await;
        if gathered.is_ok() {
            self.done = None;
        }
        let Gathered { results, times } = gathered.map_err(|_| Refusal::Failed)?;
        self.request.lane.metrics.answered(&times);
        Ok(Answer { judge: self.request.lane.facts.clone(), items: results, times })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.done.is_some() {
            self.request.is_dropped.store(true, Ordering::Relaxed);
            self.request.lane.remove(self.request.id);
            self.request.lane.metrics.dropped.add(1);
        }
    }
}

/// The characters of the prompt before, which is often the next one's too.
#[derive(Default)]
struct LastPrompt(Option<(Arc<Content>, usize)>);

impl LastPrompt {
    fn characters(&mut self, item: &Item) -> usize {
        let Some(prompt) = &item.prompt else { return 0 };
        match &self.0 {
            Some((last, count)) if Arc::ptr_eq(last, prompt) => *count,
            _ => {
                let count = characters(prompt);
                self.0 = Some((prompt.clone(), count));
                count
            }
        }
    }
}

fn characters(content: &Content) -> usize {
    match content {
        Content::Text(text) => text.chars().count(),
        Content::Messages(turns) => {
            turns.iter().map(|turn| turn.role.chars().count() + turn.content.chars().count()).sum()
        }
    }
}

fn too_many_characters(found: usize, most: usize) -> ItemFault {
    ItemFault::new(FaultKind::Characters, format!("the text has {found} characters, at most {most} are taken"))
}

/// Estimates each text; all together.
fn estimate(pace: &Pace, texts: &mut VecDeque<Text>) -> Load {
    texts.iter_mut().for_each(|text| text.estimate = pace.estimate(text.characters));
    Load { tokens: texts.iter().map(|text| text.estimate).sum(), items: texts.len() }
}

#[cfg(test)]
mod tests;
