//! JSON that begins with a brace and is not one object a line: one object over many lines, rows inside a wrapping object, and
//! tables stored by column.
//!
//! JSON lines stream. A document is held in memory as text: which bytes make a row is found here, and `serde_json` parses one
//! row at a time. What a document is follows from its keys and the types of its values, never from a part of a name. A first
//! line that is a complete object is a document only if it has one of the forms below and nothing follows it.
//!
//! | form | rows |
//! |---|---|
//! | `{"data": [{…}]}`, also `rows`, `examples`, `instances`, `records`, beside metadata such as `version` | its objects |
//! | `{"rows": [{"row_idx": 0, "row": {…}, "truncated_cells": []}]}`, the datasets server | each `row` |
//! | `{"columns": ["a"], "index": [0], "data": [["x"]]}`, pandas `orient="split"` | each list |
//! | `{"a": {"0": "x"}}`, pandas by default | one for each key |
//! | `{"0": {"a": "x"}}`, pandas `orient="index"` | each object |
//! | `{"a": ["x"], "b": ["y"]}` | one for each place |

use super::encoding::utf8;
use super::error::ProblemKind;
use super::jsonl::{Jsonl, Nesting, RawRow, parse_object};
use super::source::{Bytes, fill, put_back};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use std::io::{self, BufRead, Read};
use std::ops::Range;

/// Bytes that a document may have.
pub(super) const LONGEST_DOCUMENT: usize = 1 << 30;
/// Keys that may hold the rows.
const ROWS: [&str; 5] = ["data", "rows", "examples", "instances", "records"];
/// Keys beside the rows that say something of all of them.
const METADATA: [&str; 32] = [
    "version",
    "name",
    "title",
    "description",
    "license",
    "licence",
    "source",
    "split",
    "language",
    "date",
    "created",
    "created_at",
    "updated_at",
    "author",
    "authors",
    "url",
    "homepage",
    "citation",
    "count",
    "total",
    "size",
    "schema",
    "info",
    "meta",
    "metadata",
    "features",
    "num_rows_total",
    "num_rows_per_page",
    "partial",
    "dataset",
    "config",
    "num_rows",
];

/// Where something stands in the text.
type Span = Range<usize>;

/// What begins with a brace.
pub(super) enum Json {
    Lines(Jsonl),
    Document(Document),
}

/// Why a document cannot be read.
pub(super) enum DocumentFault {
    Io(io::Error),
    TooLong,
    /// Not JSON: the line, and the parser's words.
    Invalid(u64, String),
}

impl From<io::Error> for DocumentFault {
    fn from(error: io::Error) -> Self {
        DocumentFault::Io(error)
    }
}

/// Reads as much as tells JSON lines from a document, which is read to its end.
pub(super) fn open(mut input: Bytes, line: u64, limit: usize) -> Result<Json, DocumentFault> {
    let mut text = Vec::new();
    if !begins_document(&mut text, &mut input, limit)? {
        put_back(text, &mut input);
        return Ok(Json::Lines(Jsonl::new(input, line, limit)));
    }
    let room = LONGEST_DOCUMENT - text.len().min(LONGEST_DOCUMENT);
    input.by_ref().take(room as u64).read_to_end(&mut text)?;
    if !fill(&mut input)?.is_empty() {
        return Err(DocumentFault::TooLong);
    }
    Document::new(text, line, limit).map(Json::Document)
}

/// Takes the first line into `text`, and more where it needs more to tell.
fn begins_document(text: &mut Vec<u8>, input: &mut Bytes, limit: usize) -> io::Result<bool> {
    let ended = take_first_line(text, input, limit)?;
    if !ended {
        return Ok(false);
    }
    match serde_json::from_slice::<IgnoredAny>(text) {
        Ok(_) => {
            let form = std::str::from_utf8(text).ok().and_then(|text| Form::of(text, 0..text.trim_end().len()));
            Ok(form.is_some() && next_byte(text, input)?.is_none())
        }
        // The object goes on. If what follows cannot be its next part, the line is a broken row.
        Err(error) if error.is_eof() => Ok(match next_byte(text, input)? {
            None => false,
            Some(b'{') => goes_on_with_a_brace(text),
            Some(_) => true,
        }),
        Err(_) => Ok(false),
    }
}

fn goes_on_with_a_brace(text: &mut Vec<u8>) -> bool {
    text.push(b'{');
    let legal = serde_json::from_slice::<IgnoredAny>(text).is_err_and(|error| error.is_eof());
    text.pop();
    legal
}

