//! Rows out again: JSONL, a JSON array, CSV or Parquet, plain or compressed, as the name says.
//!
//! Rows stream. CSV and Parquet need to know their columns before the first row is written: they are
//! the union of the columns of the first [`FIRST_ROWS`] rows, in order of appearance. A row that does
//! not fit them is an error that names it; JSONL takes any row.

use super::content::describe;
use super::error::DataError;
use super::integer;
use super::sink::{Compression, Sink};
use super::table::{CellType, Conflict, present};
use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// Rows that decide the columns of CSV and Parquet, and rows of one Parquet batch.
pub const FIRST_ROWS: usize = 1024;
/// Bytes of encoded columns that are held before a Parquet row group is written.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// How rows are written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// One object a line.
    #[default]
    Jsonl,
    /// One array of objects.
    Json,
    /// RFC 4180; lists and objects as JSON text, null as an empty cell.
    Csv,
    /// Columns typed by the first rows.
    Parquet,
}

/// Format of an output file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputFormat {
    /// How rows are written down.
    pub encoding: Encoding,
    /// Around it all.
    pub compression: Compression,
}

impl OutputFormat {
    /// By the name: `.json`, `.csv`, `.parquet`, each also with `.gz` or `.zst`; any other is JSONL.
    pub fn of_name(path: &Path) -> OutputFormat {
        let name = path.to_string_lossy().to_lowercase();
        let (name, compression) = match name.rsplit_once('.') {
            Some((stem, "gz")) => (stem, Compression::Gzip),
            Some((stem, "zst")) => (stem, Compression::Zstd),
            _ => (name.as_str(), Compression::None),
        };
        let encoding = match name.rsplit_once('.') {
            Some((_, "json")) => Encoding::Json,
            Some((_, "csv")) => Encoding::Csv,
            Some((_, "parquet")) => Encoding::Parquet,
            _ => Encoding::Jsonl,
        };
        OutputFormat { encoding, compression }
    }
}

/// Writes rows to a file that appears when [`Writer::finish`] succeeds, or to standard output.
pub struct Writer {
    file: Arc<str>,
    rows: u64,
    output: Output,
}

enum Output {
    Lines { sink: Sink, array: bool },
    Table(Table),
}

/// CSV or Parquet.
struct Table {
    stage: Stage,
    columns: Vec<(String, CellType)>,
    /// CSV has names and no types.
    typed: bool,
    /// Columns of all rows, where they are known before.
    known: Vec<(String, CellType)>,
    pending: Vec<Map<String, Value>>,
}

enum Stage {
    /// Columns are still being collected.
    Open(Sink),
    Csv(Box<csv::Writer<Sink>>),
    Parquet(Box<ArrowWriter<Sink>>),
    /// Left behind by an error.
    Broken,
}

/// Why a row cannot be written.
enum Fault {
    Io(io::Error),
    Row { column: String, expected: String, found: String },
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

impl From<ParquetError> for Fault {
    fn from(error: ParquetError) -> Self {
        Fault::Io(io::Error::other(error))
    }
}

impl From<ArrowError> for Fault {
    fn from(error: ArrowError) -> Self {
        Fault::Io(io::Error::other(error))
    }
}

impl Writer {
    /// Opens an output (`-` is standard output) in the given format.
    ///
    /// # Errors
    /// If no file can be made there.
    pub fn create(path: impl AsRef<Path>, format: OutputFormat) -> Result<Writer, DataError> {
        let file: Arc<str> = path.as_ref().to_string_lossy().into();
        let sink = Sink::create(path.as_ref(), format.compression);
        let sink = sink.map_err(|reason| DataError::Write { file: file.clone(), reason })?;
        let output = match format.encoding {
            Encoding::Jsonl => Output::Lines { sink, array: false },
            Encoding::Json => Output::Lines { sink, array: true },
            Encoding::Csv => Output::Table(Table::new(sink, false)),
            Encoding::Parquet => Output::Table(Table::new(sink, true)),
        };
        Ok(Writer { file, rows: 0, output })
    }

    /// Says which columns all rows have together, so that the first ones need not show them.
    pub fn expect(&mut self, schema: &super::Schema) {
        if let Output::Table(table) = &mut self.output {
            table.known = match table.typed {
                true => schema.types().map(|(name, kind)| (name.to_owned(), kind.clone())).collect(),
                false => schema.titles().map(|name| (name.to_owned(), CellType::Null)).collect(),
            };
        }
    }

