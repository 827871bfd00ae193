//! Parquet: a sound file with some bytes overwritten.
//!
//! The decoder itself may panic; the reader must turn that into an error, and does so under libFuzzer's
//! panic hook too. What is left to find are panics of ours, endless loops and unbounded memory.
#![no_main]

use kudos::data::{OutputFormat, Writer};
use serde_json::json;
use std::sync::LazyLock;

static SOUND: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let path = tempfile::tempdir().unwrap().keep().join("sound.parquet");
    let mut writer = Writer::create(&path, OutputFormat::of_name(&path)).unwrap();
    for n in 0..20 {
        let responses = json!([{"text": "a", "score": n}, {"text": format!("b{n}"), "score": 0.5}]);
        let row =
            json!({"prompt": format!("p{n}"), "responses": responses, "id": n, "flag": n % 2 == 0});
        writer.write(row.as_object().unwrap()).unwrap();
    }
    writer.finish().unwrap();
    std::fs::read(path).unwrap()
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| kudos_fuzz::read(kudos_fuzz::damaged(&SOUND, data)));
