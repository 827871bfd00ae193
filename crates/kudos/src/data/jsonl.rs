//! JSON objects: one a line, or the elements of one array.
//!
//! Neither reader holds more than one row. They only find where a row begins and ends; `serde_json`
//! parses it, with its limit on nesting. An overlong row is skipped without being stored, so that a
//! 200 MB line costs time and no memory.

use super::encoding::utf8;
use super::error::ProblemKind;
use super::integer;
use super::source::{Bytes, fill, skip_blank};
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::io;

/// One row as it stands in the file: the line it starts at, and its columns.
pub(super) type RawRow = (u64, Result<Map<String, Value>, ProblemKind>);

/// One object a line.
pub(super) struct Jsonl {
    input: Bytes,
    line: u64,
    row: Capped,
    /// Bytes of the input that are read.
    consumed: u64,
}

impl Jsonl {
    pub fn new(input: Bytes, line: u64, limit: usize) -> Self {
        Jsonl { input, line, row: Capped::new(limit), consumed: 0 }
    }

    /// Bytes read so far, which end where a line does.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Reads on in an input that stands at the beginning of this line.
    pub fn jump(&mut self, input: Bytes, line: u64) {
        (self.input, self.line) = (input, line);
    }

    pub fn line(&self) -> u64 {
        self.line
    }

    pub fn next(&mut self) -> io::Result<Option<RawRow>> {
        loop {
            let line = self.line;
            if !self.read_line()? {
                return Ok(None);
            }
            if !self.row.is_blank() {
                return Ok(Some((line, self.row.parse("the line"))));
            }
        }
    }

    /// The next line that is not blank, as text: what stands on it, without white space around it.
    pub fn next_text(&mut self) -> io::Result<Option<(u64, Result<String, ProblemKind>)>> {
        loop {
            let line = self.line;
            if !self.read_line()? {
                return Ok(None);
            }
            let text = self.row.text("the line").map(|text| text.trim().to_owned());
            if text != Ok(String::new()) {
                return Ok(Some((line, text)));
            }
        }
    }

    /// False at the end of the file.
    fn read_line(&mut self) -> io::Result<bool> {
        self.row.clear();
        let mut any = false;
        loop {
            let chunk = fill(&mut self.input)?;
            if chunk.is_empty() {
                return Ok(any);
            }
            any = true;
            let end = chunk.iter().position(|b| *b == b'\n');
            let length = end.unwrap_or(chunk.len());
            self.row.push(&chunk[..length]);
            let used = length + usize::from(end.is_some());
            self.input.consume(used);
            self.consumed += used as u64;
            if end.is_some() {
                self.line += 1;
                return Ok(true);
            }
        }
    }
}

/// The elements of one array, each on any number of lines.
pub(super) struct JsonArray {
    input: Bytes,
    line: u64,
    row: Capped,
    opened: bool,
    closed: bool,
}

/// How the array goes on after an element.
enum After {
    Comma,
    Close,
}

/// Why an array cannot be read further.
pub(super) enum ArrayFault {
    Io(io::Error),
    /// The end of the file inside the array.
    Unclosed,
    /// Text after the closing bracket.
    Trailing,
}

impl From<io::Error> for ArrayFault {
    fn from(error: io::Error) -> Self {
        ArrayFault::Io(error)
    }
}

impl JsonArray {
    pub fn new(input: Bytes, line: u64, limit: usize) -> Self {
        JsonArray { input, line, row: Capped::new(limit), opened: false, closed: false }
    }

    pub fn line(&self) -> u64 {
        self.line
    }

    pub fn next(&mut self) -> Result<Option<RawRow>, ArrayFault> {
        if !self.opened {
            fill(&mut self.input)?;
            self.input.consume(1);
            self.opened = true;
        }
        if self.closed {
            return self.end();
        }
        let next = skip_blank(&mut self.input, &mut self.line)?;
        let line = self.line;
        let after = self.read_element()?;
        self.closed = matches!(after, After::Close);
        if self.closed && next == Some(b']') {
            return self.end();
        }
        Ok(Some((line, self.row.parse("the element"))))
    }

    fn end(&mut self) -> Result<Option<RawRow>, ArrayFault> {
        match skip_blank(&mut self.input, &mut self.line)? {
            None => Ok(None),
            Some(_) => Err(ArrayFault::Trailing),
        }
    }

    /// Reads up to the comma or bracket that ends an element, which is consumed and not stored.
    fn read_element(&mut self) -> Result<After, ArrayFault> {
        self.row.clear();
        let mut nesting = Nesting::default();
        loop {
            let chunk = fill(&mut self.input)?;
            if chunk.is_empty() {
                return Err(ArrayFault::Unclosed);
            }
            let end = chunk.iter().position(|byte| nesting.ends_at(*byte));
            let element = &chunk[..end.unwrap_or(chunk.len())];
            self.line += element.iter().filter(|b| **b == b'\n').count() as u64;
            self.row.push(element);
            let after = end.map(|at| if chunk[at] == b',' { After::Comma } else { After::Close });
            let used = element.len() + usize::from(end.is_some());
            self.input.consume(used);
            if let Some(after) = after {
                return Ok(after);
            }
        }
    }
}

