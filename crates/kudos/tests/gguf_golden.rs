//! GGUF files against other programs: values against the gguf package, names and configs against transformers, ids
//! against llama.cpp.
//!
//! `golden/make_gguf_golden.py` made the files; no Python is needed here. Below the goldens: what a damaged file may
//! do (be refused) and may not (panic, or take memory it has no right to).

use kudos::models::gguf;
use kudos::nn::gguf::{Gguf, List, Value as Setting};
use kudos::text::{GgufVocabulary, Prompter};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/gguf").join(name)
}

fn read_json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = golden(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn open(name: &str) -> Gguf {
    Gguf::open(&golden(name)).unwrap()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| (16 * pair[0] + pair[1]) as u8).collect()
}

/// The bits of little-endian f32.
fn bits_of(hex: &str) -> Vec<u32> {
    bytes_of(hex).chunks(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A file of one tensor.
fn file_of(code: u32, values: usize, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0x\x01\0\0\0".to_vec();
    bytes.extend((values as u64).to_le_bytes());
    bytes.extend(code.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes.extend(data);
    bytes
}

#[derive(Deserialize)]
struct Blocks {
    blocks: String,
    values: String,
}

#[test]
fn values_of_every_format_are_those_of_the_gguf_package() {
    let codes = [
        ("F32", 0),
        ("F16", 1),
        ("BF16", 30),
        ("Q4_0", 2),
        ("Q4_1", 3),
        ("Q5_0", 6),
        ("Q5_1", 7),
        ("Q8_0", 8),
        ("Q4_K", 12),
        ("Q5_K", 13),
        ("Q6_K", 14),
    ];
    let formats: BTreeMap<String, Blocks> = read_json("formats.json");
    assert_eq!(formats.len(), codes.len());
    let dir = tempfile::tempdir().unwrap();
    for (name, code) in codes {
        let expected = bits_of(&formats[name].values);
        let path = dir.path().join(name);
        std::fs::write(&path, file_of(code, expected.len(), &bytes_of(&formats[name].blocks))).unwrap();
        let file = Gguf::open(&path).unwrap();
        assert_eq!(file.tensors["x"].format.name, name);
        let mut values = vec![0.0; expected.len()];
        file.read("x", &mut values).unwrap();
        assert_eq!(bits(&values), expected, "{name}");
    }
}

#[derive(Deserialize)]
struct Tiny {
    settings: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    shape: Vec<usize>,
    values: String,
}

fn as_json(setting: &Setting) -> Value {
    match setting {
        Setting::Unsigned(number) => (*number).into(),
        Setting::Signed(number) => (*number).into(),
        Setting::Float(number) => (*number).into(),
        Setting::Flag(flag) => (*flag).into(),
        Setting::Text(text) => text.clone().into(),
        Setting::List(List::Texts(texts)) => texts.clone().into(),
        Setting::List(List::Numbers(numbers)) => numbers.iter().map(|number| as_json(&number)).collect(),
        Setting::List(List::Lists(_)) => Value::Null,
    }
}

#[test]
fn settings_and_tensors_of_both_versions() {
    let tiny: Tiny = read_json("tiny.json");
    for version in [2, 3] {
        let file = open(&format!("tiny_v{version}.gguf"));
        assert_eq!(file.version, version);
        for (key, expected) in &tiny.settings {
            assert_eq!(as_json(&file.metadata[key]), *expected, "{key}");
        }
        assert_eq!(file.tensors.keys().collect::<Vec<_>>(), tiny.tensors.keys().collect::<Vec<_>>());
        for (name, expected) in &tiny.tensors {
            assert_eq!(file.tensors[name].shape, expected.shape, "{name}");
            let mut values = vec![0.0; file.tensors[name].len()];
            file.read(name, &mut values).unwrap();
            assert_eq!(bits(&values), bits_of(&expected.values), "{name}");
            let row = expected.shape.last().unwrap();
            let mut last = vec![0.0; *row];
            file.read_rows(name, values.len() / row - 1, &mut last).unwrap();
            assert_eq!(last, values[values.len() - row..], "{name}");
        }
    }
}

#[derive(Deserialize)]
struct Model {
    config: Map<String, Value>,
    parameters: Vec<(String, Vec<usize>)>,
}

/// What the script gave element `at` of parameter `position`.
fn made(position: usize, at: usize) -> f32 {
    ((40_503 * at + 977 * position) % 4096) as f32 / 1024.0 - 2.0
}

#[test]
fn models_have_the_names_shapes_and_values_of_transformers() {
    let models: BTreeMap<String, Model> = read_json("models.json");
    assert_eq!(models.len(), 8);
    for (name, model) in &models {
        let file = open(&format!("{name}.gguf"));
        let mut read = 0;
        for (position, (parameter, shape)) in model.parameters.iter().enumerate() {
            assert!(gguf::has(&file, parameter), "{name}: {parameter}");
            assert_eq!(gguf::shape(&file, parameter).as_ref(), Some(shape), "{name}: {parameter}");
            let mut values = vec![0.0; shape.iter().product()];
            gguf::read_tensor(&file, parameter, &mut values).unwrap();
            for (at, value) in values.iter().enumerate() {
                assert_eq!(*value, made(position, at), "{name}: {parameter}, element {at}");
            }
            read += values.len();
        }
        let divisors = file.tensors.get("rope_freqs.weight").map_or(0, |tensor| tensor.len());
        assert_eq!(read + divisors, file.tensors.values().map(|tensor| tensor.len()).sum::<usize>(), "{name}");
    }
}

#[test]
fn configs_are_those_of_transformers() {
    let models: BTreeMap<String, Model> = read_json("models.json");
    for (name, model) in &models {
        let mut config = gguf::config(&open(&format!("{name}.gguf"))).unwrap();
        assert!(config.remove("architectures").is_some());
        for (key, expected) in &model.config {
            let found = config.remove(key).unwrap_or_else(|| panic!("{name}: no {key}"));
            assert!(same(&found, expected), "{name}: {key} is {found}, expected {expected}");
        }
        assert!(config.is_empty(), "{name}: unexpected {config:?}");
    }
}

/// Equal, numbers as f32.
fn same(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            found.len() == expected.len()
                && found.iter().all(|(key, value)| expected.get(key).is_some_and(|other| same(value, other)))
        }
        (Value::Number(found), Value::Number(expected)) => {
            found.as_f64().map(|number| number as f32) == expected.as_f64().map(|number| number as f32)
        }
        _ => found == expected,
    }
}

#[test]
fn what_is_not_there_is_said() {
    let file = open("llama.gguf");
    assert!(!gguf::has(&file, "lm_head.weight") && !gguf::has(&file, "model.layers.2.mlp.up_proj.weight"));
    let missing = gguf::read_tensor(&file, "lm_head.weight", &mut [0.0]).unwrap_err().to_string();
    assert!(missing.contains("`lm_head.weight`"), "{missing}");
    for parameter in ["model.norm.weight", "model.layers.0.self_attn.q_proj.weight"] {
        for count in [0, 1, 100_000] {
            assert!(gguf::read_tensor(&file, parameter, &mut vec![0.0; count]).is_err(), "{parameter}");
        }
    }
    assert!(gguf::read_tensor(&open("gpt2.gguf"), "h.0.attn.c_attn.weight", &mut [0.0; 7]).is_err());
    assert!(gguf::read_tensor(&open("phi2_fused.gguf"), "layers.0.self_attn.k_proj.bias", &mut [0.0; 7]).is_err());
    let tiny = gguf::config(&open("tiny_v3.gguf")).unwrap_err().to_string();
    assert!(tiny.contains("token_embd.weight"), "{tiny}");
}

#[derive(Deserialize)]
struct Ids {
    texts: Vec<String>,
    /// By way of splitting, or `pieces`: each text without and with special tokens.
    ids: BTreeMap<String, Vec<Vec<u32>>>,
}

#[test]
fn ids_are_those_of_llama_cpp() {
    let golden: Ids = read_json("ids.json");
    for (split, expected) in &golden.ids {
        let file = open(if split == "pieces" { "pieces.gguf" } else { "bytes.gguf" });
        let vocabulary = gguf::vocabulary(&file).unwrap();
        let pre = (split != "pieces").then(|| split.clone());
        let prompter = Prompter::from_gguf(GgufVocabulary { pre, ..vocabulary }).unwrap();
        for (text, expected) in golden.texts.iter().zip(expected.chunks(2)) {
            for (add_special, expected) in [false, true].into_iter().zip(expected) {
                assert_eq!(prompter.encode(text, add_special).unwrap(), *expected, "{split}: {text:?}");
            }
        }
    }
}

/// Opens a damaged file and does with it whatever still can be done.
fn use_up(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let Ok(file) = Gguf::open(&path) else { return };
    let config = gguf::config(&file);
    assert!(config.is_err() || config.is_ok_and(|config| config.len() < 64));
    for (name, tensor) in &file.tensors {
        assert!(tensor.len() as u64 <= 8 * bytes.len() as u64 || tensor.bytes() == 0, "{name} takes too much memory");
        let _ = file.read(name, &mut vec![0.0; tensor.len()]);
    }
    for layer in 0..2 {
        for module in ["self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "attn.c_attn"] {
            for parameter in [format!("model.layers.{layer}.{module}.weight"), format!("h.{layer}.{module}.weight")] {
                let Some(shape) = gguf::shape(&file, &parameter) else { continue };
                let _ = gguf::read_tensor(&file, &parameter, &mut vec![0.0; shape.iter().product()]);
            }
        }
    }
    if let Ok(prompter) = gguf::vocabulary(&file).map_err(|_| ()).and_then(|v| Prompter::from_gguf(v).map_err(|_| ())) {
        let ids = prompter.encode("the river </s> 12 é", true).unwrap_or_default();
        let _ = prompter.decode(&ids, false);
    }
}

const FILES: [&str; 6] = ["llama.gguf", "phi2_fused.gguf", "gpt2.gguf", "gemma3.gguf", "bytes.gguf", "pieces.gguf"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn damaged_models_are_refused_or_read(
        name in proptest::sample::select(&FILES[..]),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        front in any::<bool>(),
        end in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = std::fs::read(golden(name)).unwrap();
        // Most of a file is data; its header is where damage matters.
        let reach = if front { bytes.len().min(1500) } else { bytes.len() };
        for (place, value) in changes {
            bytes[place.index(reach)] = value;
        }
        bytes.truncate(end.map_or(bytes.len(), |end| end.index(bytes.len())));
        use_up(&bytes);
    }
}
