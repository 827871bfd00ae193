//! bf16 and int8 beside f32, on models whose f32 numbers are held to PyTorch's elsewhere.
//!
//! Where the processor lacks the instructions, the kernels' plain twins stand in for them: no test is skipped.

use kernels::parallel::with_threads;
use kudos::models::{LoadOptions, Model, Scorer, Workspace, load, push, quantize};
use kudos::nn::{Gradients, Mode, Precision};
use kudos::random::Stream;
use kudos::text::Encoded;
use std::path::{Path, PathBuf};

fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(name)
}

fn sequences(vocabulary: usize, longest: usize, count: usize) -> Vec<Encoded> {
    let mut random = Stream::new(11, 3);
    let mut one = |len: usize| {
        let ids: Vec<u32> = (0..len).map(|_| 5 + random.below(vocabulary - 5) as u32).collect();
        Encoded { tokens_before_truncation: len, truncated: false, type_ids: vec![0; len], ids }
    };
    (0..count).map(|i| one(1 + i * 7 % longest)).collect()
}

fn scores(precision: Precision, sequences: &[Encoded]) -> Vec<f32> {
    let mut judge = Scorer::load(&dir("trl_text"), Some(precision)).unwrap();
    assert_eq!(judge.precision(), precision);
    judge.score_encoded(sequences).unwrap()
}

/// Pearson's r.
fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let mean = |v: &[f32]| v.iter().map(|x| f64::from(*x)).sum::<f64>() / v.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let product = |u: &[f32], mu: f64, v: &[f32], mv: f64| -> f64 {
        u.iter().zip(v).map(|(x, y)| (f64::from(*x) - mu) * (f64::from(*y) - mv)).sum()
    };
    product(a, ma, b, mb) / (product(a, ma, a, ma) * product(b, mb, b, mb)).sqrt()
}

#[test]
fn scores_follow_f32_and_depend_on_their_text_alone() {
    kernels::emulate_missing_products();
    let texts = sequences(60, 60, 300);
    let full = scores(Precision::F32, &texts);
    for precision in [Precision::Bf16, Precision::Int8] {
        let found = scores(precision, &texts);
        let r = correlation(&found, &full);
        assert!(r > 0.999, "{precision}: correlation {r}");
        for threads in 1..=3 {
            let alone = with_threads(threads, || scores(precision, &texts[threads..threads + 1]));
            assert_eq!(alone[0].to_bits(), found[threads].to_bits(), "{precision}, {threads} threads");
            let reversed: Vec<_> = texts.iter().rev().cloned().collect();
            let mut all = with_threads(threads, || scores(precision, &reversed));
            all.reverse();
            assert!(all == found, "{precision}, {threads} threads, another order");
        }
    }
}

#[test]
fn a_quantized_judge_scores_as_its_full_one_in_int8() {
    kernels::emulate_missing_products();
    let (judge, small) = (dir("trl_text"), tempfile::tempdir().unwrap());
    quantize(&judge, small.path()).unwrap();
    for entry in std::fs::read_dir(&judge).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().contains("safetensors") {
            std::fs::copy(&path, small.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let texts = sequences(60, 60, 200);
    let full = scores(Precision::F32, &texts);
    let mut stored = Scorer::load(small.path(), None).unwrap();
    assert_eq!(stored.precision(), Precision::Int8);
    let found = stored.score_encoded(&texts).unwrap();
    assert!(correlation(&found, &full) > 0.999);
    let mut widened = Scorer::load(small.path(), Some(Precision::F32)).unwrap();
    assert!(correlation(&widened.score_encoded(&texts).unwrap(), &full) > 0.999);
}

fn gradients(model: &Model, precision: Precision, sequences: &[Encoded]) -> Vec<f32> {
    let mut model = model.clone();
    model.pack_for_training(precision);
    let (model, mut workspace) = (&model, Workspace::default());
    sequences.iter().for_each(|s| push(model, s, &mut workspace.batch).unwrap());
    let logits = workspace.forward(model, Mode::Train);
    let seed: Vec<f32> = (0..sequences.len()).map(|i| 1.0 - 2.0 * (i % 2) as f32).collect();
    let mut gradients = Gradients::new(&model.parameters);
    gradients.start();
    workspace.tape.backward(logits, &seed, model.weights(), &mut gradients, &workspace.batch);
    gradients.finish();
    gradients.values().to_vec()
}

#[test]
fn bf16_gradients_follow_f32_and_do_not_depend_on_threads() {
    kernels::emulate_missing_products();
    for name in ["trl_text", "trl_distilbert", "trl_bert"] {
        let (model, _) = load(&dir(name), LoadOptions::Base { seed: 42, new_head: false }).unwrap();
        let texts = sequences(model.config.vocabulary().min(60), model.config.max_tokens().min(60), 8);
        let (full, half) = (gradients(&model, Precision::F32, &texts), gradients(&model, Precision::Bf16, &texts));
        let largest = full.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        // A bias of the keys shifts all scores of a query alike: its gradient is 0 but for rounding.
        let moves = |name: &str| !name.ends_with("k_lin.bias") && !name.ends_with("key.bias");
        for spec in model.parameters.specs().iter().filter(|spec| moves(&spec.name)) {
            let range = spec.span.range();
            let norm = full[range.clone()].iter().map(|v| v * v).sum::<f32>().sqrt();
            let error = full[range.clone()].iter().zip(&half[range]).map(|(f, h)| (f - h).powi(2)).sum::<f32>().sqrt();
            let noise = 1e-4 * largest * (spec.span.len as f32).sqrt();
            assert!(error < 0.06 * norm + noise, "{name} {}: error {error} of {norm}", spec.name);
        }
        for threads in [1, 3] {
            assert!(half == with_threads(threads, || gradients(&model, Precision::Bf16, &texts)), "{name}, {threads}");
        }
    }
}

#[test]
fn damaged_scales_are_named() {
    let small = tempfile::tempdir().unwrap();
    quantize(&dir("trl_text"), small.path()).unwrap();
    std::fs::copy(dir("trl_text").join("config.json"), small.path().join("config.json")).unwrap();
    let path = small.path().join("model.int8.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    // Renaming a scale leaves its tensor without one.
    let at = bytes.windows(6).position(|w| w == b"_scale").unwrap();
    bytes[at..at + 6].copy_from_slice(b"_skale");
    std::fs::write(&path, bytes).unwrap();
    let message = load(small.path(), LoadOptions::Judge).unwrap_err().to_string();
    assert!(message.contains("scale") || message.contains("skale"), "{message}");
}
