//! The page as a whole: well formed, inert, complete, small, for ordinary and for odd data.

use super::super::testing::{comparison, name_subset, ranked, unranked};
use super::super::{AnalysisOptions, EvalOptions, analyse};
use super::*;
use crate::data::Group;
use serde_json::json;

/// Attacks and oddities that a data file may hold.
const HOSTILE: &str =
    "</p></section><script>alert(\"1\")</script><img src=x onerror='alert(2)'> & \u{202e}drow\0\x1b[31m שלום مرحبا";

fn options() -> EvalOptions {
    EvalOptions { bootstrap: 30, ..EvalOptions::default() }
}

fn analysis(file: &str, groups: &[Group], scores: &[Vec<f32>]) -> Analysis {
    analyse(file, groups, scores, &AnalysisOptions { eval: options(), ..AnalysisOptions::default() }).unwrap()
}

fn page(analyses: &[Analysis]) -> String {
    render(&input(analyses))
}

fn input(analyses: &[Analysis]) -> ReportInput<'_> {
    let reward = json!({"base": "tiny", "max_length": 512, "data": [{"file": "a.csv", "sha256": "00", "groups": 2, "pairs": 3}],
        "recipe": {"seed": 42, "schedule": "linear"}});
    let judge = JudgeInfo {
        name: "judge".into(),
        reward,
        precision: "f32".into(),
        hashes: vec![("model.safetensors".into(), "ab12".into())],
        trained_spread: Some([0.0, 1.0]),
    };
    ReportInput {
        judge,
        analyses,
        bootstrap: (30, 42),
        command: "kudos eval a.csv --judge judge".into(),
        ..Default::default()
    }
}

/// Elements that have no end tag.
const VOID: [&str; 6] = ["meta", "br", "img", "hr", "input", "link"];

/// Fails where a tag is not closed by its own end tag, an attribute is not quoted, or a stray `<` stands in text.
fn assert_well_formed(html: &str) {
    let mut open: Vec<String> = Vec::new();
    let mut rest = html.strip_prefix("<!DOCTYPE html>").expect("a doctype");
    while let Some(start) = rest.find('<') {
        assert!(
            !rest[..start].contains('>') || open.last().is_some_and(|tag| tag == "style"),
            "stray > before {}",
            &rest[..start]
        );
        let end = start + rest[start..].find('>').expect("an unfinished tag");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "near {}", &rest.chars().take(80).collect::<String>());
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap();
        assert!(!name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric()), "<{tag}>");
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        assert!(tag.matches('=').count() == 0 || tag.contains('"'), "<{tag}>");
        if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

fn assert_sound(html: &str) {
    assert_well_formed(html);
    for odd in ["NaN", "inf%", "\"inf\"", "<script", "onerror='", "\u{202e}", "\0", "\x1b", "http://", "https://"] {
        assert!(!html.contains(odd), "{odd}");
    }
}

/// Prompts with four ranked responses each and scores that follow the ranks now and then.
fn data(prompts: usize) -> (Vec<Group>, Vec<Vec<f32>>) {
    let mut groups = Vec::new();
    let mut scores = Vec::new();
    for p in 0..prompts {
        let mut group = ranked(&format!("prompt {p}"), &[1.0, 2.0, 3.0, if p % 5 == 0 { 3.0 } else { 4.0 }]);
        name_subset(&mut group, ["plain", "hard & <odd>"][p % 2].into());
        let noise = |r: usize| ((p * 7 + r * 13) % 11) as f32 / 3.0;
        scores.push((0..4).map(|r| noise(r) - r as f32).collect());
        groups.push(group);
    }
    (groups, scores)
}

