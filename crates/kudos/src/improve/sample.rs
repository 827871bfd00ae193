//! Responses that a policy draws, with their ids.

use super::ImproveError;
use crate::generate::{Draw, End, Engine, Sampler, Sampling, Wording};
use crate::models::Decoder;
use crate::random::Stream;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Responses that are written at once: reading the weights is what a step of writing costs, and these share it.
const AT_ONCE: usize = 32;

/// A response.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Its ids, with the one that ended it.
    pub ids: Vec<u32>,
    /// Its text, without that.
    pub text: String,
    /// Whether it was cut at the limit of tokens.
    pub cut: bool,
}

impl Response {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.text.trim().is_empty()
    }
}

/// What is drawn.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Responses to each prompt.
    pub n: usize,
    /// Most tokens of one.
    pub most: usize,
    /// How words are chosen.
    pub temperature: f32,
    /// Each response has the stream below it of its prompt's place and its own.
    pub random: Stream,
}

/// What came of it.
pub(super) enum Sampled {
    /// The responses to each prompt.
    All(Vec<Vec<Response>>),
    /// The logits are no numbers.
    NotFinite,
    /// Whoever watches asked to stop.
    Stopped,
}

/// Draws responses to prompts. `watch` hears of each token of every text.
pub(super) fn sample(
    writer: &mut Decoder,
    wording: &Wording,
    prompts: &[Arc<[u32]>],
    wanted: &Wanted,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Sampled, ImproveError> {
    let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(1);
    let total = prompts.len() * wanted.n;
    let capacity = (longest + wanted.most).min(writer.config.positions);
    let cache = writer.cache(total.min(AT_ONCE), capacity);
    let mut engine = Engine::new(writer, cache);
    let mut waiting = 0..total;
    let mut drawn = vec![None; total];
    loop {
        while engine.has_room() {
            let Some(key) = waiting.next() else { break };
            engine.start(draw(wording, prompts, wanted, key));
        }
        for one in engine.finished() {
            if one.end == End::NotFinite {
                return Ok(Sampled::NotFinite);
            }
            let (text, cut) = (wording.text(&one.ids)?, one.end == End::Length);
            drawn[one.key] = Some(Response { ids: one.ids, text, cut });
        }
        if engine.step() == 0 && engine.is_idle() && waiting.is_empty() {
            break;
        }
        if watch().is_break() {
            return Ok(Sampled::Stopped);
        }
    }
    let mut drawn = drawn.into_iter().map(|one| one.expect("each response ends"));
    Ok(Sampled::All(prompts.iter().map(|_| drawn.by_ref().take(wanted.n).collect()).collect()))
}

fn draw<'a>(wording: &'a Wording, prompts: &[Arc<[u32]>], wanted: &Wanted, key: usize) -> Draw<'a> {
    let (prompt, index) = (key / wanted.n, key % wanted.n);
    // What is learnt is the likelihood of what was drawn, so nothing but the temperature may stand between them.
    let plain = Sampling { repetition_penalty: 1.0, temperature: wanted.temperature, top_k: 0, top_p: 1.0, min_p: 0.0 };
    Draw {
        key,
        prompt: Arc::clone(&prompts[prompt]),
        sampler: Sampler::new(plain),
        random: wanted.random.fork(prompt as u64).fork(index as u64),
        stops: wording.stops(),
        most: wanted.most,
        is_over: None,
    }
}
