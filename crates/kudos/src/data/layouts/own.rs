//! Our own kinds of row: what INTERFACE promises, whatever layouts are published.

use super::{Kind, Layout, Outcome, Read};
use crate::data::cells::{self, Cells, out_of_range};
use crate::data::content::{messages, wrong_type};
use crate::data::conversation::{self, Mismatch};
use crate::data::error::ProblemKind;
use crate::data::group::{Attributes, Comparison};
use crate::data::record::{Candidate, Content, RankOrRating, Record};
use crate::data::verdict;
use serde_json::{Map, Value};

const CONTEXT: [&str; 2] = ["system", "history"];

/// In the order of precedence: the first whose columns are all there is what a row is.
pub(super) static KINDS: [Layout; 9] =
    [
        own(&["chosen", "rejected"], &["prompt", "margin", "weight", "system", "history"], Kind::Pairs, |cells| {
            Ok(pair(cells, ["chosen", "rejected"])?.into())
        }),
        own(
            &["prompt", "response_a", "response_b", "label"],
            &["margin", "weight", "system", "history"],
            Kind::Comparisons,
            |cells| Ok(comparison(cells)?.into()),
        ),
        own(&["prompt", "responses"], &["system", "history", "comparisons"], Kind::Groups, |cells| {
            Ok(group(cells)?.into())
        }),
        own(&["prompt", "answer", "rank"], &CONTEXT, Kind::Ranked, |cells| ranked(cells, "answer")),
        own(&["prompt", "response", "rank"], &CONTEXT, Kind::Ranked, |cells| ranked(cells, "response")),
        own(&["prompt", "answer", "rating"], &CONTEXT, Kind::Rated, |cells| rated(cells, "answer")),
        own(&["prompt", "response", "rating"], &CONTEXT, Kind::Rated, |cells| rated(cells, "response")),
        own(&["prompt", "answer"], &CONTEXT, Kind::Unlabelled, |cells| unlabelled(cells, "answer")),
        own(&["prompt", "response"], &CONTEXT, Kind::Unlabelled, |cells| unlabelled(cells, "response")),
    ];

const fn own(
    columns: &'static [&'static str],
    also: &'static [&'static str],
    kind: Kind,
    read: super::ReadRow,
) -> Layout {
    Layout { name: "", columns, unless: &[], also, verdicts: &[], said: "", read: Read::Own(kind, read) }
}

/// The prompt of a row of our own. A `history` beside it is read only where the user says so, as data sets mean several things
/// by that name.
fn asked(cells: &Cells) -> Result<Option<Content>, ProblemKind> {
    let is_said = cells.is_mapped("history");
    let has_history = cells.get("history").is_some_and(|value| match &*value {
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.trim().is_empty(),
        _ => true,
    });
    if has_history && !is_said && cells.get("prompt").is_some() {
        return Err(ProblemKind::History);
    }
    cells.asked("prompt")
}

fn must_ask(cells: &Cells) -> Result<Content, ProblemKind> {
    asked(cells)?.ok_or_else(|| ProblemKind::EmptyText { column: cells.name("prompt") })
}

/// A prompt and the reply to it.
fn one_response(cells: &Cells, column: &str) -> Result<(Content, Content), ProblemKind> {
    let prompt = must_ask(cells)?;
    let other = |_| ProblemKind::OtherPrompt { column: cells.name(column) };
    let (prompt, mut replies) = conversation::replies(prompt, vec![response(cells, column)?]).map_err(other)?;
    Ok((prompt, replies.remove(0)))
}

/// A response. Its text may be empty: that can be scored, though nothing is learnt from it.
fn response(cells: &Cells, column: &str) -> Result<Content, ProblemKind> {
    match cells.get(column) {
        None => Err(ProblemKind::EmptyText { column: cells.name(column) }),
        Some(value) => Ok(cells.reply(cells.content_of(&value, || cells.name(column))?)),
    }
}

