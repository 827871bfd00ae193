//! Data sets of verdicts between two responses. What is meant by each verdict is in the entry's words.

use super::own::{self, sides_of, two_responses};
use super::{Layout, Outcome, PLAIN, Part, Read};
use crate::data::cells::Cells;
use crate::data::content::wrong_type;
use crate::data::error::ProblemKind;
use crate::data::literal;
use crate::data::record::{ASSISTANT, Content, Message, Record, USER};
use crate::data::verdict;
use serde_json::Value;

/// Pairs that give each side its rating: some rows of such a file may lack them.
pub(super) const RATED_PAIRS: &str = "pairs with ratings of both sides";

pub(super) static TABLE: [Layout; 25] = [
    Layout {
        name: "PKU-SafeRLHF",
        columns: &["prompt", "response_0", "response_1", "better_response_id"],
        verdicts: &["better_response_id", "safer_response_id"],
        said: "better_response_id, 0 = response_0 (the safer one: --columns label=safer_response_id)",
        read: Read::Published(|cells| {
            let index = cells.whole(cells.verdict("better_response_id"))?;
            let target = one_of(index, [(0, 1.0), (1, 0.0)], "better_response_id", "0 or 1")?;
            compared(cells, cells.asked("prompt")?, ["response_0", "response_1"], target)
        }),
        ..PLAIN
    },
    Layout {
        name: "SHP",
        columns: &["history", "human_ref_A", "human_ref_B", "labels"],
        said: "labels, 1 = human_ref_A",
        read: Read::Published(|cells| {
            let target = one_of(cells.whole("labels")?, [(1, 1.0), (0, 0.0)], "labels", "0 or 1")?;
            compared(cells, cells.optional("history")?, ["human_ref_A", "human_ref_B"], target)
        }),
        ..PLAIN
    },
    Layout {
        name: "WebGPT comparisons",
        columns: &["question", "answer_0", "answer_1", "score_0"],
        also: &["score_1"],
        said: "score_0 from -1 to 1, above 0 = answer_0 is better",
        read: Read::Published(webgpt),
        ..PLAIN
    },
    Layout {
        name: "summarize_from_feedback comparisons",
        columns: &["info", "summaries", "choice"],
        said: "choice, 0 = the first summary",
        read: Read::Published(summaries),
        ..PLAIN
    },
    Layout {
        name: "HelpSteer2-preference",
        columns: &["prompt", "response_1", "response_2", "preference_strength"],
        said: "preference_strength, below 0 = response_1; its size is the margin",
        read: Read::Published(|cells| {
            strength(cells, cells.asked("prompt")?, ["response_1", "response_2"], "preference_strength")
        }),
        ..PLAIN
    },
    Layout {
        name: "HelpSteer3-preference",
        columns: &["context", "response1", "response2", "overall_preference"],
        said: "overall_preference, below 0 = response1; its size is the margin",
        read: Read::Published(|cells| {
            strength(cells, cells.asked("context")?, ["response1", "response2"], "overall_preference")
        }),
        ..PLAIN
    },
    Layout {
        name: "LMSYS arena 55k",
        columns: &["prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"],
        said: "winner_model_a, winner_model_b, winner_tie",
        read: Read::Published(one_hot),
        ..PLAIN
    },
    Layout {
        name: "LMSYS arena 55k without verdicts",
        columns: &["id", "prompt", "response_a", "response_b"],
        unless: &["label", "winner_model_a", "winner", "preference", "preferred", "choice", "chosen", "verdict"],
        verdicts: super::NO_VERDICT,
        said: "responses to score",
        read: Read::Published(arena_unlabelled),
        ..PLAIN
    },
    Layout {
        name: "arena conversations",
        columns: &["conversation_a", "conversation_b", "winner"],
        said: "winner, model_a = conversation_a",
        read: Read::Published(|cells| arena(cells, None, None)),
        ..PLAIN
    },
    Layout {
        name: "MT-Bench human judgments",
        columns: &["conversation_a", "conversation_b", "winner", "judge", "turn"],
        said: "winner, model_a = conversation_a, up to the turn that was judged",
        read: Read::Published(|cells| {
            let judge = cells.value("judge");
            let judge = judge.as_str().map_or_else(|| judge.to_string(), str::to_owned);
            let author = cells.some_text("author")?;
            arena(cells, Some(author.unwrap_or(judge)), Some(cells.whole("turn")?))
        }),
        ..PLAIN
    },
    Layout {
        name: "AlpacaFarm",
        columns: &["instruction", "output_1", "output_2", "preference"],
        also: &["input"],
        said: "preference, 1 = output_1, 2 = output_2",
        read: Read::Published(alpaca_farm),
        ..PLAIN
    },
    Layout {
        name: "LLMBar",
        columns: &["input", "output_1", "output_2", "label"],
        said: "label, 1 = output_1, 2 = output_2 (its own score: kudos eval --suite llmbar)",
        read: Read::Published(|cells| {
            let target = one_of(cells.whole("label")?, [(1, 1.0), (2, 0.0)], "label", "1 or 2")?;
            compared(cells, cells.asked("input")?, ["output_1", "output_2"], target)
        }),
        ..PLAIN
    },
    Layout {
        name: "JudgeBench",
        columns: &["question", "response_A", "response_B", "label"],
        said: "label, A>B = response_A (its own score: kudos eval --suite judgebench)",
        read: Read::Published(|cells| {
            let target = verdict::words(&cells.value("label"))?;
            compared(cells, cells.asked("question")?, ["response_A", "response_B"], target)
        }),
        ..PLAIN
    },
    Layout {
        name: "PandaLM",
        columns: &["instruction", "input", "response1", "response2", "annotator1"],
        also: &["annotator2", "annotator3"],
        said: "the share of the annotators' votes, 1 = response1, 2 = response2, 0 = tie (its own score: kudos eval --suite pandalm)",
        read: Read::Published(pandalm),
        ..PLAIN
    },
    Layout {
        name: "Unified-Feedback",
        columns: &["conv_A", "conv_B", "conv_A_rating", "conv_B_rating"],
        said: "the higher of conv_A_rating and conv_B_rating",
        read: Read::Published(unified),
        ..PLAIN
    },
    Layout {
        name: "stack-exchange-paired",
        columns: &["question", "response_j", "response_k"],
        said: "response_j is better",
        read: Read::Published(|cells| preferred(cells, cells.asked("question")?, ["response_j", "response_k"])),
        ..PLAIN
    },
    Layout {
        name: "UltraInteract pairs",
        columns: &["trajectory", "chosen", "rejected"],
        unless: &["prompt"],
        said: "trajectory is the prompt",
        read: Read::Published(|cells| preferred(cells, cells.asked("trajectory")?, ["chosen", "rejected"])),
        ..PLAIN
    },
    Layout {
        name: "RewardBench",
        columns: &["prompt", "chosen", "rejected", "chosen_model", "rejected_model", "subset"],
        said: "chosen over rejected (its own score: kudos eval --suite rewardbench)",
        read: Read::Published(|cells| Ok(own::pair(cells, ["chosen", "rejected"])?.into())),
        ..PLAIN
    },
    Layout {
        name: "RewardBench 2",
        columns: &["prompt", "chosen", "rejected", "num_correct", "subset"],
        said: "every chosen over every rejected (its own score: kudos eval --suite rewardbench-2)",
        read: Read::Published(|cells| Ok(own::pair(cells, ["chosen", "rejected"])?.into())),
        ..PLAIN
    },
    Layout {
        name: RATED_PAIRS,
        columns: &["prompt", "chosen", "rejected", "chosen-rating", "rejected-rating"],
        said: "chosen over rejected, the difference of their ratings is the margin",
        read: Read::Published(rated_pair),
        ..PLAIN
    },
    Layout {
        name: "distilabel Orca pairs",
        columns: &["input", "chosen", "rejected", "status"],
        also: &["system"],
        unless: &["prompt"],
        said: "chosen over rejected, status `tie` = neither",
        read: Read::Published(distilabel_orca),
        ..PLAIN
    },
    worded(&["prompt", "response_a", "response_b", "winner"], "winner, the word for the better one"),
    worded(&["prompt", "response_a", "response_b", "preference"], "preference, the word for the better one"),
    worded(&["prompt", "response_a", "response_b", "preferred"], "preferred, the word for the better one"),
    worded(&["prompt", "response_a", "response_b", "chosen"], "chosen, the word for the better one"),
];

