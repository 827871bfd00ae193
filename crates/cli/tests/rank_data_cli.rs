//! Rankings from the terminal to a judge, with the real binary: ranked, exported, counted, and read as data.

mod binary;

use binary::{error, golden, kudos, ok};
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

const ANSWERS: &str = "prompt,answer,model
p1,a,secret-m
p1,b,secret-n
p1,c,secret-o
p2,d,secret-m
p2,e,secret-n
";

/// Ranks in the terminal by typing these lines.
fn terminal(dir: &Path, name: &str, more: &[&str], typed: &str) -> Output {
    let mut command = kudos(dir);
    command.args(["rank", "answers.csv", "--terminal", "--name", name, "--repeats", "0"]).args(more);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn folder(answers: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("answers.csv"), answers).unwrap();
    dir
}

#[test]
fn the_terminal_ranks_undoes_skips_and_goes_on() {
    let dir = folder(ANSWERS);
    let dir = dir.path();
    let first = said(&terminal(dir, "anna", &[], "?\nx y z\n1 2\n213\nu\n1 1 -\n"));
    assert!(first.contains("[A]") && first.contains("Taken back.") && first.contains("Expected 3 numbers"), "{first}");
    assert!(!first.contains("secret") && !first.contains("model"), "{first}");
    let second = said(&terminal(dir, "anna", &[], "s unclear\n"));
    assert!(second.contains("Nothing waits for you"), "{second}");
    let votes = ok(dir, &["rank", "export", "answers.rankings.db", "--format", "votes"]);
    let votes: Vec<serde_json::Value> = votes.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(votes.len(), 3);
    assert!(votes[0]["withdrawn_at"].is_string() && votes[1]["withdrawn_at"].is_null());
    assert_eq!((&votes[2]["skipped"], &votes[2]["annotator"]), (&"unclear".into(), &"anna".into()));
    assert_eq!(std::fs::read_to_string(dir.join("answers.csv")).unwrap(), ANSWERS, "the data are as they were");
}

#[test]
fn a_database_is_data_for_every_command() {
    let dir = folder(ANSWERS);
    let dir = dir.path();
    let nothing = terminal(dir, "anna", &[], "q\n");
    assert!(nothing.status.success());
    let message = error(dir, &["pairs", "answers.rankings.db"]);
    assert!(message.contains("expected rankings, found none yet"), "{message}");
    said(&terminal(dir, "anna", &["--overlap", "2"], "1 2 3\n1 2\n"));
    said(&terminal(dir, "ben", &["--overlap", "2"], "1 2 3\n1 2\n"));
    let pairs = ok(dir, &["pairs", "answers.rankings.db"]);
    let ranked = ok(dir, &["rank", "export", "answers.rankings.db"]);
    assert_eq!(ranked.lines().count(), 5);
    assert!(pairs.lines().count() <= 4 && !pairs.contains("comparisons"), "{pairs}");
    ok(dir, &["check", "answers.rankings.db"]);
    let converted = ok(dir, &["convert", "answers.rankings.db", "-o", "-"]);
    assert_eq!((converted.lines().count(), converted.matches("\"comparisons\"").count()), (2, 2), "{converted}");
    ok(dir, &["rank", "export", "answers.rankings.db", "-o", "ranked.csv"]);
    let csv = std::fs::read_to_string(dir.join("ranked.csv")).unwrap();
    assert!(csv.starts_with("model,prompt,answer,rank\nsecret-m,p1,a,"), "{csv}");
    let results = ok(dir, &["rank", "results", "answers.rankings.db", "--overlap", "2"]);
    assert!(
        results.contains("4 rankings of 2 of 2 prompts; 2 have as many") && results.contains("Kendall's W"),
        "{results}"
    );
    assert!(results.lines().all(|line| line.chars().count() <= 110), "{results}");
    let json = ok(dir, &["rank", "results", "answers.rankings.db", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["rankings"], &json["people"][1]["name"]), (&4.into(), &"ben".into()));
}

#[test]
fn a_judge_is_trained_on_a_database() {
    let prompts: String = (0..12).map(|p| format!("what is {p},{p} it is\nwhat is {p},no\n")).collect();
    let dir = folder(&format!("prompt,answer\n{prompts}"));
    let dir = dir.path();
    said(&terminal(dir, "anna", &[], &"1 2\n".repeat(12)));
    let base = golden();
    let base = base.to_str().unwrap();
    let train = |output| ["train", "answers.rankings.db", "--base", base, "-o", output, "--max-steps", "2"];
    ok(dir, &train("judge"));
    let reward = std::fs::read_to_string(dir.join("judge/reward.json")).unwrap();
    assert!(reward.contains("answers.rankings.db"), "{reward}");
    let scored = ok(dir, &["score", "answers.rankings.db", "--judge", "judge"]);
    assert_eq!((scored.lines().count(), scored.matches("\"scores\"").count()), (12, 12));
    ok(dir, &train("again"));
    let weights = |judge: &str| std::fs::read(dir.join(judge).join("model.safetensors")).unwrap();
    assert_eq!(weights("judge"), weights("again"), "the same votes make the same judge");
}

#[test]
fn hostile_texts_do_not_reach_the_terminal_as_codes() {
    let dir = folder("prompt,answer\n\u{1b}[2Jp,\u{1b}]0;title\u{7}a\np,x\n\u{1b}[2Jp,\u{202e}b\n");
    let shown = said(&terminal(dir.path(), "anna", &[], ""));
    assert!(
        !shown.contains(['\u{1b}', '\u{7}', '\u{202e}']) && shown.contains("] a") && shown.contains("] b"),
        "{shown:?}"
    );
}

#[test]
fn databases_that_cannot_be_read() {
    let dir = folder(ANSWERS);
    let dir = dir.path();
    std::fs::write(dir.join("empty.db"), "").unwrap();
    for (arguments, expected) in [
        (["rank", "export", "none.db"], "expected a ranking database, found no file"),
        (["rank", "results", "answers.csv"], "found another kind of file"),
        (["rank", "export", "empty.db"], "found another kind of file"),
    ] {
        let message = error(dir, &arguments);
        assert!(message.contains(expected), "{message}");
    }
}

/// Prompts of the database, as another command reads it; none while there is no database yet.
fn prompts(dir: &Path, database: &str) -> usize {
    let output = kudos(dir).args(["rank", "results", database, "--json"]).output().unwrap();
    let results: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    results["items"].as_u64().unwrap_or(0) as usize
}

/// Waits for something that must come within seconds.
fn wait_for(what: impl Fn() -> bool) {
    for _ in 0..200 {
        if what() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it did not come");
}

#[test]
fn prompts_that_are_still_being_written_are_taken_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut command = kudos(dir);
    command.args(["rank", "-", "--no-open", "--port", "0", "--database", "r.db"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let row = |n: usize| format!("{{\"prompt\":\"p{n}\",\"responses\":[{{\"text\":\"a\"}},{{\"text\":\"b\"}}]}}\n");
    for n in 1..=3 {
        input.write_all(row(n).as_bytes()).unwrap();
        wait_for(|| prompts(dir, "r.db") == n);
    }
    // What cannot be used is said, and the next row is taken all the same.
    input.write_all(b"no JSON\n").unwrap();
    input.write_all(row(4).as_bytes()).unwrap();
    wait_for(|| prompts(dir, "r.db") == 4);
    drop(input);
    child.kill().unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(said.contains("standard input: not taken") && !said.contains("panicked"), "{said}");
}
