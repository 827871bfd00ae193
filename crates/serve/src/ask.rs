//! What stands between a dialect and the judges: what is asked, what is answered, and what is refused.
//!
//! A dialect turns bytes into an [`Ask`], and an [`Answer`] or a [`Refusal`] into a response. It knows no queue, no
//! socket and no model; the batcher knows no JSON.

use kudos::data::Content;
use kudos::models::{Calibration, Rated};
use kudos::nn::Precision;
use kudos::text::Encoded;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// One (prompt, response) to score; without a prompt, the response is a whole transcript.
#[derive(Clone, Debug)]
pub struct Item {
    /// The prompt, shared by all responses to it.
    pub prompt: Option<Arc<Content>>,
    /// The response.
    pub response: Content,
    /// What happens to a text beyond the judge's token limit.
    pub cut: Cut,
}

/// What happens to a text beyond the judge's token limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// It is cut as in training, and its score says so.
    #[default]
    AsTrained,
    /// It is an error of the item ([`FaultKind::TooLong`]).
    Refuse,
}

/// A request for scores.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// The judge's name; `None` is the first one.
    pub judge: Option<String>,
    /// What to score. An item that could not be read from the request is a fault already, and is answered in its place.
    pub items: Vec<Result<Item, ItemFault>>,
}

/// Why one item has no score; the others of its request are scored all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ItemFault {
    /// Which kind.
    pub kind: FaultKind,
    /// One sentence for people: what was expected, what was found. It holds no text of the request.
    pub message: String,
}

impl ItemFault {
    /// A fault with its sentence.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        ItemFault { kind, message: message.into() }
    }
}

/// Kinds of faults of one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The request does not say what to score here.
    Invalid,
    /// More tokens than the judge reads, and the request forbids to cut.
    TooLong,
    /// More characters than the server takes.
    Characters,
    /// The tokenizer or the chat template refused the text.
    Tokenise,
    /// The model refused the text.
    Score,
    /// The score is not a number.
    NotFinite,
    /// Tokenising took too long.
    TimedOut,
    /// The code that worked on it failed.
    Panicked,
}

impl FaultKind {
    /// All of them, in the order of the metrics.
    pub const ALL: [FaultKind; 8] = [
        FaultKind::Invalid,
        FaultKind::TooLong,
        FaultKind::Characters,
        FaultKind::Tokenise,
        FaultKind::Score,
        FaultKind::NotFinite,
        FaultKind::TimedOut,
        FaultKind::Panicked,
    ];

    /// Its name in answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Invalid => "invalid",
            FaultKind::TooLong => "too_long",
            FaultKind::Characters => "characters",
            FaultKind::Tokenise => "tokenise",
            FaultKind::Score => "score",
            FaultKind::NotFinite => "not_finite",
            FaultKind::TimedOut => "timed_out",
            FaultKind::Panicked => "panicked",
        }
    }

    /// Whether the client is to blame: a second try with the same text would end alike.
    pub fn is_of_the_text(self) -> bool {
        !matches!(self, FaultKind::NotFinite | FaultKind::Panicked | FaultKind::Score)
    }
}

/// A score with what it was computed from.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemScore {
    /// Score, tokens, whether it was cut, and the outputs for attributes. Always finite.
    pub rated: Rated,
    /// Characters of prompt and response.
    pub characters: usize,
}

/// What is known of a judge that is loaded.
#[derive(Clone, Debug)]
pub struct JudgeFacts {
    /// The name under which requests ask for it.
    pub name: String,
    /// SHA-256 of the weights' file, in hexadecimal; of several files, of their hashes one after the other.
    pub sha256: String,
    /// What its training started from; empty where `reward.json` does not say.
    pub base: String,
    /// Most tokens of a text.
    pub max_length: usize,
    /// Names of the model's outputs, as `id2label` has them (`LABEL_0` where it has none). Never empty.
    pub labels: Vec<String>,
    /// The arithmetic that it scores with.
    pub precision: Precision,
    /// How scores are read as probabilities.
    pub calibration: Option<Calibration>,
    /// What the outputs rate, in the order of [`Rated::attributes`]; empty for a judge whose one output is the score.
    pub attributes: Vec<String>,
    /// When it was loaded.
    pub loaded_at: SystemTime,
}

impl JudgeFacts {
    /// What divides a margin before it is read as a probability: 1 without a calibration.
    pub fn temperature(&self) -> f32 {
        self.calibration.map_or(1.0, |calibration| calibration.temperature)
    }
}

/// Where the time of a request went. The parts overlap where a large request is scored while it is still tokenised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// From the request's arrival at the judge until its last text was tokenised.
    pub tokenise: Duration,
    /// Waiting for a place in a batch.
    pub queue: Duration,
    /// In batches that were being computed.
    pub inference: Duration,
    /// All of it.
    pub total: Duration,
}

/// What a request is answered: one result for each item, in their order.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The judge that scored all of it.
    pub judge: Arc<JudgeFacts>,
    /// The results.
    pub items: Vec<Result<ItemScore, ItemFault>>,
    /// Where the time went.
    pub times: Times,
}

impl Answer {
    /// Tokens that the model read.
    pub fn tokens(&self) -> usize {
        self.items.iter().flatten().map(|item| item.rated.scored.tokens).sum()
    }

    /// Characters of the items that were scored.
    pub fn characters(&self) -> usize {
        self.items.iter().flatten().map(|item| item.characters).sum()
    }
}