/// False if the line is longer than a row may be and its beginning is that of a row, not of a list or an object of rows.
fn take_first_line(text: &mut Vec<u8>, input: &mut Bytes, limit: usize) -> io::Result<bool> {
    input.by_ref().take(limit as u64 + 1).read_until(b'\n', text)?;
    if text.len() <= limit || text.ends_with(b"\n") {
        return Ok(true);
    }
    if !may_hold_rows(text) {
        return Ok(false);
    }
    let room = LONGEST_DOCUMENT.saturating_sub(text.len());
    input.by_ref().take(room as u64).read_until(b'\n', text)?;
    Ok(text.len() < LONGEST_DOCUMENT)
}

/// True if the first value of the object is a list, an object or metadata, and the text ends inside a list or an object.
fn may_hold_rows(text: &[u8]) -> bool {
    let mut nesting = Nesting::default();
    text[1..].iter().for_each(|byte| {
        nesting.ends_at(*byte);
    });
    let start = String::from_utf8_lossy(&text[..text.len().min(1 << 10)]).into_owned();
    let colon = start.find(':').unwrap_or(start.len());
    let key = start[1..colon].trim().trim_matches('"');
    let value = start[colon..].trim_start_matches(':').trim_start();
    nesting.depth > 0 && (value.starts_with(['[', '{']) || METADATA.contains(&key))
}

/// The next byte that is not blank, which stays in the input; the blanks before it are taken into `text`.
fn next_byte(text: &mut Vec<u8>, input: &mut Bytes) -> io::Result<Option<u8>> {
    loop {
        let chunk = fill(input)?;
        if chunk.is_empty() {
            return Ok(None);
        }
        let blank = chunk.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let next = chunk.get(blank).copied();
        text.extend_from_slice(&chunk[..blank]);
        input.consume(blank);
        if next.is_some() {
            return Ok(next);
        }
    }
}

/// The rows of a document.
pub(super) struct Document {
    text: String,
    limit: usize,
    form: Form,
    next: usize,
    /// A place in the text and the line it is on.
    place: usize,
    line: u64,
}

/// Where the rows of a document are.
enum Form {
    /// Objects, and what is said of where they stand.
    Objects { rows: Vec<Span>, note: String },
    /// Objects whose `row` is the row.
    Served(Vec<Span>),
    /// Lists of values, and the JSON texts of the names.
    Lists { names: Vec<Span>, rows: Vec<Span> },
    /// For each column its values, and the JSON text of its name.
    Columns { names: Vec<Span>, columns: Vec<Vec<Span>> },
}

impl Document {
    fn new(text: Vec<u8>, line: u64, limit: usize) -> Result<Document, DocumentFault> {
        let invalid = |at: usize, text: &[u8], found| {
            DocumentFault::Invalid(line + text[..at].iter().filter(|byte| **byte == b'\n').count() as u64, found)
        };
        let text = String::from_utf8(text).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let half = matches!(utf8(error.as_bytes(), String::new), Err(ProblemKind::HalfCharacter { .. }));
            let found = if half { "half of a character" } else { "a byte that is not UTF-8" };
            invalid(at, error.as_bytes(), found.to_owned())
        })?;
        let objects = objects(&text).map_err(|error| {
            let words = error.to_string();
            let words = words.rfind(" at line ").map_or(words.as_str(), |at| &words[..at]);
            DocumentFault::Invalid(line + error.line().max(1) as u64 - 1, words.to_owned())
        })?;
        let form = match &objects[..] {
            [only] => Form::of(&text, only.clone()),
            _ => None,
        };
        let note = || "one JSON object a row, over several lines".to_owned();
        let form = form.unwrap_or_else(|| Form::Objects { rows: objects, note: note() });
        Ok(Document { text, limit, form, next: 0, place: 0, line })
    }

    /// What the document was read as.
    pub fn note(&self) -> String {
        match &self.form {
            Form::Objects { note, .. } => note.clone(),
            Form::Served(_) => "the rows are those of an answer of the datasets server".to_owned(),
            Form::Lists { .. } => "a JSON table with its `columns` and its rows under `data`".to_owned(),
            Form::Columns { .. } => "a JSON table stored by column".to_owned(),
        }
    }

    /// The next row.
    pub fn next(&mut self) -> Option<RawRow> {
        let at = self.next;
        let start = self.form.start(at)?;
        self.next += 1;
        let passed = &self.text.as_bytes()[self.place.min(start)..start];
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.place = start;
        Some((self.line, self.row(at)))
    }

    fn row(&self, at: usize) -> Result<Map<String, Value>, ProblemKind> {
        match &self.form {
            Form::Objects { rows, .. } => self.object(&self.text[rows[at].clone()]),
            Form::Served(rows) => served(self.object(&self.text[rows[at].clone()])?),
            Form::Lists { names, rows } => {
                let values = parts(&self.text, rows[at].clone());
                if values.len() != names.len() {
                    return Err(ProblemKind::Ragged { expected: names.len(), found: values.len() });
                }
                self.object(&self.joined(names, values.iter()))
            }
            Form::Columns { names, columns } => {
                self.object(&self.joined(names, columns.iter().map(|column| &column[at])))
            }
        }
    }

    fn object(&self, text: &str) -> Result<Map<String, Value>, ProblemKind> {
        if text.len() > self.limit {
            return Err(ProblemKind::TooLong { limit: self.limit });
        }
        parse_object(text)
    }

    /// The text of an object with these keys and values.
    fn joined<'a>(&self, names: &[Span], values: impl Iterator<Item = &'a Span>) -> String {
        let entry = |(name, value): (&Span, &Span)| [&self.text[name.clone()], ":", &self.text[value.clone()]].concat();
        format!("{{{}}}", names.iter().zip(values).map(entry).collect::<Vec<_>>().join(","))
    }
}

