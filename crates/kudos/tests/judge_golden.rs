//! Decoder judges against transformers (`golden/judges`, made by `golden/make_judges_golden.py`): scores of ids and of
//! chats, both spellings of the config, and what must not be scored.

mod judges;

use judges::{FAMILIES, directory, encoded, golden, json, load};
use kudos::data::{Content, Message};
use kudos::models::{Scored, Scorer};
use kudos::nn::Precision;
use kudos::text::{Encoded, pooled_index};
use safetensors::tensor::TensorView;
use serde_json::{Map, Value};

fn texts(expected: &Value) -> Vec<Encoded> {
    let lists: Vec<Vec<u32>> = serde_json::from_value(expected["texts"].clone()).unwrap();
    lists.into_iter().map(encoded).collect()
}

fn numbers(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (text, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-4, "{what}, text {text}: {found} instead of {expected}");
    }
}

#[test]
fn scores_are_transformers_alone_and_in_any_batch() {
    for name in FAMILIES {
        let expected = json(&golden(name).join("expected.json"));
        let texts = texts(&expected);
        for config in ["config.json", "config4.json"] {
            let dir = directory(name, &json(&golden(name).join(config)));
            let mut judge = load(dir.path(), Precision::F32).expect(name);
            let together = judge.score_encoded(&texts).expect(name);
            let what = format!("{name} {config}");
            assert_close(&together, &numbers(&expected["scores"]), &what);
            assert_close(&together, &numbers(&expected["scores_padded"]), &what);
            for (text, score) in texts.iter().zip(&together) {
                let alone = judge.score_encoded(std::slice::from_ref(text)).unwrap()[0];
                assert_eq!(alone.to_bits(), score.to_bits(), "{what}: one text, one score");
            }
        }
    }
}

#[test]
fn the_score_is_read_where_transformers_reads_it() {
    for name in FAMILIES {
        let expected = json(&golden(name).join("expected.json"));
        let pad = expected["pad"].as_u64().map(|pad| pad as u32);
        let pooled: Vec<Option<usize>> = texts(&expected).iter().map(|text| pooled_index(&text.ids, pad)).collect();
        assert_eq!(serde_json::to_value(pooled).unwrap(), expected["pooled"], "{name}");
    }
}

#[test]
fn settings_of_a_config_change_the_score_as_in_transformers() {
    let variants: Map<String, Value> = serde_json::from_value(json(&golden("variants.json"))).unwrap();
    let mut compared = 0;
    for (name, variant) in &variants {
        let base = variant["base"].as_str().unwrap();
        if !FAMILIES.contains(&base) {
            continue;
        }
        let mut config = json(&golden(base).join("config.json"));
        let keys = config.as_object_mut().unwrap();
        variant["removed"].as_array().unwrap().iter().for_each(|key| drop(keys.remove(key.as_str().unwrap())));
        keys.extend(variant["set"].as_object().unwrap().clone());
        let dir = directory(base, &config);
        match load(dir.path(), Precision::F32) {
            Ok(mut judge) => {
                let found = judge.score_encoded(&texts(&json(&golden(base).join("expected.json")))).unwrap();
                assert!(variant["transformers"].is_null(), "{name} is an error in transformers");
                assert_close(&found, &numbers(&variant["scores"]), name);
                compared += 1;
            }
            Err(error) => {
                let refused = ["qwen3_pad_beyond_the_vocabulary", "gpt2_scaled_by_layer"];
                assert!(refused.contains(&name.as_str()), "{name}: {error}");
            }
        }
    }
    assert!(compared >= 10, "{compared} variants");
}

