//! [`Splitter`]: a text to tokens, with control tokens of messages taken for themselves or for plain text.
//!
//! A tokenizer knows two ways to read `<|im_end|>`, for all of a text: as the token, or as letters. In a rendered
//! conversation the template's own control tokens are tokens, whatever those of the messages are to be. So with
//! `literal` a text is split at the control tokens that are not masked ([`super::control`]), and what stands between
//! them is read as letters. Without control tokens in the messages, the ids are the same either way.

use serde_json::{Value, json};
use tokenizers::models::unigram::Unigram;
use tokenizers::{Encoding, ModelWrapper, PreTokenizerWrapper, Token, Tokenizer};

use super::control::{ControlTokens, Found, Masked};
use super::{TextError, tokenizer_failed};
use crate::data::Content;

/// A tokenizer with a rule for control tokens.
pub(super) struct Splitter {
    /// With `literal`, it reads control tokens as letters.
    tokenizer: Tokenizer,
    /// For a part of a text that is not its first, where that makes a difference.
    later: Option<Tokenizer>,
    controls: ControlTokens,
    literal: bool,
}

impl Splitter {
    pub(super) fn new(mut tokenizer: Tokenizer, literal: bool) -> Result<Self, TextError> {
        // With `split_special_tokens`, the files ask for letters everywhere, even in the template: so does transformers.
        let all_letters = tokenizer.get_encode_special_tokens();
        let controls = if all_letters { ControlTokens::default() } else { ControlTokens::of(&tokenizer) };
        tokenizer.set_encode_special_tokens(literal || all_letters);
        if literal {
            without_pieces(&mut tokenizer, &controls)?;
        }
        let later = if literal { without_first(&tokenizer) } else { None };
        Ok(Self { later, tokenizer, controls, literal })
    }

    /// The tokenizer itself.
    pub(super) fn engine(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Control tokens of a content that are read as tokens.
    pub(super) fn control_tokens(&self, content: &Content) -> usize {
        if self.literal { 0 } else { self.controls.count(content) }
    }

    /// What hides the control tokens of the texts; `None` where they are tokens, or where there are none.
    pub(super) fn mask(&self, texts: &[&str]) -> Option<Masked<'_>> {
        if self.literal { Masked::of(&self.controls, texts.iter().copied()) } else { None }
    }

    /// The tokens of one side of a pair, which no template has touched.
    pub(super) fn of_side(&self, text: &str) -> Result<Encoding, TextError> {
        self.tokenizer.encode_fast(text, false).map_err(tokenizer_failed)
    }

    /// The tokens of a rendered text; with `places`, their offsets are its characters.
    pub(super) fn encode(&self, text: &str, masked: Option<&Masked>, places: bool) -> Result<Encoding, TextError> {
        if !self.literal {
            return encode_with(&self.tokenizer, text, places);
        }
        let (mut parts, mut at) = (Vec::new(), 0);
        let found = self.controls.find(text);
        let end = Found { id: 0, token: text.len()..text.len(), taken: text.len()..text.len() };
        for control in found.iter().chain([&end]) {
            if at < control.taken.start || text.is_empty() {
                let words = &text[at..control.taken.start];
                let words = masked.map_or_else(|| words.to_owned(), |masked| masked.unmask(words));
                parts.push((at, self.letters(&words, at, places)?));
            }
            if !control.taken.is_empty() {
                let (token, chars) = (&text[control.token.clone()], text[control.taken.clone()].chars().count());
                let token = Token::new(control.id, token.to_owned(), (0, chars));
                parts.push((control.taken.start, Encoding::from_tokens(vec![token], 0)));
            }
            at = control.taken.end;
        }
        Ok(merged(text, parts, places))
    }

    /// The tokens of a part that begins at byte `at`.
    fn letters(&self, words: &str, at: usize, places: bool) -> Result<Encoding, TextError> {
        let tokenizer = self.later.as_ref().filter(|_| at > 0).unwrap_or(&self.tokenizer);
        encode_with(tokenizer, words, places)
    }
}

fn encode_with(tokenizer: &Tokenizer, text: &str, places: bool) -> Result<Encoding, TextError> {
    let encoded = if places { tokenizer.encode_char_offsets(text, false) } else { tokenizer.encode_fast(text, false) };
    encoded.map_err(tokenizer_failed)
}

/// The parts in a row, each with the byte it begins at; with `places`, their offsets count the text's characters.
fn merged(text: &str, mut parts: Vec<(usize, Encoding)>, places: bool) -> Encoding {
    let (mut chars, mut counted) = (0, 0);
    for (at, part) in parts.iter_mut().filter(|_| places) {
        chars += text[counted..*at].chars().count();
        counted = *at;
        part.get_offsets_mut().iter_mut().for_each(|(start, end)| (*start, *end) = (*start + chars, *end + chars));
    }
    Encoding::merge(parts.into_iter().map(|(_, part)| part), false)
}

/// A Unigram vocabulary lists its control tokens among the pieces of words, and would find `</s>` in letters too. They
/// get names that no text has, and keep their ids.
fn without_pieces(tokenizer: &mut Tokenizer, controls: &ControlTokens) -> Result<(), TextError> {
    let ModelWrapper::Unigram(model) = tokenizer.get_model() else { return Ok(()) };
    let mut pieces: Vec<(String, f64)> = model.iter().cloned().collect();
    for (id, token) in controls.all() {
        if let Some((piece, _)) = pieces.get_mut(*id as usize).filter(|(piece, _)| *piece == token.content) {
            *piece = format!("\u{10ffff}{id}");
        }
    }
    // The model does not show which piece stands for unknown letters, but writes it.
    let written = serde_json::to_value(model).map_err(|error| TextError::Tokenize(error.to_string()))?;
    let unknown = written["unk_id"].as_u64().and_then(|id| usize::try_from(id).ok());
    let model = Unigram::from(pieces, unknown, model.byte_fallback());
    tokenizer.with_model(model.map_err(|error| TextError::Tokenize(error.to_string()))?);
    Ok(())
}

/// The tokenizer for what is not a text's beginning, where it puts a space before the beginning alone.
fn without_first(tokenizer: &Tokenizer) -> Option<Tokenizer> {
    let mut pre_tokenizer: Value = serde_json::to_value(tokenizer.get_pre_tokenizer()?).ok()?;
    if !never_prepend(&mut pre_tokenizer) {
        return None;
    }
    let pre_tokenizer: PreTokenizerWrapper = serde_json::from_value(pre_tokenizer).ok()?;
    let mut later = tokenizer.clone();
    later.with_pre_tokenizer(Some(pre_tokenizer));
    Some(later)
}

/// Turns `"prepend_scheme": "first"` into `"never"`, wherever it stands; whether it stood anywhere.
fn never_prepend(value: &mut Value) -> bool {
    let mut found = value.get("prepend_scheme").is_some_and(|scheme| scheme == "first");
    if found {
        value["prepend_scheme"] = json!("never");
    }
    let inside: Vec<&mut Value> = match value {
        Value::Object(fields) => fields.values_mut().collect(),
        Value::Array(values) => values.iter_mut().collect(),
        _ => Vec::new(),
    };
    for value in inside {
        found |= never_prepend(value);
    }
    found
}
