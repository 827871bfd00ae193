//! The engine against PyTorch: logits, all gradients, ten AdamW steps, and ten steps of TRL's RewardTrainer.
//!
//! The numbers come from `golden/make_golden.py` and `golden/make_trl.py`.

use kudos::data::{Comparison, Location};
use kudos::models::{
    AttributeHead, ClassifierSource, Config, EncoderConfig, LoadOptions, Model, Weighting, Workspace, load,
    load_for_attributes, push, score_encoded,
};
use kudos::nn::{Batch, Gradients, Mode, Packed, Precision, Role, Storage, Tape, Var, Weights};
use kudos::text::Encoded;
use kudos::train::{
    Asked, Example, Extent, Features, HeldOutData, Judged, Loss, Opened, Optimizer, Recipe, Start, Trainer,
    compare_starts, group_loss, open_anew, open_head, renew_top_layers,
};
use safetensors::SafeTensors;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(name)
}

/// A golden directory's expectations.
struct Expected {
    bytes: Vec<u8>,
    json: Value,
}

impl Expected {
    fn read(name: &str) -> Self {
        let bytes = std::fs::read(dir(name).join("expected.safetensors")).unwrap();
        let json = serde_json::from_slice(&std::fs::read(dir(name).join("expected.json")).unwrap()).unwrap();
        Self { bytes, json }
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        let tensors = self.tensors();
        let data = tensors.tensor(name).unwrap().data();
        data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn i64(&self, name: &str) -> Vec<usize> {
        let tensors = self.tensors();
        let data = tensors.tensor(name).unwrap().data();
        data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.tensors().tensor(name).is_ok()
    }

    /// Sequences `ids[offsets[i]..offsets[i + 1]]`.
    fn sequences(&self, ids: &str, types: Option<&str>, offsets: &str) -> Vec<Encoded> {
        let (ids, offsets) = (self.i64(ids), self.i64(offsets));
        let types = types.map_or(vec![0; ids.len()], |name| self.i64(name));
        let part = |all: &[usize], w: &[usize]| all[w[0]..w[1]].iter().map(|v| *v as u32).collect::<Vec<_>>();
        offsets.windows(2).map(|w| encoded(part(&ids, w), part(&types, w))).collect()
    }

    /// True where a value after Adam is rounding noise: a gradient of 0 ± 1e-9 moves it a full step either way.
    fn is_noise(&self, parameter: &str, element: usize) -> bool {
        match &self.json["noise"][parameter] {
            Value::String(_) => true,
            Value::Array(elements) => elements.iter().any(|e| e.as_u64() == Some(element as u64)),
            _ => false,
        }
    }
}

fn encoded(ids: Vec<u32>, type_ids: Vec<u32>) -> Encoded {
    Encoded { tokens_before_truncation: ids.len(), truncated: false, ids, type_ids }
}

fn pack(model: &Model, sequences: &[Encoded]) -> Batch {
    let mut batch = Batch::default();
    sequences.iter().for_each(|s| push(model, s, &mut batch).unwrap());
    batch
}

fn logits(model: &Model, sequences: &[Encoded]) -> Vec<f32> {
    let mut workspace = Workspace { batch: pack(model, sequences), ..Workspace::default() };
    let result = workspace.forward(model, Mode::Score);
    workspace.tape.value(result).to_vec()
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance, "{what}[{i}]: {f} instead of {e}");
    }
}

const SCORED: [&str; 6] = ["distilbert", "bert", "roberta", "xlm_roberta", "bert_3_labels", "bert_sharded"];
const TRAINED: [&str; 4] = ["distilbert", "bert", "roberta", "xlm_roberta"];

fn case(name: &str) -> (Model, Expected, Vec<Encoded>) {
    let (model, source) = load(&dir(name), LoadOptions::Judge).unwrap();
    assert_eq!(source, ClassifierSource::Checkpoint);
    let expected = Expected::read(name);
    let sequences = expected.sequences("input_ids", Some("token_type_ids"), "offsets");
    (model, expected, sequences)
}

#[test]
fn logits_are_pytorchs() {
    for name in SCORED {
        let (model, expected, sequences) = case(name);
        assert_close(&logits(&model, &sequences), &expected.f32("logits"), 1e-5, name);
    }
}