/// Why a whole request is not served. Nothing of it was computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No key, or another one.
    #[error("the request has no valid key; send `Authorization: Bearer KEY`")]
    Unauthorised,
    /// From another site, or for another host.
    #[error("{0}")]
    Forbidden(String),
    /// No such path.
    #[error("there is no {0} here; GET /docs lists what there is")]
    NoSuchPath(String),
    /// The path has other methods.
    #[error("the path takes {0}")]
    Method(String),
    /// The judge is not served here.
    #[error("there is no judge `{asked}`; this server has {}", .known.join(", "))]
    NoSuchJudge {
        /// The name in the request.
        asked: String,
        /// The names that are known.
        known: Vec<String>,
    },
    /// The queue is full.
    #[error("the server is busy; try again in {} s", seconds(*.retry_after))]
    Overloaded {
        /// When there will be room, at the present rate.
        retry_after: Duration,
    },
    /// More items than a request may have.
    #[error("the request has {found} items, at most {limit} are taken; send it in parts")]
    TooManyItems {
        /// Items of the request.
        found: usize,
        /// Items allowed.
        limit: usize,
    },
    /// A body or texts beyond the limit.
    #[error("the request has {found} {unit}, at most {limit} are taken; send it in parts")]
    TooLarge {
        /// `bytes` or `characters`.
        unit: &'static str,
        /// How many the request has, or says it has.
        found: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// The body did not arrive in time.
    #[error("the request's body did not arrive within {} s", seconds(*.0))]
    TooSlow(Duration),
    /// The judges are being loaded.
    #[error("the server is not ready: its judges are being loaded")]
    NotReady,
    /// The server is about to end.
    #[error("the server is about to end; send the request to another")]
    Draining,
    /// A body or a parameter that cannot be read.
    #[error("{message}")]
    Malformed {
        /// What was expected, what was found.
        message: String,
    },
    /// A well-formed request for what this server does not do.
    #[error("{message}")]
    Unsupported {
        /// What was asked, and what can be asked.
        message: String,
    },
    /// A body in a coding or of a kind that is not taken.
    #[error("{message}")]
    MediaType {
        /// What was expected, what was found.
        message: String,
    },
    /// The server failed; a bug.
    #[error("the server failed on this request")]
    Failed,
}

/// Seconds for people and for `Retry-After`: whole ones, at least one.
pub fn seconds(time: Duration) -> u64 {
    (time.as_secs_f64().ceil() as u64).max(1)
}

impl Refusal {
    /// A malformed request.
    pub fn malformed(message: impl Into<String>) -> Self {
        Refusal::Malformed { message: message.into() }
    }

    /// A request for what cannot be had.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Refusal::Unsupported { message: message.into() }
    }

    /// The status that HTTP has for it. A dialect may have another.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed { .. } | Refusal::TooManyItems { .. } | Refusal::Unsupported { .. } => 400,
            Refusal::Unauthorised => 401,
            Refusal::Forbidden(_) => 403,
            Refusal::NoSuchPath(_) | Refusal::NoSuchJudge { .. } => 404,
            Refusal::Method(_) => 405,
            Refusal::TooSlow(_) => 408,
            Refusal::TooLarge { .. } => 413,
            Refusal::MediaType { .. } => 415,
            Refusal::Overloaded { .. } => 429,
            Refusal::Failed => 500,
            Refusal::NotReady | Refusal::Draining => 503,
        }
    }

    /// Its name in metrics and in our own error bodies.
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::Unauthorised => "unauthorised",
            Refusal::Forbidden(_) => "forbidden",
            Refusal::NoSuchPath(_) => "no_such_path",
            Refusal::Method(_) => "method",
            Refusal::NoSuchJudge { .. } => "no_such_judge",
            Refusal::Overloaded { .. } => "overloaded",
            Refusal::TooManyItems { .. } => "too_many_items",
            Refusal::TooLarge { .. } => "too_large",
            Refusal::TooSlow(_) => "too_slow",
            Refusal::NotReady => "not_ready",
            Refusal::Draining => "draining",
            Refusal::Malformed { .. } => "malformed",
            Refusal::Unsupported { .. } => "unsupported",
            Refusal::MediaType { .. } => "media_type",
            Refusal::Failed => "failed",
        }
    }

    /// After how many seconds a client may try again (the header `Retry-After`); `None` where it would be in vain.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Refusal::Overloaded { retry_after } => Some(seconds(*retry_after)),
            Refusal::NotReady => Some(1),
            _ => None,
        }
    }
}

/// What scores a batch of encoded texts: a model, or in tests a rule.
pub trait Scorer: Send + 'static {
    /// One result for each text, in their order. It may panic: the batch is then bisected.
    fn run(&mut self, texts: &[&Encoded]) -> Vec<Result<Rated, ItemFault>>;

    /// Whether texts that begin alike cost less in one batch: then [`kudos::models::saved_tokens`] says how much.
    fn shares(&self) -> bool {
        false
    }

    /// Forgets all that an interrupted run may have left behind.
    fn renew(&mut self) {}
}

/// What makes ids of an item: a judge's encoder, or in tests a rule. It may panic, and it may take long.
pub trait Tokeniser: Send + Sync + 'static {
    /// The ids of one text, cut to the judge's limit.
    ///
    /// # Errors
    /// The fault of this item.
    fn encode(&self, item: &Item) -> Result<Encoded, ItemFault>;
}
