//! Continuous batching: many texts are written at once, a finished one makes room for the next.
//!
//! A prompt is computed once, at the front of the slot of its first response; each of its other responses starts with a
//! copy of that. It stays there when the response has ended, until the slot is needed for another prompt: a response
//! that is drawn again finds it. Then every step computes one token of every text that is being written. What a text becomes depends on its
//! prompt and its own random numbers alone: the model gives a row the same bits in any batch, and prompts are
//! computed in pieces of a fixed size.
//!
//! This file knows ids. It must not know texts (a stop string is asked about through [`Draw::is_over`]).

use super::sampler::{Sampler, Seen};
use crate::models::{Decoder, LogitRows};
use crate::nn::{Batch, KvCache, Tape};
use crate::random::Stream;
use rayon::prelude::*;
use std::sync::Arc;

/// Tokens of a prompt that are computed at a time.
const PIECE: usize = 512;

/// Whether a stop string has come among these ids.
pub(crate) type IsOver<'a> = Box<dyn FnMut(&[u32]) -> bool + Send + 'a>;

/// A response to draw.
pub(crate) struct Draw<'a> {
    /// What the caller knows it by.
    pub(crate) key: usize,
    /// Ids of the prompt; responses to one prompt share them.
    pub(crate) prompt: Arc<[u32]>,
    /// Its way to choose.
    pub(crate) sampler: Sampler,
    /// Its random numbers.
    pub(crate) random: Stream,
    /// Ids that end it.
    pub(crate) stops: &'a [u32],
    /// Most tokens it may have.
    pub(crate) most: usize,
    /// Whether a stop string has come; asked after each token.
    pub(crate) is_over: Option<IsOver<'a>>,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By one of its ids, which is the last of the ids.
    StopId,
    /// By a stop string.
    StopText,
    /// By its length.
    Length,
    /// The model gave something that is no number.
    NotFinite,
}

/// A response that ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Drawn {
    pub(crate) key: usize,
    pub(crate) ids: Vec<u32>,
    pub(crate) end: End,
}

/// A text that is being written.
struct Text<'a> {
    draw: Draw<'a>,
    ids: Vec<u32>,
    seen: Seen,
    slot: usize,
    end: Option<End>,
}

/// A prompt whose keys and values stand at the front of a slot.
struct Ready {
    prompt: Arc<[u32]>,
    /// What the model says after it.
    logits: Vec<f32>,
    /// How many prompts had been computed before it.
    order: usize,
}

/// A decoder with its cache, writing.
pub(crate) struct Engine<'m, 'a> {
    model: &'m Decoder,
    cache: KvCache,
    tape: Tape,
    batch: Batch,
    /// Slots in which no text is being written.
    free: Vec<usize>,
    /// What stands at the front of each slot, of a free one too.
    ready: Vec<Option<Arc<Ready>>>,
    texts: Vec<Text<'a>>,
    capacity: usize,
    /// Prompts computed so far.
    computed: usize,
}

impl<'m, 'a> Engine<'m, 'a> {
    /// `cache` has as many slots as texts are to be written at once.
    pub(crate) fn new(model: &'m Decoder, cache: KvCache) -> Self {
        let (slots, shape) = cache.shape();
        Self {
            model,
            cache,
            tape: Tape::default(),
            batch: Batch::default(),
            free: (0..slots).collect(),
            ready: vec![None; slots],
            texts: Vec::new(),
            capacity: shape.capacity,
            computed: 0,
        }
    }

    /// Whether another response can start.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether nothing is being written.
    pub(crate) fn is_idle(&self) -> bool {
        self.texts.is_empty()
    }

    /// Starts a response: its prompt is computed unless it lies ready, and its first token drawn. The prompt is
    /// not empty and shorter than the cache's slots.
    pub(crate) fn start(&mut self, draw: Draw<'a>) {
        let (slot, ready) = self.prepare(&draw.prompt);
        let mut seen = Seen::default();
        seen.extend(draw.prompt.iter().copied());
        let mut text = Text { draw, ids: Vec::new(), seen, slot, end: None };
        text.choose(&mut ready.logits.clone(), self.capacity);
        self.texts.push(text);
    }

    /// Takes a free slot and sees to it that the prompt stands at its front.
    fn prepare(&mut self, prompt: &Arc<[u32]>) -> (usize, Arc<Ready>) {
        let slot = self.take_slot(prompt);
        let here = self.ready[slot].take();
        let elsewhere = || self.ready.iter().position(|ready| holds(ready.as_ref(), prompt));
        let ready = match here.filter(|here| here.prompt == *prompt) {
            Some(here) => here,
            None => match elsewhere() {
                Some(other) => {
                    self.cache.copy(other, slot, prompt.len());
                    self.ready[other].clone().expect("it holds the prompt")
                }
                None => Arc::new(self.compute(slot, prompt)),
            },
        };
        self.ready[slot] = Some(Arc::clone(&ready));
        (slot, ready)
    }

