//! Files as they are published, exported and saved, held to the pairs that a person would read off them.
//!
//! `layouts/samples` and `layouts/shared/samples` hold a file each; `expect.json` beside them its pairs
//! `[prompt, chosen, rejected]` (the last turn's text of a conversation), or null for a file that must be refused. A sample
//! named `trap_…` may be refused as well: what it means cannot be known, and what counts is that nothing is silently wrong.

use kudos::data::{Loaded, Options, converted, load_groups, preferences};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Labels 0 and 1 without a word: read as INTERFACE has it (1 = a is better), which is said. In these files they are the index
/// of the better response, which nobody can see.
const SAID: [&str; 2] = ["trap_pku_renamed.jsonl", "trap_labels_winner_index.jsonl"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layouts").join(name)
}

fn load(path: &Path) -> Result<Loaded, String> {
    load_groups(&[path], &Options::default()).map_err(|error| error.to_string())
}

/// The text that a person would read as the prompt or the response.
fn text(value: Option<&Value>) -> Option<String> {
    match value {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(turns) => Some(turns.as_array()?.last()?["content"].as_str()?.to_owned()),
    }
}

/// A response of several messages repeats the prompt, or parted from the other early.
fn response(value: &Value) -> Option<String> {
    match value.as_array() {
        Some(turns) if turns.len() != 1 => Some(format!("{} messages: the prompt stands twice", turns.len())),
        _ => text(Some(value)),
    }
}

type Pair = [Option<String>; 3];

fn pairs(loaded: &Loaded) -> Vec<Pair> {
    let pair =
        |row: Map<String, Value>| [text(row.get("prompt")), response(&row["chosen"]), response(&row["rejected"])];
    let mut pairs: Vec<Pair> = preferences(loaded).map(pair).collect();
    pairs.sort();
    pairs
}

/// True for a pair that was expected; `*` is any text.
fn matches(found: &[Pair], expected: &[Pair]) -> bool {
    let star = |text: &Option<String>| text.as_deref() == Some("*");
    let same = |found: &Pair, expected: &Pair| found.iter().zip(expected).all(|(f, e)| star(e) || f == e);
    if expected.iter().any(|pair| pair.iter().any(star)) {
        return expected.iter().all(|e| found.iter().any(|f| same(f, e)))
            && found.iter().all(|f| expected.iter().any(|e| same(f, e)));
    }
    found == expected
}

fn expectations(folder: &Path) -> BTreeMap<String, Option<Vec<Pair>>> {
    let text = std::fs::read_to_string(folder.join("expect.json")).unwrap();
    let mut all: BTreeMap<String, Option<Vec<Pair>>> = serde_json::from_str(&text).unwrap();
    all.values_mut().flatten().for_each(|pairs| pairs.sort());
    all
}

/// What is wrong with the reading of one sample, if anything is.
fn fault(path: &Path, name: &str, expected: Option<&[Pair]>) -> Option<String> {
    let found = load(path);
    let pairs = found.as_ref().map(pairs);
    let refused = pairs.as_ref().map_or(true, |pairs| pairs.is_empty());
    match expected {
        None if refused => None,
        None => Some(format!("read as {} pairs, expected a refusal", pairs.map_or(0, |p| p.len()))),
        Some(_) if name.starts_with("trap_") && refused => None,
        Some(expected) => match pairs {
            Err(error) => Some(format!("refused: {error}")),
            Ok(found) if matches(&found, expected) => None,
            Ok(found) => Some(format!("{} pairs, expected {}: {found:#?}\n{expected:#?}", found.len(), expected.len())),
        },
    }
}

fn hold(folder: &Path) {
    let expected = expectations(folder);
    let faults: Vec<String> = expected
        .iter()
        .filter(|(name, _)| !SAID.contains(&name.as_str()))
        .filter_map(|(name, pairs)| {
            Some(format!("{name}: {}", fault(&folder.join("samples").join(name), name, pairs.as_deref())?))
        })
        .collect();
    assert!(expected.len() > 60, "{}", expected.len());
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), expected.len(), faults.join("\n"));
}

#[test]
fn files_as_they_are_published_and_exported() {
    hold(&folder("."));
    hold(&folder("shared"));
}

#[test]
fn labels_0_and_1_say_what_they_are_read_as() {
    for (folder_name, name) in [("shared", SAID[0]), (".", SAID[1])] {
        let loaded = load(&folder(folder_name).join("samples").join(name)).unwrap();
        let notes = loaded.files[0].notes.join("; ");
        assert!(notes.contains("label 1 = response_a is better, 0 = response_b"), "{name}: {notes}");
    }
}

/// Texts of a system turn and of earlier turns are not in the last one: their number is held, too.
#[test]
fn earlier_turns_are_part_of_the_prompt() {
    let turns: BTreeMap<String, Value> =
        serde_json::from_str(&std::fs::read_to_string(folder("expect_turns.json")).unwrap()).unwrap();
    let mut faults = Vec::new();
    for (name, expected) in &turns {
        let Ok(loaded) = load(&folder("samples").join(name)) else { continue };
        let count = |row: Map<String, Value>| match row.get("prompt") {
            None | Some(Value::Null) => 0,
            Some(Value::String(_)) => 1,
            Some(turns) => turns.as_array().unwrap().len(),
        };
        let mut found: Vec<usize> = preferences(&loaded).map(count).collect();
        found.sort_unstable();
        let mut expected: Vec<usize> = serde_json::from_value(expected.clone()).unwrap();
        expected.sort_unstable();
        if found != expected && !(name.starts_with("trap_") && found.is_empty()) {
            faults.push(format!("{name}: {found:?}, expected {expected:?}"));
        }
    }
    assert!(turns.len() > 40 && faults.is_empty(), "{} of {}:\n{}", faults.len(), turns.len(), faults.join("\n"));
}

/// What `kudos convert` writes is read back as the same preferences, of the same groups.
#[test]
fn converted_files_say_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut faults = Vec::new();
    for folder in [folder("."), folder("shared")] {
        for name in expectations(&folder).keys() {
            let Ok(loaded) = load(&folder.join("samples").join(name)) else { continue };
            let out = directory.path().join("out.jsonl");
            let rows: Vec<String> =
                converted(&loaded).map(|row| kudos::data::integer::to_json(&Value::Object(row))).collect();
            if rows.is_empty() {
                continue;
            }
            std::fs::write(&out, rows.join("\n")).unwrap();
            let outline = |loaded: &Loaded| {
                let group = |g: &kudos::data::Group| (g.responses.len(), g.comparisons.len(), g.ties());
                let mut groups: Vec<_> = loaded.groups.iter().map(group).collect();
                groups.sort_unstable();
                (pairs(loaded), groups)
            };
            match load(&out) {
                Err(error) => faults.push(format!("{name}: {error}")),
                Ok(back) if outline(&back) != outline(&loaded) => {
                    faults.push(format!("{name}:\n{:#?}\n{:#?}", outline(&loaded).1, outline(&back).1))
                }
                Ok(_) => {}
            }
        }
    }
    assert!(faults.is_empty(), "{}:\n{}", faults.len(), faults.join("\n"));
}