#[test]
fn an_ordinary_page_is_sound_and_has_every_section() {
    let (groups, scores) = data(40);
    let steps: String = (1..=200)
        .map(|s| format!("{{\"step\":{s},\"epoch\":0.1,\"loss\":{},\"accuracy\":0.5,\"margin\":0.2,\"learning_rate\":1e-5,\"eval_accuracy\":0.6,\"eval_loss\":0.6}}\n", 1.0 / f64::from(s)))
        .collect();
    let analyses = [analysis("data/a.csv", &groups, &scores)];
    let training = Some(TrainingInfo { steps: TrainingStep::parse(&steps), kept: Some(180) });
    let html = render(&ReportInput { training, ..input(&analyses) });
    assert_sound(&html);
    for id in ["verdict", "calibration", "length", "choice", "mistakes", "training"] {
        assert!(html.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
    for words in [
        "This judge",
        "step 180",
        "ab12",
        "kudos eval a.csv --judge judge",
        "/data/0/subsets/hard &amp; &lt;odd&gt;/accuracy\"",
    ] {
        assert!(html.contains(words), "{words}");
    }
}

#[test]
fn the_same_input_gives_the_same_page() {
    let (groups, scores) = data(20);
    let analyses = [analysis("a", &groups, &scores)];
    assert_eq!(page(&analyses), page(&analyses));
}

#[test]
fn hostile_texts_are_inert_everywhere() {
    let (mut groups, scores) = data(12);
    for group in &mut groups {
        let text = |place: usize| crate::data::Content::Text(format!("{HOSTILE} {place}"));
        group.prompt = Some(text(9));
        name_subset(group, HOSTILE.into());
        group.location.file = HOSTILE.into();
        for (place, response) in group.responses.iter_mut().enumerate() {
            response.content = text(place);
        }
    }
    let analyses = [analysis(HOSTILE, &groups, &scores), analysis(HOSTILE, &groups, &scores)];
    let mut input = input(&analyses);
    input.judge.name = HOSTILE.into();
    input.judge.reward = json!({"base": HOSTILE, HOSTILE: HOSTILE, "recipe": {HOSTILE: [HOSTILE]},
        "data": [{"file": HOSTILE, "sha256": HOSTILE}]});
    input.judge.precision = HOSTILE.into();
    input.judge.hashes = vec![(HOSTILE.into(), HOSTILE.into())];
    input.command = HOSTILE.into();
    let report = check_report();
    input.check = Some(&report);
    input.files = &report.files;
    assert_sound(&render(&input));
}

/// What `kudos check` says of a file with a hostile name and little in it.
fn check_report() -> check::Report {
    let place = check::Place { file: HOSTILE.into(), line: 2, detail: HOSTILE.into() };
    let finding = check::Finding {
        severity: check::Severity::Warning,
        code: "empty",
        message: "empty texts are left out",
        count: 7,
        places: vec![place; 7],
    };
    check::Report {
        attributes: Default::default(),
        understood: Vec::new(),
        files: vec![FileInfo { file: HOSTILE.into(), sha256: HOSTILE.into(), ..FileInfo::default() }],
        rows: Default::default(),
        unusable: 1,
        prompts: 1,
        groups: 1,
        pairs: 0,
        ties: 0,
        longer_wins: None,
        first_listed_wins: Some(check::Baseline { accuracy: 0.5, pairs: 2 }),
        findings: vec![finding],
    }
}

/// A name, groups and their scores.
type Case = (&'static str, Vec<Group>, Vec<Vec<f32>>);

#[test]
fn odd_data_give_a_page_too() {
    let pair = || {
        let mut group = unranked("p", &["a", "bb"]);
        group.comparisons = vec![comparison(0, 1, 1.0)];
        group
    };
    let many = ranked("p", &(1..=16).map(f64::from).collect::<Vec<_>>());
    let cases: [Case; 7] = [
        ("nothing", vec![], vec![]),
        ("one pair", vec![pair()], vec![vec![1.0, 0.0]]),
        ("all wrong", vec![pair(), pair()], vec![vec![0.0, 1e30], vec![-1e30, 1.0]]),
        ("all ties", vec![ranked("p", &[1.0, 1.0]), ranked("q", &[1.0, 1.0])], vec![vec![1.0, 0.0]; 2]),
        ("constant scores", (0..30).map(|i| ranked(&i.to_string(), &[1.0, 2.0])).collect(), vec![vec![0.5; 2]; 30]),
        ("unlabelled", vec![unranked("p", &["a", "b"])], vec![vec![1.0, 2.0]]),
        ("sixteen responses", vec![many.clone(), many], vec![(0..16).map(|i| i as f32).collect(); 2]),
    ];
    for (name, groups, scores) in cases {
        let html = page(&[analysis(name, &groups, &scores)]);
        assert_sound(&html);
        assert!(html.contains("class=\"lead\""), "{name}");
    }
    let html = page(&[]);
    assert_sound(&html);
    assert!(html.contains("Nothing was held out"));
}

#[test]
fn ten_thousand_pairs_make_a_small_page_quickly() {
    let (groups, scores) = data(1_700);
    let options = AnalysisOptions { eval: EvalOptions { bootstrap: 2, ..options() }, ..AnalysisOptions::default() };
    let analyses = [analyse("a", &groups, &scores, &options).unwrap()];
    assert!(analyses[0].data.metrics.pairs > 9_800);
    let started = std::time::Instant::now();
    let html = page(&analyses);
    // Far above what it takes, for slow machines that run unoptimised.
    assert!(started.elapsed().as_secs_f64() < 1.0, "{:?}", started.elapsed());
    assert!(html.len() < 1_500_000, "{} bytes", html.len());
}

/// Prompts whose better response always has the higher score.
fn perfect(prompts: usize) -> (Vec<Group>, Vec<Vec<f32>>) {
    let groups = (0..prompts).map(|p| ranked(&format!("prompt {p}"), &[1.0, 2.0])).collect();
    (groups, (0..prompts).map(|p| vec![1.0 + p as f32, p as f32]).collect())
}

#[test]
fn few_prompts_claim_nothing_and_many_do() {
    let claims = |(groups, scores): (Vec<Group>, Vec<Vec<f32>>)| {
        let analyses = [analysis("a.csv", &groups, &scores)];
        let of_judge = verdict::claims(&analyses[0]).iter().filter(|claim| claim.can).count();
        (of_judge, verdict::lead(&input(&analyses)))
    };
    let (of_few, lead) = claims(perfect(4));
    assert_eq!(of_few, 0);
    assert!(lead.contains("so few prompts cannot say how sure that is") && !lead.contains("truth lies"), "{lead}");
    let (of_many, lead) = claims(perfect(40));
    assert!(of_many > 0 && lead.contains("the truth lies between"), "{lead}");
}
