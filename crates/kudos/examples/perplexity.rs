//! How well a decoder predicts a text: for the comparison with transformers in `bench/peers`.
//!
//! `perplexity MODEL PRECISION FILE CONTEXT`: the text without special tokens, cut into windows of CONTEXT tokens, each scored
//! from its second token on; prints `{"nll_sum": …, "tokens": …}` (natural logarithms).

use kernels::parallel::{inside, set_threads};
use kudos::models::{Decoder, DecoderHead, LogitRows, gguf};
use kudos::nn::gguf::Gguf;
use kudos::nn::{Batch, Precision, Tape};
use kudos::text::Prompter;
use std::path::Path;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, precision, file, context] = arguments.as_slice() else {
        eprintln!("usage: perplexity MODEL f32|bf16|int8 FILE CONTEXT");
        std::process::exit(2);
    };
    let precision: Precision = serde_json::from_value(precision.as_str().into()).expect("a precision");
    let text = std::fs::read_to_string(file).expect("a text");
    let context: usize = context.parse().expect("a number");
    set_threads(2).expect("no pool yet");
    inside(|| measure(Path::new(model), precision, &text, context));
}

fn measure(path: &Path, precision: Precision, text: &str, context: usize) {
    let prompter = match path.is_dir() {
        true => Prompter::load(path).expect("a tokenizer"),
        false => {
            let file = Gguf::open(path).expect("a GGUF file");
            Prompter::from_gguf(gguf::vocabulary(&file).expect("a vocabulary")).expect("a tokenizer")
        }
    };
    let ids = prompter.encode(text, false).expect("ids");
    let mut model = Decoder::load(path, DecoderHead::Words, precision).expect("a decoder");
    let (mut cache, mut tape) = (model.cache(1, context), Tape::default());
    let (mut sum, mut tokens) = (0.0f64, 0);
    for window in ids.chunks(context) {
        let mut batch = Batch::default();
        batch.push_cached(window, 0, 0).expect("a window of tokens");
        let logits = model.logits(&mut tape, &batch, &mut cache, LogitRows::All);
        let width = logits.len() / window.len();
        for (next, logits) in window[1..].iter().zip(logits.chunks_exact(width)) {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = logits.iter().map(|l| f64::from(l - max).exp()).sum();
            sum += total.ln() - f64::from(logits[*next as usize] - max);
            tokens += 1;
        }
    }
    println!("{{\"nll_sum\": {sum}, \"tokens\": {tokens}}}");
}
