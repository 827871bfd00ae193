//! Layouts through the commands, by the real binary: the same pairs in five forms are the same to every command, and what the user
//! says of columns and labels is what is read.

mod binary;

use binary::{error, golden, ok, run};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn lines(rows: impl IntoIterator<Item = Value>) -> String {
    rows.into_iter().map(|row| format!("{row}\n")).collect()
}

/// Prompt, better, worse; two share a prompt.
const PAIRS: [[&str; 3]; 5] = [
    ["Name a prime number for me.", "Seven is a prime number.", "Nine, I think."],
    ["Name a prime number for me.", "Eleven will do.", "Nine, I think."],
    ["Why is the sky so blue?", "Air scatters blue light more than red.", "It mirrors the sea."],
    ["Which way is north from here?", "Ask a compass, or the moss on the trees, which tells you little.", "Up."],
    ["How many legs has an ant?", "Six.", "Eight."],
];

/// The pairs in one form.
fn form(row: impl Fn([&str; 3]) -> Value) -> String {
    lines(PAIRS.map(row))
}

fn turns(turns: &[(&str, &str)]) -> Value {
    turns.iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
}

fn forms() -> [(&'static str, String); 5] {
    let chat = |p: &str, r: &str| turns(&[("user", p), ("assistant", r)]);
    let marked = |p: &str, r: &str| format!("\n\nHuman: {p}\n\nAssistant: {r}");
    [
        ("explicit.jsonl", form(|[p, c, r]| json!({"prompt": p, "chosen": c, "rejected": r}))),
        (
            "messages.jsonl",
            form(|[p, c, r]| {
                let reply = |text: &str| turns(&[("assistant", text)]);
                json!({"prompt": turns(&[("user", p)]), "chosen": reply(c), "rejected": reply(r)})
            }),
        ),
        ("hh.jsonl", form(|[p, c, r]| json!({"chosen": marked(p, c), "rejected": marked(p, r)}))),
        ("implicit.jsonl", form(|[p, c, r]| json!({"chosen": chat(p, c), "rejected": chat(p, r)}))),
        ("h4.jsonl", form(|[p, c, r]| json!({"prompt": p, "chosen": chat(p, c), "rejected": chat(p, r)}))),
    ]
}

#[test]
fn the_same_pairs_in_five_forms_have_the_same_scores_and_figures() {
    let forms = forms();
    let files: Vec<(&str, &str)> = forms.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let dir = folder(&files);
    let judge = golden().display().to_string();
    let scores = |name: &str| -> Vec<(u64, u64)> {
        let rows = ok(dir.path(), &["score", name, "--judge", &judge, "--quiet"]);
        let bits = |row: &Value, column: &str| row[column].as_f64().unwrap().to_bits();
        let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.map(|row| (bits(&row, "score_chosen"), bits(&row, "score_rejected"))).collect()
    };
    let figures = |name: &str| -> Value {
        ok(dir.path(), &["eval", name, "--judge", &judge, "--json", "figures.json", "--quiet"]);
        let text = std::fs::read_to_string(dir.path().join("figures.json")).unwrap();
        let mut data = serde_json::from_str::<Value>(&text).unwrap()["data"][0].take();
        data.as_object_mut().unwrap().retain(|name, _| name != "file" && name != "sha256");
        data
    };
    let (expected_scores, expected) = (scores("explicit.jsonl"), figures("explicit.jsonl"));
    assert_eq!((expected["groups"].as_u64(), expected["pairs"].as_u64()), (Some(4), Some(5)), "{expected}");
    for (name, _) in &forms[1..] {
        assert_eq!(scores(name), expected_scores, "{name}");
        assert_eq!(figures(name), expected, "{name}");
        let said = String::from_utf8(run(dir.path(), &["check", "explicit.jsonl", "--eval", name]).stderr).unwrap();
        assert!(said.contains("prompts of the evaluation data are in the training data"), "{name}: {said}");
    }
}

/// What `kudos pairs` writes of a file, by (chosen, rejected).
fn pairs(dir: &Path, args: &[&str]) -> Vec<(String, String)> {
    let out = ok(dir, &[&["pairs", "--quiet"], args].concat());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| (text(&row["chosen"]), text(&row["rejected"]))).collect()
}

fn pair(chosen: &str, rejected: &str) -> (String, String) {
    (chosen.to_owned(), rejected.to_owned())
}

