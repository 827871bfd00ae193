//! Judges of decoders, MPNet and ModernBERT in training, against transformers (`golden/judges/*/expected.*`, made by
//! `golden/make_judges_golden.py`): gradients, ten AdamW steps by the trainer, and the judge that it writes.

mod judges;
mod trained;

use judges::{ENCODERS, FAMILIES, directory, encoded, golden, json, weights as stored_weights};
use kudos::models::{LoadOptions, Model, Workspace, computed_tokens, load, push, push_all};
use kudos::nn::{Batch, Form, Gradients, Mode, ParameterSpec, Precision, weights};
use kudos::text::Encoded;
use kudos::train::{Asked, Example, Extent, HeldOutData, LearningRateSchedule, Recipe, Start, Trainer};
use safetensors::SafeTensors;
use std::ops::ControlFlow;
use trained::{Golden, example};

fn all() -> impl Iterator<Item = &'static str> {
    FAMILIES.into_iter().chain(ENCODERS)
}

fn base(name: &str) -> Model {
    let dir = directory(name, &json(&golden(name).join("config.json")));
    let (mut model, _) = load(dir.path(), LoadOptions::Judge).expect(name);
    model.prepare_turns(128);
    model
}

/// Values of the buffer in the checkpoint's order.
fn in_order(spec: &ParameterSpec, values: &[f32]) -> Vec<f32> {
    match spec.form {
        Form::Transposed => spec.form.stored(values, &spec.shape).into_owned(),
        Form::Plain | Form::LessOne => values.to_vec(),
    }
}

#[test]
fn gradients_are_transformers() {
    for name in all() {
        let (golden, model) = (Golden::of(&golden(name)), base(name));
        let texts = golden.texts();
        let pairs = golden.pairs();
        let mut workspace = Workspace::default();
        for text in pairs[..2].iter().flatten() {
            push(&model, &texts[*text], &mut workspace.batch).unwrap();
        }
        let scores = workspace.forward(&model, Mode::Train);
        let found = workspace.tape.value(scores).to_vec();
        // The mean over two pairs of −ln σ(chosen − rejected).
        let slope = |pair: &[f32]| -0.5 / (1.0 + (pair[0] - pair[1]).exp());
        let d_scores: Vec<f32> = found.chunks(2).flat_map(|pair| [slope(pair), -slope(pair)]).collect();
        let mut gradients = Gradients::new(&model.parameters);
        gradients.start();
        workspace.tape.backward(scores, &d_scores, model.weights(), &mut gradients, &workspace.batch);
        gradients.finish();
        for spec in model.parameters.specs() {
            let found = in_order(spec, &gradients.values()[spec.span.range()]);
            let expected = golden.tensor(&format!("grad.{}", spec.name)).expect("a gradient for each parameter");
            let norm = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            let apart: Vec<f32> = found.iter().zip(&expected).map(|(f, e)| f - e).collect();
            let bound = 1e-4 * norm(&expected) + if golden.is_noise(&spec.name, usize::MAX) { 1e-5 } else { 0.0 };
            assert!(norm(&apart) <= bound, "{name} {}: {} of {}", spec.name, norm(&apart), norm(&expected));
        }
    }
}

fn settings(examples: &[Example], width: usize) -> kudos::train::Settings {
    let asked = Asked {
        recipe: Some(Recipe::Trl),
        max_steps: Some(10),
        batch_size: Some(2),
        learning_rate: Some(1e-3),
        schedule: Some(LearningRateSchedule::Linear),
        no_shuffle: Some(true),
        precision: Some(Precision::F32),
        ..Asked::default()
    };
    let start = Start { new_head: false, reopened: false, width };
    asked.decide(Extent::of(examples, 2, HeldOutData::None, start)).unwrap()
}