/// PyTorch's logits `[sequences, 3]`, also as outputs that are converted to ratings and back.
#[test]
fn several_outputs_are_pytorchs_and_scale() {
    let names: Vec<String> = (0..3).map(|i| format!("LABEL_{i}")).collect();
    let (mut model, source) = load_for_attributes(&dir("bert_3_labels"), &names, 1, false).unwrap();
    assert_eq!(source, ClassifierSource::Checkpoint);
    let (_, expected, sequences) = case("bert_3_labels");
    let golden = expected.f32("logits");
    let outputs = |model: &Model| score_encoded(model, &sequences, &mut Workspace::default()).unwrap();
    assert_close(&outputs(&model), &golden, 1e-5, "logits");
    let (weights, means, stds) = (vec![1.0; 3], vec![3.0, 50.0, -1.0], vec![0.5, 20.0, 2.0]);
    let head =
        AttributeHead { names, weights, intercept: 0.0, weighting: Weighting::Equal, means, stds, centred: true };
    head.to_ratings(&mut model);
    assert_close(&outputs(&model), &head.ratings(&golden), 1e-4, "ratings");
    head.to_standardised(&mut model);
    assert_close(&outputs(&model), &golden, 1e-4, "back again");
}

#[test]
fn a_head_for_other_outputs_is_new() {
    let names = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let (kept, _) = load(&dir("bert_3_labels"), LoadOptions::Judge).unwrap();
    let (renamed, source) = load_for_attributes(&dir("bert_3_labels"), &names, 1, false).unwrap();
    assert_eq!((source, renamed.config.labels()), (ClassifierSource::New, 3));
    assert_ne!(renamed.output_layer(), kept.output_layer());
    let (one, source) = load_for_attributes(&dir("bert"), &names[..1], 1, false).unwrap();
    assert_eq!((source, one.config.labels()), (ClassifierSource::New, 1));
    let (judge, _) = load(&dir("bert"), LoadOptions::Judge).unwrap();
    let (again, source) = load(&dir("bert"), LoadOptions::Base { seed: 1, new_head: true }).unwrap();
    assert_eq!(source, ClassifierSource::New);
    assert_ne!(again.output_layer(), judge.output_layer(), "--new-head makes a new one of the same size too");
}

#[test]
fn hidden_states_of_headless_bases_are_pytorchs() {
    for name in ["bert_base", "distilbert_base", "bert_masked_lm", "roberta_masked_lm", "bert"] {
        let (model, source) = load(&dir(name), LoadOptions::Base { seed: 1, new_head: false }).unwrap();
        assert_eq!(source == ClassifierSource::New, name != "bert", "{name}");
        let expected = Expected::read(name);
        let sequences = expected.sequences("input_ids", Some("token_type_ids"), "offsets");
        let (mut tape, batch) = (Tape::default(), pack(&model, &sequences));
        tape.start(Mode::Score, Storage::F32);
        let states = model.hidden_states(&mut tape, &batch).full;
        tape.forward(states, Weights { values: &model.parameters.values, packed: &Packed::default() }, &batch);
        assert_close(tape.value(states), &expected.f32("last_hidden_state"), 2e-5, name);
    }
}

#[test]
fn a_score_has_the_same_bits_alone_and_in_any_batch() {
    for name in TRAINED {
        let (model, _, sequences) = case(name);
        let together = logits(&model, &sequences);
        for (i, sequence) in sequences.iter().enumerate() {
            for threads in 1..=3 {
                let alone = kernels::parallel::with_threads(threads, || logits(&model, std::slice::from_ref(sequence)));
                assert_eq!(alone[0].to_bits(), together[i].to_bits(), "{name}, sequence {i}, {threads} threads");
            }
        }
    }
}

/// ∂loss/∂logits and the loss, as the goldens define them.
fn loss_seed(expected: &Expected, logits: &[f32]) -> (f64, Vec<f32>) {
    let mut seed = vec![0.0; logits.len()];
    if expected.has("loss.weight") {
        let weight = expected.f32("loss.weight");
        let loss = weight.iter().zip(logits).map(|(w, l)| f64::from(*w) * f64::from(*l)).sum();
        return (loss, weight);
    }
    let pairs = expected.i64("pairs");
    let pair = |p: &[usize]| Comparison { first: p[0], second: p[1], target: 1.0, margin: 0.0, weight: 1.0 };
    let comparisons: Vec<_> = pairs.chunks_exact(2).map(pair).collect();
    let judged = Judged { comparisons: &comparisons, ranks: &[] };
    let loss = group_loss(Loss::BradleyTerry, 0.0, judged, logits, 1.0, &mut seed);
    (loss, seed)
}