/// The row in an answer of the datasets server, if the server has sent all of it.
fn served(mut answer: Map<String, Value>) -> Result<Map<String, Value>, ProblemKind> {
    match answer.get("truncated_cells") {
        Some(Value::Array(cut)) if !cut.is_empty() => {
            let columns: Vec<String> = cut.iter().map(|name| format!("`{}`", name.as_str().unwrap_or("?"))).collect();
            return Err(ProblemKind::CutShort { columns: columns.join(", ") });
        }
        _ => {}
    }
    match answer.remove("row") {
        Some(Value::Object(row)) => Ok(row),
        _ => Err(ProblemKind::BadJson { found: "no object under the key `row`".to_owned() }),
    }
}

/// The objects that stand side by side in the text.
fn objects(text: &str) -> serde_json::Result<Vec<Span>> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut spans = Vec::new();
    loop {
        let before = stream.byte_offset();
        match stream.next() {
            None => return Ok(spans),
            Some(Err(error)) => return Err(error),
            Some(Ok(_)) => {
                let start = before + blank_length(&text[before..]);
                spans.push(start..stream.byte_offset());
            }
        }
    }
}

fn blank_length(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// An entry of an object: its key as text and as it stands, and its value.
struct Entry {
    key: String,
    name: Span,
    value: Span,
}

impl Form {
    /// The start of a row, which gives its line.
    fn start(&self, at: usize) -> Option<usize> {
        let rows = match self {
            Form::Objects { rows, .. } | Form::Served(rows) | Form::Lists { rows, .. } => rows,
            Form::Columns { columns, .. } => columns.first()?,
        };
        rows.get(at).map(|span| span.start)
    }

    /// The form of one valid object at `span`, if it is one of those that hold more rows than one.
    fn of(text: &str, span: Span) -> Option<Form> {
        let entries = entries(text, span)?;
        let distinct = entries.iter().enumerate().all(|(at, one)| entries[..at].iter().all(|two| one.key != two.key));
        if !distinct || entries.is_empty() {
            return None;
        }
        split_table(text, &entries)
            .or_else(|| wrapped(text, &entries))
            .or_else(|| columns_of_objects(text, &entries))
            .or_else(|| columns_of_lists(text, &entries))
    }
}

fn split_table(text: &str, entries: &[Entry]) -> Option<Form> {
    let of = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.clone());
    let known = entries.iter().all(|entry| ["columns", "index", "data"].contains(&entry.key.as_str()));
    let names = parts_of(text, of("columns")?, '[')?;
    let rows = parts_of(text, of("data")?, '[')?;
    let all = |spans: &[Span], start: char| spans.iter().all(|span| text[span.clone()].starts_with(start));
    (known && all(&names, '"') && all(&rows, '[')).then_some(Form::Lists { names, rows })
}

