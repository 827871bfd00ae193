//! The help of every command as a user in a terminal of 80 columns reads it, and what wrong usage says.
//!
//! The pages stand in `tests/help/`, one file a command. After a change that is meant, write them anew and read them:
//! `KUDOS_RENEW_HELP=1 cargo test --release --workspace --test help_cli`.

mod binary;

use binary::{kudos, run};
use std::fs;
use std::path::{Path, PathBuf};

const COMMANDS: [&str; 18] = [
    "quickstart",
    "pull",
    "generate",
    "improve",
    "rank",
    "check",
    "convert",
    "pairs",
    "train",
    "eval",
    "score",
    "collect",
    "best",
    "serve",
    "convert-judge",
    "quantize",
    "merge",
    "verify",
];

fn help(words: &[&str]) -> String {
    let output = kudos(Path::new(".")).args(words).env("COLUMNS", "80").output().unwrap();
    assert!(output.status.success(), "kudos {}", words.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

fn page_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help").join(format!("{name}.txt"))
}

/// Writes or compares one page; the difference, if there is one.
fn compare(name: &str, found: &str) -> Option<String> {
    let path = page_of(name);
    if std::env::var_os("KUDOS_RENEW_HELP").is_some() {
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let line = expected.lines().zip(found.lines()).find(|(expected, found)| expected != found);
    (expected != found).then(|| format!("{}: first difference: {line:?}", path.display()))
}

#[test]
fn the_help_of_every_command_is_as_committed() {
    let whole = help(&["--help"]);
    let pages = COMMANDS.iter().map(|name| (*name, help(&[name, "--help"])));
    let changed: Vec<String> =
        pages.chain([("kudos", whole)]).filter_map(|(name, page)| compare(name, &page)).collect();
    assert!(changed.is_empty(), "{}\nif this is meant, see the head of this file", changed.join("\n"));
}

#[test]
fn no_command_is_left_out_and_each_is_described_in_its_own_words() {
    let whole = help(&["--help"]);
    let commands = whole.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    // A description that goes on in the next line is indented further.
    let lines = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let mut described: Vec<(&str, &str)> = lines.filter_map(|line| line.trim().split_once("  ")).collect();
    described.retain(|(name, _)| *name != "help");
    assert_eq!(described.iter().map(|(name, _)| *name).collect::<Vec<_>>(), COMMANDS, "{whole}");
    for (place, (name, words)) in described.iter().enumerate() {
        let twin = described[..place].iter().find(|(_, others)| others == words);
        assert!(twin.is_none(), "{name} and {twin:?} are described alike");
        let own = help(&[name, "--help"]);
        assert!(own.starts_with(words.trim()), "{name}: {own}");
    }
}

#[test]
fn every_help_fits_80_columns_and_has_examples_and_headings() {
    for name in COMMANDS {
        let (long, short) = (help(&[name, "--help"]), help(&[name, "-h"]));
        assert_eq!(long, short, "{name}: -h and --help say the same");
        let wide = long.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{name}");
        assert!(long.contains("Examples:\n  kudos "), "{name} has no example");
        assert!(!long.contains("Options:"), "{name}: a flag without a heading");
        assert!(long.contains("What comes out:") && long.contains("Machine:"), "{name}: {long}");
    }
}

#[test]
fn a_refused_value_is_wrong_usage_and_names_what_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("d.csv"), "prompt,answer,rank\np,a,1\np,b,2\n").unwrap();
    let train = |flag: &'static str, value: &'static str| vec!["train", "d.csv", flag, value];
    let generate = |flag: &'static str, value: &'static str| {
        vec!["generate", "--model", "m", "--prompts", "d.csv", "-o", "o.csv", flag, value]
    };
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (train("--recipe", "x"), "expected `default` or `trl`"),
        (train("--loss", "x"), "expected `bradley-terry` or `plackett-luce`"),
        (train("--schedule", "x"), "`linear`"),
        (train("--truncation", "x"), "`keep_response`"),
        (train("--precision", "x"), "`bf16`"),
        (train("--precision", "int8"), "--precision is int8, expected bf16 or f32"),
        (train("--folds", "1"), "2..=20"),
        (train("--max-steps", "0"), "1.."),
        (train("--batch-size", "0"), "--batch-size is 0, expected 1 or more"),
        (train("--learning-rate", "0"), "--learning-rate is 0, expected a number above 0"),
        (train("--eval-fraction", "2"), "--eval-fraction is 2, expected from 0 to 0.9"),
        (train("--attributes", "a,a"), "expected each name once"),
        (vec!["eval", "d.csv", "--suite", "x"], "`llmbar`"),
        (vec!["eval", "d.csv", "--precision", "x"], "`int8`"),
        (vec!["eval", "d.csv", "--judge", "a", "--judge", "b", "--judge", "c"], "or two to compare"),
        (vec!["score", "d.csv", "--precision", "x"], "`f32`"),
        (vec!["best", "d.csv", "-k", "0"], "1.."),
        (vec!["best", "d.csv", "--top-percent", "0"], "above 0, up to 100"),
        (vec!["check", "d.csv", "--threads", "0"], "1..=1024"),
        (vec!["rank"], "expected DATA to rank"),
        (vec!["rank", "d.csv", "--next", "x"], "`informative`"),
        (vec!["rank", "d.csv", "--next", "judge"], "give --judge"),
        (vec!["rank", "d.csv", "--overlap", "0"], "1..=100"),
        (vec!["rank", "d.csv", "--token", "short"], "at least 12"),
        (vec!["rank", "d.csv", "--attributes", "a,a"], "expected each name once"),
        (generate("--distinct", "x"), "`near`"),
        (generate("--top-p", "2"), "from 0 to 1"),
        (generate("--repetition-penalty", "0"), "above 0"),
        (vec!["generate", "--model", "m", "--prompts", "d.csv", "-o", "-"], "expected a file"),
    ];
    for (words, expected) in cases {
        let output = run(directory.path(), &words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "kudos {}: {said}", words.join(" "));
        assert!(said.contains(expected), "kudos {}: {said}", words.join(" "));
    }
}
