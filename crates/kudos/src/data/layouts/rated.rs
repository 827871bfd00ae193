//! Data sets of ratings and rankings: a row a response, or a row with all responses to a prompt.

use super::own::candidate;
use super::preferences::{instruction, summarised, with_ranker};
use super::{Layout, Outcome, PLAIN, Read};
use crate::data::cells::{self, Cells};
use crate::data::content::wrong_type;
use crate::data::error::ProblemKind;
use crate::data::group::Attributes;
use crate::data::record::{Candidate, Content, RankOrRating, Record};
use serde_json::Value;

const HELPSTEER: [&str; 5] = ["helpfulness", "correctness", "coherence", "complexity", "verbosity"];
const ULTRAFEEDBACK: [&str; 4] = ["helpfulness", "honesty", "instruction_following", "truthfulness"];
const AXES: [&str; 4] = ["overall", "accuracy", "coverage", "coherence"];

/// The mean rating, in files without an overall score.
const FINE: &str = "fine-grained_score";

pub(super) static TABLE: [Layout; 11] = [
    Layout {
        name: "HelpSteer",
        columns: &["prompt", "response", "helpfulness", "correctness", "coherence", "complexity", "verbosity"],
        verdicts: &HELPSTEER,
        said: "helpfulness, higher = better (another: --rating correctness); all five are attributes",
        read: Read::Published(helpsteer),
        ..PLAIN
    },
    Layout {
        name: "UltraFeedback",
        columns: &["instruction", "completions"],
        unless: &["labels"],
        verdicts: &[
            "overall_score",
            "fine-grained_score",
            "helpfulness",
            "honesty",
            "instruction_following",
            "truthfulness",
        ],
        said: "overall_score, higher = better (another: --rating helpfulness); the four aspects are attributes",
        read: Read::Published(ultrafeedback),
        ..PLAIN
    },
    Layout {
        name: "Nectar",
        columns: &["prompt", "answers"],
        said: "the rank of each answer, 1 = best",
        read: Read::Published(|cells| listed(cells, cells.asked("prompt")?, "answers")),
        ..PLAIN
    },
    Layout {
        name: "stack-exchange-preferences",
        columns: &["question", "answers"],
        said: "pm_score, higher = better",
        read: Read::Published(|cells| listed(cells, cells.asked("question")?, "answers")),
        ..PLAIN
    },
    Layout {
        name: "summarize_from_feedback axis",
        columns: &["info", "summary"],
        verdicts: &AXES,
        said: "summary.axes.overall, higher = better; each worker's ratings stand for themselves",
        read: Read::Published(axis),
        ..PLAIN
    },
    parallel("distilabel ratings", &["instruction", "generations", "ratings"]),
    parallel("distilabel ratings", &["prompt", "generations", "ratings"]),
    parallel("responses with ratings", &["prompt", "responses", "ratings"]),
    parallel("responses with scores", &["prompt", "responses", "scores"]),
    parallel("responses with ranks", &["prompt", "responses", "ranks"]),
    parallel("completions with ratings", &["prompt", "completions", "ratings"]),
];

