//! The judge in the box: the first minute with nothing downloaded, by the real binary.

#![cfg(feature = "boxed-judge")]

use assert_cmd::Command;
use std::path::Path;

fn kudos(home: &Path) -> Command {
    let mut command = Command::cargo_bin("kudos").unwrap();
    command.env("KUDOS_HOME", home).env("HF_HUB_OFFLINE", "1").args(["--threads", "2"]);
    command
}

fn score(home: &Path, prompt: &str, response: &str) -> f64 {
    let output = kudos(home).args(["score", "--prompt", prompt, "--response", response]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

const PROMPT: &str = "How do I keep basil alive on a windowsill?";
const GOOD: &str =
    "Give it six hours of light, water when the top of the soil is dry, and pinch off the tips so that it branches.";
const BAD: &str = "basil basil basil the the of of i dont no lol";

#[test]
fn it_scores_at_once_and_again_from_its_folder() {
    let home = tempfile::tempdir().unwrap();
    let first = score(home.path(), PROMPT, GOOD);
    let folders: Vec<_> = std::fs::read_dir(home.path().join("models")).unwrap().collect();
    assert_eq!(folders.len(), 1, "one folder, no staging left");
    assert_eq!(first, score(home.path(), PROMPT, GOOD));
    assert_ne!(first, score(home.path(), PROMPT, BAD));
}

#[test]
fn it_says_what_a_single_score_means_beside_the_number() {
    let home = tempfile::tempdir().unwrap();
    let run = |quiet: &[&str]| {
        let output =
            kudos(home.path()).args(["score", "--prompt", PROMPT, "--response", BAD]).args(quiet).output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (number, said) = run(&[]);
    let chance = said.split(" % likely").next().and_then(|before| before.split_whitespace().last()).unwrap();
    let mean = said.split("scores there: ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let [score, mean, chance] = [number.trim(), mean, chance].map(|text| text.parse::<f64>().unwrap());
    assert_eq!(chance > 50.0, score > mean, "{number}{said}");
    assert!(said.contains("compare it with that of another response to the same prompt"), "{said}");
    assert_eq!(run(&["--quiet"]), (number, String::new()));
}

#[test]
fn it_scores_where_no_folder_can_be_made() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("occupied");
    std::fs::write(&file, "").unwrap();
    assert_eq!(score(&file.join("home"), PROMPT, GOOD), score(home.path(), PROMPT, GOOD));
}

#[test]
fn a_judge_of_ones_own_starts_from_it() {
    let home = tempfile::tempdir().unwrap();
    let (data, judge) = (home.path().join("mine.csv"), home.path().join("judge"));
    let row = |i: usize| format!("\"{PROMPT} {i}\",\"{GOOD}\",1\n\"{PROMPT} {i}\",\"{BAD} {i}\",2\n");
    std::fs::write(&data, format!("prompt,answer,rank\n{}", (0..8).map(row).collect::<String>())).unwrap();
    let output =
        kudos(home.path()).arg("train").arg(&data).arg("-o").arg(&judge).args(["--max-steps", "1"]).output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{messages}");
    assert!(messages.contains("the base's own head: cross-validated loss"), "{messages}");
    assert!(messages.contains("the head alone: held-out accuracy"), "{messages}");
    let reward: serde_json::Value = serde_json::from_slice(&std::fs::read(judge.join("reward.json")).unwrap()).unwrap();
    assert_eq!(reward["base"], "kudos-judge");
    assert!(judge.join("model.safetensors").exists(), "it is stored in full");
}
