//! `tojson` of chat templates: `json.dumps(value, ensure_ascii=…, indent=…, separators=…, sort_keys=…)`.
//!
//! Jinja's own filter escapes for HTML; transformers' does not, and leaves characters beyond ASCII as they are.

use super::growth;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Lists and objects in each other; Python gives up at about a thousand.
const DEEPEST: usize = 500;

/// How values are written.
struct Style {
    ascii: bool,
    /// What stands before an entry, for each level; `None`: all on one line.
    indent: Option<String>,
    between: String,
    after_key: String,
    sorted: bool,
}

/// The filter.
pub(super) fn tojson(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent = indent(options.get("indent")?)?;
    let (between, after_key) = match separators(options.get("separators")?)? {
        Some(separators) => separators,
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let yes = |name: &str| Ok::<_, Error>(options.get::<Option<Value>>(name)?.is_some_and(|value| value.is_true()));
    let style = Style { ascii: yes("ensure_ascii")?, indent, between, after_key, sorted: yes("sort_keys")? };
    options.assert_all_used()?;
    let mut json = String::new();
    style.write(&mut json, &value, 0)?;
    Ok(json)
}

fn bad(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {}", reason.into()))
}

/// A number of spaces, or the text itself.
fn indent(value: Option<Value>) -> Result<Option<String>, Error> {
    let Some(value) = value.filter(|value| !value.is_none()) else {
        return Ok(None);
    };
    if let Some(text) = value.as_str() {
        return Ok(Some(text.to_owned()));
    }
    let spaces = i64::try_from(value).ok().filter(|spaces| *spaces <= 1000);
    let spaces = spaces.ok_or_else(|| bad("expected an indent of at most 1000 spaces, or a text"))?;
    Ok(Some(" ".repeat(spaces.max(0) as usize)))
}

fn separators(value: Option<Value>) -> Result<Option<(String, String)>, Error> {
    let Some(value) = value.filter(|value| !value.is_none()) else {
        return Ok(None);
    };
    let texts: Vec<Value> = value.try_iter()?.collect();
    match texts.as_slice() {
        [between, after_key] => match (between.as_str(), after_key.as_str()) {
            (Some(between), Some(after_key)) => Ok(Some((between.to_owned(), after_key.to_owned()))),
            _ => Err(bad("expected separators that are texts")),
        },
        _ => Err(bad(format!("expected 2 separators, found {}", texts.len()))),
    }
}

impl Style {
    fn write(&self, json: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(bad(format!("expected at most {DEEPEST} lists and objects in each other")));
        }
        match value.kind() {
            ValueKind::Map => self.write_map(json, value, depth),
            ValueKind::Seq | ValueKind::Iterable => {
                let entries: Vec<Value> = value.try_iter()?.collect();
                self.write_entries(json, ['[', ']'], entries.len(), depth, |json, at| {
                    self.write(json, &entries[at], depth + 1)
                })
            }
            _ => {
                json.push_str(&self.scalar(value)?);
                Ok(())
            }
        }
    }

    fn write_map(&self, json: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sorted {
            keys.sort();
        }
        self.write_entries(json, ['{', '}'], keys.len(), depth, |json, at| {
            let key = &keys[at];
            match key.as_str() {
                Some(text) => json.push_str(&self.text(text)),
                None => json.push_str(&self.text(&self.scalar(key)?)),
            }
            json.push_str(&self.after_key);
            self.write(json, &value.get_item(key)?, depth + 1)
        })
    }

    fn write_entries(
        &self,
        json: &mut String,
        brackets: [char; 2],
        entries: usize,
        depth: usize,
        mut write: impl FnMut(&mut String, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        json.push(brackets[0]);
        for at in 0..entries {
            if at > 0 {
                json.push_str(&self.between);
            }
            self.new_line(json, depth + 1)?;
            write(json, at)?;
        }
        if entries > 0 {
            self.new_line(json, depth)?;
        }
        json.push(brackets[1]);
        Ok(())
    }

    fn new_line(&self, json: &mut String, depth: usize) -> Result<(), Error> {
        let indent = self.indent.as_deref().unwrap_or_default();
        growth::allow(json.len().saturating_add(indent.len().saturating_mul(depth)))?;
        if self.indent.is_some() {
            json.push('\n');
            json.push_str(&indent.repeat(depth));
        }
        Ok(())
    }

    /// The JSON of what has no entries.
    fn scalar(&self, value: &Value) -> Result<String, Error> {
        Ok(match value.kind() {
            ValueKind::None => "null".to_owned(),
            ValueKind::Bool => value.is_true().to_string(),
            ValueKind::Number if value.is_integer() => value.to_string(),
            ValueKind::Number => float(f64::try_from(value.clone())?),
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            kind => return Err(bad(format!("expected a value that JSON has, found one of kind {kind}"))),
        })
    }

    fn text(&self, text: &str) -> String {
        let json = serde_json::Value::from(text).to_string();
        if !self.ascii {
            return json;
        }
        let mut units = [0; 2];
        let escaped = |letter: char| -> String {
            if letter.is_ascii() && letter != '\u{7f}' {
                return letter.to_string();
            }
            letter.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
        };
        json.chars().map(escaped).collect()
    }
}

/// As Python writes it: as few digits as tell it from others, and an exponent where it is very large or small.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let digits = format!("{number:?}");
    match digits.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, power) = exponent.strip_prefix('-').map_or(('+', exponent), |power| ('-', power));
            format!("{mantissa}e{sign}{power:0>2}")
        }
        None => digits,
    }
}
