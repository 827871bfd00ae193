//! The rows of a file as they stand: its format is known, the meaning of its columns is not.
//!
//! [`super::Reader`] adds the kinds of data to this, `generate` the one column it needs. What is wrong with one
//! row is in the row; an error ends the file.

use super::columnar::{Batches, Columnar};
use super::csv::{Csv, CsvFault, CsvState, TypeCell};
use super::document::{self, Document, DocumentFault, Json, LONGEST_DOCUMENT};
use super::error::{DataError, RowProblem};
use super::jsonl::{ArrayFault, JsonArray, Jsonl, RawRow};
use super::record::Location;
use super::separator::named_separator;
use super::source::{self, Body, FileDigest, Source, put_back, take_line};
use super::xlsx::{WorkbookFault, Xlsx};
use arrow_schema::Schema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufReader, Cursor, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// Names of files that are tables, whatever their first line says.
const TABLES: [&str; 9] = ["csv", "tsv", "json", "jsonl", "ndjson", "parquet", "arrow", "xlsx", "xlsm"];
/// Bytes in which a header must name its columns.
const LONGEST_HEADER: u64 = 1 << 20;

/// A streaming reader of rows whose columns are not yet understood.
pub(crate) struct Rows {
    file: Arc<str>,
    format: Format,
    digest: FileDigest,
    expected: &'static str,
    /// Rows read so far, usable or not.
    count: u64,
    /// Whether one can jump in it.
    in_place: bool,
    notes: Vec<String>,
}

/// Where a row of a text begins, and what those before it decide of how it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextPlace {
    /// Bytes before it.
    pub byte: u64,
    line: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    csv: Option<CsvState>,
}

/// Where a row stands, and its columns, or what is wrong with it.
pub(crate) type PlacedRow = (Location, Result<Map<String, Value>, RowProblem>);

enum Format {
    Csv(Box<Csv>),
    Jsonl(Jsonl),
    Array(JsonArray),
    Document(Document),
    Columnar(Columnar),
    Xlsx(Box<Xlsx>),
    /// Plain text: every line is a row of one column, of this name.
    Lines(Jsonl, &'static str),
}

impl Rows {
    /// The rows of a source; one of more than `limit` bytes is unusable.
    pub(super) fn new(source: Source, limit: usize) -> Result<Rows, DataError> {
        let Source { file, body, digest, expected, in_place } = source;
        let mut notes = Vec::new();
        let format = match body {
            Body::Json { input, line } => {
                let json = document::open(input, line, limit);
                match json.map_err(|fault| document_error(fault, at(&file, line), expected))? {
                    Json::Lines(lines) => Format::Jsonl(lines),
                    Json::Document(document) => {
                        notes.push(document.note());
                        Format::Document(document)
                    }
                }
            }
            Body::Array { input, line } => Format::Array(JsonArray::new(input, line, limit)),
            Body::Csv { input, line, encoding } => {
                let csv = Csv::new(input, line, limit, encoding);
                Format::Csv(Box::new(csv.map_err(|fault| csv_error(fault, at(&file, line), expected))?))
            }
            Body::Parquet(parquet) => {
                let parquet = Columnar::parquet(parquet);
                Format::Columnar(parquet.map_err(|found| damaged(at(&file, 1), "a Parquet file", found))?)
            }
            Body::Arrow(input) => {
                let arrow = Columnar::arrow(input);
                Format::Columnar(arrow.map_err(|found| damaged(at(&file, 1), "an Arrow file", found))?)
            }
            Body::Zip(archive) => {
                let xlsx = Xlsx::open(archive, limit);
                Format::Xlsx(Box::new(xlsx.map_err(|fault| workbook_error(fault, at(&file, 1)))?))
            }
        };
        Ok(Rows { file, format, digest, expected, count: 0, in_place, notes })
    }

    /// The rows of a Parquet file from row `first` (from 0) on, at most so many. They have no hash.
    pub fn of_parquet(name: &str, file: File, first: u64, rows: u64) -> Result<Rows, DataError> {
        let columnar = Columnar::parquet_rows(file, first, rows);
        let columnar = columnar.map_err(|found| damaged(at(&name.into(), first + 1), "a Parquet file", found))?;
        let (format, digest) = (Format::Columnar(columnar), FileDigest::default());
        let notes = Vec::new();
        Ok(Rows {
            file: name.into(),
            format,
            digest,
            expected: "a complete file",
            count: first,
            in_place: false,
            notes,
        })
    }

    /// The rows of Arrow batches; `name` stands for them in messages.
    pub fn of_batches(name: &str, batches: Batches, schema: &Schema) -> Rows {
        let format = Format::Columnar(Columnar::batches(batches, schema));
        let digest = FileDigest::default();
        let (count, in_place, notes) = (0, false, Vec::new());
        Rows { file: name.into(), format, digest, expected: "Arrow data", count, in_place, notes }
    }

