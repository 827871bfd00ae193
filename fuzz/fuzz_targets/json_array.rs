//! A JSON array: any bytes after the bracket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    kudos_fuzz::read([b"[", data].concat());
    kudos_fuzz::read([br#"[{"prompt":"p","answer":"a","rank":"#, data].concat());
});
