//! JSON lines: any bytes, as keys and as values of a row.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    kudos_fuzz::read([b"{", data].concat());
    kudos_fuzz::read([br#"{"prompt":"p","responses":["#, data].concat());
    kudos_fuzz::read([b"{\"chosen\":\"a\",\"rejected\":\"b\"}\n", data].concat());
});
