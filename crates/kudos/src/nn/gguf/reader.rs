//! The header of a GGUF file: settings and tensors, everything checked before it is believed.
//!
//! All lengths are the file's own claims. None is used for an allocation before the rest of the file is known to
//! be at least as long, so the memory taken stays within a few times the header's size, which has a limit itself.

use super::dequantise::Format;
use super::value::{List, Numbers, Scalar, Value};
use super::{GgufError, GgufTensor};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Most bytes of a header: twenty times that of the largest vocabularies.
const HEADER_LIMIT: u64 = 400_000_000;
/// Lists within lists.
const DEPTH_LIMIT: usize = 4;
/// `GGML_MAX_DIMS`.
const DIMENSION_LIMIT: u32 = 4;
/// Where the file does not say, tensors begin at multiples of this.
const ALIGNMENT: u64 = 32;
const ALIGNMENT_LIMIT: u64 = 1 << 20;
const TEXT: u32 = 8;
const LIST: u32 = 9;
/// Least bytes of a setting (an empty key, a type and one byte) and of a tensor (no name, no dimension).
const LEAST_SETTING: u64 = 13;
const LEAST_TENSOR: u64 = 24;

/// What a header says.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, GgufTensor>,
}

/// A tensor's entry, its offset not yet checked.
struct Entry {
    shape: Vec<usize>,
    format: &'static Format,
    offset: u64,
    bytes: u64,
}

/// Reads and checks the whole header.
pub(super) fn read_header(path: &Path, file: &File) -> Result<Header, GgufError> {
    let size = file.metadata().map_err(|source| GgufError::Io { path: path.into(), source })?.len();
    let mut cursor = Cursor { path, input: BufReader::with_capacity(1 << 16, file), at: 0, size };
    let version = cursor.version()?;
    let tensor_count = cursor.u64("the number of tensors")?;
    let setting_count = cursor.u64("the number of settings")?;
    cursor.check_count("tensors", tensor_count, LEAST_TENSOR)?;
    cursor.check_count("settings", setting_count, LEAST_SETTING)?;
    let mut metadata = BTreeMap::new();
    for _ in 0..setting_count {
        let (key, value) = cursor.setting()?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(GgufError::DuplicateKey { path: path.into(), key });
        }
    }
    let mut entries = BTreeMap::new();
    for _ in 0..tensor_count {
        let (tensor, entry) = cursor.tensor()?;
        if entries.insert(tensor.clone(), entry).is_some() {
            return Err(GgufError::DuplicateTensor { path: path.into(), tensor });
        }
    }
    let alignment = alignment(path, &metadata)?;
    let data = cursor.at.next_multiple_of(alignment);
    let tensors = place(path, entries, alignment, data, size)?;
    Ok(Header { version, metadata, tensors })
}

/// The bytes of a file in order, with the position.
struct Cursor<'a> {
    path: &'a Path,
    input: BufReader<&'a File>,
    at: u64,
    size: u64,
}

