//! People's rankings: collected so that none is lost, merged, and turned into preferences.
//!
//! This crate knows people, items and votes. All but [`app`] knows nothing of HTTP, and none of it knows models: what a judge
//! says of responses comes in as numbers.
//!
//! | module | purpose |
//! |---|---|
//! | [`store`] | the database: one writer, schema, people |
//! | [`import`] | groups of a data file → items |
//! | [`queue`] | which item a person gets next |
//! | [`votes`] | ballots: checked, stored once, withdrawn by a new row |
//! | [`agreement`] | how far people agree, with intervals |
//! | [`merge`] | several people's votes → one soft label a pair |
//! | [`crowd`] | Crowd-Bradley-Terry: the reliability of each person |
//! | [`results`] | all figures of a database |
//! | [`informative`] | how much a vote on an item would tell |
//! | [`export`] | votes → the formats that Kudos and others read |

pub mod agreement;
pub mod app;
pub mod crowd;
mod error;
pub mod export;
pub mod import;
pub mod informative;
pub mod merge;
pub mod queue;
pub mod results;
mod schema;
pub mod store;
pub mod votes;

pub use error::{BallotError, StoreError};
pub use import::{Import, ImportReport, ImportSource};
pub use queue::{Order, Progress, QueueSettings, Shown, Task};
pub use schema::{APPLICATION_ID, VERSION};
pub use store::{Store, is_ranking_database};
pub use votes::{Ballot, Receipt, Revealed, Vote};

/// A prompt with its responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ItemId(pub i64);

/// A response of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ResponseId(pub i64);

/// A person who ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct AnnotatorId(pub i64);

/// One showing of an item to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub i64);
