//! Times the forward pass of a judge on batches of one length: for the comparisons in `bench/peers`.
//!
//! `fixed_shapes JUDGE PRECISION BATCHxLENGTH`: loads, warms up, then measures once for each line `run` on standard
//! input and prints `{"ms": …}`; at the end of input it prints `{"maxrss_kib": …}`.

mod measured;

use kudos::models::Scorer;
use kudos::nn::Precision;
use kudos::random::Stream;
use kudos::text::Encoded;
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, precision, shape] = arguments.as_slice() else {
        eprintln!("usage: fixed_shapes JUDGE f32|bf16|int8 BATCHxLENGTH");
        std::process::exit(2);
    };
    let precision: Precision = serde_json::from_value(precision.as_str().into()).expect("a precision");
    let (batch, length) = shape.split_once('x').expect("BATCHxLENGTH");
    let (batch, length): (usize, usize) = (batch.parse().expect("a number"), length.parse().expect("a number"));
    kernels::parallel::set_threads(2).expect("no pool yet");
    kernels::parallel::inside(|| serve(dir, precision, batch, length));
}

fn serve(dir: &str, precision: Precision, batch: usize, length: usize) {
    let mut judge = Scorer::load(dir.as_ref(), Some(precision)).expect("a judge");
    assert_eq!(judge.precision(), precision, "this processor has another precision");
    let mut random = Stream::new(1, 1);
    let mut ids = || (0..length).map(|_| 1000 + random.below(20_000) as u32).collect::<Vec<_>>();
    let texts: Vec<Encoded> = (0..batch)
        .map(|_| Encoded { ids: ids(), type_ids: vec![0; length], truncated: false, tokens_before_truncation: length })
        .collect();
    for _ in 0..3 {
        judge.score_encoded(&texts).expect("scores");
    }
    measured::answer(|| {
        let start = Instant::now();
        judge.score_encoded(&texts).expect("scores");
        1e3 * start.elapsed().as_secs_f64()
    });
}
