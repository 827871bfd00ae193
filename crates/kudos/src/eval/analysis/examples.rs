//! What to read: the scores of a few prompts, the hardest mistakes, labels that look wrong.

use super::super::ScoredGroup;
use super::super::pairs::Pair;
use super::super::ranking::wins;
use super::super::report::subset;
use super::material::Material;
use crate::data::{Content, Response};

/// Prompts shown with their scores.
const PROMPTS: usize = 20;
/// Mistakes shown.
const MISTAKES: usize = 20;
/// A label less probable than this looks wrong.
const DOUBTFUL: f64 = 0.1;
/// Characters of an excerpt.
const EXCERPT: usize = 600;

/// One response of a prompt, as a bar.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Bar {
    /// Excerpt of the response.
    pub text: String,
    /// The judge's score.
    pub score: f64,
    /// Its place in people's order, 1 for the best, where the data say one; equal ones share their mean place.
    pub rank: Option<f64>,
    /// Its place in the judge's order, 1 for the highest score; equal scores share their mean place.
    pub judge_rank: f64,
}

/// The responses of one prompt, in the order of the file.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PromptBars {
    /// Excerpt of the prompt; `None` when the responses are whole transcripts.
    pub prompt: Option<String>,
    /// `file:line`.
    pub location: String,
    /// The responses.
    pub responses: Vec<Bar>,
}

/// One pair as the judge sees it. Excerpts are at most 600 characters, the last one `…` if cut.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct JudgedPair {
    /// Index of its group among the groups given.
    pub group: usize,
    /// Index in the group of the response that people prefer.
    pub better_response: usize,
    /// Index in the group of the other one.
    pub worse_response: usize,
    /// `file:line`.
    pub location: String,
    /// The column `subset`, if any.
    pub subset: Option<String>,
    /// Excerpt of the prompt; `None` when the responses are whole transcripts.
    pub prompt: Option<String>,
    /// Excerpt of the response that people prefer.
    pub better: String,
    /// Excerpt of the other one.
    pub worse: String,
    /// Score of the better one less score of the worse one: negative is a mistake.
    pub margin: f64,
    /// Probability that the judge gives to the label: σ(margin / temperature).
    pub probability: f64,
}

pub(super) fn bars(material: &Material) -> Vec<PromptBars> {
    let shown = material.data.iter().filter(|scored| scored.scores.len() > 1).take(PROMPTS);
    shown.map(prompt_bars).collect()
}

fn prompt_bars(scored: &ScoredGroup) -> PromptBars {
    let scores: Vec<f64> = scored.scores.iter().map(|&s| f64::from(s)).collect();
    let people = places(&scored.group.responses);
    let bar = |((response, score), rank): ((&Response, &f64), Option<f64>)| Bar {
        text: excerpt(&response.content),
        score: *score,
        rank,
        judge_rank: scores.len() as f64 - wins(&scores, *score),
    };
    PromptBars {
        prompt: scored.group.prompt.as_ref().map(excerpt),
        location: scored.group.location.to_string(),
        responses: scored.group.responses.iter().zip(&scores).zip(people).map(bar).collect(),
    }
}

/// Places in people's order: by rank, or by rating where nothing is ranked; equal ones share their mean place.
fn places(responses: &[Response]) -> Vec<Option<f64>> {
    let ranked = responses.iter().any(|r| r.rank.is_some());
    let quality = |r: &Response| if ranked { r.rank.map(|rank| -rank) } else { r.score };
    let known: Vec<f64> = responses.iter().filter_map(quality).collect();
    let place = |r: &Response| Some(known.len() as f64 - wins(&known, quality(r)?));
    responses.iter().map(place).collect()
}

/// The wrong pairs with the widest margins; equal margins in the order of the file.
pub(super) fn mistakes(material: &Material) -> Vec<JudgedPair> {
    let mut wrong: Vec<&Pair> = material.pairs.iter().filter(|pair| pair.margin() < 0.0).collect();
    wrong.sort_by(|a, b| a.margin().total_cmp(&b.margin()));
    wrong.truncate(MISTAKES);
    wrong.into_iter().map(|pair| judged_pair(material, pair)).collect()
}

/// The pairs whose label the scores (of judges that never saw it) find improbable.
pub(super) fn suspects(held_out: &Material) -> Vec<JudgedPair> {
    let doubted = |pair: &&Pair| probability(held_out.logit(pair)) < DOUBTFUL;
    let mut doubted: Vec<&Pair> = held_out.pairs.iter().filter(doubted).collect();
    doubted.sort_by(|a, b| a.margin().total_cmp(&b.margin()));
    doubted.into_iter().map(|pair| judged_pair(held_out, pair)).collect()
}

