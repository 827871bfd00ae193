//! Decoders against transformers (`golden/decoders`, made by `golden/make_decoder_golden.py`).

use kudos::models::{Decoder, DecoderHead, LogitRows};
use kudos::nn::{Batch, Precision, Tape};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

const LANGUAGE_MODELS: [&str; 15] = [
    "gemma3_linear",
    "gemma3_text",
    "gpt2",
    "gpt2_published",
    "llama",
    "llama3",
    "llama_f16",
    "llama_linear",
    "llama_sharded",
    "llama_tied_bias",
    "phi",
    "qwen2",
    "qwen2_bf16",
    "qwen2_tied",
    "qwen3",
];

fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/decoders").join(name)
}

/// What transformers computed.
struct Expected(Vec<u8>);

impl Expected {
    fn read(name: &str) -> Self {
        Self(std::fs::read(dir(name).join("expected.safetensors")).expect("a golden"))
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).expect("safetensors").tensor(name).expect(name).data().to_vec()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.bytes(name).chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as u32).collect()
    }

    fn prompts(&self) -> Vec<Vec<u32>> {
        let (ids, offsets) = (self.ids("input_ids"), self.ids("offsets"));
        offsets.windows(2).map(|w| ids[w[0] as usize..w[1] as usize].to_vec()).collect()
    }
}

/// All prompts at once, each in its own slot from its start.
fn packed(prompts: &[Vec<u32>]) -> Batch {
    let mut batch = Batch::default();
    for (slot, prompt) in prompts.iter().enumerate() {
        batch.push_cached(prompt, slot, 0).unwrap();
    }
    batch
}

fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_and_states_are_transformers() {
    for name in LANGUAGE_MODELS {
        let expected = Expected::read(name);
        let mut model = Decoder::load(&dir(name), DecoderHead::Words, Precision::F32).expect(name);
        let prompts = expected.prompts();
        let (mut cache, mut tape) = (model.cache(prompts.len(), 64), Tape::default());
        let batch = packed(&prompts);
        let difference =
            largest_difference(model.logits(&mut tape, &batch, &mut cache, LogitRows::All), &expected.floats("logits"));
        assert!(difference < 1e-4, "{name}: logits differ by {difference}");
        let states = model.states(&mut tape, &batch, &mut cache);
        let difference = largest_difference(states, &expected.floats("last_hidden_state"));
        assert!(difference < 1e-4, "{name}: states differ by {difference}");
    }
}

fn best(logits: &[f32]) -> u32 {
    let better = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).fold(0, better) as u32
}

#[test]
fn sixty_four_greedy_tokens_are_transformers() {
    for name in LANGUAGE_MODELS {
        let expected = Expected::read(name);
        let mut model = Decoder::load(&dir(name), DecoderHead::Words, Precision::F32).expect(name);
        let prompts = expected.prompts();
        let (mut cache, mut tape) = (model.cache(prompts.len(), 112), Tape::default());
        let mut batch = packed(&prompts);
        let mut written: Vec<Vec<u32>> = vec![Vec::new(); prompts.len()];
        for _ in 0..64 {
            let logits = model.logits(&mut tape, &batch, &mut cache, LogitRows::Last);
            let width = logits.len() / prompts.len();
            written.iter_mut().zip(logits.chunks_exact(width)).for_each(|(own, logits)| own.push(best(logits)));
            batch.clear();
            for (slot, own) in written.iter().enumerate() {
                batch.push_cached(&own[own.len() - 1..], slot, prompts[slot].len() + own.len() - 1).unwrap();
            }
        }
        assert_eq!(written.concat(), expected.ids("greedy"), "{name}");
    }
}

#[test]
fn a_reward_head_is_read_off_the_last_token() {
    let expected = Expected::read("llama_reward");
    let mut model = Decoder::load(&dir("llama_reward"), DecoderHead::Score, Precision::F32).expect("a reward model");
    let prompts = expected.prompts();
    let (mut cache, mut tape) = (model.cache(prompts.len(), 64), Tape::default());
    let scores = model.logits(&mut tape, &packed(&prompts), &mut cache, LogitRows::Last);
    assert!(largest_difference(scores, &expected.floats("scores")) < 1e-4);
    let error = Decoder::load(&dir("llama_reward"), DecoderHead::Words, Precision::F32).err().expect("no logits");
    assert!(error.to_string().contains("cannot generate"), "{error}");
}

/// The old keys of transformers 4 say the same.
#[test]
fn configs_of_both_spellings_agree() {
    let mut tried = 0;
    for name in LANGUAGE_MODELS {
        let old = dir(name).join("config.v4.json");
        if !old.exists() {
            continue;
        }
        tried += 1;
        let read = |path: &Path| {
            let text = std::fs::read(path).expect("a config");
            let json = serde_json::from_slice(&text).expect("JSON");
            kudos::models::DecoderConfig::of(path, json).expect("a config that is understood")
        };
        let (new, old) = (read(&dir(name).join("config.json")), read(&old));
        assert_eq!((&new.rotaries, &new.kinds, new.head_dim), (&old.rotaries, &old.kinds, old.head_dim), "{name}");
    }
    assert!(tried > 5);
}

