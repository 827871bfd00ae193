//! The facts of a row through the commands, by the real binary on a tiny judge: what a row says stays with it, what it asks
//! is one prompt in every form, and nothing of it is lost.

mod binary;

use binary::{error, golden, kudos, ok, run};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use tempfile::TempDir;

/// A directory with these files in it.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

/// Arguments, with the tiny judge.
fn by_judge(args: &[&str]) -> Vec<String> {
    let judge = golden().display().to_string();
    args.iter().map(|arg| arg.to_string()).chain(["--judge".to_owned(), judge]).collect()
}

/// What `score` or `best` prints, row by row, and its standard error.
fn rows(dir: &Path, args: &[&str]) -> (Vec<Value>, String) {
    let args = by_judge(args);
    let output = run(dir, &args.iter().map(String::as_str).collect::<Vec<_>>());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {said}");
    (lines(&String::from_utf8(output.stdout).unwrap()), said)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn message(dir: &Path, args: &[&str]) -> String {
    error(dir, &by_judge(args).iter().map(String::as_str).collect::<Vec<_>>())
}

fn column(rows: &[Value], name: &str) -> Vec<Value> {
    rows.iter().map(|row| row[name].clone()).collect()
}

const IDS: &str = "id,prompt,response,model
1,Name a prime.,nine,model-A
2,Name a prime.,Seven is a prime number.,model-B
3,Name a prime.,no,model-C
";

#[test]
fn f1_a_kept_response_has_the_columns_of_its_own_row() {
    let pairs = "id,prompt,chosen,rejected\n1,p,one,two\n2,p,three,four\n3,p,one,five\n";
    let dir = folder(&[("ids.csv", IDS), ("pairs.csv", pairs)]);
    let (scored, _) = rows(dir.path(), &["score", "ids.csv"]);
    let (best, _) = rows(dir.path(), &["best", "ids.csv", "-k", "3"]);
    assert_eq!(best.len(), 3);
    for kept in &best {
        let own = scored.iter().find(|row| row["response"] == kept["response"]).unwrap();
        for fact in ["id", "model", "score"] {
            assert_eq!(kept[fact], own[fact], "{kept}");
        }
    }
    let (best, _) = rows(dir.path(), &["best", "pairs.csv", "-k", "9"]);
    for (response, id) in [("one", "1"), ("two", "1"), ("three", "2"), ("four", "2"), ("five", "3")] {
        assert_eq!(best.iter().find(|row| row["response"] == response).unwrap()["id"], id);
    }
}

#[test]
fn f2_eval_counts_a_pair_in_the_subset_of_its_own_row() {
    let subsets = r#"{"id":1,"subset":"mt-bench-easy","prompt":"p","chosen":"a good one","rejected":"b"}
{"id":2,"subset":"mt-bench-hard","prompt":"p","chosen":"c","rejected":"d is longer than c"}
{"id":3,"subset":"mt-bench-hard","prompt":"q","chosen":"c","rejected":"d is longer than c"}
"#;
    let dir = folder(&[("subs.jsonl", subsets)]);
    let args = by_judge(&["eval", "subs.jsonl", "--json", "--analysis"]);
    let report = ok(dir.path(), &args.iter().map(String::as_str).collect::<Vec<_>>());
    let report: Value = serde_json::from_str(&report).unwrap();
    let data = &report["data"][0];
    for (subset, pairs) in [("mt-bench-easy", 1), ("mt-bench-hard", 2)] {
        assert_eq!(data["subsets"][subset]["pairs"], pairs, "{subset}");
        assert_eq!(data["analysis"]["accuracy"]["subsets"][subset]["pairs"], pairs, "{subset}");
    }
    for mistake in data["analysis"]["mistakes"].as_array().unwrap() {
        let hard = !mistake["location"].as_str().unwrap().ends_with(":1");
        assert_eq!(mistake["subset"], if hard { "mt-bench-hard" } else { "mt-bench-easy" }, "{mistake}");
    }
}

/// The same questions as texts, and as messages.
fn both_forms(count: usize) -> [String; 2] {
    let text = |n: usize| json!({"prompt": format!("What is {n} plus {n}?"), "chosen": format!("It is {}.", 2 * n), "rejected": format!("It is {}, I think.", 2 * n + 1)});
    let turn = |role: &str, content: &Value| json!([{"role": role, "content": content}]);
    let chat = |n: usize| {
        let text = text(n);
        json!({"prompt": turn("user", &text["prompt"]), "chosen": turn("assistant", &text["chosen"]), "rejected": turn("assistant", &text["rejected"])})
    };
    let all = |row: &dyn Fn(usize) -> Value| (0..count).map(|n| format!("{}\n", row(n))).collect::<String>();
    [all(&text), all(&chat)]
}

#[test]
fn f3_a_leak_is_found_whatever_form_the_prompt_has() {
    let [texts, chats] = both_forms(40);
    let shouted = texts.replace("What is", "WHAT  is");
    let dir = folder(&[("tr.jsonl", &texts), ("ev.jsonl", &chats), ("shouted.jsonl", &shouted)]);
    for eval in ["ev.jsonl", "shouted.jsonl"] {
        let output = run(dir.path(), &["check", "tr.jsonl", "--eval", eval, "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let leak = &report["findings"][0];
        assert_eq!((output.status.code(), &leak["code"], &leak["count"]), (Some(1), &json!("leak"), &json!(40)));
    }
    let (scores, _) = rows(dir.path(), &["score", "tr.jsonl"]);
    let (other, _) = rows(dir.path(), &["score", "ev.jsonl"]);
    assert_eq!(column(&scores, "score_chosen"), column(&other, "score_chosen"), "the model reads the same");
}

#[test]
fn f3_both_forms_of_a_prompt_are_in_one_fold() {
    let dir = folder(&[("mixed.jsonl", &both_forms(6).concat())]);
    let base = golden().display().to_string();
    let folds = ["train", "mixed.jsonl", "--base", &base, "--folds", "3", "--max-steps", "1", "-o", "judge", "--quiet"];
    // A judge of width 32 with a head fitted to six pairs is further from f32 in bf16 and in 8 bits than its self-test
    // allows, so f32 alone is on offer.
    let trained = kudos(dir.path()).env("KUDOS_ISA", "baseline").args(folds).output().unwrap();
    assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
    let out = lines(&std::fs::read_to_string(dir.path().join("judge/run/out_of_fold.jsonl")).unwrap());
    assert_eq!(out.len(), 6, "both forms are one group");
    let pairs = lines(&ok(dir.path(), &["pairs", "mixed.jsonl", "--quiet"]));
    assert_eq!(pairs.len(), 12, "and both judgements are there");
}

#[test]
fn f5_columns_of_the_input_are_kept_in_every_format() {
    let one = r#"{"id":"a","prompt":"p","response":"r","score":0.75,"tokens":["x"],"truncated":"no"}
{"id":"b","prompt":"p","response":"r2","score":7}
"#;
    let pairs = r#"{"prompt":"p","chosen":"good answer","rejected":"bad","score_chosen":8.5,"score_rejected":3.0}"#;
    let dir = folder(&[("one.jsonl", one), ("pairs.jsonl", pairs), ("one.csv", "prompt,response,score\np,r,0.75\n")]);
    let (found, said) = rows(dir.path(), &["score", "one.jsonl"]);
    assert_eq!(column(&found, "score"), [json!(0.75), json!(7)]);
    assert_eq!((&found[0]["tokens"], &found[0]["truncated"]), (&json!(["x"]), &json!("no")));
    assert!(found.iter().all(|row| row["kudos_score"].is_f64() && row["kudos_truncated"].is_boolean()));
    assert_eq!(said.matches("is written as `kudos_score`").count(), 1, "{said}");
    let (found, _) = rows(dir.path(), &["score", "pairs.jsonl", "--quiet"]);
    assert_eq!((&found[0]["score_chosen"], &found[0]["score_rejected"]), (&json!(8.5), &json!(3.0)));
    assert!(found[0]["kudos_score_chosen"].is_f64() && found[0]["tokens"].is_u64());
    for name in ["out.csv", "out.parquet", "out.json.gz"] {
        rows(dir.path(), &["score", "one.csv", "-o", name]);
        let (again, _) = rows(dir.path(), &["score", name]);
        let number = |column: &str| again[0][column].as_f64().or_else(|| again[0][column].as_str()?.parse().ok());
        assert_eq!(number("score"), Some(0.75), "{name}");
        assert_eq!(number("kudos_score"), number("kudos_score_2"), "the first score is kept beside the second: {name}");
    }
    let (best, said) = rows(dir.path(), &["best", "one.jsonl", "-k", "2"]);
    let own = best.iter().find(|row| row["id"] == "a").unwrap();
    assert_eq!((&own["score"], &own["tokens"], own["kudos_score"].is_f64()), (&json!(0.75), &json!(["x"]), true));
    assert!(said.contains("is written as `kudos_score`"), "{said}");
}

#[test]
fn f5_a_column_of_a_late_row_is_kept_or_refused() {
    let row = |n: usize| format!("{{\"prompt\":\"p\",\"response\":\"r {n}\"}}\n");
    let text = (0..1500).map(row).collect::<String>() + "{\"prompt\":\"p\",\"response\":\"r\",\"score\":0.75}\n";
    let dir = folder(&[("late.jsonl", &text)]);
    let (found, _) = rows(dir.path(), &["score", "late.jsonl", "--quiet"]);
    assert_eq!(found[1500]["score"], 0.75);
    assert!(found.iter().all(|row| row["kudos_score"].is_f64()) && found[0].get("score").is_none());
    for (more, status, expected) in
        [(&[][..], 1, "-:1501: column `score`: expected the columns of the rows before"), (&["--prefix", "j_"], 0, "")]
    {
        let mut child = kudos(dir.path());
        child.args(by_judge(&["score", "-", "--quiet"])).args(more);
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let text = text.clone();
        let writer = std::thread::spawn(move || drop(input.write_all(text.as_bytes())));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains(expected), "{said}");
        if status == 0 {
            let found = lines(&String::from_utf8(output.stdout).unwrap());
            assert_eq!((&found[1500]["score"], found[1500]["j_score"].is_f64()), (&json!(0.75), true));
        }
    }
}

fn h4(responses: impl Fn(&str, &str) -> Value) -> String {
    let row = |n: usize| {
        let prompt = format!("Tell me about topic {n}.");
        let (good, bad) = (format!("Topic {n} is wide and deep."), "No.");
        format!(
            "{}\n",
            json!({"prompt": prompt, "chosen": responses(&prompt, &good), "rejected": responses(&prompt, bad)})
        )
    };
    (0..4).map(row).collect()
}

#[test]
fn f9_a_repeated_prompt_is_read_once() {
    let user = |prompt: &str| json!({"role": "user", "content": prompt});
    let reply = |text: &str| json!({"role": "assistant", "content": text});
    let whole = h4(|prompt, text| json!([user(prompt), reply(text)]));
    let alone = h4(|_, text| json!([reply(text)]));
    let texts = h4(|_, text| json!(text));
    let without = whole.replace("\"prompt\":", "\"x\":");
    let other = whole.replacen("Tell me about topic 2.", "Something else.", 1);
    let names = ["whole.jsonl", "alone.jsonl", "texts.jsonl", "without.jsonl"];
    let files = [&whole, &alone, &texts, &without];
    let mut all: Vec<(&str, &str)> = names.into_iter().zip(files.map(String::as_str)).collect();
    all.push(("other.jsonl", &other));
    let dir = folder(&all);
    let scores = |name: &str| {
        let (found, _) = rows(dir.path(), &["score", name, "--quiet"]);
        ["score_chosen", "score_rejected", "tokens"].map(|of| column(&found, of))
    };
    let expected = scores("texts.jsonl");
    for name in names {
        assert_eq!(scores(name), expected, "{name}");
    }
    let (found, said) = rows(dir.path(), &["score", "other.jsonl"]);
    assert_eq!(found.len(), 3);
    assert!(
        said.contains("other.jsonl:3: column `chosen`: expected the reply alone, or a conversation that begins"),
        "{said}"
    );
    let output = run(dir.path(), &["check", "texts.jsonl", "--eval", "without.jsonl", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["findings"][0]["code"], &report["findings"][0]["count"]), (&json!("leak"), &json!(4)));
}

#[test]
fn f10_integers_of_any_size_pass_through() {
    const BIG: &str = "123456789012345678901234567890";
    let row = format!(
        r#"{{"id":9007199254740993,"u":18446744073709551615,"b":{BIG},"list":[{BIG}],"f":0.1,"prompt":"p","response":"a","rank":1}}"#
    );
    let other = r#"{"id":1,"u":2,"b":3,"list":[],"f":1.0,"prompt":"p","response":"b","rank":2}"#;
    let dir = folder(&[("big.jsonl", &format!("{row}\n{other}\n"))]);
    let start = row.trim_end_matches('}');
    let text = |args: &[&str]| ok(dir.path(), &by_judge(args).iter().map(String::as_str).collect::<Vec<_>>());
    assert!(text(&["score", "big.jsonl", "--quiet"]).starts_with(start));
    assert!(text(&["best", "big.jsonl", "-k", "2", "--quiet"]).contains(&format!(r#""b":{BIG},"list":[{BIG}]"#)));
    text(&["score", "big.jsonl", "-o", "o.csv", "--quiet"]);
    let csv = std::fs::read_to_string(dir.path().join("o.csv")).unwrap();
    assert!(csv.contains(&format!("9007199254740993,18446744073709551615,{BIG},[{BIG}],0.1,p,a,1,")), "{csv}");
    let said = message(dir.path(), &["score", "big.jsonl", "-o", "o.parquet"]);
    assert!(said.contains("column \"u\": expected a value that a column can hold, found the number 184467"), "{said}");
    assert!(!dir.path().join("o.parquet").exists());
}

#[test]
fn f11_empty_prompts_are_scored_as_on_the_command_line() {
    let text = r#"{"id":1,"prompt":"","response":"fine"}
{"id":2,"prompt":"  ","response":"fine"}
{"id":3,"prompt":[{"role":"user","content":""}],"response":"fine"}
{"id":4,"prompt":null,"response":"a"}
{"id":5,"prompt":"x","response":""}
"#;
    let dir = folder(&[
        ("empty.jsonl", text),
        ("empty.csv", "prompt,response\n,fine\n"),
        ("pairs.jsonl", r#"{"prompt":"","chosen":"fine","rejected":"no"}"#),
    ]);
    let judge = golden().display().to_string();
    let alone = |prompt: &str| {
        let args = ["score", "--judge", &judge, "--prompt", prompt, "--response", "fine", "--quiet"];
        ok(dir.path(), &args).trim().parse::<f32>().unwrap()
    };
    let single = |value: &Value| value.as_f64().unwrap() as f32;
    let (found, said) = rows(dir.path(), &["score", "empty.jsonl"]);
    let scores: Vec<f32> = column(&found, "score").iter().map(single).collect();
    assert_eq!(scores[..3], [alone(""), alone("  "), alone("")]);
    assert_eq!((found.len(), &found[3]["id"]), (4, &json!(5)));
    assert!(said.contains("empty.jsonl:4: column `prompt`: expected text, found nothing"), "{said}");
    assert_eq!(single(&rows(dir.path(), &["score", "empty.csv"]).0[0]["score"]), alone(""));
    assert_eq!(single(&rows(dir.path(), &["score", "pairs.jsonl"]).0[0]["score_chosen"]), alone(""));
    let report: Value = serde_json::from_str(&ok(dir.path(), &["check", "empty.jsonl", "--json"])).unwrap();
    let codes = column(report["findings"].as_array().unwrap(), "code");
    assert!(codes.contains(&json!("empty_prompt")), "{codes:?}");
}

#[test]
fn f11_nothing_scored_is_a_failure() {
    let dir = folder(&[
        ("cut.jsonl", "{\"prompt\":\"p\",\"response\":\"a\n{\"prompt\":\"p\",\"response\":\"b\n"),
        ("trail.jsonl", "{\"prompt\":\"p\",\"response\":\"a\"},\n{\"prompt\":\"p\",\"response\":\"b\"},\n"),
    ]);
    for command in ["score", "best"] {
        for (file, unusable) in [("cut.jsonl", 2), ("trail.jsonl", 2)] {
            let said = message(dir.path(), &[command, file, "-o", "out.jsonl"]);
            let expected = format!("{file}: expected a response to score, found none ({unusable} unusable rows");
            assert!(said.contains(&expected), "{said}");
            assert!(!dir.path().join("out.jsonl").exists());
        }
    }
    let kept = by_judge(&["best", "ids.csv", "--min-score", "1000", "--quiet"]);
    std::fs::write(dir.path().join("ids.csv"), IDS).unwrap();
    let kept = ok(dir.path(), &kept.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(kept, "", "a filter that keeps nothing has done its work");
}

#[test]
fn f13_identical_texts_of_different_ranks_make_no_pair() {
    let same = "prompt,answer,rank\np,same,1\np,same,2\n";
    let more = "prompt,answer,rank\np,same,1\np,same,2\np,other,3\nq,x,1\nq,x,1\nq,y,2\n";
    let chat = r#"{"prompt":"p","responses":[{"text":"x","rank":1},{"text":[{"role":"assistant","content":"x"}],"rank":2}]}
{"prompt":"p","chosen":"x","rejected":[{"role":"assistant","content":"x"}]}
"#;
    let dir = folder(&[("same.csv", same), ("more.csv", more), ("chat.jsonl", chat)]);
    let base = golden().display().to_string();
    let said = error(dir.path(), &["train", "same.csv", "--base", &base, "-o", "judge"]);
    assert!(said.contains("same.csv:3: expected one rank for a response, found the text of same.csv:2"), "{said}");
    for file in ["same.csv", "chat.jsonl"] {
        assert!(error(dir.path(), &["pairs", file]).contains("found none"), "{file}");
    }
    let pairs = lines(&ok(dir.path(), &["pairs", "more.csv"]));
    let sides: Vec<_> = pairs.iter().map(|row| (row["chosen"].clone(), row["rejected"].clone())).collect();
    let pair = |chosen: &str, rejected: &str| (json!(chosen), json!(rejected));
    assert_eq!(sides, [pair("same", "other"), pair("same", "other"), pair("x", "y"), pair("x", "y")]);
    let report: Value = serde_json::from_str(&ok(dir.path(), &["check", "more.csv", "--json"])).unwrap();
    let identical = report["findings"].as_array().unwrap().iter().find(|f| f["code"] == "identical").unwrap();
    assert_eq!((&identical["count"], &identical["places"][0]["line"]), (&json!(1), &json!(3)));
    let strict = error(dir.path(), &["pairs", "more.csv", "--strict"]);
    assert!(strict.contains("more.csv:3") && strict.contains("--strict"), "{strict}");
}

#[test]
fn other_separators_are_read() {
    let files = [
        ("a.csv", "prompt;answer;rank\np;a;1\np;b;2\n"),
        ("b.csv", "\"prompt\";\"answer\";\"rank\"\n\"p\";\"a\";\"1\"\n\"p\";\"b\";\"2\"\n"),
        ("c.tsv", "prompt\tanswer\trank\np\ta\t1\np\tb\t2\n"),
        ("d.csv", "sep=|\nprompt|answer|rank\np|a|1\np|b|2\n"),
    ];
    let dir = folder(&files);
    for (name, _) in files {
        let report: Value = serde_json::from_str(&ok(dir.path(), &["check", name, "--json"])).unwrap();
        assert_eq!((&report["pairs"], &report["unusable"]), (&json!(1), &json!(0)), "{name}");
    }
}
