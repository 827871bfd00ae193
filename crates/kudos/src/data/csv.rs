//! CSV by RFC 4180: quotes, doubled quotes, separators and line breaks inside quoted fields.
//!
//! The records are split here and not by the `csv` crate (which writes our files, and is the oracle in
//! the tests) because three things matter for other people's files that it does not tell: the line
//! where each record starts, a quote that is never closed (it would swallow the rest of the file in
//! silence), and a bound on the memory of one record.

use super::encoding::{Encoding, WINDOWS_1252_NOTE};
use super::error::ProblemKind;
use super::jsonl::RawRow;
use super::separator::{LONGEST_HEADER, found_separator, named_separator, refused};
use super::source::{Bytes, Refusal, fill, take_line};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io::{self, Cursor, Read};

/// Turns the text of a cell into a value, by the name of its column.
pub(super) type TypeCell = Box<dyn Fn(&str, String) -> Value + Send>;

/// Records under a header.
pub(super) struct Csv {
    records: Records,
    encoding: Encoding,
    /// What is to be said of the file, until it is taken.
    note: Option<&'static str>,
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
    /// The first line is not that of a table.
    Refused(Refusal),
}

impl From<io::Error> for CsvFault {
    fn from(error: io::Error) -> Self {
        CsvFault::Io(error)
    }
}

impl Csv {
    /// Reads the header; `line` is the line the input stands at.
    pub fn new(mut input: Bytes, mut line: u64, limit: usize, encoding: Encoding) -> Result<Self, CsvFault> {
        let mut start = take_line(&mut input, LONGEST_HEADER)?;
        if let Some(refusal) = refused(&start) {
            return Err(CsvFault::Refused(refusal));
        }
        let separator = match named_separator(&start) {
            Some((separator, length)) => {
                line += 1;
                start.drain(..length);
                separator
            }
            None => found_separator(&mut start, &mut input)?,
        };
        let input = Box::new(Cursor::new(start).chain(input));
        let mut records = Records::new(input, line, limit, separator);
        records.read()?;
        let mut csv = Csv {
            records,
            encoding,
            note: None,
            header: Vec::new(),
            header_line: 0,
            type_cell: Box::new(|_, cell| cell.into()),
        };
        csv.header_line = csv.records.splitter.start;
        let header = csv.fields(None).map_err(|kind| CsvFault::Header(csv.header_line, kind))?;
        csv.header = header.iter().map(|name| name.trim().to_owned()).collect();
        Ok(csv)
    }

    /// What separates the fields.
    #[cfg(test)]
    pub fn separator(&self) -> u8 {
        self.records.splitter.separator
    }

    pub fn line(&self) -> u64 {
        self.records.splitter.line
    }

    /// What is to be said of the file since this was last called.
    pub fn take_note(&mut self) -> Option<&'static str> {
        self.note.take()
    }

    /// Bytes read so far, the header among them, and how the records after them are read.
    pub fn stand(&self) -> (u64, u64, CsvState) {
        let Splitter { line, after_cr, .. } = self.records.splitter;
        (self.records.consumed, line, CsvState { after_cr, encoding: self.encoding })
    }

    /// Reads on in an input that stands before a record.
    pub fn jump(&mut self, input: Bytes, line: u64, state: CsvState) {
        self.records.input = input;
        (self.records.splitter.line, self.records.splitter.after_cr) = (line, state.after_cr);
        self.encoding = state.encoding;
    }

    pub fn next(&mut self) -> Result<Option<RawRow>, CsvFault> {
        if !self.records.read()? {
            return Ok(None);
        }
        let fields = self.fields(Some(self.header.len()));
        Ok(Some((self.records.splitter.start, fields.map(|fields| self.row(fields)))))
    }

    /// The fields of the record as text, if there are as many as expected.
    fn fields(&mut self, expected: Option<usize>) -> Result<Vec<String>, ProblemKind> {
        let before = self.encoding;
        let fields = self.records.splitter.fields(expected, &mut self.encoding);
        if before != self.encoding && self.encoding == Encoding::Windows1252 {
            self.note = Some(WINDOWS_1252_NOTE);
        }
        fields
    }

    fn row(&self, fields: Vec<String>) -> Map<String, Value> {
        let cell = |(name, text): (&String, String)| (name.clone(), (self.type_cell)(name, text));
        self.header.iter().zip(fields).map(cell).collect()
    }
}

/// What earlier records decide of how a later one is read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct CsvState {
    /// The byte before it is a carriage return, so that a line feed is no line of its own.
    after_cr: bool,
    encoding: Encoding,
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
    /// Bytes of the input that are read.
    consumed: u64,
}

impl Records {
    fn new(input: Bytes, line: u64, limit: usize, separator: u8) -> Self {
        Records { input, splitter: Splitter::new(line, limit, separator), consumed: 0 }
    }

    /// Reads the next record; false at the end of the file.
    fn read(&mut self) -> Result<bool, CsvFault> {
        self.splitter.clear();
        loop {
            let chunk = fill(&mut self.input)?;
            if chunk.is_empty() {
                return self.splitter.end_of_file();
            }
            let (used, ended) = self.splitter.feed_all(chunk);
            self.input.consume(used);
            self.consumed += used as u64;
            if ended {
                return Ok(true);
            }
        }
    }
}