fn gradients(model: &Model, expected: &Expected, sequences: &[Encoded]) -> (f64, Gradients) {
    let mut workspace = Workspace { batch: pack(model, sequences), ..Workspace::default() };
    let result = workspace.forward(model, Mode::Train);
    let (loss, seed) = loss_seed(expected, workspace.tape.value(result));
    let mut gradients = Gradients::new(&model.parameters);
    gradients.start();
    workspace.tape.backward(result, &seed, model.weights(), &mut gradients, &workspace.batch);
    gradients.finish();
    (loss, gradients)
}

#[test]
fn all_gradients_are_pytorchs() {
    for name in ["distilbert", "bert", "roberta", "xlm_roberta", "bert_3_labels"] {
        let (model, expected, sequences) = case(name);
        let (loss, gradients) = gradients(&model, &expected, &sequences);
        assert!((loss - expected.json["loss"].as_f64().unwrap()).abs() < 1e-5, "{name}: loss {loss}");
        for spec in model.parameters.specs() {
            let golden = expected.f32(&format!("grad.{}", spec.name));
            let largest = golden.iter().fold(0f32, |m, v| m.max(v.abs()));
            // Relative to the tensor's largest gradient. Some are 0 in exact arithmetic (key biases): those
            // differ by what rounding leaves, which the golden states as its own distance from float64.
            let rounding = expected.json["float32_error"]["grad"].as_f64().unwrap() as f32;
            let tolerance = 1e-4 * largest + rounding;
            assert_close(&gradients.values()[spec.span.range()], &golden, tolerance, &format!("{name} {}", spec.name));
        }
    }
}

#[test]
fn ten_adamw_steps_are_pytorchs() {
    for name in TRAINED {
        let (mut model, expected, sequences) = case(name);
        let mut optimizer = Optimizer::new(&model.parameters, 0.01);
        for golden in expected.f32("adamw.losses") {
            let (loss, gradients) = gradients(&model, &expected, &sequences);
            assert!((loss - f64::from(golden)).abs() < 1e-4, "{name}: loss {loss} instead of {golden}");
            optimizer.step(&mut model.parameters, &mut Packed::default(), &gradients, 1e-3, 1.0);
        }
        assert_weights(&model, &expected, "adamw.final.", name);
    }
}

/// Adam's first step moves a weight by the learning rate, whatever its gradient: what is seen is the rate of its layer.
#[test]
fn each_layer_learns_at_its_own_rate() {
    for name in TRAINED {
        let (mut model, expected, sequences) = case(name);
        let (_, gradients) = gradients(&model, &expected, &sequences);
        let top = model.config.layers() + 1;
        let before = model.clone();
        let rate = |role| 0.5f32.powi((top - before.depth(role)) as i32);
        let mut optimizer = Optimizer::new(&model.parameters, 0.0).with_rates(&before.parameters, rate);
        optimizer.step(&mut model.parameters, &mut Packed::default(), &gradients, 1e-3, 1.0);
        let mut depths = std::collections::BTreeSet::new();
        for spec in before.parameters.specs() {
            depths.insert(before.depth(spec.role));
            for i in spec.span.range().filter(|i| gradients.values()[*i].abs() > 1e-4) {
                let moved = (model.parameters.values[i] - before.parameters.values[i]).abs();
                let expected = 1e-3 * rate(spec.role);
                assert!((moved - expected).abs() < 0.01 * expected, "{name} {}: {moved}, not {expected}", spec.name);
            }
        }
        assert_eq!(depths.into_iter().collect::<Vec<_>>(), (0..=top).collect::<Vec<_>>(), "{name}");
    }
}

