//! Arrow IPC: a sound stream, or a sound file whose batches are compressed, with some bytes overwritten.
//!
//! As with Parquet, the decoder may panic; the reader must turn that into an error.
#![no_main]

const STREAM: &[u8] = include_bytes!("../../crates/kudos/tests/fixtures/data/same_dictionary.arrows");
const LZ4: &[u8] = include_bytes!("../../crates/kudos/tests/fixtures/data/same_lz4.feather");
const ZSTD: &[u8] = include_bytes!("../../crates/kudos/tests/fixtures/data/same_zstd.feather");

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((kind, changes)) = data.split_first() else {
        return;
    };
    let sound = [STREAM, LZ4, ZSTD][usize::from(kind % 3)];
    kudos_fuzz::read(kudos_fuzz::damaged(sound, changes));
});
