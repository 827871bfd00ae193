//! The formats of trainers: TRL, OpenRLHF, LLaMA-Factory, Axolotl, ms-swift, NeMo, MedicalGPT, OpenAI's preference files.

use super::own::sides_of;
use super::preferences::{instruction, preferred};
use super::{Layout, Outcome, PLAIN, Read};
use crate::data::cells::Cells;
use crate::data::content::wrong_type;
use crate::data::error::ProblemKind;
use crate::data::group::Attributes;
use crate::data::record::{ASSISTANT, Candidate, Content, RankOrRating, Record};
use serde_json::Value;

pub(super) static TABLE: [Layout; 27] = [
    asked_by("pairs under `question` (Orca, Axolotl intel)", &["question", "chosen", "rejected"], |cells| {
        preferred(cells, cells.asked("question")?, ["chosen", "rejected"])
    }),
    asked_by("pairs under `input` (OpenRLHF, Axolotl icr)", &["input", "chosen", "rejected"], |cells| {
        preferred(cells, cells.asked("input")?, ["chosen", "rejected"])
    }),
    asked_by("pairs under `instruction`", &["instruction", "chosen", "rejected"], |cells| {
        preferred(cells, cells.asked("instruction")?, ["chosen", "rejected"])
    }),
    asked_by("pairs under `query`", &["query", "chosen", "rejected"], |cells| {
        preferred(cells, cells.asked("query")?, ["chosen", "rejected"])
    }),
    asked_by("LLaMA-Factory alpaca ranking", &["instruction", "input", "chosen", "rejected"], |cells| {
        preferred(cells, instruction(cells)?, ["chosen", "rejected"])
    }),
    asked_by("LLaMA-Factory sharegpt ranking", &["conversations", "chosen", "rejected"], |cells| {
        preferred(cells, Some(before_reply(cells, "conversations")?), ["chosen", "rejected"])
    }),
    asked_by("Axolotl chat_template", &["messages", "chosen", "rejected"], |cells| {
        preferred(cells, Some(before_reply(cells, "messages")?), ["chosen", "rejected"])
    }),
    Layout {
        name: "LLaMA-Factory ranking",
        columns: &["instruction", "output"],
        also: &["input", "system", "history"],
        unless: &["output_1", "chosen", "generator"],
        said: "output: the first is better than the second",
        read: Read::Published(output_list),
        ..PLAIN
    },
    asked_by("Axolotl argilla", &["instruction", "chosen_response", "rejected_response"], |cells| {
        preferred(cells, cells.asked("instruction")?, ["chosen_response", "rejected_response"])
    }),
    Layout {
        name: "NeMo-RL pairs",
        columns: &["prompt", "chosen_response", "rejected_response"],
        also: &["system"],
        read: Read::Published(|cells| {
            preferred(cells, cells.asked("prompt")?, ["chosen_response", "rejected_response"])
        }),
        ..PLAIN
    },
    Layout {
        name: "NeMo-RL preferences",
        columns: &["context", "completions"],
        said: "rank, 0 = best",
        read: Read::Published(nemo),
        ..PLAIN
    },
    asked_by("MedicalGPT", &["question", "response_chosen", "response_rejected"], |cells| {
        preferred(cells, cells.asked("question")?, ["response_chosen", "response_rejected"])
    }),
    asked_by("ms-swift", &["query", "response", "rejected_response"], |cells| {
        preferred(cells, cells.asked("query")?, ["response", "rejected_response"])
    }),
    asked_by("ms-swift", &["messages", "rejected_response"], swift_messages),
    asked_by("ms-swift", &["messages", "rejected_messages"], |cells| whole(cells, ["messages", "rejected_messages"])),
    Layout {
        name: "OpenAI preference",
        columns: &["input", "preferred_output", "non_preferred_output"],
        said: "preferred_output over non_preferred_output",
        read: Read::Published(|cells| {
            let column = if cells.value("input").is_object() { "input.messages" } else { "input" };
            preferred(cells, cells.asked(column)?, ["preferred_output", "non_preferred_output"])
        }),
        ..PLAIN
    },
    Layout {
        name: "preferred, dispreferred",
        columns: &["prompt", "preferred", "dispreferred"],
        also: &["system"],
        read: Read::Published(|cells| preferred(cells, cells.asked("prompt")?, ["preferred", "dispreferred"])),
        ..PLAIN
    },
    unpaired("TRL unpaired preferences", &["prompt", "completion", "label"], "label, true over false", |cells| {
        flagged(cells, cells.content("prompt")?, "completion", "label")
    }),
    unpaired("Axolotl KTO", &["instruction", "completion", "label"], "label, true over false", |cells| {
        flagged(cells, cells.content("instruction")?, "completion", "label")
    }),
    unpaired("Axolotl KTO", &["question", "completion", "label"], "label, true over false", |cells| {
        flagged(cells, cells.content("question")?, "completion", "label")
    }),
    unpaired("Axolotl KTO", &["completion", "label"], "label, true over false", |cells| {
        last_turn(cells, "completion", "label")
    }),
    unpaired("LLaMA-Factory KTO", &["messages", "label"], "label, true over false", |cells| {
        last_turn(cells, "messages", "label")
    }),
    asked_by("LLaMA-Factory 1 pairs", &["chosen_messages", "rejected_messages"], |cells| {
        whole(cells, ["chosen_messages", "rejected_messages"])
    }),
    unpaired("responses with a flag", &["prompt", "response", "chosen"], "chosen, true over false", |cells| {
        flagged(cells, cells.content("prompt")?, "response", "chosen")
    }),
    unpaired("LLaMA-Factory KTO", &["messages", "kto_tag"], "kto_tag, true over false", |cells| {
        last_turn(cells, "messages", "kto_tag")
    }),
    unpaired("LLaMA-Factory KTO", &["conversations", "kto_tag"], "kto_tag, true over false", |cells| {
        last_turn(cells, "conversations", "kto_tag")
    }),
    unpaired("LLaMA-Factory KTO", &["instruction", "output", "kto_tag"], "kto_tag, true over false", |cells| {
        let prompt = instruction(cells)?.ok_or_else(|| ProblemKind::EmptyText { column: "instruction".to_owned() })?;
        flagged(cells, prompt, "output", "kto_tag")
    }),
];

