//! What the tests of this crate share.

use crate::ask::{Ask, Cut, FaultKind, Item, ItemFault, JudgeFacts, Scorer, Tokeniser};
use kudos::data::Content;
use kudos::models::{Rated, Scored};
use kudos::nn::Precision;
use kudos::text::Encoded;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Numbers that are the same in each run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995)
    }

    pub(crate) fn next(&mut self) -> u64 {
        // Xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 to `most`, without it.
    pub(crate) fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }

    pub(crate) fn one_of<T>(&mut self, values: impl Iterator<Item = T>) -> Option<T> {
        let mut values: Vec<T> = values.collect();
        if values.is_empty() { None } else { Some(values.swap_remove(self.below(values.len()))) }
    }
}

pub(crate) fn facts(name: &str) -> JudgeFacts {
    JudgeFacts {
        name: name.into(),
        sha256: "00".repeat(32),
        base: String::new(),
        max_length: 64,
        labels: vec!["LABEL_0".into()],
        precision: Precision::F32,
        calibration: None,
        attributes: Vec::new(),
        loaded_at: SystemTime::UNIX_EPOCH,
    }
}

/// A token for each byte of prompt and response, 64 at most. Some texts have their own ways:
/// `!panic` panics, `!refuse` is refused, `!slow` takes until it is released.
#[derive(Default)]
pub(crate) struct Bytes {
    pub(crate) slow: Arc<std::sync::RwLock<()>>,
}

fn text(content: &Content) -> &str {
    match content {
        Content::Text(text) => text,
        Content::Messages(_) => "",
    }
}

impl Tokeniser for Bytes {
    fn encode(&self, item: &Item) -> Result<Encoded, ItemFault> {
        let response = text(&item.response);
        match response {
            "!panic" => panic!("the tokenizer was asked to"),
            "!refuse" => return Err(ItemFault::new(FaultKind::Tokenise, "refused")),
            "!slow" => drop(self.slow.read()),
            _ => {}
        }
        let prompt = item.prompt.as_deref().map_or("", text);
        let mut ids: Vec<u32> = prompt.bytes().chain(response.bytes()).map(u32::from).collect();
        let tokens_before_truncation = ids.len();
        ids.truncate(64);
        Ok(Encoded {
            type_ids: vec![0; ids.len()],
            truncated: tokens_before_truncation > ids.len(),
            tokens_before_truncation,
            ids,
        })
    }
}

/// The score of an encoded text by [`Sums`].
pub(crate) fn sum_of(encoded: &Encoded) -> f32 {
    encoded.ids.iter().enumerate().map(|(place, id)| (place as f32 + 1.0) * *id as f32).sum()
}

/// A sum of the ids by their places. Batches with a text that begins with `X` panic, those that begin with `N` are no
/// number.
#[derive(Default)]
pub(crate) struct Sums {
    /// The time that a batch takes.
    pub(crate) time: Duration,
    /// Whether the batch before panicked, and nothing was renewed.
    pub(crate) is_broken: bool,
}

impl Scorer for Sums {
    fn run(&mut self, texts: &[&Encoded]) -> Vec<Result<Rated, ItemFault>> {
        assert!(!self.is_broken, "what a panic left behind was not renewed");
        std::thread::sleep(self.time);
        if texts.iter().any(|text| text.ids[0] == u32::from(b'X')) {
            self.is_broken = true;
            panic!("the scorer was asked to");
        }
        let score = |text: &&Encoded| if text.ids[0] == u32::from(b'N') { f32::NAN } else { sum_of(text) };
        let rated = |text| Rated { scored: Scored::new(score(text), text), attributes: Vec::new() };
        texts.iter().map(|text| Ok(rated(text))).collect()
    }

    fn renew(&mut self) {
        self.is_broken = false;
    }
}

/// A request for responses without a prompt.
pub(crate) fn ask(responses: &[&str]) -> Ask {
    let item = |text: &&str| Ok(Item { prompt: None, response: Content::Text((*text).into()), cut: Cut::AsTrained });
    Ask { judge: None, items: responses.iter().map(item).collect() }
}

/// Its score by [`Bytes`] and [`Sums`].
pub(crate) fn expected(response: &str) -> f32 {
    let item = Item { prompt: None, response: Content::Text(response.into()), cut: Cut::AsTrained };
    sum_of(&Bytes::default().encode(&item).unwrap())
}
