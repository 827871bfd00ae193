//! The text of a serialised value → the value.
//!
//! A table has no place for a list of messages, so people's CSV cells hold its text. That is JSON, or what
//! `DataFrame.to_csv` writes: Python's `repr`, and numpy's text of arrays, which has white space between the elements
//! (`['a' 'b']`). A text is read whole or not at all: what JSON has no value for is refused (bytes, sets, dates,
//! infinities, single surrogates), and so is an array that numpy has shortened to `...`.

use super::integer;
use serde_json::{Map, Number, Value};

/// Brackets within each other that are read; deeper text is refused.
const DEPTH: usize = 64;

/// The value of a text that is JSON, or Python's or numpy's text of a value.
pub(super) fn parse(text: &str) -> Option<Value> {
    integer::parse(text).ok().or_else(|| python(text))
}

/// True for a text that is bracketed and begins as a list of texts, of objects or of lists of them does, or as an
/// object does. A matrix of numbers, a `[[link]]` and a `{{name}}` do not.
pub(super) fn looks_serialised(text: &str) -> bool {
    let text = text.trim();
    if let Some(inside) = text.strip_prefix('{') {
        return text.ends_with('}') && inside.trim_start().starts_with(QUOTES);
    }
    let inside = text.strip_prefix('[').filter(|inside| inside.ends_with(']'));
    let array = || text.strip_prefix("array([").filter(|inside| inside.ends_with(')'));
    inside.or_else(array).is_some_and(|inside| {
        let first = inside.trim_start_matches(|c: char| c == '[' || c == '(' || c.is_whitespace());
        first.starts_with(QUOTES) || ["{", "array([", "np.str_("].iter().any(|start| first.starts_with(start))
    })
}

const QUOTES: [char; 2] = ['\'', '"'];

fn python(text: &str) -> Option<Value> {
    let mut reader = Reader { rest: text };
    let value = reader.value(DEPTH)?;
    reader.rest.trim_start().is_empty().then_some(value)
}