    /// Writes one row.
    ///
    /// # Errors
    /// If the bytes cannot be written, or the columns of CSV or Parquet cannot hold the row.
    pub fn write(&mut self, row: &Map<String, Value>) -> Result<(), DataError> {
        self.rows += 1;
        let written = match &mut self.output {
            Output::Lines { sink, array } => write_line(sink, *array, self.rows == 1, row).map_err(Fault::Io),
            Output::Table(table) => table.write(row),
        };
        written.map_err(|fault| self.error(fault))
    }

    /// Completes the output, gives the file its name, and returns the number of rows.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn finish(mut self) -> Result<u64, DataError> {
        let output = std::mem::replace(&mut self.output, Output::Table(Table::broken()));
        let finished = match output {
            Output::Lines { sink, array } => finish_lines(sink, array, self.rows == 0).map_err(Fault::Io),
            Output::Table(table) => table.finish(),
        };
        finished.map_err(|fault| self.error(fault))?;
        Ok(self.rows)
    }

    fn error(&self, fault: Fault) -> DataError {
        let (file, row) = (self.file.clone(), self.rows);
        match fault {
            Fault::Io(reason) => DataError::Write { file, reason },
            Fault::Row { column, expected, found } => DataError::Unwritable { file, row, column, expected, found },
        }
    }
}

fn write_line(sink: &mut Sink, array: bool, first: bool, row: &Map<String, Value>) -> io::Result<()> {
    if array {
        sink.write_all(if first { b"[\n" } else { b",\n" })?;
    }
    integer::write_row(sink, row)?;
    if array { Ok(()) } else { sink.write_all(b"\n") }
}

fn finish_lines(mut sink: Sink, array: bool, empty: bool) -> io::Result<()> {
    if array {
        sink.write_all(if empty { b"[]\n" } else { b"\n]\n" })?;
    }
    sink.finish()
}

impl Table {
    fn new(sink: Sink, typed: bool) -> Self {
        Table { stage: Stage::Open(sink), columns: Vec::new(), typed, known: Vec::new(), pending: Vec::new() }
    }

    fn broken() -> Self {
        Table { stage: Stage::Broken, columns: Vec::new(), typed: false, known: Vec::new(), pending: Vec::new() }
    }

    fn write(&mut self, row: &Map<String, Value>) -> Result<(), Fault> {
        self.admit(row)?;
        if let Stage::Csv(csv) = &mut self.stage {
            return write_cells(csv, &self.columns, row);
        }
        self.pending.push(row.clone());
        if self.pending.len() == FIRST_ROWS { self.write_pending() } else { Ok(()) }
    }

    /// Takes the row's columns in, or, once the columns stand, checks that the row fits them.
    fn admit(&mut self, row: &Map<String, Value>) -> Result<(), Fault> {
        let open = matches!(self.stage, Stage::Open(_));
        if row.is_empty() {
            return Err(misfit("", None, open, &Value::Null));
        }
        for (name, value) in row {
            let at = self.columns.iter().position(|(known, _)| known == name);
            let known = at.map(|at| self.columns[at].1.clone());
            let kind = if self.typed { CellType::of(value) } else { Ok(CellType::Null) };
            let first = || self.expected(name);
            let widened = kind.and_then(|kind| known.clone().unwrap_or_else(first).union(kind));
            match (at, widened) {
                (Some(at), Ok(kind)) if open => self.columns[at].1 = kind,
                (None, Ok(kind)) if open => self.columns.push((name.clone(), kind)),
                (_, Ok(kind)) if Some(&kind) == known.as_ref() => {}
                _ => return Err(misfit(name, known.as_ref(), open, value)),
            }
        }
        Ok(())
    }

    /// What is known of a column before its first value.
    fn expected(&self, name: &str) -> CellType {
        let known = self.known.iter().find(|(known, _)| self.typed && known == name);
        known.map_or(CellType::Null, |(_, kind)| kind.clone())
    }

    fn write_pending(&mut self) -> Result<(), Fault> {
        if let Stage::Open(_) = self.stage {
            self.start()?;
        }
        let rows = std::mem::take(&mut self.pending);
        match &mut self.stage {
            Stage::Csv(csv) => rows.iter().try_for_each(|row| write_cells(csv, &self.columns, row)),
            Stage::Parquet(parquet) => write_batch(parquet, &self.columns, &rows),
            Stage::Open(_) | Stage::Broken => Ok(()),
        }
    }

