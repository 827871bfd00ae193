//! GGUF: the weights, settings and vocabulary of a model in one file, as llama.cpp writes them.
//!
//! A file is a header and a block of data. The header is a list of typed `key = value` entries and a list of
//! tensors, each with a name, a shape, a [`Format`] and a place in the data. The formats are what people use
//! GGUF for: most keep a block of 32 or 256 weights in 4 to 8 bits each with a scale, and are turned back into f32
//! here, block by block, on all threads, straight into the caller's buffer.
//!
//! A file is not trusted, as in [`super::weights`]: every length is held against the file's size before memory is
//! taken for it, tensors must lie inside the file and apart from each other, and every value must be finite.
//! This module knows bytes and numbers. What a key or a tensor's name means to a model is the business of
//! `models::gguf`.
//!
//! | file | purpose |
//! |---|---|
//! | `mod` | [`Gguf`]: open, ask for settings, read tensors |
//! | `reader` | the header's bytes → settings and tensors, everything checked |
//! | `value` | what a setting can be |
//! | `dequantise` | the formats, and the values of a block |
//! | `error` | [`GgufError`] |
//!
//! Layout: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian.

mod dequantise;
mod error;
mod reader;
mod value;

pub use dequantise::Format;
pub use error::GgufError;
pub use value::{List, Numbers, Value};

use super::weights::read_at;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Values that one thread reads and decodes at a time: whole blocks of every format.
const CHUNK: usize = 1 << 18;

/// An open file whose header is known to be sound.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    file: File,
    /// Version of the layout, 2 or 3.
    pub version: u32,
    /// The settings, by key.
    pub metadata: BTreeMap<String, Value>,
    /// The tensors, by name.
    pub tensors: BTreeMap<String, GgufTensor>,
}

/// A tensor as the header describes it.
#[derive(Clone, Debug)]
pub struct GgufTensor {
    /// Dimensions with the contiguous one last, as everywhere else in Kudos; the file lists them the other way round.
    pub shape: Vec<usize>,
    /// How its values are stored.
    pub format: &'static Format,
    /// First byte in the file.
    start: u64,
    /// Bytes in the file.
    bytes: u64,
}

impl GgufTensor {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size in the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its bytes in the file.
    pub fn place(&self) -> std::ops::Range<u64> {
        self.start..self.start + self.bytes
    }

    /// Values of a row: the last dimension.
    fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

impl Gguf {
    /// Opens a file and reads its header. No tensor is read.
    ///
    /// # Errors
    /// [`GgufError`] for files that are missing, damaged, hostile, of another version or one part of several.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let io = |source| GgufError::Io { path: path.into(), source };
        let file = File::open(path).map_err(io)?;
        let header = reader::read_header(path, &file)?;
        let (version, metadata, tensors) = (header.version, header.metadata, header.tensors);
        let gguf = Self { path: path.into(), file, version, metadata, tensors };
        match gguf.unsigned("split.count")? {
            Some(count) if count > 1 => Err(GgufError::Split { path: path.into(), count }),
            _ => Ok(gguf),
        }
    }

    /// The file that errors name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A tensor by its name in the file.
    ///
    /// # Errors
    /// [`GgufError::Missing`].
    pub fn tensor(&self, name: &str) -> Result<&GgufTensor, GgufError> {
        self.tensors.get(name).ok_or_else(|| GgufError::Missing { path: self.path.clone(), tensor: name.into() })
    }

    /// Reads a whole tensor into `values` as f32.
    ///
    /// # Errors
    /// An unknown name, another number of values, a format that is not read here, a file that has changed since it
    /// was opened, a value that is not finite.
    pub fn read(&self, name: &str, values: &mut [f32]) -> Result<(), GgufError> {
        let expected = self.tensor(name)?.len();
        if values.len() != expected {
            return Err(self.bad_length(name, expected, values.len()));
        }
        self.read_rows(name, 0, values)
    }