/// Reads values off the beginning of a text. Each method gives `None` where the text is another.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// The next value, in which up to `depth` brackets may be open.
    fn value(&mut self, depth: usize) -> Option<Value> {
        self.rest = self.rest.trim_start();
        match self.rest.chars().next()? {
            '\'' | '"' => self.string().map(Value::String),
            '-' | '0'..='9' => self.number(),
            '[' => self.list(depth.checked_sub(1)?),
            '(' => self.tuple(depth.checked_sub(1)?),
            '{' => self.dict(depth.checked_sub(1)?),
            _ => self.named(depth),
        }
    }

    /// Takes `token` off the text, and white space before it, if it comes next.
    fn takes(&mut self, token: char) -> bool {
        let after = self.rest.trim_start().strip_prefix(token);
        after.map(|after| self.rest = after).is_some()
    }

    /// A list of Python, or an array of numpy: between its elements stand commas alone, or white space alone.
    fn list(&mut self, depth: usize) -> Option<Value> {
        let mut list = Vec::new();
        let mut by_commas = None;
        self.takes('[');
        while !self.takes(']') {
            if !list.is_empty() {
                let comma = self.separator()?;
                if *by_commas.get_or_insert(comma) != comma {
                    return None;
                }
            }
            list.push(self.value(depth)?);
        }
        Some(Value::Array(list))
    }

    /// True for a comma, false for white space alone.
    fn separator(&mut self) -> Option<bool> {
        let blank = self.rest.starts_with(char::is_whitespace);
        let comma = self.takes(',');
        (comma || blank).then_some(comma)
    }

    /// As a list. A tuple of one has a comma; `('a')` is none.
    fn tuple(&mut self, depth: usize) -> Option<Value> {
        let mut list = Vec::new();
        let mut comma = false;
        self.takes('(');
        while !self.takes(')') {
            if !list.is_empty() && !comma {
                return None;
            }
            list.push(self.value(depth)?);
            comma = self.takes(',');
        }
        (list.len() != 1 || comma).then_some(Value::Array(list))
    }

    /// An object. Its keys are texts, and none stands twice.
    fn dict(&mut self, depth: usize) -> Option<Value> {
        let mut map = Map::new();
        self.takes('{');
        while !self.takes('}') {
            if !map.is_empty() && !self.takes(',') {
                return None;
            }
            self.rest = self.rest.trim_start();
            let key = self.string()?;
            let value = self.takes(':').then(|| self.value(depth))??;
            if map.insert(key, value).is_some() {
                return None;
            }
        }
        Some(Value::Object(map))
    }

    /// A text within quotes, in one line.
    fn string(&mut self) -> Option<String> {
        let quote = self.rest.chars().next().filter(|c| QUOTES.contains(c))?;
        self.rest = &self.rest[1..];
        let mut text = String::new();
        loop {
            let end = self.rest.find([quote, '\\', '\n', '\r'])?;
            text.push_str(&self.rest[..end]);
            self.rest = &self.rest[end..];
            if let Some(after) = self.rest.strip_prefix(quote) {
                self.rest = after;
                return Some(text);
            }
            let (character, length) = escaped(self.rest)?;
            text.push(character);
            self.rest = &self.rest[length..];
        }
    }

    /// A number of JSON, or one that ends its whole part with a point, as numpy has them (`2.`, `1.e+10`).
    fn number(&mut self) -> Option<Value> {
        let token = self.token(|c| c.is_ascii_digit() || "+-.eE".contains(c));
        let real = || token.contains('.').then(|| token.parse().ok().and_then(Number::from_f64).map(Value::Number))?;
        integer::parse(token).ok().or_else(real)
    }

    /// A constant, an array or a scalar of numpy.
    fn named(&mut self, depth: usize) -> Option<Value> {
        match self.name() {
            "None" | "null" | "nan" | "NaN" => Some(Value::Null),
            "True" | "true" | "np.True_" => Some(Value::Bool(true)),
            "False" | "false" | "np.False_" => Some(Value::Bool(false)),
            "array" => self.array(depth.checked_sub(1)?),
            "np.str_" => self.within_brackets(depth).filter(Value::is_string),
            name if is_number_type(name) => self.within_brackets(depth).filter(is_number),
            _ => None,
        }
    }

    /// `([…], dtype=object)`: the list alone.
    fn array(&mut self, depth: usize) -> Option<Value> {
        let list = self.takes('(').then(|| self.value(depth))?.filter(Value::is_array)?;
        while self.takes(',') {
            self.rest = self.rest.trim_start();
            let name = self.name();
            if !self.takes('=') || !self.array_setting(name) {
                return None;
            }
        }
        self.takes(')').then_some(list)
    }

    /// A type's name, in quotes or not, or a shape: the elements say both.
    fn array_setting(&mut self, name: &str) -> bool {
        match name {
            "dtype" if self.rest.starts_with(QUOTES) => self.string().is_some(),
            "dtype" => !self.name().is_empty(),
            "shape" => self.rest.starts_with('(') && self.tuple(0).is_some(),
            _ => false,
        }
    }

    /// `(VALUE)`.
    fn within_brackets(&mut self, depth: usize) -> Option<Value> {
        let value = self.takes('(').then(|| self.value(depth.checked_sub(1)?))??;
        self.takes(')').then_some(value)
    }

    fn name(&mut self) -> &'a str {
        self.token(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
    }

    /// The characters up to the first that is not `part` of the token.
    fn token(&mut self, part: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !part(c)).unwrap_or(self.rest.len());
        let (token, after) = self.rest.split_at(end);
        self.rest = after;
        token
    }
}

/// True for numpy's types of numbers, as `np.float64` and `np.int32`.
fn is_number_type(name: &str) -> bool {
    let kind = name.strip_prefix("np.").map(|kind| kind.trim_end_matches(|c: char| c.is_ascii_digit()));
    matches!(kind, Some("float" | "int" | "uint"))
}

/// True for a number, or the null that `nan` has become.
fn is_number(value: &Value) -> bool {
    value.is_number() || value.is_null() || integer::digits(value).is_some()
}

