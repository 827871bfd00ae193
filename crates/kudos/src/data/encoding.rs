//! Text that is not UTF-8: UTF-16 with a byte order mark, and Windows-1252 in CSV.
//!
//! A spreadsheet program writes both. UTF-16 is declared by its first two bytes and is made UTF-8 as it is read.
//! Windows-1252 is declared by nothing: it is what the records of a CSV file are if they are not UTF-8, which is decided once,
//! at the first record that is not ASCII. Nothing here replaces what it cannot read.

use super::error::ProblemKind;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};

const BUFFER: usize = 1 << 16;

/// The order of the two bytes of a UTF-16 unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ByteOrder {
    /// UTF-16LE.
    Little,
    /// UTF-16BE.
    Big,
}

/// UTF-16 in, UTF-8 out. Half of a surrogate pair comes out as the three bytes that UTF-8 forbids for it, so that the row which
/// has it is found to be unusable, and no other.
pub(super) struct Utf16<R> {
    input: R,
    order: ByteOrder,
    raw: Box<[u8]>,
    /// Bytes at the start of `raw` that were left of the last read: an odd one.
    kept: usize,
    /// The first half of a pair.
    high: Option<u16>,
    /// Text that is decoded, and how much of it has been given out.
    text: Vec<u8>,
    given: usize,
    ended: bool,
}

impl<R: Read> Utf16<R> {
    /// Reads on after the byte order mark.
    pub fn new(input: R, order: ByteOrder) -> Self {
        let raw = vec![0; BUFFER].into();
        Utf16 { input, order, raw, kept: 0, high: None, text: Vec::new(), given: 0, ended: false }
    }

    fn refill(&mut self) -> io::Result<()> {
        self.text.clear();
        self.given = 0;
        let count = self.input.read(&mut self.raw[self.kept..])?;
        if count == 0 {
            return self.end();
        }
        let length = self.kept + count;
        for at in (0..length - length % 2).step_by(2) {
            let bytes = [self.raw[at], self.raw[at + 1]];
            self.push(match self.order {
                ByteOrder::Little => u16::from_le_bytes(bytes),
                ByteOrder::Big => u16::from_be_bytes(bytes),
            });
        }
        self.kept = length % 2;
        self.raw[0] = self.raw[length - 1];
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        if self.kept != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "half of a UTF-16 character at its end"));
        }
        self.ended = true;
        if let Some(high) = self.high.take() {
            self.push_half(high);
        }
        Ok(())
    }

    fn push(&mut self, unit: u16) {
        if let Some(high) = self.high.take() {
            if let Some(Ok(pair)) = char::decode_utf16([high, unit]).next() {
                return self.push_char(pair);
            }
            self.push_half(high);
        }
        match char::from_u32(unit.into()) {
            Some(char) => self.push_char(char),
            None if unit < 0xdc00 => self.high = Some(unit),
            None => self.push_half(unit),
        }
    }

    fn push_char(&mut self, char: char) {
        self.text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn push_half(&mut self, unit: u16) {
        let low = |shift: u16| 0x80 | (unit >> shift & 0x3f) as u8;
        self.text.extend_from_slice(&[HALF_A_PAIR, low(6), low(0)]);
    }
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.text.len() && !self.ended {
            self.refill()?;
        }
        let count = buffer.len().min(self.text.len() - self.given);
        buffer[..count].copy_from_slice(&self.text[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

/// The byte that half of a surrogate pair begins with, followed by one of at least 0xa0.
const HALF_A_PAIR: u8 = 0xed;

/// UTF-8 bytes as text; the problem names the first byte that is none. `place` is what they are.
pub(super) fn utf8(bytes: &[u8], place: impl FnOnce() -> String) -> Result<&str, ProblemKind> {
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let (byte, place) = (at + 1, place());
        match bytes[at..] {
            [HALF_A_PAIR, 0xa0..=0xbf, ..] => ProblemKind::HalfCharacter { byte, place },
            _ => ProblemKind::NotUtf8 { byte, place },
        }
    })
}

/// The characters of Windows-1252 from 0x80 to 0x9f; the others are those of Unicode. Five bytes have none.
const WINDOWS_1252: [char; 32] = [
    '€', '\0', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\0', 'Ž', '\0', '\0', '‘', '’', '“', '”', '•',
    '–', '—', '˜', '™', 'š', '›', 'œ', '\0', 'ž', 'Ÿ',
];

/// The text of Windows-1252 bytes, or the place of one that has no character.
fn windows_1252(bytes: &[u8]) -> Result<String, usize> {
    let char = |(at, byte): (usize, &u8)| match byte {
        0x80..=0x9f => Some(WINDOWS_1252[usize::from(byte - 0x80)]).filter(|char| *char != '\0').ok_or(at),
        _ => Ok(char::from(*byte)),
    };
    bytes.iter().enumerate().map(char).collect()
}

/// What the records of a CSV file are written in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Encoding {
    /// All records so far are ASCII.
    Undecided,
    Utf8,
    Windows1252,
}

/// What is said once of a file in Windows-1252.
pub(super) const WINDOWS_1252_NOTE: &str = "read as Windows-1252, as it is not UTF-8; save it as UTF-8 to be sure";

