//! The rows of a file, one at a time, whatever its format.
//!
//! This is what streams: `score` and `best` read rows here and write them back with more columns, at a
//! memory that does not grow with the file. What is wrong with a row comes as [`DataError::Row`] and the
//! next call goes on after it; any other error ends the file.

use super::cells::{Cells, Memory};
use super::columnar::Batches;
use super::error::{DataError, ProblemKind, RowProblem};
use super::layouts::{Outcome, Part, Plan, Refusal, own_row};
use super::mapping::{Mapping, Source};
use super::record::{Kind, Location, Record};
use super::rows::{Rows, TextPlace};
use super::source::{self, Source as Input};
use super::verdict;
use arrow_schema::Schema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

/// How files are read.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Make the first unusable row an error. Otherwise unusable rows are reported and left out.
    pub strict: bool,
    /// Bytes of one row (a line, a CSV record, an array element) beyond which it is unusable: 64 MiB.
    pub max_row_bytes: usize,
    /// What the user says of the columns.
    pub mapping: Mapping,
    /// True where labels are read: a file whose labels cannot be understood is an error. Otherwise they are passed over.
    pub labelled: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { strict: false, max_row_bytes: 64 << 20, mapping: Mapping::default(), labelled: true }
    }
}

/// One row: what it says, where it stands, and all its columns as they were.
#[derive(Clone, Debug)]
pub struct Row {
    /// What the row says.
    pub record: Record,
    /// Where it starts.
    pub location: Location,
    /// All columns in their order. Numbers of CSV's known columns are numbers; its others are text. An integer beyond 64
    /// bits is an object that [`digits`](super::integer::digits) knows, and that [`super::Writer`] writes as it was.
    pub original: Map<String, Value>,
    /// Whose ranking the row belongs to, where the file says it: rankings of one prompt by two people are two.
    pub ranker: Option<Arc<str>>,
    plan: Arc<Plan>,
    /// True for a row that was made of a part of the file's row, in a kind of our own.
    is_part: bool,
}

impl Row {
    /// The record, its place, and the columns that the record does not hold.
    pub fn into_parts(self) -> (Record, Location, Map<String, Value>) {
        let held = |name: &String, value: &Value| !self.is_part && self.plan.holds_value(name, value);
        let extra = self.original.iter().filter(|(name, value)| !held(name, value));
        let extra = extra.filter(|(name, _)| !(self.is_part && OWN.contains(&name.as_str())));
        let extra = extra.map(|(name, value)| (name.clone(), value.clone())).collect();
        (self.record, self.location, extra)
    }

    /// True if its rows, and not the file, say of whom the ranking is, and the user has not asked for it.
    pub(super) fn ranker_is_guessed(&self) -> bool {
        self.plan.ranker.as_ref().is_some_and(|(_, said)| !said)
    }

    /// The column of the ranks, where it is one of our own kinds' and the user has not said that it holds ranks.
    pub(super) fn unsaid_ranks(&self) -> Option<String> {
        let is_own = self.plan.layout.name.is_empty() && self.record.kind() == Kind::Ranked;
        (is_own && !self.plan.ranks_are_said).then(|| self.plan.view.alias("rank").unwrap_or("rank").to_owned())
    }
}

/// The columns of rows that a part of a row is written as.
const OWN: [&str; 10] = [
    "prompt",
    "responses",
    "comparisons",
    "response",
    "rank",
    "rating",
    "chosen",
    "rejected",
    "response_a",
    "response_b",
];

/// The names of all columns of all rows of a file, read to its end where the format has no header; `None` where it can be read
/// only once (`-`, a pipe). What is wrong with the file is left to its reader.
///
/// # Errors
/// If the file cannot be opened, or begins as no known format does.
pub fn column_names(path: impl AsRef<Path>, options: &Options) -> Result<Option<HashSet<String>>, DataError> {
    if !path.as_ref().is_file() {
        return Ok(None);
    }
    let mut rows = Rows::open(path.as_ref(), options.max_row_bytes)?;
    let mut names = HashSet::new();
    if let Some((header, _)) = rows.columns()? {
        names.extend(header.into_iter().map(str::to_owned));
        return Ok(Some(names));
    }
    while let Ok(Some((_, fields))) = rows.next() {
        let new = fields.unwrap_or_default().into_iter().map(|(name, _)| name);
        names.extend(new);
    }
    Ok(Some(names))
}