impl Cursor<'_> {
    fn left(&self) -> u64 {
        self.size.saturating_sub(self.at)
    }

    fn version(&mut self) -> Result<u32, GgufError> {
        let magic: [u8; 4] = self.array("the first four bytes")?;
        if magic != *b"GGUF" {
            let found = String::from_utf8_lossy(&magic).into_owned();
            return Err(GgufError::Magic { path: self.path.into(), found });
        }
        let version = self.u32("the version")?;
        let found = match version {
            2 | 3 => return Ok(version),
            other if (1..=3).contains(&other.swap_bytes()) => format!("{} (big-endian)", other.swap_bytes()),
            other => other.to_string(),
        };
        Err(GgufError::Version { path: self.path.into(), found })
    }

    fn check_count(&self, what: &'static str, count: u64, least_bytes: u64) -> Result<(), GgufError> {
        let left = self.left();
        if count > left / least_bytes {
            return Err(GgufError::Count { path: self.path.into(), what, count, left });
        }
        Ok(())
    }

    /// The next `bytes`, which the file is known to have only after this.
    fn take(&mut self, what: &'static str, bytes: &mut [u8]) -> Result<(), GgufError> {
        let (at, needs, left) = (self.at, bytes.len() as u64, self.left());
        if needs > left {
            return Err(GgufError::Truncated { path: self.path.into(), what, at, needs, left });
        }
        self.check_limit(what, needs)?;
        self.input.read_exact(bytes).map_err(|source| GgufError::Io { path: self.path.into(), source })?;
        self.at += needs;
        Ok(())
    }

    fn check_limit(&self, what: &'static str, bytes: u64) -> Result<(), GgufError> {
        if self.at + bytes > HEADER_LIMIT {
            return Err(GgufError::HeaderTooLarge { path: self.path.into(), what, limit: HEADER_LIMIT });
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.take(what, &mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn text(&mut self, what: &'static str) -> Result<String, GgufError> {
        let at = self.at;
        let length = self.u64(what)?;
        let left = self.left();
        if length > left {
            return Err(GgufError::TextLength { path: self.path.into(), at, length, left });
        }
        self.check_limit(what, length)?;
        let mut bytes = vec![0; length as usize];
        self.take(what, &mut bytes)?;
        String::from_utf8(bytes).map_err(|_| GgufError::Utf8 { path: self.path.into(), at })
    }

    fn setting(&mut self) -> Result<(String, Value), GgufError> {
        let key = self.text("a key")?;
        let kind = self.u32("the type of a setting")?;
        let value = match kind {
            TEXT => Value::Text(self.text("a setting")?),
            LIST => Value::List(self.list(&key, 1)?),
            _ => {
                let scalar = self.scalar(&key, kind)?;
                let mut bytes = [0; 8];
                self.take("a setting", &mut bytes[..scalar.width()])?;
                scalar.decode(&bytes[..scalar.width()])
            }
        };
        Ok((key, value))
    }

    fn scalar(&self, key: &str, found: u32) -> Result<Scalar, GgufError> {
        let unknown = || GgufError::ValueType { path: self.path.into(), key: key.into(), found };
        Scalar::of(found).ok_or_else(unknown)
    }

    fn list(&mut self, key: &str, depth: usize) -> Result<List, GgufError> {
        if depth > DEPTH_LIMIT {
            return Err(GgufError::Depth { path: self.path.into(), key: key.into(), limit: DEPTH_LIMIT });
        }
        let kind = self.u32("the type of a list")?;
        let length = self.u64("the length of a list")?;
        match kind {
            TEXT => {
                let mut texts = Vec::with_capacity(self.check_list(key, length, 8)?);
                for _ in 0..length {
                    texts.push(self.text("a list of texts")?);
                }
                Ok(List::Texts(texts))
            }
            LIST => {
                let mut lists = Vec::with_capacity(self.check_list(key, length, 12)?);
                for _ in 0..length {
                    lists.push(self.list(key, depth + 1)?);
                }
                Ok(List::Lists(lists))
            }
            _ => {
                let scalar = self.scalar(key, kind)?;
                let length = self.check_list(key, length, scalar.width())?;
                let mut bytes = vec![0; length * scalar.width()];
                self.take("a list of numbers", &mut bytes)?;
                Ok(List::Numbers(Numbers { scalar, bytes }))
            }
        }
    }

    /// The length, once the file is known to have room for so many entries of at least `least` bytes.
    fn check_list(&self, key: &str, length: u64, least: usize) -> Result<usize, GgufError> {
        let left = self.left();
        if length > left / least as u64 {
            return Err(GgufError::ListLength { path: self.path.into(), key: key.into(), length, left });
        }
        self.check_limit("a list", length * least as u64)?;
        Ok(length as usize)
    }

    fn tensor(&mut self) -> Result<(String, Entry), GgufError> {
        let tensor = self.text("a tensor's name")?;
        let dimensions = self.u32("a tensor's dimensions")?;
        if dimensions > DIMENSION_LIMIT {
            let (path, found, limit) = (self.path.into(), dimensions, DIMENSION_LIMIT);
            return Err(GgufError::Dimensions { path, tensor, found, limit });
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(self.u64("a tensor's shape")?);
        }
        shape.reverse();
        let found = self.u32("a tensor's format")?;
        let offset = self.u64("a tensor's place")?;
        let Some(format) = Format::of(found) else {
            return Err(GgufError::TensorFormat { path: self.path.into(), tensor, found });
        };
        let entry = measure(&shape, format, offset);
        let wrong = || GgufError::Shape {
            path: self.path.into(),
            tensor: tensor.clone(),
            shape,
            format: format.name,
            block: format.values,
        };
        let entry = entry.ok_or_else(wrong)?;
        Ok((tensor, entry))
    }
}

/// The size of a tensor; `None` if it cannot be told or rows are no whole blocks.
fn measure(shape: &[u64], format: &'static Format, offset: u64) -> Option<Entry> {
    let width = shape.last().copied().unwrap_or(1);
    if !width.is_multiple_of(format.values as u64) {
        return None;
    }
    let sizes = shape.iter().map(|size| usize::try_from(*size).ok()).collect::<Option<Vec<_>>>()?;
    let values = sizes.iter().try_fold(1usize, |count, size| count.checked_mul(*size))?;
    let bytes = (values / format.values).checked_mul(format.bytes)? as u64;
    Some(Entry { shape: sizes, format, offset, bytes })
}

fn alignment(path: &Path, metadata: &BTreeMap<String, Value>) -> Result<u64, GgufError> {
    let key = "general.alignment";
    let Some(value) = metadata.get(key) else {
        return Ok(ALIGNMENT);
    };
    let Some(found) = value.as_unsigned() else {
        let (path, found) = (path.into(), value.to_string());
        return Err(GgufError::KeyType { path, key: key.into(), expected: "a power of two", found });
    };
    if !found.is_power_of_two() || found > ALIGNMENT_LIMIT {
        return Err(GgufError::Alignment { path: path.into(), found, limit: ALIGNMENT_LIMIT });
    }
    Ok(found)
}

/// Where the tensors lie in the file, whose data begins at `data`: aligned, inside the file and apart.
fn place(
    path: &Path,
    entries: BTreeMap<String, Entry>,
    alignment: u64,
    data: u64,
    size: u64,
) -> Result<BTreeMap<String, GgufTensor>, GgufError> {
    let mut order: Vec<_> = entries.into_iter().collect();
    order.sort_by_key(|(_, entry)| (entry.offset, entry.bytes));
    let left = size.saturating_sub(data);
    let (mut end, mut before) = (0, String::new());
    for (tensor, entry) in &order {
        let (offset, bytes) = (entry.offset, entry.bytes);
        let (path, tensor) = (path.into(), tensor.clone());
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Misaligned { path, tensor, offset, alignment });
        }
        let Some(past) = offset.checked_add(bytes).filter(|past| *past <= left) else {
            return Err(GgufError::OutOfFile { path, tensor, offset, bytes, left });
        };
        if offset < end {
            return Err(GgufError::Overlap { path, first: before, second: tensor });
        }
        (end, before) = (past, tensor);
    }
    let placed = |entry: Entry| GgufTensor {
        shape: entry.shape,
        format: entry.format,
        start: data + entry.offset,
        bytes: entry.bytes,
    };
    Ok(order.into_iter().map(|(tensor, entry)| (tensor, placed(entry))).collect())
}
