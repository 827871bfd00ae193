//! Jobs in parts, by the real binary on a tiny judge: whoever does them, and whatever dies, the result is that of one command.

mod binary;

use binary::{error, golden, kudos, ok, run};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Rows with other columns, two of which cannot be used, and one that is far longer than the others.
fn jsonl(rows: usize) -> String {
    (0..rows).fold(String::new(), |mut text, row| {
        let response = if row == 7 { "long ".repeat(300) } else { format!("It is {}, I think.", row * row % 97) };
        let line = match row {
            11 | 40 => "{\"prompt\": \"broken".to_owned(),
            _ => json!({"id": row, "prompt": format!("What is {row} squared?"), "response": response, "half": row as f64 / 2.0}).to_string(),
        };
        writeln!(text, "{line}").unwrap();
        text
    })
}

fn csv(rows: usize) -> String {
    (0..rows).fold("id,prompt,response,note\r\n".to_owned(), |mut text, row| {
        let line_break = if row % 5 == 0 { "\r\n" } else { " " };
        write!(text, "{row},\"What{line_break}is \"\"{row}\"\"?\",It is {}.,caf\u{e9}\r\n", row % 13).unwrap();
        text
    })
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

/// The words of `kudos score` with the tiny judge.
fn words<'a>(args: &[&'a str], judge: &'a str) -> Vec<&'a str> {
    ["score"].iter().chain(args).chain(["--judge", judge, "--quiet"].iter()).copied().collect()
}

fn judge() -> String {
    golden().display().to_string()
}

fn scored(dir: &Path, args: &[&str]) -> Output {
    run(dir, &words(args, &judge()))
}

fn score(dir: &Path, args: &[&str]) {
    ok(dir, &words(args, &judge()));
}

fn refused(dir: &Path, args: &[&str]) -> String {
    error(dir, &words(args, &judge()))
}

/// The files of a job that are no hidden ones, with their bytes.
fn parts(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let visible = names.filter(|name| name.starts_with("part-"));
    visible.map(|name| (name.clone(), std::fs::read(dir.join(name)).unwrap())).collect()
}

/// Joins a job into a file and gives its bytes.
fn collected(dir: &Path, job: &str, output: &str) -> Vec<u8> {
    ok(dir, &["collect", job, "-o", output, "--quiet"]);
    std::fs::read(dir.join(output)).unwrap()
}

/// Starts a share and kills it after a while, unless it is done before.
fn killed(dir: &Path, args: &[&str], after: Duration) -> Option<i32> {
    let mut child = start(dir, args);
    std::thread::sleep(after);
    let _ = child.kill();
    child.wait().unwrap().code()
}

