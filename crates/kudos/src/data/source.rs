//! From a name to bytes: opening, hashing, decompression, and recognising the format.
//!
//! The format is read off the content, never off the name: magic bytes for gzip, zstd, Parquet, Arrow and workbooks, the
//! first non-blank character for the text formats. Everything streams; only Parquet and workbooks, which are read
//! from their end, are spooled to an unnamed temporary file when they come through a pipe or compressed.

use super::encoding::{ByteOrder, Encoding, Utf16};
use super::error::DataError;
use super::record::Location;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A stream of decompressed bytes that can move to another thread.
pub(super) type Bytes = Box<dyn BufRead + Send>;

/// An opened file, its format recognised, standing before its first non-blank character.
pub(super) struct Source {
    pub file: Arc<str>,
    pub body: Body,
    pub digest: FileDigest,
    /// What a decoder promises, for the message when it breaks off.
    pub expected: &'static str,
    /// Whether the text is the bytes of a file as they lie there, so that one can jump in it.
    pub in_place: bool,
}

/// The formats, with what their readers need.
pub(super) enum Body {
    Csv {
        input: Bytes,
        line: u64,
        encoding: Encoding,
    },
    /// Text that begins with a brace: one object a line, or another document.
    Json {
        input: Bytes,
        line: u64,
    },
    Array {
        input: Bytes,
        line: u64,
    },
    Parquet(File),
    /// A stream of Arrow messages, or a file of them.
    Arrow(Bytes),
    /// A zip archive, which may be a workbook.
    Zip(File),
}

/// A format that is not read: what the file is, and what to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Refusal {
    pub found: &'static str,
    pub advice: &'static str,
}

impl Refusal {
    pub fn of(self, file: &Arc<str>) -> DataError {
        DataError::Unsupported { file: file.clone(), found: self.found, advice: self.advice }
    }
}

const PICKLE: Refusal = Refusal { found: "a Python pickle", advice: "write JSONL or Parquet from Python" };
/// First bytes of formats that are often fed to a data tool by mistake.
const REFUSED: [(&[u8], Refusal); 12] = [
    (b"BZh", Refusal { found: "bzip2", advice: "unpack it first, or use gzip or zstd" }),
    (b"\xfd7zXZ\0", Refusal { found: "xz", advice: "unpack it first, or use gzip or zstd" }),
    (b"7z\xbc\xaf\x27\x1c", Refusal { found: "a 7z archive", advice: "unpack it first" }),
    (b"Rar!\x1a\x07", Refusal { found: "a RAR archive", advice: "unpack it first" }),
    (b"SQLite f", Refusal { found: "an SQLite database", advice: "export its table as CSV" }),
    (b"\x80\x02", PICKLE),
    (b"\x80\x03", PICKLE),
    (b"\x80\x04", PICKLE),
    (b"\x80\x05", PICKLE),
    (b"FEA1", Refusal { found: "a Feather file of version 1", advice: "write it as Parquet" }),
    (b"%PDF-", Refusal { found: "a PDF document", advice: "export the data as CSV or JSON" }),
    (b"\xff\xfe\0\0", Refusal { found: "UTF-32 text", advice: "save it as UTF-8" }),
];
const GIT_LFS: Refusal =
    Refusal { found: "a Git LFS pointer in place of the file", advice: "fetch the file itself with git lfs pull" };
/// UTF-16 is read where its byte order mark says that it is.
pub(super) const NO_TEXT: Refusal = Refusal {
    found: "zero bytes in its first line, as UTF-16 without a byte order mark has them",
    advice: "save it as UTF-8",
};
const ENCRYPTED: Refusal = Refusal {
    found: "an encrypted workbook",
    advice: "open it in the spreadsheet program and save it without a password",
};
const OLD_EXCEL: Refusal = Refusal { found: "a workbook of the old format (.xls)", advice: "save it as .xlsx or CSV" };
/// Any archive that is not a workbook.
pub(super) const ZIP_ARCHIVE: Refusal =
    Refusal { found: "a zip archive", advice: "unpack it and name the files in it" };
