//! What Kudos makes of a GGUF file: the other half of `golden/check_gguf.py`.
//!
//! `gguf config FILE` prints the config. `gguf tensors FILE OUT` reads parameter names, one a line, writes their values
//! to OUT one after the other (f32, little-endian) and prints their shapes. `gguf text FILE_OR_DIR` reads lines of
//! `{"text": …, "add_special": …}` or `{"messages": […], "add_generation_prompt": …}`, and writes `{"ids": …, "decoded":
//! …, "skipped": …}` or `{"text": …}`; `decoded` has the special tokens, `skipped` has not.

use kudos::data::Message;
use kudos::models::gguf;
use kudos::nn::gguf::Gguf;
use kudos::text::Prompter;
use serde::Deserialize;
use serde_json::{Value, json};
use std::error::Error;
use std::io::{BufRead, BufWriter, Write};
use std::path::Path;

#[derive(Deserialize)]
#[serde(untagged)]
enum Question {
    Text { text: String, add_special: bool },
    Chat { messages: Vec<Message>, add_generation_prompt: bool },
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["config", file] => println!("{}", Value::Object(gguf::config(&Gguf::open(Path::new(file))?)?)),
        ["tensors", file, out] => tensors(&Gguf::open(Path::new(file))?, Path::new(out))?,
        ["text", origin] => text(&prompter(Path::new(origin))?)?,
        _ => return Err("usage: gguf config FILE | gguf tensors FILE OUT | gguf text FILE_OR_DIR".into()),
    }
    Ok(())
}

fn prompter(origin: &Path) -> Result<Prompter, Box<dyn Error>> {
    if origin.is_dir() {
        return Ok(Prompter::load(origin)?);
    }
    Ok(Prompter::from_gguf(gguf::vocabulary(&Gguf::open(origin)?)?)?)
}

fn tensors(file: &Gguf, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::new(std::fs::File::create(out)?);
    for name in std::io::stdin().lock().lines() {
        let name = name?;
        let shape = gguf::shape(file, &name).ok_or_else(|| format!("{name}: not in the file"))?;
        let mut values = vec![0.0; shape.iter().product()];
        gguf::read_tensor(file, &name, &mut values)?;
        out.write_all(bytemuck::cast_slice(&values))?;
        println!("{}", json!(shape));
    }
    Ok(out.flush()?)
}

fn text(prompter: &Prompter) -> Result<(), Box<dyn Error>> {
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Question::Text { text, add_special } => {
                let ids = prompter.encode(&text, add_special)?;
                json!({"ids": ids, "decoded": prompter.decode(&ids, false)?, "skipped": prompter.decode(&ids, true)?})
            }
            Question::Chat { messages, add_generation_prompt } => {
                json!({"text": prompter.render_chat(&messages, add_generation_prompt)?})
            }
        };
        writeln!(output, "{answer}")?;
    }
    Ok(())
}