/// Rows in a list beside metadata.
fn wrapped(text: &str, entries: &[Entry]) -> Option<Form> {
    let mut lists = entries.iter().filter(|entry| ROWS.contains(&entry.key.as_str()));
    let (list, more) = (lists.next()?, lists.next());
    let others = entries.iter().all(|entry| entry.key == list.key || METADATA.contains(&entry.key.as_str()));
    let rows = parts_of(text, list.value.clone(), '[')?;
    if more.is_some() || !others || !rows.iter().all(|row| text[row.clone()].starts_with('{')) {
        return None;
    }
    let is_served = |row: &Span| {
        let row = entries_of(text, row.clone());
        row.iter().any(|entry| entry.key == "row" && text[entry.value.clone()].starts_with('{'))
            && row.iter().any(|entry| entry.key == "row_idx")
    };
    let served = list.key == "rows" && !rows.is_empty() && rows.iter().all(is_served);
    let note = format!("the rows are the list `{}` of one JSON object", list.key);
    Some(if served { Form::Served(rows) } else { Form::Objects { rows, note } })
}

/// What pandas writes by default, by column, and for `orient="index"`, by row. The keys of its index are numbers, which tells
/// them from the names of columns.
fn columns_of_objects(text: &str, table: &[Entry]) -> Option<Form> {
    let inner: Vec<Vec<(Span, Span)>> =
        table.iter().map(|entry| members(text, entry.value.clone())).collect::<Option<_>>()?;
    let key = |name: &Span| &text.as_bytes()[name.start + 1..name.end - 1];
    let is_number = |key: &[u8]| !key.is_empty() && key.iter().all(u8::is_ascii_digit);
    let is_index =
        |entries: &[(Span, Span)]| !entries.is_empty() && entries.iter().all(|(name, _)| is_number(key(name)));
    let by_row = table.iter().all(|entry| is_number(entry.key.as_bytes()));
    if by_row && !inner.iter().any(|row| row.is_empty() || is_index(row)) {
        let rows = table.iter().map(|entry| entry.value.clone()).collect();
        return Some(Form::Objects { rows, note: "a JSON table stored by row".to_owned() });
    }
    let same_index = |column: &Vec<(Span, Span)>| {
        column.len() == inner[0].len() && column.iter().zip(&inner[0]).all(|((one, _), (two, _))| key(one) == key(two))
    };
    if by_row || !is_index(&inner[0]) || !inner.iter().all(same_index) {
        return None;
    }
    let names = table.iter().map(|entry| entry.name.clone()).collect();
    let columns = inner.into_iter().map(|column| column.into_iter().map(|(_, value)| value).collect()).collect();
    Some(Form::Columns { names, columns })
}

/// Lists of one length. A row whose columns are conversations looks alike: its lists hold messages.
fn columns_of_lists(text: &str, table: &[Entry]) -> Option<Form> {
    let columns: Vec<Vec<Span>> =
        table.iter().map(|entry| parts_of(text, entry.value.clone(), '[')).collect::<Option<_>>()?;
    let length = columns[0].len();
    let is_message =
        |span: &Span| entries_of(text, span.clone()).iter().any(|entry| entry.key == "role" || entry.key == "from");
    let even = columns.iter().all(|column| column.len() == length) && length > 0 && columns.len() > 1;
    if !even || columns.iter().flatten().any(is_message) {
        return None;
    }
    let names = table.iter().map(|entry| entry.name.clone()).collect();
    Some(Form::Columns { names, columns })
}

/// The entries of an object; `None` of anything else.
fn entries(text: &str, span: Span) -> Option<Vec<Entry>> {
    let entry = |(name, value): (Span, Span)| {
        let key = serde_json::from_str(&text[name.clone()]).ok()?;
        Some(Entry { key, name, value })
    };
    members(text, span)?.into_iter().map(entry).collect()
}

/// The same, and none of anything else.
fn entries_of(text: &str, span: Span) -> Vec<Entry> {
    entries(text, span).unwrap_or_default()
}

/// The keys of an object, as they stand, and their values; `None` of anything else.
fn members(text: &str, span: Span) -> Option<Vec<(Span, Span)>> {
    let member = |part: Span| {
        let name = part.start..part.start + string_length(&text[part.clone()]);
        let value = text[name.end..part.end].trim_start().strip_prefix(':')?.trim_start();
        Some((name, part.end - value.len()..part.end))
    };
    parts_of(text, span, '{')?.into_iter().map(member).collect()
}

