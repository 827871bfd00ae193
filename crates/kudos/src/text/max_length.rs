//! The token limit where other programs read it: `model_max_length` in `tokenizer_config.json`.
//!
//! The file is somebody's, so nothing else in it changes, not even its white space.

use std::ops::Range;

/// `tokenizer_config.json`: what others read the token limit from.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// A `tokenizer_config.json` with this `model_max_length`; every other byte stays as it is. An empty file gets a whole one.
///
/// # Errors
/// For bytes that are no JSON object, the reason.
pub fn with_max_length(bytes: &[u8], max_length: usize) -> Result<Vec<u8>, String> {
    const NAME: &str = "model_max_length";
    if bytes.is_empty() {
        return Ok(format!("{{\n  \"{NAME}\": {max_length}\n}}\n").into_bytes());
    }
    let (found, start, is_empty) = value_of(bytes, NAME).map_err(|error| error.to_string())?;
    let (range, text) = match found {
        Some(range) => (range, max_length.to_string()),
        None if is_empty => (start..start, format!("\"{NAME}\": {max_length}")),
        None => (start..start, format!("\n  \"{NAME}\": {max_length},")),
    };
    Ok([&bytes[..range.start], text.as_bytes(), &bytes[range.end..]].concat())
}

/// Where the value of a key stands in a JSON object (the last of that name, as readers take it), where the object's first
/// key would begin, and whether it has none.
fn value_of(bytes: &[u8], name: &str) -> Result<(Option<Range<usize>>, usize, bool), serde_json::Error> {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes)?; // Now every step below finds what it expects.
    let from = |at: usize, wanted: u8| at + bytes[at..].iter().position(|byte| *byte == wanted).unwrap_or(0) + 1;
    let first = from(0, b'{');
    let (mut at, mut found, mut keys) = (first, None, 0);
    loop {
        let mut key = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter::<String>();
        let Some(Ok(text)) = key.next() else { return Ok((found, first, keys == 0)) };
        let start = from(at + key.byte_offset(), b':');
        let start = start + bytes[start..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let mut value = serde_json::Deserializer::from_slice(&bytes[start..]).into_iter::<serde::de::IgnoredAny>();
        value.next().transpose()?;
        let end = start + value.byte_offset();
        if text == name {
            found = Some(start..end);
        }
        keys += 1;
        let Some(comma) = bytes[end..].iter().position(|byte| matches!(byte, b',' | b'}')) else { break };
        at = end + comma + 1;
        if bytes[end + comma] == b'}' {
            break;
        }
    }
    Ok((found, first, keys == 0))
}

#[cfg(test)]
mod tests {
    use super::with_max_length;

    #[test]
    fn f6_the_limit_is_written_and_nothing_else() {
        let cases = [
            (
                "{\n  \"a\": [1, {\"model_max_length\": 7}],\r\n  \"model_max_length\" : 512\n}\n",
                "{\n  \"a\": [1, {\"model_max_length\": 7}],\r\n  \"model_max_length\" : 24\n}\n",
            ),
            (
                "{\"model_max_length\":1000000000000000019884624838656,\"b\":\"}\\\",{\"}",
                "{\"model_max_length\":24,\"b\":\"}\\\",{\"}",
            ),
            (
                "{\"model_max_length\": 1, \"model_max_length\": null}",
                "{\"model_max_length\": 1, \"model_max_length\": 24}",
            ),
            (" { \"x\": 1.0 }", " {\n  \"model_max_length\": 24, \"x\": 1.0 }"),
            ("{ }", "{\"model_max_length\": 24 }"),
            ("", "{\n  \"model_max_length\": 24\n}\n"),
        ];
        for (before, after) in cases {
            assert_eq!(String::from_utf8(with_max_length(before.as_bytes(), 24).unwrap()).unwrap(), after);
        }
        assert!(with_max_length(b"[1]", 24).is_err() && with_max_length(b"{\"a\": }", 24).is_err());
    }
}