/// Comparisons whose verdict is a word (`a`, `response_b`, `left`, `tie`) in a column of another name than `label`.
const fn worded(columns: &'static [&'static str], said: &'static str) -> Layout {
    Layout {
        name: "comparisons",
        columns,
        unless: &["label", "rejected"],
        also: &["system"],
        said,
        read: Read::Published(|cells| {
            let column =
                ["winner", "preference", "preferred", "chosen"].into_iter().find(|name| cells.get(name).is_some());
            let value = cells.value(column.unwrap_or("winner"));
            let target = match cells.view.labels.is_empty() {
                true => verdict::words(&value)?,
                false => own::label(cells, &value)?,
            };
            compared(cells, cells.asked("prompt")?, ["response_a", "response_b"], target)
        }),
        ..PLAIN
    }
}

/// The share that a number stands for, of those there are.
pub(super) fn one_of(
    found: i64,
    known: [(i64, f32); 2],
    column: &str,
    expected: &'static str,
) -> Result<f32, ProblemKind> {
    let share = known.iter().find(|(number, _)| *number == found).map(|(_, share)| *share);
    share.ok_or_else(|| wrong_type(column.to_owned(), expected, &found.into()))
}

/// Two responses, the first better by `target`.
pub(super) fn compared(
    cells: &Cells,
    prompt: Option<Content>,
    columns: [&str; 2],
    target: f32,
) -> Result<Outcome, ProblemKind> {
    let prompt = prompt.ok_or_else(|| ProblemKind::EmptyText { column: "prompt".to_owned() })?;
    let (prompt, [a, b]) = two_responses(cells, Some(prompt), columns)?;
    Ok(Record::Comparison { prompt, a, b, target, margin: 0.0, weight: 1.0 }.into())
}

