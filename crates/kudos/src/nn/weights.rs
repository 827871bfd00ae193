//! Weight files: strict reading and atomic writing of safetensors.
//!
//! A file is not trusted: every length is checked against the file's size before memory is taken for
//! it, every tensor against the shape the model declared, every value for being finite. Tensors are
//! read one at a time straight into the parameter buffer, so peak memory is the model plus a chunk.

use super::parameters::{ParameterSpec, Parameters};
use kernels::bf16::{Bf16, Element, all_finite, all_finite_bits, widen};
use rayon::prelude::*;
use serde::Deserialize;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// One way for weights to be wrong each; every message names the file or the tensor.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The file cannot be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A directory whose weights are in a format of PyTorch's own.
    #[error(
        "{dir}: no model.safetensors here, but {found}, which can run code when it is opened and is not read; convert it \
         once, in that directory: python -c \"import glob, torch, safetensors.torch as s; s.save_file({{k: \
         v.clone().contiguous() for f in glob.glob('pytorch_model*.bin') for k, v in torch.load(f, \
         map_location='cpu', weights_only=True).items()}}, 'model.safetensors', {{'format': 'pt'}})\""
    )]
    Pickled {
        /// Directory.
        dir: PathBuf,
        /// The file that is there.
        found: String,
    },
    /// A directory without weights.
    #[error("{dir}: no weights here; expected model.safetensors, model.safetensors.index.json or {}", INT8_FILE)]
    NoWeights {
        /// Directory.
        dir: PathBuf,
    },
    /// The header is no safetensors header.
    #[error("{path}: not a usable safetensors file: {reason}; download or save it again")]
    Header {
        /// File.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tensor's byte range contradicts its shape, its neighbours or the file's length.
    #[error("{path}: tensor `{tensor}`: {reason}; the file is damaged or hostile, download it again")]
    Layout {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// A tensor the model needs is not there.
    #[error("{path}: tensor `{tensor}` is missing; expected shape {shape:?}")]
    Missing {
        /// File or directory.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// Shape the model declares.
        shape: Vec<usize>,
    },
    /// A tensor the model does not know.
    #[error("{path}: unexpected tensor `{tensor}` of shape {shape:?}: the config does not describe this model")]
    Unexpected {
        /// File or directory.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A tensor has another shape.
    #[error("{path}: tensor `{tensor}` has shape {found:?}, the config asks for {expected:?}")]
    Shape {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// Declared.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A tensor has a type that weights cannot have.
    #[error("{path}: tensor `{tensor}` has type {found}, expected F32, F16, BF16 or I8 with scales")]
    Type {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// In the file.
        found: String,
    },
    /// A weight is NaN or infinite.
    #[error("{path}: tensor `{tensor}` holds {value} at element {index}; the checkpoint is broken")]
    NotFinite {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// Flat index.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The config asks for more parameters than can exist.
    #[error("parameter `{name}` of shape {shape:?} makes the model larger than 2^40 parameters; check config.json")]
    TooLarge {
        /// Tensor.
        name: String,
        /// Its declared shape.
        shape: Vec<usize>,
    },
}

/// The weights of a judge that `kudos quantize` wrote. Named so that no other program reads it as plain weights.
pub const INT8_FILE: &str = "model.int8.safetensors";

/// The largest header that is read: 100 MB, as the reference implementation allows.
const HEADER_LIMIT: u64 = 100_000_000;

/// One tensor as the header describes it.
#[derive(Clone, Debug, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// Where a tensor of a checkpoint lies.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Dimensions.
    pub shape: Vec<usize>,
    dtype: String,
    file: PathBuf,
    start: u64,
    bytes: u64,
}

/// The tensors of a checkpoint: one file, or several with an index.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    /// By name in the file.
    pub tensors: BTreeMap<String, Stored>,
    /// What the header says besides tensors (of one file; empty for shards).
    pub metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Reads the headers of `model.safetensors`, of the files `model.safetensors.index.json` names, or of
    /// `model.int8.safetensors`.
    ///
    /// # Errors
    /// [`WeightError`] for missing, damaged or hostile files.
    pub fn open(dir: &Path) -> Result<Self, WeightError> {
        let index = dir.join("model.safetensors.index.json");
        let (whole, int8) = (dir.join("model.safetensors"), dir.join(INT8_FILE));
        if !index.exists() {
            return match [&whole, &int8].into_iter().find(|path| path.exists()) {
                Some(path) => Self::open_file(path),
                None => Err(no_safetensors(dir)),
            };
        }
        let mut tensors = BTreeMap::new();
        for file in &shard_files(dir, &index)? {
            for (name, stored) in read_header(file)?.0 {
                if tensors.insert(name.clone(), stored).is_some() {
                    let reason = "it stands in two shards".into();
                    return Err(WeightError::Layout { path: file.clone(), tensor: name, reason });
                }
            }
        }
        Ok(Self { path: index, tensors, metadata: BTreeMap::new() })
    }

    /// Reads the header of one file.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_file(path: &Path) -> Result<Self, WeightError> {
        let (tensors, metadata) = read_header(path)?;
        Ok(Self { path: path.into(), tensors, metadata })
    }

    /// The file that errors name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks presence and shape of a tensor, without reading it.
    ///
    /// # Errors
    /// [`WeightError::Missing`] or [`WeightError::Shape`].
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<&Stored, WeightError> {
        let Some(stored) = self.tensors.get(name) else {
            return Err(WeightError::Missing { path: self.path.clone(), tensor: name.into(), shape: shape.into() });
        };
        if stored.shape != shape {
            let (expected, found) = (shape.to_vec(), stored.shape.clone());
            return Err(WeightError::Shape { path: stored.file.clone(), tensor: name.into(), expected, found });
        }
        Ok(stored)
    }

    /// Reads a tensor into `values`, converting to f32 and refusing NaN and infinity. Several threads read at once.
    ///
    /// # Errors
    /// [`WeightError`] for unreadable files, other types and non-finite values.
    pub fn read(&self, name: &str, values: &mut [f32]) -> Result<(), WeightError> {
        let stored = &self.tensors[name];
        if stored.dtype == "I8" {
            let (units, scales) = self.read_units(name)?;
            let width = units.len() / scales.len().max(1);
            let rows = values.chunks_mut(width.max(1)).zip(units.chunks(width.max(1)));
            rows.zip(&scales).for_each(|((row, units), scale)| {
                row.iter_mut().zip(units).for_each(|(value, unit)| *value = f32::from(*unit) * scale);
            });
            return Ok(());
        }
        let decode = decoder(&stored.dtype).ok_or_else(|| stored.bad_type(name))?;
        let io = |source| WeightError::Io { path: stored.file.clone(), source };
        let file = File::open(&stored.file).map_err(io)?;
        let width = element_bytes(&stored.dtype).expect("a type with a decoder has a size");
        values.par_chunks_mut(CHUNK).enumerate().try_for_each(|(chunk, part)| {
            if decode(&file, stored.start + (chunk * CHUNK * width) as u64, part).map_err(io)? {
                return Ok(());
            }
            let index = part.iter().position(|v| !v.is_finite()).expect("one of them is not finite");
            let (path, value) = (stored.file.clone(), part[index]);
            Err(WeightError::NotFinite { path, tensor: name.into(), index: chunk * CHUNK + index, value })
        })
    }

    /// Reads a tensor that is stored as BF16, as it is, and refuses NaN and infinity. Several threads read at once.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_bf16(&self, name: &str, bits: &mut [Bf16]) -> Result<(), WeightError> {
        let stored = &self.tensors[name];
        let io = |source| WeightError::Io { path: stored.file.clone(), source };
        let file = File::open(&stored.file).map_err(io)?;
        bits.par_chunks_mut(CHUNK).enumerate().try_for_each(|(chunk, part)| {
            read_bits(&file, stored.start + (2 * chunk * CHUNK) as u64, part).map_err(io)?;
            if all_finite_bits(part) {
                return Ok(());
            }
            let index = part.iter().position(|bits| !bits.widen().is_finite()).expect("one of them is not finite");
            let (path, value) = (stored.file.clone(), part[index].widen());
            Err(WeightError::NotFinite { path, tensor: name.into(), index: chunk * CHUNK + index, value })
        })
    }

    /// Whether a tensor is stored in 8 bits with a scale per row.
    pub fn is_int8(&self, name: &str) -> bool {
        self.tensors[name].dtype == "I8"
    }

    /// The 8-bit units of a matrix and the value of one, per row (the tensor `name` + [`SCALE_SUFFIX`]).
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_units(&self, name: &str) -> Result<(Vec<i8>, Vec<f32>), WeightError> {
        let stored = &self.tensors[name];
        let scale_name = format!("{name}{SCALE_SUFFIX}");
        let rows = *stored.shape.first().unwrap_or(&1);
        if self.expect(&scale_name, &[rows])?.dtype != "F32" {
            return Err(self.tensors[&scale_name].bad_type(&scale_name));
        }
        let mut scales = vec![0.0; rows];
        self.read(&scale_name, &mut scales)?;
        let io = |source| WeightError::Io { path: stored.file.clone(), source };
        let mut units = vec![0i8; stored.bytes as usize];
        let file = File::open(&stored.file).map_err(io)?;
        units.par_chunks_mut(4 * CHUNK).enumerate().try_for_each(|(chunk, part)| {
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(part);
            read_at(&file, stored.start + (chunk * 4 * CHUNK) as u64, bytes).map_err(io)
        })?;
        Ok((units, scales))
    }
}

