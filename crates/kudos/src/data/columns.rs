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
pub(super) fn ends_with_a_question(column: &str, content: &Content) -> Option<ProblemKind> {
    let Content::Messages(turns) = content else { return None };
    let role = turns.last().map(|turn| turn.role.as_str()).filter(|role| *role == USER)?;
    Some(ProblemKind::LastSpeaker { column: column.to_owned(), role: role.to_owned() })
}