const OLE: Refusal = Refusal { found: "a document of an old Office format", advice: "export the data as CSV" };

const LONGEST_MAGIC: usize = 8;
const OLE_MAGIC: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";
const ZIP: &[u8] = b"PK\x03\x04";
/// An archive without entries.
const EMPTY_ZIP: &[u8] = b"PK\x05\x06";
/// Before a message of an Arrow stream.
const ARROW_STREAM: &[u8] = b"\xff\xff\xff\xff";
pub(super) const ARROW_FILE: &[u8] = b"ARROW1";
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const PARQUET: &[u8] = b"PAR1";
const BOM: &[u8] = b"\xef\xbb\xbf";
const UTF16_LE: &[u8] = b"\xff\xfe";
const UTF16_BE: &[u8] = b"\xfe\xff";
const BUFFER: usize = 1 << 16;

/// Opens `path` (`-` is standard input) and recognises what it holds.
pub(super) fn open(path: &Path) -> Result<Source, DataError> {
    let file: Arc<str> = path.to_string_lossy().into();
    let fail = |reason| DataError::Open { file: file.clone(), reason };
    let (raw, seekable): (Box<dyn Read + Send>, bool) = if &*file == "-" {
        (Box::new(io::stdin()), false)
    } else {
        let metadata = std::fs::metadata(path).map_err(fail)?;
        if metadata.is_dir() {
            return Err(DataError::Directory { file });
        }
        (Box::new(File::open(path).map_err(fail)?), metadata.is_file())
    };
    recognise(file, raw, seekable.then_some(path))
}

/// The same for bytes that are already at hand; `seekable` is where Parquet can be read in place.
pub(super) fn recognise(
    file: Arc<str>,
    raw: Box<dyn Read + Send>,
    seekable: Option<&Path>,
) -> Result<Source, DataError> {
    let (hashed, digest) = hashing(raw);
    let mut name = Name { file, expected: "a readable file" };
    let (magic, raw) = peek(hashed).map_err(name.failure(1))?;
    name.expected = "a zstd stream";
    let (expected, decoded) = decompress(&magic, raw).map_err(name.failure(1))?;
    name.expected = expected;
    let compressed = magic.starts_with(GZIP) || magic.starts_with(ZSTD);
    let (magic, decoded) = peek(decoded).map_err(name.failure(1))?;
    let in_place =
        seekable.is_some() && !compressed && ![UTF16_LE, UTF16_BE].iter().any(|mark| magic.starts_with(mark));
    let body = name.body(&magic, decoded, seekable.filter(|_| !compressed))?;
    Ok(Source { file: name.file, body, digest, expected, in_place })
}

fn decompress(magic: &[u8], raw: Peeked) -> io::Result<(&'static str, Box<dyn Read + Send>)> {
    Ok(if magic.starts_with(GZIP) {
        (
            "a complete gzip stream",
            Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(BUFFER, raw))),
        )
    } else if magic.starts_with(ZSTD) {
        ("a complete zstd stream", Box::new(zstd::stream::read::Decoder::new(raw)?))
    } else {
        ("a complete file", Box::new(raw))
    })
}

/// What errors say of a file that is being opened.
struct Name {
    file: Arc<str>,
    expected: &'static str,
}

impl Name {
    /// Turns an error of reading into one that names the file.
    fn failure(&self, line: u64) -> impl Fn(io::Error) -> DataError {
        move |error| DataError::from_read(Location { file: self.file.clone(), line }, self.expected, error)
    }

