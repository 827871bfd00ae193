//! LoRA adapters against PEFT (`golden/lora`, made by `golden/make_lora_golden.py`): the scores of merged judges, and what
//! must not be merged.

mod judges;

use judges::texts;
use kudos::models::Scorer;
use kudos::models::adapter::{Adapter, AdapterError, find_base, merge};
use kudos::nn::Precision;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Any tokenizer: these texts are ids.
const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
    "model": {"type": "BPE", "vocab": {"a": 5}, "merges": []}}"#;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/lora").join(name)
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a golden")).expect("JSON")
}

/// The names of the adapters, without those that are trained further and those that are refused.
fn cases() -> Vec<String> {
    let all =
        std::fs::read_dir(golden("")).expect("goldens").map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut cases: Vec<_> = all.filter(|name| !name.starts_with("refused") && !name.starts_with("train_")).collect();
    cases.sort();
    assert!(cases.len() >= 20, "{cases:?}");
    cases
}

/// A copy of a base with a tokenizer, which the goldens have no use for.
fn base(adapter: &Path) -> tempfile::TempDir {
    let named = json_of(&adapter.join("adapter_config.json"))["base_model_name_or_path"].as_str().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(adapter.join(&named).join(file), dir.path().join(file)).expect(&named);
    }
    std::fs::write(dir.path().join("tokenizer.json"), TOKENIZER).unwrap();
    let settings = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
    std::fs::write(dir.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    // What the rendering of pairs needs to be told where there is no template.
    let positions = &json_of(&dir.path().join("config.json"))["max_position_embeddings"];
    let length = positions.as_u64().unwrap_or(80).min(80);
    let encode = json!({"format": 1, "render": "pair", "max_length": length, "truncation": "longest_first"});
    std::fs::write(dir.path().join("reward.json"), encode.to_string()).unwrap();
    dir
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

/// The adapter alone, which names its base by its whole path.
fn beside_its_base(adapter: &Path, base: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut config = json_of(&adapter.join("adapter_config.json"));
    config["base_model_name_or_path"] = base.to_str().unwrap().into();
    std::fs::write(dir.path().join("adapter_config.json"), config.to_string()).unwrap();
    let tensors = "adapter_model.safetensors";
    std::fs::copy(adapter.join(tensors), dir.path().join(tensors)).unwrap();
    dir
}

#[test]
fn merged_judges_score_as_in_peft() {
    let mut merged = 0;
    for name in cases() {
        let (dir, expected) = (golden(&name), json_of(&golden(&name).join("expected.json")));
        let (base, output) = (base(&dir), tempfile::tempdir().unwrap());
        let result = merge(&dir, Some(base.path()), output.path());
        if let Some(reason) = expected.get("merge_error") {
            let error = result.expect_err(&name).to_string();
            assert!(error.contains("lora_bias"), "{name}: {error}; PEFT says {reason}");
            continue;
        }
        let result = result.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(result.adapted, expected["modules"].as_object().unwrap().len(), "{name}");
        let mut judge = Scorer::load(output.path(), Some(Precision::F32)).expect(&name);
        let scores = judge.score_encoded(&texts(&expected)).expect(&name);
        assert_close(&scores, &numbers(&expected["scores"]), &name);
        let beside = beside_its_base(&dir, base.path());
        let mut judge = Scorer::load(beside.path(), Some(Precision::F32)).expect(&name);
        let again = judge.score_encoded(&texts(&expected)).expect(&name);
        assert_eq!(again, scores, "{name}: an adapter is a judge, and merging it changes nothing");
        merged += 1;
    }
    assert!(merged >= 20, "{merged} merged");
}

/// A base without what its class puts before the names, as sentence encoders are stored, gives the same judge.
#[test]
fn a_bare_base_is_known_by_its_names() {
    let dir = golden("bert_plain");
    let expected = json_of(&dir.join("expected.json"));
    let (base, output) = (base(&dir), tempfile::tempdir().unwrap());
    let path = base.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let bare = tensors.tensors().into_iter().filter(|(name, _)| !name.starts_with("classifier"));
    let bare: Vec<_> = bare.map(|(name, view)| (name.strip_prefix("bert.").unwrap().to_owned(), view)).collect();
    std::fs::write(&path, safetensors::serialize(bare, None).unwrap()).unwrap();
    merge(&dir, Some(base.path()), output.path()).unwrap();
    let mut judge = Scorer::load(output.path(), Some(Precision::F32)).unwrap();
    assert_close(&judge.score_encoded(&texts(&expected)).unwrap(), &numbers(&expected["scores"]), "bare");
}

fn merge_refused(name: &str) -> Result<f32, String> {
    let output = tempfile::tempdir().unwrap();
    merge(&golden("refused").join(name), None, output.path()).map_err(|error| error.to_string())?;
    let mut judge = Scorer::load(output.path(), Some(Precision::F32)).map_err(|error| error.to_string())?;
    let ids = vec![1, 3, 8, 9, 10, 14, 2, 4, 11, 12, 13, 15, 2];
    let text = texts(&json!({"texts": [ids]}));
    Ok(judge.score_encoded(&text).map_err(|error| error.to_string())?[0])
}

/// PEFT loads many of these in silence.
#[test]
fn what_is_wrong_is_refused_by_name() {
    let refused: Map<String, Value> = serde_json::from_value(json_of(&golden("refused.json"))).unwrap();
    let said = [
        ("ia3", "peft_type"),
        ("unknown_type", "peft_type"),
        ("other_width", "another base"),
        ("other_outputs", "another base"),
        ("other_layer", "no such module"),
        ("nan", "NaN"),
        ("infinite", "inf"),
        ("missing_head", "score.weight"),
        ("score_adapted_without_score", "score"),
        ("rank_of_config", "rank 3"),
        ("rank_of_matrices", "rank 2"),
        ("rank_zero", "`r` is 0"),
        ("without_b", "B of the adapter is missing"),
        ("without_a", "A of the adapter is missing"),
        ("alpha_missing", "lora_alpha"),
        ("regex_matches_nothing", "target_modules"),
        ("regex_invalid", "unclosed group"),
        ("regex_runs_away", "target_modules"),
        ("targets_disagree", "target_modules"),
        ("targets_missing", "v_proj"),
        ("saved_module_missing", "norm"),
        ("unknown_tensor", "lora_C"),
        ("dora_without_magnitude", "use_dora"),
        ("magnitude_without_dora", "use_dora"),
        ("pissa", "init_lora_weights"),
        ("layer_replication", "layer_replication"),
        ("target_parameters", "target_parameters"),
        ("token_indices", "trainable_token_indices"),
        ("alora", "alora_invocation_tokens"),
        ("qalora", "use_qalora"),
        ("fan_in_fan_out", "fan_in_fan_out"),
        ("bias_unknown", "bias"),
        ("head_of_two", "score.weight"),
    ];
    for (name, case) in &refused {
        match said.iter().find(|(case, _)| case == name) {
            Some((_, part)) => {
                let error = merge_refused(name).expect_err(name);
                assert!(error.contains(part), "{name}: {error}");
            }
            None => {
                assert_eq!(name, "sound", "a case that this test does not know");
                assert_close(&[merge_refused(name).unwrap()], &numbers(&json!([case["peft"]["score"]])), name);
            }
        }
    }
}

/// The files of `refused/sound`, one of them changed.
fn changed(file: &str, bytes: Option<&[u8]>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(golden("refused/sound").join(name), dir.path().join(name)).unwrap();
    }
    match bytes {
        Some(bytes) => std::fs::write(dir.path().join(file), bytes).unwrap(),
        None => std::fs::remove_file(dir.path().join(file)).unwrap(),
    }
    dir
}