/// Just enough of JSON's grammar to see where an element ends.
#[derive(Default)]
pub(super) struct Nesting {
    pub depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Feeds one byte; true if it is the comma or bracket after the element.
    pub fn ends_at(&mut self, byte: u8) -> bool {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'[' | b'{' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

/// The bytes of one row, up to a limit.
struct Capped {
    bytes: Vec<u8>,
    limit: usize,
    overflowed: bool,
}

impl Capped {
    fn new(limit: usize) -> Self {
        Capped { bytes: Vec::new(), limit, overflowed: false }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.overflowed = false;
    }

    fn push(&mut self, more: &[u8]) {
        self.overflowed |= self.bytes.len() + more.len() > self.limit;
        if !self.overflowed {
            self.bytes.extend_from_slice(more);
        }
    }

    fn is_blank(&self) -> bool {
        !self.overflowed && self.bytes.iter().all(u8::is_ascii_whitespace)
    }

    fn text(&self, place: &str) -> Result<&str, ProblemKind> {
        if self.overflowed {
            return Err(ProblemKind::TooLong { limit: self.limit });
        }
        utf8(&self.bytes, || place.to_owned())
    }

    fn parse(&self, place: &str) -> Result<Map<String, Value>, ProblemKind> {
        parse_object(self.text(place)?.trim_start_matches('\u{feff}'))
    }
}

/// Parses one object, refusing a key that stands twice (the first value would be lost).
pub(super) fn parse_object(text: &str) -> Result<Map<String, Value>, ProblemKind> {
    let text = integer::guarded(text);
    let mut parser = serde_json::Deserializer::from_str(&text);
    let object = parser.deserialize_map(DistinctKeys).and_then(|map| parser.end().map(|()| map));
    object.map_err(|error| {
        let words = error.to_string();
        let words = words.rfind(" at line ").map_or(words.as_str(), |at| &words[..at]);
        ProblemKind::BadJson { found: format!("{words} (column {})", error.column()) }
    })
}

struct DistinctKeys;

impl<'de> Visitor<'de> for DistinctKeys {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with the columns of a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, value)) = entries.next_entry::<String, Value>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} twice")));
            }
            map.insert(key, value);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    /// A two-byte buffer, so that every state is crossed at a buffer's end.
    fn bytes(text: &str) -> Bytes {
        Box::new(BufReader::with_capacity(2, std::io::Cursor::new(text.as_bytes().to_vec())))
    }

    fn lines_of(text: &str) -> Vec<(u64, bool)> {
        let mut reader = Jsonl::new(bytes(text), 1, 30);
        std::iter::from_fn(|| reader.next().unwrap()).map(|(line, row)| (line, row.is_ok())).collect()
    }

    #[test]
    fn lines() {
        let long = format!("{{\"a\":\"{}\"}}\n{{}}", "x".repeat(40));
        let cases: [(&str, &[(u64, bool)]); 9] = [
            ("{}", &[(1, true)]),
            ("{}\r\n{}\n", &[(1, true), (2, true)]),
            ("{}\n\n  \n{}", &[(1, true), (4, true)]),
            ("{\"a\":1}\n{\"a\":}\n{}", &[(1, true), (2, false), (3, true)]),
            ("{\"a\":1,\"a\":2}", &[(1, false)]),
            ("{} {}", &[(1, false)]),
            ("[]", &[(1, false)]),
            ("\u{feff}{}", &[(1, true)]),
            (&long, &[(1, false), (2, true)]),
        ];
        for (text, expected) in cases {
            assert_eq!(lines_of(text), expected, "{text:?}");
        }
    }

    fn elements_of(text: &str) -> Result<Vec<(u64, bool)>, &'static str> {
        let mut reader = JsonArray::new(bytes(text), 1, 30);
        let mut rows = Vec::new();
        loop {
            match reader.next() {
                Ok(Some((line, row))) => rows.push((line, row.is_ok())),
                Ok(None) => return Ok(rows),
                Err(ArrayFault::Unclosed) => return Err("unclosed"),
                Err(ArrayFault::Trailing) => return Err("trailing"),
                Err(ArrayFault::Io(_)) => return Err("io"),
            }
        }
    }

    /// A text, and line and usability of its elements or the fault.
    type Case<'a> = (&'a str, Result<&'a [(u64, bool)], &'a str>);

    #[test]
    fn elements() {
        let long = format!("[{{\"a\":\"{}\"}},\n{{}}]", "x".repeat(40));
        let cases: [Case; 12] = [
            ("[]", Ok(&[])),
            ("[ {} ]\n", Ok(&[(1, true)])),
            ("[\n{},\n\n{\"a\":\n1},{}]", Ok(&[(2, true), (4, true), (5, true)])),
            (r#"[{"a":"],}\"[{"},{}]"#, Ok(&[(1, true), (1, true)])),
            (r#"[{"a":"\\"},{}]"#, Ok(&[(1, true), (1, true)])),
            ("[{},]", Ok(&[(1, true)])),
            ("[,{}]", Ok(&[(1, false), (1, true)])),
            ("[1,{\"a\":]},{}]", Ok(&[(1, false), (1, false), (1, true)])),
            ("[{}", Err("unclosed")),
            ("[{},", Err("unclosed")),
            ("[{}] {}", Err("trailing")),
            (&long, Ok(&[(1, false), (2, true)])),
        ];
        for (text, expected) in cases {
            assert_eq!(elements_of(text), expected.map(<[_]>::to_vec), "{text:?}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_not_an_overflow() {
        let text = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let problem = parse_object(&text).unwrap_err();
        assert!(problem.to_string().contains("recursion limit"), "{problem}");
    }

    #[test]
    fn invalid_utf8_is_located() {
        let mut reader = Jsonl::new(Box::new(std::io::Cursor::new(b"{}\n{\"a\":\"\xff\"}".to_vec())), 1, 99);
        reader.next().unwrap();
        let (line, row) = reader.next().unwrap().unwrap();
        assert_eq!((line, row), (2, Err(ProblemKind::NotUtf8 { byte: 7, place: "the line".into() })));
    }
}
