//! Prints the ids that a tokenizer directory makes of texts: the other half of `golden/check_text.py`.
//!
//! `encode DIR RENDER MAX_LENGTH TRUNCATION [DAY]` reads lines of `{"prompt": …, "response": …}` (texts or lists of
//! messages; `prompt` may be missing) and writes for each `{"ids": […], "type_ids": […], "truncated": …, "tokens": …}`.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;

use kudos::data::Content;
use kudos::text::{EncodeSettings, Encoder};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Row {
    prompt: Option<Content>,
    response: Content,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, render, max_length, truncation, day @ ..] = arguments.as_slice() else {
        return Err("usage: encode DIR pair|concat|chat MAX_LENGTH longest_first|keep_response [2026-11-29]".into());
    };
    let (render, truncation) = (serde_json::from_value(json!(render))?, serde_json::from_value(json!(truncation))?);
    let date = day.first().map(|day| day.parse()).transpose()?;
    let settings = EncodeSettings { date, ..EncodeSettings::new(render, max_length.parse()?, truncation) };
    let encoder = Encoder::load(Path::new(dir), settings)?;
    for note in encoder.notes() {
        eprintln!("{note}");
    }
    let lines: Vec<String> = std::io::stdin().lock().lines().collect::<Result<_, _>>()?;
    let rows: Vec<Row> = lines.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let texts: Vec<_> = rows.iter().map(|row| (row.prompt.as_ref(), &row.response)).collect();
    let mut output = std::io::stdout().lock();
    for encoded in encoder.encode_batch(&texts)? {
        let line = json!({
            "ids": encoded.ids,
            "type_ids": encoded.type_ids,
            "truncated": encoded.truncated,
            "tokens": encoded.tokens_before_truncation,
        });
        writeln!(output, "{line}")?;
    }
    Ok(())
}