    /// The format, by its first bytes.
    fn body(&self, magic: &[u8], decoded: Peeked, in_place: Option<&Path>) -> Result<Body, DataError> {
        if let Some((_, refusal)) = REFUSED.iter().find(|(start, _)| magic.starts_with(start)) {
            return Err(refusal.of(&self.file));
        }
        let begins = |starts: &[&[u8]]| starts.iter().any(|start| magic.starts_with(start));
        if begins(&[PARQUET]) {
            return spool(decoded, in_place).map(Body::Parquet).map_err(self.failure(1));
        }
        if begins(&[ZIP, EMPTY_ZIP]) {
            return spool(decoded, in_place).map(Body::Zip).map_err(self.failure(1));
        }
        if begins(&[ARROW_STREAM, ARROW_FILE]) {
            return Ok(Body::Arrow(buffered(decoded)));
        }
        if begins(&[OLE_MAGIC]) {
            return Err(ole(decoded).map_or_else(self.failure(1), |refusal| refusal.of(&self.file)));
        }
        match text(magic, decoded).map_err(self.failure(1))? {
            Some((input, encoding)) => self.text_body(input, encoding),
            None => Err(NO_TEXT.of(&self.file)),
        }
    }

    fn text_body(&self, mut input: Bytes, encoding: Encoding) -> Result<Body, DataError> {
        let mut line = 1;
        let first = begin_text(&mut input, &mut line).map_err(self.failure(line))?;
        match first {
            None => Err(DataError::Empty { file: self.file.clone(), found: "an empty file" }),
            Some(b'{') => Ok(Body::Json { input, line }),
            Some(b'[') => Ok(Body::Array { input, line }),
            Some(b'v') if is_git_lfs(&mut input).map_err(self.failure(line))? => Err(GIT_LFS.of(&self.file)),
            Some(_) => Ok(Body::Csv { input, line, encoding }),
        }
    }
}

fn buffered(input: impl Read + Send + 'static) -> Bytes {
    Box::new(BufReader::with_capacity(BUFFER, input))
}

/// The text as UTF-8, after its byte order mark; `None` if it has zero bytes where UTF-16 has them, and no mark.
fn text(magic: &[u8], mut decoded: Peeked) -> io::Result<Option<(Bytes, Encoding)>> {
    let mut skip = |mark: &[u8]| io::copy(&mut (&mut decoded).take(mark.len() as u64), &mut io::sink());
    for (mark, order) in [(UTF16_LE, ByteOrder::Little), (UTF16_BE, ByteOrder::Big)] {
        if magic.starts_with(mark) {
            skip(mark)?;
            return Ok(Some((buffered(Utf16::new(decoded, order)), Encoding::Utf8)));
        }
    }
    if magic.starts_with(BOM) {
        skip(BOM)?;
        return Ok(Some((buffered(decoded), Encoding::Utf8)));
    }
    let units = magic.chunks_exact(2);
    let zeros =
        |place: usize| !magic.is_empty() && units.clone().all(|unit| (unit[place] == 0) && unit[1 - place] != 0);
    let unmarked = magic.len() >= 4 && (zeros(0) || zeros(1));
    Ok((!unmarked).then(|| (buffered(decoded), Encoding::Undecided)))
}

/// True for the text that stands for a file which was not fetched. Nothing is consumed.
fn is_git_lfs(input: &mut Bytes) -> io::Result<bool> {
    const START: &[u8] = b"version https://git-lfs";
    let start = take_line(input, START.len() as u64)?;
    let found = start == START;
    put_back(start, input);
    Ok(found)
}

/// Consumes the white space before the text, but for a tab, which may stand for an empty first column; the next byte, or `None`
/// at the end.
fn begin_text(input: &mut Bytes, line: &mut u64) -> io::Result<Option<u8>> {
    loop {
        let next = skip(input, line, |byte| byte.is_ascii_whitespace() && byte != b'\t')?;
        if next != Some(b'\t') {
            return Ok(next);
        }
        let text = take_line(input, LONGEST_INDENT)?;
        let content = text.trim_ascii_start();
        if matches!(content.first(), None | Some(b'{' | b'[')) {
            *line += text[..text.len() - content.len()].iter().filter(|byte| **byte == b'\n').count() as u64;
            put_back(content.to_vec(), input);
        } else {
            put_back(text, input);
            return Ok(next);
        }
    }
}