    /// Reads as many rows as fill `values`, from row `first` on; a row is the last dimension, all others are counted.
    ///
    /// # Errors
    /// As [`Self::read`], and rows that the tensor does not have.
    pub fn read_rows(&self, name: &str, first: usize, values: &mut [f32]) -> Result<(), GgufError> {
        let tensor = self.tensor(name)?;
        let format = tensor.format;
        let unreadable = || GgufError::Unreadable { path: self.path.clone(), tensor: name.into(), found: format.name };
        let decode = format.decode.ok_or_else(unreadable)?;
        let width = tensor.width();
        let from = first.checked_mul(width).filter(|from| *from <= tensor.len());
        let left = tensor.len() - from.unwrap_or(tensor.len());
        if values.len() > left || !values.len().is_multiple_of(width.max(1)) {
            return Err(self.bad_length(name, left, values.len()));
        }
        let start = tensor.start + format.bytes_of(from.unwrap_or(0));
        values.par_chunks_mut(CHUNK).enumerate().try_for_each(|(chunk, part)| {
            let mut bytes = vec![0u8; format.bytes_of(part.len()) as usize];
            let at = start + format.bytes_of(chunk * CHUNK);
            read_at(&self.file, at, &mut bytes).map_err(|source| GgufError::Io { path: self.path.clone(), source })?;
            decode(&bytes, part);
            self.check_finite(name, from.unwrap_or(0) + chunk * CHUNK, part)
        })
    }

