//! LoRA in training, against PEFT (`golden/lora/train_*`, made by `golden/make_lora_golden.py`): gradients of everything
//! that is trained, ten AdamW steps by the trainer, and the adapter that it writes.

mod judges;
mod trained;

use kudos::models::adapter::{
    CONFIG_FILE, LoraSettings, TENSORS_FILE, adapter_config, add_to_mean, attach, read_tensors, widened, write_tensors,
};
use kudos::models::{ClassifierSource, LoadOptions, Model, Workspace, load, load_frozen, push, score_encoded};
use kudos::nn::{Gradients, Mode, ParameterSpec, Precision};
use kudos::text::Encoded;
use kudos::train::{
    Asked, Event, Example, Extent, HeldOutData, LearningRateSchedule, Recipe, Start, Trainer, open_anew,
    write_lower_base,
};
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use trained::{Golden, example};

const CASES: [&str; 3] = ["train_qwen3", "train_llama", "train_llama_top"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/lora").join(name)
}

impl Golden {
    fn base(&self) -> PathBuf {
        self.dir.join(self.json["base"].as_str().unwrap())
    }

    /// Layers from the top that are adapted, if it is not all: PEFT's `layers_to_transform`.
    fn top(&self) -> Option<usize> {
        self.dir.ends_with("train_llama_top").then_some(2)
    }

    fn lora(&self) -> LoraSettings {
        LoraSettings { top: self.top(), ..lora() }
    }

    /// The base with the golden's adapters, as they are before the first step.
    fn model(&self) -> Model {
        self.model_with(&self.lora())
    }

    fn model_with(&self, settings: &LoraSettings) -> Model {
        let (mut model, _) = load(&self.base(), LoadOptions::Judge).unwrap();
        model.prepare_turns(128);
        attach(&mut model, settings, 42).unwrap();
        read_tensors(&self.dir.join(TENSORS_FILE), &mut model.parameters).unwrap();
        model
    }
}

fn lora() -> LoraSettings {
    LoraSettings { rank: 4, alpha: 8.0, dropout: 0.0, rslora: false, targets: Vec::new(), top: None }
}

/// The name that an adapter's file has for a trained tensor.
fn stored_name(spec: &ParameterSpec) -> String {
    if spec.name.starts_with("base_model.") { spec.name.clone() } else { format!("base_model.model.{}", spec.name) }
}

