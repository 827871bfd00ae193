//! One variant per way a data file can be wrong.
//!
//! Two levels: a [`DataError`] ends the reading of a file, a [`RowProblem`] costs one row, which is
//! counted and reported with its place. Every message is one line that says where, what was expected,
//! what was found and, when it ends the command, what to do. It is complete in itself: an inner error
//! is quoted, and not offered again as the `source` of the outer one.

use super::record::Location;
use std::io;
use std::sync::Arc;

/// What stops the reading or writing of a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file is missing or may not be read.
    #[error("{file}: expected a readable file, found {reason}; check the name and the permissions")]
    Open {
        /// The file as the user named it.
        file: Arc<str>,
        /// What the system said.
        reason: io::Error,
    },
    /// A directory was given.
    #[error("{file}: expected a file, found a directory; name the files in it, such as {file}/train.jsonl")]
    Directory {
        /// The directory as the user named it.
        file: Arc<str>,
    },
    /// There is no row at all.
    #[error("{file}: expected at least one row, found {found}; check that it was written completely")]
    Empty {
        /// The file as the user named it.
        file: Arc<str>,
        /// `an empty file`, `a header and no rows`, …
        found: &'static str,
    },
    /// The first bytes are those of a format that Kudos does not read.
    #[error("{file}: expected CSV, JSON, Parquet, Arrow or .xlsx, found {found}; {advice}")]
    Unsupported {
        /// The file as the user named it.
        file: Arc<str>,
        /// What the first bytes say it is.
        found: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A JSON document that is not one object a line must be held in memory, and is too long for that.
    #[error("{location}: expected a JSON document of at most {limit} bytes, found more; write one object a line")]
    DocumentTooLong {
        /// Where it starts.
        location: Location,
        /// The limit.
        limit: usize,
    },
    /// The columns (or the keys of the first row) are not those of any kind of data, or of more than one.
    #[error("{location}: expected {expected}, found {found}; {advice}")]
    Columns {
        /// Header line or first row.
        location: Location,
        /// The nearest kind of data and what it lacks.
        expected: String,
        /// The columns there are.
        found: String,
        /// What to do.
        advice: String,
    },
    /// Labels that are whole numbers, whose meaning cannot be known.
    #[error(
        "{location}: column `{column}`: expected a, b, tie, or a share of votes from 0 to 1, found the whole numbers \
         {found}; say what they mean: --labels a=…,b=…,tie=…"
    )]
    Labels {
        /// The first row with such a number outside of 0 and 1.
        location: Location,
        /// The column.
        column: String,
        /// The distinct numbers.
        found: String,
    },
    /// A row of another layout than the rows before it.
    #[error("{location}: expected a row of {expected} as before, found one of {found}; write a file for each layout")]
    Mixed {
        /// The row.
        location: Location,
        /// The file's layout.
        expected: String,
        /// The row's.
        found: String,
    },
    /// Ranks that go beyond the number of responses.
    #[error(
        "{location}: expected ranks of the {responses} responses, 1 the best, found {found} in most rankings like this; \
         say --rating {column} if higher is better, --rank {column} if lower is"
    )]
    RanksOrRatings {
        /// The first row of such a ranking.
        location: Location,
        /// The column.
        column: String,
        /// The responses of that ranking.
        responses: usize,
        /// The highest rank.
        found: f64,
    },
    /// Most rows are pairs without a prompt that do not begin alike.
    #[error(
        "{file}: expected a column `prompt`, or two sides that begin alike, found neither in {rows} rows; {}",
        advice_on_prompt(likely.as_deref())
    )]
    NoPrompt {
        /// The file as the user named it.
        file: String,
        /// Rows of this kind.
        rows: usize,
        /// The column that is likely the prompt.
        likely: Option<String>,
    },
    /// Two columns have the same name.
    #[error("{location}: expected distinct column names, found {column:?} twice; rename one of them")]
    DuplicateColumn {
        /// Header line.
        location: Location,
        /// The name that stands twice.
        column: String,
    },
    /// The file breaks off or is corrupt; what follows cannot be trusted.
    #[error("{location}: expected {expected}, found {found}; write or fetch the file again")]
    Damaged {
        /// The last line that was reached.
        location: Location,
        /// `a complete gzip stream`, …
        expected: &'static str,
        /// What the decoder said.
        found: String,
    },
    /// A quoted CSV field is never closed: an unknown number of rows are inside it.
    #[error(
        "{location}: expected a closing quote, found the end of the file; double the quotes inside the field (RFC 4180)"
    )]
    UnclosedQuote {
        /// Line the row starts at.
        location: Location,
    },
    /// Text after the `]` of a JSON array.
    #[error(
        "{location}: expected nothing after the closing `]`, found more text; write one JSON array, or one object a line"
    )]
    Trailing {
        /// Line of the first stray byte.
        location: Location,
    },
    /// The system failed to deliver the bytes.
    #[error("{location}: expected to read on, found {reason}; check the disk or the pipe")]
    Read {
        /// The last line that was reached.
        location: Location,
        /// What the system said.
        reason: io::Error,
    },
    /// So many ranked responses share one prompt that their pairs would not fit in memory.
    #[error(
        "{location}: expected at most {limit} ranked responses to one prompt, found {found}; check the `prompt` column"
    )]
    GroupTooLarge {
        /// First row of the group.
        location: Location,
        /// The limit.
        limit: usize,
        /// Responses with a rank.
        found: usize,
    },
    /// A row that cannot be used, where the caller asked to stop at the first.
    #[error("{0}; correct the row, or run without --strict to leave it out")]
    Row(RowProblem),
    /// The output could not be written.
    #[error("{file}: expected to write the output, found {reason}; check the directory and the free space")]
    Write {
        /// The output as the user named it.
        file: Arc<str>,
        /// What the system said.
        reason: io::Error,
    },
    /// A row that the output format cannot express.
    #[error(
        "{file}: row {row}, column {column:?}: expected {expected}, found {found}; write JSONL, which has no columns"
    )]
    Unwritable {
        /// The output as the user named it.
        file: Arc<str>,
        /// Row of the output, from 1.
        row: u64,
        /// The column.
        column: String,
        /// What the columns written so far allow.
        expected: String,
        /// What the row holds.
        found: String,
    },
}

