//! `docs/layouts.md` says which layouts are read, each with an example: the examples are read here, as what they are called.

use kudos::data::{Loaded, Record};
use kudos::data::{Options, Reader, layouts, preferences};

const PAGE: &str = include_str!("../../../docs/layouts.md");

/// Heading and example of every layout of the page.
fn examples() -> Vec<(&'static str, &'static str)> {
    let mut sections = PAGE.split("\n### ").skip(1);
    let example = |section: &'static str| {
        let (name, rest) = section.split_once('\n').unwrap();
        let fence = rest.split("```").nth(1).unwrap_or_default();
        (name, fence.split_once('\n').map_or("", |(_, rows)| rows))
    };
    sections.by_ref().map(example).collect()
}

#[test]
fn every_example_is_read_as_its_heading_with_the_good_response_first() {
    for (name, rows) in examples() {
        let options = Options::default();
        let mut loaded = Loaded::default();
        let reader =
            Reader::from_bytes(name, rows.as_bytes().to_vec(), &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        loaded.read(reader, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(loaded.problems.is_empty(), "{name}: {}", loaded.problems[0]);
        let layout = loaded.files[0].layout.clone().unwrap_or_default();
        assert!(layout == name || layout.starts_with(&format!("{name}: ")), "{name} is read as {layout:?}");
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::Array(turns) => turns.last().unwrap()["content"].as_str().unwrap().to_owned(),
            text => text.as_str().unwrap().to_owned(),
        };
        let pairs: Vec<_> = preferences(&loaded).map(|row| (text(&row["chosen"]), text(&row["rejected"]))).collect();
        assert!(!pairs.is_empty(), "{name}: no pair");
        assert!(
            pairs.iter().all(|(chosen, rejected)| chosen.starts_with("good") && rejected.starts_with("bad")),
            "{name}: {pairs:?}"
        );
    }
}

#[test]
fn every_layout_is_on_the_page() {
    let known: Vec<&str> = examples().into_iter().map(|(name, _)| name).collect();
    let missing: Vec<&str> = layouts().into_iter().filter(|name| !known.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The record kinds of the crate's own are what the layouts become.
#[test]
fn a_layout_becomes_records_of_our_own_kinds() {
    let (_, rows) = examples().into_iter().find(|(name, _)| *name == "Nectar").unwrap();
    let mut reader = Reader::from_bytes("nectar", rows.as_bytes().to_vec(), &Options::default()).unwrap();
    let first = reader.next().unwrap().unwrap();
    assert!(matches!(first.record, Record::Group { ref responses, .. } if responses.len() == 2));
}

/// Values of other types in any column of any layout: an error or a problem, and never a panic.
#[test]
fn columns_with_values_of_other_types() {
    use serde_json::{Value, json};
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0.5),
        json!([]),
        json!(["x", null]),
        json!({}),
        json!("x"),
        json!(""),
        json!({"role": "user", "content": "x"}),
        json!([{"from": "gpt", "value": ["x"]}]),
        json!([[["x"]]]),
        json!(1e300),
    ];
    let mut read = 0;
    for row in
        examples().iter().flat_map(|(_, rows)| rows.lines()).filter_map(|line| serde_json::from_str::<Value>(line).ok())
    {
        for column in row.as_object().unwrap().keys() {
            for value in &odd {
                let mut row = row.clone();
                row[column] = value.clone();
                let text = format!("{row}\n{row}\n").into_bytes();
                let mut loaded = Loaded::default();
                if let Ok(reader) = Reader::from_bytes("f", text, &Options::default()) {
                    let _ = loaded.read(reader, &Options::default());
                }
                assert!(preferences(&loaded).all(|row| row["chosen"] != row["rejected"]), "{row}");
                read += 1;
            }
        }
    }
    assert!(read > 3000, "{read}");
}