/// The tensors of one layer and those around it, of a judge of width 64 with two key heads.
fn wide_tensors(kind: &str) -> Vec<(String, Vec<usize>)> {
    let matrix = |name: &str, rows: usize, columns: usize| (format!("model.{name}.weight"), vec![rows, columns]);
    let vector = |name: &str| (format!("model.{name}"), vec![64]);
    let mut tensors = vec![matrix("embed_tokens", 64, 64), ("score.weight".to_owned(), vec![1, 64])];
    for (name, rows) in [("q_proj", 64), ("k_proj", 32), ("v_proj", 32)] {
        tensors.push(matrix(&format!("layers.0.self_attn.{name}"), rows, 64));
    }
    let norms = match kind {
        "phi" => {
            tensors.extend([matrix("layers.0.mlp.fc1", 96, 64), matrix("layers.0.mlp.fc2", 64, 96)]);
            tensors.push(matrix("layers.0.self_attn.dense", 64, 64));
            for (name, len) in [("q_proj", 64), ("k_proj", 32), ("v_proj", 32), ("dense", 64)] {
                tensors.push((format!("model.layers.0.self_attn.{name}.bias"), vec![len]));
            }
            tensors.extend([("model.layers.0.mlp.fc1.bias".to_owned(), vec![96]), vector("layers.0.mlp.fc2.bias")]);
            tensors.extend([vector("layers.0.input_layernorm.bias"), vector("final_layernorm.bias")]);
            vec!["layers.0.input_layernorm", "final_layernorm"]
        }
        _ => {
            tensors.extend(["gate_proj", "up_proj"].map(|name| matrix(&format!("layers.0.mlp.{name}"), 96, 64)));
            tensors.extend([matrix("layers.0.mlp.down_proj", 64, 96), matrix("layers.0.self_attn.o_proj", 64, 64)]);
            vec!["layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm"]
        }
    };
    tensors.extend(norms.iter().map(|name| vector(&format!("{name}.weight"))));
    if kind == "gemma2" {
        tensors.extend(["pre", "post"].map(|name| vector(&format!("layers.0.{name}_feedforward_layernorm.weight"))));
    }
    tensors
}