/// What the scales of a tensor stored in 8 bits are called after it.
pub const SCALE_SUFFIX: &str = "_scale";

/// Elements read at a time by one thread: few enough to be converted in its cache.
const CHUNK: usize = 1 << 16;

/// Reads values from a place of a file on; whether all are finite.
type Decode = fn(&File, u64, &mut [f32]) -> std::io::Result<bool>;

fn decoder(dtype: &str) -> Option<Decode> {
    match dtype {
        "F32" => Some(read_f32),
        "F16" => Some(|file, at, values| read_half(file, at, values, widen_f16)),
        "BF16" => Some(|file, at, values| read_half(file, at, values, widen)),
        _ => None,
    }
}

fn read_f32(file: &File, at: u64, values: &mut [f32]) -> std::io::Result<bool> {
    read_at(file, at, bytemuck::cast_slice_mut(values))?;
    if cfg!(target_endian = "big") {
        values.iter_mut().for_each(|v| *v = f32::from_bits(v.to_bits().swap_bytes()));
    }
    Ok(all_finite(values))
}

thread_local! {
    /// What a thread has read and not widened yet.
    static HALVES: RefCell<Vec<Bf16>> = const { RefCell::new(Vec::new()) };
}

fn read_half(
    file: &File,
    at: u64,
    values: &mut [f32],
    widen: fn(&mut [f32], &[Bf16]) -> bool,
) -> std::io::Result<bool> {
    HALVES.with_borrow_mut(|halves| {
        halves.resize(values.len(), Bf16(0));
        read_bits(file, at, halves)?;
        Ok(widen(values, halves))
    })
}

