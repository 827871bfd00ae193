//! What can be wrong with a GGUF file, one variant each. Every message names the file.

use super::dequantise::readable_names;
use std::path::PathBuf;

/// Failure to open a GGUF file, to find a setting or to read a tensor.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The file begins with something else.
    #[error("{path}: not a GGUF file: it begins with {found:?}, expected \"GGUF\"")]
    Magic {
        /// File.
        path: PathBuf,
        /// Its first four bytes, as far as they are text.
        found: String,
    },
    /// A version of the layout that is not read.
    #[error("{path}: GGUF version {found}; versions 2 and 3 are read, little-endian: convert the model again")]
    Version {
        /// File.
        path: PathBuf,
        /// The version, or what it looks like.
        found: String,
    },
    /// The header alone is larger than any model's.
    #[error("{path}: the header passes {limit} bytes at {what}; the file is damaged or hostile, download it again")]
    HeaderTooLarge {
        /// File.
        path: PathBuf,
        /// What was being read.
        what: &'static str,
        /// Most bytes a header may have.
        limit: u64,
    },
    /// The header ends before it is complete.
    #[error("{path}: the file ends within {what} at byte {at}: {needs} bytes needed, {left} left; download it again")]
    Truncated {
        /// File.
        path: PathBuf,
        /// What was being read.
        what: &'static str,
        /// Where it begins.
        at: u64,
        /// Bytes of it.
        needs: u64,
        /// Bytes to the end of the file.
        left: u64,
    },
    /// More entries than the file has room for.
    #[error("{path}: the header claims {count} {what}, the file has {left} bytes left; it is damaged or hostile")]
    Count {
        /// File.
        path: PathBuf,
        /// Tensors or settings.
        what: &'static str,
        /// How many.
        count: u64,
        /// Bytes to the end of the file.
        left: u64,
    },
    /// A text longer than the rest of the file.
    #[error("{path}: a text of {length} bytes at byte {at}, but {left} bytes are left; the file is damaged or hostile")]
    TextLength {
        /// File.
        path: PathBuf,
        /// Where its length stands.
        at: u64,
        /// The length.
        length: u64,
        /// Bytes to the end of the file.
        left: u64,
    },
    /// A text that is not UTF-8.
    #[error("{path}: the text at byte {at} is not UTF-8; the file is damaged or of another tool")]
    Utf8 {
        /// File.
        path: PathBuf,
        /// Where it begins.
        at: u64,
    },
    /// A list longer than the rest of the file.
    #[error("{path}: `{key}` is a list of {length} entries, but {left} bytes are left; the file is damaged or hostile")]
    ListLength {
        /// File.
        path: PathBuf,
        /// Setting.
        key: String,
        /// Entries.
        length: u64,
        /// Bytes to the end of the file.
        left: u64,
    },
    /// Lists of lists of lists.
    #[error("{path}: `{key}` has lists nested deeper than {limit}; the file is damaged or hostile")]
    Depth {
        /// File.
        path: PathBuf,
        /// Setting.
        key: String,
        /// Deepest nesting that is read.
        limit: usize,
    },
    /// A type of setting that the format does not have.
    #[error("{path}: `{key}` has type {found}, expected 0 to 12; the file is damaged or of a later version")]
    ValueType {
        /// File.
        path: PathBuf,
        /// Setting.
        key: String,
        /// Its type.
        found: u32,
    },
    /// A setting of another type than its meaning needs.
    #[error("{path}: `{key}` is {found}, expected {expected}")]
    KeyType {
        /// File.
        path: PathBuf,
        /// Setting.
        key: String,
        /// What would do.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// Two settings of one key.
    #[error("{path}: the setting `{key}` stands twice; convert the model again")]
    DuplicateKey {
        /// File.
        path: PathBuf,
        /// Setting.
        key: String,
    },
    /// Two tensors of one name.
    #[error("{path}: the tensor `{tensor}` stands twice; convert the model again")]
    DuplicateTensor {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
    },
    /// The data cannot be aligned so.
    #[error("{path}: an alignment of {found} bytes, expected a power of two up to {limit}")]
    Alignment {
        /// File.
        path: PathBuf,
        /// In the file.
        found: u64,
        /// Largest that is read.
        limit: u64,
    },
    /// A format of tensors that is not known.
    #[error("{path}: tensor `{tensor}` has format {found}, which is not known; {} are read", readable_names())]
    TensorFormat {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// The format's number.
        found: u32,
    },
    /// More dimensions than the format has.
    #[error("{path}: tensor `{tensor}` has {found} dimensions, expected at most {limit}")]
    Dimensions {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// In the file.
        found: u32,
        /// Most that the format has.
        limit: u32,
    },
    /// A shape that overflows, or whose rows are no whole blocks.
    #[error("{path}: tensor `{tensor}` of shape {shape:?} cannot be {format}: rows are whole blocks of {block} values")]
    Shape {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// In the file, the contiguous dimension last.
        shape: Vec<u64>,
        /// Its format.
        format: &'static str,
        /// Values of a block.
        block: usize,
    },
    /// A tensor that does not begin where the alignment says.
    #[error("{path}: tensor `{tensor}` begins at byte {offset} of the data, expected a multiple of {alignment}")]
    Misaligned {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// Where it begins, from the start of the data.
        offset: u64,
        /// The alignment.
        alignment: u64,
    },
    /// A tensor that the file is too short for.
    #[error(
        "{path}: tensor `{tensor}` lies beyond the end of the file: {bytes} bytes at {offset} of the data, {left} are \
         there; download it again"
    )]
    OutOfFile {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// Where it begins, from the start of the data.
        offset: u64,
        /// Its size.
        bytes: u64,
        /// Size of the data.
        left: u64,
    },
    /// Two tensors in the same place.
    #[error("{path}: tensors `{first}` and `{second}` overlap; the file is damaged or hostile")]
    Overlap {
        /// File.
        path: PathBuf,
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
    },
    /// One part of a model that was split.
    #[error("{path}: this is one of {count} files of a model; join them first (`llama-gguf-split --merge`)")]
    Split {
        /// File.
        path: PathBuf,
        /// Number of files.
        count: u64,
    },
    /// A tensor that is not in the file.
    #[error("{path}: tensor `{tensor}` is missing")]
    Missing {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
    },
    /// A buffer of another size than the tensor.
    #[error("{path}: tensor `{tensor}` has {expected} values there, {found} were asked for")]
    Length {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// Values from the row asked for to the end.
        expected: usize,
        /// Values asked for.
        found: usize,
    },
    /// A format whose values are not read.
    #[error("{path}: tensor `{tensor}` is {found}; {} are read: use another quantisation", readable_names())]
    Unreadable {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// Its format.
        found: &'static str,
    },
    /// A weight is NaN or infinite.
    #[error("{path}: tensor `{tensor}` holds {value} at element {index}; the file is broken, download it again")]
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
}