/// A judge that is wide enough to be packed; the goldens are not.
fn wide(kind: &str, class: &str) -> tempfile::TempDir {
    let config = serde_json::json!({"model_type": kind, "architectures": [class], "id2label": {"0": "LABEL_0"},
        "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "intermediate_size": 96, "vocab_size": 64, "max_position_embeddings": 128, "pad_token_id": 0,
        "sliding_window": 16});
    let dir = directory("qwen3", &config);
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = wide_tensors(kind)
        .into_iter()
        .map(|(name, shape)| {
            let scale = 2.0 / (shape[shape.len() - 1] as f32).sqrt();
            let values = (0..shape.iter().product()).flat_map(|_| (next() * scale).to_le_bytes()).collect();
            (name, shape, values)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    std::fs::write(dir.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    dir
}

/// Scores of fewer bits are those of f32, but for rounding, and depend on their text alone. Phi adds side by side, which
/// is done in f32 alone.
#[test]
fn fewer_bits_stay_close_and_keep_one_score_for_one_text() {
    let texts = texts(&json(&golden("qwen3/expected.json")));
    for (kind, class) in [("llama", "Llama"), ("gemma2", "Gemma2"), ("mistral", "Mistral"), ("phi", "Phi")] {
        let dir = wide(kind, &format!("{class}ForSequenceClassification"));
        let exact = load(dir.path(), Precision::F32).expect(kind).score_encoded(&texts).unwrap();
        for (precision, bound) in [(Precision::Bf16, 0.05), (Precision::Int8, 0.25)] {
            let mut judge = load(dir.path(), precision).unwrap();
            let runs = precision.runs_here() && kind != "phi";
            assert_eq!(judge.precision(), if runs { precision } else { Precision::F32 }, "{kind}");
            let together = judge.score_encoded(&texts).unwrap();
            for (text, (found, exact)) in texts.iter().zip(together.iter().zip(&exact)) {
                let close = (found - exact).abs() <= bound * (1.0 + exact.abs());
                assert!(close, "{kind} {precision}: {found} instead of {exact}");
                let alone = judge.score_encoded(std::slice::from_ref(text)).unwrap()[0];
                assert_eq!(alone.to_bits(), found.to_bits(), "{kind} {precision}");
            }
        }
    }
}

type Chat = (Content, Content, Vec<u32>, f32);

/// Prompt, response, ids and score of each conversation.
fn chats() -> Vec<Chat> {
    let expected = json(&golden("chat/expected.json"));
    let chat = |chat: &Value| {
        let mut messages: Vec<Message> = serde_json::from_value(chat["messages"].clone()).unwrap();
        let response = messages.pop().unwrap();
        let ids = serde_json::from_value(chat["ids"].clone()).unwrap();
        let score = chat["score"].as_f64().unwrap() as f32;
        (Content::Messages(messages), Content::Messages(vec![response]), ids, score)
    };
    expected["chats"].as_array().unwrap().iter().map(chat).collect()
}

fn scores(judge: &mut Scorer, chats: &[Chat]) -> Vec<f32> {
    let inputs: Vec<_> = chats.iter().map(|(prompt, response, ..)| (Some(prompt), response)).collect();
    judge.score(&inputs).unwrap().iter().map(|scored: &Scored| scored.score).collect()
}

/// Without a reward.json the tokenizer's template is the rendering.
#[test]
fn chats_are_rendered_and_scored_as_in_transformers() {
    let mut judge = load(&golden("chat"), Precision::F32).unwrap();
    let chats = chats();
    for (prompt, response, ids, _) in &chats {
        assert_eq!(&judge.encoder.encode(Some(prompt), response).unwrap().ids, ids);
    }
    let expected: Vec<f32> = chats.iter().map(|chat| chat.3).collect();
    assert_close(&scores(&mut judge, &chats), &expected, "chat");
    assert_eq!(judge.reward.encode.max_length, 2048, "as many as there are positions");
}

/// The score of the one chat, or the error of loading or scoring.
fn score_of_refused(name: &str, messages: &Value) -> Result<f32, String> {
    let mut judge = load(&golden("refused").join(name), Precision::F32).map_err(|error| error.to_string())?;
    let mut messages: Vec<Message> = serde_json::from_value(messages.clone()).unwrap();
    let response = Content::Messages(messages.split_off(1));
    let prompt = Content::Messages(messages);
    let scored = judge.score(&[(Some(&prompt), &response)]).map_err(|error| error.to_string())?;
    Ok(scored[0].score)
}

/// Nothing that is wrong with a checkpoint may end in a score that nobody else gets.
#[test]
fn what_is_wrong_is_refused_by_name() {
    let cases: Map<String, Value> = serde_json::from_value(json(&golden("refused.json"))).unwrap();
    let messages = &cases["chat"];
    let said = [
        ("two_labels", "2 outputs"),
        ("labels_unsaid", "2 outputs"),
        ("head_of_two", "score.weight"),
        ("missing_head", "score.weight"),
        ("head_too_wide", "score.weight"),
        ("head_bias", "score.bias"),
        ("missing_matrix", "k_proj"),
        ("nan_body", "NaN"),
        ("nan_head", "NaN"),
        ("vocabulary_too_small", "vocab"),
        ("pad_beyond_vocabulary", "pad_token_id"),
        ("unknown_architecture", "internlm2"),
        ("gating_architecture", "LlamaForRewardModelWithGating"),
        ("token_classification", "ForTokenClassification"),
        ("auto_map", "auto_map"),
        ("rope_yarn", "rope_type"),
        ("unknown_activation", "swish9"),
        ("layer_types_disagree", "layer_types"),
        ("quantized", "quantization_config"),
        ("template_refuses", "template"),
        ("template_loops", "template"),
        ("template_renders_nothing", "template"),
    ];
    let scored = ["sound", "pad_is_last_token", "ends_in_pad", "pad_negative"];
    for (name, case) in cases.iter().filter(|(name, _)| *name != "chat") {
        match said.iter().find(|(case, _)| case == name) {
            Some((_, part)) => {
                let error = score_of_refused(name, messages).expect_err(name);
                assert!(error.contains(part), "{name}: {error}");
            }
            None => {
                assert!(scored.contains(&name.as_str()), "{name} is a case that this test does not know");
                let found = score_of_refused(name, messages).expect(name);
                assert_close(&[found], &numbers(&case["transformers"]["scores"]), name);
            }
        }
    }
}

#[test]
fn a_score_that_is_read_before_the_end_is_said() {
    let note = |name: &str| load(&golden("refused").join(name), Precision::F32).unwrap().pad_note();
    assert_eq!(note("sound"), None);
    for name in ["pad_is_last_token", "ends_in_pad"] {
        assert!(note(name).expect(name).contains("before it, as in transformers"), "{name}");
    }
}