fn read_bits(file: &File, at: u64, bits: &mut [Bf16]) -> std::io::Result<()> {
    read_at(file, at, bytemuck::cast_slice_mut(bits))?;
    if cfg!(target_endian = "big") {
        bits.iter_mut().for_each(|bits| bits.0 = bits.0.swap_bytes());
    }
    Ok(())
}

/// Values of the other format of 16 bits.
fn widen_f16(values: &mut [f32], halves: &[Bf16]) -> bool {
    values.iter_mut().zip(halves).for_each(|(value, half)| *value = half::f16::from_bits(half.0).to_f32());
    all_finite(values)
}

/// Fills `bytes` from byte `at` on, without moving a position that threads would share.
#[cfg(unix)]
pub(super) fn read_at(file: &File, at: u64, bytes: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

/// Fills `bytes` from byte `at` on, without moving a position that threads would share.
#[cfg(windows)]
pub(super) fn read_at(file: &File, mut at: u64, mut bytes: &mut [u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, at)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => (at, bytes) = (at + read as u64, &mut bytes[read..]),
        }
    }
    Ok(())
}

/// Bytes of one element; `None` for a type the format does not have.
fn element_bytes(dtype: &str) -> Option<usize> {
    match dtype {
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" => Some(1),
        "U16" | "I16" | "F16" | "BF16" => Some(2),
        "U32" | "I32" | "F32" => Some(4),
        "U64" | "I64" | "F64" => Some(8),
        _ => None,
    }
}

/// What a directory without safetensors holds instead.
fn no_safetensors(dir: &Path) -> WeightError {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|file| file.file_name());
    let pickled = |name: &String| name.ends_with(".bin") && name.starts_with("pytorch_model");
    match names.filter_map(|name| name.into_string().ok()).filter(pickled).min() {
        Some(found) => WeightError::Pickled { dir: dir.into(), found },
        None => WeightError::NoWeights { dir: dir.into() },
    }
}

