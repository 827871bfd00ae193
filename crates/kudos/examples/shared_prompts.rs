//! Times a decoder judge on groups of responses to one prompt, whose tokens it computes once, against the same texts
//! without their neighbours: what sharing gains, beside how many tokens it saves.
//!
//! `shared_prompts score|train JUDGE PRECISION PROMPTxRESPONSE RESPONSES…`: for each number of responses, medians of five
//! interleaved ratios on two threads. The unshared texts begin with a token of their own, so they have nothing in common.
//! `train` is one forward and backward over all texts.

use kudos::models::{LoadOptions, Model, Scorer, Scores, Workspace, computed_tokens, load, push_all};
use kudos::nn::{Gradients, Mode, Precision};
use kudos::random::Stream;
use kudos::text::Encoded;
use std::time::Instant;

/// Times each is run.
const ROUNDS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, dir, precision, lengths, groups @ ..] = arguments.as_slice() else {
        eprintln!("usage: shared_prompts score|train JUDGE f32|bf16|int8 PROMPTxRESPONSE RESPONSES…");
        std::process::exit(2);
    };
    let precision: Precision = serde_json::from_value(precision.as_str().into()).expect("a precision");
    let (prompt, response) = lengths.split_once('x').expect("PROMPTxRESPONSE");
    let lengths = [prompt, response].map(|length| length.parse().expect("a number"));
    kernels::parallel::set_threads(2).expect("no pool yet");
    let mut work = if what == "train" { Work::training(dir, precision) } else { Work::scoring(dir, precision) };
    for responses in groups {
        measure(&mut work, lengths, responses.parse().expect("a number"));
    }
}

/// What is timed.
enum Work {
    Scoring(Scorer),
    Training(Box<(Model, Workspace, Gradients)>),
}

impl Work {
    fn scoring(dir: &str, precision: Precision) -> Self {
        let judge = Scorer::load(dir.as_ref(), Some(precision)).expect("a judge");
        assert_eq!(judge.precision(), precision, "this processor has another precision");
        Work::Scoring(judge)
    }

    fn training(dir: &str, precision: Precision) -> Self {
        let (mut model, _) = load(dir.as_ref(), LoadOptions::Judge).expect("a judge");
        assert_eq!(model.precision(precision), precision, "this processor has another precision");
        model.prepare_turns(model.config.max_tokens());
        model.pack_for_training(precision);
        let gradients = Gradients::new(&model.parameters);
        Work::Training(Box::new((model, Workspace::default(), gradients)))
    }

    fn model(&self) -> &Model {
        match self {
            Work::Scoring(judge) => &judge.model,
            Work::Training(parts) => &parts.0,
        }
    }

    fn seconds(&mut self, texts: &[Encoded]) -> f64 {
        let start = Instant::now();
        match self {
            Work::Scoring(judge) => drop(judge.score_encoded(texts).expect("scores")),
            Work::Training(parts) => kernels::parallel::inside(|| {
                let (model, workspace, gradients) = parts.as_mut();
                workspace.batch.clear();
                push_all(model as &dyn Scores, texts, &mut workspace.batch);
                let scores = workspace.forward(model, Mode::Train);
                let seed = vec![1.0; workspace.tape.value(scores).len()];
                gradients.start();
                workspace.tape.backward(scores, &seed, model.weights(), gradients, &workspace.batch);
                gradients.finish();
            }),
        }
        start.elapsed().as_secs_f64()
    }
}

fn measure(work: &mut Work, [prompt, response]: [usize; 2], responses: usize) {
    let mut random = Stream::new(1, 1);
    let vocabulary = work.model().config.vocabulary() / 2;
    let mut ids = |tokens: usize| (0..tokens).map(|_| random.below(vocabulary) as u32).collect::<Vec<_>>();
    let common = ids(prompt);
    let shared: Vec<Encoded> = (0..responses).map(|_| encoded([common.clone(), ids(response)].concat())).collect();
    let apart: Vec<Encoded> = shared.iter().enumerate().map(|(number, text)| renamed(text, number)).collect();
    let tokens = [&shared, &apart].map(|texts| computed_tokens(work.model(), texts));
    let mut ratios: Vec<f64> = (0..=ROUNDS).map(|_| work.seconds(&apart) / work.seconds(&shared)).skip(1).collect();
    ratios.sort_by(f64::total_cmp);
    let (ratio, saved) = (ratios[ROUNDS / 2], tokens[1] as f64 / tokens[0] as f64);
    println!(
        "{responses} × ({prompt} + {response}): {} of {} tokens, tokens {saved:.2}×, time {ratio:.2}× ({:.2}–{:.2}), {:.0} %",
        tokens[0],
        tokens[1],
        ratios[0],
        ratios[ROUNDS - 1],
        100.0 * ratio / saved
    );
}

fn encoded(ids: Vec<u32>) -> Encoded {
    Encoded { type_ids: vec![0; ids.len()], tokens_before_truncation: ids.len(), truncated: false, ids }
}

/// The text with another first token, as no other text of the group has.
fn renamed(text: &Encoded, number: usize) -> Encoded {
    let first = text.ids[0] + 1 + number as u32;
    encoded([&[first], &text.ids[1..]].concat())
}