/// Pairs whose prompt has another name.
const fn asked_by(name: &'static str, columns: &'static [&'static str], read: super::ReadRow) -> Layout {
    let also = &["system", "history", "margin", "weight"];
    Layout { name, columns, unless: &["prompt"], also, verdicts: &[], said: "", read: Read::Published(read) }
}

/// One response a row, good or bad.
const fn unpaired(
    name: &'static str,
    columns: &'static [&'static str],
    said: &'static str,
    read: super::ReadRow,
) -> Layout {
    Layout {
        name,
        columns,
        unless: &["rejected"],
        also: &["system", "input"],
        verdicts: &[],
        said,
        read: Read::Published(read),
    }
}

/// Two whole conversations.
fn whole(cells: &Cells, columns: [&str; 2]) -> Result<Outcome, ProblemKind> {
    let sides = [cells.content(columns[0])?, cells.content(columns[1])?];
    let (prompt, [chosen, rejected]) = sides_of(cells, None, sides, columns)?;
    let prompt = prompt.map(|prompt| cells.with_context(prompt)).transpose()?;
    Ok(Record::Pair { prompt, chosen, rejected, margin: cells.single("margin", 0.0)?, weight: 1.0 }.into())
}

/// A conversation that ends before the reply.
fn before_reply(cells: &Cells, column: &str) -> Result<Content, ProblemKind> {
    let asked = cells.content(column)?;
    let Content::Messages(turns) = &asked else { return cells.with_context(asked) };
    match turns.last() {
        Some(turn) if turn.role == ASSISTANT => {
            let found = Value::from("a conversation that ends with a reply");
            Err(wrong_type(cells.name(column), "the turns before the reply", &found))
        }
        _ => cells.with_context(asked),
    }
}

