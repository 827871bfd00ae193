//! Times a decoder on prompts and on steps of a fixed size: for the comparisons in `bench/peers`.
//!
//! `generate_speed MODEL PRECISION prefill:TOKENS | decode:SEQUENCES:TOKENS`: loads, warms up, then measures once for each
//! line `run` on standard input and prints `{"ms": …}`; at the end of input it prints `{"maxrss_kib": …}`. A decode
//! run starts every sequence from the same prompt of 32 tokens, which it does not time, and takes the likeliest tokens.

mod measured;

use kernels::parallel::{inside, set_threads};
use kudos::models::{Decoder, DecoderHead, LogitRows};
use kudos::nn::{Batch, KvCache, Precision, Tape};
use kudos::random::Stream;
use std::time::Instant;

const PROMPT: usize = 32;

#[derive(Clone, Copy)]
enum Work {
    Prefill(usize),
    Decode { sequences: usize, tokens: usize },
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, precision, work] = arguments.as_slice() else {
        eprintln!("usage: generate_speed MODEL f32|bf16|int8 prefill:TOKENS|decode:SEQUENCES:TOKENS");
        std::process::exit(2);
    };
    let precision: Precision = serde_json::from_value(precision.as_str().into()).expect("a precision");
    let parts: Vec<&str> = work.split(':').collect();
    let number = |i: usize| parts[i].parse().expect("a number");
    let work = match parts[0] {
        "prefill" => Work::Prefill(number(1)),
        _ => Work::Decode { sequences: number(1), tokens: number(2) },
    };
    set_threads(2).expect("no pool yet");
    inside(|| serve(model, precision, work));
}

fn serve(path: &str, precision: Precision, work: Work) {
    let mut model = Decoder::load(path.as_ref(), DecoderHead::Words, precision).expect("a decoder");
    let mut random = Stream::new(1, 1);
    let prompt: Vec<u32> =
        (0..512.max(PROMPT)).map(|_| 100 + random.below(model.config.vocabulary - 200) as u32).collect();
    let (slots, capacity) = match work {
        Work::Prefill(tokens) => (1, tokens),
        Work::Decode { sequences, tokens } => (sequences, PROMPT + tokens),
    };
    let (mut cache, mut tape) = (model.cache(slots, capacity), Tape::default());
    run(&model, &mut tape, &mut cache, &prompt, work);
    measured::answer(|| run(&model, &mut tape, &mut cache, &prompt, work));
}

fn run(model: &Decoder, tape: &mut Tape, cache: &mut KvCache, prompt: &[u32], work: Work) -> f64 {
    let mut batch = Batch::default();
    match work {
        Work::Prefill(tokens) => {
            let ids: Vec<u32> = prompt.iter().copied().cycle().take(tokens).collect();
            batch.push_cached(&ids, 0, 0).expect("one slot");
            let start = Instant::now();
            model.logits(tape, &batch, cache, LogitRows::Last);
            1e3 * start.elapsed().as_secs_f64()
        }
        Work::Decode { sequences, tokens } => {
            batch.push_cached(&prompt[..PROMPT], 0, 0).expect("one slot");
            let mut next = vec![best(model.logits(tape, &batch, cache, LogitRows::Last)); sequences];
            (1..sequences).for_each(|slot| cache.copy(0, slot, PROMPT));
            let start = Instant::now();
            for step in 0..tokens {
                batch.clear();
                let mut push = |(slot, id): (usize, &u32)| batch.push_cached(&[*id], slot, PROMPT + step);
                next.iter().enumerate().try_for_each(&mut push).expect("a slot for each");
                let logits = model.logits(tape, &batch, cache, LogitRows::Last);
                let width = logits.len() / sequences;
                next.iter_mut().zip(logits.chunks_exact(width)).for_each(|(next, logits)| *next = best(logits));
            }
            1e3 * start.elapsed().as_secs_f64()
        }
    }
}

fn best(logits: &[f32]) -> u32 {
    let better = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).fold(0, better) as u32
}
