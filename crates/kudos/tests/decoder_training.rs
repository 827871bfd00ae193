//! Decoders over packed batches, forward and backward, against transformers (`golden/decoders/*/gradients.safetensors`, made
//! by `golden/make_decoder_gradients.py`).

use kernels::parallel::with_threads;
use kudos::models::{Decoder, DecoderHead, LogitRows};
use kudos::nn::{Asker, Batch, Gradients, Mode, Precision, Sequence, Storage, Tape};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

const FAMILIES: [&str; 6] = ["gemma3_text", "gpt2", "llama3", "phi", "qwen2", "qwen3"];

fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/decoders").join(name)
}

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).expect(name).data();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
}

fn integers(file: &SafeTensors, name: &str) -> Vec<u32> {
    let bytes = file.tensor(name).expect(name).data();
    bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as u32).collect()
}

/// Whole texts, one after the other.
fn whole(ids: &[u32], offsets: &[u32]) -> Batch {
    let mut batch = Batch::default();
    for bounds in offsets.windows(2) {
        let ids = &ids[bounds[0] as usize..bounds[1] as usize];
        batch.push(Sequence { ids, type_ids: &vec![0; ids.len()] }, None).unwrap();
    }
    batch
}

/// What each of `len` outputs weighs in the loss, as the script has it.
fn seed(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 % 19) as f32 - 9.0) / 9.0).collect()
}

#[test]
fn states_and_gradients_of_the_last_tokens_are_transformers() {
    for name in FAMILIES {
        let bytes = std::fs::read(dir(name).join("gradients.safetensors")).expect("a golden");
        let golden = SafeTensors::deserialize(&bytes).expect("safetensors");
        let batch = whole(&integers(&golden, "input_ids"), &integers(&golden, "offsets"));
        let mut model = Decoder::load_flat(&dir(name), DecoderHead::Words).expect(name);
        model.prepare_turns(64);
        let mut tape = Tape::default();
        tape.start(Mode::Train, Storage::F32);
        let states = model.push_whole(&mut tape, &batch, Some(Asker::Last)).full;
        tape.forward(states, model.weights(), &batch);
        let found = tape.value(states).to_vec();
        for (found, expected) in found.iter().zip(floats(&golden, "states")) {
            assert!((found - expected).abs() < 1e-4, "{name}: state {found} instead of {expected}");
        }
        let mut gradients = Gradients::new(model.parameters());
        gradients.start();
        tape.backward(states, &seed(found.len()), model.weights(), &mut gradients, &batch);
        gradients.finish();
        let mut compared = 0;
        for spec in model.parameters().specs() {
            let Ok(tensor) = golden.tensor(&format!("grad.{}", spec.name)) else { continue };
            let expected = floats(&golden, &format!("grad.{}", spec.name));
            let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
            let values = &gradients.values()[spec.span.range()];
            for (i, golden) in expected.iter().enumerate() {
                // GPT-2 stores its matrices the other way round.
                let columns = tensor.shape().last().copied().unwrap_or(1);
                let is_turned = name == "gpt2" && tensor.shape().len() == 2 && spec.name.contains(".h.");
                let at = if is_turned { i % columns * (expected.len() / columns) + i / columns } else { i };
                let close = (values[at] - golden).abs() <= 1e-4 * largest + 1e-6;
                assert!(close, "{name} {}[{i}]: {} instead of {golden}", spec.name, values[at]);
            }
            compared += 1;
        }
        assert!(compared >= model.parameters().specs().len() - 2, "{name}: {compared} tensors compared");
    }
}

