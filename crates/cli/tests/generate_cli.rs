//! Generation by the real binary on a tiny decoder: reproducible, resumable, and clear about what is wrong.

#[path = "../../kudos/tests/loopback/mod.rs"]
mod loopback;

use assert_cmd::cargo::cargo_bin;
use loopback::{Listener, read_head};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A model directory: the golden Llama with a tokenizer of 120 words, and prompts.
fn workplace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/decoders/llama");
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden.join(file), model.join(file)).unwrap();
    }
    let words: serde_json::Map<String, serde_json::Value> = (0..120).map(|i| (format!("w{i}"), i.into())).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
    });
    std::fs::write(model.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(model.join("tokenizer_config.json"), r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#).unwrap();
    std::fs::write(dir.path().join("prompts.txt"), "w5 w6 w7\nw8\n\nw9 w10 w11 w12 w13\nw5 w6 w7\n").unwrap();
    dir
}

fn generate(dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(cargo_bin("kudos"));
    command.current_dir(dir).args(["generate", "--model", "model"]).args(more);
    command
}

fn run(dir: &Path, more: &[&str]) -> Output {
    generate(dir, more).output().unwrap()
}

fn ok(dir: &Path, more: &[&str]) -> String {
    let output = run(dir, more);
    assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stderr).unwrap()
}