fn trained(model: &Model) -> impl Iterator<Item = &ParameterSpec> {
    model.parameters.specs().iter().filter(|spec| spec.trained)
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

/// Scores, and the gradients of the mean over two pairs of −ln σ(chosen − rejected).
fn gradients(model: &Model, texts: &[Encoded], pairs: &[[usize; 2]]) -> (Vec<f32>, Gradients) {
    let mut workspace = Workspace::default();
    for text in pairs.iter().flatten() {
        push(model, &texts[*text], &mut workspace.batch).unwrap();
    }
    let scores = workspace.forward(model, Mode::Train);
    let found = workspace.tape.value(scores).to_vec();
    let slope = |pair: &[f32]| -0.5 / (1.0 + (pair[0] - pair[1]).exp());
    let d_scores: Vec<f32> = found.chunks(2).flat_map(|pair| [slope(pair), -slope(pair)]).collect();
    let mut gradients = Gradients::new(&model.parameters);
    gradients.start();
    workspace.tape.backward(scores, &d_scores, model.weights(), &mut gradients, &workspace.batch);
    gradients.finish();
    (found, gradients)
}

#[test]
fn gradients_are_pefts() {
    for name in CASES {
        let golden = Golden::of(&golden(name));
        let mut model = golden.model();
        golden.top().iter().for_each(|top| model.freeze_below_top(*top));
        let (_, found) = gradients(&model, &golden.texts(), &golden.pairs()[..2]);
        let places = model.parameters.trained();
        assert!(trained(&model).count() >= 29, "{name}");
        for spec in trained(&model) {
            let stored = stored_name(spec);
            let found = &found.values()[places.place(spec.span).unwrap().range()];
            let expected = golden.tensor(&format!("grad.{stored}")).expect("a gradient of everything that is trained");
            let apart: Vec<f32> = found.iter().zip(&expected).map(|(f, e)| f - e).collect();
            let bound = 1e-4 * norm(&expected) + if golden.is_noise(&stored, usize::MAX) { 1e-6 } else { 0.0 };
            assert!(norm(&apart) <= bound, "{name} {stored}: {} of {}", norm(&apart), norm(&expected));
        }
    }
}

fn examples(golden: &Golden) -> Vec<Example> {
    let (texts, pairs) = (golden.texts(), golden.pairs());
    (0..).zip(&pairs).map(|(line, pair)| example(&texts, *pair, line)).collect()
}

fn trainer(model: Model, examples: Vec<Example>, dir: &Path, changed: Asked) -> Trainer {
    let asked = Asked {
        recipe: Some(Recipe::Trl),
        batch_size: Some(2),
        learning_rate: Some(1e-3),
        schedule: Some(LearningRateSchedule::Linear),
        no_shuffle: Some(true),
        precision: Some(Precision::F32),
        lora: Some(4),
        lora_alpha: Some(8.0),
        ..changed
    };
    let start = Start { new_head: false, reopened: false, width: model.config.hidden() };
    let settings = asked.decide(Extent::of(&examples, 2, HeldOutData::None, start)).unwrap();
    Trainer::new(model, settings, examples, None, dir.into(), String::new()).unwrap()
}

fn run(trainer: &mut Trainer) -> Vec<(f64, f64)> {
    let mut steps = Vec::new();
    trainer
        .run(&mut |event| {
            if let Event::Step(metrics) = event {
                steps.push((metrics.loss, metrics.grad_norm));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    steps
}

#[test]
fn ten_steps_are_pefts_and_the_adapter_comes_back() {
    for name in CASES {
        let golden = Golden::of(&golden(name));
        let dir = tempfile::tempdir().unwrap();
        let asked = Asked { max_steps: Some(10), freeze: golden.top(), ..Asked::default() };
        let mut trainer = trainer(golden.model(), examples(&golden), dir.path(), asked);
        let steps = run(&mut trainer);
        let expected = golden.numbers("losses").into_iter().zip(golden.numbers("grad_norms"));
        assert_eq!(steps.len(), 10);
        for (step, ((loss, norm), (e_loss, e_norm))) in steps.iter().zip(expected).enumerate() {
            assert!((loss - e_loss).abs() < 1e-4, "{name} step {step}: loss {loss} instead of {e_loss}");
            assert!((norm - e_norm).abs() < 1e-4 * e_norm, "{name} step {step}: norm {norm} instead of {e_norm}");
        }
        assert_weights(&golden, &trainer.model, name);
        let scores = trainer.score(&golden.texts()).unwrap();
        let beyond = scores[1..].iter().map(|score| f64::from(score - scores[0]));
        for (found, expected) in beyond.zip(golden.numbers("scores_beyond_first")) {
            assert!((found - expected).abs() < 1e-4, "{name}: {found} instead of {expected}");
        }
        let base = golden.base().canonicalize().unwrap();
        let config = Value::Object(adapter_config(&trainer.model, &golden.lora(), &base));
        std::fs::write(dir.path().join(CONFIG_FILE), config.to_string()).unwrap();
        let (mut merged, _) = load(dir.path(), LoadOptions::Judge).unwrap();
        merged.prepare_turns(128);
        let again = score_encoded(&merged, &golden.texts(), &mut Workspace::default()).unwrap();
        for (found, expected) in again.iter().zip(&scores) {
            assert!((found - expected).abs() < 1e-5, "{name}: merged {found}, beside the base {expected}");
        }
    }
}

fn assert_weights(golden: &Golden, model: &Model, name: &str) {
    let mut compared = 0;
    for spec in trained(model) {
        let stored = stored_name(spec);
        let Some(expected) = golden.tensor(&format!("adamw.final.{stored}")) else { continue };
        let found = &model.parameters.values[spec.span.range()];
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let close = (found - expected).abs() < 1e-4 || golden.is_noise(&stored, at);
            assert!(close, "{name} {stored}[{at}]: {found} instead of {expected}");
        }
        compared += 1;
    }
    assert!(compared >= 29, "{name}: {compared}");
}

/// A run that was stopped and continued ends with the same bytes, dropout included.
#[test]
fn a_run_that_is_continued_ends_the_same() {
    let golden = Golden::of(&golden("train_qwen3"));
    let model = || golden.model_with(&LoraSettings { dropout: 0.3, ..lora() });
    let asked = || Asked { max_steps: Some(6), lora_dropout: Some(0.3), ..Asked::default() };
    let [whole, parts] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    run(&mut trainer(model(), examples(&golden), whole.path(), asked()));
    let mut first = trainer(model(), examples(&golden), parts.path(), asked());
    let mut steps = 0;
    let stopped = first.run(&mut |event| {
        steps += u32::from(matches!(event, Event::Step(_)));
        if steps == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(stopped.is_err());
    let mut second = trainer(model(), examples(&golden), parts.path(), asked());
    assert_eq!(second.resume().unwrap(), 3);
    run(&mut second);
    let read = |dir: &tempfile::TempDir| std::fs::read(dir.path().join(TENSORS_FILE)).unwrap();
    assert!(read(&whole) == read(&parts), "the bytes of a run that was not stopped");
    let without = tempfile::tempdir().unwrap();
    run(&mut trainer(
        golden.model(),
        examples(&golden),
        without.path(),
        Asked { max_steps: Some(6), ..Asked::default() },
    ));
    assert!(read(&whole) != read(&without), "dropout changes what is learnt");
}

/// B starts at 0: new adapters change no score, and only they and the head are trained.
#[test]
fn new_adapters_change_nothing() {
    let golden = Golden::of(&golden("train_llama"));
    let (mut model, _) = load(&golden.base(), LoadOptions::Judge).unwrap();
    model.prepare_turns(128);
    let score = |model: &Model| score_encoded(model, &golden.texts(), &mut Workspace::default()).unwrap();
    let before = score(&model);
    let settings = LoraSettings { targets: vec!["q_proj".into(), "mlp.down_proj".into()], ..lora() };
    attach(&mut model, &settings, 1).unwrap();
    assert_eq!(score(&model), before);
    let mut names: Vec<String> = trained(&model).map(stored_name).collect();
    names.sort();
    assert_eq!(names.len(), 2 * 2 * model.config.layers() + 1, "{names:?}");
    let config = adapter_config(&model, &settings, Path::new("base"));
    assert_eq!(config["target_modules"], serde_json::json!(["down_proj", "q_proj"]));
    assert_eq!(config["modules_to_save"], serde_json::json!(["score"]));
    let a = trained(&model).find(|spec| spec.name.ends_with("q_proj.lora_A.weight")).unwrap();
    let (values, bound) = (&model.parameters.values[a.span.range()], 1.0 / (a.shape[1] as f32).sqrt());
    assert!(values.iter().all(|v| v.abs() <= bound) && values.iter().any(|v| v.abs() > 0.8 * bound));
    let error = attach(&mut model, &LoraSettings { targets: vec!["proj".into()], ..lora() }, 1).unwrap_err();
    assert!(error.to_string().contains("expected some of q_proj, k_proj, v_proj"), "{error}");
}

/// A base that is kept in 8 bits or bf16 gives nearly the gradients of f32.
#[test]
fn a_frozen_base_of_fewer_bits_teaches_nearly_the_same() {
    let golden = Golden::of(&golden("train_qwen3"));
    let (texts, pairs) = (golden.texts(), golden.pairs());
    let exact = golden.model();
    let (scores, expected) = gradients(&exact, &texts, &pairs[..2]);
    let (mut model, _) = load_frozen(&golden.base(), LoadOptions::Judge, Precision::Int8).unwrap();
    model.prepare_turns(128);
    attach(&mut model, &lora(), 42).unwrap();
    read_tensors(&golden.dir.join(TENSORS_FILE), &mut model.parameters).unwrap();
    assert_eq!(model.packed.precision(), Precision::Int8);
    let (found, gradients) = gradients(&model, &texts, &pairs[..2]);
    for (found, exact) in found.iter().zip(&scores) {
        assert!((found - exact).abs() < 0.1 * (1.0 + exact.abs()), "{found} instead of {exact}");
    }
    let apart: Vec<f32> = gradients.values().iter().zip(expected.values()).map(|(f, e)| f - e).collect();
    let relative = norm(&apart) / norm(expected.values());
    assert!(relative > 1e-6 && relative < 0.1, "{relative}");
    assert!(model.parameters.values.len() < exact.parameters.values.len(), "its matrices take no f32");
}

/// The matrices of a frozen base have no values in the flat buffer, and the head is fitted to what they compute.
#[test]
fn the_head_comes_first_over_a_frozen_base_of_fewer_bits() {
    let golden = Golden::of(&golden("train_qwen3"));
    let (mut model, _) = load_frozen(&golden.base(), LoadOptions::Judge, Precision::Int8).unwrap();
    model.prepare_turns(128);
    attach(&mut model, &lora(), 42).unwrap();
    let before = model.output_layer();
    let dir = tempfile::tempdir().unwrap();
    let asked = Asked { head_first: Some(true), max_steps: Some(1), ..Asked::default() };
    let mut trainer = trainer(model, examples(&golden), dir.path(), asked);
    assert_eq!(run(&mut trainer).len(), 1);
    assert!(trainer.model.output_layer().iter().zip(&before).any(|(found, before)| (found - before).abs() > 0.01));
}

/// BERT: "dense" is the name of adapted layers and of the pooler, which belongs to the head.
#[test]
fn an_adapter_of_bert_names_what_it_adapts_and_its_whole_head() {
    let base = golden("../models/bert").canonicalize().unwrap();
    let (mut model, _) = load(&base, LoadOptions::Judge).unwrap();
    attach(&mut model, &lora(), 42).unwrap();
    let config = adapter_config(&model, &lora(), &base);
    let targets = ["intermediate.dense", "key", "output.dense", "query", "value"];
    assert_eq!(config["target_modules"], serde_json::json!(targets));
    assert_eq!(config["modules_to_save"], serde_json::json!(["classifier", "pooler"]));
    let dir = tempfile::tempdir().unwrap();
    for index in 0..model.parameters.specs().len() {
        let span = model.parameters.specs()[index].span;
        if model.parameters.specs()[index].trained {
            model.parameters.values[span.range()].iter_mut().enumerate().for_each(|(i, v)| *v += 0.01 * (i % 7) as f32);
        }
    }
    write_tensors(&dir.path().join(TENSORS_FILE), &model.parameters).unwrap();
    std::fs::write(dir.path().join(CONFIG_FILE), Value::Object(config).to_string()).unwrap();
    let texts: Vec<Encoded> =
        Golden::of(&golden("train_qwen3")).texts().into_iter().filter(|text| text.ids.len() < 64).collect();
    let (merged, _) = load(dir.path(), LoadOptions::Judge).unwrap();
    let score = |model: &Model| score_encoded(model, &texts, &mut Workspace::default()).unwrap();
    for (found, expected) in score(&merged).iter().zip(score(&model)) {
        assert!((found - expected).abs() < 1e-4, "merged {found}, beside the base {expected}");
    }
}

/// Adapters of the top layers alone are told from the others by their layers, as PEFT does.
#[test]
fn adapters_of_the_top_layers_are_named_as_by_peft() {
    let golden = Golden::of(&golden("train_llama_top"));
    let model = golden.model();
    let config = adapter_config(&model, &golden.lora(), Path::new("base"));
    let peft: Value = serde_json::from_slice(&std::fs::read(golden.dir.join(CONFIG_FILE)).unwrap()).unwrap();
    for key in ["layers_to_transform", "target_modules"] {
        assert_eq!(config[key], peft[key], "{key}");
    }
    let lower = |spec: &&ParameterSpec| spec.name.contains("layers.0.");
    assert!(trained(&model).filter(lower).count() == 0 && !model.parameters.specs().is_empty());
}

/// What the adapters of each module add to it, with the factor, by the module's name.
fn products(model: &Model, scale: f64) -> std::collections::BTreeMap<String, Vec<f64>> {
    let values = |name: &str| {
        let spec = model.parameters.specs().iter().find(|spec| spec.name == name).unwrap();
        (spec.shape.clone(), &model.parameters.values[spec.span.range()])
    };
    let modules = trained(model).filter_map(|spec| spec.name.strip_suffix(".lora_A.weight"));
    let product = |module: &str| {
        let (shape, a) = values(&format!("{module}.lora_A.weight"));
        let (_, b) = values(&format!("{module}.lora_B.weight"));
        let (rank, inputs) = (shape[0], shape[1]);
        let cell = |row: &[f32], column: usize| {
            let terms = row.iter().enumerate().map(|(r, b)| f64::from(*b) * f64::from(a[r * inputs + column]));
            scale * terms.sum::<f64>()
        };
        b.chunks(rank).flat_map(|row| (0..inputs).map(move |column| cell(row, column))).collect()
    };
    modules.map(|module| (module.to_owned(), product(module))).collect()
}

/// The mean of adapters adds the mean of what they add, and its head is the mean of theirs.
#[test]
fn adapters_are_averaged_as_products() {
    let golden = Golden::of(&golden("train_qwen3"));
    for rslora in [false, true] {
        let settings = LoraSettings { rslora, ..lora() };
        let members: Vec<Model> = (0..3)
            .map(|member| {
                let mut model = golden.model_with(&settings);
                let spans: Vec<_> = trained(&model).map(|spec| spec.span).collect();
                for (i, at) in spans.into_iter().flat_map(|span| span.range()).enumerate() {
                    model.parameters.values[at] += 0.1 * ((i * (member + 2)) % 11) as f32 - 0.5;
                }
                model
            })
            .collect();
        let (mut mean, wider) = widened(&members[0], &settings, 3).unwrap();
        for (place, member) in members.iter().enumerate() {
            add_to_mean(&mut mean.parameters, &member.parameters, place, 3);
        }
        assert_eq!(wider.rank, 12);
        let factor = |s: &LoraSettings| s.alpha / if rslora { (s.rank as f64).sqrt() } else { s.rank as f64 };
        assert!((factor(&wider) - factor(&settings)).abs() < 1e-12, "{wider:?}");
        let each: Vec<_> = members.iter().map(|member| products(member, factor(&settings))).collect();
        let found = products(&mean, factor(&wider));
        assert_eq!(found.len(), 7 * mean.config.layers());
        for (module, found) in found {
            for (at, found) in found.iter().enumerate() {
                let expected = each.iter().map(|member| member[&module][at]).sum::<f64>() / 3.0;
                assert!((found - expected).abs() < 1e-5, "{module}[{at}]: {found} instead of {expected}");
            }
        }
        let head = |model: &Model| model.output_layer();
        for (at, found) in head(&mean).iter().enumerate() {
            let expected = members.iter().map(|member| head(member)[at]).sum::<f32>() / 3.0;
            assert!((found - expected).abs() < 1e-6, "head[{at}]");
        }
    }
}

/// The base of an adapter over fewer layers has the values of the whole one below, and is a base like any other.
#[test]
fn lower_layers_are_a_base_of_their_own() {
    let new_head = LoadOptions::Base { seed: 1, new_head: true };
    for (name, layers) in
        [("../models/bert_base", 2), ("../judges/llama", 1), ("../judges/gemma3_text", 2), ("../judges/gpt2", 1)]
    {
        let (base, dir) = (golden(name), tempfile::tempdir().unwrap());
        write_lower_base(&base, 1.max(layers - usize::from(name.ends_with("bert_base"))), true, dir.path()).unwrap();
        let (lower, head) = load(dir.path(), new_head).unwrap();
        assert_eq!((lower.config.layers(), head), (layers, ClassifierSource::New), "{name}");
        let (mut whole, _) = load(&base, new_head).unwrap();
        if whole.config.decoder().is_none() {
            open_anew(&mut whole, Some(1));
        }
        let below = lower.parameters.specs().iter().filter(|spec| spec.role < kudos::nn::Role::Output);
        for spec in below {
            let own = whole.parameters.specs().iter().find(|own| own.name == spec.name).unwrap();
            let [found, expected] = [(&lower, spec), (&whole, own)].map(|(m, s)| &m.parameters.values[s.span.range()]);
            assert!(found == expected, "{name} {}", spec.name);
        }
        let many = write_lower_base(&base, 9, true, dir.path()).unwrap_err().to_string();
        assert!(many.contains("--keep-layers 9"), "{many}");
    }
    let own = write_lower_base(&golden("../judges/llama"), 1, false, tempfile::tempdir().unwrap().path()).unwrap_err();
    assert!(own.to_string().contains("--new-head"), "{own}");
}