/// Bytes in which a line that begins with a tab must show what it is.
const LONGEST_INDENT: u64 = 1 << 12;

/// Takes what is left of the line from the input, at most `limit` bytes.
pub(super) fn take_line(input: &mut Bytes, limit: u64) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    input.take(limit).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// Puts bytes back that were taken from the input.
pub(super) fn put_back(bytes: Vec<u8>, input: &mut Bytes) {
    if !bytes.is_empty() {
        let rest = std::mem::replace(input, Box::new(io::empty()));
        *input = Box::new(Cursor::new(bytes).chain(rest));
    }
}

/// What a file of the old container format is, by the names of its streams.
fn ole(mut decoded: Peeked) -> io::Result<Refusal> {
    let name = |name: &str| name.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let (package, workbook, book) = (name("EncryptedPackage"), name("Workbook"), name("Book"));
    let (mut encrypted, mut excel) = (false, false);
    let mut window = Vec::new();
    loop {
        let kept = window.len().min(package.len());
        window.drain(..window.len() - kept);
        if (&mut decoded).take(BUFFER as u64).read_to_end(&mut window)? == 0 {
            break;
        }
        let has = |name: &[u8]| window.windows(name.len()).any(|bytes| bytes == name);
        encrypted |= has(&package);
        excel |= has(&workbook) || has(&book);
    }
    Ok(match (encrypted, excel) {
        (true, _) => ENCRYPTED,
        (false, true) => OLD_EXCEL,
        (false, false) => OLE,
    })
}

/// The file itself when it can seek, else a copy in an unnamed temporary file.
fn spool(mut decoded: Peeked, in_place: Option<&Path>) -> io::Result<File> {
    if let Some(path) = in_place {
        io::copy(&mut decoded, &mut io::sink())?;
        return File::open(path);
    }
    let mut copy = tempfile::tempfile()?;
    io::copy(&mut decoded, &mut copy)?;
    copy.rewind()?;
    Ok(copy)
}

type Peeked = io::Chain<Cursor<Vec<u8>>, Box<dyn Read + Send>>;

/// Reads the first bytes and puts them back.
fn peek(mut input: Box<dyn Read + Send>) -> io::Result<(Vec<u8>, Peeked)> {
    let mut magic = Vec::with_capacity(LONGEST_MAGIC);
    input.by_ref().take(LONGEST_MAGIC as u64).read_to_end(&mut magic)?;
    Ok((magic.clone(), Cursor::new(magic).chain(input)))
}

/// Consumes white space, counting lines; the next byte, or `None` at the end.
pub(super) fn skip_blank(input: &mut Bytes, line: &mut u64) -> io::Result<Option<u8>> {
    skip(input, line, |byte| byte.is_ascii_whitespace())
}

fn skip(input: &mut Bytes, line: &mut u64, is_blank: impl Fn(u8) -> bool) -> io::Result<Option<u8>> {
    loop {
        let chunk = fill(input)?;
        if chunk.is_empty() {
            return Ok(None);
        }
        let blank = chunk.iter().take_while(|b| is_blank(**b)).count();
        *line += chunk[..blank].iter().filter(|b| **b == b'\n').count() as u64;
        let next = chunk.get(blank).copied();
        input.consume(blank);
        if next.is_some() {
            return Ok(next);
        }
    }
}

/// `fill_buf` that goes on after an interrupted system call.
pub(super) fn fill(input: &mut Bytes) -> io::Result<&[u8]> {
    loop {
        match input.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
            Ok(_) => break,
        }
    }
    input.fill_buf()
}

