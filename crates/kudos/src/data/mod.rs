//! Files of human judgement → [`Group`]s: a prompt, its responses, and who beat whom.
//!
//! This module knows files and rankings; it must not know tokens or models.

mod columns;
mod csv;
mod error;
mod group;
mod jsonl;
mod load;
mod parquet;
mod reader;
mod record;
mod source;

pub use error::{DataError, ProblemKind, RowProblem};
pub use group::{Comparison, Group, Response};
pub use load::{FileInfo, Judged, Loaded, Origin, load_groups};
pub use reader::{Options, Reader, Row};
pub use record::{Candidate, Content, Kind, Location, Message, Record};