fn shard_files(dir: &Path, index: &Path) -> Result<Vec<PathBuf>, WeightError> {
    Ok(shard_names(index)?.iter().map(|name| dir.join(name)).collect())
}

/// Names of the files that an index of shards lists, each once.
///
/// # Errors
/// [`WeightError::Io`]; [`WeightError::Header`] for an index of another form, or a name that leaves the directory.
pub fn shard_names(index: &Path) -> Result<Vec<String>, WeightError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bad = |reason: String| WeightError::Header { path: index.into(), reason };
    let text = std::fs::read(index).map_err(|source| WeightError::Io { path: index.into(), source })?;
    let parsed: Index = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    let mut names: Vec<String> = parsed.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    if let Some(name) = names.iter().find(|n| n.contains(['/', '\\']) || n.contains("..")) {
        return Err(bad(format!("shard name `{name}` leaves the directory")));
    }
    Ok(names)
}

/// Tensors and metadata of one file's header, every range checked.
type Header = (BTreeMap<String, Stored>, BTreeMap<String, String>);

fn read_header(path: &Path) -> Result<Header, WeightError> {
    let io = |source| WeightError::Io { path: path.into(), source };
    let bad = |reason: String| WeightError::Header { path: path.into(), reason };
    let mut file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let mut length = [0u8; 8];
    file.read_exact(&mut length).map_err(|_| bad(format!("{size} bytes are too few for a header")))?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_LIMIT || length > size - 8 {
        return Err(bad(format!("the header claims {length} bytes, the file has {size}")));
    }
    let mut text = vec![0u8; length as usize];
    file.read_exact(&mut text).map_err(io)?;
    let mut header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    let metadata = header.remove("__metadata__").map_or(Ok(BTreeMap::new()), serde_json::from_value);
    let metadata = metadata.map_err(|e| bad(format!("metadata: {e}")))?;
    let mut entries = BTreeMap::new();
    for (name, value) in header {
        let entry: Entry = serde_json::from_value(value).map_err(|e| bad(format!("tensor `{name}`: {e}")))?;
        entries.insert(name, entry);
    }
    check_layout(path, &entries, size - 8 - length)?;
    let stored = |e: Entry| Stored {
        shape: e.shape,
        dtype: e.dtype,
        file: path.into(),
        start: 8 + length + e.data_offsets[0],
        bytes: e.data_offsets[1] - e.data_offsets[0],
    };
    Ok((entries.into_iter().map(|(name, entry)| (name, stored(entry))).collect(), metadata))
}

/// Ranges must match their shapes and tile the data exactly, as the format demands.
fn check_layout(path: &Path, entries: &BTreeMap<String, Entry>, data: u64) -> Result<(), WeightError> {
    let mut order: Vec<_> = entries.iter().collect();
    order.sort_by_key(|(_, e)| e.data_offsets);
    let mut end = 0;
    for (name, entry) in order {
        let bad = |reason: String| WeightError::Layout { path: path.into(), tensor: name.clone(), reason };
        let [from, to] = entry.data_offsets;
        if from != end || to < from || to > data {
            return Err(bad(format!("bytes {from}..{to} overlap, leave a gap or exceed the data's {data} bytes")));
        }
        let width = element_bytes(&entry.dtype).ok_or_else(|| bad(format!("unknown type {}", entry.dtype)))?;
        let bytes = entry.shape.iter().try_fold(width as u64, |n, d| n.checked_mul(*d as u64));
        if bytes != Some(to - from) {
            return Err(bad(format!("shape {:?} of {} does not fill bytes {from}..{to}", entry.shape, entry.dtype)));
        }
        end = to;
    }
    if end != data {
        let reason = format!("{} bytes after the last tensor", data - end);
        return Err(WeightError::Header { path: path.into(), reason });
    }
    Ok(())
}

impl Stored {
    /// Its bytes in the file.
    pub fn place(&self) -> std::ops::Range<u64> {
        self.start..self.start + self.bytes
    }

    fn bad_type(&self, name: &str) -> WeightError {
        WeightError::Type { path: self.file.clone(), tensor: name.into(), found: self.dtype.clone() }
    }

    /// Its type as the format spells it.
    pub fn dtype(&self) -> &str {
        &self.dtype
    }