fn start(dir: &Path, args: &[&str]) -> Child {
    let judge = judge();
    kudos(dir).args(words(args, &judge)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Numbers that differ from call to call, and are the same in each run of the tests.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

#[test]
fn every_cut_gives_what_one_command_gives() {
    let dir = folder(&[("a.jsonl", &jsonl(90))]);
    let dir = dir.path();
    ok(dir, &["convert", "a.jsonl", "-o", "a.parquet", "--quiet"]);
    std::fs::write(dir.join("b.csv"), csv(90)).unwrap();
    std::fs::write(dir.join("c.jsonl.zst"), zstd::encode_all(jsonl(90).as_bytes(), 1).unwrap()).unwrap();
    for input in ["a.jsonl", "a.parquet", "b.csv", "c.jsonl.zst"] {
        for output in ["out.jsonl", "out.csv", "out.parquet"] {
            score(dir, &[input, "-o", output]);
        }
        let plain = ["out.jsonl", "out.csv", "out.parquet"].map(|name| std::fs::read(dir.join(name)).unwrap());
        let one = format!("one-{input}");
        score(dir, &[input, "-o", &one, "--shard", "1/1", "--unit-size", "16"]);
        let three = format!("three-{input}");
        for shard in ["3/3", "1/3", "2/3"] {
            score(dir, &[input, "-o", &three, "--shard", shard, "--unit-size", "16"]);
        }
        assert_eq!(parts(&dir.join(&one)), parts(&dir.join(&three)), "{input}");
        assert!(parts(&dir.join(&one)).len() >= 5, "{input}");
        for (output, plain) in ["got.jsonl", "got.csv", "got.parquet"].iter().zip(&plain) {
            assert!(collected(dir, &three, output) == *plain, "{input} {output}");
        }
    }
}

#[test]
fn several_files_stand_one_after_another() {
    let dir = folder(&[("a.jsonl", &jsonl(50)), ("b.csv", &csv(20))]);
    let dir = dir.path();
    score(dir, &["a.jsonl", "b.csv", "-o", "job", "--shard", "1/1", "--unit-size", "16"]);
    let joined = collected(dir, "job", "all.jsonl");
    let lines: Vec<Value> =
        joined.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let mut expected = Vec::new();
    for input in ["a.jsonl", "b.csv"] {
        let printed = scored(dir, &[input]).stdout;
        expected.extend(printed.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok()));
    }
    let facts =
        |rows: &[Value]| rows.iter().map(|row| json!([row["score"], row["tokens"], row["prompt"]])).collect::<Vec<_>>();
    assert_eq!((facts(&lines), lines.len()), (facts(&expected), 68));
    assert!(lines[0].get("note").is_none() && lines[60].get("half").is_none() && lines[60]["note"] == "caf\u{e9}");
    let said = String::from_utf8(run(dir, &["collect", "job", "-o", "again.jsonl"]).stderr).unwrap();
    assert!(said.contains("2 rows could not be used") && said.contains("a.jsonl:12: "), "{said}");
}

#[test]
fn what_was_killed_is_gone_on_with() {
    let dir = folder(&[("a.jsonl", &jsonl(400))]);
    let dir = dir.path();
    score(dir, &["a.jsonl", "-o", "plain.jsonl"]);
    score(dir, &["a.jsonl", "-o", "whole", "--shard", "1/1", "--unit-size", "4"]);
    let (plain, whole) = (std::fs::read(dir.join("plain.jsonl")).unwrap(), parts(&dir.join("whole")));
    let mut random = Random(7);
    let mut early = 0;
    for round in 0..6 {
        let job = format!("job-{round}");
        let args = |shard| ["a.jsonl", "-o", &job, "--shard", shard, "--unit-size", "4"].map(str::to_owned);
        for shard in ["1/2", "2/2", "1/1"] {
            let args = args(shard);
            let args = args.each_ref().map(String::as_str);
            early += u32::from(killed(dir, &args, Duration::from_millis(random.below(250))).is_none());
            let made = if dir.join(&job).is_dir() { parts(&dir.join(&job)) } else { BTreeMap::new() };
            assert!(made.iter().all(|(name, bytes)| whole[name] == *bytes), "no half part has a name");
        }
        let args = args("1/1");
        score(dir, &args.each_ref().map(String::as_str));
        assert_eq!(parts(&dir.join(&job)), whole);
        assert!(collected(dir, &job, "got.jsonl") == plain);
        let left = std::fs::read_dir(dir.join(&job)).unwrap().count();
        assert_eq!(left, whole.len() + 1, "the parts and the manifest, and nothing that was left over");
    }
    assert!(early > 0, "no run was killed before its end");
}

#[test]
fn damaged_and_missing_parts_are_done_again_and_nothing_else() {
    let dir = folder(&[("a.jsonl", &jsonl(60))]);
    let dir = dir.path();
    let args = ["a.jsonl", "-o", "job", "--shard", "1/1", "--unit-size", "16"];
    score(dir, &args);
    let job = dir.join("job");
    let whole = parts(&job);
    let names: Vec<&String> = whole.keys().collect();
    std::fs::write(job.join(names[0]), &whole[names[0]][..whole[names[0]].len() / 2]).unwrap();
    std::fs::remove_file(job.join(names[1])).unwrap();
    let mut changed = whole[names[2]].clone();
    changed[100] ^= 1;
    std::fs::write(job.join(names[2]), &changed).unwrap();
    std::fs::write(job.join(format!(".writing-{}-xyz", names[1])), "half").unwrap();
    let time = |name: &str| std::fs::metadata(job.join(name)).unwrap().modified().unwrap();
    let untouched = time(names[3]);
    let said = error(dir, &["collect", "job", "-o", "got.jsonl"]);
    assert!(
        said.contains("expected 4 parts, 3 are missing (2 of them damaged): units 0, 1, 2; run `kudos score a.jsonl"),
        "{said}"
    );
    assert!(said.contains("--shard 1/1`") && !dir.join("got.jsonl").exists(), "{said}");
    let again = scored(dir, &args);
    assert!(again.status.success() && String::from_utf8(again.stderr).unwrap().contains("done again"));
    assert_eq!((parts(&job), time(names[3])), (whole, untouched));
    assert_eq!(std::fs::read_dir(&job).unwrap().count(), 5);
}

#[test]
fn another_job_is_refused_and_leaves_the_first_as_it_is() {
    let dir = folder(&[("a.jsonl", &jsonl(30)), ("b.jsonl", &jsonl(31))]);
    let dir = dir.path();
    let other = dir.join("other");
    std::fs::create_dir(&other).unwrap();
    for entry in std::fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, other.join(path.file_name().unwrap())).unwrap();
    }
    let args = ["a.jsonl", "-o", "job", "--shard", "1/1", "--unit-size", "16"];
    score(dir, &args);
    let before = parts(&dir.join("job"));
    ok(dir, &words(&args, "other"));
    let config = std::fs::read_to_string(other.join("config.json")).unwrap();
    std::fs::write(other.join("config.json"), format!("{config}\n")).unwrap();
    let said = error(dir, &words(&args, "other"));
    assert!(said.contains("the job there is by another judge than other (config.json differs)"), "{said}");
    let cases: [(&[&str], &str); 6] = [
        (&["b.jsonl", "-o", "job", "--shard", "1/1"], "the job there has another a.jsonl (SHA-256 "),
        (&["a.jsonl", "b.jsonl", "-o", "job", "--shard", "1/1"], "the job there has 1 inputs, this call 2"),
        (&["a.jsonl", "-o", "job", "--shard", "1/1", "--unit-size", "8"], "has the unit size 16, this call 8"),
        (&["a.jsonl", "-o", "job", "--shard", "1/1", "--prefix", "x_"], "has the prefix none, this call x_"),
        (&["a.jsonl", "-o", ".", "--shard", "1/1"], "expected a new or empty directory"),
        (&["a.jsonl", "-o", "job", "--shard", "1/1", "--columns", "prompt=id"], "has the data "),
    ];
    for (args, expected) in cases {
        let said = refused(dir, args);
        assert!(said.contains(expected) && said.trim().lines().count() == 1, "{said}");
    }
    std::fs::write(dir.join("a.jsonl"), jsonl(30).replace("squared", "cubed")).unwrap();
    let said = refused(dir, &args);
    assert!(said.contains("another a.jsonl") && said.contains("write to another directory"), "{said}");
    std::fs::remove_file(dir.join("a.jsonl")).unwrap();
    assert!(refused(dir, &args).contains("a.jsonl: expected a readable file"));
    assert_eq!(parts(&dir.join("job")), before);
    let said = error(dir, &["collect", "other"]);
    assert!(said.contains("expected the directory of `kudos score --shard`"), "{said}");
}

