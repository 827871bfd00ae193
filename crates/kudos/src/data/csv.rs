//! CSV by RFC 4180: quotes, doubled quotes, commas and line breaks inside quoted fields.
//!
//! The records are split here and not by the `csv` crate (which writes our files, and is the oracle in
//! the tests) because three things matter for other people's files that it does not tell: the line
//! where each record starts, a quote that is never closed (it would swallow the rest of the file in
//! silence), and a bound on the memory of one record.

use super::error::ProblemKind;
use super::jsonl::RawRow;
use super::source::{Bytes, fill};
use serde_json::{Map, Value};
use std::io;

/// Turns the text of a cell into a value, by the name of its column.
pub(super) type TypeCell = Box<dyn Fn(&str, String) -> Value + Send>;

/// Records under a header.
pub(super) struct Csv {
    records: Records,
    pub header: Vec<String>,
    pub header_line: u64,
    /// Set once the header is known to be that of a kind of data.
    pub type_cell: TypeCell,
}

/// Why a CSV file cannot be read further.
pub(super) enum CsvFault {
    Io(io::Error),
    /// The end of the file inside quotes; the line where the row starts.
    UnclosedQuote(u64),
    /// The header itself is unusable.
    Header(u64, ProblemKind),
    /// The header has one column, in which another separator stands: its name.
    Separator(u64, &'static str),
}

impl From<io::Error> for CsvFault {
    fn from(error: io::Error) -> Self {
        CsvFault::Io(error)
    }
}

impl Csv {
    /// Reads the header; `line` is the line the input stands at.
    pub fn new(input: Bytes, line: u64, limit: usize) -> Result<Self, CsvFault> {
        let mut records = Records::new(input, line, limit);
        records.read()?;
        let header_line = records.splitter.start;
        if let Some(found) = records.splitter.other_separator() {
            return Err(CsvFault::Separator(header_line, found));
        }
        let header = records.splitter.fields(None).map_err(|kind| CsvFault::Header(header_line, kind))?;
        let header = header.iter().map(|name| name.trim().to_owned()).collect();
        Ok(Csv { records, header, header_line, type_cell: Box::new(|_, cell| cell.into()) })
    }

    pub fn line(&self) -> u64 {
        self.records.splitter.line
    }

    pub fn next(&mut self) -> Result<Option<RawRow>, CsvFault> {
        if !self.records.read()? {
            return Ok(None);
        }
        let fields = self.records.splitter.fields(Some(self.header.len()));
        Ok(Some((self.records.splitter.start, fields.map(|fields| self.row(fields)))))
    }

    fn row(&self, fields: Vec<String>) -> Map<String, Value> {
        let cell = |(name, text): (&String, String)| (name.clone(), (self.type_cell)(name, text));
        self.header.iter().zip(fields).map(cell).collect()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Before a record: blank lines are passed over.
    Between,
    /// At the start of a field.
    Field,
    Bare,
    Quoted,
    /// After a quote inside quotes: the end of the field, or the first half of a doubled quote.
    Quote,
}

/// Reads one record at a time.
struct Records {
    input: Bytes,
    splitter: Splitter,
}

impl Records {
    fn new(input: Bytes, line: u64, limit: usize) -> Self {
        Records { input, splitter: Splitter::new(line, limit) }
    }

    /// Reads the next record; false at the end of the file.
    fn read(&mut self) -> Result<bool, CsvFault> {
        self.splitter.clear();
        loop {
            let chunk = fill(&mut self.input)?;
            if chunk.is_empty() {
                return self.splitter.end_of_file();
            }
            let end = chunk.iter().position(|byte| self.splitter.feed(*byte));
            let used = end.map_or(chunk.len(), |at| at + 1);
            self.input.consume(used);
            if end.is_some() {
                return Ok(true);
            }
        }
    }
}

/// Splits a stream of bytes into records of fields.
struct Splitter {
    limit: usize,
    line: u64,
    /// Line the current record starts at.
    start: u64,
    after_cr: bool,
    state: State,
    /// The fields of the record laid end to end, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    problem: Option<ProblemKind>,
}

impl Splitter {
    fn new(line: u64, limit: usize) -> Self {
        let (bytes, ends) = (Vec::new(), Vec::new());
        let state = State::Between;
        Splitter { limit, line, start: line, after_cr: false, state, bytes, ends, problem: None }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.problem = None;
        self.state = State::Between;
    }

    fn end_of_file(&mut self) -> Result<bool, CsvFault> {
        match self.state {
            State::Between => Ok(false),
            State::Quoted => Err(CsvFault::UnclosedQuote(self.start)),
            State::Field | State::Bare | State::Quote => {
                self.end_field();
                Ok(true)
            }
        }
    }

    /// Feeds one byte; true if it ends the record.
    fn feed(&mut self, byte: u8) -> bool {
        if self.state == State::Between {
            if matches!(byte, b'\r' | b'\n') {
                self.count_line(byte);
                return false;
            }
            self.start = self.line;
            self.state = State::Field;
        }
        self.count_line(byte);
        match (self.state, byte) {
            (State::Quoted, b'"') => self.state = State::Quote,
            (State::Quoted, _) => self.push(byte),
            (State::Field, b'"') => self.state = State::Quoted,
            (State::Quote, b'"') => {
                self.push(byte);
                self.state = State::Quoted;
            }
            (_, b',') => {
                self.end_field();
                self.state = State::Field;
            }
            (_, b'\r' | b'\n') => {
                self.end_field();
                return true;
            }
            _ => self.push_bare(byte),
        }
        false
    }

    fn push_bare(&mut self, byte: u8) {
        if self.state == State::Quote {
            self.problem.get_or_insert(ProblemKind::BadQuote { field: self.ends.len() + 1 });
        }
        self.state = State::Bare;
        self.push(byte);
    }

