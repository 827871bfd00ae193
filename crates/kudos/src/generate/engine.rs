//! Continuous batching: many texts are written at once, a finished one makes room for the next.
//!
//! A prompt is computed once, in a slot of the cache that is kept for prompts; each of its responses starts as a copy of
//! it. Then every step computes one token of every text that is being written. What a text becomes depends on its
//! prompt and its own random numbers alone: the model gives a row the same bits in any batch, and prompts are
//! computed in pieces of a fixed size.
//!
//! This file knows ids. It must not know texts (a stop string is asked about through [`Draw::is_over`]).

use super::sampler::{Sampler, Seen};
use crate::models::{Decoder, Wanted};
use crate::nn::{Batch, KvCache, Tape};
use crate::random::Stream;
use rayon::prelude::*;
use std::sync::Arc;

/// Tokens of a prompt that are computed at a time.
const PIECE: usize = 512;

/// Whether a stop string has come among these ids.
pub(super) type IsOver<'a> = Box<dyn Fn(&[u32]) -> bool + Send + Sync + 'a>;

/// A response to draw.
pub(super) struct Draw<'a> {
    /// What the caller knows it by.
    pub(super) key: usize,
    /// Ids of the prompt; responses to one prompt share them.
    pub(super) prompt: Arc<[u32]>,
    /// Its way to choose.
    pub(super) sampler: Sampler,
    /// Its random numbers.
    pub(super) random: Stream,
    /// Ids that end it.
    pub(super) stops: &'a [u32],
    /// Most tokens it may have.
    pub(super) most: usize,
    /// Whether a stop string has come; asked after each token.
    pub(super) is_over: Option<IsOver<'a>>,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
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
pub(super) struct Drawn {
    pub(super) key: usize,
    pub(super) ids: Vec<u32>,
    pub(super) end: End,
}

/// A text that is being written.
struct Text<'a> {
    draw: Draw<'a>,
    ids: Vec<u32>,
    seen: Seen,
    slot: usize,
    end: Option<End>,
}

/// The prompt whose keys and values lie ready to be copied.
struct Ready {
    prompt: Arc<[u32]>,
    logits: Vec<f32>,
}

/// A decoder with its cache, writing.
pub(super) struct Engine<'m, 'a> {
    model: &'m Decoder,
    cache: KvCache,
    tape: Tape,
    batch: Batch,
    free: Vec<usize>,
    texts: Vec<Text<'a>>,
    ready: Option<Ready>,
    capacity: usize,
}

impl<'m, 'a> Engine<'m, 'a> {
    /// `cache` has one slot more than texts are to be written at once.
    pub(super) fn new(model: &'m Decoder, cache: KvCache) -> Self {
        let (slots, shape) = cache.shape();
        let free = (0..slots - 1).rev().collect();
        let (tape, batch) = (Tape::default(), Batch::default());
        Self { model, cache, tape, batch, free, texts: Vec::new(), ready: None, capacity: shape.capacity }
    }

    /// Whether another response can start.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether nothing is being written.
    pub(super) fn is_idle(&self) -> bool {
        self.texts.is_empty()
    }

    /// Starts a response: its prompt is computed unless it is the last one's, and its first token drawn. The prompt is
    /// not empty and shorter than the cache's slots.
    pub(super) fn start(&mut self, draw: Draw<'a>) {
        let slot = self.free.pop().expect("the caller asked for room");
        self.prepare(&draw.prompt);
        let ready = self.ready.as_ref().expect("it was just prepared");
        self.cache.copy(self.prompt_slot(), slot, draw.prompt.len());
        let mut seen = Seen::default();
        seen.extend(draw.prompt.iter().copied());
        let mut text = Text { draw, ids: Vec::new(), seen, slot, end: None };
        let mut logits = ready.logits.clone();
        text.choose(&mut logits, self.capacity);
        self.texts.push(text);
    }

    fn prompt_slot(&self) -> usize {
        self.cache.shape().0 - 1
    }

    fn prepare(&mut self, prompt: &Arc<[u32]>) {
        if self.ready.as_ref().is_some_and(|ready| ready.prompt == *prompt) {
            return;
        }
        let mut logits = Vec::new();
        for (piece, ids) in prompt.chunks(PIECE).enumerate() {
            self.batch.clear();
            let pushed = self.batch.push_cached(ids, self.prompt_slot(), piece * PIECE);
            pushed.expect("a piece of a prompt has tokens");
            logits = self.model.logits(&mut self.tape, &self.batch, &mut self.cache, Wanted::Last).to_vec();
        }
        self.ready = Some(Ready { prompt: Arc::clone(prompt), logits });
    }

    /// Draws one more token of every text; returns how many were drawn.
    pub(super) fn step(&mut self) -> usize {
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
        let logits = self.model.logits(&mut self.tape, &self.batch, &mut self.cache, Wanted::Last);
        let (width, capacity, drawn) = (logits.len() / going.len(), self.capacity, going.len());
        logits.par_chunks_mut(width).zip(going).for_each(|(logits, text)| text.choose(logits, capacity));
        drawn
    }

    /// Takes out the texts that ended, in the order in which they started; their slots are free.
    pub(super) fn finished(&mut self) -> Vec<Drawn> {
        let (ended, going) = std::mem::take(&mut self.texts).into_iter().partition(|text| text.end.is_some());
        self.texts = going;
        let ended: Vec<Text> = ended;
        self.free.extend(ended.iter().map(|text| text.slot));
        let drawn = |text: Text| Drawn { key: text.draw.key, ids: text.ids, end: text.end.unwrap_or(End::Length) };
        ended.into_iter().map(drawn).collect()
    }
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
        } else if self.draw.is_over.as_ref().is_some_and(|is_over| is_over(&self.ids)) {
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
        let cache = model.cache(slots + 1, 64);
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
        let cache = model.cache(4, 64);
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