/// Blank prompts below one that is not are what merged cells of a spreadsheet become: theirs is the prompt above.
fn filled_down(cells: &Cells, (prompt, response): (Content, Content)) -> (Content, Content) {
    if !cells.view.is_cell {
        return (prompt, response);
    }
    let mut last = cells.memory.last_prompt.borrow_mut();
    match &*last {
        Some(above) if prompt.is_blank() && !response.is_blank() => {
            cells.memory.note("blank prompts are read as the prompt above them (merged cells)");
            (above.clone(), response)
        }
        _ => {
            *last = Some(prompt.clone()).filter(|prompt| !prompt.is_blank());
            (prompt, response)
        }
    }
}

fn ranked(cells: &Cells, column: &str) -> Result<Outcome, ProblemKind> {
    let (prompt, response) = filled_down(cells, one_response(cells, column)?);
    let rank = cells.number("rank")?;
    Ok(Record::Ranked { prompt, response, place: RankOrRating::Rank(rank), attributes: attributes_of_row(cells)? }
        .into())
}

fn rated(cells: &Cells, column: &str) -> Result<Outcome, ProblemKind> {
    let (prompt, response) = filled_down(cells, one_response(cells, column)?);
    let rating = cells.number("rating")?;
    Ok(Record::Ranked { prompt, response, place: RankOrRating::Rating(rating), attributes: attributes_of_row(cells)? }
        .into())
}

fn unlabelled(cells: &Cells, column: &str) -> Result<Outcome, ProblemKind> {
    let (prompt, response) = one_response(cells, column)?;
    Ok(Record::Unlabelled { prompt, response, attributes: attributes_of_row(cells)? }.into())
}

/// The two sides of `columns`, and the prompt of the row.
pub(super) fn two_responses(
    cells: &Cells,
    prompt: Option<Content>,
    columns: [&str; 2],
) -> Result<(Option<Content>, [Content; 2]), ProblemKind> {
    let sides = [response(cells, columns[0])?, response(cells, columns[1])?];
    sides_of(cells, prompt, sides, columns)
}

/// The same of sides that are at hand; `columns` are their names in messages.
pub(super) fn sides_of(
    cells: &Cells,
    prompt: Option<Content>,
    sides: [Content; 2],
    columns: [&str; 2],
) -> Result<(Option<Content>, [Content; 2]), ProblemKind> {
    let before = cells.memory.repeats_prompt.get();
    let found =
        conversation::two_sides(prompt, sides, &cells.memory.repeats_prompt).map_err(|mismatch| match mismatch {
            Mismatch::OtherPrompt(side) => ProblemKind::OtherPrompt { column: cells.name(columns[side]) },
            Mismatch::NoSharedStart => no_prompt(cells, columns),
        });
    if before.is_none() && cells.memory.repeats_prompt.get() == Some(true) {
        cells.memory.note("responses that repeat their prompt are read without it");
    }
    found
}

/// Columns that hold prompts in other people's files, the likeliest first.
pub(super) const PROMPTS: [&str; 14] = [
    "prompt",
    "question",
    "instruction",
    "input",
    "query",
    "context",
    "history",
    "post",
    "messages",
    "conversations",
    "problem",
    "task",
    "text",
    "title",
];

/// No prompt, and sides that begin differently: names the column that is likely meant.
fn no_prompt(cells: &Cells, columns: [&str; 2]) -> ProblemKind {
    let other = |name: &&String| !columns.contains(&name.as_str());
    let texts = || {
        cells
            .fields
            .iter()
            .filter(|(name, v)| other(name) && (v.is_array() || v.as_str().is_some_and(|t| !t.trim().is_empty())))
    };
    let known = PROMPTS.iter().find_map(|known| texts().find(|(name, _)| name.eq_ignore_ascii_case(known)));
    let longest = || texts().max_by_key(|(_, value)| value.as_str().map_or(0, str::len));
    ProblemKind::NoPrompt { likely: known.or_else(longest).map(|(name, _)| name.clone()) }
}

