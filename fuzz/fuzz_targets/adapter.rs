//! LoRA adapters: any bytes as config or as tensors, and a sound adapter with some bytes of either overwritten. What can be
//! read is merged into a small base.
#![no_main]

use kudos::models::adapter::{CONFIG_FILE, TENSORS_FILE, merge};
use std::path::Path;

const CONFIG: &[u8] = include_bytes!("../../golden/lora/refused/sound/adapter_config.json");
const TENSORS: &[u8] = include_bytes!("../../golden/lora/refused/sound/adapter_model.safetensors");

fn open(config: &[u8], tensors: &[u8]) {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/judges/refused/sound");
    let [adapter, judge] = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
    std::fs::write(adapter.path().join(CONFIG_FILE), config).expect("a small file");
    std::fs::write(adapter.path().join(TENSORS_FILE), tensors).expect("a small file");
    let _ = merge(adapter.path(), Some(&base), judge.path());
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    open(data, TENSORS);
    open(CONFIG, data);
    open(&kudos_fuzz::damaged(CONFIG, data), TENSORS);
    open(CONFIG, &kudos_fuzz::damaged(TENSORS, data));
});
