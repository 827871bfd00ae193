//! Judges of decoders, MPNet and ModernBERT against transformers (`golden/judges`, made by
//! `golden/make_judges_golden.py`): scores of ids and of chats, hidden states, both spellings of the config, and what must
//! not be scored.

mod judges;

use judges::{ENCODERS, FAMILIES, directory, golden, json, load, texts};
use kernels::parallel::with_threads;
use kudos::data::{Content, Message};
use kudos::models::{Config, LoadOptions, Model, Scored, Scorer, Workspace, load_frozen, push, quantize};
use kudos::nn::{Gradients, Mode, Precision, Storage};
use kudos::text::{Encoded, pooled_index};
use kudos::train::{Features, Opened, open_anew, open_head};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value};
use std::path::Path;

fn numbers(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_within(1e-4, found, expected, what);
}

fn assert_within(bound: f32, found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (text, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < bound, "{what}, text {text}: {found} instead of {expected}");
    }
}

#[test]
fn scores_are_transformers_alone_and_in_any_batch() {
    for name in FAMILIES.into_iter().chain(ENCODERS) {
        let expected = json(&golden(name).join("expected.json"));
        let texts = texts(&expected);
        for config in ["config.json", "config4.json"] {
            let dir = directory(name, &json(&golden(name).join(config)));
            let mut judge = load(dir.path(), Precision::F32).expect(name);
            let together = judge.score_encoded(&texts).expect(name);
            let what = format!("{name} {config}");
            let bound = if name == "mpnet" { 1e-5 } else { 1e-4 };
            assert_within(bound, &together, &numbers(&expected["scores"]), &what);
            assert_within(bound, &together, &numbers(&expected["scores_padded"]), &what);
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
        if !FAMILIES.contains(&base) && !ENCODERS.contains(&base) {
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
    assert!(compared >= 11, "{compared} variants");
}

/// What transformers has of one text in a golden.
struct Traced {
    text: Encoded,
    states: Vec<u8>,
}

impl Traced {
    fn read(name: &str) -> Self {
        let expected = json(&golden(name).join("expected.json"));
        let text = texts(&expected)[expected["traced"].as_u64().unwrap() as usize].clone();
        Self { text, states: std::fs::read(golden(name).join("expected.safetensors")).unwrap() }
    }

    /// The states below layer `below`, or those that the head reads: within 1e-5 of the largest value there.
    fn assert_states(&self, model: &Model, below: Option<usize>, name: &str) {
        let key = match below {
            Some(0) => "hidden.embedding".into(),
            Some(layers) => format!("hidden.layer.{}", layers - 1),
            None => "hidden.final".into(),
        };
        let mut workspace = Workspace::default();
        push(model, &self.text, &mut workspace.batch).unwrap();
        let Workspace { tape, batch, .. } = &mut workspace;
        tape.start(Mode::Score, Storage::F32);
        let states = match below {
            Some(layers) => model.states_below(tape, batch, layers).full,
            None => model.hidden_states(tape, batch).full,
        };
        tape.forward(states, model.weights(), batch);
        let stored = floats(SafeTensors::deserialize(&self.states).unwrap().tensor(&key).expect(name).data());
        let largest = stored.iter().fold(1.0, |most: f32, value| most.max(value.abs()));
        assert_within(1e-5 * largest, tape.value(states), &stored, &format!("{name} {key}"));
    }
}

fn judge(name: &str) -> Model {
    let dir = directory(name, &json(&golden(name).join("config.json")));
    let (mut model, _) = kudos::models::load(dir.path(), LoadOptions::Judge).expect(name);
    model.prepare_turns(128);
    model
}

#[test]
fn hidden_states_are_transformers() {
    for name in ENCODERS.into_iter().chain(FAMILIES) {
        let (model, traced) = (judge(name), Traced::read(name));
        let below = (0..=model.config.layers()).map(Some).chain([None]);
        below.for_each(|below| traced.assert_states(&model, below, name));
    }
}

/// A new head over the lower layers reads what the whole model has there, and the config that is written says so.
#[test]
fn the_lower_layers_have_the_states_of_the_whole() {
    for name in FAMILIES.into_iter().chain(["mpnet"]) {
        let (mut model, traced) = (judge(name), Traced::read(name));
        let of = model.config.layers();
        for kept in [of, of - 1] {
            assert_eq!(open_anew(&mut model, Some(kept)), Opened::LowerLayers { kept, of }, "{name}");
            (0..=kept).for_each(|below| traced.assert_states(&model, Some(below), name));
            let written = Config::check(Path::new("config.json"), model.config.json().clone()).expect(name);
            assert_eq!((written.layers(), model.config.layers()), (kept, kept), "{name}");
        }
    }
    let (mut model, of) = (judge("gemma3_text"), 4);
    assert_eq!(open_head(&mut model, None), Opened::LowerLayers { kept: 3, of }, "at least three");
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// A config that asks for what the wiring does not do.
#[test]
fn encoders_refuse_by_name_what_they_do_not_do() {
    let cases = [
        ("mpnet", "position_embedding_type", serde_json::json!("relative_key")),
        ("mpnet", "pad_token_id", serde_json::json!(0)),
        ("mpnet", "relative_attention_num_buckets", serde_json::json!(64)),
        ("mpnet", "hidden_act", serde_json::json!("mish")),
        ("modernbert", "position_embedding_type", serde_json::json!("relative_key")),
        ("modernbert", "hidden_activation", serde_json::json!("mish")),
        ("modernbert", "classifier_activation", serde_json::json!("relu")),
        ("modernbert", "classifier_pooling", serde_json::json!("max")),
        ("modernbert", "layer_types", serde_json::json!(["full_attention"])),
        ("modernbert", "head_dim", serde_json::json!(8)),
        ("modernbert", "pad_token_id", serde_json::json!(64)),
        ("modernbert", "rope_theta", serde_json::json!(500)),
        ("modernbert", "sliding_window", serde_json::json!(4)),
        ("modernbert", "norm_bias", serde_json::json!("no")),
        ("modernbert", "num_attention_heads", serde_json::json!(5)),
        ("modernbert", "architectures", serde_json::json!(["ModernBertForTokenClassification"])),
    ];
    for (name, key, value) in cases {
        let mut config = json(&golden(name).join("config.json"));
        config[key] = value;
        let error = load(directory(name, &config).path(), Precision::F32).map(|_| ()).expect_err(key).to_string();
        assert!(error.contains(&format!("`{key}`")), "{name} {key}: {error}");
    }
    for key in ["reference_compile", "deterministic_flash_attn", "gradient_checkpointing"] {
        let mut config = json(&golden("modernbert/config.json"));
        config[key] = true.into();
        load(directory("modernbert", &config).path(), Precision::F32).expect(key);
    }
}

/// The tensors of an encoder of width 64.
fn wide_encoder_tensors(kind: &str) -> Vec<(String, Vec<usize>)> {
    let [h, i] = [64, 96];
    let mut tensors = vec![];
    let mut all = |prefix: &str, named: &[(&str, &[usize])]| {
        tensors.extend(named.iter().map(|(name, shape)| (format!("{prefix}{name}"), shape.to_vec())));
    };
    if kind == "modernbert" {
        all("", &[("head.dense.weight", &[h, h]), ("head.norm.weight", &[h]), ("classifier.weight", &[1, h])]);
        all("", &[("classifier.bias", &[1]), ("model.embeddings.tok_embeddings.weight", &[64, h])]);
        all(
            "model.",
            &[("embeddings.norm.weight", &[h]), ("final_norm.weight", &[h]), ("layers.1.attn_norm.weight", &[h])],
        );
        for layer in 0..2 {
            let named: [(&str, &[usize]); 5] = [
                ("attn.Wqkv", &[3 * h, h]),
                ("attn.Wo", &[h, h]),
                ("mlp.Wi", &[2 * i, h]),
                ("mlp.Wo", &[h, i]),
                ("mlp_norm", &[h]),
            ];
            let named = named.map(|(name, shape)| (format!("{name}.weight"), shape));
            all(&format!("model.layers.{layer}."), &named.each_ref().map(|(name, shape)| (name.as_str(), *shape)));
        }
        return tensors;
    }
    all(
        "mpnet.",
        &[("embeddings.word_embeddings.weight", &[64, h]), ("embeddings.position_embeddings.weight", &[128, h])],
    );
    all("mpnet.encoder.", &[("relative_attention_bias.weight", &[32, 4])]);
    let mut both = |name: String, shape: &[usize]| {
        all("", &[(format!("{name}.weight").as_str(), shape), (format!("{name}.bias").as_str(), &shape[..1])]);
    };
    both("mpnet.embeddings.LayerNorm".into(), &[h]);
    both("classifier.dense".into(), &[h, h]);
    both("classifier.out_proj".into(), &[1, h]);
    for layer in 0..2 {
        let name = |part: &str| format!("mpnet.encoder.layer.{layer}.{part}");
        ["q", "k", "v", "o"].iter().for_each(|part| both(name(&format!("attention.attn.{part}")), &[h, h]));
        ["attention.LayerNorm", "output.LayerNorm"].iter().for_each(|norm| both(name(norm), &[h]));
        both(name("intermediate.dense"), &[i, h]);
        both(name("output.dense"), &[h, i]);
    }
    tensors
}

/// The tensors of one layer and those around it, of a judge of width 64 with two key heads.
fn wide_tensors(kind: &str) -> Vec<(String, Vec<usize>)> {
    if kind == "mpnet" || kind == "modernbert" {
        return wide_encoder_tensors(kind);
    }
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
    let mut config = serde_json::json!({"model_type": kind, "architectures": [class], "id2label": {"0": "LABEL_0"},
        "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "intermediate_size": 96, "vocab_size": 64, "max_position_embeddings": 128, "pad_token_id": 0,
        "sliding_window": 16});
    match kind {
        "mpnet" => config["pad_token_id"] = 1.into(),
        "modernbert" => {
            config.as_object_mut().unwrap().remove("sliding_window");
            config["local_attention"] = 16.into();
        }
        _ => {}
    }
    let is_encoder = ["mpnet", "modernbert"].contains(&kind);
    if is_encoder {
        config["num_hidden_layers"] = 2.into();
    }
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
            let middle = if is_encoder && name.ends_with("orm.weight") { 1.0 } else { 0.0 };
            let values = (0..shape.iter().product()).flat_map(|_| (middle + next() * scale).to_le_bytes()).collect();
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
    kernels::emulate_missing_products();
    let texts = texts(&json(&golden("qwen3/expected.json")));
    let encoders = [("mpnet", "MPNet"), ("modernbert", "ModernBert")];
    let decoders = [("llama", "Llama"), ("gemma2", "Gemma2"), ("mistral", "Mistral"), ("phi", "Phi")];
    for (kind, class) in decoders.into_iter().chain(encoders) {
        let dir = wide(kind, &format!("{class}ForSequenceClassification"));
        let exact = load(dir.path(), Precision::F32).expect(kind).score_encoded(&texts).unwrap();
        for (precision, bound) in [(Precision::Bf16, 0.05), (Precision::Int8, 0.25)] {
            let mut judge = load(dir.path(), precision).unwrap();
            assert_eq!(judge.precision(), if kind == "phi" { Precision::F32 } else { precision }, "{kind}");
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

/// The upper halves of the values of a judge's file, by name.
fn halves(dir: &Path) -> Vec<(String, Vec<usize>, Vec<u16>)> {
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let upper = |tensor: &TensorView| tensor.data().chunks_exact(4).map(|v| u16::from_le_bytes([v[2], v[3]])).collect();
    all.iter().map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec(), upper(&tensor))).collect()
}

/// Writes the weights of a judge anew, in bf16, or in f32 with the same values.
fn store(dir: &Path, tensors: &[(String, Vec<usize>, Vec<u16>)], is_bf16: bool) {
    let widened = |bits: &u16| {
        if is_bf16 { bits.to_le_bytes().to_vec() } else { (u32::from(*bits) << 16).to_le_bytes().to_vec() }
    };
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(.., bits)| bits.iter().flat_map(widened).collect()).collect();
    let dtype = if is_bf16 { safetensors::Dtype::BF16 } else { safetensors::Dtype::F32 };
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(dir.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The table of words stays in bf16 where it is stored so, and matrices are widened as they are read: no score shows it.
#[test]
fn a_judge_stored_in_bf16_scores_as_one_of_the_same_values_in_f32() {
    kernels::emulate_missing_products();
    let texts = texts(&json(&golden("qwen3/expected.json")));
    for (kind, class) in [("llama", "Llama"), ("gemma2", "Gemma2"), ("mpnet", "MPNet")] {
        let dir = wide(kind, &format!("{class}ForSequenceClassification"));
        let mut tensors = halves(dir.path());
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let [wide, narrow] = [false, true].map(|is_bf16| {
                store(dir.path(), &tensors, is_bf16);
                let scores = load(dir.path(), precision).expect(kind).score_encoded(&texts).unwrap();
                scores.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            });
            assert_eq!(wide, narrow, "{kind} {precision}");
        }
        let words = tensors.iter_mut().find(|(name, ..)| name.ends_with("embed_tokens.weight"));
        let Some((_, _, words)) = words else { continue };
        words[5] = 0x7fc0;
        store(dir.path(), &tensors, true);
        let refused = load(dir.path(), Precision::F32).err().expect("a table that is not finite").to_string();
        assert!(refused.contains("embed_tokens.weight` holds NaN at element 5"), "{refused}");
    }
}

/// Frozen weights that are packed have no values in the buffer: features are known again without those.
#[test]
fn features_of_packed_weights_are_read_once() {
    kernels::emulate_missing_products();
    let texts = texts(&json(&golden("qwen3/expected.json")));
    let texts: Vec<&Encoded> = texts.iter().collect();
    let dir = wide("llama", "LlamaForSequenceClassification");
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let (mut model, _) = load_frozen(dir.path(), LoadOptions::Judge, precision).unwrap();
        model.prepare_turns(128);
        let (mut features, mut workspace) = (Features::default(), Workspace::default());
        let mut read = || (features.of(&model, precision, &texts, &mut workspace).unwrap(), features.reads());
        assert_eq!(read(), read(), "{precision}");
    }
}

/// What is stored in 8 bits is a judge of the same scores, but for rounding.
#[test]
fn quantized_encoders_stay_close() {
    kernels::emulate_missing_products();
    let texts = texts(&json(&golden("qwen3/expected.json")));
    for (kind, class) in [("mpnet", "MPNet"), ("modernbert", "ModernBert")] {
        let dir = wide(kind, &format!("{class}ForSequenceClassification"));
        let exact = load(dir.path(), Precision::F32).expect(kind).score_encoded(&texts).unwrap();
        let small = directory("qwen3", &json(&dir.path().join("config.json")));
        std::fs::remove_file(small.path().join("model.safetensors")).unwrap();
        quantize(dir.path(), small.path()).unwrap();
        let mut judge = Scorer::load(small.path(), None).unwrap();
        assert_eq!(judge.precision(), Precision::Int8, "{kind}");
        for (found, exact) in judge.score_encoded(&texts).unwrap().iter().zip(&exact) {
            assert!((found - exact).abs() <= 0.25 * (1.0 + exact.abs()), "{kind}: {found} instead of {exact}");
        }
    }
}

fn gradients(model: &Model, precision: Precision, texts: &[Encoded]) -> Vec<f32> {
    let (mut model, mut workspace) = (model.clone(), Workspace::default());
    model.pack_for_training(precision);
    texts.iter().for_each(|text| push(&model, text, &mut workspace.batch).unwrap());
    let scores = workspace.forward(&model, Mode::Train);
    let seed: Vec<f32> = (0..texts.len()).map(|i| 1.0 - 2.0 * (i % 2) as f32).collect();
    let mut gradients = Gradients::new(&model.parameters);
    gradients.start();
    workspace.tape.backward(scores, &seed, model.weights(), &mut gradients, &workspace.batch);
    gradients.finish();
    gradients.values().to_vec()
}

/// In bf16 encoders train too, with the same gradients for any number of threads.
#[test]
fn bf16_gradients_of_encoders_follow_f32() {
    kernels::emulate_missing_products();
    let texts = texts(&json(&golden("qwen3/expected.json")));
    for (kind, class) in [("mpnet", "MPNet"), ("modernbert", "ModernBert")] {
        let dir = wide(kind, &format!("{class}ForSequenceClassification"));
        let (mut model, _) = kudos::models::load(dir.path(), LoadOptions::Judge).expect(kind);
        model.prepare_turns(128);
        assert_eq!(model.precision(Precision::Bf16), Precision::Bf16, "{kind}");
        let (full, half) = (gradients(&model, Precision::F32, &texts), gradients(&model, Precision::Bf16, &texts));
        let largest = full.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
        // A bias of the keys shifts all scores of a query alike: its gradient is 0 but for rounding.
        for spec in model.parameters.specs().iter().filter(|spec| !spec.name.ends_with("attn.k.bias")) {
            let (full, half) = (&full[spec.span.range()], &half[spec.span.range()]);
            let error = norm(&mut full.iter().zip(half).map(|(f, h)| f - h));
            let bound = 0.06 * norm(&mut full.iter().copied()) + 1e-4 * largest * (spec.span.len as f32).sqrt();
            assert!(error < bound, "{kind} {}: {error}, at most {bound}", spec.name);
        }
        for threads in [1, 3] {
            let again = with_threads(threads, || gradients(&model, Precision::Bf16, &texts));
            assert!(again == half, "{kind}, {threads} threads");
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
