//! The rows of a file, one at a time, whatever its format.
//!
//! This is what streams: `score` and `best` read rows here and write them back with more columns, at a
//! memory that does not grow with the file. What is wrong with a row comes as [`DataError::Row`] and the
//! next call goes on after it; any other error ends the file.

use super::columns::{Shape, Unrecognised};
use super::error::{DataError, RowProblem};
use super::record::{Location, Record};
use super::rows::Rows;
use super::source::{self, Source};
use serde_json::{Map, Value};
use std::collections::HashSet;
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
}

impl Default for Options {
    fn default() -> Self {
        Options { strict: false, max_row_bytes: 64 << 20 }
    }
}

/// One row: what it says, where it stands, and all its columns as they were.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What the row says.
    pub record: Record,
    /// Where it starts.
    pub location: Location,
    /// All columns in their order. Numbers of CSV's known columns are numbers; its others are text. An integer beyond 64
    /// bits is an object that [`digits`](super::integer::digits) knows, and that [`super::Writer`] writes as it was.
    pub original: Map<String, Value>,
    shape: Shape,
}

impl Row {
    /// The record, its place, and the columns that the record does not hold.
    pub fn into_parts(self) -> (Record, Location, Map<String, Value>) {
        let extra = self.original.into_iter().filter(|(name, value)| !self.shape.holds_value(name, value)).collect();
        (self.record, self.location, extra)
    }
}

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
    /// The shape of every row (CSV, Parquet), or of the last one (JSON).
    shape: Option<Shape>,
    /// True where the format says the columns once for all rows.
    fixed: bool,
    done: bool,
    strict: bool,
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

    fn new(source: Source, options: &Options) -> Result<Reader, DataError> {
        let rows = Rows::new(source, options.max_row_bytes)?;
        let mut reader = Reader { rows, shape: None, fixed: false, done: false, strict: options.strict };
        reader.recognise_header()?;
        Ok(reader)
    }

    /// The file as the user named it.
    pub fn file(&self) -> &Arc<str> {
        self.rows.file()
    }

    /// SHA-256 of the file as it lies on disk, once all rows have been read.
    pub fn sha256(&self) -> String {
        self.rows.sha256()
    }

    /// What is to be said once of how the file was read, without its name. More may come until the last row has been read.
    pub fn notes(&self) -> &[String] {
        self.rows.notes()
    }

    /// CSV and Parquet say once for all rows which columns there are.
    fn recognise_header(&mut self) -> Result<(), DataError> {
        let Some((names, location)) = self.rows.columns()? else {
            return Ok(());
        };
        let shape = Shape::recognise(&names).map_err(|missing| no_kind(location, missing))?;
        (self.shape, self.fixed) = (Some(shape), true);
        self.rows.type_cells(Box::new(move |column, cell| shape.type_cell(column, cell)));
        self.rows.hold(|column| shape.holds(column));
        Ok(())
    }

    fn row(&mut self, location: Location, original: Map<String, Value>) -> Result<Row, DataError> {
        let problem = |kind| DataError::Row(RowProblem { location: location.clone(), kind });
        let shape = match self.shape {
            Some(shape) if self.fixed => shape,
            known => {
                let names: Vec<&str> = original.keys().map(String::as_str).collect();
                Shape::recognise(&names).map_err(|missing| match known {
                    Some(_) => problem(missing.into()),
                    None => no_kind(location.clone(), missing),
                })?
            }
        };
        self.shape = Some(shape);
        let record = shape.record(&original).map_err(problem)?;
        Ok(Row { record, location, original, shape })
    }

    fn step(&mut self) -> Result<Option<Row>, DataError> {
        let Some((location, fields)) = self.rows.next()? else {
            return Ok(None);
        };
        self.row(location, fields.map_err(DataError::Row)?).map(Some)
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
            Err(DataError::Row(_)) => self.strict,
            Err(_) => true,
        };
        step.transpose()
    }
}

fn no_kind(location: Location, Unrecognised { expected, found }: Unrecognised) -> DataError {
    DataError::Columns { location, expected, found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Content, Kind};

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
            ("chosen,rejected\na,b\n", &[(Pairs, 2)]),
            ("prompt,response_a,response_b,label\np,a,b,tie\n", &[(Comparisons, 2)]),
            ("prompt,responses\np,\"[{\"\"text\"\":\"\"a\"\",\"\"rank\"\":1}]\"\n", &[(Groups, 2)]),
            ("prompt,answer\np,a\n", &[(Unlabelled, 2)]),
            (r#"{"prompt":"p","responses":["a","b"]}"#, &[(Unlabelled, 1)]),
            ("\n {\"chosen\":\"a\",\"rejected\":\"b\"}", &[(Pairs, 2)]),
            (
                "[{\"chosen\":\"a\",\n\"rejected\":\"b\"},\n{\"prompt\":\"p\",\"answer\":\"x\"}]",
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
                "f:1: expected the columns `prompt`, `answer`, `rank` (ranked responses; missing: `prompt`), found `question`, `answer`, `rank`; rename or add the columns",
            ),
            (b"hello world\n", "or prompt, response, found `hello world`"),
            (b"{\"prompt\":\"p\",\"chosen\":\"c\"}", "missing: `rejected`"),
            (b"a,prompt,a\n", "f:1: expected distinct column names, found \"a\" twice"),
            (b"chosen,rejected\na,b\n\"a,b\nc,d\n", "f:3: expected a closing quote"),
            (b"chosen,rejected\na\n", "f:2: expected 2 fields as in the header, found 1"),
            (b"chosen,rejected\na,\"b\x81\"\n", "f:2: expected UTF-8, found an invalid byte at byte 2 of field 2"),
            (
                b"[{\"chosen\":\"a\",\"rejected\":\"b\"}",
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
        let text: String = (0..500).map(|i| format!("{{\"chosen\":\"{}\",\"rejected\":\"b\"}}\n", i * 7919)).collect();
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
        let bytes = gzip(b"{\"chosen\":\"a\",\"rejected\":\"b\"}\n");
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
        let Record::Ranked { prompt: Content::Messages(_), rank: Some(2.0), .. } = &row.record else {
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