/// A preference: texts, conversations, or a list of right texts and one of wrong texts.
pub(super) fn pair(cells: &Cells, columns: [&str; 2]) -> Result<Record, ProblemKind> {
    if let Some(lists) = text_lists(cells, columns) {
        if cells.get("domain").is_some() {
            cells.memory.note("RM-Bench's own score: kudos eval --suite rm-bench");
        }
        let prompt = must_ask(cells)?;
        return every_over_every(cells, prompt, lists, columns);
    }
    let prompt = asked(cells)?;
    let (prompt, [chosen, rejected]) = two_responses(cells, prompt, columns)?;
    Ok(Record::Pair { prompt, chosen, rejected, margin: cells.single("margin", 0.0)?, weight: weight(cells)? })
}

pub(super) fn weight(cells: &Cells) -> Result<f32, ProblemKind> {
    let weight = cells.single("weight", 1.0)?;
    if weight < 0.0 { Err(out_of_range("weight", "a number of at least 0", f64::from(weight))) } else { Ok(weight) }
}

/// Both sides, where each is a list of texts.
fn text_lists(cells: &Cells, columns: [&str; 2]) -> Option<[Vec<Value>; 2]> {
    let is_texts =
        |value: &Value| value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(Value::is_string));
    let list = |column: &str| match cells.get(column).filter(|value| is_texts(value))?.into_owned() {
        Value::Array(list) => Some(list),
        _ => None,
    };
    Some([list(columns[0])?, list(columns[1])?])
}

/// Every response of the first list over every one of the second.
pub(super) fn every_over_every(
    cells: &Cells,
    prompt: Content,
    lists: [Vec<Value>; 2],
    columns: [&str; 2],
) -> Result<Record, ProblemKind> {
    let better = lists[0].len();
    let place = |side: usize, at: usize| format!("{}[{}]", cells.name(columns[side]), at + 1);
    let mut responses = Vec::new();
    for (side, list) in lists.iter().enumerate() {
        for (at, value) in list.iter().enumerate() {
            responses.push(Candidate::of(cells.reply(cells.content_of(value, || place(side, at))?)));
        }
    }
    let worse = better..responses.len();
    let over = |first: usize| worse.clone().map(move |second| Comparison { first, second, ..Comparison::BETTER });
    let comparisons = (0..better).flat_map(over).collect();
    Ok(Record::Group { prompt, responses, comparisons })
}

fn comparison(cells: &Cells) -> Result<Record, ProblemKind> {
    let prompt = asked(cells)?;
    let (prompt, [a, b]) = two_responses(cells, prompt, ["response_a", "response_b"])?;
    let target = label(cells, &cells.value("label"))?;
    Ok(Record::Comparison { prompt, a, b, target, margin: cells.single("margin", 0.0)?, weight: weight(cells)? })
}

/// A verdict: by the user's meaning of labels where there is one, else a word, or the share of votes for a.
pub(super) fn label(cells: &Cells, value: &Value) -> Result<f32, ProblemKind> {
    let unknown = || ProblemKind::UnknownLabel { found: crate::data::content::describe(value) };
    if !cells.view.labels.is_empty() {
        let known = || cells.view.labels.iter().map(|(label, _)| label.clone()).collect();
        let uncovered = || ProblemKind::UncoveredLabel { found: crate::data::content::describe(value), known: known() };
        return verdict::by_labels(value, &cells.view.labels).ok_or_else(uncovered);
    }
    let share = match value.as_str().map(str::trim) {
        Some(text) => verdict::word(text).map(f64::from).or_else(|| text.parse().ok()).ok_or_else(unknown)?,
        None => value.as_f64().ok_or_else(unknown)?,
    };
    if (0.0..=1.0).contains(&share) { Ok(share as f32) } else { Err(unknown()) }
}

pub(super) fn group(cells: &Cells) -> Result<Record, ProblemKind> {
    let prompt = must_ask(cells)?;
    let list = cells.list("responses")?;
    if list.is_empty() {
        return Err(ProblemKind::TooFew { found: 0 });
    }
    let candidates = list.iter().enumerate().map(|(at, value)| candidate(cells, "responses", at + 1, value));
    let mut candidates: Vec<Candidate> = candidates.collect::<Result<_, _>>()?;
    let contents = candidates.iter().map(|candidate| candidate.content.clone()).collect();
    let other = |at| ProblemKind::OtherPrompt { column: format!("{}[{}].text", cells.name("responses"), at + 1) };
    let (prompt, replies) = conversation::replies(prompt, contents).map_err(other)?;
    candidates.iter_mut().zip(replies).for_each(|(candidate, reply)| candidate.content = reply);
    let comparisons = match cells.get("comparisons").as_deref() {
        Some(Value::Array(list)) => comparisons_of_group(list, candidates.len())?,
        _ => Vec::new(),
    };
    Ok(Record::Group { prompt, responses: candidates, comparisons })
}