/// One text alone, in a batch, over the packed batch and over a cache: the same states, but for how kernels round.
#[test]
fn whole_texts_have_the_states_that_a_cache_gives() {
    for name in FAMILIES {
        let bytes = std::fs::read(dir(name).join("gradients.safetensors")).expect("a golden");
        let golden = SafeTensors::deserialize(&bytes).expect("safetensors");
        let (ids, offsets) = (integers(&golden, "input_ids"), integers(&golden, "offsets"));
        let mut model = Decoder::load(&dir(name), DecoderHead::Words, Precision::F32).expect(name);
        let (mut cache, mut tape) = (model.cache(offsets.len() - 1, 64), Tape::default());
        let mut run = |offsets: &[u32], asked: Option<Asker>| {
            let batch = whole(&ids, offsets);
            tape.start(Mode::Score, Storage::F32);
            let states = model.push_whole(&mut tape, &batch, asked).full;
            tape.forward(states, model.weights(), &batch);
            tape.value(states).to_vec()
        };
        let (all, last) = (run(&offsets, None), run(&offsets, Some(Asker::Last)));
        let width = model.config.hidden;
        for (text, bounds) in offsets.windows(2).enumerate() {
            let own = &last[text * width..(text + 1) * width];
            let end = bounds[1] as usize;
            assert_eq!(own, &all[(end - 1) * width..end * width], "{name}: the last layer computes one token alone");
            assert_eq!(own, run(bounds, Some(Asker::Last)), "{name}: in a batch and alone");
        }
        let mut batch = Batch::default();
        for (slot, bounds) in offsets.windows(2).enumerate() {
            batch.push_cached(&ids[bounds[0] as usize..bounds[1] as usize], slot, 0).unwrap();
        }
        let mut tape = Tape::default();
        for (found, cached) in all.iter().zip(model.states(&mut tape, &batch, &mut cache)) {
            assert!((found - cached).abs() < 1e-4, "{name}: {found} over the batch, {cached} over the cache");
        }
        let logits = model.logits(&mut tape, &batch, &mut cache, LogitRows::Last);
        assert!(logits.iter().all(|logit| logit.is_finite()));
    }
}

/// Loss and gradients of texts that continue the first ones' beginning, computed once or in each text.
fn of_group(model: &Decoder, batch: &Batch, sequences: &[usize]) -> (f64, Vec<f32>) {
    let mut tape = Tape::default();
    tape.start(Mode::Train, Storage::F32);
    let states = model.push_whole(&mut tape, batch, Some(Asker::Last)).full;
    tape.forward(states, model.weights(), batch);
    let width = model.config.hidden;
    let (value, own) = (tape.value(states).to_vec(), seed(sequences.len() * width));
    let mut all = vec![0.0; value.len()];
    for (own, at) in own.chunks_exact(width).zip(sequences) {
        all[at * width..(at + 1) * width].copy_from_slice(own);
    }
    let loss = value.iter().zip(&all).map(|(value, seed)| f64::from(*value) * f64::from(*seed)).sum();
    let mut gradients = Gradients::new(model.parameters());
    gradients.start();
    tape.backward(states, &all, model.weights(), &mut gradients, batch);
    gradients.finish();
    (loss, gradients.values().to_vec())
}

/// A prompt of 20 tokens with responses of 1, 5 and 13, and one that is the prompt itself.
#[test]
fn a_prompt_that_is_computed_once_has_the_gradients_of_all_its_copies() {
    for name in FAMILIES {
        let mut model = Decoder::load_flat(&dir(name), DecoderHead::Words).expect(name);
        model.prepare_turns(64);
        let ids: Vec<u32> = (0..40).map(|i| 5 + i * 7 % 20).collect();
        let own = [&ids[20..21], &ids[25..30], &ids[27..40]];
        let (mut shared, mut apart) = (Batch::default(), Batch::default());
        let push = |batch: &mut Batch, ids: &[u32]| {
            batch.push(Sequence { ids, type_ids: &vec![0; ids.len()] }, None).unwrap();
        };
        push(&mut shared, &ids[..20]);
        push(&mut apart, &ids[..20]);
        for own in own {
            shared.push_child(own, 0).unwrap();
            push(&mut apart, &[&ids[..20], own].concat());
        }
        let (loss, gradients) = of_group(&model, &shared, &[0, 1, 2, 3]);
        let (expected_loss, expected) = of_group(&model, &apart, &[0, 1, 2, 3]);
        assert_eq!(loss.to_bits(), expected_loss.to_bits(), "{name}: states have the same bits");
        for spec in model.parameters().specs() {
            let (found, expected) = (&gradients[spec.span.range()], &expected[spec.span.range()]);
            let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                let close = (found - expected).abs() <= 1e-5 * largest;
                assert!(close, "{name} {}[{i}]: {found} instead of {expected}", spec.name);
            }
        }
        let again = with_threads(3, || of_group(&model, &shared, &[0, 1, 2, 3])).1;
        assert!(gradients == with_threads(1, || of_group(&model, &shared, &[0, 1, 2, 3])).1, "{name}: one thread");
        assert!(gradients == again, "{name}: three threads");
    }
}