    /// Size in the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Writes all parameters as f32 safetensors to `path`, through a temporary file and a rename.
///
/// # Errors
/// [`WeightError::Io`] for an unwritable directory or a full disk; the old file then stands.
pub fn write(path: &Path, parameters: &Parameters) -> Result<(), WeightError> {
    let values = |spec: &ParameterSpec| spec.form.stored(&parameters.values[spec.span.range()], &spec.shape);
    let values: Vec<_> = parameters.specs().iter().map(values).collect();
    let tensors = parameters.specs().iter().zip(&values).map(|(spec, values)| Raw {
        name: spec.name.clone(),
        dtype: "F32",
        shape: spec.shape.clone(),
        bytes: bytemuck::cast_slice(values),
    });
    write_raw(path, &tensors.collect::<Vec<_>>(), &[])
}

/// Writes several buffers as they are, with the specs that lie in each: a tensor is named prefix + name.
///
/// # Errors
/// As [`write()`].
pub fn write_tensors(
    path: &Path,
    buffers: &[(&str, &[ParameterSpec], &[f32])],
    metadata: &[(&str, &str)],
) -> Result<(), WeightError> {
    let tensors = buffers.iter().flat_map(|(prefix, specs, buffer)| {
        specs.iter().map(move |spec| Raw {
            name: format!("{prefix}{}", spec.name),
            dtype: "F32",
            shape: spec.shape.clone(),
            bytes: bytemuck::cast_slice(&buffer[spec.span.range()]),
        })
    });
    write_raw(path, &tensors.collect::<Vec<_>>(), metadata)
}

/// A tensor as it will lie in the file.
pub struct Raw<'a> {
    /// Its name.
    pub name: String,
    /// Its type as the format spells it.
    pub dtype: &'static str,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Its values, little-endian.
    pub bytes: &'a [u8],
}

/// As [`write()`], for tensors of any type.
///
/// # Errors
/// As [`write()`].
pub fn write_raw(path: &Path, tensors: &[Raw], metadata: &[(&str, &str)]) -> Result<(), WeightError> {
    let entry = |tensor: &Raw| Entered { name: tensor.name.clone(), dtype: tensor.dtype, shape: tensor.shape.clone() };
    let entries: Vec<Entered> = tensors.iter().map(entry).collect();
    write_each(path, &entries, metadata, |index| Ok(Cow::Borrowed(tensors[index].bytes)))
}

/// A tensor as the header names it.
pub struct Entered {
    /// Its name.
    pub name: String,
    /// Its type as the format spells it.
    pub dtype: &'static str,
    /// Dimensions.
    pub shape: Vec<usize>,
}

impl Entered {
    fn bytes(&self) -> usize {
        element_bytes(self.dtype).expect("a type of the format") * self.shape.iter().product::<usize>()
    }
}

/// As [`write_raw`], with one tensor in memory at a time: `bytes` gives those of the tensor with this index, in order.
///
/// # Errors
/// As [`write()`], and those of `bytes`; an old file then stands.
///
/// # Panics
/// When a tensor has another number of bytes than its shape and type say.
pub fn write_each<'a, E: From<WeightError>>(
    path: &Path,
    tensors: &[Entered],
    metadata: &[(&str, &str)],
    mut bytes: impl FnMut(usize) -> Result<Cow<'a, [u8]>, E>,
) -> Result<(), E> {
    use std::io::Write;
    let io = |source| E::from(WeightError::Io { path: path.into(), source });
    let header = header_of(tensors, metadata);
    let mut file = crate::files::temporary(path).map_err(io)?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file.as_file_mut());
    out.write_all(&(header.len() as u64).to_le_bytes()).and_then(|()| out.write_all(header.as_bytes())).map_err(io)?;
    for (index, tensor) in tensors.iter().enumerate() {
        let own = bytes(index)?;
        assert_eq!(own.len(), tensor.bytes(), "{}", tensor.name);
        out.write_all(&own).map_err(io)?;
    }
    out.flush().and_then(|()| out.get_ref().sync_all()).map_err(io)?;
    drop(out);
    crate::files::publish(file, path).map_err(io)
}