/// Two responses, the first of which is better.
pub(super) fn preferred(cells: &Cells, prompt: Option<Content>, columns: [&str; 2]) -> Result<Outcome, ProblemKind> {
    let prompt = prompt.ok_or_else(|| ProblemKind::EmptyText { column: "prompt".to_owned() })?;
    let (prompt, [chosen, rejected]) = two_responses(cells, Some(prompt), columns)?;
    let (margin, weight) = (cells.single("margin", 0.0)?, own::weight(cells)?);
    Ok(Record::Pair { prompt, chosen, rejected, margin, weight }.into())
}

fn webgpt(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let column = if cells.value("question").is_string() { "question" } else { "question.full_text" };
    let score = cells.number("score_0")?.filter(|score| (-1.0..=1.0).contains(score));
    let score = score.ok_or_else(|| wrong_type("score_0".into(), "a number from -1 to 1", &cells.value("score_0")))?;
    compared(cells, cells.asked(column)?, ["answer_0", "answer_1"], ((1.0 + score) / 2.0) as f32)
}

/// What the summaries are of: a post, or an article.
pub(super) fn summarised(cells: &Cells) -> Result<Content, ProblemKind> {
    let text = ["info.post", "info.article"].iter().find_map(|path| cells.some_text(path).transpose());
    let text = text.transpose()?.ok_or_else(|| ProblemKind::EmptyText { column: "info.post".to_owned() })?;
    Ok(Content::Text(text))
}

fn summaries(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let sides = ["summaries.0.text", "summaries.1.text"];
    let target = one_of(cells.whole("choice")?, [(0, 1.0), (1, 0.0)], "choice", "0 or 1")?;
    with_ranker(compared(cells, Some(summarised(cells)?), sides, target)?, cells.some_text("worker")?)
}

/// The parts of a row as one person's.
pub(super) fn with_ranker(outcome: Outcome, ranker: Option<String>) -> Result<Outcome, ProblemKind> {
    Ok(match outcome {
        Outcome::Parts(parts) => {
            Outcome::Parts(parts.into_iter().map(|part| Part { ranker: ranker.clone(), ..part }).collect())
        }
        nothing => nothing,
    })
}

