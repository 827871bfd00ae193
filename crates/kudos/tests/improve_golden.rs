//! Ten steps of an improvement on fixed responses and scores against PyTorch (`golden/improve`, made by
//! `golden/make_improve_golden.py`): the gradients of the first, and the losses of all.

use kudos::improve::{Desk, Lesson, Objective, PolicyOptimizer, Step, advantages, best};
use kudos::models::{Decoder, DecoderHead};
use kudos::nn::{Gradients, Precision};
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(name)
}

fn floats(file: &SafeTensors, name: &str) -> Option<Vec<f32>> {
    let bytes = file.tensor(name).ok()?.data();
    Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect())
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The lessons of a step.
fn lessons(step: &Value, algorithm: &str) -> Vec<Lesson> {
    let of_group = |group: &Value| {
        let scores: Vec<Option<f64>> = numbers(&group["scores"]).into_iter().map(Some).collect();
        let worth = if algorithm == "rloo" { advantages(&scores) } else { best(&scores) };
        let prompt: std::sync::Arc<[u32]> = ids(&group["prompt"]).into();
        let responses = group["responses"].as_array().unwrap().iter().map(ids);
        let lesson = |(response, weight)| Lesson { prompt: prompt.clone(), response, weight };
        responses.zip(worth).map(lesson).collect::<Vec<_>>()
    };
    step.as_array().unwrap().iter().flat_map(of_group).collect()
}

/// How far the largest difference is from the largest value.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(1e-3f32, |largest, value| largest.max(value.abs()));
    found.iter().zip(expected).fold(0f32, |far, (a, b)| far.max((a - b).abs())) / largest
}

#[test]
fn ten_steps_are_pytorchs() {
    let cases: Value = serde_json::from_slice(&std::fs::read(golden("improve/cases.json")).unwrap()).unwrap();
    for (name, case) in cases.as_object().unwrap() {
        let bytes = std::fs::read(golden(&format!("improve/{name}.safetensors"))).unwrap();
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        let dir = golden("decoders").join(case["model"].as_str().unwrap());
        let mut policy = Decoder::load_flat(&dir, DecoderHead::Words).unwrap();
        let mut start = Decoder::load_to_read(&dir, Precision::F32).unwrap();
        policy.prepare_turns(64);
        start.prepare_turns(64);
        let mut desk = Desk::default();
        let temperature = case["temperature"].as_f64().unwrap() as f32;
        let objective = Objective { kl: case["kl"].as_f64().unwrap(), temperature };
        let steps: Vec<Vec<Lesson>> = case["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| lessons(step, case["algorithm"].as_str().unwrap()))
            .collect();
        let mut gradients = Gradients::new(policy.parameters());
        gradients.start();
        desk.learn([&policy, &start], &steps[0], objective, Some(&mut gradients));
        gradients.finish();
        for spec in policy.parameters().specs() {
            let expected = floats(&expected, &format!("grad.{}", spec.name)).expect(&spec.name);
            let far = distance(&gradients.values()[spec.span.range()], &expected);
            assert!(far < 1e-4, "{name}: the gradient of {} is {far} away", spec.name);
        }
        let [losses, kls, norms] = ["losses", "kl_found", "grad_norms"].map(|key| numbers(&case[key]));
        let rate = case["learning_rate"].as_f64().unwrap() as f32;
        for by_layer in [true, false] {
            let mut policy = policy.clone();
            let mut optimizer = PolicyOptimizer::new(&policy, Precision::F32);
            let parameters = policy.parameters();
            let mut gradients = if by_layer { Gradients::by_layer(parameters) } else { Gradients::new(parameters) };
            for (at, lessons) in steps.iter().enumerate() {
                let step = Step { gradients: &mut gradients, optimizer: &mut optimizer, rate, refuses: &|_| Ok(()) };
                let (learnt, norm) = desk.step((&mut policy, &start), lessons, objective, step).unwrap();
                assert!(
                    (learnt.loss - losses[at]).abs() < 1e-4,
                    "{name}, step {at}: {} for {}",
                    learnt.loss,
                    losses[at]
                );
                assert!((learnt.kl - kls[at]).abs() < 1e-4, "{name}, step {at}: KL {} for {}", learnt.kl, kls[at]);
                assert!((norm / norms[at] - 1.0).abs() < 1e-3, "{name}, step {at}: norm {norm} for {}", norms[at]);
            }
        }
        assert!(kls[9] > 1e-3, "{name}: the golden run moved");
    }
}