#[test]
fn fewer_bits_stay_close() {
    let expected = Expected::read("llama");
    for (precision, bound) in [(Precision::Bf16, 0.6), (Precision::Int8, 1.5)] {
        let mut model = Decoder::load(&dir("llama"), DecoderHead::Words, precision).expect("a decoder");
        let prompts = expected.prompts();
        let (mut cache, mut tape) = (model.cache(prompts.len(), 64), Tape::default());
        let logits = model.logits(&mut tape, &packed(&prompts), &mut cache, LogitRows::All);
        let difference = largest_difference(logits, &expected.floats("logits"));
        assert!(difference < bound, "{precision}: logits differ by {difference}");
    }
}

/// A text's logits are its own: alone, beside others, after its prompt was computed at once or copied from another slot.
#[test]
fn a_text_has_the_same_bits_in_any_batch() {
    for (name, precision) in [("llama", Precision::Int8), ("gemma3_text", Precision::Bf16), ("phi", Precision::F32)] {
        let prompts = Expected::read(name).prompts();
        let mut model = Decoder::load(&dir(name), DecoderHead::Words, precision).expect(name);
        let run = |model: &mut Decoder, order: &[usize], shift: usize| {
            let (mut cache, mut tape) = (model.cache(6, 64), Tape::default());
            let mut batch = Batch::default();
            order.iter().for_each(|i| batch.push_cached(&prompts[*i], i + shift, 0).unwrap());
            model.logits(&mut tape, &batch, &mut cache, LogitRows::Last);
            order.iter().for_each(|i| cache.copy(i + shift, (i + shift + 3) % 6, prompts[*i].len()));
            batch.clear();
            order.iter().for_each(|i| batch.push_cached(&[7], (i + shift + 3) % 6, prompts[*i].len()).unwrap());
            let logits = model.logits(&mut tape, &batch, &mut cache, LogitRows::Last);
            let width = logits.len() / order.len();
            logits.chunks_exact(width).map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
        let all = run(&mut model, &[0, 1, 2], 0);
        let turned = run(&mut model, &[2, 0, 1], 2);
        assert!(turned[0] == all[2] && turned[1] == all[0] && turned[2] == all[1], "{name}");
        for i in 0..3 {
            assert!(run(&mut model, &[i], 1)[0] == all[i], "{name}, prompt {i} alone");
        }
    }
}

#[test]
fn c10_an_empty_batch_has_no_logits() {
    let mut model = Decoder::load(&dir("llama"), DecoderHead::Words, Precision::Int8).unwrap();
    let (mut cache, mut tape) = (model.cache(1, 8), Tape::default());
    for wanted in [LogitRows::Last, LogitRows::All] {
        assert!(model.logits(&mut tape, &Batch::default(), &mut cache, wanted).is_empty());
    }
    assert!(model.states(&mut tape, &Batch::default(), &mut cache).is_empty());
}

/// The turns of its positions were looked up in an empty table.
#[test]
#[should_panic(expected = "make the cache with this decoder's `cache`")]
fn c10_a_cache_that_another_decoder_made_is_refused() {
    let [mut one, other] = [0, 1].map(|_| Decoder::load(&dir("llama"), DecoderHead::Words, Precision::F32).unwrap());
    let (mut cache, mut batch) = (one.cache(1, 8), Batch::default());
    batch.push_cached(&[1], 0, 0).unwrap();
    other.logits(&mut Tape::default(), &batch, &mut cache, LogitRows::Last);
}

#[test]
#[should_panic(expected = "lies outside the cache of 2 slots of 8 tokens")]
fn c10_tokens_beyond_the_cache_are_refused() {
    let mut model = Decoder::load(&dir("llama"), DecoderHead::Words, Precision::F32).unwrap();
    let (mut cache, mut batch) = (model.cache(2, 8), Batch::default());
    batch.push_cached(&[1, 2], 1, 7).unwrap();
    model.logits(&mut Tape::default(), &batch, &mut cache, LogitRows::Last);
}

/// Every family's GGUF file finds all its tensors' uses and runs.
#[test]
fn a_gguf_of_each_family_loads_and_runs() {
    for name in ["llama", "llama3", "qwen3", "gemma3", "phi2", "phi2_fused", "gpt2"] {
        let path = dir("../gguf").join(format!("{name}.gguf"));
        for precision in [Precision::F32, Precision::Int8] {
            let mut model =
                Decoder::load(&path, DecoderHead::Words, precision).unwrap_or_else(|e| panic!("{name}: {e}"));
            let (mut cache, mut tape) = (model.cache(1, 8), Tape::default());
            let mut batch = Batch::default();
            batch.push_cached(&[1, 3, 2], 0, 0).unwrap();
            let logits = model.logits(&mut tape, &batch, &mut cache, LogitRows::All);
            assert!(logits.len() == 3 * model.config.vocabulary && logits.iter().all(|l| l.is_finite()), "{name}");
        }
    }
    // This one's positions are stretched in a way that is not known: it is named, not approximated.
    let refused = Decoder::load(&dir("../gguf/qwen2.gguf"), DecoderHead::Words, Precision::F32).err().expect("yarn");
    assert!(refused.to_string().contains("yarn"), "{refused}");
}
