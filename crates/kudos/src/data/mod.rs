//! Files of human judgement → [`Group`]s: a prompt, its responses, and who beat whom.
//!
//! This module knows files and rankings; it must not know tokens or models.

mod arrow;
mod beside;
mod cells;
pub mod check;
mod columnar;
mod columns;
mod content;
mod conversation;
mod convert;
mod csv;
mod document;
mod encoding;
mod error;
mod group;
pub mod integer;
mod jsonl;
mod layouts;
mod literal;
mod load;
mod mapping;
mod pairs;
mod part;
mod reader;
mod record;
mod rows;
mod schema;
mod separator;
mod sink;
mod source;
mod split;
mod table;
mod transcript;
mod verdict;
mod writer;
mod xlsx;

pub use beside::{MEANT, beside};
pub use columnar::{Batches, contents};
pub(crate) use columns::{PROMPT, prompt};
pub use convert::{converted, converted_kinds};
pub use error::{DataError, ProblemKind, RowProblem};
pub use group::{Attributes, Comparison, Extra, Group, Judged, Response};
pub use layouts::layouts;
pub use load::{FileInfo, Loaded, Origin, load_groups};
pub use mapping::{Mapping, MappingError, MappingText};
pub use pairs::preferences;
pub use part::{Part, PartFault, part_bytes};
pub use reader::{Options, Place, Reader, Row, column_names};
pub use record::{ASSISTANT, Candidate, Content, Kind, Location, Message, RankOrRating, Reading, Record, USER};
pub(crate) use rows::Rows;
pub use rows::TextPlace;
pub use schema::Schema;
pub use sink::Compression;
pub use split::{held_out_by_prompt, prompt_folds, split_by_prompt};
pub use writer::{Encoding, FIRST_ROWS, OutputFormat, Writer};