/// A streaming reader of one file: an iterator of rows.
pub struct Reader {
    rows: Rows,
    /// How every row is read (CSV, Parquet), or the last one (JSON).
    plan: Option<Arc<Plan>>,
    /// The keys of the last row, where each row has its own.
    keys: Vec<String>,
    /// True where the format says the columns once for all rows.
    fixed: bool,
    done: bool,
    options: Options,
    memory: Memory,
    /// Further records of the row that was read last.
    waiting: VecDeque<Row>,
    /// What the file was read as.
    layout: Option<String>,
    /// Rows that hold no judgement, and the first reason.
    passed_over: (u64, Option<&'static str>),
    /// Rows of the file after which it reads no further.
    end: Option<u64>,
    /// Whether what it reads from has no rows after these.
    is_range: bool,
}

/// Where a row of a file begins: enough to read on from there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Rows before it, usable or not.
    pub row: u64,
    /// Where it lies, in texts that one can jump in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextPlace>,
}

impl Reader {
    /// Opens a file (`-` is standard input), recognises its format and, where it has one, its header.
    ///
    /// # Errors
    /// If the file cannot be opened, is empty, is of no known format, or lacks the columns of every kind.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Reader, DataError> {
        Self::new(source::open(path.as_ref())?, options)
    }

    /// Reads what is not a file; `name` stands for it in messages.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn from_read(name: &str, input: impl Read + Send + 'static, options: &Options) -> Result<Reader, DataError> {
        Self::new(source::recognise(name.into(), Box::new(input), None)?, options)
    }

    /// Reads bytes in memory; `name` stands for them in messages.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn from_bytes(name: &str, bytes: Vec<u8>, options: &Options) -> Result<Reader, DataError> {
        Self::from_read(name, Cursor::new(bytes), options)
    }

    /// Reads Arrow batches of one schema, such as those of a table in memory; `name` stands for them in messages, and row
    /// numbers for lines. They have no hash.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn from_batches(name: &str, schema: &Schema, batches: Batches, options: &Options) -> Result<Reader, DataError> {
        Self::of_rows(Rows::of_batches(name, batches, schema), options)
    }

    fn new(source: Input, options: &Options) -> Result<Reader, DataError> {
        Self::of_rows(Rows::new(source, options.max_row_bytes)?, options)
    }

    fn of_rows(rows: Rows, options: &Options) -> Result<Reader, DataError> {
        let mut reader = Reader {
            rows,
            plan: None,
            keys: Vec::new(),
            fixed: false,
            done: false,
            options: options.clone(),
            memory: Memory::default(),
            waiting: VecDeque::new(),
            layout: None,
            passed_over: (0, None),
            end: None,
            is_range: false,
        };
        reader.recognise_header()?;
        Ok(reader)
    }

    /// Opens a file at the rows after `from`, and reads so many of its rows.
    ///
    /// # Errors
    /// As [`Reader::open`], and if the file is another one than that where the place was found.
    pub fn open_at(path: &Path, options: &Options, from: &Place, rows: u64) -> Result<Reader, DataError> {
        let file: Arc<str> = path.to_string_lossy().into();
        let fail = |reason| DataError::Open { file: file.clone(), reason };
        let mut raw = File::open(path).map_err(fail)?;
        let mut magic = [0; 4];
        let is_parquet = raw.read_exact(&mut magic).is_ok() && &magic == b"PAR1";
        if !is_parquet {
            let mut reader = Self::open(path, options)?;
            reader.go_to(path, from, rows)?;
            return Ok(reader);
        }
        let mut reader = Self::of_rows(Rows::of_parquet(&file, raw, from.row, rows)?, options)?;
        (reader.end, reader.is_range) = (Some(from.row + rows), true);
        Ok(reader)
    }

    /// Goes on to a later place of the file, and reads so many rows there. How rows are read is learnt from the first ones, so
    /// some of these are read in any case.
    ///
    /// # Errors
    /// As reading on has them, and if the file is another one than that where the place was found.
    pub fn go_to(&mut self, path: &Path, from: &Place, rows: u64) -> Result<(), DataError> {
        (self.done, self.end) = (false, Some(from.row.saturating_add(rows)));
        while self.rows.count() < from.row {
            if let (Some(place), Some(_)) = (&from.text, &self.plan) {
                let file = self.file().clone();
                let jumped = self.rows.jump(path, place, from.row);
                return jumped.map_err(|reason| DataError::Open { file, reason });
            }
            match self.rows.next()? {
                None => break,
                Some((location, Ok(fields))) if self.plan.is_none() => match self.row(location, fields) {
                    Ok(_) | Err(DataError::Row(_)) => self.waiting.clear(),
                    Err(error) => return Err(error),
                },
                Some(_) => {}
            }
        }
        self.waiting.clear();
        Ok(())
    }

    /// Where the next row of the file begins; `None` while a row has further records to give. The byte of a text is counted from
    /// where its first row or its header stands; [`Self::consumed`] says how many there are in all.
    pub fn place(&self) -> Option<Place> {
        self.waiting.is_empty().then(|| Place { row: self.rows.count(), text: self.rows.place() })
    }

    /// Bytes read so far of a text that one can jump in.
    pub fn consumed(&self) -> Option<u64> {
        self.rows.consumed()
    }

    /// Whether the first row that cannot be used is an error.
    pub fn is_strict(&self) -> bool {
        self.options.strict
    }

    /// Whether it can [go on](Self::go_to) to a later place of the file.
    pub fn goes_forward(&self) -> bool {
        !self.is_range
    }

    /// Rows of the file that were read or passed so far, usable or not.
    pub fn rows_read(&self) -> u64 {
        self.rows.count()
    }

    /// The file as the user named it.
    pub fn file(&self) -> &Arc<str> {
        self.rows.file()
    }

    /// SHA-256 of the file as it lies on disk, once all rows have been read.
    pub fn sha256(&self) -> String {
        self.rows.sha256()
    }

    /// What the file was read as, in words, as far as it was read: `PKU-SafeRLHF: better_response_id, 0 = response_0`. `None` for
    /// our own kinds under their own names.
    pub fn layout(&self) -> Option<&str> {
        self.layout.as_deref()
    }

    /// What is to be said of the file beside that, once.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = [self.rows.notes(), &self.memory.notes()].concat();
        if let (rows, Some(why)) = self.passed_over {
            let rows = if rows == 1 { "1 row was".to_owned() } else { format!("{rows} rows were") };
            notes.push(format!("{rows} passed over, the first as {why}"));
        }
        notes
    }

    /// Rows that hold no judgement by the layout of the file.
    pub fn passed_over(&self) -> u64 {
        self.passed_over.0
    }

    /// CSV and Parquet say once for all rows which columns there are.
    fn recognise_header(&mut self) -> Result<(), DataError> {
        let Some((names, location)) = self.rows.columns()? else {
            return Ok(());
        };
        let is_cell = self.rows.has_cells();
        let plan = Plan::of(&names, &self.options.mapping, is_cell).map_err(|refusal| no_kind(location, refusal))?;
        self.fixed = true;
        let plan = self.follow(plan);
        let cells = plan.clone();
        self.rows.type_cells(Box::new(move |column, cell| cells.type_cell(column, cell)));
        self.rows.hold(|column| plan.holds(column));
        Ok(())
    }

    /// Reads on by this plan.
    fn follow(&mut self, plan: Plan) -> Arc<Plan> {
        let plan = Arc::new(plan);
        if self.plan.is_none() {
            self.layout = plan.said();
            if let Some((source, false)) = &plan.ranker {
                self.memory.note(format!("the rankings of each `{}` stand for themselves", source.path()));
            }
        }
        self.plan = Some(plan.clone());
        plan
    }

    /// The plan of a row with these columns.
    fn plan_of(&mut self, location: &Location, original: &Map<String, Value>) -> Result<Arc<Plan>, DataError> {
        let known = self.plan.clone();
        if let Some(plan) = known.as_ref().filter(|_| self.fixed || self.keys.iter().eq(original.keys())) {
            return Ok(plan.clone());
        }
        let names: Vec<&str> = original.keys().map(String::as_str).collect();
        let found = Plan::of(&names, &self.options.mapping, false);
        let problem = |kind| DataError::Row(RowProblem { location: location.clone(), kind });
        let plan = match (known, found) {
            (None, found) => found.map_err(|refusal| no_kind(location.clone(), refusal))?,
            (Some(_), Err(refusal)) => return Err(problem(refusal.into())),
            (Some(known), Ok(plan)) if !known.goes_with(&plan) => {
                let (expected, found) = (known.layout.title(), plan.layout.title());
                return Err(DataError::Mixed { location: location.clone(), expected, found });
            }
            (Some(_), Ok(plan)) => plan,
        };
        self.keys = original.keys().cloned().collect();
        Ok(self.follow(plan))
    }

    /// The first record of a row; others wait. `None` for a row without a judgement.
    fn row(&mut self, location: Location, original: Map<String, Value>) -> Result<Option<Row>, DataError> {
        let plan = self.plan_of(&location, &original)?;
        let problem = |kind| DataError::Row(RowProblem { location: location.clone(), kind });
        self.check_status(&plan, &original).map_err(problem)?;
        check_text_alone(&plan, &original).map_err(problem)?;
        self.check_label(&plan, &location, &original)?;
        let cells = Cells { fields: &original, view: &plan.view, memory: &self.memory };
        let mut parts = match self.read(&plan, &cells).map_err(problem)? {
            Outcome::Parts(parts) => parts,
            Outcome::Nothing(why) => {
                self.passed_over.0 += 1;
                self.passed_over.1.get_or_insert(why);
                return Ok(None);
            }
        };
        let named = plan.ranker.as_ref().and_then(|(source, _)| ranker_of(source, &original));
        let ranker = |part: &Option<String>| part.as_deref().map(Arc::from).or_else(|| named.clone());
        if parts.len() == 1 {
            let Part { record, ranker: own } = parts.remove(0);
            let ranker = ranker(&own);
            return Ok(Some(Row { record, location, original, ranker, plan, is_part: false }));
        }
        for Part { record, ranker: own } in parts {
            let mut row = own_row(&record);
            row.extend(
                original.iter().filter(|(name, _)| !plan.holds(name)).map(|(name, v)| (name.clone(), v.clone())),
            );
            let (ranker, location, plan) = (ranker(&own), location.clone(), plan.clone());
            self.waiting.push_back(Row { record, location, original: row, ranker, plan, is_part: true });
        }
        Ok(self.waiting.pop_front())
    }

    fn read(&self, plan: &Plan, cells: &Cells) -> Result<Outcome, ProblemKind> {
        match plan.read(cells) {
            // A verdict that is not understood costs nothing where verdicts are not asked for.
            Err(ProblemKind::UnknownLabel { .. } | ProblemKind::UncoveredLabel { .. }) if !self.options.labelled => {
                plan.read_without_label(cells)
            }
            read => read,
        }
    }

    fn check_status(&self, plan: &Plan, original: &Map<String, Value>) -> Result<(), ProblemKind> {
        let status = plan.status.as_ref().and_then(|column| original.get(column)?.as_str());
        match status {
            Some(status) if status.eq_ignore_ascii_case("rejected") => {
                Err(ProblemKind::Status { found: status.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Whole numbers as labels: 1 and 0 have a meaning that is said, others have none.
    fn check_label(&mut self, plan: &Plan, at: &Location, original: &Map<String, Value>) -> Result<(), DataError> {
        if plan.kind() != Some(Kind::Comparisons) || !plan.view.labels.is_empty() || !self.options.labelled {
            return Ok(());
        }
        let cells = Cells { fields: original, view: &plan.view, memory: &self.memory };
        match verdict::whole(&cells.value("label")) {
            None => Ok(()),
            Some(0 | 1) => {
                self.memory.note("label 1 = response_a is better, 0 = response_b (--labels a=0,b=1 for the opposite)");
                Ok(())
            }
            Some(found) => Err(self.labels_error(plan, at.clone(), found)),
        }
    }

    /// Reads on to list the distinct numbers.
    fn labels_error(&mut self, plan: &Plan, location: Location, first: i64) -> DataError {
        let mut found = BTreeSet::from([first]);
        if self.memory.notes().iter().any(|note| note.starts_with("label 1")) {
            found.extend([0, 1]);
        }
        while let Ok(Some((_, fields))) = self.rows.next() {
            let Ok(fields) = fields else { continue };
            let cells = Cells { fields: &fields, view: &plan.view, memory: &self.memory };
            if found.len() < LABELS_SHOWN {
                found.extend(verdict::whole(&cells.value("label")));
            }
        }
        let column = plan.view.alias("label").unwrap_or("label").to_owned();
        let found: Vec<String> = found.iter().map(i64::to_string).collect();
        DataError::Labels { location, column, found: found.join(", ") }
    }

    fn step(&mut self) -> Result<Option<Row>, DataError> {
        loop {
            if let Some(row) = self.waiting.pop_front() {
                return Ok(Some(row));
            }
            if self.end.is_some_and(|end| self.rows.count() >= end) {
                return Ok(None);
            }
            let Some((location, fields)) = self.rows.next()? else {
                return Ok(None);
            };
            if let Some(row) = self.row(location, fields.map_err(DataError::Row)?)? {
                return Ok(Some(row));
            }
        }
    }
}

/// Columns of what cannot be read as text.
const NOT_TEXT: [&str; 6] = ["image", "images", "video", "videos", "audio", "audios"];

/// What stands for them in a prompt.
const PLACES: [&str; 3] = ["<image>", "<video>", "<audio>"];

/// A response to a picture cannot be judged without it. In rows of our own kinds such a column is extra, unless the prompt has a
/// place for it.
fn check_text_alone(plan: &Plan, original: &Map<String, Value>) -> Result<(), ProblemKind> {
    let holds = |value: &Value| match value {
        Value::Array(list) => list.iter().any(|item| !item.is_null()),
        Value::Object(fields) => !fields.is_empty(),
        Value::String(text) => !text.trim().is_empty(),
        _ => false,
    };
    let Some(column) = NOT_TEXT.iter().find(|column| original.get(**column).is_some_and(holds)) else { return Ok(()) };
    let has_place = |prompt: &Value| PLACES.iter().any(|place| prompt.to_string().contains(place));
    if plan.kind().is_some() && !original.get("prompt").is_some_and(has_place) {
        return Ok(());
    }
    Err(ProblemKind::NotText { column: (*column).to_owned() })
}

/// Distinct labels that an error lists.
const LABELS_SHOWN: usize = 12;

fn ranker_of(source: &Source, original: &Map<String, Value>) -> Option<Arc<str>> {
    let value = source.find(original)?;
    match &*value {
        Value::Null => None,
        Value::String(text) if text.trim().is_empty() => None,
        Value::String(text) => Some(text.as_str().into()),
        other => Some(other.to_string().into()),
    }
}

impl Iterator for Reader {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step();
        self.done = match &step {
            Ok(row) => row.is_none(),
            Err(DataError::Row(_)) => self.options.strict,
            Err(_) => true,
        };
        step.transpose()
    }
}

fn no_kind(location: Location, refusal: Refusal) -> DataError {
    let advice = refusal.advice();
    let (expected, found) = refusal.sides();
    DataError::Columns { location, expected, found, advice }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Content, Kind, RankOrRating};

    fn open(bytes: &[u8]) -> Result<Reader, DataError> {
        Reader::from_bytes("f", bytes.to_vec(), &Options::default())
    }

    /// The kind and line of every row, or the message of the first error.
    fn outline(bytes: &[u8]) -> Result<Vec<(Kind, u64)>, String> {
        let rows = open(bytes).map_err(|e| e.to_string())?;
        rows.map(|row| row.map(|row| (row.record.kind(), row.location.line)).map_err(|e| e.to_string())).collect()
    }

    #[test]
    fn recognised_by_content() {
        use Kind::{Comparisons, Groups, Pairs, Ranked, Unlabelled};
        let cases: [(&str, &[(Kind, u64)]); 12] = [
            ("prompt,answer,rank\np,a,1\n", &[(Ranked, 2)]),
            ("\u{feff}\n\n prompt,response, rank\r\np,a,1\r\n", &[(Ranked, 4)]),
            ("rank,x,answer,prompt\n1,,\"a\nb\",p\n2,,a,p\n", &[(Ranked, 2), (Ranked, 4)]),
            ("prompt,chosen,rejected\np,a,b\n", &[(Pairs, 2)]),
            ("chosen,rejected\nx y a,x y b\n", &[(Pairs, 2)]),
            ("prompt,response_a,response_b,label\np,a,b,tie\n", &[(Comparisons, 2)]),
            ("prompt,responses\np,\"[{\"\"text\"\":\"\"a\"\",\"\"rank\"\":1}]\"\n", &[(Groups, 2)]),
            ("prompt,answer\np,a\n", &[(Unlabelled, 2)]),
            (r#"{"prompt":"p","responses":["a","b"]}"#, &[(Unlabelled, 1)]),
            ("\n {\"chosen\":\"x y a\",\"rejected\":\"x y b\"}", &[(Pairs, 2)]),
            (
                "[{\"chosen\":\"x y a\",\n\"rejected\":\"x y b\"},\n{\"prompt\":\"p\",\"answer\":\"x\"}]",
                &[(Pairs, 1), (Unlabelled, 3)],
            ),
            (r#"{"prompt":[{"role":"user","content":"x"}],"response":"a"}"#, &[(Unlabelled, 1)]),
        ];
        for (text, expected) in cases {
            assert_eq!(outline(text.as_bytes()), Ok(expected.to_vec()), "{text}");
        }
    }

    #[test]
    fn errors_say_where_what_and_how_to_mend_it() {
        let cases: [(&[u8], &str); 16] = [
            (b"", "f: expected at least one row, found an empty file; check that it was written completely"),
            (b" \n\n", "found an empty file"),
            (b"prompt,answer,rank\n", "found a header and no rows"),
            (b"[ ]", "found an empty list"),
            (b"p\0r\0o\0m\0p\0t\0", "found zero bytes in its first line, as UTF-16 without a byte order mark has them"),
            (
                b"question,answer,rank\nq,a,1\n",
                "f:1: expected the columns `prompt`, `answer`, `rank` (ranked responses; missing: `prompt`), found `question`, `answer`, `rank`; is `question` the prompt? --columns prompt=question",
            ),
            (b"hello world\n", "or prompt, response, found `hello world`"),
            (b"{\"prompt\":\"p\",\"chosen\":\"c\"}", "missing: `rejected`"),
            (b"a,prompt,a\n", "f:1: expected distinct column names, found \"a\" twice"),
            (b"chosen,rejected\nx y a,x y b\n\"a,b\nc,d\n", "f:3: expected a closing quote"),
            (b"chosen,rejected\na\n", "f:2: expected 2 fields as in the header, found 1"),
            (b"chosen,rejected\na,\"b\x81\"\n", "f:2: expected UTF-8, found an invalid byte at byte 2 of field 2"),
            (
                b"[{\"chosen\":\"x y a\",\"rejected\":\"x y b\"}",
                "expected the closing `]` of the JSON array, found the end of the file",
            ),
            (b"[] x", "f:1: expected nothing after the closing `]`"),
            (
                b"{\"chosen\":\"a\",\"rejected\":7}",
                "f:1: column `rejected`: expected text or a list of {role, content} messages, found the number 7",
            ),
            (b"PAR1....PAR1", "expected a Parquet file"),
        ];
        for (bytes, expected) in cases {
            let error = outline(bytes).unwrap_err();
            assert!(error.contains(expected), "{:?}\n{error}\n{expected}", String::from_utf8_lossy(bytes));
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn files_that_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let error = Reader::open(directory.path(), &Options::default()).err().unwrap();
        assert!(matches!(error, DataError::Directory { .. }), "{error}");
        let error = Reader::open(directory.path().join("no"), &Options::default()).err().unwrap();
        assert!(matches!(error, DataError::Open { .. }), "{error}");
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_whole_and_broken() {
        let text: String =
            (0..500).map(|i| format!("{{\"chosen\":\"x y {}\",\"rejected\":\"x y b\"}}\n", i * 7919)).collect();
        let zstd = zstd::encode_all(text.as_bytes(), 1).unwrap();
        for (packed, name) in [(gzip(text.as_bytes()), "gzip"), (zstd, "zstd")] {
            assert_eq!(outline(&packed).unwrap().len(), 500);
            assert_eq!(outline(&[packed.clone(), packed.clone()].concat()).unwrap().len(), 1000, "two members");
            let error = outline(&packed[..packed.len() - 9]).unwrap_err();
            assert!(error.contains(&format!("expected a complete {name} stream")), "{error}");
        }
    }

    #[test]
    fn the_digest_is_of_the_file_as_it_lies() {
        let bytes = gzip(b"{\"chosen\":\"x y a\",\"rejected\":\"x y b\"}\n");
        let mut reader = open(&bytes).unwrap();
        assert!(reader.by_ref().all(|row| row.is_ok()));
        use sha2::Digest;
        let expected: String = sha2::Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(reader.sha256(), expected);
    }

    #[test]
    fn columns_keep_their_order_and_type() {
        let text =
            "id,rank,prompt,answer,note\n007,2,\"[{\"\"role\"\":\"\"user\"\",\"\"content\"\":\"\"x\"\"}]\",[a],\n";
        let row = open(text.as_bytes()).unwrap().next().unwrap().unwrap();
        let expected = r#"{"id":"007","rank":2,"prompt":[{"role":"user","content":"x"}],"answer":"[a]","note":""}"#;
        assert_eq!(serde_json::to_string(&row.original).unwrap(), expected);
        let Record::Ranked { prompt: Content::Messages(_), place: RankOrRating::Rank(Some(2.0)), .. } = &row.record
        else {
            panic!("{:?}", row.record);
        };
        let (_, _, extra) = row.into_parts();
        assert_eq!(serde_json::to_string(&extra).unwrap(), r#"{"id":"007","note":""}"#);
    }

    /// Endless text: memory must not follow it.
    struct Endless(&'static [u8], u64);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = buffer.len().min(self.1 as usize).min(1 << 16);
            buffer[..count].fill(b'x');
            let start = count.min(self.0.len());
            buffer[..start].copy_from_slice(&self.0[..start]);
            self.0 = &self.0[start..];
            self.1 -= count as u64;
            Ok(count)
        }
    }

    #[test]
    fn a_line_of_200_megabytes() {
        for start in [&b"{\"prompt\":\""[..], b"[{\"prompt\":\"", b"chosen,rejected\n", b"chosen,rejected\n\""] {
            let reader = Reader::from_read("f", Endless(start, 200 << 20), &Options::default()).unwrap();
            let errors: Vec<String> = reader.map(|row| row.err().unwrap().to_string()).collect();
            assert_eq!(errors.len(), 1, "{errors:?}");
        }
    }

    /// Starts that lead deeper than noise alone would.
    const STARTS: [&[u8]; 8] = [
        b"",
        b"chosen,rejected\n",
        b"prompt,answer,rank\n\"",
        b"{\"chosen\":\"",
        b"[{\"prompt\":",
        b"PAR1",
        b"\x1f\x8b\x08\0\0\0\0\0\0\xff",
        b"\x28\xb5\x2f\xfd",
    ];

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(start in 0..STARTS.len(), noise: Vec<u8>) {
            let _ = outline(&[STARTS[start], &noise].concat());
        }

        #[test]
        fn no_text_makes_a_reader_panic(start in 0..5usize, noise in r#"[a",\r\n\[\]{}:0-9\\]{0,60}"#) {
            let _ = outline(&[STARTS[start], noise.as_bytes()].concat());
        }
    }
}
