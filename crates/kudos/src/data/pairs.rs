//! Groups → rows of TRL's preference format: `prompt, chosen, rejected`.

use super::beside::beside;
use super::group::{Comparison, Group, decimal};
use super::load::Loaded;
use serde_json::{Map, Value};

const OURS: [&str; 7] =
    ["prompt", "chosen", "rejected", "margin", "weight", "attributes_chosen", "attributes_rejected"];

/// One row for every preference, ties left out, in the order of the groups.
///
/// Columns that belong to the judgement (`id`, `subset`, …) come first: those of its own row for pairs
/// and comparisons, those that the rows of both responses share for rankings. `margin` and `weight` are in
/// every row if any row of the data has one, and in none otherwise. A column of the data that is named as one of these is
/// kept as `input_NAME`. `attributes_chosen` and
/// `attributes_rejected` are the ratings of the two sides, where they have any.
pub fn preferences(loaded: &Loaded) -> impl Iterator<Item = Map<String, Value>> + '_ {
    let comparisons = || loaded.groups.iter().flat_map(|group| &group.comparisons);
    let with_margin = comparisons().any(|comparison| comparison.margin != 0.0);
    let with_weight = comparisons().any(|comparison| comparison.weight != 1.0);
    let places = loaded.groups.iter().enumerate();
    places.flat_map(|(g, group)| (0..group.comparisons.len()).map(move |c| (g, c))).filter_map(move |(g, c)| {
        let (group, comparison) = (&loaded.groups[g], &loaded.groups[g].comparisons[c]);
        let mut row = beside(group.comparison_extra(c), &OURS);
        state_preference(&mut row, group, comparison)?;
        if with_margin {
            row.insert("margin".to_owned(), decimal(comparison.margin));
        }
        if with_weight {
            row.insert("weight".to_owned(), decimal(comparison.weight));
        }
        Some(row)
    })
}

fn state_preference(row: &mut Map<String, Value>, group: &Group, comparison: &Comparison) -> Option<()> {
    let (chosen, rejected) = comparison.better_worse()?;
    if let Some(prompt) = &group.prompt {
        row.insert("prompt".to_owned(), prompt.to_value());
    }
    row.insert("chosen".to_owned(), group.responses[chosen].content.to_value());
    row.insert("rejected".to_owned(), group.responses[rejected].content.to_value());
    for (column, side) in [("attributes_chosen", chosen), ("attributes_rejected", rejected)] {
        let ratings = &group.responses[side].attributes;
        if !ratings.is_empty() {
            row.insert(column.to_owned(), ratings.iter().map(|(name, x)| (name.clone(), Value::from(*x))).collect());
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Options, Reader};

    fn rows(text: &str) -> Vec<String> {
        let mut loaded = Loaded::default();
        let reader = Reader::from_bytes("t", text.into(), &Options::default()).unwrap();
        loaded.read(reader, &Options::default()).unwrap();
        preferences(&loaded).map(|row| serde_json::to_string(&row).unwrap()).collect()
    }

    #[test]
    fn rows_of_every_kind() {
        let cases: [(&str, &[&str]); 7] = [
            (
                "prompt,answer,rank,attribute:x\np,a,1,4\np,b,2,\n",
                &[r#"{"prompt":"p","chosen":"a","rejected":"b","attributes_chosen":{"x":4.0}}"#],
            ),
            (
                "prompt,answer,rank,topic,model\np,a,1,t,x\np,b,1,t,y\np,c,3,t,z\n",
                &[
                    r#"{"topic":"t","prompt":"p","chosen":"a","rejected":"c"}"#,
                    r#"{"topic":"t","prompt":"p","chosen":"b","rejected":"c"}"#,
                ],
            ),
            (
                "id,prompt,chosen,rejected,margin\n1,p,a,b,0.1\n2,p,b,c,\n",
                &[
                    r#"{"id":"1","prompt":"p","chosen":"a","rejected":"b","margin":0.1}"#,
                    r#"{"id":"2","prompt":"p","chosen":"b","rejected":"c","margin":0.0}"#,
                ],
            ),
            ("chosen,rejected,margin,weight\nx y a,x y b,0,1\n", &[r#"{"chosen":"x y a","rejected":"x y b"}"#]),
            (
                "prompt,response_a,response_b,label,chosen\np,a,b,b,a\np,a,b,tie,a\n",
                &[r#"{"input_chosen":"a","prompt":"p","chosen":"b","rejected":"a"}"#],
            ),
            (
                r#"{"id":7,"prompt":[{"role":"user","content":"p"}],"responses":[{"text":"a","score":1},{"text":"b","score":2}]}"#,
                &[r#"{"id":7,"prompt":[{"role":"user","content":"p"}],"chosen":"b","rejected":"a"}"#],
            ),
            ("prompt,response\np,a\np,b\n", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(rows(text), expected, "{text}");
        }
    }
}
