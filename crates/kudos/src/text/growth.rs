//! How large a text of a template may grow in one step.
//!
//! The fuel of a rendering pays for what the template engine makes. What is made here, by methods and filters of
//! Python, the engine only sees when it is there: a short pattern that asks for a width of 10¹⁰ would have filled the
//! memory by then. So what a call would make is estimated before it is made.

use minijinja::value::Value;
use minijinja::{Error, ErrorKind};

/// Bytes that one call may make.
pub(super) const MOST: usize = 256 << 20;

/// Refuses what would be larger.
pub(super) fn allow(bytes: usize) -> Result<(), Error> {
    if bytes <= MOST {
        return Ok(());
    }
    let reason = format!("a text would become larger than {} MB", MOST >> 20);
    Err(Error::new(ErrorKind::InvalidOperation, reason))
}

/// `text.replace(old, new)`.
pub(super) fn of_replace(text: &str, args: &[Value]) -> Result<(), Error> {
    let [Some(old), Some(new)] = [0, 1].map(|at| args.get(at).and_then(Value::as_str)) else { return Ok(()) };
    let more = new.len().saturating_sub(old.len());
    allow(if more == 0 { 0 } else { text.matches(old).count().saturating_mul(more).saturating_add(text.len()) })
}

/// `text.join(values)`.
pub(super) fn of_join(text: &str, args: &[Value]) -> Result<(), Error> {
    let Some(values) = args.first().and_then(|values| values.try_iter().ok()) else { return Ok(()) };
    let mut bytes = 0usize;
    for value in values {
        bytes = bytes.saturating_add(text.len() + value.as_str().map_or(32, str::len));
        allow(bytes)?;
    }
    Ok(())
}

/// `pattern % values` and `pattern.format(values)`: what the widths ask for, and as many of the longest value as there
/// are fields.
pub(super) fn of_pattern(pattern: &str, field: char, values: &[Value]) -> Result<(), Error> {
    let (mut fields, mut widths) = (0usize, 0usize);
    for rest in pattern.split(field).skip(1) {
        let spec = spec(rest, field);
        let numbers = spec.split(|letter: char| !letter.is_ascii_digit()).filter(|digits| !digits.is_empty());
        widths = numbers.fold(widths, |sum, digits| sum.saturating_add(digits.parse().unwrap_or(usize::MAX)));
        fields += 1;
        if spec.contains('*') {
            return Err(Error::new(ErrorKind::InvalidOperation, "expected a width that is written out, found *"));
        }
    }
    let longest = values.iter().map(|value| value.as_str().map_or_else(|| size(value, fields), str::len)).max();
    allow(widths.saturating_mul(4).saturating_add(fields.saturating_mul(longest.unwrap_or(0))))
}

/// The width and precision of a field, with what else stands there; `rest` begins after its first character.
fn spec(rest: &str, field: char) -> &str {
    if field == '{' {
        let inside = rest.split('}').next().unwrap_or_default();
        return inside.split_once(':').map_or("", |(_, spec)| spec);
    }
    let rest = rest.strip_prefix('(').and_then(|name| name.split_once(')')).map_or(rest, |(_, rest)| rest);
    rest.split(|letter: char| letter.is_alphabetic()).next().unwrap_or_default()
}

/// Bytes of a value as text; of few fields, whatever it is.
fn size(value: &Value, fields: usize) -> usize {
    if fields > 16 { value.to_string().len() } else { 64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(texts: &[&str]) -> Vec<Value> {
        texts.iter().map(|text| Value::from(*text)).collect()
    }

    #[test]
    fn what_would_fill_the_memory_is_refused_and_nothing_else() {
        let long = "x".repeat(1 << 20);
        assert!(of_replace(&long, &values(&["x", "yy"])).is_ok() && of_replace(&long, &values(&["x", ""])).is_ok());
        assert!(of_replace(&long, &values(&["", &long])).is_err() && of_replace(&long, &[]).is_ok());
        assert!(of_join(", ", &[Value::from(vec!["a", "b"])]).is_ok() && of_join(", ", &[Value::from(1)]).is_ok());
        assert!(of_join(&long, &[Value::from(vec!["a"; 300])]).is_err());
        for pattern in ["%s", "Order 12345678901234567890: %s", "%5.2f|%-10s", "100 %", "%(name)s"] {
            assert!(of_pattern(pattern, '%', &values(&["a", &long])).is_ok(), "{pattern}");
        }
        for pattern in ["%9999999999s", "%.9999999999f", "%99999999999999999999999s", "%*s", "%(a)9999999999s"] {
            assert!(of_pattern(pattern, '%', &values(&["a"])).is_err(), "{pattern}");
        }
        for pattern in ["{:>9999999999}", "{name:.9999999999}", "{0!r:9999999999}"] {
            assert!(of_pattern(pattern, '{', &values(&["a"])).is_err(), "{pattern}");
        }
        assert!(of_pattern("{:>30}{0!r:5} {{9999999999}}", '{', &values(&["a"])).is_ok());
        assert!(of_pattern(&"{0}".repeat(1000), '{', &values(&[&long])).is_err());
    }
}