impl DataError {
    /// True for a closed pipe (`kudos … | head`), which is no failure of ours.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, DataError::Write { reason, .. } if reason.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Sorts an error of a reader into "damaged" (said by a decoder) and "not delivered".
    pub(super) fn from_read(location: Location, expected: &'static str, reason: io::Error) -> Self {
        use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        match reason.kind() {
            UnexpectedEof => {
                let found = "its end too early".to_owned();
                DataError::Damaged { location, expected, found }
            }
            InvalidData | InvalidInput | Other => {
                let found = reason.to_string();
                DataError::Damaged { location, expected, found }
            }
            _ => DataError::Read { location, reason },
        }
    }
}

/// One row that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{location}: {kind}")]
pub struct RowProblem {
    /// Where the row starts.
    pub location: Location,
    /// What is wrong with it.
    pub kind: ProblemKind,
}

/// The ways a row can be unusable.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// Bytes that are not UTF-8.
    #[error("expected UTF-8, found an invalid byte at byte {byte} of {place}")]
    NotUtf8 {
        /// From 1, in the row or the field.
        byte: usize,
        /// `the line`, `the element`, or the column.
        place: String,
    },
    /// Half of a surrogate pair, as UTF-16 that was cut inside a character has it.
    #[error("expected text, found half of a character at byte {byte} of {place}")]
    HalfCharacter {
        /// From 1, in the row or the field, as UTF-8.
        byte: usize,
        /// `the line`, `the element`, or the column.
        place: String,
    },
    /// UTF-8 in a file whose earlier rows are Windows-1252.
    #[error("expected Windows-1252 as in an earlier row, found UTF-8: the file mixes two encodings")]
    MixedEncodings,
    /// A byte that Windows-1252 does not define, in a file whose earlier rows are Windows-1252.
    #[error("expected Windows-1252 as in an earlier row, found an undefined byte at byte {byte} of {place}")]
    NotWindows1252 {
        /// From 1, in the field.
        byte: usize,
        /// The field.
        place: String,
    },
    /// A cell of a workbook that has no value.
    #[error("cell {cell}: expected a value, found {found}")]
    BadCell {
        /// Its name, as `B7`.
        cell: String,
        /// The error in it, or why there is no value.
        found: String,
    },
    /// A row whose texts were cut before they were saved.
    #[error("expected whole texts, found {columns} cut short by the server; fetch the data set's own files")]
    CutShort {
        /// The columns.
        columns: String,
    },
    /// Not a JSON object, or not JSON at all.
    #[error("expected a JSON object, found {found}")]
    BadJson {
        /// The parser's words, with the column.
        found: String,
    },
    /// A CSV row with more or fewer fields than the header.
    #[error("expected {expected} fields as in the header, found {found}")]
    Ragged {
        /// Fields of the header.
        expected: usize,
        /// Fields of the row.
        found: usize,
    },
    /// Text between a closing quote and the next separator.
    #[error(
        "expected a separator after the closing quote of field {field}, found text (a quote inside a field is doubled)"
    )]
    BadQuote {
        /// From 1.
        field: usize,
    },
    /// Longer than [`super::Options::max_row_bytes`].
    #[error("expected at most {limit} bytes in a row, found more")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// Keys that this kind of row needs are absent.
    #[error("expected {expected}, found {found}")]
    Missing {
        /// The nearest kind of data and what it lacks.
        expected: String,
        /// The keys there are.
        found: String,
    },
    /// A value of another type.
    #[error("column `{column}`: expected {expected}, found {found}")]
    WrongType {
        /// The column.
        column: String,
        /// `text or a list of messages`, `a number`, …
        expected: &'static str,
        /// The value, shortened.
        found: String,
    },
    /// A number outside its range, NaN included.
    #[error("column `{column}`: expected {expected}, found {found}")]
    OutOfRange {
        /// The column.
        column: String,
        /// The range.
        expected: &'static str,
        /// The number.
        found: f64,
    },
    /// A label that is none of those known.
    #[error("column `label`: expected a, b, tie or a number from 0 to 1, found {found}")]
    UnknownLabel {
        /// The label, shortened.
        found: String,
    },
    /// A text of white space only, or no text.
    #[error("column `{column}`: expected text, found nothing")]
    EmptyText {
        /// The column; `responses[3].text` in a group.
        column: String,
    },
    /// A group with fewer than two usable responses.
    #[error("column `responses`: expected at least 2 usable responses, found {found}")]
    TooFew {
        /// Those there are.
        found: usize,
    },
    /// Both sides of a comparison are the same text.
    #[error("expected two different responses, found the same one twice")]
    Identical,
    /// A response of a ranking stood before with another rank.
    #[error("expected one rank for a response, found the text of {earlier} with another rank; neither is preferred")]
    RankedTwice {
        /// Where it stood first.
        earlier: Location,
    },
    /// No prompt, and sides that do not begin alike.
    #[error("expected a column `prompt`, or two sides that begin alike, found neither; {}", advice_on_prompt(likely.as_deref()))]
    NoPrompt {
        /// The column that is likely the prompt.
        likely: Option<String>,
    },
    /// A text that is a list in the writing of some programming language.
    #[error(
        "column `{column}`: expected a text or messages, found {found:?}, which looks like a list that was written as text"
    )]
    Serialised {
        /// The column.
        column: String,
        /// Its beginning.
        found: String,
    },
    /// A turn of a conversation that cannot be read.
    #[error("column `{column}`, message {number}: expected a text, found {found}")]
    Message {
        /// The column.
        column: String,
        /// The turn, from 1.
        number: usize,
        /// What it holds.
        found: String,
    },
    /// A response that ends with a turn of the user.
    #[error("column `{column}`: expected a reply as the last turn, found one of the role {role:?}")]
    LastSpeaker {
        /// The column.
        column: String,
        /// Whose turn it is.
        role: String,
    },
    /// A row with pictures, sound or film.
    #[error("column `{column}`: expected text alone, found something to be seen or heard")]
    NotText {
        /// The column.
        column: String,
    },
    /// A column `history` beside `prompt`.
    #[error(
        "column `history`: expected nothing beside `prompt`, found earlier turns; --columns history=history puts them in front"
    )]
    History,
    /// A label of which `--labels` says nothing.
    #[error("expected a label of --labels ({}), found {found}", known.join(", "))]
    UncoveredLabel {
        /// The label.
        found: String,
        /// Those that have a meaning.
        known: Vec<String>,
    },
    /// A row that a tool marks as not to be used.
    #[error("expected an assignment that counts, found the status {found:?}")]
    Status {
        /// The status.
        found: String,
    },
    /// Texts that the judge's tokenizer or its chat template refuses.
    #[error("{reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// A conversation that does not begin with the prompt of its row.
    #[error(
        "column `{column}`: expected the reply alone, or a conversation that begins with `prompt`, found another prompt"
    )]
    OtherPrompt {
        /// The column of the conversation.
        column: String,
    },
}