#[test]
fn two_at_once_do_no_harm() {
    let dir = folder(&[("a.jsonl", &jsonl(300))]);
    let dir = dir.path();
    score(dir, &["a.jsonl", "-o", "whole", "--shard", "1/1", "--unit-size", "4"]);
    let args = ["a.jsonl", "-o", "job", "--shard", "1/1", "--unit-size", "4"];
    let both = [start(dir, &args), start(dir, &args)];
    for mut child in both {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(parts(&dir.join("job")), parts(&dir.join("whole")));
    assert_eq!(std::fs::read_dir(dir.join("job")).unwrap().count(), 1 + parts(&dir.join("whole")).len());
}

/// The shell limits the size of files, as a full disk does.
#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_and_no_half_part() {
    let dir = folder(&[("a.jsonl", &jsonl(60))]);
    let dir = dir.path();
    score(dir, &["a.jsonl", "-o", "whole", "--shard", "1/1", "--unit-size", "512"]);
    let (whole, judge) = (parts(&dir.join("whole")), judge());
    std::fs::create_dir(dir.join("job")).unwrap();
    std::fs::copy(dir.join("whole/manifest.json"), dir.join("job/manifest.json")).unwrap();
    let program = assert_cmd::cargo::cargo_bin("kudos");
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
    let args = words(&["a.jsonl", "-o", "job", "--shard", "1/1", "--unit-size", "512"], &judge);
    let output = std::process::Command::new("sh")
        .current_dir(dir)
        .arg("-c")
        .arg(script)
        .arg(program)
        .args(&args)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("part-00000.parquet: expected to write the output") && said.contains("free space"), "{said}");
    assert_eq!(std::fs::read_dir(dir.join("job")).unwrap().count(), 1, "the manifest alone");
    ok(dir, &args);
    assert_eq!(parts(&dir.join("job")), whole);
}

#[test]
fn what_cannot_be_a_job_is_said() {
    let dir = folder(&[("a.jsonl", &jsonl(30)), ("none.jsonl", "{\"prompt\": \"p\", \"response\": 7}\n")]);
    let dir = dir.path();
    let said = refused(dir, &["-", "-o", "job", "--shard", "1/1"]);
    assert!(said.contains("expected a file, which can be read more than once, found standard input"), "{said}");
    let said = refused(dir, &["none.jsonl", "-o", "job", "--shard", "1/1"]);
    assert!(said.contains("expected a response to score, found none (1 unusable rows"), "{said}");
    let said = refused(dir, &["a.jsonl", "-o", "job", "--shard", "1/1", "--strict"]);
    assert!(said.contains("a.jsonl:12: "), "{said}");
    assert!(!dir.join("job").exists(), "nothing was begun");
    let judge = judge();
    for (args, expected) in [
        (&["a.jsonl", "-o", "job", "--shard", "4/3"][..], "expected I/N"),
        (&["a.jsonl", "--shard", "1/3"], "--output"),
        (&["a.jsonl", "a.jsonl", "-o", "x.jsonl"], "expected one file, found 2"),
    ] {
        let said = binary::usage(dir, &words(args, &judge));
        assert!(said.contains(expected), "{said}");
    }
}