    /// A free slot that holds the prompt; else one whose prompt is the least likely to come again: none, one that
    /// another slot holds too, the one that was computed first.
    fn take_slot(&mut self, prompt: &Arc<[u32]>) -> usize {
        let key = |slot: usize| match &self.ready[slot] {
            None => (1, 0),
            Some(ready) if ready.prompt == *prompt => (0, 0),
            Some(ready) if Arc::strong_count(ready) > 1 => (2, ready.order),
            Some(ready) => (3, ready.order),
        };
        let at = (0..self.free.len()).min_by_key(|at| key(self.free[*at])).expect("the caller asked for room");
        self.free.swap_remove(at)
    }

    fn compute(&mut self, slot: usize, prompt: &Arc<[u32]>) -> Ready {
        let mut logits = Vec::new();
        for (piece, ids) in prompt.chunks(PIECE).enumerate() {
            self.batch.clear();
            let pushed = self.batch.push_cached(ids, slot, piece * PIECE);
            pushed.expect("a piece of a prompt has tokens");
            logits = self.model.logits(&mut self.tape, &self.batch, &mut self.cache, LogitRows::Last).to_vec();
        }
        let order = self.computed;
        self.computed += 1;
        Ready { prompt: Arc::clone(prompt), logits, order }
    }

    /// Draws one more token of every text; returns how many were drawn.
    pub(crate) fn step(&mut self) -> usize {
        let going: Vec<&mut Text> = self.texts.iter_mut().filter(|text| text.end.is_none()).collect();
        if going.is_empty() {
            return 0;
        }
        self.batch.clear();
        for text in &going {
            let last = *text.ids.last().expect("a started text has a token");
            let pushed = self.batch.push_cached(&[last], text.slot, text.draw.prompt.len() + text.ids.len() - 1);
            pushed.expect("each text has a slot of its own");
        }
        let logits = self.model.logits(&mut self.tape, &self.batch, &mut self.cache, LogitRows::Last);
        let (width, capacity, drawn) = (logits.len() / going.len(), self.capacity, going.len());
        logits.par_chunks_mut(width).zip(going).for_each(|(logits, text)| text.choose(logits, capacity));
        drawn
    }

    /// Takes out the texts that ended, in the order in which they started; their slots are free.
    pub(crate) fn finished(&mut self) -> Vec<Drawn> {
        let (ended, going) = std::mem::take(&mut self.texts).into_iter().partition(|text| text.end.is_some());
        self.texts = going;
        let ended: Vec<Text> = ended;
        self.free.extend(ended.iter().map(|text| text.slot));
        let drawn = |text: Text| Drawn { key: text.draw.key, ids: text.ids, end: text.end.unwrap_or(End::Length) };
        ended.into_iter().map(drawn).collect()
    }
}

fn holds(ready: Option<&Arc<Ready>>, prompt: &Arc<[u32]>) -> bool {
    ready.is_some_and(|ready| ready.prompt == *prompt)
}