/// The character of the escape with which the text begins, and the escape's length.
fn escaped(text: &str) -> Option<(char, usize)> {
    let code = |digits: usize| {
        let hex = text.get(2..2 + digits)?;
        let code = hex.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(hex, 16).ok())??;
        Some((char::from_u32(code)?, 2 + digits))
    };
    match text.as_bytes().get(..2)? {
        b"\\n" => Some(('\n', 2)),
        b"\\r" => Some(('\r', 2)),
        b"\\t" => Some(('\t', 2)),
        b"\\\\" => Some(('\\', 2)),
        b"\\'" => Some(('\'', 2)),
        b"\\\"" => Some(('"', 2)),
        b"\\x" => code(2),
        b"\\u" => code(4),
        b"\\U" => code(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Texts that Python wrote, from `golden/make_literal_golden.py`.
    fn golden() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/data/literals.json");
        integer::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn reads_what_python_writes() {
        let golden = golden();
        let read = golden["read"].as_array().unwrap();
        assert!(read.len() > 100, "{}", read.len());
        for case in read {
            let text = case["text"].as_str().unwrap();
            assert_eq!(parse(text).as_ref(), Some(&case["value"]), "{text}");
            assert_eq!(Some(looks_serialised(text)), case["looks"].as_bool(), "{text}");
        }
    }

    #[test]
    fn refuses_what_json_has_no_value_for() {
        let golden = golden();
        let refused = golden["refused"].as_array().unwrap();
        assert!(refused.len() > 10, "{}", refused.len());
        for text in refused.iter().map(|text| text.as_str().unwrap()) {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn json_comes_first() {
        let cases = [
            (r#"["\/\b\f\ud83d\ude00"]"#, json!(["/\u{8}\u{c}😀"])),
            (" {\"a\": [1, null, true]} ", json!({"a": [1, null, true]})),
            (r#"[{"a": NaN, "b": false}]"#, json!([{"a": null, "b": false}])),
        ];
        for (text, value) in cases {
            assert_eq!(parse(text), Some(value), "{text}");
        }
    }

    #[test]
    fn nothing_is_read_short_or_guessed() {
        let cases = [
            "",
            "[",
            "['a'",
            "['a",
            "['a' 'b', 'c']",
            "['a', 'b' 'c']",
            "['a''b']",
            "['a'] x",
            "['a',, 'b']",
            "['a',]",
            "('a')",
            "('a' 'b')",
            "{'a' 1}",
            "{'a': 1 'b': 2}",
            "{'a': 1, 'a': 2}",
            "{1: 2}",
            "{'a'}",
            "[{'a': 1} ... {'b': 2}]",
            "array([{'a': 1}, ..., {'b': 2}], dtype=object)",
            "array(['a'], dtype=)",
            "array(['a'], order='C')",
            "array('a')",
            "array(['a']",
            "np.float64('a')",
            "np.str_(1)",
            "np.datetime64('2026-01-01')",
            "['a\nb']",
            r"['\q']",
            r"['\x+1']",
            r"['\xé']",
            r"['\u12']",
            r"['\ud83d']",
            r"['\U00110000']",
            "[01]",
            "[1.2.3]",
            "[1.e999]",
            "[inf]",
            "[-inf]",
            "[truee]",
            "[citation needed] text",
            "it's",
        ];
        for text in cases {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested =
            |depth: usize, open: &str, close: &str| format!("{}'a'{}", open.repeat(depth), close.repeat(depth));
        for (open, close) in [("[", "]"), ("(", ",)"), ("{'k': ", "}")] {
            assert!(parse(&nested(DEPTH, open, close)).is_some(), "{open}");
            assert_eq!(parse(&nested(DEPTH + 1, open, close)), None, "{open}");
        }
        for open in ["[", "(", "{'k':", "array(", "np.str_(", "array(["] {
            assert_eq!(parse(&open.repeat(100_000)), None, "{open}");
        }
    }

    #[test]
    fn texts_that_look_serialised() {
        let cases = [
            ("[{'role': 'user'}]", true),
            (" [ {\"role\": 1} ] \n", true),
            ("[{role: user}]", true),
            ("['a' 'b']", true),
            ("[[\"a\"], []]", true),
            ("[('human', 'x')]", true),
            ("{'a': 1}", true),
            ("{ \"a\": 1}", true),
            ("array([{'a': 1}], dtype=object)", true),
            ("[array(['a'], dtype=object)]", true),
            ("[np.str_('a')]", true),
            ("[{'a': 1} ... {'b': 2}]", true),
            ("[1, 2]", false),
            ("[[1, 2], [3, 4]]", false),
            ("[a]", false),
            ("[[a link]]", false),
            ("[citation needed] text", false),
            ("['a' and then", false),
            ("{x | x > 0}", false),
            ("{{name}}", false),
            ("{'a': 1}]", false),
            ("array([1, 2])", false),
            ("[]", false),
            ("[", false),
            ("", false),
        ];
        for (text, looks) in cases {
            assert_eq!(looks_serialised(text), looks, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*", code in "[\\[\\](){}'\"\\\\,: .\\n0-9aenrxuUTN=+-]{0,60}") {
            for text in [text.as_str(), code.as_str(), &format!("[{code}]"), &format!("array([{code}])")] {
                let _ = (parse(text), looks_serialised(text));
            }
        }

        #[test]
        fn a_text_cut_short_is_refused(text in "[a-z'é\\\\]{0,12}", cut in 0usize..100) {
            let quoted = text.replace('\\', "\\\\").replace('\'', "\\'");
            let whole = format!("[{{'content': '{quoted}', 'n': 1}} {{'content': array(['{quoted}'], dtype=object)}}]");
            let value = json!([{"content": text, "n": 1}, {"content": [text]}]);
            proptest::prop_assert_eq!(parse(&whole), Some(value));
            let ends: Vec<usize> = whole.char_indices().map(|(at, _)| at).collect();
            proptest::prop_assert_eq!(parse(&whole[..ends[cut % ends.len()]]), None);
        }
    }
}
