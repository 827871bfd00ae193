//! The columns that are read without a layout, and what makes a record of no use for learning.

use super::content::content;
use super::error::ProblemKind;
use super::record::{ASSISTANT, Content, Record, USER};
use serde_json::{Map, Value};

type Fields = Map<String, Value>;

/// The column of prompts.
pub(crate) const PROMPT: &str = "prompt";

/// The prompt of a row of any kind, or of none. It must ask something.
pub(crate) fn prompt(fields: &Fields) -> Result<Content, ProblemKind> {
    let empty = || ProblemKind::EmptyText { column: PROMPT.to_owned() };
    let value = fields.get(PROMPT).filter(|value| !value.is_null()).ok_or_else(empty)?;
    let prompt = content(value, || PROMPT.to_owned(), false)?;
    if prompt.is_blank() { Err(empty()) } else { Ok(prompt) }
}

/// Why nothing can be learnt from a record that can be read; `names` are its columns.
pub(super) fn unusable(record: &Record, names: &Fields) -> Option<ProblemKind> {
    let answer = if names.contains_key("answer") { "answer" } else { "response" };
    let sides = match record {
        Record::Ranked { response, .. } | Record::Unlabelled { response, .. } => {
            [(answer, response), (answer, response)]
        }
        Record::Pair { chosen, rejected, .. } => [("chosen", chosen), ("rejected", rejected)],
        Record::Comparison { a, b, .. } => [("response_a", a), ("response_b", b)],
        Record::Group { .. } => return None,
    };
    if let Some((column, _)) = sides.iter().find(|(_, content)| content.is_blank()) {
        return Some(ProblemKind::EmptyText { column: (*column).to_owned() });
    }
    if let Some(problem) = sides.iter().find_map(|(column, content)| ends_with_a_question(column, content)) {
        return Some(problem);
    }
    let [first, second] = sides.map(|(_, content)| content.reading(ASSISTANT));
    (sides[0].0 != sides[1].0 && first == second).then_some(ProblemKind::Identical)
}

