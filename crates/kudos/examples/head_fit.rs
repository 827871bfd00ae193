//! How long the head's fit takes on random features: `cargo run --release -p kudos --example head_fit [PAIRS] [WIDTH]`.
//!
//! The fit tries nine strengths in a cross-validation of five parts, as every training does before its first step. The
//! labels follow a random direction with as much noise, so that no strength is at an end of the list.

use kudos::data::{Comparison, Location};
use kudos::random::Stream;
use kudos::text::Encoded;
use kudos::train::{Example, fit_head};
use std::time::Instant;

fn main() {
    let argument = |place: usize, otherwise: usize| {
        std::env::args().nth(place).map_or(otherwise, |text| text.parse().expect("PAIRS and WIDTH are whole numbers"))
    };
    let (pairs, width) = (argument(1, 20_000), argument(2, 384));
    let mut random = Stream::named(1, "head_fit");
    let direction: Vec<f32> = (0..width).map(|_| random.normal() as f32).collect();
    let (mut examples, mut features) = (Vec::new(), Vec::new());
    for n in 0..pairs {
        let rows: Vec<f32> = (0..2 * width).map(|_| random.normal() as f32).collect();
        let score = |row: &[f32]| row.iter().zip(&direction).map(|(v, d)| f64::from(v * d)).sum::<f64>();
        let margin = score(&rows[..width]) - score(&rows[width..]) + (2.0 * width as f64).sqrt() * random.normal();
        examples.push(pair(n, if margin > 0.0 { 1.0 } else { 0.0 }));
        features.push(rows);
    }
    let examples: Vec<&Example> = examples.iter().collect();
    let started = Instant::now();
    let head = fit_head(&examples, &features, &vec![0.0; width]);
    let seconds = started.elapsed().as_secs_f64();
    let threads = kernels::parallel::threads();
    println!(
        "{pairs} pairs of width {width}, {threads} threads: {seconds:.2} s; strength {}, loss {:.6}",
        head.strength, head.loss
    );
}

/// The `n`th pair, with texts that are never read.
fn pair(n: usize, target: f32) -> Example {
    let text = Encoded { ids: vec![1], type_ids: vec![0], truncated: false, tokens_before_truncation: 1 };
    Example {
        sequences: vec![text; 2],
        comparisons: vec![Comparison { first: 0, second: 1, target, margin: 0.0, weight: 1.0 }],
        ranks: vec![None; 2],
        ratings: Vec::new(),
        prompt: n.to_string(),
        location: Location { file: "random".into(), line: n as u64 + 1 },
    }
}