    /// Opens a table, whatever its columns.
    pub fn open(path: &Path, limit: usize) -> Result<Rows, DataError> {
        Rows::new(source::open(path)?, limit)
    }

    /// A table in memory; `name` stands for it in messages.
    pub fn of_bytes(name: &str, bytes: Vec<u8>, limit: usize) -> Result<Rows, DataError> {
        Rows::new(source::recognise(name.into(), Box::new(Cursor::new(bytes)), None)?, limit)
    }

    /// Opens a table with `column`, or plain text, whose lines become rows with that one column: a file named
    /// `.txt`, or one that neither its name nor its first line says to be a table.
    pub fn open_table_or_text(path: &Path, column: &'static str, limit: usize) -> Result<Rows, DataError> {
        let mut source = source::open(path)?;
        let is_text = is_text(path, &mut source.body, column);
        let (input, line) = match source.body {
            Body::Csv { input, line, .. } | Body::Json { input, line } | Body::Array { input, line } if is_text => {
                (input, line)
            }
            body => return Rows::new(Source { body, ..source }, limit),
        };
        let Source { file, digest, expected, in_place, .. } = source;
        let format = Format::Lines(Jsonl::new(input, line, limit), column);
        Ok(Rows { file, format, digest, expected, count: 0, in_place, notes: Vec::new() })
    }

    /// The file as the user named it.
    pub fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// SHA-256 of the file as it lies on disk, once all rows have been read.
    pub fn sha256(&self) -> String {
        self.digest.hex()
    }

    /// Rows read so far, usable or not.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Where the next row begins, in texts that one can jump in. Its byte is counted from where their first row or their header
    /// stands; [`Self::consumed`] says how many there are in all.
    pub fn place(&self) -> Option<TextPlace> {
        match &self.format {
            _ if !self.in_place => None,
            Format::Jsonl(lines) => Some(TextPlace { byte: lines.consumed(), line: lines.line(), csv: None }),
            Format::Csv(csv) => {
                let (byte, line, state) = csv.stand();
                Some(TextPlace { byte, line, csv: Some(state) })
            }
            _ => None,
        }
    }

    /// Bytes read so far, in texts that one can jump in.
    pub fn consumed(&self) -> Option<u64> {
        self.place().map(|place| place.byte)
    }

    /// Goes to a place in the file, before which stand `count` rows. Its byte is counted from the beginning of the file.
    pub fn jump(&mut self, path: &Path, place: &TextPlace, count: u64) -> std::io::Result<()> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(place.byte))?;
        let input = Box::new(BufReader::with_capacity(1 << 16, file));
        match (&mut self.format, place.csv) {
            (Format::Jsonl(lines), None) => lines.jump(input, place.line),
            (Format::Csv(csv), Some(state)) => csv.jump(input, place.line, state),
            _ => return Err(std::io::Error::other("a file of another format than before")),
        }
        self.count = count;
        Ok(())
    }

    /// What is to be said once of how the file was read, without its name. More may come until the last row has been read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The columns of all rows, where the format says them once, and the place where it does.
    pub fn columns(&self) -> Result<Option<(Vec<&str>, Location)>, DataError> {
        let (names, line) = match &self.format {
            Format::Csv(csv) => (&csv.header[..], csv.header_line),
            Format::Columnar(columnar) => (columnar.names(), 1),
            Format::Xlsx(xlsx) => (&xlsx.header[..], xlsx.header_line),
            Format::Jsonl(_) | Format::Array(_) | Format::Document(_) | Format::Lines(..) => return Ok(None),
        };
        let location = at(&self.file, line);
        // The columns of a workbook that have no name are left out.
        let names = names.iter().map(String::as_str);
        let names: Vec<&str> =
            names.filter(|name| !(name.is_empty() && matches!(self.format, Format::Xlsx(_)))).collect();
        match duplicate(&names) {
            Some(column) => Err(DataError::DuplicateColumn { location, column: column.to_owned() }),
            None => Ok(Some((names, location))),
        }
    }

    /// True where cells have no types of their own.
    pub fn has_cells(&self) -> bool {
        matches!(self.format, Format::Csv(_) | Format::Xlsx(_))
    }

    /// How the text of cells in CSV and workbooks becomes values. Other formats have types of their own.
    pub fn type_cells(&mut self, type_cell: TypeCell) {
        match &mut self.format {
            Format::Csv(csv) => csv.type_cell = type_cell,
            Format::Xlsx(xlsx) => xlsx.type_cell = type_cell,
            _ => {}
        }
    }

    /// Which columns must hold text where they hold bytes (Parquet, Arrow), and values (workbooks). Others may hold anything.
    pub fn hold(&mut self, held: impl Fn(&str) -> bool) {
        match &mut self.format {
            Format::Columnar(columnar) => columnar.hold(held),
            Format::Xlsx(xlsx) => xlsx.hold(held),
            _ => {}
        }
    }

    /// The next row: its place and its columns. A file without any row is an error.
    pub fn next(&mut self) -> Result<Option<PlacedRow>, DataError> {
        if let Some((line, fields)) = self.next_raw()? {
            self.count += 1;
            let location = at(&self.file, line);
            let fields = fields.map_err(|kind| RowProblem { location: location.clone(), kind });
            return Ok(Some((location, fields)));
        }
        if self.count > 0 {
            return Ok(None);
        }
        let found = match self.format {
            Format::Csv(_) | Format::Xlsx(_) => "a header and no rows",
            Format::Array(_) | Format::Document(_) => "an empty list",
            Format::Columnar(_) => "columns and no rows",
            Format::Jsonl(_) | Format::Lines(..) => "an empty file",
        };
        Err(DataError::Empty { file: self.file.clone(), found })
    }

    fn next_raw(&mut self) -> Result<Option<RawRow>, DataError> {
        let (file, expected) = (&self.file, self.expected);
        match &mut self.format {
            Format::Csv(csv) => {
                let row = csv.next().map_err(|fault| csv_error(fault, at(file, csv.line()), expected));
                self.notes.extend(csv.take_note().map(str::to_owned));
                row
            }
            Format::Jsonl(lines) => lines.next().map_err(|e| DataError::from_read(at(file, lines.line()), expected, e)),
            Format::Array(array) => array.next().map_err(|fault| array_error(fault, at(file, array.line()), expected)),
            Format::Document(document) => Ok(document.next()),
            Format::Xlsx(xlsx) => {
                let row = xlsx.next().map_err(|fault| workbook_error(fault, at(file, xlsx.row())));
                self.notes.extend(xlsx.take_notes());
                row
            }
            Format::Columnar(columnar) => {
                let row = columnar.next();
                row.map_err(|found| damaged(at(file, columnar.row()), columnar.expected, found))
            }
            Format::Lines(lines, column) => {
                let line = lines.next_text();
                let line = line.map_err(|e| DataError::from_read(at(file, lines.line()), expected, e))?;
                Ok(line.map(|(line, text)| (line, text.map(|text| one_column(column, text)))))
            }
        }
    }
}