/// What is not trained takes no memory and does not move; the rest has the gradients that it has when all is trained.
#[test]
fn frozen_layers_stay_and_the_others_learn_as_before() {
    for name in TRAINED {
        let (full, expected, sequences) = case(name);
        let mut part = full.clone();
        part.parameters.freeze(|spec| spec.role < Role::Layer(1));
        let (_, all) = gradients(&full, &expected, &sequences);
        let (_, some) = gradients(&part, &expected, &sequences);
        let trained = part.parameters.trained();
        let mut optimizer = Optimizer::new(&part.parameters, 0.01);
        let lengths = [some.values().len(), optimizer.first.len(), optimizer.second.len()];
        assert!(trained.len() < full.parameters.len() && lengths == [trained.len(); 3], "{name}: {lengths:?}");
        optimizer.step(&mut part.parameters, &mut Packed::default(), &some, 1e-3, 1.0);
        for spec in full.parameters.specs() {
            let range = spec.span.range();
            let [before, after] = [&full, &part].map(|model| &model.parameters.values[range.clone()]);
            match trained.place(spec.span) {
                None => assert!(before == after && spec.role < Role::Layer(1), "{name} {}: frozen", spec.name),
                Some(place) => {
                    assert_eq!(some.values()[place.range()], all.values()[range], "{name} {}", spec.name);
                    let learns = before != after || some.values()[place.range()].iter().all(|g| *g == 0.0);
                    assert!(learns, "{name} {}: it stays", spec.name);
                }
            }
        }
    }
}

#[test]
fn renewed_layers_are_new_and_the_others_are_not() {
    for name in TRAINED {
        let (before, ..) = case(name);
        let mut model = before.clone();
        renew_top_layers(&mut model, 1, 3);
        for spec in before.parameters.specs() {
            let values = |model: &Model| model.parameters.values[spec.span.range()].to_vec();
            let renewed = values(&model) != values(&before);
            assert_eq!(renewed, before.depth(spec.role) == before.config.layers(), "{name} {}", spec.name);
        }
    }
}

/// A pooler that pretraining never touched lets the first token through; a trained one, and DistilBERT's rectifier, stay.
#[test]
fn an_untrained_head_opens_where_tanh_follows() {
    for name in TRAINED {
        let (mut model, ..) = case(name);
        let before = model.parameters.values.clone();
        assert_eq!(open_head(&mut model, None), Opened::Nothing, "{name}: its biases are trained");
        assert_eq!(model.parameters.values, before, "{name}");
        let dense = ["bert.pooler.dense", "pre_classifier", "classifier.dense"];
        let specs = model.parameters.specs().to_vec();
        let span =
            |end: &str| specs.iter().find(|s| dense.iter().any(|d| s.name == format!("{d}.{end}"))).unwrap().span;
        model.parameters.values[span("bias").range()].fill(0.0);
        let expected = match name {
            "distilbert" => Opened::Nothing,
            "bert" => Opened::HeadAndLastLayer { kept: 1 },
            "mpnet" => Opened::LowerLayers { kept: 2, of: 2 },
            _ => Opened::Head,
        };
        assert_eq!(open_head(&mut model, None), expected, "{name}");
        let opened = expected != Opened::Nothing;
        let hidden = model.config.hidden();
        let weight = model.parameters.values[span("weight").range()].iter().enumerate();
        let is_identity = weight.into_iter().all(|(i, w)| *w == if i / hidden == i % hidden { 1.0 } else { 0.0 });
        assert_eq!(is_identity, opened, "{name}");
        let (mut trained, ..) = case(name);
        assert_eq!(open_anew(&mut trained, None), expected, "{name}: trained or not");
        assert_eq!(trained.parameters.values == model.parameters.values, opened, "{name}");
    }
}

/// Where BERT's first token was never read, the head reads tanh(norm(norm(x + mean))), x the first token's state above the
/// layers that are kept and mean that of all tokens: states that a model of so many layers gives.
#[test]
fn the_opened_head_of_bert_reads_the_mean() {
    for (keep, kept) in [(None, 1), (Some(0), 0), (Some(1), 1), (Some(9), 1)] {
        let (mut model, _, sequences) = case("bert");
        let below = EncoderConfig { layers: kept, ..model.config.encoder().unwrap().clone() };
        let mut below = Model::declare(Config::Encoder(below)).unwrap();
        below.parameters.allocate();
        let specs = model.parameters.specs().to_vec();
        let span = |name: &str| specs.iter().find(|s| s.name == name).unwrap().span;
        for spec in below.parameters.specs().to_vec() {
            let values = &model.parameters.values[span(&spec.name).range()];
            below.parameters.values[spec.span.range()].copy_from_slice(values);
        }
        model.parameters.values[span("bert.pooler.dense.bias").range()].fill(0.0);
        assert_eq!(open_head(&mut model, keep), Opened::HeadAndLastLayer { kept });
        assert_eq!(model.config.json()["num_hidden_layers"], kept + 1, "what the judge's config.json will say");
        for sequence in &sequences {
            let run = |model: &Model, build: &dyn Fn(&mut Tape, &Batch) -> Var| {
                let (mut tape, batch) = (Tape::default(), pack(model, std::slice::from_ref(sequence)));
                tape.start(Mode::Score, Storage::F32);
                let out = build(&mut tape, &batch);
                tape.forward(out, Weights { values: &model.parameters.values, packed: &Packed::default() }, &batch);
                tape.value(out).to_vec()
            };
            let states = run(&below, &|tape, batch| below.hidden_states(tape, batch).full);
            let width = model.config.hidden();
            let mean = |i: usize| states.iter().skip(i).step_by(width).sum::<f32>() / sequence.ids.len() as f32;
            let sum: Vec<f32> = (0..width).map(|i| states[i] + mean(i)).collect();
            let expected: Vec<f32> = normed(&normed(&sum)).iter().map(|v| v.tanh()).collect();
            assert_close(&run(&model, &|tape, batch| model.features(tape, batch)), &expected, 1e-5, "features");
        }
    }
}

