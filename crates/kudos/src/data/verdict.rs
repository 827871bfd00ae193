//! Words and numbers that say which of two responses is better → the share of votes for the first.

use super::content::describe;
use super::error::ProblemKind;
use serde_json::Value;

/// What people call the first response, the second, and neither.
const WORDS: [(f32, &[&str]); 3] = [
    (
        1.0,
        &["a", "model_a", "response_a", "answer_a", "left", "first", "a>b", "a>>b", "[[a]]", "model a", "response a"],
    ),
    (
        0.0,
        &["b", "model_b", "response_b", "answer_b", "right", "second", "b>a", "b>>a", "[[b]]", "model b", "response b"],
    ),
    (
        0.5,
        &["tie", "tie (bothbad)", "tie (both bad)", "bothbad", "both_bad", "both bad", "equal", "a=b", "[[c]]", "draw"],
    ),
];

/// The share that a word says, without regard to case.
pub(super) fn word(text: &str) -> Option<f32> {
    let lower = text.trim().to_lowercase();
    WORDS.iter().find(|(_, words)| words.contains(&lower.as_str())).map(|(share, _)| *share)
}

/// The share that a value says by `labels`, which the user gave; numbers are compared as numbers.
pub(super) fn by_labels(value: &Value, labels: &[(String, f32)]) -> Option<f32> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let number = |text: &str| text.parse::<f64>().ok();
    let same = |known: &str| known == text || number(known).is_some_and(|n| number(&text) == Some(n));
    labels.iter().find(|(known, _)| same(known)).map(|(_, share)| *share)
}

/// The word that a value is, or an unknown label.
pub(super) fn words(value: &Value) -> Result<f32, ProblemKind> {
    value.as_str().and_then(word).ok_or_else(|| ProblemKind::UnknownLabel { found: describe(value) })
}

/// The whole number of a value, also as text.
pub(super) fn whole(value: &Value) -> Option<i64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (number.fract() == 0.0 && number.abs() < 1e15).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_and_labels() {
        for (value, expected) in [
            (json!(" Model_A "), Some(1.0)),
            (json!("B>A"), Some(0.0)),
            (json!("tie (bothbad)"), Some(0.5)),
            (json!("right"), Some(0.0)),
            (json!("c"), None),
            (json!(1), None),
            (json!(true), None),
        ] {
            assert_eq!(words(&value).ok(), expected, "{value}");
        }
        let labels = [("1".to_owned(), 1.0), ("B!".to_owned(), 0.0), (String::new(), 0.5)];
        for (value, expected) in [
            (json!(1), Some(1.0)),
            (json!(1.0), Some(1.0)),
            (json!("1"), Some(1.0)),
            (json!("B!"), Some(0.0)),
            (json!(2), None),
        ] {
            assert_eq!(by_labels(&value, &labels), expected, "{value}");
        }
        assert_eq!(
            [json!(1.0), json!("-3"), json!(0.5), json!("x")].map(|v| whole(&v)),
            [Some(1), Some(-3), None, None]
        );
    }
}