    fn check_finite(&self, name: &str, from: usize, values: &[f32]) -> Result<(), GgufError> {
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => Err(GgufError::NotFinite {
                path: self.path.clone(),
                tensor: name.into(),
                index: from + at,
                value: values[at],
            }),
        }
    }

    fn bad_length(&self, name: &str, expected: usize, found: usize) -> GgufError {
        GgufError::Length { path: self.path.clone(), tensor: name.into(), expected, found }
    }

    /// A setting as text.
    ///
    /// # Errors
    /// [`GgufError::KeyType`] if it is something else; so in the functions below.
    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a text", Value::as_text)
    }

    /// A setting as a whole number that is not negative.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "a whole number from 0", Value::as_unsigned)
    }

    /// A setting as a finite number.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a finite number", Value::as_float)
    }

    /// A setting as yes or no.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "true or false", Value::as_flag)
    }

    /// A setting as a list of texts.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.typed(key, "a list of texts", Value::as_texts)
    }

    /// A setting as a list of numbers.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn numbers(&self, key: &str) -> Result<Option<&Numbers>, GgufError> {
        self.typed(key, "a list of numbers", Value::as_numbers)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.metadata.get(key) else {
            return Ok(None);
        };
        let wrong =
            || GgufError::KeyType { path: self.path.clone(), key: key.into(), expected, found: value.to_string() };
        read(value).ok_or_else(wrong).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes files entry by entry, sound or not.
    #[derive(Clone)]
    struct Writer {
        version: u32,
        keys: Vec<Vec<u8>>,
        tensors: Vec<Vec<u8>>,
        counts: Option<(u64, u64)>,
        data: Vec<u8>,
    }

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
        [&string(name)[..], &kind.to_le_bytes(), value].concat()
    }

    fn tensor(name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Vec<u8> {
        let sizes: Vec<u8> = dimensions.iter().flat_map(|d| d.to_le_bytes()).collect();
        let count = (dimensions.len() as u32).to_le_bytes();
        [&string(name)[..], &count, &sizes, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
    }

    fn list(kind: u32, count: u64, items: &[u8]) -> Vec<u8> {
        [&kind.to_le_bytes()[..], &count.to_le_bytes(), items].concat()
    }

    impl Writer {
        /// Two tensors: `a` of [2, 3] in f32 and `b` of [32] in Q8_0.
        fn sound() -> Self {
            let values: Vec<u8> = [1.0f32, -2.0, 3.5, 0.0, 1e-9, 7.0].iter().flat_map(|v| v.to_le_bytes()).collect();
            let block = [&half::f16::from_f32(0.5).to_le_bytes()[..], &(0..32).collect::<Vec<u8>>()].concat();
            Self {
                version: 3,
                keys: vec![
                    key("general.architecture", 8, &string("llama")),
                    key("llama.block_count", 4, &7u32.to_le_bytes()),
                    key("llama.epsilon", 6, &1e-5f32.to_le_bytes()),
                    key("flag", 7, &[1]),
                    key("words", 9, &list(8, 2, &[string("é"), string("")].concat())),
                    key("numbers", 9, &list(1, 2, &[255, 3])),
                    key("nested", 9, &list(9, 1, &list(0, 1, &[9]))),
                ],
                tensors: vec![tensor("a", &[3, 2], 0, 0), tensor("b", &[32], 8, 32)],
                counts: None,
                data: [values, vec![0; 8], block].concat(),
            }
        }

        fn bytes(&self) -> Vec<u8> {
            let (tensors, keys) = self.counts.unwrap_or((self.tensors.len() as u64, self.keys.len() as u64));
            let mut bytes = b"GGUF".to_vec();
            bytes.extend(self.version.to_le_bytes());
            bytes.extend(tensors.to_le_bytes());
            bytes.extend(keys.to_le_bytes());
            bytes.extend(self.keys.concat());
            bytes.extend(self.tensors.concat());
            bytes.resize(bytes.len().next_multiple_of(32), 0);
            bytes.extend(&self.data);
            bytes
        }
    }

    fn open(bytes: &[u8]) -> Result<Gguf, GgufError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        Gguf::open(&path)
    }

    fn message(writer: &Writer) -> String {
        open(&writer.bytes()).unwrap_err().to_string()
    }

    #[test]
    fn settings_and_tensors_of_a_sound_file() {
        for version in [2, 3] {
            let gguf = open(&Writer { version, ..Writer::sound() }.bytes()).unwrap();
            assert_eq!(gguf.version, version);
            assert_eq!(gguf.text("general.architecture").unwrap(), Some("llama"));
            assert_eq!(gguf.unsigned("llama.block_count").unwrap(), Some(7));
            assert_eq!(gguf.float("llama.epsilon").unwrap(), Some(f64::from(1e-5f32)));
            assert_eq!(gguf.flag("flag").unwrap(), Some(true));
            assert_eq!(gguf.texts("words").unwrap().unwrap(), ["é", ""]);
            let numbers: Vec<_> = gguf.numbers("numbers").unwrap().unwrap().iter().collect();
            assert_eq!(numbers, [Value::Signed(-1), Value::Signed(3)]);
            assert_eq!(gguf.text("nothing").unwrap(), None);
            let wrong = gguf.text("flag").unwrap_err().to_string();
            assert!(wrong.contains("`flag`") && wrong.contains("a text") && wrong.contains("true"), "{wrong}");
            assert_eq!(gguf.tensors["a"].shape, [2, 3]);
            let mut values = [0.0; 6];
            gguf.read("a", &mut values).unwrap();
            assert_eq!(values, [1.0, -2.0, 3.5, 0.0, 1e-9, 7.0]);
            gguf.read_rows("a", 1, &mut values[..3]).unwrap();
            assert_eq!(values[..3], [0.0, 1e-9, 7.0]);
            let mut block = [0.0; 32];
            gguf.read("b", &mut block).unwrap();
            assert_eq!(block[31], 15.5);
        }
    }

    #[test]
    fn reading_asks_for_what_is_there() {
        let gguf = open(&Writer::sound().bytes()).unwrap();
        let mut values = [0.0; 40];
        let message = |error: Result<(), GgufError>| error.unwrap_err().to_string();
        assert!(message(gguf.read("c", &mut values[..1])).contains("`c` is missing"));
        assert!(message(gguf.read("a", &mut values[..5])).contains("6 values"));
        assert!(message(gguf.read_rows("a", 1, &mut values[..6])).contains("3 values"));
        assert!(message(gguf.read_rows("a", 0, &mut values[..4])).contains("6 values"));
        assert!(gguf.read_rows("a", usize::MAX, &mut values[..3]).is_err());
    }

    #[test]
    fn values_must_be_finite_and_formats_known() {
        let mut writer = Writer::sound();
        writer.data[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
        writer.data[32..34].copy_from_slice(&half::f16::INFINITY.to_le_bytes());
        let gguf = open(&writer.bytes()).unwrap();
        let message = |name, values: &mut [f32]| gguf.read(name, values).unwrap_err().to_string();
        assert!(message("a", &mut [0.0; 6]).contains("`a` holds NaN at element 1"));
        assert!(message("b", &mut [0.0; 32]).contains("`b` holds NaN at element 0"));
        writer.tensors[1] = tensor("b", &[32], 20, 32);
        let gguf = open(&writer.bytes()).unwrap();
        let refused = gguf.read("b", &mut [0.0; 32]).unwrap_err().to_string();
        assert!(refused.contains("IQ4_NL") && refused.contains("Q6_K"), "{refused}");
    }

    #[test]
    fn hostile_files_are_refused_each_by_its_own_error() {
        type Damage = fn(&mut Writer);
        let cases: [(Damage, &str); 23] = [
            (|w| w.version = 1, "version 1"),
            (|w| w.version = 3u32.swap_bytes(), "big-endian"),
            (|w| w.counts = Some((1 << 60, 0)), "1152921504606846976 tensors"),
            (|w| w.counts = Some((0, u64::MAX)), "settings"),
            (|w| w.keys[0] = key("k", 8, &u64::MAX.to_le_bytes()), "text of 18446744073709551615 bytes"),
            (|w| w.keys[0] = key("k", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xFF]), "UTF-8"),
            (|w| w.keys[0] = key("k", 13, &[0]), "`k` has type 13"),
            (|w| w.keys[0] = key("k", 9, &list(8, 1 << 61, &[])), "list of 2305843009213693952"),
            (|w| w.keys[0] = key("k", 9, &list(10, 1 << 61, &[])), "list of 2305843009213693952"),
            (|w| w.keys[0] = key("k", 9, &[&list(9, 1, &[])[..]; 40].concat()), "nested"),
            (|w| w.keys[1] = w.keys[0].clone(), "`general.architecture` stands twice"),
            (|w| w.keys[0] = key("general.alignment", 4, &[0; 4]), "alignment of 0"),
            (|w| w.keys[0] = key("general.alignment", 4, &[24, 0, 0, 0]), "alignment of 24"),
            (|w| w.keys[0] = key("general.alignment", 8, &string("32")), "`general.alignment`"),
            (|w| w.keys[0] = key("split.count", 2, &[3, 0]), "one of 3 files"),
            (|w| w.tensors[1] = tensor("a", &[32], 8, 32), "`a` stands twice"),
            (|w| w.tensors[1] = tensor("b", &[32], 99, 32), "`b` has format 99"),
            (|w| w.tensors[1] = tensor("b", &[1; 9], 8, 32), "9 dimensions"),
            (|w| w.tensors[1] = tensor("b", &[33], 8, 32), "[33]"),
            (|w| w.tensors[1] = tensor("b", &[32, 1 << 62], 8, 32), "4611686018427387904"),
            (|w| w.tensors[1] = tensor("b", &[32], 8, 33), "multiple of 32"),
            (|w| w.tensors[1] = tensor("b", &[32], 8, u64::MAX - 31), "beyond the end"),
            (|w| w.tensors[1] = tensor("b", &[32], 8, 0), "overlap"),
        ];
        for (damage, expected) in cases {
            let mut writer = Writer::sound();
            damage(&mut writer);
            let message = message(&writer);
            assert!(message.contains(expected), "{expected}: {message}");
        }
        let message = open(b"PK\x03\x04 not a model").unwrap_err().to_string();
        assert!(message.contains("not a GGUF file"), "{message}");
    }

    /// Reads everything that opens, within the memory that the file itself takes.
    fn read_all(bytes: &[u8]) {
        let Ok(gguf) = open(bytes) else { return };
        for (name, tensor) in &gguf.tensors {
            assert!(tensor.len() as u64 <= 8 * bytes.len() as u64 || tensor.bytes() == 0);
            let _ = gguf.read(name, &mut vec![0.0; tensor.len()]);
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let sound = Writer::sound().bytes();
        for length in 0..sound.len() {
            assert!(open(&sound[..length]).is_err(), "{length} of {} bytes", sound.len());
        }
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut bytes = Writer::sound().bytes();
            for (place, value) in changes {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            read_all(&bytes);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), tensors in 0u64..4, keys in 0u64..4) {
            read_all(&bytes);
            let header = [b"GGUF".as_slice(), &3u32.to_le_bytes(), &tensors.to_le_bytes(), &keys.to_le_bytes()].concat();
            read_all(&[header, bytes].concat());
        }
    }
}
