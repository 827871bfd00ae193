//! Generation: many responses to many prompts, from a model that runs here or from an endpoint.
//!
//! A job is a list of prompts and what is wanted of each. Its responses come in any order, each is on disk
//! as soon as it is finished, and each is a function of its prompt, its settings and its own random stream
//! alone: neither the batch it was decoded in, nor the number of threads, nor an interruption changes it.
//!
//! This module knows models and texts. It must not know training or evaluation.

mod diversity;
mod endpoint;
mod engine;
mod identity;
mod job;
mod journal;
mod local;
mod prompts;
mod sampler;
mod schedule;
mod stop;

pub use diversity::{Distinct, Diversity, NEAR, distinct_n, duplicates, similarity};
pub use endpoint::{Endpoint, EndpointError, EndpointSettings, Event, MAX_CONCURRENCY};
pub(crate) use engine::{Draw, End, Engine};
pub use identity::fingerprint;
pub use job::{Attempt, FinishReason, Generated, Prompt, Sampling, Task, shortest};
pub use journal::{Journal, JournalError, write_output};
pub use local::{GenerateError, LocalModel, LocalSettings, Wording};
pub use prompts::{PromptError, PromptList, read_prompts};
pub use sampler::{Sampler, Seen};
pub use schedule::{Decision, MAX_RETRIES, Schedule, Wanted, decide, seed_of};
pub use stop::StopStrings;