/// The JSON header, padded to 8 bytes.
fn header_of(tensors: &[Entered], metadata: &[(&str, &str)]) -> String {
    let mut header = serde_json::Map::new();
    let pairs = [("format", "pt")].into_iter().chain(metadata.iter().copied());
    let metadata: BTreeMap<&str, &str> = pairs.collect();
    header.insert("__metadata__".into(), serde_json::json!(metadata));
    let mut at = 0;
    for tensor in tensors {
        let end = at + tensor.bytes();
        let entry = serde_json::json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end]});
        header.insert(tensor.name.clone(), entry);
        at = end;
    }
    let mut text = serde_json::Value::Object(header).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Initial;
    use proptest::prelude::*;

    fn file(header: &str, data: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn message(header: &str, data: &[u8]) -> String {
        let (dir, _) = file(header, data);
        let result = Checkpoint::open(dir.path()).and_then(|c| {
            let mut values = vec![0.0; 2];
            c.expect("a", &[2])?;
            c.read("a", &mut values)
        });
        result.unwrap_err().to_string()
    }

    #[test]
    fn hostile_files_are_refused_by_name() {
        let nan = [f32::NAN.to_le_bytes(), 1.0f32.to_le_bytes()].concat();
        let cases: &[(&str, &[u8], &str)] = &[
            ("{", &[], "not a usable safetensors"),
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9]}}"#, &[0; 8], "`a`"),
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, &[0; 12], "overlap"),
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, &[0; 12], "after the last"),
            (r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, &[0; 8], "does not fill"),
            (
                r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,8]}}"#,
                &[0; 8],
                "does not fill",
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
                &[0; 12],
                "overlap",
            ),
            (r#"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#, &[0; 8], "shape [1]"),
            (r#"{"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]}}"#, &[0; 8], "type I32"),
            (r#"{"a":{"dtype":"Q3","shape":[2],"data_offsets":[0,8]}}"#, &[0; 8], "unknown type"),
            (r#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, &[0; 8], "`a` is missing"),
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, &nan, "NaN at element 0"),
        ];
        for (header, data, expected) in cases {
            let message = message(header, data);
            assert!(message.contains(expected), "{header}: {message}");
        }
    }

    #[test]
    fn without_safetensors_the_error_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let message = || Checkpoint::open(dir.path()).unwrap_err().to_string();
        assert!(message().contains("no weights here; expected model.safetensors"), "{}", message());
        std::fs::write(dir.path().join("training_args.bin"), "").unwrap();
        assert!(message().contains("no weights here"));
        std::fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
        let message = message();
        assert!(message.contains("but pytorch_model.bin, which") && message.contains("{k: v.clone()"), "{message}");
        assert!(!message.contains('\n'), "one line: {message}");
    }

    #[test]
    fn a_header_longer_than_the_file_takes_no_memory() {
        let dir = tempfile::tempdir().unwrap();
        for length in [u64::MAX, 1 << 40, 99_000_000] {
            std::fs::write(dir.path().join("model.safetensors"), length.to_le_bytes()).unwrap();
            let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
            assert!(message.contains("the header claims"), "{message}");
        }
    }

    #[test]
    fn too_many_parameters_are_refused_before_allocation() {
        let mut parameters = Parameters::default();
        let huge = parameters.declare("a", &[1 << 20, 1 << 20, 1 << 20], Initial::Zero);
        assert!(matches!(huge, Err(WeightError::TooLarge { .. })));
        assert!(parameters.declare("b", &[usize::MAX, 2], Initial::Zero).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), header in "[{}\\[\\]\":,a-z0-9]{0,80}") {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("model.safetensors"), &bytes).unwrap();
            let _ = Checkpoint::open(dir.path());
            let (dir, _) = file(&header, &bytes);
            let _ = Checkpoint::open(dir.path());
        }

        #[test]
        fn what_is_written_is_read_back(values in proptest::collection::vec(-1e30f32..1e30, 6)) {
            let mut parameters = Parameters::default();
            parameters.declare("x", &[2, 2], Initial::Zero).unwrap();
            parameters.declare("y", &[2], Initial::Zero).unwrap();
            parameters.values = values;
            let dir = tempfile::tempdir().unwrap();
            write(&dir.path().join("model.safetensors"), &parameters).unwrap();
            let checkpoint = Checkpoint::open(dir.path()).unwrap();
            let mut back = vec![0.0; 6];
            checkpoint.read("x", &mut back[..4]).unwrap();
            checkpoint.read("y", &mut back[4..]).unwrap();
            prop_assert_eq!(back, parameters.values);
        }
    }
}