fn one_column(column: &str, text: String) -> Map<String, Value> {
    Map::from_iter([(column.to_owned(), text.into())])
}

/// True for `.txt` (but for Parquet), and, unless the name says a table, for what has no object, no list and no such column in
/// its first line. A `.gz` or `.zst` around it is looked through.
fn is_text(path: &Path, body: &mut Body, column: &str) -> bool {
    let name = path.to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    match (name.rsplit_once('.'), body) {
        (Some((_, "txt")), _) => true,
        (Some((_, end)), _) if TABLES.contains(&end) => false,
        (_, Body::Csv { input, .. }) => !first_line_has(input, column),
        _ => false,
    }
}

/// True if the first line, read as a CSV header, names the column, or names the separator. Nothing is consumed; an error comes
/// again when reading on.
fn first_line_has(input: &mut source::Bytes, column: &str) -> bool {
    let line = take_line(input, LONGEST_HEADER).unwrap_or_default();
    let text = String::from_utf8_lossy(&line).into_owned();
    let named = named_separator(&line).is_some();
    put_back(line, input);
    let mut names = text.split('\r').next().unwrap_or_default().split([',', ';', '\t']);
    named || names.any(|name| name.trim().trim_matches('"') == column)
}

pub(super) fn at(file: &Arc<str>, line: u64) -> Location {
    Location { file: file.clone(), line }
}

fn duplicate<'a>(names: &[&'a str]) -> Option<&'a str> {
    let mut seen = std::collections::HashSet::new();
    names.iter().copied().find(|name| !seen.insert(*name))
}

fn damaged(location: Location, expected: &'static str, found: String) -> DataError {
    DataError::Damaged { location, expected, found }
}

fn csv_error(fault: CsvFault, location: Location, expected: &'static str) -> DataError {
    let moved = |line| Location { line, ..location.clone() };
    match fault {
        CsvFault::Io(error) => DataError::from_read(location, expected, error),
        CsvFault::UnclosedQuote(line) => DataError::UnclosedQuote { location: moved(line) },
        CsvFault::Refused(refusal) => refusal.of(&location.file),
        CsvFault::Header(line, kind) => DataError::Damaged {
            location: moved(line),
            expected: "a CSV header",
            found: format!("a line where we {kind}"),
        },
    }
}