/// A conversation whose last word is the user's is no response.
fn ends_with_a_question(column: &str, content: &Content) -> Option<ProblemKind> {
    let Content::Messages(turns) = content else { return None };
    let role = turns.last().map(|turn| turn.role.as_str()).filter(|role| *role == USER)?;
    Some(ProblemKind::LastSpeaker { column: column.to_owned(), role: role.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(row: Value) -> Result<Record, ProblemKind> {
        let fields = row.as_object().unwrap();
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        Shape::recognise(&names)?.record(fields)
    }

    #[test]
    fn labels() {
        let cases = [
            (json!("a"), Some(1.0)),
            (json!(" B "), Some(0.0)),
            (json!("Tie"), Some(0.5)),
            (json!(0.25), Some(0.25)),
            (json!("1"), Some(1.0)),
            (json!(1.01), None),
            (json!(-1), None),
            (json!("nan"), None),
            (json!("model_a"), None),
            (json!(true), None),
            (json!(null), None),
        ];
        for (value, expected) in cases {
            assert_eq!(label(&value).ok(), expected, "{value}");
        }
    }

    #[test]
    fn numbers() {
        let cases = [
            (json!(null), Ok(None)),
            (json!(" "), Ok(None)),
            (json!(2), Ok(Some(2.0))),
            (json!(" 1.5 "), Ok(Some(1.5))),
            (json!("NaN"), Err("out_of_range")),
            (json!("inf"), Err("out_of_range")),
            (json!("1st"), Err("wrong_type")),
            (json!([1]), Err("wrong_type")),
            (json!(false), Err("wrong_type")),
        ];
        for (value, expected) in cases {
            let found = number(Some(&value), || "rank".into()).map_err(|problem| problem.name());
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn contents() {
        let chat = json!([{"role": "user", "content": "x", "name": "n"}]);
        let cases = [
            (json!("x"), true),
            (chat, true),
            (json!([]), true),
            (json!(["x"]), false),
            (json!([{"role": "user"}]), false),
            (json!([{"role": "user", "content": null}]), false),
            (json!({"role": "user", "content": "x"}), false),
            (json!(1), false),
        ];
        for (value, good) in cases {
            assert_eq!(content(&value, String::new).is_ok(), good, "{value}");
        }
    }

    #[test]
    fn attributes_of_responses() {
        let group = |attributes: Value| json!({"prompt": "p", "responses": [{"text": "a", "attributes": attributes}]});
        let row = |more: Value| {
            let mut row = json!({"prompt": "p", "answer": "a", "rank": 1});
            row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            row
        };
        let cases = [
            (group(json!({"b": 2, "a": 1.5, "c": null, "d": ""})), Ok("{\"a\": 1.5, \"b\": 2.0}")),
            (group(json!(null)), Ok("{}")),
            (group(json!({"a": "4"})), Ok("{\"a\": 4.0}")),
            (group(json!({"a": "good"})), Err("column `responses[1].attributes.a`: expected a number, found \"good\"")),
            (group(json!({"a": "inf"})), Err("column `responses[1].attributes.a`: expected a finite number")),
            (group(json!([1])), Err("column `responses[1].attributes`: expected an object of numbers by name")),
            (row(json!({"attribute:a": 3, "attribute:b": null})), Ok("{\"a\": 3.0}")),
            (row(json!({"attributes": {"b": 1}, "attribute:a": "2"})), Ok("{\"a\": 2.0, \"b\": 1.0}")),
            (row(json!({"attributes": "red, large"})), Ok("{}")),
            (row(json!({"attribute:a": "high"})), Err("column `attribute:a`: expected a number, found \"high\"")),
            (row(json!({"attributes": {"a": false}})), Err("column `attributes.a`: expected a number")),
            (row(json!({"attributes": {"a": 1}, "attribute:a": 2})), Err("the rating that `attributes` has too")),
        ];
        for (row, expected) in cases {
            let found = read(row.clone()).map(|record| match record {
                Record::Group { responses, .. } => format!("{:?}", responses[0].attributes),
                Record::Ranked { attributes, .. } => format!("{attributes:?}"),
                other => panic!("{other:?}"),
            });
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{row}"),
                (Err(problem), Err(expected)) => assert!(problem.to_string().contains(expected), "{row}: {problem}"),
                (found, _) => panic!("{row}: {found:?}"),
            }
        }
    }

    #[test]
    fn prompts_that_are_there_and_not() {
        let cases = [
            (json!({"prompt": "", "chosen": "a", "rejected": "b"}), Ok(true)),
            (json!({"prompt": [], "chosen": "a", "rejected": "b"}), Ok(false)),
            (json!({"prompt": null, "chosen": "a", "rejected": "b"}), Ok(false)),
            (json!({"prompt": "p", "chosen": "a", "rejected": "b"}), Ok(true)),
            (json!({"prompt": " ", "answer": "a", "rank": 1}), Ok(true)),
            (json!({"prompt": null, "answer": "a", "rank": 1}), Err("empty")),
            (json!({"prompt": null, "responses": ["a"]}), Err("empty")),
            (json!({"prompt": "p", "responses": []}), Err("too_few_responses")),
            (json!({"prompt": "p", "responses": "a"}), Err("wrong_type")),
            (json!({"chosen": "a", "rejected": "b", "weight": -1}), Err("out_of_range")),
            (json!({"chosen": "a", "rejected": "b", "margin": 1e300}), Err("out_of_range")),
        ];
        for (row, expected) in cases {
            let prompted = |record| match record {
                Record::Pair { prompt, .. } => prompt.is_some(),
                _ => true,
            };
            assert_eq!(read(row.clone()).map(prompted).map_err(|p| p.name()), expected, "{row}");
        }
    }

    #[test]
    fn long_values_are_shortened() {
        let long = "x".repeat(500);
        assert!(describe(&json!(long)).len() < 60);
        let names: Vec<&str> = vec![&long; 30];
        let Unrecognised { found, .. } = Shape::recognise(&names).unwrap_err();
        assert!(found.len() < 700 && found.ends_with("and 18 more"), "{found}");
    }
}
