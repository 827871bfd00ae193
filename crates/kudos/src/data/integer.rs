//! Integers beyond 64 bits, which pass through as they are.
//!
//! `serde_json` would make floats of them and lose digits. (Its feature `arbitrary_precision` keeps them, but for every
//! number of every crate of the program, and breaks readers of tagged formats, tokenizers among them.) So such an
//! integer is carried as an object with one key of its own, `KEY`, whose value is its digits: made while JSON is
//! read, and undone while it is written.

use serde_json::{Map, Value};
use std::borrow::Cow;
use std::io::{self, Write};

/// The key of the object that stands for an integer.
const KEY: &str = "$kudos::integer";
/// All integers of fewer digits fit 64 bits.
const DIGITS: usize = 19;

/// Parses JSON.
pub(super) fn parse(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(&guarded(text))
}

/// The digits of a value that is an integer beyond 64 bits.
pub fn digits(value: &Value) -> Option<&str> {
    match value {
        Value::Object(map) if map.len() == 1 => map.get(KEY)?.as_str().filter(|digits| is_integer(digits)),
        _ => None,
    }
}

/// A value as JSON text, such integers as they were.
pub fn to_json(value: &Value) -> String {
    let mut json = Vec::new();
    write(&mut json, value).expect("memory takes everything");
    String::from_utf8(json).expect("JSON is UTF-8")
}

/// Writes a row as JSON.
pub(super) fn write_row(to: &mut impl Write, row: &Map<String, Value>) -> io::Result<()> {
    to.write_all(b"{")?;
    for (place, (key, value)) in row.iter().enumerate() {
        if place > 0 {
            to.write_all(b",")?;
        }
        serde_json::to_writer(&mut *to, key)?;
        to.write_all(b":")?;
        write(to, value)?;
    }
    to.write_all(b"}")
}

fn write(to: &mut impl Write, value: &Value) -> io::Result<()> {
    match (digits(value), value) {
        (Some(digits), _) => to.write_all(digits.as_bytes()),
        (None, Value::Object(map)) => write_row(to, map),
        (None, Value::Array(list)) => {
            to.write_all(b"[")?;
            for (place, value) in list.iter().enumerate() {
                if place > 0 {
                    to.write_all(b",")?;
                }
                write(to, value)?;
            }
            to.write_all(b"]")
        }
        (None, scalar) => Ok(serde_json::to_writer(to, scalar)?),
    }
}

/// The JSON text with its integers beyond 64 bits as objects.
pub(super) fn guarded(text: &str) -> Cow<'_, str> {
    if !has_long_number(text.as_bytes()) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        let (before, token) = rest.split_at(start);
        out.push_str(before);
        let length = if token.starts_with('"') { string_length(token) } else { number_length(token) };
        let (token, after) = token.split_at(length);
        if is_integer(token) && token.parse::<i64>().is_err() && token.parse::<u64>().is_err() {
            out.push_str(&format!("{{\"{KEY}\":\"{token}\"}}"));
        } else {
            out.push_str(token);
        }
        rest = after;
    }
    out.push_str(rest);
    out.into()
}

/// True if [`DIGITS`] digits stand in a row somewhere: one of them is then at a multiple of that many bytes.
fn has_long_number(bytes: &[u8]) -> bool {
    let run = |bytes: &mut dyn Iterator<Item = &u8>| bytes.take_while(|b| b.is_ascii_digit()).count();
    let places = (DIGITS - 1..bytes.len()).step_by(DIGITS).filter(|at| bytes[*at].is_ascii_digit());
    places.into_iter().any(|at| run(&mut bytes[..at].iter().rev()) + run(&mut bytes[at..].iter()) >= DIGITS)
}

/// Bytes up to the closing quote, included.
fn string_length(token: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in token.bytes().enumerate().skip(1) {
        if byte == b'"' && !escaped {
            return at + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    token.len()
}

fn number_length(token: &str) -> usize {
    token.find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c)).unwrap_or(token.len())
}

/// True for digits, after a minus or not, that JSON takes for a number.
fn is_integer(token: &str) -> bool {
    let digits = token.strip_prefix('-').unwrap_or(token);
    digits.bytes().all(|b| b.is_ascii_digit()) && digits.starts_with(|c: char| c != '0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f10_integers_of_any_size_pass_through() {
        let cases = [
            r#"{"b":123456789012345678901234567890}"#,
            r#"{"b":-123456789012345678901234567890,"c":[1,[99999999999999999999,{"d":18446744073709551616}]]}"#,
            r#"{"id":9007199254740993,"u":18446744073709551615,"i":-9223372036854775808,"f":0.1}"#,
            r#"{"text":"123456789012345678901234567890 \"123456789012345678901234567890\\"}"#,
            r#"{"a\"123456789012345678901234567890":"é","b":true,"c":null}"#,
        ];
        for text in cases {
            assert_eq!(to_json(&parse(text).unwrap()), text);
        }
        let floats = parse("[1e25,123456789012345678901234567890.5,0.12345678901234567890123]").unwrap();
        assert!(floats.as_array().unwrap().iter().all(Value::is_f64), "{floats}");
    }

    #[test]
    fn only_integers_beyond_64_bits_are_guarded() {
        let value = parse("[18446744073709551615,18446744073709551616,-9223372036854775809]").unwrap();
        let found: Vec<_> = value.as_array().unwrap().iter().map(digits).collect();
        assert_eq!(found, [None, Some("18446744073709551616"), Some("-9223372036854775809")]);
        for broken in ["[012345678901234567890123]", "[-]", "[1234567890123456789012 3]", "[\"12345678901234567890"] {
            assert!(parse(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn nothing_but_digits_is_written_raw() {
        let value = serde_json::json!({KEY: "1,\"x\":2"});
        assert_eq!(to_json(&value), value.to_string());
    }

    proptest::proptest! {
        #[test]
        fn long_numbers_are_found_wherever_they_stand(before in "[a-z0-9]{0,40}", digits in "[0-9]{15,23}") {
            let text = format!("{before},{digits},");
            let run = |text: &str| text.split(|c: char| !c.is_ascii_digit()).map(str::len).max() >= Some(DIGITS);
            proptest::prop_assert_eq!(has_long_number(text.as_bytes()), run(&text));
        }
    }
}
