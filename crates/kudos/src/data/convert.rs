//! Groups → rows of our own kinds, as `kudos convert` writes them: what was understood, with nothing lost.
//!
//! A judgement becomes a pair or a comparison with its margin, weight and columns; a response of a ranking becomes a row with its
//! rank or rating; a row that held a whole group becomes a group. Read back, they make the same groups.

use super::beside::{MEANT, beside};
use super::group::{Comparison, Group, Judged, Response, decimal};
use super::load::Loaded;
use super::record::{Candidate, Kind};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Rows of our own kinds, in the order of the groups.
pub fn converted(loaded: &Loaded) -> impl Iterator<Item = Map<String, Value>> + '_ {
    loaded.groups.iter().zip(&loaded.origins).flat_map(|(group, origin)| match origin.kind {
        Kind::Groups => vec![group_row(group)],
        _ if !group.judged.is_empty() => judgements(group),
        kind => group.responses.iter().map(|response| response_row(group, response, kind)).collect(),
    })
}

/// The kinds of the rows that [`converted`] makes. Rows of several fit a JSON file, and no table.
pub fn converted_kinds(loaded: &Loaded) -> BTreeSet<Kind> {
    let mut kinds = BTreeSet::new();
    for (group, origin) in loaded.groups.iter().zip(&loaded.origins) {
        match origin.kind {
            Kind::Groups => {
                kinds.insert(Kind::Groups);
            }
            _ if !group.judged.is_empty() => kinds.extend(group.comparisons.iter().zip(&group.judged).map(kind_of)),
            // Of judgements of weight 0 the responses are left.
            Kind::Pairs | Kind::Comparisons => {
                kinds.insert(Kind::Unlabelled);
            }
            kind => {
                kinds.insert(kind);
            }
        }
    }
    kinds
}

/// A pair where the row was one and says who is better; else a comparison.
fn kind_of((comparison, judged): (&Comparison, &Judged)) -> Kind {
    if judged.kind == Kind::Pairs && comparison.target == 1.0 { Kind::Pairs } else { Kind::Comparisons }
}

/// The columns that pass through, under names that mean nothing to a reader.
fn extra(columns: &Map<String, Value>) -> Map<String, Value> {
    beside(columns.clone(), &MEANT)
}

fn put_prompt(row: &mut Map<String, Value>, group: &Group) {
    if let Some(prompt) = &group.prompt {
        row.insert("prompt".to_owned(), prompt.to_value());
    }
}

fn group_row(group: &Group) -> Map<String, Value> {
    let mut row = group.responses.first().map(|response| extra(&response.extra)).unwrap_or_default();
    put_prompt(&mut row, group);
    let by_score = group.responses.iter().any(|response| response.score.is_some());
    let candidate = |response: &Response| Candidate {
        content: response.content.clone(),
        // Where ranks follow from scores, the scores say more.
        rank: response.rank.filter(|_| !by_score),
        score: response.score,
        attributes: response.attributes.clone(),
    };
    row.insert("responses".to_owned(), group.responses.iter().map(|r| candidate(r).to_value()).collect());
    if !group.judged.is_empty() {
        row.insert("comparisons".to_owned(), group.comparisons.iter().map(|c| c.to_value()).collect());
    }
    row
}

/// A row of a ranking, of ratings, or of nothing.
fn response_row(group: &Group, response: &Response, kind: Kind) -> Map<String, Value> {
    let mut row = extra(&response.extra);
    put_prompt(&mut row, group);
    row.insert("response".to_owned(), response.content.to_value());
    match kind {
        Kind::Rated => row.insert("rating".to_owned(), response.score.into()),
        Kind::Ranked => row.insert("rank".to_owned(), place(group, response).into()),
        _ => None,
    };
    if !response.attributes.is_empty() {
        let ratings = response.attributes.iter().map(|(name, rating)| (name.clone(), Value::from(*rating)));
        row.insert("attributes".to_owned(), Value::Object(ratings.collect()));
    }
    row
}

/// The rank of a response among those of its group, 1 for the best: the order is kept, and gaps are closed.
fn place(group: &Group, response: &Response) -> Option<usize> {
    let rank = response.rank?;
    Some(1 + group.responses.iter().filter(|other| other.rank.is_some_and(|other| other < rank)).count())
}

fn judgements(group: &Group) -> Vec<Map<String, Value>> {
    group
        .comparisons
        .iter()
        .zip(&group.judged)
        .map(|(comparison, judged)| judgement(group, comparison, judged))
        .collect()
}

fn judgement(group: &Group, comparison: &Comparison, judged: &Judged) -> Map<String, Value> {
    let mut columns = Map::clone(&judged.extra);
    if let Some(voter) = &judged.voter {
        // The column that names the voter is written again below.
        columns.retain(|name, value| !MEANT.contains(&name.as_str()) || value.as_str() != Some(&**voter));
    }
    let mut row = extra(&columns);
    put_prompt(&mut row, group);
    let [first, second] = [comparison.first, comparison.second].map(|r| group.responses[r].content.to_value());
    let is_pair = kind_of((comparison, judged)) == Kind::Pairs;
    let names = if is_pair { ["chosen", "rejected"] } else { ["response_a", "response_b"] };
    row.insert(names[0].to_owned(), first);
    row.insert(names[1].to_owned(), second);
    if !is_pair {
        row.insert("label".to_owned(), label(comparison.target));
    }
    if comparison.margin != 0.0 {
        row.insert("margin".to_owned(), decimal(comparison.margin));
    }
    if comparison.weight != 1.0 {
        row.insert("weight".to_owned(), decimal(comparison.weight));
    }
    if let Some(voter) = &judged.voter {
        row.insert("annotator".to_owned(), voter.as_ref().into());
    }
    row
}