/// Splits a stream of bytes into records of fields.
struct Splitter {
    separator: u8,
    /// For each byte, whether it means nothing inside a field.
    plain: [bool; 256],
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
    fn new(line: u64, limit: usize, separator: u8) -> Self {
        let (bytes, ends) = (Vec::new(), Vec::new());
        let state = State::Between;
        let mut plain = [true; 256];
        [b'"', b'\r', b'\n', separator].iter().for_each(|byte| plain[usize::from(*byte)] = false);
        Splitter { separator, plain, limit, line, start: line, after_cr: false, state, bytes, ends, problem: None }
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

    /// Feeds bytes up to the end of the record: how many, and whether it has ended.
    fn feed_all(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while at < bytes.len() {
            if matches!(self.state, State::Bare | State::Quoted) {
                let run = bytes[at..].iter().take_while(|byte| self.plain[usize::from(**byte)]).count();
                self.push_all(&bytes[at..at + run]);
                at += run;
            }
            let Some(byte) = bytes.get(at) else { break };
            at += 1;
            if self.feed(*byte) {
                return (at, true);
            }
        }
        (at, false)
    }

    /// Feeds bytes that mean nothing inside the field they are in.
    fn push_all(&mut self, run: &[u8]) {
        let room = self.limit.saturating_sub(self.bytes.len() + size_of::<usize>() * self.ends.len());
        self.bytes.extend_from_slice(&run[..run.len().min(room)]);
        self.after_cr &= run.is_empty();
        if run.len() > room {
            self.problem = Some(ProblemKind::TooLong { limit: self.limit });
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
            (_, byte) if byte == self.separator => {
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

    /// The fields as text, if there are as many as expected.
    fn fields(&self, expected: Option<usize>, encoding: &mut Encoding) -> Result<Vec<String>, ProblemKind> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        if let Some(expected) = expected.filter(|count| *count != self.ends.len()) {
            return Err(ProblemKind::Ragged { expected, found: self.ends.len() });
        }
        encoding.fields(&self.bytes, &self.ends)
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
        let mut records = Records::new(input, 1, limit, b',');
        let (mut all, mut encoding) = (Vec::new(), Encoding::Utf8);
        loop {
            match records.read() {
                Ok(true) => all.push((records.splitter.start, records.splitter.fields(None, &mut encoding))),
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

    fn open(bytes: &[u8], encoding: Encoding) -> Csv {
        let input = Box::new(BufReader::with_capacity(2, Cursor::new(bytes.to_vec())));
        Csv::new(input, 1, 9999, encoding).unwrap_or_else(|_| panic!("{:?}", String::from_utf8_lossy(bytes)))
    }

    #[test]
    fn windows_1252_is_said_once() {
        let mut csv = open(b"a;b\nx;y\n\xe9;z\n\x93q\x94;\xc3\xbc\n\xfc;w", Encoding::Undecided);
        let mut found = Vec::new();
        while let Ok(Some((line, row))) = csv.next() {
            let row = row.map_or_else(|kind| kind.name().to_owned(), |row| Value::Object(row).to_string());
            found.push(format!("{line} {row} {}", csv.take_note().is_some()));
        }
        let expected = [
            "2 {\"a\":\"x\",\"b\":\"y\"} false",
            "3 {\"a\":\"é\",\"b\":\"z\"} true",
            "4 {\"a\":\"“q”\",\"b\":\"Ã¼\"} false",
            "5 {\"a\":\"ü\",\"b\":\"w\"} false",
        ];
        assert_eq!(found, expected);
        assert!(open("é;b\n".as_bytes(), Encoding::Undecided).take_note().is_none());
        assert!(open(b"\xe9;b\n", Encoding::Undecided).take_note().is_some());
    }

    /// The `csv` crate, which reads leniently where we report.
    fn oracle(bytes: &[u8]) -> Vec<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
        reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
    }

    fn written(rows: &[Vec<String>], separator: u8) -> Vec<u8> {
        let mut writer = csv::WriterBuilder::new().delimiter(separator).from_writer(Vec::new());
        rows.iter().for_each(|row| writer.write_record(row).unwrap());
        writer.into_inner().unwrap()
    }

    proptest! {
        #[test]
        fn what_the_csv_crate_writes_is_read_back(
            width in 2..5usize,
            cells in prop::collection::vec("[a-z,;\t\"\r\n éßÿü]{0,8}", 4..40),
            separator in 0..3usize,
            western: bool,
        ) {
            let header: Vec<String> = (0..width).map(|at| format!("column {at}")).collect();
            let mut rows = vec![header];
            rows.extend(cells.chunks_exact(width).map(<[_]>::to_vec));
            let mut bytes = written(&rows, super::super::separator::SEPARATORS[separator]);
            if western {
                let text = String::from_utf8(bytes).unwrap();
                bytes = text.chars().map(|c| c as u32 as u8).collect();
            }
            let mut csv = open(&bytes, Encoding::Undecided);
            for row in &rows[1..] {
                let Ok(Some((_, Ok(found)))) = csv.next() else { panic!("{row:?}") };
                prop_assert_eq!(found.values().map(|v| v.as_str().unwrap()).collect::<Vec<_>>(), row.clone());
            }
            prop_assert!(matches!(csv.next(), Ok(None)));
        }

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