fn workbook_error(fault: WorkbookFault, location: Location) -> DataError {
    match fault {
        WorkbookFault::Refused(refusal) => refusal.of(&location.file),
        WorkbookFault::Empty => DataError::Empty { file: location.file, found: "a workbook without rows" },
        WorkbookFault::Damaged(found) => damaged(location, "an .xlsx workbook", found),
    }
}

fn document_error(fault: DocumentFault, location: Location, expected: &'static str) -> DataError {
    match fault {
        DocumentFault::Io(error) => DataError::from_read(location, expected, error),
        DocumentFault::TooLong => DataError::DocumentTooLong { location, limit: LONGEST_DOCUMENT },
        DocumentFault::Invalid(line, found) => {
            DataError::Damaged { location: Location { line, ..location }, expected: "a JSON document", found }
        }
    }
}

fn array_error(fault: ArrayFault, location: Location, expected: &'static str) -> DataError {
    match fault {
        ArrayFault::Io(error) => DataError::from_read(location, expected, error),
        ArrayFault::Trailing => DataError::Trailing { location },
        ArrayFault::Unclosed => {
            let found = "the end of the file".to_owned();
            DataError::Damaged { location, expected: "the closing `]` of the JSON array", found }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(name: &str, bytes: &[u8]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut rows = match Rows::open_table_or_text(&path, "prompt", 64) {
            Ok(rows) => rows,
            Err(error) => return error.to_string(),
        };
        let mut found = Vec::new();
        while let Some((at, fields)) = rows.next().unwrap() {
            let fields = fields.map_or_else(|problem| problem.kind.to_string(), |f| Value::Object(f).to_string());
            found.push(format!("{} {fields}", at.line));
        }
        found.join(" | ")
    }

    /// Starts of the formats that noise alone would not reach.
    const STARTS: [&[u8]; 10] = [
        b"\xff\xfe",
        b"\xfe\xff\0{",
        b"sep=;\n",
        b"a;b\n\xe9;",
        b"{\"data\":[{",
        b"{\n",
        b"ARROW1\0\0\xff\xff\xff\xff",
        b"\xff\xff\xff\xff",
        b"PK\x03\x04",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    ];

    proptest::proptest! {
        #[test]
        fn no_bytes_make_them_panic(start in 0..STARTS.len(), noise: Vec<u8>) {
            if let Ok(mut rows) = Rows::of_bytes("f", [STARTS[start], &noise].concat(), 64) {
                while let Ok(Some(_)) = rows.next() {}
            }
        }
    }

    #[test]
    fn text_or_table() {
        let cases: [(&str, &[u8], &str); 16] = [
            (
                "a.txt",
                b"one\r\n\n  two, \xc3\xa9 \nthree",
                r#"1 {"prompt":"one"} | 3 {"prompt":"two, é"} | 4 {"prompt":"three"}"#,
            ),
            ("a.txt", b"\xef\xbb\xbf\n{\"prompt\":1}\n", r#"2 {"prompt":"{\"prompt\":1}"}"#),
            ("a.txt", b"[x]\nprompt,b\n", r#"1 {"prompt":"[x]"} | 2 {"prompt":"prompt,b"}"#),
            ("prompts", b"what, then?\nyes", r#"1 {"prompt":"what, then?"} | 2 {"prompt":"yes"}"#),
            ("prompts", b"id,\"prompt\"\r\n1,p", r#"2 {"id":"1","prompt":"p"}"#),
            ("prompts.md", b"{\"prompt\":\"p\"}", r#"1 {"prompt":"p"}"#),
            ("a.csv", b"question\nwhy", r#"2 {"question":"why"}"#),
            ("prompts", b"id;\"prompt\"\r\n1;p", r#"2 {"id":"1","prompt":"p"}"#),
            ("prompts", b"sep=;\r\nid;x\r\n1;p", r#"3 {"id":"1","x":"p"}"#),
            (
                "a.txt",
                b"\xff\xfeo\0\n\0\x3d\xd8\n\0\xe9\0",
                r#"1 {"prompt":"o"} | 2 expected text, found half of a character at byte 1 of the line | 3 {"prompt":"é"}"#,
            ),
            ("a.txt", b"<html> what?", r#"1 {"prompt":"<html> what?"}"#),
            ("a.TXT.gz", b"one", r#"1 {"prompt":"one"}"#),
            (
                "a.txt",
                b"a\xffb\nc",
                r#"1 expected UTF-8, found an invalid byte at byte 2 of the line | 2 {"prompt":"c"}"#,
            ),
            ("a.txt", &[b'x'; 65], "1 expected at most 64 bytes in a row, found more"),
            ("a.txt", b" \n\n", "found an empty file"),
            ("a.txt", b"PAR1", "expected a Parquet file"),
        ];
        for (name, bytes, expected) in cases {
            let found = outline(name, bytes);
            assert!(found.contains(expected), "{name}: {found}\n{expected}");
        }
    }
}
