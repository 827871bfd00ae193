//! The table of layouts: rows of every documented layout, with values of other types in their columns.
#![no_main]

use serde_json::{Map, Value};

const PAGE: &str = include_str!("../../docs/layouts.md");

/// Rows of the page's examples.
fn rows() -> impl Iterator<Item = Map<String, Value>> {
    PAGE.lines().filter_map(|line| serde_json::from_str(line).ok())
}

/// A value that no column expects, by a byte.
fn odd(byte: u8, text: &str) -> Value {
    match byte % 9 {
        0 => Value::Null,
        1 => true.into(),
        2 => (-1).into(),
        3 => 0.5.into(),
        4 => Value::Array(Vec::new()),
        5 => Value::Array(vec![text.into(), Value::Null]),
        6 => serde_json::json!({"role": "user", "content": text}),
        7 => serde_json::json!([{"from": "gpt", "value": [text]}]),
        _ => text.into(),
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&which, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    let Some(mut row) = rows().nth(usize::from(which) % rows().count()) else { return };
    let mut bytes = rest.iter();
    for value in row.values_mut() {
        if let Some(byte) = bytes.next().filter(|byte| *byte % 3 == 0) {
            *value = odd(byte / 3, &text);
        }
    }
    kudos_fuzz::read(format!("{}\n", Value::Object(row)).into_bytes());
});