/// A row less its mean, over its deviation.
fn normed(row: &[f32]) -> Vec<f32> {
    let mean = row.iter().sum::<f32>() / row.len() as f32;
    let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / row.len() as f32;
    row.iter().map(|v| (v - mean) / variance.sqrt()).collect()
}

/// Every weight within 1e-4 of the golden, relative to the largest of its tensor.
fn assert_weights(model: &Model, expected: &Expected, prefix: &str, what: &str) {
    for spec in model.parameters.specs() {
        let golden = expected.f32(&format!("{prefix}{}", spec.name));
        let largest = golden.iter().fold(0f32, |m, v| m.max(v.abs()));
        let values = &model.parameters.values[spec.span.range()];
        for (i, (v, g)) in values.iter().zip(&golden).enumerate() {
            let close = (v - g).abs() <= 1e-4 * largest;
            assert!(close || expected.is_noise(&spec.name, i), "{what} {}[{i}]: {v} instead of {g}", spec.name);
        }
    }
}

fn pairs(expected: &Expected) -> Vec<Example> {
    let chosen = expected.sequences("chosen_ids", None, "chosen_offsets");
    let rejected = expected.sequences("rejected_ids", None, "rejected_offsets");
    let margins = if expected.has("margin") { expected.f32("margin") } else { vec![0.0; chosen.len()] };
    let example = |((chosen, rejected), margin)| Example {
        ratings: Vec::new(),
        sequences: vec![chosen, rejected],
        comparisons: vec![Comparison { first: 0, second: 1, target: 1.0, margin, weight: 1.0 }],
        ranks: vec![None; 2],
        prompt: String::new(),
        location: Location { file: "t".into(), line: 1 },
    };
    chosen.into_iter().zip(rejected).zip(margins).map(example).collect()
}

/// `--recipe trl --no-shuffle` on the ids TRL was given: loss, gradient norm, rate, accuracy and margin of
/// each step, then the weights.
#[test]
fn ten_steps_follow_trl() {
    for (name, base) in
        [("trl_distilbert", "trl_distilbert"), ("trl_bert", "trl_bert"), ("trl_distilbert_margin", "trl_distilbert")]
    {
        let expected = Expected::read(name);
        let (model, _) = load(&dir(base), LoadOptions::Base { seed: 42, new_head: false }).unwrap();
        let out = tempfile::tempdir().unwrap();
        let asked = Asked {
            precision: Some(Precision::F32),
            recipe: Some(Recipe::Trl),
            max_steps: Some(10),
            learning_rate: Some(1e-3),
            no_shuffle: Some(true),
            ..Asked::default()
        };
        let start = Start { new_head: false, reopened: false, width: 32 };
        let extent = Extent { visits: 40, responses: 80, pairs: 40, held_out: HeldOutData::None, start };
        let settings = asked.decide(extent).unwrap();
        let mut trainer =
            Trainer::new(model, settings, pairs(&expected), None, out.path().into(), String::new()).unwrap();
        trainer.run(&mut |_| ControlFlow::Continue(())).unwrap();
        let log = std::fs::read_to_string(out.path().join("run/metrics.jsonl")).unwrap();
        let steps = expected.json["steps"].as_array().unwrap();
        assert_eq!(log.lines().count(), steps.len());
        for (line, golden) in log.lines().zip(steps) {
            let line: Value = serde_json::from_str(line).unwrap();
            for key in ["loss", "grad_norm", "learning_rate", "accuracy", "margin"] {
                let (found, golden) = (line[key].as_f64().unwrap(), golden[key].as_f64().unwrap());
                let step = &line["step"];
                assert!((found - golden).abs() < 1e-4, "{name} step {step}: {key} {found} instead of {golden}");
            }
        }
        if name != "trl_distilbert_margin" {
            assert_weights(&trainer.model, &expected, "final.", name);
        }
    }
}

