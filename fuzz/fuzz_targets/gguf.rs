//! GGUF files: any bytes, any bytes as the rest of a header, and a sound model with some bytes overwritten.
#![no_main]

use kudos::models::gguf;
use kudos::nn::gguf::Gguf;

const SOUND: &[u8] = include_bytes!("../../golden/gguf/llama.gguf");

fn open(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).expect("a small file");
    let Ok(file) = Gguf::open(&path) else { return };
    for (name, tensor) in &file.tensors {
        assert!(tensor.len() as u64 <= 8 * bytes.len() as u64 || tensor.bytes() == 0, "more memory than the file has");
        let _ = file.read(name, &mut vec![0.0; tensor.len()]);
    }
    let _ = gguf::config(&file);
    let _ = gguf::vocabulary(&file);
    for parameter in ["model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.weight", "model.norm.weight"] {
        if let Some(shape) = gguf::shape(&file, parameter) {
            let _ = gguf::read_tensor(&file, parameter, &mut vec![0.0; shape.iter().product()]);
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    open(data);
    let counts = [2u64.to_le_bytes(), 2u64.to_le_bytes()].concat();
    open(&[b"GGUF\x03\0\0\0", &counts[..], data, &[0; 64]].concat());
    open(&kudos_fuzz::damaged(SOUND, data));
});