#[test]
fn what_is_no_adapter_is_said() {
    let error = |dir: &tempfile::TempDir| Adapter::open(dir.path()).unwrap_err().to_string();
    let dir = changed("adapter_model.safetensors", None);
    assert!(error(&dir).contains("no adapter_model.safetensors here"), "{}", error(&dir));
    std::fs::write(dir.path().join("adapter_model.bin"), "").unwrap();
    assert!(error(&dir).contains("adapter_model.bin, which can run code"), "{}", error(&dir));
    assert!(error(&changed("adapter_config.json", Some(b"{\"r\": "))).contains("adapter_config.json"));
    let dir = changed("adapter_model.safetensors", Some(b"no tensors"));
    assert!(error(&dir).contains("not a usable safetensors file"), "{}", error(&dir));
    let moved = tempfile::tempdir().unwrap();
    let (found, output) = (changed("note", Some(b"")), moved.path());
    assert!(matches!(find_base(found.path()), Err(AdapterError::NoBase { .. })));
    let error = merge(found.path(), None, output).unwrap_err().to_string();
    assert!(error.contains("--base DIR"), "{error}");
    let error = merge(found.path(), Some(&golden("refused/sound")), output).unwrap_err().to_string();
    assert!(error.contains("an adapter too"), "{error}");
    let both = changed("model.safetensors", Some(b""));
    let error = merge(both.path(), Some(&golden("../judges/refused/sound")), output).unwrap_err().to_string();
    assert!(error.contains("are both here"), "{error}");
}

/// Damaged files are errors or adapters, and never a panic. As the fuzz target `adapter`, with bytes that are the same in
/// each run.
#[test]
fn damaged_adapters_never_panic() {
    let base = golden("../judges/refused/sound");
    let mut state = 7u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut refused = 0;
    for round in 0..400 {
        let file = ["adapter_config.json", "adapter_model.safetensors"][round % 2];
        let mut bytes = std::fs::read(golden("refused/sound").join(file)).unwrap();
        for _ in 0..1 + next(4) {
            let (at, value) = (next(bytes.len()), next(256) as u8);
            match next(4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes.insert(at, value),
                2 => bytes[at] = b"0123456789[]{}\",:-"[value as usize % 18],
                _ => bytes[at] = value,
            }
        }
        let (dir, output) = (changed(file, Some(&bytes)), tempfile::tempdir().unwrap());
        refused += usize::from(merge(dir.path(), Some(&base), output.path()).is_err());
    }
    assert!(refused > 200, "{refused} of 400 were refused");
}
