//! Spreadsheets with a row a prompt: `Answer 1 … n` and `Rank 1 … n` (or ratings).

use super::{Layout, Outcome, PLAIN, Read, squash};
use crate::data::cells::Cells;
use crate::data::error::ProblemKind;
use crate::data::record::{Candidate, Content, Record};

pub(super) static LAYOUT: Layout = Layout {
    name: "a table with a row a prompt",
    columns: &["prompt"],
    also: &["system"],
    said: "each answer has a rank (1 = best) or a rating (higher = better) of its number",
    read: Read::Published(read),
    ..PLAIN
};

/// What the columns of answers are called, and those of their places.
const ANSWERS: [&str; 6] = ["answer", "response", "completion", "candidate", "output", "reply"];
const RANKS: [&str; 3] = ["rank", "ranking", "place"];
const RATINGS: [&str; 3] = ["rating", "score", "rate"];

/// The columns of answers, each with that of its rank or rating, where every answer has one of the same sort; at least two.
pub(super) fn columns(names: &[&str]) -> Option<Vec<(String, String)>> {
    names.iter().find(|name| squash(name) == "prompt")?;
    let numbered = |name: &&str| {
        let squashed = squash(name);
        if squashed.len() == 1 && squashed.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return Some((name.to_string(), "", squashed));
        }
        let stem = ANSWERS.iter().find(|stem| squashed.starts_with(**stem))?;
        let number = &squashed[stem.len()..];
        let is_number = !number.is_empty() && number.len() <= 3 && number.bytes().all(|b| b.is_ascii_digit());
        let is_letter = number.len() == 1 && number.bytes().all(|b| b.is_ascii_lowercase());
        (is_number || is_letter).then(|| (name.to_string(), *stem, number.to_owned()))
    };
    let answers: Vec<(String, &str, String)> = names.iter().filter_map(numbered).collect();
    let places = |sorts: &[&str]| -> Option<Vec<(String, String)>> {
        answers.iter().map(|(name, stem, number)| Some((name.clone(), place(names, sorts, stem, number)?))).collect()
    };
    let found = places(&RANKS).or_else(|| places(&RATINGS))?;
    (found.len() >= 2).then_some(found)
}

/// The column of the place of answer `number`: `rank 1`, `rank answer 1`, `answer 1 rank`.
fn place(names: &[&str], sorts: &[&str], stem: &str, number: &str) -> Option<String> {
    let forms =
        |sort: &&str| [format!("{sort}{number}"), format!("{sort}{stem}{number}"), format!("{stem}{number}{sort}")];
    let forms: Vec<String> = sorts.iter().flat_map(forms).collect();
    names.iter().find(|name| forms.contains(&squash(name))).map(|name| name.to_string())
}

fn is_rating(column: &str) -> bool {
    let squashed = squash(column);
    RATINGS.iter().any(|sort| squashed.contains(sort))
}

fn read(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let prompt = cells.asked("prompt")?.ok_or_else(|| ProblemKind::EmptyText { column: cells.name("prompt") })?;
    let mut responses = Vec::new();
    for (answer, place) in &cells.view.wide {
        let Some(content) = cells.optional(answer)?.filter(|content| !Content::is_blank(content)) else { continue };
        let number = cells.number(place)?;
        let candidate = Candidate::of(content);
        responses.push(match is_rating(place) {
            true => Candidate { score: number, ..candidate },
            false => Candidate { rank: number, ..candidate },
        });
    }
    if responses.len() < 2 {
        return Err(ProblemKind::TooFew { found: responses.len() });
    }
    Ok(Record::Group { prompt, responses, comparisons: Vec::new() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_belong_together() {
        let found = |header: &str| {
            let names: Vec<&str> = header.split(',').collect();
            columns(&names).map(|pairs| pairs.iter().map(|(a, b)| format!("{a}={b}")).collect::<Vec<_>>().join(" "))
        };
        let cases = [
            ("Prompt,Answer 1,Answer 2,Rank 1,Rank 2", Some("Answer 1=Rank 1 Answer 2=Rank 2")),
            (
                "prompt,response_1,response_1_rank,response_2,response_2_rank",
                Some("response_1=response_1_rank response_2=response_2_rank"),
            ),
            ("prompt,response a,response b,rating a,rating b", Some("response a=rating a response b=rating b")),
            ("prompt,answer1,answer2,answer10,rank1,rank2,rank10", Some("answer1=rank1 answer2=rank2 answer10=rank10")),
            ("prompt,answer 1,answer 2,rank 1", None),
            ("prompt,answer 1,rank 1", None),
            ("question,answer 1,answer 2,rank 1,rank 2", None),
            ("prompt,answer 1,answer 2,rank 1,score 2", None),
        ];
        for (header, expected) in cases {
            assert_eq!(found(header).as_deref(), expected, "{header}");
        }
    }
}