/// What a group row says of its order beside ranks: `{first, second, target, margin, weight}`, places counted from 0.
fn comparisons_of_group(list: &[Value], responses: usize) -> Result<Vec<Comparison>, ProblemKind> {
    let one = |(at, value): (usize, &Value)| {
        let column = |key: &str| format!("comparisons[{}].{key}", at + 1);
        let number = |key: &str| cells::number(value.get(key), || column(key));
        let place = |key: &str| {
            let place = number(key)?.filter(|place| place.fract() == 0.0 && (0.0..responses as f64).contains(place));
            place.map(|place| place as usize).ok_or_else(|| {
                wrong_type(column(key), "the place of a response", value.get(key).unwrap_or(&Value::Null))
            })
        };
        let single = |key: &str, default: f64| number(key).map(|number| number.unwrap_or(default) as f32);
        let (first, second) = (place("first")?, place("second")?);
        let (target, margin, weight) = (single("target", 1.0)?, single("margin", 0.0)?, single("weight", 1.0)?);
        if !(0.0..=1.0).contains(&target) || weight < 0.0 || first == second {
            return Err(wrong_type(format!("comparisons[{}]", at + 1), "a comparison of two responses", value));
        }
        Ok(Comparison { first, second, target, margin, weight })
    };
    list.iter().enumerate().map(one).collect()
}

/// The names that the text of a response has in a list of objects, and those of its rating.
const TEXTS: [&str; 7] = ["text", "response", "answer", "completion", "content", "body", "output"];
const RATINGS: [&str; 4] = ["score", "rating", "overall_score", "pm_score"];