fn error(dir: &Path, more: &[&str]) -> String {
    let output = run(dir, more);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{more:?}: {message}");
    assert!(!message.contains("panicked"), "{message}");
    message
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn the_same_command_gives_the_same_file_whatever_threads_and_batches() {
    let dir = workplace();
    let dir = dir.path();
    let said = ok(dir, &["--prompts", "prompts.txt", "-n", "3", "-o", "a.csv", "--max-new-tokens", "20"]);
    assert!(said.contains("1 rows repeat") && said.contains("distinct-2"), "{said}");
    let one = ["--prompts", "prompts.txt", "-n", "3", "-o", "b.csv", "--max-new-tokens", "20", "--threads", "1"];
    ok(dir, &[&one[..], &["--sequences", "1"]].concat());
    let text = read(dir, "a.csv");
    assert_eq!(text, read(dir, "b.csv"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "prompt,answer,rank,model,seed,temperature,tokens,finish_reason,stopped_by");
    assert_eq!(lines.len(), 1 + 3 * 3, "three prompts, three responses each:\n{text}");
    assert!(lines[1].starts_with("w5 w6 w7,w") && lines[9].starts_with("w9 w10"), "{text}");
    let other = ["--prompts", "prompts.txt", "-n", "3", "-o", "c.csv", "--max-new-tokens", "20", "--seed", "1"];
    ok(dir, &other);
    assert_ne!(text, read(dir, "c.csv"));
}

#[test]
fn piped_prompts_are_the_same_as_those_of_the_file() {
    let dir = workplace();
    let dir = dir.path();
    let args = ["--prompts", "prompts.txt", "-n", "3", "--max-new-tokens", "10", "--pipe"];
    let output = run(dir, &[&args[..], &["-o", "a.jsonl"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let piped = String::from_utf8(output.stdout).unwrap();
    let mut piped: Vec<(String, Vec<String>)> = piped
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|row| {
            let texts = row["responses"].as_array().unwrap().iter();
            (row["prompt"].to_string(), texts.map(|response| response["text"].to_string()).collect())
        })
        .collect();
    let written = rows(dir, "a.jsonl");
    let mut expected: Vec<(String, Vec<String>)> = written
        .chunks(3)
        .map(|rows| (rows[0]["prompt"].to_string(), rows.iter().map(|row| row["answer"].to_string()).collect()))
        .collect();
    piped.sort();
    expected.sort();
    assert_eq!(piped, expected);
    assert_eq!(piped.len(), 3);
}

fn rows(dir: &Path, name: &str) -> Vec<serde_json::Value> {
    read(dir, name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Gives word 37 a name that is known to end a turn; no setting mentions it.
fn with_end_of_turn(dir: &Path) {
    let tokenizer = read(dir, "model/tokenizer.json").replace("\"w37\"", "\"<|eot_id|>\"");
    let added = r#""added_tokens":[{"id":37,"content":"<|eot_id|>","single_word":false,"lstrip":false,"rstrip":false,
        "normalized":false,"special":true}]"#;
    let tokenizer = tokenizer.replace(r#""added_tokens":[]"#, added);
    std::fs::write(dir.join("model/tokenizer.json"), tokenizer).unwrap();
}

#[test]
fn f4_a_response_ends_at_a_token_that_is_known_by_name_and_says_so() {
    let dir = workplace();
    let dir = dir.path();
    let args = ["--prompts", "prompts.txt", "-n", "30", "--max-new-tokens", "60", "--temperature", "2", "--top-p", "1"];
    ok(dir, &[&args[..], &["-o", "without.jsonl"]].concat());
    assert!(rows(dir, "without.jsonl").iter().any(|row| row["answer"].as_str().unwrap().contains("w37 ")));
    with_end_of_turn(dir);
    ok(dir, &[&args[..], &["-o", "a.jsonl", "--stop", "w40 w"]].concat());
    let rows = rows(dir, "a.jsonl");
    let stopped_by = |row: &serde_json::Value| row["stopped_by"].as_str().map(str::to_owned);
    let count = |by: Option<&str>| rows.iter().filter(|row| stopped_by(row).as_deref() == by).count();
    assert!(count(Some("<|eot_id|>")) > 5, "{} of {} ended there", count(Some("<|eot_id|>")), rows.len());
    for row in &rows {
        let answer = row["answer"].as_str().unwrap();
        assert!(!answer.contains("eot_id") && !answer.contains("w40 w"), "{row}");
        assert_eq!(row["finish_reason"] == "stop", stopped_by(row).is_some(), "{row}");
        assert!(row["finish_reason"] == "stop" || row["tokens"] == 60, "{row}");
    }
    assert!(count(Some("w40 w")) > 0, "a stop text says so too");
}

#[test]
fn temperatures_cycle_and_greedy_repeats_are_drawn_again_and_counted() {
    let dir = workplace();
    let dir = dir.path();
    let args = ["--prompts", "prompts.txt", "-n", "3", "--max-new-tokens", "10"];
    ok(dir, &[&args[..], &["-o", "a.jsonl", "--temperature", "0.5,1"]].concat());
    let rows: Vec<serde_json::Value> =
        read(dir, "a.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let temperatures: Vec<f64> = rows[..3].iter().map(|row| row["temperature"].as_f64().unwrap()).collect();
    assert_eq!(temperatures, [0.5, 1.0, 0.5]);
    let said = ok(dir, &[&args[..], &["-o", "b.jsonl", "--temperature", "0"]].concat());
    assert!(said.contains("6 repeat another"), "greedy responses are all alike: {said}");
}

fn start(dir: &Path, args: &[&str]) -> Child {
    generate(dir, args).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a run has something on disk; false if it ended before.
fn has_begun(dir: &Path, child: &mut Child, lines: usize) -> bool {
    let journal: PathBuf = dir.join("a.csv.progress.jsonl");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if std::fs::read_to_string(&journal).is_ok_and(|text| text.lines().count() > lines) {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("nothing was written for a minute");
}

const LONG: [&str; 10] =
    ["--prompts", "prompts.txt", "-n", "150", "-o", "a.csv", "--max-new-tokens", "60", "--sequences", "4"];

#[test]
fn a_killed_run_continues_to_the_same_file() {
    let dir = workplace();
    let dir = dir.path();
    let mut kills = 0;
    for lines in [1, 40, 120] {
        let mut child = start(dir, &LONG);
        if has_begun(dir, &mut child, lines) {
            child.kill().unwrap();
            kills += 1;
        }
        child.wait().unwrap();
        if dir.join("a.csv").exists() {
            break;
        }
    }
    assert!(kills > 0, "the run was never killed");
    if !dir.join("a.csv").exists() {
        let said = ok(dir, &LONG);
        assert!(said.contains("continuing"), "{said}");
    }
    assert!(!dir.join("a.csv.progress.jsonl").exists());
    let whole = workplace();
    ok(whole.path(), &LONG);
    assert_eq!(read(dir, "a.csv"), read(whole.path(), "a.csv"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_readable_file_and_the_run_goes_on() {
    let dir = workplace();
    let dir = dir.path();
    let mut child = start(dir, &LONG);
    if has_begun(dir, &mut child, 5) {
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        if output.status.code() == Some(1) {
            assert!(said.contains("the same command continues"), "{said}");
            let rows = read(dir, "a.csv").lines().count();
            assert!(rows > 1 && rows < 451, "{rows} rows");
            ok(dir, &LONG);
        }
    }
    assert_eq!(read(dir, "a.csv").lines().count(), 451);
}

#[test]
fn other_settings_do_not_continue_a_run() {
    let dir = workplace();
    let dir = dir.path();
    let mut child = start(dir, &LONG);
    let begun = has_begun(dir, &mut child, 1);
    child.kill().ok();
    child.wait().unwrap();
    if !begun || dir.join("a.csv").exists() {
        return; // It was faster than the kill.
    }
    let other = [&LONG[..], &["--top-k", "5"]].concat();
    let message = error(dir, &other);
    assert!(message.contains("top_k") && message.contains("--restart"), "{message}");
    ok(dir, &[&other[..], &["--restart"]].concat());
}

#[test]
fn a_prompt_beyond_the_context_is_an_error_of_its_own_row() {
    let dir = workplace();
    let dir = dir.path();
    std::fs::write(dir.join("long.txt"), format!("w5 w6\n{}\nw7\n", "w9 ".repeat(200))).unwrap();
    let message = error(dir, &["--prompts", "long.txt", "-n", "2", "-o", "a.csv", "--max-new-tokens", "5"]);
    assert!(message.contains("long.txt:2") && message.contains("context is 128"), "{message}");
    let text = read(dir, "a.csv");
    assert_eq!(text.lines().count(), 7);
    assert!(text.lines().next().unwrap().ends_with(",error"), "{text}");
    assert_eq!(text.matches(",error,").count(), 2, "two rows failed, four did not:\n{text}");
}

#[test]
fn bad_input_is_named() {
    let dir = workplace();
    let dir = dir.path();
    std::fs::write(dir.join("empty.txt"), "\n\n").unwrap();
    std::fs::write(dir.join("other.csv"), "question\nwhy?\n").unwrap();
    std::fs::write(dir.join("there.csv"), "").unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["--prompts", "empty.txt", "-o", "a.csv"], "empty.txt"),
        (&["--prompts", "other.csv", "-o", "a.csv"], "`prompt`"),
        (&["--prompts", "missing.txt", "-o", "a.csv"], "missing.txt"),
        (&["--prompts", "prompts.txt", "-o", "there.csv"], "--overwrite"),
    ];
    for (args, expected) in cases {
        let message = error(dir, args);
        assert!(message.contains(expected), "{args:?}: {message}");
    }
    assert_eq!(run(dir, &["--prompts", "prompts.txt", "-o", "a.csv", "-n", "0"]).status.code(), Some(2));
    assert_eq!(run(dir, &["--prompts", "prompts.txt", "-o", "-"]).status.code(), Some(2));
    let mut config: serde_json::Value = serde_json::from_str(&read(dir, "model/config.json")).unwrap();
    let layers = config["num_hidden_layers"].as_u64().unwrap() - 1;
    config["num_hidden_layers"] = layers.into();
    std::fs::write(dir.join("model/config.json"), config.to_string()).unwrap();
    let message = error(dir, &["--prompts", "prompts.txt", "-o", "a.csv"]);
    assert!(message.contains(&format!("unexpected tensor `model.layers.{layers}")), "{message}");
    std::fs::write(dir.join("model.gguf"), b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x0f").unwrap();
    let output = Command::new(cargo_bin("kudos"))
        .current_dir(dir)
        .args(["generate", "--model", "model.gguf", "--prompts", "prompts.txt", "-o", "a.csv"])
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && message.contains("model.gguf"), "{message}");
}

/// A server with one model, which answers with the seed and refuses to say anything about `w8`.
fn server() -> Listener {
    Listener::start(|mut stream, _| {
        let mut reader = BufReader::new(&stream);
        let Some((_, path, headers)) = read_head(&mut reader) else { return };
        let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let (status, answer) = if path.ends_with("/models") {
            (200, serde_json::json!({"data": [{"id": "only"}]}))
        } else if body["messages"][0]["content"] == "w8" {
            (400, serde_json::json!({"error": {"message": "not about w8"}}))
        } else {
            let message = serde_json::json!({"role": "assistant", "content": format!("seed {}", body["seed"])});
            let choice = serde_json::json!({"message": message, "finish_reason": "stop"});
            (200, serde_json::json!({"choices": [choice], "usage": {"completion_tokens": 3}}))
        };
        let text = answer.to_string();
        let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", text.len());
        let _ = stream.write_all((head + &text).as_bytes());
    })
}

#[test]
fn an_endpoint_writes_what_it_can_and_says_what_failed() {
    let dir = workplace();
    let dir = dir.path();
    let server = server();
    let url = format!("http://{}/v1", server.address);
    let args = ["generate", "--model", &url, "--prompts", "prompts.txt", "-n", "2", "-o", "a.jsonl"];
    let output = Command::new(cargo_bin("kudos")).current_dir(dir).args(args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("2 of 6 responses failed"), "{said}");
    assert!(said.contains("4 responses to 3 prompts, 2 failed") && said.contains("not about w8"), "{said}");
    let rows: Vec<serde_json::Value> =
        read(dir, "a.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 6);
    assert!(rows.iter().all(|row| row["model"] == "only"), "the server's only model was taken");
    assert!(rows[0]["answer"].as_str().unwrap().starts_with("seed ") && rows[0]["answer"] != rows[1]["answer"]);
    assert!(rows[2]["finish_reason"] == "error" && rows[2]["error"].as_str().unwrap().contains("not about w8"));
    assert!(dir.join("a.jsonl.progress.jsonl").exists(), "what failed is tried again by the same command");
}
