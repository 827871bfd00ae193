//! `kudos check` and `kudos pairs` from end to end, with the real binary.

use assert_cmd::Command;
use std::path::PathBuf;
use tempfile::TempDir;

const RANKINGS: &str = "prompt,answer,rank
p1,a,1
p1,b,2
p1,c,3
p1,d,4
p2,a,1
p2,,2
p2,c,3
p2,d,4
p3,a,1
p3,b,1
";

fn kudos(arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("kudos"));
    command.args(arguments);
    command
}

/// A directory with these files in it.
fn folder(files: &[(&str, &str)]) -> (TempDir, impl Fn(&str) -> String + use<>) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let root: PathBuf = directory.path().to_owned();
    (directory, move |name: &str| root.join(name).to_string_lossy().into_owned())
}

/// Exit status, standard output, standard error.
fn outcome(mut command: Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn pairs_to_a_file_and_to_standard_output() {
    let (directory, path) = folder(&[("r.csv", RANKINGS)]);
    let (status, stdout, stderr) = outcome(kudos(&["pairs", &path("r.csv"), "-o", &path("pairs.jsonl")]));
    assert_eq!((status, stdout.as_str()), (0, ""), "{stderr}");
    assert!(stderr.contains("r.csv:7: column `answer`: expected text, found nothing"), "{stderr}");
    assert!(stderr.contains("9 pairs written, 1 ties left out, 1 rows unusable"), "{stderr}");
    let written = std::fs::read_to_string(path("pairs.jsonl")).unwrap();
    assert_eq!(written.lines().count(), 9);
    assert_eq!(written.lines().next(), Some(r#"{"prompt":"p1","chosen":"a","rejected":"b"}"#));
    let (status, stdout, _) = outcome(kudos(&["pairs", &path("r.csv")]));
    assert_eq!((status, stdout), (0, written));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn pairs_keep_their_meaning_through_every_format() {
    let (_directory, path) = folder(&[("r.csv", RANKINGS)]);
    let direct = outcome(kudos(&["--quiet", "pairs", &path("r.csv")])).1;
    let mut last = path("r.csv");
    for name in ["a.parquet", "b.csv.gz", "c.json.zst", "d.jsonl"] {
        let (status, _, stderr) = outcome(kudos(&["--quiet", "pairs", &last, "-o", &path(name)]));
        assert_eq!((status, stderr.as_str()), (0, ""), "{name}");
        last = path(name);
    }
    assert_eq!(std::fs::read_to_string(last).unwrap(), direct);
}

#[test]
fn standard_input_of_any_format() {
    let (_directory, path) = folder(&[("r.csv", RANKINGS)]);
    outcome(kudos(&["pairs", &path("r.csv"), "-o", &path("p.parquet")]));
    for input in ["r.csv", "p.parquet"] {
        let mut command = kudos(&["--quiet", "pairs", "-"]);
        command.write_stdin(std::fs::read(path(input)).unwrap());
        let (status, stdout, stderr) = outcome(command);
        assert_eq!((status, stdout.lines().count()), (0, 9), "{input}: {stderr}");
    }
}

#[test]
fn pairs_that_cannot_be_made() {
    let bad = "prompt,answer,rank\np,a,first\np,b,2\n";
    let (_directory, path) = folder(&[("bad.csv", bad), ("ties.csv", "prompt,answer,rank\np,a,1\np,b,1\n")]);
    let [bad, ties, none, root, out] = ["bad.csv", "ties.csv", "none.csv", "", "out.jsonl"].map(&path);
    let cases: [(&[&str], &str); 5] = [
        (&["pairs", &bad, "-o", &out], "bad.csv:2: column `rank`: expected a number, found \"first\""),
        (&["pairs", &bad, "--strict"], "bad.csv:2: column `rank`"),
        (&["pairs", &ties], "1 ties and no unusable row"),
        (&["pairs", &none], "none.csv: expected a readable file"),
        (&["pairs", &root], "found a directory"),
    ];
    for (arguments, expected) in cases {
        let (status, _, stderr) = outcome(kudos(arguments));
        assert_eq!(status, 1, "{arguments:?}");
        assert!(stderr.contains(expected) && stderr.trim_end().lines().count() == 1, "{stderr}");
    }
    assert!(!std::path::Path::new(&out).exists());
    assert_eq!(outcome(kudos(&["pairs"])).0, 2, "wrong usage");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let rows: String = (0..200).map(|rank| format!("p,answer {rank},{rank}\n")).collect();
    let (_directory, path) = folder(&[("r.csv", &format!("prompt,answer,rank\n{rows}"))]);
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("kudos"))
        .args(["pairs", &path("r.csv")])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn summary_as_json() {
    let (_directory, path) = folder(&[("r.csv", RANKINGS)]);
    let (_, stdout, _) = outcome(kudos(&["pairs", "--json", &path("r.csv"), "-o", &path("p.jsonl")]));
    let summary: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&summary["pairs"], &summary["ties"], &summary["unusable"]), (&9.into(), &1.into(), &1.into()));
    let problem = &summary["problems"][0];
    assert_eq!((&problem["line"], &problem["code"]), (&7.into(), &"empty".into()));
}

#[test]
fn check_reports_and_exits() {
    let contradictory = "prompt,chosen,rejected\np1,a,b\np1,b,a\nq,x,y\n";
    let (_directory, path) = folder(&[("r.csv", RANKINGS), ("c.csv", contradictory)]);
    let (rankings, pairs) = (path("r.csv"), path("c.csv"));
    let (status, stdout, stderr) = outcome(kudos(&["check", &rankings]));
    assert_eq!((status, stderr.as_str()), (0, ""));
    let shown =
        ["3 prompts, 9 pairs", "warning: empty texts", "r.csv:7  column `answer`", "ties make no pair (1 place)"];
    for expected in shown {
        assert!(stdout.contains(expected), "{expected}\n{stdout}");
    }
    let (status, _, stderr) = outcome(kudos(&["check", &rankings, "--strict"]));
    assert!(status == 1 && stderr.contains("1 unusable rows in all"), "{stderr}");
    let (status, stdout, stderr) = outcome(kudos(&["check", &rankings, "--eval", &pairs]));
    assert!(status == 1 && stderr.contains("c.csv:2: prompts of the evaluation data are in"), "{stderr}");
    assert!(stdout.contains("c.csv:3  against"), "{stdout}");
}

#[test]
fn check_as_json() {
    let (_directory, path) = folder(&[("r.csv", RANKINGS)]);
    let (status, stdout, _) = outcome(kudos(&["check", "--json", &path("r.csv")]));
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((status, &report["pairs"], &report["rows"]["ranked"]), (0, &9.into(), &9.into()));
    let finding = &report["findings"][0];
    assert_eq!((&finding["code"], &finding["severity"]), (&"empty".into(), &"warning".into()));
    assert_eq!(finding["places"][0]["line"], 7);
}
