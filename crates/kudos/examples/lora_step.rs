//! Times a training step of low-rank adapters against what it cannot do without: forward and the gradients of all
//! layers' inputs, over the same frozen weights.
//!
//! `lora_step JUDGE f32|bf16|int8 [RANK]`: eight texts a step, as four pairs have, on two threads. Both take turns; the
//! medians of their seconds and of the ratios are printed.

use kudos::models::adapter::{LoraSettings, attach};
use kudos::models::{LoadOptions, Model, Scores, Workspace, load_frozen, push_all};
use kudos::nn::{Gradients, Mode, Precision, Role};
use kudos::random::Stream;
use kudos::text::Encoded;
use kudos::train::{Optimizer, clip_scale};
use std::time::Instant;

/// Times each is run, after once that is not counted.
const ROUNDS: usize = 5;
/// Tokens of the eight texts.
const LENGTHS: [usize; 8] = [48, 64, 96, 96, 128, 160, 192, 240];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, precision, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: lora_step JUDGE f32|bf16|int8 [RANK]");
        std::process::exit(2);
    };
    let precision: Precision = serde_json::from_value(precision.as_str().into()).expect("a precision");
    let rank = rest.first().map_or(16, |rank| rank.parse().expect("a rank"));
    kernels::parallel::set_threads(2).expect("no pool yet");
    let mut plain = Step::new(load_body(dir, precision));
    let mut adapted = Step::new(with_adapters(load_body(dir, precision), rank));
    let texts = texts(plain.model.config.vocabulary());
    let rounds: Vec<[f64; 2]> =
        (0..=ROUNDS).map(|_| [plain.seconds(&texts), adapted.seconds(&texts)]).skip(1).collect();
    let median_of = |value: fn(&[f64; 2]) -> f64| median(rounds.iter().map(value).collect());
    println!(
        "rank {rank}, {precision}, {} tokens: forward and input gradients {:.3} s, LoRA step {:.3} s, ratio {:.3}",
        LENGTHS.iter().sum::<usize>(),
        median_of(|round| round[0]),
        median_of(|round| round[1]),
        median_of(|round| round[1] / round[0]),
    );
}

/// A model of which only the head is trained.
fn load_body(dir: &str, precision: Precision) -> Model {
    let options = LoadOptions::Base { seed: 1, new_head: true };
    let (mut model, _) = load_frozen(dir.as_ref(), options, precision).expect("a judge");
    model.prepare_turns(LENGTHS.into_iter().max().expect("texts"));
    model.parameters.freeze(|spec| spec.role < Role::Head);
    model
}

fn with_adapters(mut model: Model, rank: usize) -> Model {
    let alpha = 2.0 * rank as f64;
    let settings = LoraSettings { rank, alpha, dropout: 0.0, rslora: false, targets: Vec::new(), top: None };
    attach(&mut model, &settings, 1).expect("adapters of all linear layers");
    model
}

/// All that a step needs.
struct Step {
    model: Model,
    workspace: Workspace,
    gradients: Gradients,
    optimizer: Optimizer,
}

impl Step {
    fn new(model: Model) -> Self {
        let (gradients, optimizer) = (Gradients::new(&model.parameters), Optimizer::new(&model.parameters, 0.0));
        Self { model, workspace: Workspace::default(), gradients, optimizer }
    }

    /// One step, from ids to moved weights.
    fn seconds(&mut self, texts: &[Encoded]) -> f64 {
        let start = Instant::now();
        kernels::parallel::inside(|| {
            let Self { model, workspace, gradients, optimizer } = self;
            workspace.batch.clear();
            push_all(&*model as &dyn Scores, texts, &mut workspace.batch);
            let scores = workspace.forward(model, Mode::Train);
            let seed = vec![0.1; workspace.tape.value(scores).len()];
            gradients.start();
            workspace.tape.backward(scores, &seed, model.weights(), gradients, &workspace.batch);
            gradients.finish();
            let scale = clip_scale(gradients.norm(), 1.0);
            let Model { parameters, packed, .. } = model;
            optimizer.step(parameters, packed, gradients, 1e-5, scale);
        });
        start.elapsed().as_secs_f64()
    }
}

/// Texts of random ids.
fn texts(vocabulary: usize) -> Vec<Encoded> {
    let mut random = Stream::new(1, 1);
    let mut text = |tokens: usize| {
        let ids: Vec<u32> = (0..tokens).map(|_| random.below(vocabulary / 2) as u32).collect();
        Encoded { type_ids: vec![0; ids.len()], tokens_before_truncation: ids.len(), truncated: false, ids }
    };
    LENGTHS.into_iter().map(&mut text).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
