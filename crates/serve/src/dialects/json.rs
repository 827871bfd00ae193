//! JSON as requests have it: read strictly, and asked field by field.
//!
//! A key that stands twice is refused in every dialect. Readers differ in which of the two they take, so a request
//! with both has no meaning that all agree on; and no client library writes one. NaN, infinities and lone surrogates
//! are no JSON, and so is anything nested deeper than 127 lists or objects. A body may have half a million values: a
//! value takes many times the memory of the two bytes that it can be written in.
//!
//! What is found wrong is named by its field and its type. Texts of the request never stand in an error.

use crate::ask::Refusal;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::cell::Cell;

/// The value of a body.
///
/// # Errors
/// [`Refusal::Malformed`], with the line and the column.
pub fn parse(body: &[u8]) -> Result<Value, Refusal> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let left = Cell::new(VALUES);
    let value = Strict(&left).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| Refusal::malformed(format!("the body: expected JSON, found {}", named(&error))))
}

/// What the reader found. It has two names for half of a surrogate pair, neither of which says so.
fn named(error: &serde_json::Error) -> String {
    let names = ["unexpected end of hex escape", "lone leading surrogate in hex escape"];
    names.iter().fold(error.to_string(), |text, name| text.replace(name, "a lone surrogate"))
}

/// The object of a body.
///
/// # Errors
/// As [`parse`], and for a body that is no object.
pub fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    match parse(body)? {
        Value::Object(fields) => Ok(fields),
        other => Err(wrong("the body", "an object", &other)),
    }
}

/// Values of a body, those within others included.
const VALUES: usize = 500_000;

/// Reads a [`Value`] in which no object has a key twice; so many may still come.
#[derive(Clone, Copy)]
struct Strict<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        let left = self.0.get().checked_sub(1);
        self.0.set(left.ok_or_else(|| D::Error::custom(format!("more than {VALUES} values; send them in parts")))?);
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            let value = fields.next_value_seed(self)?;
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key that stands twice in one object"));
            }
        }
        Ok(Value::Object(map))
    }
}

/// A value in a few words, without what it says.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(list) if list.is_empty() => "an empty list",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A field of another type.
pub fn wrong(name: &str, expected: &str, found: &Value) -> Refusal {
    let name = if name.contains(' ') { name.to_owned() } else { format!("`{name}`") };
    Refusal::malformed(format!("{name}: expected {expected}, found {}", kind(found)))
}

/// The fields of a request. A field that is `null` is one that is not there.
pub trait Fields {
    /// A field that is there.
    fn field(&self, name: &str) -> Option<&Value>;

    /// A field that must be there.
    fn needed(&self, name: &str, expected: &str) -> Result<&Value, Refusal> {
        self.field(name).ok_or_else(|| Refusal::malformed(format!("`{name}`: expected {expected}, found nothing")))
    }

    /// A text.
    fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let read = |value: &'_ Value| wrong(name, "a text", value);
        self.field(name).map(|value| value.as_str().ok_or_else(|| read(value))).transpose()
    }

    /// `true` or `false`.
    fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let read = |value: &'_ Value| wrong(name, "true or false", value);
        self.field(name).map(|value| value.as_bool().ok_or_else(|| read(value))).transpose()
    }

    /// A whole number. A number with a fraction of zero is one.
    fn whole(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.field(name) else { return Ok(None) };
        let rounded = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15);
        let number = value.as_i64().or(rounded.map(|number| number as i64));
        number.map(Some).ok_or_else(|| wrong(name, "a whole number", value))
    }

    /// A list that must be there.
    fn list(&self, name: &str, expected: &str) -> Result<&Vec<Value>, Refusal> {
        let value = self.needed(name, expected)?;
        value.as_array().ok_or_else(|| wrong(name, expected, value))
    }

    /// Refuses a field that would change the scores in a way that cannot be had here.
    fn without(&self, name: &str, advice: &str) -> Result<(), Refusal> {
        match self.field(name) {
            None => Ok(()),
            Some(_) => Err(Refusal::unsupported(format!("`{name}` cannot be had here: {advice}"))),
        }
    }
}

impl Fields for Map<String, Value> {
    fn field(&self, name: &str) -> Option<&Value> {
        self.get(name).filter(|value| !value.is_null())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_json_is_read_as_serde_json_reads_it() {
        for text in [
            "null",
            " [1, -2, 0.5, 1e300, true] ",
            r#"{"a": {"b": ["\ud83d\ude00", ""]}, "": {}}"#,
            "18446744073709551615",
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(serde_json::from_str(text).unwrap()), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        let cases = [
            ("", "EOF"),
            ("{", "EOF"),
            ("[NaN]", "line 1 column 2"),
            ("[Infinity]", "column 2"),
            ("[1e999]", "out of range"),
            ("{} {}", "trailing"),
            (r#"{"a": 1, "a": 1}"#, "a key that stands twice"),
            (r#"[{"a": {"b": 1, "b": null}}]"#, "a key that stands twice"),
            (r#""\ud800""#, "surrogate"),
            (r#""\udc00x""#, "surrogate"),
            ("\"a\nb\"", "control character"),
            (&deep, "recursion limit"),
        ];
        for (text, expected) in cases {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let many = format!("[{}0]", "0,".repeat(VALUES - 2));
        assert!(parse(many.as_bytes()).is_ok());
        let error = parse(many.replacen('0', "0,0", 1).as_bytes()).unwrap_err().to_string();
        assert!(error.contains("more than 500000 values"), "{error}");
        assert!(parse(b"\"\xff\"").is_err());
        assert!(object(b"[]").unwrap_err().to_string().contains("expected an object, found an empty list"));
    }

    #[test]
    fn fields_are_asked_by_type() {
        let Value::Object(fields) = json!({"t": "x", "n": 3.0, "b": true, "z": null, "l": [1]}) else { unreachable!() };
        assert_eq!(
            (fields.text("t"), fields.whole("n"), fields.flag("b")),
            (Ok(Some("x")), Ok(Some(3)), Ok(Some(true)))
        );
        assert_eq!((fields.text("z"), fields.text("none")), (Ok(None), Ok(None)));
        assert!(fields.without("z", "").is_ok() && fields.without("t", "no").is_err());
        let found = |refusal: Result<Option<i64>, Refusal>| refusal.unwrap_err().to_string();
        assert_eq!(found(fields.whole("t")), "`t`: expected a whole number, found a text");
        assert!(fields.list("z", "a list").unwrap_err().to_string().contains("found nothing"));
    }
}
