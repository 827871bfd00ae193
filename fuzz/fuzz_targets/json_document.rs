//! JSON that begins with a brace: one object a line, or a document.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kudos_fuzz::read([b"{", data].concat()));