    /// Counts `\n`, `\r\n` and a lone `\r` as one line each.
    fn count_line(&mut self, byte: u8) {
        self.line += u64::from(byte == b'\r' || byte == b'\n' && !self.after_cr);
        self.after_cr = byte == b'\r';
    }

    fn push(&mut self, byte: u8) {
        if self.has_room() {
            self.bytes.push(byte);
        }
    }

    fn end_field(&mut self) {
        if self.has_room() {
            self.ends.push(self.bytes.len());
        }
    }

    fn has_room(&mut self) -> bool {
        let full = self.bytes.len() + size_of::<usize>() * self.ends.len() >= self.limit;
        if full {
            self.problem = Some(ProblemKind::TooLong { limit: self.limit });
        }
        !full
    }

    /// The separator that the one field of the record is full of, if any. (Quotes around what it separates do not matter.)
    fn other_separator(&self) -> Option<&'static str> {
        let stands = |separator: u8| self.ends.len() == 1 && self.bytes.contains(&separator);
        [(b';', "`;`"), (b'\t', "a tab")].into_iter().find(|(separator, _)| stands(*separator)).map(|(_, name)| name)
    }

    /// The fields as text, if there are as many as expected.
    fn fields(&self, expected: Option<usize>) -> Result<Vec<String>, ProblemKind> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        if let Some(expected) = expected.filter(|count| *count != self.ends.len()) {
            return Err(ProblemKind::Ragged { expected, found: self.ends.len() });
        }
        let mut start = 0;
        let mut fields = Vec::with_capacity(self.ends.len());
        for (at, end) in self.ends.iter().enumerate() {
            let field = std::str::from_utf8(&self.bytes[start..*end]).map_err(|e| {
                let place = format!("field {}", at + 1);
                ProblemKind::NotUtf8 { byte: e.valid_up_to() + 1, place }
            })?;
            fields.push(field.to_owned());
            start = *end;
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{BufReader, Cursor};

    type Record = (u64, Result<Vec<String>, ProblemKind>);
    /// A text and its records: line, fields.
    type Case = (&'static str, &'static [(u64, &'static [&'static str])]);

    fn records(bytes: &[u8], buffer: usize, limit: usize) -> Result<Vec<Record>, u64> {
        let input = Box::new(BufReader::with_capacity(buffer, Cursor::new(bytes.to_vec())));
        let mut records = Records::new(input, 1, limit);
        let mut all = Vec::new();
        loop {
            match records.read() {
                Ok(true) => all.push((records.splitter.start, records.splitter.fields(None))),
                Ok(false) => return Ok(all),
                Err(CsvFault::UnclosedQuote(line)) => return Err(line),
                Err(_) => unreachable!("reading from memory"),
            }
        }
    }

    #[test]
    fn splitting() {
        let cases: [Case; 10] = [
            ("a,b\n1,2\n", &[(1, &["a", "b"]), (2, &["1", "2"])]),
            ("a,b\r\n1,2", &[(1, &["a", "b"]), (2, &["1", "2"])]),
            ("a\rb\r\rc", &[(1, &["a"]), (2, &["b"]), (4, &["c"])]),
            ("a\r\n\r\nb\n\nc", &[(1, &["a"]), (3, &["b"]), (5, &["c"])]),
            ("\"x\ny\",z\nw,v", &[(1, &["x\ny", "z"]), (3, &["w", "v"])]),
            ("\"x\r\ny\"\r\nw", &[(1, &["x\r\ny"]), (3, &["w"])]),
            ("\"say \"\"hi\"\"\",\"\"", &[(1, &["say \"hi\"", ""])]),
            (",,\n", &[(1, &["", "", ""])]),
            ("5\" disk,x", &[(1, &["5\" disk", "x"])]),
            ("\"\"\n", &[(1, &[""])]),
        ];
        for (text, expected) in cases {
            let found = records(text.as_bytes(), 1, 99).unwrap();
            let found: Vec<_> = found.into_iter().map(|(line, row)| (line, row.unwrap())).collect();
            let expected: Vec<_> =
                expected.iter().map(|(line, row)| (*line, row.iter().map(|s| s.to_string()).collect())).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn malformed() {
        assert_eq!(records(b"a\n\nb,\"c\nd", 3, 99), Err(3));
        let found = records(b"a\n\"b\"c,d\ne", 3, 99).unwrap();
        assert_eq!(found[1], (2, Err(ProblemKind::BadQuote { field: 1 })));
        assert_eq!(found[2], (3, Ok(vec!["e".into()])));
        let found = records(b"a,b\xff\nc", 3, 99).unwrap();
        assert_eq!(found[0].1, Err(ProblemKind::NotUtf8 { byte: 2, place: "field 2".into() }));
        let found = records(b"aaaaaaaaaaaaaa,,,,,\nb", 3, 9).unwrap();
        assert_eq!(found[0].1, Err(ProblemKind::TooLong { limit: 9 }));
        assert_eq!(found[1], (2, Ok(vec!["b".into()])));
    }

    /// The `csv` crate, which reads leniently where we report.
    fn oracle(bytes: &[u8]) -> Vec<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
        reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
    }

    proptest! {
        #[test]
        fn agrees_with_the_csv_crate(text in r#"[ab",\r\n]{0,40}"#, buffer in 1usize..9) {
            if let Ok(found) = records(text.as_bytes(), buffer, 9999) {
                let clean: Result<Vec<_>, _> = found.into_iter().map(|(_, row)| row).collect();
                if let Ok(clean) = clean {
                    prop_assert_eq!(clean, oracle(text.as_bytes()));
                }
            }
        }
    }
}