/// One element of a list of responses, number `at` from 1: an object, or the text (or messages) alone.
pub(super) fn candidate(cells: &Cells, column: &str, at: usize, value: &Value) -> Result<Candidate, ProblemKind> {
    let column = cells.name(column);
    let place = |key: &str| format!("{column}[{at}]{key}");
    let fields = match value {
        Value::Object(fields) if !fields.contains_key("role") && !fields.contains_key("from") => fields,
        other => return Ok(Candidate::of(cells.reply(cells.content_of(other, || place(""))?))),
    };
    let named = |names: &[&'static str]| names.iter().copied().find(|name| fields.contains_key(*name));
    let text = named(&TEXTS).unwrap_or("text");
    let rating = named(&RATINGS).unwrap_or("score");
    let number = |key: &str| cells::number(fields.get(key), || place(&format!(".{key}")));
    Ok(Candidate {
        content: cells
            .reply(cells.content_of(fields.get(text).unwrap_or(&Value::Null), || place(&format!(".{text}")))?),
        rank: number("rank")?,
        score: number(rating)?,
        attributes: match fields.get(ATTRIBUTES) {
            None | Some(Value::Null) => Attributes::new(),
            Some(Value::Object(ratings)) => attributes(ratings, |name| place(&format!(".{ATTRIBUTES}.{name}")))?,
            Some(other) => return Err(wrong_type(place(".attributes"), "an object of numbers by name", other)),
        },
    })
}

/// The key, or column, of all ratings of a response.
pub(super) const ATTRIBUTES: &str = "attributes";
/// What the columns of single ratings start with; the attribute's name follows.
pub(crate) const RATING: &str = "attribute:";

/// The numbers among ratings by name; what is null, or empty in a CSV cell, is missing.
pub(super) fn attributes(
    ratings: &Map<String, Value>,
    column: impl Fn(&str) -> String,
) -> Result<Attributes, ProblemKind> {
    let mut attributes = Attributes::new();
    for (name, value) in ratings {
        if let Some(rating) = cells::number(Some(value), || column(name))? {
            attributes.insert(name.clone(), rating);
        }
    }
    Ok(attributes)
}

/// The ratings of a row with one response: its columns `attribute:NAME`, those that are mapped to such names, and `attributes`
/// where that is an object.
fn attributes_of_row(cells: &Cells) -> Result<Attributes, ProblemKind> {
    let mut all = match cells.get(ATTRIBUTES).as_deref() {
        Some(Value::Object(ratings)) => attributes(ratings, |name| format!("{ATTRIBUTES}.{name}"))?,
        _ => Attributes::new(),
    };
    let mapped = cells.view.aliases.iter().map(|(name, _)| name);
    for column in cells.fields.keys().chain(mapped) {
        let Some(name) = column.strip_prefix(RATING) else { continue };
        let Some(rating) = cells.number(column)? else { continue };
        if all.insert(name.to_owned(), rating).is_some_and(|other| other != rating) {
            let found = cells.value(column);
            return Err(wrong_type(column.clone(), "the rating that `attributes` has too", &found));
        }
    }
    Ok(all)
}

/// Both sides of a comparison as messages that a whole conversation was cut into.
pub(super) fn turns(value: &Value, column: &str) -> Result<Content, ProblemKind> {
    match value {
        Value::Array(list) => messages(list, &|| column.to_owned()).map(Content::Messages),
        other => Err(wrong_type(column.to_owned(), "a list of messages", other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::cells::{Memory, View};
    use crate::data::layouts::Plan;
    use crate::data::mapping::Mapping;
    use serde_json::json;

    /// The only record of a row.
    fn read(row: &Value) -> Result<Record, ProblemKind> {
        let fields = row.as_object().unwrap();
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        let plan = Plan::of(&names, &Mapping::default(), false)?;
        let memory = Memory::default();
        match plan.read(&Cells { fields, view: &plan.view, memory: &memory })? {
            Outcome::Parts(mut parts) if parts.len() == 1 => Ok(parts.remove(0).record),
            _ => panic!("{row}"),
        }
    }

    #[test]
    fn labels() {
        let cases = [
            (json!("a"), Some(1.0)),
            (json!(" B "), Some(0.0)),
            (json!("Tie"), Some(0.5)),
            (json!(0.25), Some(0.25)),
            (json!("1"), Some(1.0)),
            (json!("model_a"), Some(1.0)),
            (json!(1.01), None),
            (json!(-1), None),
            (json!("nan"), None),
            (json!("c"), None),
            (json!(true), None),
            (json!(null), None),
        ];
        let (fields, view, memory) = (Map::new(), View::default(), Memory::default());
        for (value, expected) in cases {
            let cells = Cells { fields: &fields, view: &view, memory: &memory };
            assert_eq!(label(&cells, &value).ok(), expected, "{value}");
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
            let found = read(&row).map(|record| match record {
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
            (json!({"prompt": [], "chosen": "x y a", "rejected": "x y b"}), Ok(false)),
            (json!({"prompt": null, "chosen": "x y a", "rejected": "x y b"}), Ok(false)),
            (json!({"prompt": null, "chosen": "a", "rejected": "b"}), Err("no_prompt")),
            (json!({"prompt": "p", "chosen": "a", "rejected": "b"}), Ok(true)),
            (json!({"prompt": " ", "answer": "a", "rank": 1}), Ok(true)),
            (json!({"prompt": null, "answer": "a", "rank": 1}), Err("empty")),
            (json!({"prompt": null, "responses": ["a"]}), Err("empty")),
            (json!({"prompt": "p", "responses": []}), Err("too_few_responses")),
            (json!({"prompt": "p", "responses": "a"}), Err("wrong_type")),
            (json!({"chosen": "x y a", "rejected": "x y b", "weight": -1}), Err("out_of_range")),
            (json!({"chosen": "x y a", "rejected": "x y b", "margin": 1e300}), Err("out_of_range")),
        ];
        for (row, expected) in cases {
            let prompted = |record| match record {
                Record::Pair { prompt, .. } => prompt.is_some(),
                _ => true,
            };
            assert_eq!(read(&row).map(prompted).map_err(|p| p.name()), expected, "{row}");
        }
    }
}
