//! gzip: a sound stream with some bytes overwritten, and any bytes after the magic number.
#![no_main]

use std::io::Write;
use std::sync::LazyLock;

static SOUND: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    for n in 0..100 {
        writeln!(
            encoder,
            "{{\"prompt\":\"p{n}\",\"chosen\":\"a{n}\",\"rejected\":\"b\"}}"
        )
        .unwrap();
    }
    encoder.finish().unwrap()
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    kudos_fuzz::read(kudos_fuzz::damaged(&SOUND, data));
    kudos_fuzz::read([b"\x1f\x8b\x08\0\0\0\0\0\0\xff", data].concat());
});