/// From -3 (the first is much better) over 0 (a tie) to 3 (the second is).
fn strength(cells: &Cells, prompt: Option<Content>, columns: [&str; 2], verdict: &str) -> Result<Outcome, ProblemKind> {
    let Some(strength) = cells.number(verdict)? else {
        return Ok(Outcome::Nothing("no preference"));
    };
    if !(-3.0..=3.0).contains(&strength) {
        return Err(wrong_type(cells.name(verdict), "a number from -3 to 3", &cells.value(verdict)));
    }
    let target = if strength < 0.0 {
        1.0
    } else if strength > 0.0 {
        0.0
    } else {
        0.5
    };
    let prompt = prompt.ok_or_else(|| ProblemKind::EmptyText { column: cells.name("prompt") })?;
    let (prompt, [a, b]) = two_responses(cells, Some(prompt), columns)?;
    Ok(Record::Comparison { prompt, a, b, target, margin: strength.abs() as f32, weight: 1.0 }.into())
}

/// The turns of one speaker in a list that was written as text; a turn that is null is empty.
fn listed_turns(cells: &Cells, column: &str) -> Result<Vec<String>, ProblemKind> {
    let value = cells.value(column);
    let list = match &*value {
        Value::String(text) => match literal::parse(text) {
            Some(Value::Array(list)) => list,
            _ => return Ok(vec![text.clone()]),
        },
        Value::Array(list) => list.clone(),
        other => return Err(wrong_type(cells.name(column), "a list of turns", other)),
    };
    let turn = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Ok(String::new()),
        other => Err(wrong_type(cells.name(column), "a list of turns", other)),
    };
    list.iter().map(turn).collect()
}

/// Questions and the answers to them as a conversation.
fn interleaved(questions: &[String], answers: &[String]) -> Content {
    let turn = |role: &str, text: &String| Message { role: role.to_owned(), content: text.clone() };
    let turns = questions.iter().zip(answers).flat_map(|(q, a)| [turn(USER, q), turn(ASSISTANT, a)]);
    Content::Messages(turns.collect())
}

/// The two conversations of an arena's row, whose turns stand in three columns.
fn arena_sides(cells: &Cells) -> Result<(Option<Content>, [Content; 2]), ProblemKind> {
    let questions = listed_turns(cells, "prompt")?;
    let side = |column: &'static str| {
        let answers = listed_turns(cells, column)?;
        if answers.len() != questions.len() {
            let found = Value::from(format!("{} turns", answers.len()));
            return Err(wrong_type(cells.name(column), "as many turns as in `prompt`", &found));
        }
        Ok(interleaved(&questions, &answers))
    };
    sides_of(cells, None, [side("response_a")?, side("response_b")?], ["response_a", "response_b"])
}

fn one_hot(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let flags = ["winner_model_a", "winner_model_b", "winner_tie"].map(|column| cells.truth(column));
    let target = match flags {
        [Ok(true), Ok(false), Ok(false)] => 1.0,
        [Ok(false), Ok(true), Ok(false)] => 0.0,
        [Ok(false), Ok(false), Ok(true)] => 0.5,
        [Err(problem), ..] | [_, Err(problem), _] | [_, _, Err(problem)] => return Err(problem),
        _ => {
            let column = "winner_model_a, winner_model_b, winner_tie".to_owned();
            return Err(wrong_type(column, "one that is 1", &"several, or none".into()));
        }
    };
    let (prompt, [a, b]) = arena_sides(cells)?;
    Ok(Record::Comparison { prompt, a, b, target, margin: 0.0, weight: 1.0 }.into())
}

fn arena_unlabelled(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let (prompt, sides) = arena_sides(cells)?;
    let prompt = prompt.ok_or_else(|| ProblemKind::EmptyText { column: "prompt".to_owned() })?;
    let responses = sides.map(crate::data::record::Candidate::of).to_vec();
    Ok(Record::Group { prompt, responses, comparisons: Vec::new() }.into())
}