#[test]
fn columns_and_labels_are_what_the_user_says() {
    let nested = lines([
        json!({"q": {"text": "p1"}, "sides": [{"t": "a"}, {"t": "b"}], "vote": 2}),
        json!({"q": {"text": "p2"}, "sides": [{"t": "c"}, {"t": "d"}], "vote": 1}),
        json!({"q": {"text": "p3"}, "sides": [{"t": "e"}, {"t": "f"}], "vote": 0}),
    ]);
    let dir = folder(&[("votes.jsonl", &nested)]);
    let columns = "prompt=q.text,response_a=sides.0.t,response_b=sides.1.t,label=vote";
    let expected = [pair("b", "a"), pair("c", "d")];
    assert_eq!(pairs(dir.path(), &["votes.jsonl", "--columns", columns, "--labels", "a=1,b=2,tie=0"]), expected);
    // The same from the settings file: as flags, or as tables.
    let flags = format!("[pairs]\ncolumns = '{columns}'\nlabels = ['a=1', 'b=2', 'tie=0']\n");
    let tables = "[columns]\nprompt = 'q.text'\nresponse_a = 'sides.0.t'\nresponse_b = 'sides.1.t'\nlabel = 'vote'\n\
                  [labels]\na = 1\nb = 2\ntie = [0]\n";
    for settings in [flags.as_str(), tables] {
        std::fs::write(dir.path().join("kudos.toml"), settings).unwrap();
        assert_eq!(pairs(dir.path(), &["votes.jsonl"]), expected, "{settings}");
    }
    std::fs::remove_file(dir.path().join("kudos.toml")).unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&["--columns", columns], "found the whole numbers 0, 1, 2; say what they mean: --labels"),
        (&["--columns", columns, "--labels", "a=1,b=2"], "expected a label of --labels (1, 2), found the number 0"),
        (&["--columns", "prompt=question.text"], "expected a column `question.text`, as asked"),
        (&["--columns", "prompt=q.text,prompt=q"], "each name and each column once, found `prompt` twice"),
        (&["--columns", "response_a=sides,response_b=sides"], "found `sides` twice"),
        (&["--columns", "better=sides"], "expected one of prompt, system"),
    ];
    for (args, expected) in cases {
        let output = run(dir.path(), &[&["pairs", "votes.jsonl"], args].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

#[test]
fn ratings_and_ranks_run_the_way_that_is_said() {
    let table = "prompt,answer,stars\np,good,5\np,bad,1\n";
    let ranks = "prompt,answer,rank\np,good,5\np,fair,3\np,bad,1\nq,good,4\nq,bad,1\n";
    let dir = folder(&[
        ("stars.csv", table),
        ("ranks.csv", ranks),
        ("rated.csv", "prompt,response,rating\np,b,2\np,a,\"4,5\"\n"),
    ]);
    assert_eq!(pairs(dir.path(), &["stars.csv", "--rating", "stars"]), [pair("good", "bad")]);
    assert_eq!(pairs(dir.path(), &["stars.csv", "--rank", "stars"]), [pair("bad", "good")]);
    assert_eq!(pairs(dir.path(), &["rated.csv"]), [pair("a", "b")]);
    let said = error(dir.path(), &["pairs", "stars.csv"]);
    assert!(said.contains("columns that might: `stars` (--rating stars, or --rank stars)"), "{said}");
    let said = error(dir.path(), &["train", "ranks.csv", "-o", "judge"]);
    assert!(
        said.contains("ranks.csv:2: expected ranks of the 3 responses") && said.contains("--rating rank"),
        "{said}"
    );
    assert_eq!(pairs(dir.path(), &["ranks.csv", "--rating", "rank"])[0], pair("good", "fair"));
    assert_eq!(pairs(dir.path(), &["ranks.csv", "--rank", "rank"])[0], pair("fair", "good"));
}

#[test]
fn two_people_are_two_rankings_and_their_votes_are_kept() {
    let two = "prompt,answer,rank,who\np,a,1,x\np,b,2,x\np,c,3,x\np,c,1,y\np,b,2,y\np,a,3,y\n";
    let dir = folder(&[("two.csv", two), ("named.csv", &two.replace("who", "Annotator"))]);
    let of = |args: &[&str]| pairs(dir.path(), args).len();
    assert_eq!(of(&["named.csv"]), 6);
    assert_eq!(of(&["two.csv", "--group-by", "who"]), 6);
    // As one ranking, each text stands twice with two ranks: those are reported, and no pair is of a text with itself.
    assert!(pairs(dir.path(), &["two.csv"]).iter().all(|(chosen, rejected)| chosen != rejected));
    let said = ok(dir.path(), &["check", "named.csv"]);
    assert!(said.contains("people disagree") && !said.contains("contradict"), "{said}");
    // A column that names another person in every row is no ranker.
    let wrote = "prompt,answer,rank,user\np,a,1,u1\np,b,2,u2\n";
    std::fs::write(dir.path().join("wrote.csv"), wrote).unwrap();
    assert_eq!(of(&["wrote.csv"]), 1);
    ok(dir.path(), &["convert", "named.csv", "-o", "votes.jsonl"]);
    assert_eq!(pairs(dir.path(), &["votes.jsonl"]), pairs(dir.path(), &["named.csv"]));
}

#[test]
fn what_a_file_was_read_as_is_said_once_and_stands_in_json() {
    let safe = |a: &str, b: &str, better: u8| json!({"prompt": "p", "response_0": a, "response_1": b, "better_response_id": better, "safer_response_id": 1 - better});
    let dir = folder(&[("pku.jsonl", &lines([safe("good", "bad", 0), safe("worse", "better", 1)]))]);
    let output = run(dir.path(), &["pairs", "pku.jsonl", "-o", "pairs.jsonl"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.matches("read as PKU-SafeRLHF: better_response_id, 0 = response_0").count(), 1, "{said}");
    let report: Value = serde_json::from_str(&ok(dir.path(), &["check", "pku.jsonl", "--json"])).unwrap();
    assert!(report["files"][0]["layout"].as_str().unwrap().starts_with("PKU-SafeRLHF"), "{report}");
    assert_eq!(report["understood"][1]["better"], "better");
    assert_eq!(pairs(dir.path(), &["pku.jsonl", "--columns", "label=safer_response_id"])[0], pair("bad", "good"));
    let shown = ok(dir.path(), &["check", "pku.jsonl"]);
    assert!(shown.starts_with("pku.jsonl: read as PKU-SafeRLHF") && shown.contains("better  good"), "{shown}");
}

#[test]
fn what_cannot_be_known_is_refused_with_what_to_do() {
    let rows = |row: Value| lines([row.clone(), row]);
    let cases = [
        (rows(json!({"ctx": "q", "chosen": "one", "rejected": "two"})), "is it `ctx`? --columns prompt=ctx"),
        (
            rows(json!({"question": "q", "input": "i", "chosen": "c", "rejected": "r"})),
            "found those of pairs under `question`",
        ),
        (rows(json!({"prompt": "p", "completions": ["a"], "labels": [true]})), "steps, not responses, are labelled"),
        (
            lines([
                json!({"prompt": "p", "chosen": "a", "rejected": "b"}),
                json!({"question": "q", "response_j": "a", "response_k": "b"}),
            ]),
            ":2: expected a row of pairs as before, found one of stack-exchange-paired",
        ),
        (
            rows(json!({"question": "q", "answer": "a", "rank": 1})),
            "is `question` the prompt? --columns prompt=question",
        ),
        (
            rows(json!({"prompt": "p", "history": [["a", "b"]], "chosen": "c", "rejected": "r"})),
            "--columns history=history",
        ),
        (rows(json!({"prompt": "p", "response_a": "a", "response_b": "b", "label": -1})), "found the whole numbers -1"),
        (
            rows(
                json!({"images": ["x.png"], "messages": [{"role": "user", "content": "<image>"}], "chosen": {"role": "assistant", "content": "a"},
            "rejected": {"role": "assistant", "content": "b"}}),
            ),
            "something to be seen or heard",
        ),
    ];
    for (text, expected) in cases {
        let dir = folder(&[("f.jsonl", &text)]);
        let said = error(dir.path(), &["pairs", "f.jsonl"]);
        assert!(said.contains(expected), "{text}{said}");
    }
    let history = rows(json!({"prompt": "p", "history": [["a", "b"]], "chosen": "c", "rejected": "r"}));
    let dir = folder(&[("f.jsonl", &history)]);
    let out = ok(dir.path(), &["pairs", "f.jsonl", "--columns", "history=history", "--quiet"]);
    let row: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!(row["prompt"].as_array().unwrap().len(), 3, "{out}");
}

#[test]
fn long_lists_and_cells_are_read_or_refused_in_bounded_time() {
    let list: Vec<Value> = (0..100_000).map(|n| json!({"text": format!("r{n}"), "rank": n})).collect();
    let cell = "x".repeat(10 << 20);
    let dir = folder(&[
        ("list.jsonl", &lines([json!({"prompt": "p", "responses": list})])),
        ("cell.csv", &format!("prompt,chosen,rejected\np,{cell},b\np,c,d\n")),
    ]);
    let said = error(dir.path(), &["pairs", "list.jsonl"]);
    assert!(said.contains("expected at most 4096 ranked responses"), "{said}");
    assert_eq!(pairs(dir.path(), &["cell.csv"]).len(), 2);
}

#[test]
fn scoring_needs_no_verdict() {
    let row = json!({"prompt": "p", "response_a": "a", "response_b": "b", "label": 7, "id": 1});
    let dir = folder(&[("f.jsonl", &lines([row]))]);
    let judge = golden().display().to_string();
    let out = ok(dir.path(), &["score", "f.jsonl", "--judge", &judge, "--quiet"]);
    let row: Value = serde_json::from_str(&out).unwrap();
    assert!(row["score_a"].is_number() && row["label"] == 7, "{row}");
}
