//! What a setting of a GGUF file can be.
//!
//! Thirteen types in the file are six here: widths are of no interest once a number is read. Lists of numbers stay
//! the bytes they were, so that a hostile list cannot take more memory than the file has, and are decoded when asked.

use std::fmt;

/// A setting.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number of an unsigned type.
    Unsigned(u64),
    /// A whole number of a signed type.
    Signed(i64),
    /// A number of a floating-point type.
    Float(f64),
    /// Yes or no.
    Flag(bool),
    /// A text.
    Text(String),
    /// A list.
    List(List),
}

/// A list of one type of entry.
#[derive(Clone, Debug, PartialEq)]
pub enum List {
    /// Numbers or flags.
    Numbers(Numbers),
    /// Texts.
    Texts(Vec<String>),
    /// Lists.
    Lists(Vec<List>),
}

/// A list of numbers or flags, as they lie in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    pub(super) scalar: Scalar,
    pub(super) bytes: Vec<u8>,
}

/// The types of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    U64,
    I64,
    F64,
}

impl Scalar {
    /// By its number in the file; texts and lists are none.
    pub(super) fn of(code: u32) -> Option<Self> {
        use Scalar::{Bool, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        let known = [(0, U8), (1, I8), (2, U16), (3, I16), (4, U32), (5, I32), (6, F32), (7, Bool)];
        let wide = [(10, U64), (11, I64), (12, F64)];
        known.into_iter().chain(wide).find(|(known, _)| *known == code).map(|(_, scalar)| scalar)
    }

    /// Bytes of one.
    pub(super) fn width(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The number in [`Self::width`] bytes.
    pub(super) fn decode(self, bytes: &[u8]) -> Value {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(wide);
        match self {
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => Value::Unsigned(bits),
            Self::I8 => Value::Signed(i64::from(bits as u8 as i8)),
            Self::I16 => Value::Signed(i64::from(bits as u16 as i16)),
            Self::I32 => Value::Signed(i64::from(bits as u32 as i32)),
            Self::I64 => Value::Signed(bits as i64),
            Self::F32 => Value::Float(f64::from(f32::from_bits(bits as u32))),
            Self::F64 => Value::Float(f64::from_bits(bits)),
            Self::Bool => Value::Flag(bits != 0),
        }
    }
}

impl Numbers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.scalar.width()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The numbers in order.
    pub fn iter(&self) -> impl Iterator<Item = Value> + '_ {
        self.bytes.chunks_exact(self.scalar.width()).map(|bytes| self.scalar.decode(bytes))
    }
}

impl Value {
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number that is not negative, of whatever type.
    pub fn as_unsigned(&self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(*number),
            Self::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A finite number, of whatever type.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(number) => number.is_finite().then_some(*number),
            Self::Unsigned(number) => Some(*number as f64),
            Self::Signed(number) => Some(*number as f64),
            _ => None,
        }
    }

    pub(super) fn as_flag(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    pub(super) fn as_texts(&self) -> Option<&[String]> {
        match self {
            Self::List(List::Texts(texts)) => Some(texts),
            _ => None,
        }
    }

    /// A list of numbers.
    pub fn as_numbers(&self) -> Option<&Numbers> {
        match self {
            Self::List(List::Numbers(numbers)) => Some(numbers),
            _ => None,
        }
    }
}

/// For messages: the value itself if it is short, else what it is.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(number) => write!(f, "{number}"),
            Self::Signed(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Text(text) if text.len() <= 80 => write!(f, "{text:?}"),
            Self::Text(text) => write!(f, "a text of {} bytes", text.len()),
            Self::List(List::Numbers(numbers)) => write!(f, "a list of {} numbers", numbers.len()),
            Self::List(List::Texts(texts)) => write!(f, "a list of {} texts", texts.len()),
            Self::List(List::Lists(lists)) => write!(f, "a list of {} lists", lists.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_type() {
        let cases: [(u32, &[u8], Value); 11] = [
            (0, &[255], Value::Unsigned(255)),
            (1, &[255], Value::Signed(-1)),
            (2, &[1, 2], Value::Unsigned(513)),
            (3, &[254, 255], Value::Signed(-2)),
            (4, &[0, 0, 0, 128], Value::Unsigned(1 << 31)),
            (5, &[0, 0, 0, 128], Value::Signed(-(1 << 31))),
            (6, &1.5f32.to_le_bytes(), Value::Float(1.5)),
            (7, &[1], Value::Flag(true)),
            (10, &u64::MAX.to_le_bytes(), Value::Unsigned(u64::MAX)),
            (11, &i64::MIN.to_le_bytes(), Value::Signed(i64::MIN)),
            (12, &(-0.1f64).to_le_bytes(), Value::Float(-0.1)),
        ];
        for (code, bytes, expected) in cases {
            let scalar = Scalar::of(code).unwrap();
            assert_eq!(scalar.width(), bytes.len());
            assert_eq!(scalar.decode(bytes), expected);
        }
        assert_eq!([8, 9, 13].map(Scalar::of), [None; 3]);
    }

    #[test]
    fn what_counts_as_a_number() {
        assert_eq!(Value::Signed(-1).as_unsigned(), None);
        assert_eq!(Value::Signed(3).as_unsigned(), Some(3));
        assert_eq!(Value::Float(f64::NAN).as_float(), None);
        assert_eq!(Value::Flag(true).as_unsigned(), None);
    }
}