/// The length of the string that the text begins with, its quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let close = text.bytes().skip(1).position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    close.map_or(text.len(), |at| at + 2)
}

/// The elements of the list or the entries of the object at `span`, if it begins with that bracket.
fn parts_of(text: &str, span: Span, bracket: char) -> Option<Vec<Span>> {
    text[span.clone()].starts_with(bracket).then(|| parts(text, span))
}

/// What stands between the commas of the valid list or object at `span`.
fn parts(text: &str, span: Span) -> Vec<Span> {
    let (mut parts, mut nesting) = (Vec::new(), Nesting::default());
    let mut start = span.start + 1;
    for at in span.start + 1..span.end - 1 {
        if nesting.ends_at(text.as_bytes()[at]) {
            parts.push(trimmed(text, start..at));
            start = at + 1;
        }
    }
    let last = trimmed(text, start..span.end - 1);
    if !last.is_empty() {
        parts.push(last);
    }
    parts
}

fn trimmed(text: &str, span: Span) -> Span {
    let part = &text[span.clone()];
    let start = span.start + blank_length(part);
    start..start + part.trim().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Cursor};

    fn bytes(text: &str) -> Bytes {
        Box::new(BufReader::with_capacity(3, Cursor::new(text.as_bytes().to_vec())))
    }

    /// `lines` for JSON lines, else the note, the lines and the rows.
    fn outline(text: &str) -> String {
        match open(bytes(text), 1, 60) {
            Ok(Json::Lines(mut lines)) => {
                let mut outline = "lines".to_owned();
                while let Ok(Some((line, row))) = lines.next() {
                    outline += &format!(" {line}{}", if row.is_ok() { "" } else { "!" });
                }
                outline
            }
            Ok(Json::Document(mut document)) => {
                let mut outline = document.note();
                while let Some((line, row)) = document.next() {
                    let row = row.map_or_else(|kind| kind.name().to_owned(), |row| Value::Object(row).to_string());
                    outline += &format!(" | {line} {row}");
                }
                outline
            }
            Err(DocumentFault::Invalid(line, found)) => format!("{line}: {found}"),
            Err(_) => "error".to_owned(),
        }
    }

    #[test]
    fn rows_stay_rows() {
        let long = format!("{{\"a\":[\"{}\"]}}\n{{}}", "x".repeat(90));
        let cases = [
            ("{\"a\":1}", "lines 1"),
            ("{\"a\":1}\n\n{\"b\":2}\n", "lines 1 3"),
            // One key, and rows of one key that look like a document, but more rows follow.
            ("{\"data\":[{\"a\":1}]}\n{\"data\":[{\"a\":2}]}", "lines 1 2"),
            ("{\"a\":[\"x\"],\"b\":[\"y\"]}\n{\"a\":[\"x\"],\"b\":[\"y\"]}", "lines 1 2"),
            // A task of Label Studio, a group, conversations, a list of texts beside a text.
            ("{\"id\":1,\"data\":{\"a\":\"x\"},\"annotations\":[{}]}", "lines 1"),
            ("{\"prompt\":\"p\",\"responses\":[{\"text\":\"a\"}]}", "lines 1"),
            ("{\"prompt\":\"p\",\"examples\":[{\"text\":\"a\"}]}", "lines 1"),
            ("{\"chosen\":[{\"role\":\"u\"}],\"rejected\":[{\"role\":\"u\"}]}", "lines 1"),
            ("{\"a\":{\"role\":1},\"b\":{\"role\":2}}", "lines 1"),
            ("{\"prompt\":\"p\",\"chosen\":[\"a\"]}", "lines 1"),
            ("{\"data\":[{\"a\":1}],\"data\":[]}", "lines 1!"),
            // Broken rows.
            ("{\"a\":\"x\n{\"a\":1}", "lines 1! 2"),
            ("{\"a\":1,\n{\"a\":1}", "lines 1! 2"),
            ("{\"a\":[1\n{\"a\":1}", "lines 1! 2"),
            ("{\"a\":", "lines 1!"),
            ("{\n", "lines 1!"),
            (&long, "lines 1! 2"),
        ];
        for (text, expected) in cases {
            assert_eq!(outline(text), expected, "{text}");
        }
    }

    #[test]
    fn documents() {
        let wrapped = "the rows are the list `data` of one JSON object";
        let objects = "one JSON object a row, over several lines";
        let columns = "a JSON table stored by column";
        let cases = [
            ("{\n \"a\": 1,\n \"b\": {}\n}\n", format!("{objects} | 1 {{\"a\":1,\"b\":{{}}}}")),
            ("{\"a\":\n{\"x\":1}}", format!("{objects} | 1 {{\"a\":{{\"x\":1}}}}")),
            ("{\n\"a\":1\n}\n\n{\n\"a\":2}", format!("{objects} | 1 {{\"a\":1}} | 5 {{\"a\":2}}")),
            (
                "{\"data\":[{\"a\":\"]}\\\"\"}, {\"a\":2}]}",
                format!("{wrapped} | 1 {{\"a\":\"]}}\\\"\"}} | 1 {{\"a\":2}}"),
            ),
            (
                "{\"version\": \"1\",\n\"data\": [\n{\"a\":1},\n{\"a\":2,\"a\":3}\n]}",
                format!("{wrapped} | 3 {{\"a\":1}} | 4 bad_json"),
            ),
            ("{\"data\":[\n{\"a\":1}]}", format!("{wrapped} | 2 {{\"a\":1}}")),
            ("{\"data\":[]}", wrapped.to_owned()),
            (
                "{\"a\":{\"0\":\"x\",\"1\":null},\"b\":{\"0\":1,\"1\":2}}",
                format!("{columns} | 1 {{\"a\":\"x\",\"b\":1}} | 1 {{\"a\":null,\"b\":2}}"),
            ),
            (
                "{\"0\":{\"a\":\"x\"},\"7\":{\"a\":\"y\"}}",
                "a JSON table stored by row | 1 {\"a\":\"x\"} | 1 {\"a\":\"y\"}".to_owned(),
            ),
            (
                "{\"columns\":[\"a\",\"b\"],\"index\":[0],\"data\":[[\"x\",[1,2]],[1]]}",
                "a JSON table with its `columns` and its rows under `data` | 1 {\"a\":\"x\",\"b\":[1,2]} | 1 ragged"
                    .to_owned(),
            ),
            (
                "{\"a\":[\"x\",\"y\"],\n\"b\":[[{\"role\":1}],\n[]]}",
                format!("{columns} | 1 {{\"a\":\"x\",\"b\":[{{\"role\":1}}]}} | 1 {{\"a\":\"y\",\"b\":[]}}"),
            ),
            (
                "{\"features\":[{}],\"rows\":[{\"row_idx\":0,\"row\":{\"a\":1},\"truncated_cells\":[]},\
                 {\"row_idx\":1,\"row\":{\"a\":2},\"truncated_cells\":[\"a\"]}]}",
                "the rows are those of an answer of the datasets server | 1 {\"a\":1} | 1 cut_short".to_owned(),
            ),
            ("{\"a\":1,\n\"b\":]}", "2: expected value".to_owned()),
            ("{\n\"a\":1}\n x", "3: expected value".to_owned()),
            ("{\n\"a\":\"\u{1}\"}", "2: control character (\\u0000-\\u001F) found while parsing a string".to_owned()),
        ];
        for (text, expected) in cases {
            assert_eq!(outline(text), expected, "{text}");
        }
        let long = format!("{{\"data\":[{{\"a\":\"{}\"}},{{}}]}}", "x".repeat(90));
        assert_eq!(outline(&long), format!("{wrapped} | 1 too_long | 1 {{}}"));
    }

    #[test]
    fn bytes_that_are_no_text_are_located() {
        for (bytes, expected) in [(b"\xff", "a byte that is not UTF-8"), (b"\xed", "half of a character")] {
            let text = [b"{\n\"a\":\n\"", &bytes[..], b"\xa0\x80\"}"].concat();
            let Err(DocumentFault::Invalid(line, found)) = open(Box::new(Cursor::new(text)), 1, 60) else { panic!() };
            assert_eq!((line, found.as_str()), (3, expected));
        }
    }

    #[test]
    fn integers_beyond_64_bits_pass_through() {
        let found = outline("{\"a\":{\"0\":12345678901234567890123}}");
        assert!(found.contains("12345678901234567890123"), "{found}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(start in 0..4usize, noise in r#"[a",\n\[\]{}:0-9\\é ]{0,60}"#) {
            let starts = ["{", "{\"data\":[", "{\"a\":{\"0\":", "{\n\"a\":["];
            outline(&[starts[start], &noise].concat());
        }
    }
}