/// Choosing the start, fitting the head and measuring it read each text once, and the scores are those of the whole model.
#[test]
fn p3_frozen_features_are_read_once() {
    let expected = Expected::read("trl_bert");
    let mut examples = pairs(&expected);
    examples.iter_mut().enumerate().for_each(|(n, example)| example.prompt = n.to_string());
    let texts: Vec<Encoded> = examples.iter().flat_map(|example| example.sequences.clone()).collect();
    let different = texts.iter().map(|t| (&t.ids, &t.type_ids)).collect::<std::collections::HashSet<_>>().len();
    let (mut model, _) = load(&dir("trl_bert"), LoadOptions::Base { seed: 42, new_head: false }).unwrap();
    let out = tempfile::tempdir().unwrap();
    let asked = Asked { max_steps: Some(1), precision: Some(Precision::F32), ..Asked::default() };
    let start = Start { new_head: false, reopened: false, width: 32 };
    let extent = Extent { visits: 40, responses: 80, pairs: 40, held_out: HeldOutData::None, start };
    let settings = asked.decide(extent).unwrap();
    let mut features = Features::default();
    let starts = compare_starts(&mut model, &settings, &examples, &mut features).unwrap().unwrap();
    assert_eq!(features.reads(), different, "the better start's texts, each once");
    let settings = asked
        .decide(Extent { start: Start { new_head: starts.reopens(), reopened: starts.reopens(), ..start }, ..extent })
        .unwrap();
    let mut trainer = Trainer::new(model, settings, examples, None, out.path().into(), String::new()).unwrap();
    trainer.lend_features(features);
    let from_features = trainer.score(&texts).unwrap();
    let mut workspace = kudos::models::Workspace::default();
    assert_eq!(from_features, kudos::models::score_encoded(&trainer.model, &texts, &mut workspace).unwrap());
    trainer.run(&mut |_| ControlFlow::Continue(())).unwrap();
    let after = trainer.score(&texts).unwrap();
    assert_ne!(after, from_features, "the encoder has moved on");
    assert_eq!(trainer.take_features().reads(), different, "the fit of the head read nothing again");
}

#[test]
fn refusals_name_the_tensor() {
    let copy = |name: &str| {
        let to = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(dir(name).join(file), to.path().join(file)).unwrap();
        }
        to
    };
    let message = |dir: &Path, options| load(dir, options).map(|_| ()).unwrap_err().to_string();
    let base = LoadOptions::Base { seed: 1, new_head: false };

    assert!(message(&dir("bert_base"), LoadOptions::Judge).contains("`classifier.weight` is missing"));
    assert!(message(&dir("bert_3_labels"), base).contains("3 outputs"));
    let replaced = LoadOptions::Base { seed: 1, new_head: true };
    assert_eq!(load(&dir("bert_3_labels"), replaced).unwrap().0.config.labels(), 1);

    let edit = |name: &str, key: &str, value: Value| {
        let to = copy(name);
        let path = to.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[key] = value;
        std::fs::write(&path, config.to_string()).unwrap();
        to
    };
    let cases = [
        (edit("bert", "num_hidden_layers", 3.into()), "encoder.layer.2.attention.self.query.weight` is missing"),
        (edit("bert", "num_hidden_layers", 1.into()), "unexpected tensor `bert.encoder.layer.1"),
        (edit("bert", "vocab_size", 121.into()), "word_embeddings.weight` has shape [120, 32]"),
        (edit("bert", "vocab_size", 16_000_000.into()), "word_embeddings.weight` has shape"),
        (edit("bert", "hidden_size", 1_000_000_000_000u64.into()), "`hidden_size` is 1000000000000"),
        (edit("distilbert", "n_layers", 900.into()), "is missing"),
    ];
    for (edited, expected) in cases {
        let found = message(edited.path(), LoadOptions::Judge);
        assert!(found.contains(expected), "{found}");
    }
}