    /// Settles the columns and writes the header.
    fn start(&mut self) -> Result<(), Fault> {
        let Stage::Open(sink) = std::mem::replace(&mut self.stage, Stage::Broken) else {
            return Ok(());
        };
        for (name, kind) in std::mem::take(&mut self.known) {
            if !self.columns.is_empty() && self.columns.iter().all(|(known, _)| *known != name) {
                self.columns.push((name, kind));
            }
        }
        if !self.typed {
            let mut csv = csv::Writer::from_writer(sink);
            if !self.columns.is_empty() {
                csv.write_record(self.columns.iter().map(|(name, _)| name)).map_err(io::Error::other)?;
            }
            self.stage = Stage::Csv(Box::new(csv));
            return Ok(());
        }
        for (name, kind) in &mut self.columns {
            let empty_object = |Conflict| Fault::Row {
                column: name.clone(),
                expected: "objects with keys".to_owned(),
                found: "only {}".to_owned(),
            };
            *kind = kind.clone().settle().map_err(empty_object)?;
        }
        let schema = parquet_schema(&self.columns);
        let properties = WriterProperties::builder().set_compression(Codec::ZSTD(ZstdLevel::default())).build();
        self.stage = Stage::Parquet(Box::new(ArrowWriter::try_new(sink, schema, Some(properties))?));
        Ok(())
    }

    fn finish(mut self) -> Result<(), Fault> {
        self.write_pending()?;
        let sink = match self.stage {
            Stage::Csv(csv) => csv.into_inner().map_err(|e| io::Error::new(e.error().kind(), e.to_string()))?,
            Stage::Parquet(parquet) => parquet.into_inner()?,
            Stage::Open(sink) => sink,
            Stage::Broken => return Err(io::Error::other("an output that failed before").into()),
        };
        Ok(sink.finish()?)
    }
}

fn misfit(name: &str, known: Option<&CellType>, open: bool, value: &Value) -> Fault {
    let (expected, found) = match known {
        None if open => ("a value that a column can hold".to_owned(), describe(value)),
        None => (format!("a column of the first {FIRST_ROWS} rows"), "a new column".to_owned()),
        Some(kind) => (format!("{} as in the rows before", kind.data_type()), describe(value)),
    };
    Fault::Row { column: name.to_owned(), expected, found }
}

fn write_cells(
    csv: &mut csv::Writer<Sink>,
    columns: &[(String, CellType)],
    row: &Map<String, Value>,
) -> Result<(), Fault> {
    let cell = |(name, _): &(String, CellType)| match row.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => integer::to_json(other),
    };
    csv.write_record(columns.iter().map(cell)).map_err(|error| match error.into_kind() {
        csv::ErrorKind::Io(error) => Fault::Io(error),
        other => Fault::Io(io::Error::other(format!("{other:?}"))),
    })
}

fn write_batch(
    parquet: &mut ArrowWriter<Sink>,
    columns: &[(String, CellType)],
    rows: &[Map<String, Value>],
) -> Result<(), Fault> {
    let column = |(name, kind): &(String, CellType)| {
        let values: Vec<_> = rows.iter().map(|row| row.get(name).and_then(present)).collect();
        kind.column(&values)
    };
    if rows.is_empty() || columns.is_empty() {
        return Ok(());
    }
    let arrays = columns.iter().map(column).collect::<Result<_, _>>()?;
    parquet.write(&RecordBatch::try_new(parquet_schema(columns), arrays)?)?;
    if parquet.memory_size() > ROW_GROUP_BYTES {
        parquet.flush()?;
    }
    Ok(())
}