impl Encoding {
    /// The fields of a record, which is laid end to end in `bytes`; `ends` is where each field ends.
    pub fn fields(&mut self, bytes: &[u8], ends: &[usize]) -> Result<Vec<String>, ProblemKind> {
        let plain = *self == Encoding::Utf8 || bytes.is_ascii();
        if plain {
            return utf8_fields(bytes, ends);
        }
        let as_utf8 = utf8_fields(bytes, ends);
        match (*self, as_utf8) {
            (Encoding::Windows1252, Ok(_)) => Err(ProblemKind::MixedEncodings),
            (Encoding::Windows1252, Err(_)) => windows_1252_fields(bytes, ends),
            (_, Ok(fields)) => {
                *self = Encoding::Utf8;
                Ok(fields)
            }
            (_, Err(problem)) => {
                let fields = windows_1252_fields(bytes, ends).map_err(|_| problem)?;
                *self = Encoding::Windows1252;
                Ok(fields)
            }
        }
    }
}

fn utf8_fields(bytes: &[u8], ends: &[usize]) -> Result<Vec<String>, ProblemKind> {
    let text = |(at, field)| utf8(field, || format!("field {}", at + 1)).map(str::to_owned);
    split(bytes, ends).enumerate().map(text).collect()
}

fn windows_1252_fields(bytes: &[u8], ends: &[usize]) -> Result<Vec<String>, ProblemKind> {
    let text = |(at, field)| {
        windows_1252(field)
            .map_err(|byte| ProblemKind::NotWindows1252 { byte: byte + 1, place: format!("field {}", at + 1) })
    };
    split(bytes, ends).enumerate().map(text).collect()
}

/// The fields that end at `ends`.
fn split<'a>(bytes: &'a [u8], ends: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends).map(|(start, end)| &bytes[start..*end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn utf16(text: &str, order: ByteOrder) -> Vec<u8> {
        let bytes = |unit: u16| if order == ByteOrder::Little { unit.to_le_bytes() } else { unit.to_be_bytes() };
        text.encode_utf16().flat_map(bytes).collect()
    }

    /// Gives out at most so many bytes at once.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(self.1);
            self.0.read(&mut buffer[..count])
        }
    }

    fn decoded(bytes: &[u8], order: ByteOrder, step: usize) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Utf16::new(Dribble(bytes, step), order).read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn halves_of_pairs_are_told_and_not_replaced() {
        let cases: [(&[u16], &[u8]); 5] = [
            (&[0x61, 0xd83d, 0xde00, 0x62], "a😀b".as_bytes()),
            (&[0x61, 0xd83d, 0x62], b"a\xed\xa0\xbdb"),
            (&[0xde00, 0x62], b"\xed\xb8\x80b"),
            (&[0xd83d, 0xd83d, 0xde00], b"\xed\xa0\xbd\xf0\x9f\x98\x80"),
            (&[0x61, 0xd83d], b"a\xed\xa0\xbd"),
        ];
        for (units, expected) in cases {
            let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
            let found = decoded(&bytes, ByteOrder::Big, 1).unwrap();
            assert_eq!(found, expected, "{units:x?}");
            let half = matches!(utf8(&found, String::new), Err(ProblemKind::HalfCharacter { .. }));
            assert_eq!(half, std::str::from_utf8(expected).is_err());
        }
        assert_eq!(decoded(b"a\0b", ByteOrder::Little, 9).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn windows_1252_has_all_but_five_bytes() {
        let undefined: Vec<u8> = (0..=255).filter(|byte| windows_1252(&[*byte]).is_err()).collect();
        assert_eq!(undefined, [0x81, 0x8d, 0x8f, 0x90, 0x9d]);
        assert_eq!(windows_1252(b"\x80 \x93caf\xe9\x94 \x9f\xa0").unwrap(), "€ “café” Ÿ\u{a0}");
    }

    #[test]
    fn an_encoding_is_decided_once() {
        use Encoding::{Undecided, Utf8, Windows1252};
        let one =
            |encoding: &mut Encoding, bytes: &[u8]| encoding.fields(bytes, &[bytes.len()]).map(|mut f| f.remove(0));
        let mut encoding = Undecided;
        assert_eq!(one(&mut encoding, b"plain"), Ok("plain".to_owned()));
        assert_eq!((one(&mut encoding, "é".as_bytes()), encoding), (Ok("é".to_owned()), Utf8));
        let problem = ProblemKind::NotUtf8 { byte: 1, place: "field 1".into() };
        assert_eq!((one(&mut encoding, b"\xe9"), encoding), (Err(problem.clone()), Utf8));

        let mut encoding = Undecided;
        assert_eq!(
            (one(&mut encoding, b"\x81"), encoding),
            (Err(ProblemKind::NotUtf8 { byte: 1, place: "field 1".into() }), Undecided)
        );
        assert_eq!((one(&mut encoding, b"\xe9"), encoding), (Ok("é".to_owned()), Windows1252));
        assert_eq!(one(&mut encoding, b"plain"), Ok("plain".to_owned()));
        assert_eq!(one(&mut encoding, "é".as_bytes()), Err(ProblemKind::MixedEncodings));
        assert_eq!(one(&mut encoding, b"a\x81"), Err(ProblemKind::NotWindows1252 { byte: 2, place: "field 1".into() }));
        // Two fields that are one character when laid end to end.
        let mut encoding = Undecided;
        assert_eq!(encoding.fields("é".as_bytes(), &[1, 2]), Ok(vec!["Ã".to_owned(), "©".to_owned()]));
    }

    proptest! {
        #[test]
        fn utf16_is_read_back(text in ".{0,40}", big: bool, step in 1..9usize) {
            let order = if big { ByteOrder::Big } else { ByteOrder::Little };
            prop_assert_eq!(decoded(&utf16(&text, order), order, step).unwrap(), text.as_bytes());
        }
    }
}