#[test]
fn ten_steps_of_the_trainer_are_transformers_and_the_judge_comes_back() {
    for name in all() {
        let (golden_values, model) = (Golden::of(&golden(name)), base(name));
        let texts = golden_values.texts();
        let pairs = golden_values.pairs();
        let examples: Vec<Example> = (0..).zip(&pairs).map(|(line, pair)| example(&texts, *pair, line)).collect();
        let settings = settings(&examples, model.config.hidden());
        let dir = directory(name, &json(&golden(name).join("config.json")));
        let mut trainer = Trainer::new(model, settings, examples, None, dir.path().into(), String::new()).unwrap();
        let mut steps = Vec::new();
        trainer
            .run(&mut |event| {
                if let kudos::train::Event::Step(metrics) = event {
                    steps.push((metrics.loss, metrics.grad_norm));
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        let expected = golden_values.numbers("losses").into_iter().zip(golden_values.numbers("grad_norms"));
        assert_eq!(steps.len(), 10);
        for (step, ((loss, norm), (e_loss, e_norm))) in steps.iter().zip(expected).enumerate() {
            assert!((loss - e_loss).abs() < 1e-4, "{name} step {step}: loss {loss} instead of {e_loss}");
            assert!((norm - e_norm).abs() < 1e-4 * e_norm + 1e-4, "{name} step {step}: norm {norm}, {e_norm}");
        }
        assert_weights(&golden_values, &trainer.model, name);
        let scores = trainer.score(&texts).unwrap();
        let beyond: Vec<f64> = scores[1..].iter().map(|score| f64::from(score - scores[0])).collect();
        for (found, expected) in beyond.iter().zip(golden_values.numbers("scores_beyond_first")) {
            assert!((found - expected).abs() < 2e-4, "{name}: {found} instead of {expected}");
        }
        let read = judges::load(dir.path(), Precision::F32).unwrap().score_encoded(&texts).unwrap();
        assert_eq!(read, scores, "{name}: what is written is what was trained");
    }
}

fn assert_weights(golden: &Golden, model: &Model, name: &str) {
    let mut compared = 0;
    for spec in model.parameters.specs() {
        let Some(expected) = golden.tensor(&format!("adamw.final.{}", spec.name)) else { continue };
        let found = spec.form.stored(&model.parameters.values[spec.span.range()], &spec.shape).into_owned();
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let close = (found - expected).abs() < 1e-4 || golden.is_noise(&spec.name, at);
            assert!(close, "{name} {}[{at}]: {found} instead of {expected}", spec.name);
        }
        compared += 1;
    }
    assert!(compared > 5, "{name}");
}

/// Every tensor, under its name and in its form, to the bit where a form allows it.
#[test]
fn what_is_written_is_what_was_read() {
    for name in all() {
        let (model, dir) = (base(name), tempfile::tempdir().unwrap());
        let path = dir.path().join("model.safetensors");
        weights::write(&path, &model.parameters).unwrap();
        let [written, stored] = [path, stored_weights(name)].map(|path| std::fs::read(path).unwrap());
        let [written, stored] = [&written, &stored].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
        for spec in model.parameters.specs() {
            let [found, expected] = [&written, &stored].map(|file| file.tensor(&spec.name).expect(name));
            assert_eq!(found.shape(), expected.shape(), "{name} {}", spec.name);
            let floats = |bytes: &[u8]| -> Vec<f32> {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
            };
            let pairs = floats(found.data()).into_iter().zip(floats(expected.data()));
            let bound = if spec.form == Form::LessOne { 1e-6 } else { 0.0 };
            pairs.for_each(|(f, e)| assert!((f - e).abs() <= bound, "{name} {}: {f} instead of {e}", spec.name));
        }
    }
}

/// What is frozen has no gradient and no way back; what is not has the gradients that it had, to the bit.
#[test]
fn the_top_layers_learn_the_same_with_the_others_frozen() {
    for name in all() {
        let texts = Golden::of(&golden(name)).texts();
        let gradients = |model: &Model| {
            let mut workspace = Workspace::default();
            texts[2..5].iter().for_each(|text| push(model, text, &mut workspace.batch).unwrap());
            let scores = workspace.forward(model, Mode::Train);
            let mut gradients = Gradients::new(&model.parameters);
            gradients.start();
            workspace.tape.backward(scores, &[1.0, -0.5, 0.25], model.weights(), &mut gradients, &workspace.batch);
            gradients.finish();
            (gradients, workspace.tape.arena_len())
        };
        let (whole, mut frozen) = (base(name), base(name));
        frozen.freeze_below_top(1);
        let ((all, memory), (top, less)) = (gradients(&whole), gradients(&frozen));
        assert!(less < memory && top.values().len() < all.values().len(), "{name}");
        let places = frozen.parameters.trained();
        for spec in frozen.parameters.specs() {
            let Some(place) = places.place(spec.span).filter(|_| spec.trained) else { continue };
            assert_eq!(top.values()[place.range()], all.values()[spec.span.range()], "{name} {}", spec.name);
        }
        let lowest = frozen.parameters.specs().iter().find(|spec| spec.trained).unwrap();
        assert_eq!(lowest.role, kudos::nn::Role::Layer(whole.config.layers() - 1), "{name}");
    }
}

/// What all layers share (scores by distance, turns) is kept where layers are computed again.
#[test]
fn layers_of_encoders_that_are_computed_again_have_the_same_gradients() {
    for name in ENCODERS {
        let (mut model, texts) = (base(name), Golden::of(&golden(name)).texts());
        let mut run = |recomputed| {
            model.recompute(recomputed);
            let pack = |batch: &mut Batch| {
                texts[2..5].iter().for_each(|text| push(&model, text, batch).unwrap());
                vec![0, 1, 2]
            };
            scores_and_gradients(&model, &[1.0, -0.5, 0.25], pack).1.values().to_vec()
        };
        let expected = run(0);
        assert_eq!(run(1), expected, "{name}");
        assert_eq!(run(2), expected, "{name}");
    }
}

/// Scores of texts, and the gradients of their sum with weights `seed`, from a batch that `pack` fills. It says in which
/// sequence each text ends.
fn scores_and_gradients(model: &Model, seed: &[f32], pack: impl Fn(&mut Batch) -> Vec<usize>) -> (Vec<f32>, Gradients) {
    let mut workspace = Workspace::default();
    let sequences = pack(&mut workspace.batch);
    let outputs = workspace.forward(model, Mode::Train);
    let values = workspace.tape.value(outputs).to_vec();
    let mut d_outputs = vec![0.0; values.len()];
    sequences.iter().zip(seed).for_each(|(at, seed)| d_outputs[*at] += seed);
    let mut gradients = Gradients::new(&model.parameters);
    gradients.start();
    workspace.tape.backward(outputs, &d_outputs, model.weights(), &mut gradients, &workspace.batch);
    gradients.finish();
    (sequences.iter().map(|at| values[*at]).collect(), gradients)
}

/// Texts that begin alike: responses of several lengths, two that are equal, the beginning itself, and another text.
fn group() -> Vec<Encoded> {
    let ids = |seed: u32, len: u32| (0..len).map(|i| 5 + (i * 7 + i * i * seed) % 59).collect::<Vec<u32>>();
    let prompt = ids(1, 40);
    let responses = [ids(2, 1), ids(3, 9), ids(4, 25), ids(3, 9), Vec::new()];
    let texts = responses.map(|response| [prompt.clone(), response].concat());
    texts.into_iter().chain([ids(5, 30)]).map(encoded).collect()
}

/// The gradients of a batch that shares are those of one that does not, but for the order of sums.
#[test]
fn a_beginning_that_is_computed_once_has_the_gradients_of_its_copies() {
    let (texts, seed) = (group(), [1.0, -0.5, 0.25, 2.0, -1.5, 0.75]);
    let each = |model: &Model, batch: &mut Batch| -> Vec<usize> {
        texts.iter().for_each(|text| push(model, text, batch).unwrap());
        (0..texts.len()).collect()
    };
    for (precision, bound) in [(Precision::F32, 1e-5), (Precision::Bf16, 4e-2)] {
        for name in FAMILIES {
            let mut model = base(name);
            if model.precision(precision) != precision {
                continue; // Phi, and processors without bf16.
            }
            model.pack_for_training(precision);
            let all = |batch: &mut Batch| push_all(&model, &texts, batch).into_iter().map(Result::unwrap).collect();
            assert_eq!(computed_tokens(&model, &texts), 40 + 1 + 9 + 25 + 30);
            let (scores, shared) = scores_and_gradients(&model, &seed, all);
            let (expected, apart) = scores_and_gradients(&model, &seed, |batch| each(&model, batch));
            assert_eq!(scores, expected, "{name} {precision}: the same bits");
            let norm = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            for spec in model.parameters.specs() {
                let [found, expected] = [&shared, &apart].map(|gradients| &gradients.values()[spec.span.range()]);
                let differences: Vec<f32> = found.iter().zip(expected).map(|(f, e)| f - e).collect();
                let bound = bound * (norm(expected) + 1e-3 * norm(apart.values()));
                let (found, of) = (norm(&differences), norm(expected));
                assert!(found <= bound, "{name} {precision} {}: {found} of {of}", spec.name);
            }
        }
    }
}

/// The trainer's own step on a pair that shares its prompt, against loss and gradients of both texts apart.
#[test]
fn a_step_on_a_shared_prompt_has_the_loss_and_the_gradients_of_both_texts() {
    for name in FAMILIES {
        let (texts, model) = (group(), base(name));
        let examples = vec![example(&texts, [2, 1], 0)];
        let pair = [&texts[2], &texts[1]];
        let apart = |seed: &[f32]| {
            scores_and_gradients(&model, seed, |batch| {
                pair.iter().for_each(|text| push(&model, text, batch).unwrap());
                vec![0, 1]
            })
        };
        let (scores, _) = apart(&[0.0, 0.0]);
        let margin = f64::from(scores[0]) - f64::from(scores[1]);
        let slope = (-1.0 / (1.0 + margin.exp())) as f32;
        let (_, gradients) = apart(&[slope, -slope]);
        let (settings, dir) = (settings(&examples, model.config.hidden()), tempfile::tempdir().unwrap());
        let settings = kudos::train::Settings { max_steps: 1, ..settings };
        let mut trainer =
            Trainer::new(model.clone(), settings, examples, None, dir.path().into(), String::new()).unwrap();
        let mut steps = Vec::new();
        trainer
            .run(&mut |event| {
                if let kudos::train::Event::Step(metrics) = event {
                    steps.push((metrics.loss, metrics.grad_norm, metrics.tokens));
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        let [(loss, norm, tokens)] = steps[..] else { panic!("one step") };
        assert_eq!(tokens, 65 + 49, "{name}: tokens of the texts, not those that were computed");
        assert!((loss - (-margin).exp().ln_1p()).abs() < 1e-6, "{name}: loss {loss} of margin {margin}");
        let expected = gradients.norm();
        assert!((norm - expected).abs() <= 1e-5 * expected, "{name}: norm {norm} instead of {expected}");
    }
}

/// Computed again on the way back, from any layer up: the same gradients to the bit, in less memory.
#[test]
fn layers_that_are_computed_again_have_the_same_gradients() {
    for name in FAMILIES {
        let (mut model, texts) = (base(name), Golden::of(&golden(name)).texts());
        let layers = model.config.layers();
        let mut needed = Vec::new();
        let mut expected = None;
        for recomputed in 0..=layers {
            model.recompute(recomputed);
            let mut workspace = Workspace::default();
            texts[2..5].iter().for_each(|text| push(&model, text, &mut workspace.batch).unwrap());
            let scores = workspace.forward(&model, Mode::Train);
            needed.push(workspace.tape.needed(scores));
            let mut gradients = Gradients::new(&model.parameters);
            gradients.start();
            workspace.tape.backward(scores, &[1.0, -0.5, 0.25], model.weights(), &mut gradients, &workspace.batch);
            gradients.finish();
            let found = gradients.values().to_vec();
            assert_eq!(&found, expected.get_or_insert_with(|| found.clone()), "{name}: {recomputed} layers");
        }
        // Of two layers, the last computes one token of each text: there is nothing to gain.
        assert!(needed[layers] < needed[0] || layers < 3, "{name}: {needed:?} words");
    }
}