fn parquet_schema(columns: &[(String, CellType)]) -> Arc<Schema> {
    Arc::new(Schema::new(columns.iter().map(|(name, kind)| kind.field(name)).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Attributes, Candidate, Content, Message, Options, RankOrRating, Reader, Record};
    use proptest::prelude::*;
    use serde_json::json;

    const NAMES: [&str; 8] =
        ["o.jsonl", "o.jsonl.gz", "o.json", "o.json.zst", "o.csv", "o.csv.gz", "o.parquet", "o.parquet.zst"];

    fn rows(value: Value) -> Vec<Map<String, Value>> {
        value.as_array().unwrap().iter().map(|row| row.as_object().unwrap().clone()).collect()
    }

    /// Writes the rows under a name and reads the file back.
    fn round_trip(name: &str, rows: &[Map<String, Value>]) -> Result<Vec<crate::data::Row>, DataError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        let mut writer = Writer::create(&path, OutputFormat::of_name(&path))?;
        for row in rows {
            writer.write(row)?;
        }
        assert_eq!(writer.finish()?, rows.len() as u64);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
        Reader::open(&path, &Options::default())?.collect()
    }

    #[test]
    fn formats_by_name() {
        use Compression::{Gzip, None, Zstd};
        use Encoding::{Csv, Json, Jsonl, Parquet};
        let cases = [
            ("-", Jsonl, None),
            ("a/b.JSON", Json, None),
            ("x.csv.gz", Csv, Gzip),
            ("x.parquet", Parquet, None),
            ("x.zst", Jsonl, Zstd),
            ("x.tsv", Jsonl, None),
        ];
        for (name, encoding, compression) in cases {
            assert_eq!(OutputFormat::of_name(Path::new(name)), OutputFormat { encoding, compression }, "{name}");
        }
    }

    /// CSV has text only.
    fn as_csv(value: &Value) -> Value {
        match value {
            Value::Null => "".into(),
            Value::String(_) => value.clone(),
            other => other.to_string().into(),
        }
    }

    #[test]
    fn every_column_comes_back() {
        let rows = rows(json!([
            {"id": 1, "prompt": "p", "response": "a\r\n\"b\",", "score": -0.1, "flag": true, "none": null, "tags": ["x", null]},
            {"id": 2, "prompt": "\u{feff}q", "response": "c", "meta": {"a": {"b": [1]}}, "nan": "NaN"},
            {"id": 3, "prompt": "q", "response": "é\u{0}", "score": 0.30000000000000004, "nan": "-Infinity"},
        ]));
        for name in NAMES {
            let back = round_trip(name, &rows).unwrap();
            assert_eq!(back.len(), 3, "{name}");
            for (row, back) in rows.iter().zip(&back) {
                for (column, value) in row {
                    let expected = if name.contains("csv") { as_csv(value) } else { value.clone() };
                    assert_eq!(back.original[column], expected, "{name} {column}");
                }
            }
        }
    }

    /// Ratings are read back from every format, whole or missing, and none of them counts as an extra column.
    #[test]
    fn attributes_come_back_from_every_format() {
        let rated = [Attributes::from([("x".to_owned(), 1.5), ("y".to_owned(), 2.0)]), Attributes::new()];
        let rows_with = rows(json!([
            {"prompt": "p", "answer": "a", "rank": 1, "attributes": {"x": 1.5}, "attribute:y": 2},
            {"prompt": "p", "answer": "b", "rank": 2, "attributes": null, "attribute:y": null},
        ]));
        let groups = rows(json!([{"prompt": "p", "responses": [
            {"text": "a", "score": 2, "attributes": {"x": 1.5, "y": 2}}, {"text": "b", "score": 1, "attributes": {"x": null}},
        ]}]));
        for name in NAMES {
            for row in round_trip(name, &rows_with).unwrap().into_iter().zip(&rated) {
                let (record, _, extra) = row.0.into_parts();
                let Record::Ranked { attributes, .. } = record else { panic!("{name}: {record:?}") };
                assert_eq!((&attributes, extra.get("attribute:y")), (row.1, None), "{name}");
            }
            let Record::Group { responses, .. } = round_trip(name, &groups).unwrap().remove(0).record else { panic!() };
            assert_eq!(responses.into_iter().map(|r| r.attributes).collect::<Vec<_>>(), rated, "{name}");
        }
    }

    #[test]
    fn what_columns_cannot_hold_is_an_error() {
        let wide: Vec<_> = (0..FIRST_ROWS).map(|_| json!({"prompt": "p", "response": "r", "n": 1})).collect();
        let after = |row: Value| [wide.clone(), vec![row]].concat();
        let cases = [
            (
                "o.csv",
                after(json!({"prompt": "p", "new": 1})),
                "row 1025, column \"new\": expected a column of the first 1024 rows",
            ),
            (
                "o.parquet",
                after(json!({"prompt": "p", "n": 0.5})),
                "row 1025, column \"n\": expected Int64 as in the rows before, found the number 0.5",
            ),
            ("o.parquet", vec![json!({"n": 1}), json!({"n": "x"})], "row 2, column \"n\""),
            ("o.parquet", vec![json!({"n": [1, "x"]})], "row 1, column \"n\": expected a value that a column can hold"),
            ("o.parquet", vec![json!({"n": 18_446_744_073_709_551_615_u64})], "row 1, column \"n\""),
            ("o.parquet", vec![json!({"n": {}})], "column \"n\": expected objects with keys, found only {}"),
            ("o.csv", vec![json!({})], "row 1"),
        ];
        for (name, values, expected) in cases {
            let error = round_trip(name, &rows(Value::Array(values))).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\n{expected}");
        }
    }

    #[test]
    fn many_batches_stream() {
        let rows: Vec<_> = (0..5000).map(|i| json!({"prompt": "p", "response": format!("r{i}")})).collect();
        let rows = super::tests::rows(Value::Array(rows));
        for name in NAMES {
            let back = round_trip(name, &rows).unwrap();
            assert!(back.iter().map(|row| &row.original).eq(rows.iter()), "{name}");
            let header = u64::from(!name.contains("jsonl") && !name.contains("parquet"));
            assert_eq!(back[4999].location.line, 5000 + header, "{name}");
        }
    }

    #[test]
    fn an_unfinished_file_never_appears() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("o.csv");
        let mut writer = Writer::create(&path, OutputFormat::of_name(&path)).unwrap();
        writer.write(json!({"a": 1}).as_object().unwrap()).unwrap();
        drop(writer);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let error = Writer::create(directory.path().join("no/o.csv"), OutputFormat::default()).err().unwrap();
        assert!(error.to_string().contains("no/o.csv: expected to write the output"), "{error}");
        assert!(Writer::create(directory.path(), OutputFormat::default()).is_err());
    }

    #[test]
    fn nothing_is_a_complete_file_too() {
        for name in NAMES {
            assert!(
                matches!(round_trip(name, &[]), Err(DataError::Empty { .. } | DataError::Columns { .. })),
                "{name}"
            );
        }
    }

    /// Any text, except what is read as nothing or as messages.
    fn text() -> impl Strategy<Value = String> {
        any::<String>().prop_filter("readable", |text| !text.trim().is_empty() && !text.starts_with('['))
    }

    fn content() -> impl Strategy<Value = Content> {
        prop_oneof![
            text().prop_map(Content::Text),
            prop::collection::vec((any::<String>(), text()), 1..3).prop_map(|turns| {
                Content::Messages(turns.into_iter().map(|(role, content)| Message { role, content }).collect())
            }),
        ]
    }

    /// A record, and the row that says it.
    fn row() -> impl Strategy<Value = (Record, Map<String, Value>)> {
        let number = -1e6f64..1e6;
        let value = |content: &Content| content.to_value();
        let rating = || prop::option::of(-1e3..1e3f64);
        let rated = |rating: Option<f64>| rating.map(|x| ("x".to_owned(), x)).into_iter().collect::<Attributes>();
        let place = prop::option::of(number.clone());
        let ranked = (text(), text(), place, rating()).prop_map(move |(prompt, answer, rank, x)| {
            let row = json!({"prompt": prompt, "answer": answer, "rank": rank, "attribute:x": x});
            let (prompt, response) = (Content::Text(prompt), Content::Text(answer));
            (Record::Ranked { prompt, response, place: RankOrRating::Rank(rank), attributes: rated(x) }, row)
        });
        let pair =
            (content(), content(), content(), any::<f32>()).prop_filter_map("usable", move |(p, c, r, margin)| {
                let row = json!({"prompt": value(&p), "chosen": value(&c), "rejected": value(&r), "margin": margin});
                let record =
                    Record::Pair { prompt: Some(p), chosen: c.clone(), rejected: r.clone(), margin, weight: 1.0 };
                (margin.is_finite() && c != r).then_some((record, row))
            });
        let rated_texts = prop::collection::vec((text(), number, rating()), 1..4);
        let group = (text(), rated_texts).prop_map(move |(prompt, responses)| {
            let object = |(text, score, x)| json!({"text": text, "score": score, "attributes": {"x": x}});
            let list: Vec<_> = responses.iter().cloned().map(object).collect();
            let candidate = |(text, score, x)| {
                let content = Content::Text(text);
                Candidate { content, rank: None, score: Some(score), attributes: rated(x) }
            };
            let row = json!({"prompt": prompt, "responses": list});
            let responses = responses.into_iter().map(candidate).collect();
            (Record::Group { prompt: Content::Text(prompt), responses, comparisons: Vec::new() }, row)
        });
        prop_oneof![ranked, pair, group].prop_map(|(record, row)| (record, row.as_object().unwrap().clone()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_row_comes_back_from_any_format(row in row()) {
            let (record, row) = row;
            for name in NAMES {
                let back = round_trip(name, std::slice::from_ref(&row)).unwrap();
                prop_assert_eq!(&back[0].record, &record, "{}", name);
            }
        }
    }
}