/// SHA-256 of the bytes read so far, as they lie on disk; of the whole file once it is read to its end.
#[derive(Clone, Default)]
pub(super) struct FileDigest(Arc<Mutex<Sha256>>);

impl FileDigest {
    /// In lower-case hexadecimal.
    pub fn hex(&self) -> String {
        let hash = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().finalize();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

struct Hashing {
    inner: Box<dyn Read + Send>,
    digest: FileDigest,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let mut hash = self.digest.0.lock().unwrap_or_else(PoisonError::into_inner);
        hash.update(&buffer[..count]);
        Ok(count)
    }
}

fn hashing(inner: Box<dyn Read + Send>) -> (Box<dyn Read + Send>, FileDigest) {
    let digest = FileDigest::default();
    (Box::new(Hashing { inner, digest: digest.clone() }), digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8]) -> String {
        let raw: Box<dyn Read + Send> = Box::new(Cursor::new(bytes.to_vec()));
        match recognise("f".into(), raw, None) {
            Ok(Source { body: Body::Csv { line, encoding, mut input }, .. }) => {
                let mut text = String::new();
                input.read_to_string(&mut text).unwrap();
                format!("csv {line} {encoding:?} {text}")
            }
            Ok(Source { body: Body::Json { line, .. }, .. }) => format!("json {line}"),
            Ok(Source { body: Body::Array { line, .. }, .. }) => format!("array {line}"),
            Ok(Source { body: Body::Parquet(_), .. }) => "parquet".to_owned(),
            Ok(Source { body: Body::Arrow(_), .. }) => "arrow".to_owned(),
            Ok(Source { body: Body::Zip(_), .. }) => "zip".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_be_bytes).collect()
    }

    #[test]
    fn formats_by_their_first_bytes() {
        let ole = |name: &str| {
            let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
            [OLE_MAGIC, &vec![7; BUFFER - 16], &name, &[0; 9]].concat()
        };
        let cases: [(&[u8], &str); 23] = [
            (b"a,b\n", "csv 1 Undecided a,b\n"),
            (b"\xef\xbb\xbf \n\na,b", "csv 3 Utf8 a,b"),
            (b"\n\ta\tb\n", "csv 2 Undecided \ta\tb\n"),
            (b"\t \n\t{\n", "json 2"),
            (b"\t\t\n\t\n [", "array 3"),
            (b"\t\n", "found an empty file"),
            (&[b"\xfe\xff", &utf16("é,b")[..]].concat(), "csv 1 Utf8 é,b"),
            (&[b"\xfe\xff", &utf16("\n{")[..]].concat(), "json 2"),
            (b"\xff\xfe[\0", "array 1"),
            (b"\xff\xfe[", "found half of a UTF-16 character at its end"),
            (&utf16("prompt"), "found zero bytes in its first line"),
            (b"\xff\xfe\0\0a\0\0\0", "found UTF-32 text; save it as UTF-8"),
            (b"PAR1", "parquet"),
            (b"ARROW1\0\0", "arrow"),
            (b"\xff\xff\xff\xff\x10", "arrow"),
            (b"PK\x03\x04", "zip"),
            (b"%PDF-1.7", "found a PDF document"),
            (b"version https://git-lfs.github.com/spec/v1\noid", "found a Git LFS pointer"),
            (b"version,b\n1,2", "csv 1 Undecided version,b\n1,2"),
            (b"\x80\x05\x95", "found a Python pickle; write JSONL or Parquet from Python"),
            (&ole("EncryptedPackage"), "found an encrypted workbook; open it in the spreadsheet program"),
            (&ole("Workbook"), "found a workbook of the old format (.xls); save it as .xlsx or CSV"),
            (&ole("WordDocument"), "found a document of an old Office format"),
        ];
        for (bytes, expected) in cases {
            let found = found(bytes);
            assert!(found.contains(expected), "{:?}\n{found}\n{expected}", String::from_utf8_lossy(bytes));
        }
    }
}