impl Text<'_> {
    /// Draws the next token and sees whether the text ends with it.
    fn choose(&mut self, logits: &mut [f32], capacity: usize) {
        if logits.iter().any(|logit| logit.is_nan()) {
            self.end = Some(End::NotFinite);
            return;
        }
        let id = self.draw.sampler.next(logits, &self.seen, &mut self.draw.random);
        self.ids.push(id);
        self.seen.insert(id);
        self.end = if self.draw.stops.contains(&id) {
            Some(End::StopId)
        } else if self.draw.is_over.as_mut().is_some_and(|is_over| is_over(&self.ids)) {
            Some(End::StopText)
        } else if self.ids.len() >= self.draw.most || self.draw.prompt.len() + self.ids.len() >= capacity {
            Some(End::Length)
        } else {
            None
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Sampling;
    use crate::models::DecoderHead;
    use crate::nn::Precision;
    use kernels::parallel::with_threads;
    use std::path::Path;

    fn model() -> Decoder {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/decoders/llama");
        Decoder::load(&dir, DecoderHead::Words, Precision::Int8).expect("the golden model")
    }

    fn draw(key: usize) -> Draw<'static> {
        // Six prompts of different lengths, several responses each.
        let prompt: Vec<u32> = (0..3 + 5 * (key as u32 / 4 % 6)).map(|i| 7 + (i * 13 + key as u32 / 4) % 100).collect();
        let random = Stream::new(key as u64, 5);
        let most = 5 + key % 17;
        let (sampler, stops) = (Sampler::new(Sampling::default()), &[2u32][..]);
        Draw { key, prompt: prompt.into(), sampler, random, stops, most, is_over: None }
    }

    fn run(model: &mut Decoder, slots: usize, keys: &[usize]) -> Vec<Drawn> {
        let cache = model.cache(slots, 64);
        let mut engine = Engine::new(model, cache);
        let (mut waiting, mut all) = (keys.iter(), Vec::new());
        loop {
            while engine.has_room() {
                let Some(key) = waiting.next() else { break };
                engine.start(draw(*key));
            }
            all.extend(engine.finished());
            if engine.step() == 0 && engine.is_idle() && waiting.len() == 0 {
                break;
            }
        }
        all.sort_by_key(|drawn| drawn.key);
        all
    }

    #[test]
    fn a_response_is_the_same_whatever_is_written_beside_it() {
        let mut model = model();
        let keys: Vec<usize> = (0..24).collect();
        let reversed: Vec<usize> = keys.iter().rev().copied().collect();
        let all = run(&mut model, 7, &keys);
        assert_eq!(all.len(), 24);
        assert!(all.iter().any(|d| d.end == End::Length));
        assert_eq!(run(&mut model, 1, &keys), all, "one at a time");
        assert_eq!(
            with_threads(3, || run(&mut model, 24, &reversed)),
            all,
            "all at once, in another order, on 3 threads"
        );
        assert_eq!(run(&mut model, 5, &keys[10..]), all[10..], "after an interruption");
        let different: std::collections::HashSet<_> = all[..4].iter().map(|drawn| drawn.ids.clone()).collect();
        assert!(different.len() > 1, "responses to one prompt differ");
    }

    /// What a run would have: four responses to each prompt, then two more to every second one, which come before all
    /// else as soon as its four are there.
    #[test]
    fn p7_a_retry_finds_its_prompt_ready() {
        let mut model = model();
        for slots in [1, 3, 6, 16] {
            let cache = model.cache(slots, 64);
            let mut engine = Engine::new(&model, cache);
            let (mut waiting, mut again): (Vec<usize>, Vec<usize>) = ((0..24).rev().collect(), Vec::new());
            let (mut left, mut started) = ([4; 6], Vec::new());
            loop {
                while engine.has_room() {
                    let Some(key) = again.pop().or_else(|| waiting.pop()) else { break };
                    started.push(key / 4);
                    engine.start(draw(key));
                }
                for drawn in engine.finished() {
                    let prompt = drawn.key / 4;
                    left[prompt] -= 1;
                    if left[prompt] == 0 && prompt % 2 == 1 {
                        again.extend([drawn.key; 2]);
                    }
                }
                if engine.step() == 0 && engine.is_idle() && waiting.is_empty() && again.is_empty() {
                    break;
                }
            }
            assert_eq!(started.len(), 24 + 3 * 2);
            let one_prompt_kept = 1 + started.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert_eq!(engine.computed, 6, "{slots} slots; with only the last prompt kept: {one_prompt_kept}");
            assert!(slots == 1 || one_prompt_kept > 6, "the order has no retry between other prompts");
            println!(
                "{slots} slots: {} prompts computed, {one_prompt_kept} with only the last one kept",
                engine.computed
            );
        }
    }

    #[test]
    fn texts_end_by_id_by_text_and_by_length() {
        let mut model = model();
        let mut cut = draw(3);
        cut.is_over = Some(Box::new(|ids| ids.len() == 2));
        cut.most = 100;
        let mut long = draw(7);
        long.most = 1000;
        let mut stopped = draw(11);
        stopped.most = 40;
        let all: Vec<u32> = (0..120).collect();
        stopped.stops = all.leak();
        let cache = model.cache(3, 64);
        let mut engine = Engine::new(&model, cache);
        [cut, long, stopped].into_iter().for_each(|draw| engine.start(draw));
        while engine.step() > 0 {}
        let ends: Vec<(usize, End, usize)> =
            engine.finished().iter().map(|drawn| (drawn.key, drawn.end, drawn.ids.len())).collect();
        let room = 64 - (3 + 5);
        assert!(matches!(ends[0], (3, End::StopText, 2) | (3, End::StopId, _)), "{ends:?}");
        assert!(ends[1] == (7, End::Length, room) || ends[1].1 == End::StopId, "{ends:?}");
        assert_eq!(ends[2], (11, End::StopId, 1));
    }
}
