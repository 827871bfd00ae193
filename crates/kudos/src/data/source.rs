//! From a name to bytes: opening, hashing, decompression, and recognising the format.
//!
//! The format is read off the content, never off the name: magic bytes for gzip, zstd and Parquet, the
//! first non-blank character for the text formats. Everything streams; only Parquet, which is read
//! from its end, is spooled to an unnamed temporary file when it comes through a pipe or compressed.

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
}

/// The formats, with what their readers need.
pub(super) enum Body {
    Csv { input: Bytes, line: u64 },
    Jsonl { input: Bytes, line: u64 },
    Array { input: Bytes, line: u64 },
    Parquet(File),
}

/// First bytes of formats that are often fed to a data tool by mistake.
const UNSUPPORTED: [(&[u8], &str); 8] = [
    (b"PK\x03\x04", "a zip archive or a spreadsheet (.xlsx)"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"ARROW1", "an Arrow IPC file"),
    (b"SQLite f", "an SQLite database"),
    (b"\x80\x04\x95", "a Python pickle"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
];
const LONGEST_MAGIC: usize = 8;
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const PARQUET: &[u8] = b"PAR1";
const BOM: &[u8] = b"\xef\xbb\xbf";
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
    let start = || Location { file: file.clone(), line: 1 };
    let (hashed, digest) = hashing(raw);
    let (magic, raw) = peek(hashed).map_err(|e| DataError::from_read(start(), "a readable file", e))?;
    let (expected, decoded) = decompress(&magic, raw).map_err(|e| DataError::from_read(start(), "a zstd stream", e))?;
    let compressed = magic.starts_with(GZIP) || magic.starts_with(ZSTD);
    let (magic, decoded) = peek(decoded).map_err(|e| DataError::from_read(start(), expected, e))?;
    let body = if magic.starts_with(PARQUET) {
        let in_place = seekable.filter(|_| !compressed);
        Body::Parquet(spool(decoded, in_place).map_err(|e| DataError::from_read(start(), expected, e))?)
    } else {
        text_body(&file, &magic, decoded, expected)?
    };
    Ok(Source { file, body, digest, expected })
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

fn text_body(file: &Arc<str>, magic: &[u8], decoded: Peeked, expected: &'static str) -> Result<Body, DataError> {
    if let Some((_, found)) = UNSUPPORTED.iter().find(|(start, _)| magic.starts_with(start)) {
        return Err(DataError::Unsupported { file: file.clone(), found });
    }
    let mut input: Bytes = Box::new(BufReader::with_capacity(BUFFER, decoded));
    if magic.starts_with(BOM) {
        input
            .read_exact(&mut [0; BOM.len()])
            .map_err(|e| DataError::from_read(Location { file: file.clone(), line: 1 }, expected, e))?;
    }
    let mut line = 1;
    let first = skip_blank(&mut input, &mut line)
        .map_err(|e| DataError::from_read(Location { file: file.clone(), line }, expected, e))?;
    match first {
        None => Err(DataError::Empty { file: file.clone(), found: "an empty file" }),
        Some(b'{') => Ok(Body::Jsonl { input, line }),
        Some(b'[') => Ok(Body::Array { input, line }),
        Some(_) => Ok(Body::Csv { input, line }),
    }
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
    loop {
        let chunk = fill(input)?;
        if chunk.is_empty() {
            return Ok(None);
        }
        let blank = chunk.iter().take_while(|b| b.is_ascii_whitespace()).count();
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