impl ProblemKind {
    /// A stable name for counting and for JSON.
    pub fn name(&self) -> &'static str {
        match self {
            ProblemKind::NotUtf8 { .. } | ProblemKind::HalfCharacter { .. } => "not_utf8",
            ProblemKind::MixedEncodings | ProblemKind::NotWindows1252 { .. } => "mixed_encodings",
            ProblemKind::BadCell { .. } => "bad_cell",
            ProblemKind::CutShort { .. } => "cut_short",
            ProblemKind::BadJson { .. } => "bad_json",
            ProblemKind::Ragged { .. } => "ragged",
            ProblemKind::BadQuote { .. } => "bad_quote",
            ProblemKind::TooLong { .. } => "too_long",
            ProblemKind::Missing { .. } => "missing_column",
            ProblemKind::WrongType { .. } => "wrong_type",
            ProblemKind::OutOfRange { .. } => "out_of_range",
            ProblemKind::UnknownLabel { .. } => "unknown_label",
            ProblemKind::EmptyText { .. } => "empty",
            ProblemKind::TooFew { .. } => "too_few_responses",
            ProblemKind::Identical | ProblemKind::RankedTwice { .. } => "identical",
            ProblemKind::OtherPrompt { .. } => "other_prompt",
            ProblemKind::NoPrompt { .. } => "no_prompt",
            ProblemKind::Serialised { .. } => "serialised",
            ProblemKind::Message { .. } => "message",
            ProblemKind::LastSpeaker { .. } => "last_speaker",
            ProblemKind::History => "history",
            ProblemKind::NotText { .. } => "not_text",
            ProblemKind::UncoveredLabel { .. } => "unknown_label",
            ProblemKind::Status { .. } => "status",
            ProblemKind::Refused { .. } => "refused",
        }
    }
}

fn advice_on_prompt(likely: Option<&str>) -> String {
    match likely {
        Some(column) => format!("is it `{column}`? --columns prompt={column}"),
        None => "add the column, or say where it is: --columns prompt=…".to_owned(),
    }
}