fn output_list(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let value = cells.value("output");
    if value.is_string() && !super::super::literal::looks_serialised(value.as_str().unwrap_or_default()) {
        return Ok(Outcome::Nothing("instructions with one output each, no preference"));
    }
    let [better, worse] = <[Value; 2]>::try_from(cells.list("output")?)
        .map_err(|list| wrong_type("output".into(), "the better and the worse response", &Value::Array(list)))?;
    let side = |value: &Value| cells.content_of(value, || "output".to_owned());
    let (prompt, [chosen, rejected]) =
        sides_of(cells, instruction(cells)?, [side(&better)?, side(&worse)?], ["output", "output"])?;
    Ok(Record::Pair { prompt, chosen, rejected, margin: 0.0, weight: 1.0 }.into())
}

fn nemo(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let prompt = cells.content("context")?;
    let mut responses = Vec::new();
    for (at, value) in cells.list("completions")?.iter().enumerate() {
        let place = |key: &str| format!("completions[{}].{key}", at + 1);
        let reply = value.get("completion").unwrap_or(&Value::Null);
        let rank = crate::data::cells::number(value.get("rank"), || place("rank"))?;
        let rank = Some(rank.ok_or_else(|| wrong_type(place("rank"), "a number", &Value::Null))?);
        let content = cells.content_of(reply, || place("completion"))?;
        responses.push(Candidate { rank, ..Candidate::of(content) });
    }
    Ok(Record::Group { prompt, responses, comparisons: Vec::new() }.into())
}

/// A conversation whose last turn is the response, and what comes before it.
fn cut_reply(cells: &Cells, column: &str) -> Result<(Content, Content), ProblemKind> {
    let content = cells.content(column)?;
    let whole = || wrong_type(cells.name(column), "a conversation that ends with a reply", &content.to_value());
    let Content::Messages(turns) = &content else { return Err(whole()) };
    match turns.split_last() {
        Some((reply, before)) if reply.role == ASSISTANT && !before.is_empty() => {
            let prompt = cells.with_context(Content::Messages(before.to_vec()))?;
            Ok((prompt, Content::Messages(vec![reply.clone()])))
        }
        _ => Err(whole()),
    }
}

fn swift_messages(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let (prompt, chosen) = cut_reply(cells, "messages")?;
    let rejected = cells.content("rejected_response")?;
    let (prompt, [chosen, rejected]) =
        sides_of(cells, Some(prompt), [chosen, rejected], ["messages", "rejected_response"])?;
    Ok(Record::Pair { prompt, chosen, rejected, margin: cells.single("margin", 0.0)?, weight: 1.0 }.into())
}

/// A response that is good or bad.
fn rated_by_flag(prompt: Content, response: Content, good: bool) -> Outcome {
    let rating = Some(f64::from(u8::from(good)));
    Record::Ranked { prompt, response, place: RankOrRating::Rating(rating), attributes: Attributes::new() }.into()
}

fn flagged(cells: &Cells, prompt: Content, column: &str, flag: &str) -> Result<Outcome, ProblemKind> {
    if !matches!(&*cells.value(flag), Value::Bool(_)) && !cells.view.is_cell {
        return Err(wrong_type(cells.name(flag), "true or false", &cells.value(flag)));
    }
    let prompt = cells.with_context(prompt)?;
    let response = cells.content(column)?;
    let other = |_| ProblemKind::OtherPrompt { column: cells.name(column) };
    let (prompt, mut replies) = crate::data::conversation::replies(prompt, vec![response]).map_err(other)?;
    Ok(rated_by_flag(prompt, replies.remove(0), cells.truth(flag)?))
}

fn last_turn(cells: &Cells, column: &str, flag: &str) -> Result<Outcome, ProblemKind> {
    let (prompt, response) = cut_reply(cells, column)?;
    Ok(rated_by_flag(prompt, response, cells.truth(flag)?))
}
