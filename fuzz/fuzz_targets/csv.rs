//! CSV: any bytes, alone and under each kind of header.
#![no_main]

const HEADERS: [&[u8]; 4] = [
    b"prompt,answer,rank\n",
    b"prompt,chosen,rejected,margin,weight\n",
    b"prompt,response_a,response_b,label\n",
    b"prompt,responses\n",
];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    kudos_fuzz::read(data.to_vec());
    let header = HEADERS[data.len() % HEADERS.len()];
    kudos_fuzz::read([header, data].concat());
});