fn judged_pair(material: &Material, pair: &Pair) -> JudgedPair {
    let group = pair.scored.group;
    let (better, worse) = (&group.responses[pair.better], &group.responses[pair.worse]);
    JudgedPair {
        group: pair.scored.index,
        better_response: pair.better,
        worse_response: pair.worse,
        location: group.comparison_location(pair.comparison).to_string(),
        subset: subset(group, pair.comparison),
        prompt: group.prompt.as_ref().map(excerpt),
        better: excerpt(&better.content),
        worse: excerpt(&worse.content),
        margin: pair.margin(),
        probability: probability(material.logit(pair)),
    }
}

fn probability(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// The start of a text, or of the turns of a conversation, each with its role.
pub(crate) fn excerpt(content: &Content) -> String {
    let cut = |text: &str| match text.char_indices().nth(EXCERPT) {
        Some(_) => text.chars().take(EXCERPT - 1).chain(['…']).collect(),
        None => text.to_owned(),
    };
    match content {
        Content::Text(text) => cut(text),
        Content::Messages(turns) => {
            let lines: Vec<String> = turns.iter().map(|t| format!("{}: {}", t.role, t.content)).collect();
            cut(&lines.join("\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::EvalOptions;
    use super::super::super::testing::{ranked, scored};
    use super::*;
    use crate::data::{Group, Message};

    #[test]
    fn excerpts_end_between_characters() {
        let text = |n: usize| excerpt(&Content::Text("é".repeat(n)));
        assert_eq!(text(600), "é".repeat(600));
        assert_eq!(text(601), format!("{}…", "é".repeat(599)));
        let turn = Message { role: "user".into(), content: "hi".into() };
        assert_eq!(excerpt(&Content::Messages(vec![turn.clone(), turn])), "user: hi\nuser: hi");
    }

    #[test]
    fn mistakes_come_widest_first_and_suspects_below_a_tenth() {
        let groups: Vec<Group> = (0..30).map(|n| ranked(&format!("p{n}"), &[1.0, 2.0])).collect();
        let score = |n: usize| vec![if n < 28 { -(n as f32) / 8.0 } else { 5.0 }, 0.0];
        let scores: Vec<Vec<f32>> = (0..30).map(score).collect();
        let material = Material::new(scored(&groups, &scores), EvalOptions::default());
        let found = mistakes(&material);
        assert_eq!((found.len(), found[0].group, found[0].margin), (20, 27, -27.0 / 8.0));
        assert_eq!((found[0].better_response, found[0].worse_response), (0, 1));
        assert!((found[0].probability - 1.0 / (1.0 + (27.0_f64 / 8.0).exp())).abs() < 1e-12);
        let doubted = suspects(&material);
        assert_eq!(doubted.len(), 10); // ln 9 = 2.197 < n / 8 from n = 18 on
        assert!(doubted.iter().all(|pair| pair.probability < 0.1));
    }

    #[test]
    fn people_s_places_are_by_rank_or_else_by_rating() {
        let mut responses = ranked("p", &[1.0, 1.0, 2.0, 5.0]).responses;
        assert_eq!(places(&responses), [1.5, 1.5, 3.0, 4.0].map(Some));
        responses[1].rank = None;
        assert_eq!(places(&responses), [Some(1.0), None, Some(2.0), Some(3.0)]);
        for (response, score) in responses.iter_mut().zip([7.0, 9.0, 9.0, 1.0]) {
            (response.rank, response.score) = (None, Some(score));
        }
        assert_eq!(places(&responses), [3.0, 1.5, 1.5, 4.0].map(Some));
        responses[0].score = None;
        assert_eq!(places(&responses)[0], None);
    }

    #[test]
    fn bars_rank_by_score_and_share_places() {
        let (groups, scores) = ([ranked("p", &[1.0, 2.0, 3.0])], [vec![1.0, 4.0, 1.0]]);
        let found = bars(&Material::new(scored(&groups, &scores), EvalOptions::default()));
        let ranks: Vec<_> = found[0].responses.iter().map(|bar| (bar.rank.unwrap(), bar.judge_rank)).collect();
        assert_eq!(ranks, [(1.0, 2.5), (2.0, 1.0), (3.0, 2.5)]);
        assert_eq!((found[0].prompt.as_deref(), found[0].location.as_str()), (Some("p"), "cases.jsonl:1"));
    }
}
