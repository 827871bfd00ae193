//! Columns that pass through beside those of an output: none takes the name of another.

use serde_json::{Map, Value};

/// Columns whose names mean something to a reader of our own kinds of row, or of the layouts that are nearest to them. One that
/// passes through under such a name would change what the row says.
pub const MEANT: [&str; 37] = [
    "prompt",
    "system",
    "history",
    "answer",
    "response",
    "responses",
    "comparisons",
    "rank",
    "ranks",
    "rating",
    "ratings",
    "score",
    "scores",
    "chosen",
    "rejected",
    "response_a",
    "response_b",
    "label",
    "margin",
    "weight",
    "votes",
    "share",
    "attributes",
    "question",
    "instruction",
    "input",
    "query",
    "annotator",
    "annotator_id",
    "worker",
    "worker_id",
    "user",
    "user_id",
    "judge",
    "session",
    "session_id",
    "status",
];

/// The columns with other names where their own are `taken`: `input_NAME`, or the next that is free of `input_NAME_2`, ….
pub fn beside(columns: Map<String, Value>, taken: &[&str]) -> Map<String, Value> {
    if !columns.keys().any(|name| taken.contains(&name.as_str())) {
        return columns;
    }
    let free = |name: &str| {
        let numbered = (2..).map(|n| format!("input_{name}_{n}"));
        [format!("input_{name}")].into_iter().chain(numbered).find(|new| !columns.contains_key(new))
    };
    let renamed = |name: &String| if taken.contains(&name.as_str()) { free(name) } else { None };
    columns.iter().map(|(name, value)| (renamed(name).unwrap_or_else(|| name.clone()), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_that_are_taken_give_way() {
        let columns = json!({"id": 1, "user": "u", "input_user": 2, "chosen": 3}).as_object().unwrap().clone();
        let found = serde_json::to_string(&beside(columns, &MEANT)).unwrap();
        assert_eq!(found, r#"{"id":1,"input_user_2":"u","input_user":2,"input_chosen":3}"#);
    }
}