/// A list of texts and a list of their ratings (or ranks).
const fn parallel(name: &'static str, columns: &'static [&'static str]) -> Layout {
    Layout {
        name,
        columns,
        unless: &["chosen", "labels"],
        also: &["input", "system"],
        verdicts: &[],
        said: "ratings and scores: higher = better; ranks: 1 = best",
        read: Read::Published(parallel_lists),
    }
}

/// The ratings of some columns.
fn ratings_of(cells: &Cells, columns: &[&str], path: impl Fn(&str) -> String) -> Result<Attributes, ProblemKind> {
    let mut ratings = Attributes::new();
    for column in columns {
        if let Some(rating) = cells.number(&path(column))? {
            ratings.insert((*column).to_owned(), rating);
        }
    }
    Ok(ratings)
}

fn helpsteer(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let prompt = cells.asked("prompt")?.ok_or_else(|| ProblemKind::EmptyText { column: cells.name("prompt") })?;
    let response = cells.reply(cells.content("response")?);
    let attributes = ratings_of(cells, &HELPSTEER, str::to_owned)?;
    let rating = cells.number(cells.verdict("helpfulness"))?;
    Ok(Record::Ranked { prompt, response, place: RankOrRating::Rating(rating), attributes }.into())
}

fn axis(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let prompt = summarised(cells)?;
    let response = cells.content("summary.text")?;
    let attributes = ratings_of(cells, &AXES, |axis| format!("summary.axes.{axis}"))?;
    let rating = attributes.get(cells.verdict("overall")).copied();
    let record = Record::Ranked { prompt, response, place: RankOrRating::Rating(rating), attributes };
    with_ranker(record.into(), cells.some_text("worker")?)
}

fn ultrafeedback(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let prompt = instruction(cells)?.ok_or_else(|| ProblemKind::EmptyText { column: "instruction".to_owned() })?;
    let list = cells.list("completions")?;
    let has = |key: &str| list.iter().any(|completion| completion.get(key).is_some_and(|score| !score.is_null()));
    let usual = if has("overall_score") || !has(FINE) { "overall_score" } else { FINE };
    let verdict = cells.verdict(usual);
    if verdict == FINE && cells.view.verdict.is_none() {
        cells.memory.note("there is no overall_score: ranked by fine-grained_score");
    }
    let responses = list.iter().enumerate().map(|(at, value)| completion(cells, at + 1, value, verdict));
    Ok(Record::Group { prompt, responses: responses.collect::<Result<_, _>>()?, comparisons: Vec::new() }.into())
}

fn completion(cells: &Cells, at: usize, value: &Value, verdict: &str) -> Result<Candidate, ProblemKind> {
    let place = |key: &str| format!("completions[{at}].{key}");
    let response = value.get("response").unwrap_or(&Value::Null);
    let content = cells.content_of(response, || place("response"))?;
    let mut attributes = Attributes::new();
    for aspect in ULTRAFEEDBACK {
        let rating = value.pointer(&format!("/annotations/{aspect}/Rating"));
        // An aspect that the annotator left out is written as `N/A`.
        if let Some(rating) = rating.filter(|rating| rating.as_str() != Some("N/A")) {
            let number = cells::number(Some(rating), || place(&format!("annotations.{aspect}.Rating")))?;
            attributes.extend(number.map(|number| (aspect.to_owned(), number)));
        }
    }
    let score = match attributes.get(verdict) {
        Some(rating) => Some(*rating),
        None => cells::number(value.get(verdict), || place(verdict))?,
    };
    Ok(Candidate { score, attributes, ..Candidate::of(content) })
}

/// A list of answers, each with its rank or rating.
fn listed(cells: &Cells, prompt: Option<Content>, column: &str) -> Result<Outcome, ProblemKind> {
    let prompt = prompt.ok_or_else(|| ProblemKind::EmptyText { column: "prompt".to_owned() })?;
    let list = cells.list(column)?;
    let responses = list.iter().enumerate().map(|(at, value)| candidate(cells, column, at + 1, value));
    let responses = responses.collect::<Result<Vec<Candidate>, _>>()?;
    if responses.is_empty() {
        return Err(ProblemKind::TooFew { found: 0 });
    }
    Ok(Record::Group { prompt, responses, comparisons: Vec::new() }.into())
}

fn parallel_lists(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let first =
        |names: &[&'static str]| names.iter().copied().find(|name| cells.get(name).is_some()).unwrap_or(names[0]);
    let prompt = match cells.get("prompt") {
        Some(_) => cells.asked("prompt")?,
        None => instruction(cells)?,
    };
    let prompt = prompt.ok_or_else(|| ProblemKind::EmptyText { column: "prompt".to_owned() })?;
    let texts_name = first(&["responses", "generations", "completions"]);
    let numbers_name = first(&["ratings", "scores", "ranks"]);
    let (texts, numbers) = (cells.list(texts_name)?, cells.list(numbers_name)?);
    if texts.len() != numbers.len() {
        let found = Value::from(format!("{} of {} responses", numbers.len(), texts.len()));
        return Err(wrong_type(numbers_name.to_owned(), "one for each response", &found));
    }
    let mut responses = Vec::new();
    for (at, (text, number)) in texts.iter().zip(&numbers).enumerate() {
        let place = |name: &str| format!("{name}[{}]", at + 1);
        let content = cells.reply(cells.content_of(text, || place(texts_name))?);
        let number = cells::number(Some(number), || place(numbers_name))?;
        let candidate = Candidate::of(content);
        responses.push(match numbers_name {
            "ranks" => Candidate { rank: number, ..candidate },
            _ => Candidate { score: number, ..candidate },
        });
    }
    Ok(Record::Group { prompt, responses, comparisons: Vec::new() }.into())
}