/// The verdict as a word where it is one.
fn label(target: f32) -> Value {
    match target {
        1.0 => "a".into(),
        0.0 => "b".into(),
        0.5 => "tie".into(),
        share => decimal(share),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Mapping, MappingText, Options, OutputFormat, Reader, Writer, load_groups};
    use proptest::prelude::*;
    use serde_json::json;

    /// Texts that are no list in writing and no transcript, with what spoils files in them.
    fn text() -> impl Strategy<Value = String> {
        "[a-zA-Zé,;\"'\n {}]{0,12}[a-z]"
    }

    /// A row of our own kinds, all of one kind in a file.
    fn rows() -> impl Strategy<Value = Vec<Value>> {
        let prompt = || (0..3u8).prop_map(|n| format!("prompt {n}"));
        let ranked = (prompt(), text(), prop::option::of(1..5u8))
            .prop_map(|(prompt, answer, rank)| json!({"id": "i", "prompt": prompt, "answer": answer, "rank": rank}));
        let rated = (prompt(), text(), prop::option::of(-2.0..9.0f64), prop::option::of(1..5u8)).prop_map(
            |(prompt, response, rating, tone)| {
                json!({"prompt": prompt, "response": response, "rating": rating, "attribute:tone": tone})
            },
        );
        let pair = (prompt(), text(), text(), 0..3u8, 0..3u8).prop_map(|(prompt, chosen, rejected, margin, weight)| {
            json!({"prompt": prompt, "chosen": chosen, "rejected": rejected, "margin": margin, "weight": weight, "label": "x"})
        });
        let label = prop_oneof![Just(json!("a")), Just(json!("b")), Just(json!("tie")), Just(json!(0.25))];
        let comparison = (prompt(), text(), text(), label, 0..3u8).prop_map(|(prompt, a, b, label, person)| {
            json!({"prompt": prompt, "response_a": a, "response_b": b, "label": label, "annotator": format!("p{person}")})
        });
        let response =
            (text(), 0..5u8).prop_map(|(text, score)| json!({"text": text, "score": score, "attributes": {"tone": 1}}));
        let group = (prompt(), prop::collection::vec(response, 2..5))
            .prop_map(|(prompt, responses)| json!({"prompt": prompt, "responses": responses, "source": "s"}));
        let voted = (prompt(), text(), 1..4u8, 0..2u8).prop_map(|(prompt, answer, rank, person)| {
            json!({"prompt": prompt, "answer": answer, "rank": rank, "annotator": format!("p{person}")})
        });
        let many = |row: BoxedStrategy<Value>| prop::collection::vec(row, 1..12);
        prop_oneof![
            many(ranked.boxed()),
            many(rated.boxed()),
            many(pair.boxed()),
            many(comparison.boxed()),
            many(group.boxed()),
            many(voted.boxed()),
        ]
    }

    /// What must be the same: prompts, texts, ranks, ratings, and every judgement between texts, with what it weighs and who judged.
    fn outline(groups: &[Group]) -> Vec<String> {
        let group = |group: &Group| {
            let text = |r: usize| format!("{:?}", group.responses[r].content);
            let mut judgements: Vec<String> = (0..group.comparisons.len())
                .map(|c| {
                    let Comparison { first, second, target, margin, weight } = group.comparisons[c];
                    let voter = group.judged.get(c).and_then(|judged| judged.voter.clone());
                    format!("{} {} {target} {margin} {weight} {voter:?}", text(first), text(second))
                })
                .collect();
            judgements.sort();
            let mut responses: Vec<String> = group
                .responses
                .iter()
                .map(|r| format!("{:?} {:?} {:?} {:?}", r.content, place(group, r), r.score, r.attributes))
                .collect();
            responses.sort();
            format!("{:?} {responses:?} {judgements:?}", group.prompt)
        };
        let mut all: Vec<String> = groups.iter().map(group).collect();
        all.sort();
        all
    }

    fn load(rows: &[Value]) -> Loaded {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let mut loaded = Loaded::default();
        // Ranks of this test are any numbers: that they are ranks must be said.
        let ranked = rows[0].get("rank").is_some();
        let text_of = MappingText { rank: ranked.then(|| "rank".to_owned()), ..MappingText::default() };
        let options = Options { mapping: Mapping::parse(&text_of).unwrap(), ..Options::default() };
        loaded.read(Reader::from_bytes("f", text.into_bytes(), &options).unwrap(), &options).unwrap();
        loaded
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn what_is_written_is_read_back_as_the_same_groups(rows in rows()) {
            let loaded = load(&rows);
            // A response that nobody compared with another is in no judgement, and so in none that is written.
            let judged = |group: &Group| {
                let seen = |r: usize| group.comparisons.iter().any(|c| c.first == r || c.second == r);
                group.judged.is_empty() || (0..group.responses.len()).all(seen)
            };
            prop_assume!(!loaded.groups.is_empty() && loaded.groups.iter().all(judged));
            let directory = tempfile::tempdir().unwrap();
            let mixed = converted_kinds(&loaded).len() > 1;
            for name in ["o.jsonl", "o.csv", "o.parquet", "o.json.gz"] {
                if mixed && !name.contains("json") {
                    continue;
                }
                let path = directory.path().join(name);
                let mut writer = Writer::create(&path, OutputFormat::of_name(&path)).unwrap();
                let written: Result<Vec<()>, _> = converted(&loaded).map(|row| writer.write(&row)).collect();
                // A table has one type a column: what does not fit is an error, and said.
                let Ok(_) = written.and_then(|_| writer.finish()) else { continue };
                let back = load_groups(&[&path], &Options::default()).unwrap();
                prop_assert_eq!(outline(&back.groups), outline(&loaded.groups), "{}", name);
            }
        }
    }
}