fn arena(cells: &Cells, ranker: Option<String>, turn: Option<i64>) -> Result<Outcome, ProblemKind> {
    const COLUMNS: [&str; 2] = ["conversation_a", "conversation_b"];
    let target = verdict::words(&cells.value("winner"))?;
    let side = |column: &str| {
        let mut list = cells.list(column)?;
        if let Some(turn) = turn {
            let judged = usize::try_from(turn).ok().filter(|turn| (1..=list.len() / 2).contains(turn));
            let judged = judged.ok_or_else(|| wrong_type("turn".into(), "a turn of the conversation", &turn.into()))?;
            list.truncate(2 * judged);
        }
        own::turns(&Value::Array(list), column)
    };
    let (prompt, [a, b]) = sides_of(cells, None, [side(COLUMNS[0])?, side(COLUMNS[1])?], COLUMNS)?;
    let record = Record::Comparison { prompt, a, b, target, margin: 0.0, weight: 1.0 };
    with_ranker(record.into(), ranker)
}

/// An instruction and what it is about, which may be empty.
pub(super) fn instruction(cells: &Cells) -> Result<Option<Content>, ProblemKind> {
    let Some(instruction) = cells.optional("instruction")? else { return Ok(None) };
    let prompt = match (instruction, cells.some_text("input")?) {
        (Content::Text(text), Some(input)) => Content::Text(format!("{text}\n{input}")),
        (prompt, _) => prompt,
    };
    cells.with_context(prompt).map(Some)
}

fn alpaca_farm(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let target = match cells.number("preference")? {
        None => return Ok(Outcome::Nothing("no preference")),
        Some(0.0) => 0.5,
        Some(found) if (1.0..=2.0).contains(&found) => (2.0 - found) as f32,
        Some(_) => return Err(wrong_type("preference".into(), "a number from 1 to 2", &cells.value("preference"))),
    };
    compared(cells, instruction(cells)?, ["output_1", "output_2"], target)
}

fn pandalm(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let mut votes = Vec::new();
    for column in ["annotator1", "annotator2", "annotator3"] {
        if cells.get(column).is_some() {
            votes.push(match cells.whole(column)? {
                0 => 0.5,
                found => one_of(found, [(1, 1.0), (2, 0.0)], column, "0, 1 or 2")?,
            });
        }
    }
    let share = votes.iter().sum::<f32>() / votes.len().max(1) as f32;
    compared(cells, instruction(cells)?, ["response1", "response2"], share)
}

fn unified(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let rating =
        |column: &str| cells.number(column)?.ok_or_else(|| ProblemKind::EmptyText { column: column.to_owned() });
    let difference = rating("conv_A_rating")? - rating("conv_B_rating")?;
    let target = if difference > 0.0 {
        1.0
    } else if difference < 0.0 {
        0.0
    } else {
        0.5
    };
    let sides = [cells.content("conv_A")?, cells.content("conv_B")?];
    let (prompt, [a, b]) = sides_of(cells, None, sides, ["conv_A", "conv_B"])?;
    Ok(Record::Comparison { prompt, a, b, target, margin: 0.0, weight: 1.0 }.into())
}

fn rated_pair(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let (chosen_rating, rejected_rating) = (cells.number("chosen-rating")?, cells.number("rejected-rating")?);
    let difference = chosen_rating.zip(rejected_rating).map_or(0.0, |(chosen, rejected)| chosen - rejected);
    if difference < 0.0 {
        return Err(wrong_type("chosen-rating".into(), "at least `rejected-rating`", &cells.value("chosen-rating")));
    }
    let (prompt, [chosen, rejected]) = two_responses(cells, cells.asked("prompt")?, ["chosen", "rejected"])?;
    Ok(Record::Pair { prompt, chosen, rejected, margin: difference as f32, weight: own::weight(cells)? }.into())
}

fn distilabel_orca(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let status = cells.some_text("status")?.unwrap_or_default();
    match status.as_str() {
        "tie" => compared(cells, cells.asked("input")?, ["chosen", "rejected"], 0.5),
        "unchanged" | "swapped" | "" => preferred(cells, cells.asked("input")?, ["chosen", "rejected"]),
        _ => Err(wrong_type("status".into(), "unchanged, swapped or tie", &status.into())),
    }
}
