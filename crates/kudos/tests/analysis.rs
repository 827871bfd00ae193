//! The analysis as a whole: the same bytes each time, no panic on odd data, and its time.

use kudos::data::{Comparison, Content, Group, Location, Response};
use kudos::eval::{AnalysisOptions, analyse};
use kudos::random::Stream;
use proptest::prelude::*;

fn group(prompt: &str, texts: &[String], compared: &[(usize, usize, f32)]) -> Group {
    let location = Location { file: "made.jsonl".into(), line: 1 };
    let response = |text: &String| Response {
        content: Content::Text(text.clone()),
        rank: None,
        score: None,
        attributes: Default::default(),
        location: location.clone(),
        extra: Default::default(),
    };
    let comparison =
        |&(first, second, target): &(usize, usize, f32)| Comparison { first, second, target, margin: 0.0, weight: 1.0 };
    Group {
        prompt: Some(Content::Text(prompt.into())),
        responses: texts.iter().map(response).collect(),
        comparisons: compared.iter().map(comparison).collect(),
        judged: Vec::new(),
        location: location.clone(),
    }
}

/// Pairs of made-up texts of some hundred words, each prompt once.
fn many(pairs: usize) -> (Vec<Group>, Vec<Vec<f32>>) {
    let mut stream = Stream::new(1, 0);
    let mut one = |n: usize| {
        let mut text = || -> String {
            let words = 20 + stream.below(300);
            (0..words).map(|_| format!("w{} ", (stream.uniform().powi(3) * 8000.0) as usize)).collect()
        };
        let texts = [text(), text()];
        let target = [1.0, 0.0, 0.5][n % 7 % 3];
        let score = |text: &String| (text.len() as f32).ln();
        let scores = texts.iter().map(|t| score(t) + stream.normal() as f32).collect();
        (group(&format!("prompt {n}"), &texts, &[(0, 1, target)]), scores)
    };
    (0..pairs).map(&mut one).unzip()
}

/// `cargo test --release --workspace --test analysis -- --ignored --nocapture`
#[test]
#[ignore = "prints a time, which depends on the machine"]
fn ten_thousand_pairs() {
    let (groups, scores) = many(10_000);
    let start = std::time::Instant::now();
    let found = analyse("made", &groups, &scores, &AnalysisOptions::default()).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    println!("analysis of {} pairs: {seconds:.2} s", found.data.metrics.pairs);
    assert!(serde_json::to_string(&found).unwrap().len() < 1_000_000);
}

#[test]
fn the_same_data_give_the_same_bytes() {
    let (groups, scores) = many(60);
    let bytes = || serde_json::to_string(&analyse("made", &groups, &scores, &AnalysisOptions::default()).unwrap());
    assert_eq!(bytes().unwrap(), bytes().unwrap());
    let held_out: Vec<Vec<f32>> = scores.iter().map(|s| s.iter().map(|v| -4.0 * v).collect()).collect();
    let options = AnalysisOptions { held_out_scores: Some(&held_out), ..AnalysisOptions::default() };
    assert!(!analyse("made", &groups, &scores, &options).unwrap().suspects.unwrap().is_empty());
    let short = AnalysisOptions { held_out_scores: Some(&held_out[1..]), ..AnalysisOptions::default() };
    assert!(analyse("made", &groups, &scores, &short).is_err());
}

proptest! {
    #[test]
    fn odd_data_do_not_panic_and_shares_are_shares(
        rows in prop::collection::vec(("[a-c é\u{1F600}]{0,6}", "[a-c ]{0,6}", 0u8..4, -3i8..4, -3i8..4, 0u8..14), 0..40)
    ) {
        let targets = [1.0, 0.0, 0.5, 0.7];
        let one = |(a, b, target, x, y, prompt): (String, String, u8, i8, i8, u8)| {
            let compared = [(0, 1, targets[usize::from(target)])];
            (group(&format!("p{prompt}"), &[a, b], &compared), vec![f32::from(x), f32::from(y) * 1e30])
        };
        let (groups, scores): (Vec<Group>, Vec<Vec<f32>>) = rows.into_iter().map(one).unzip();
        let mut options = AnalysisOptions { held_out_scores: Some(&scores), ..AnalysisOptions::default() };
        options.eval.bootstrap = 20;
        let found = analyse("odd", &groups, &scores, &options).unwrap();
        let row = &found.accuracy.all;
        let rates = [Some(row.judge), Some(row.longer_wins), row.first_listed, row.response_only];
        for accuracy in rates.into_iter().flatten().filter_map(|rate| rate.accuracy) {
            prop_assert!((0.0..=1.0).contains(&accuracy));
        }
        let both = row.longer_wins.accuracy.zip(row.shorter_wins.accuracy);
        prop_assert!(both.is_none_or(|(longer, shorter)| (longer + shorter - 1.0).abs() < 1e-12));
        let split = found.length.longer_right_pairs + found.length.longer_wrong_pairs;
        prop_assert!(split <= found.data.metrics.pairs);
        prop_assert!(found.mistakes.iter().all(|m| m.margin < 0.0 && m.probability <= 0.5));
        prop_assert!(found.scores.percentiles.is_sorted());
        prop_assert!(found.length.curve.iter().all(|p| p.score.is_finite()));
    }
}
