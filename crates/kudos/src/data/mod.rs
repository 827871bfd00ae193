//! Files of human judgement → [`Group`]s: a prompt, its responses, and who beat whom.
//!
//! This module knows files and rankings; it must not know tokens or models.

mod arrow;
pub mod check;
mod columnar;
mod columns;
mod conversation;
mod csv;
mod document;
mod encoding;
mod error;
mod group;
pub mod integer;
mod jsonl;
mod load;
mod pairs;
mod reader;
mod record;
mod rows;
mod separator;
mod sink;
mod source;
mod split;
mod table;
mod writer;
mod xlsx;

pub(crate) use columns::{PROMPT, prompt, prompt_cell};
pub use error::{DataError, ProblemKind, RowProblem};
pub use group::{Attributes, Comparison, Extra, Group, Judged, Response};
pub use load::{FileInfo, Loaded, Origin, load_groups};
pub use pairs::preferences;
pub use reader::{Options, Reader, Row, column_names};
pub use record::{ASSISTANT, Candidate, Content, Kind, Location, Message, Reading, Record, USER};
pub(crate) use rows::Rows;
pub use sink::Compression;
pub use split::{held_out_by_prompt, prompt_folds, split_by_prompt};
pub use writer::{Encoding, FIRST_ROWS, OutputFormat, Writer};
