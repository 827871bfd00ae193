//! `tokenizer_config.json` and the small files around it, read as transformers reads them.
//!
//! `tokenizer.json` says how text becomes ids; these files say which tokens are special, on which side to
//! cut and which chat template to use, and sometimes contradict `tokenizer.json`. Where they may overrule it
//! is decided in `tokenizer_class`; here they are only read.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::TextError;

/// The seven names transformers gives to special tokens.
pub(super) const NAMED_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What the files beside `tokenizer.json` say.
#[derive(Default)]
pub(super) struct TokenizerConfig {
    /// `tokenizer_config.json`, with `special_tokens_map.json` over it where transformers still reads that.
    settings: Map<String, Value>,
    /// Added tokens by id, when the files list them; otherwise those of `tokenizer.json` count.
    pub(super) added_tokens: BTreeMap<u32, AddedToken>,
    /// Whether `tokenizer_config.json` itself lists the added tokens.
    pub(super) lists_added_tokens: bool,
    /// `tokenizer_class`, of `tokenizer_config.json` or else `config.json`.
    pub(super) declared_class: Option<String>,
    /// `model_type` of `config.json`.
    pub(super) model_type: Option<String>,
    /// `vocab_size` of `config.json`: how many embeddings the model has.
    pub(super) model_vocab_size: Option<u64>,
    /// How many segments the model tells apart, as far as `config.json` says: `type_vocab_size`, or 0 for a family
    /// that has none.
    pub(super) model_segments: Option<u64>,
    /// The chat template's source.
    pub(super) chat_template: Option<String>,
}

/// Families without segments, which leave `type_vocab_size` away.
const WITHOUT_SEGMENTS: [&str; 3] = ["distilbert", "modernbert", "mpnet"];

impl TokenizerConfig {
    /// Reads what exists in `dir`; a missing file is an empty one.
    pub(super) fn read(dir: &Path) -> Result<Self, TextError> {
        let mut settings = read_object(&dir.join("tokenizer_config.json"))?;
        let model = read_object(&dir.join("config.json"))?;
        let lists_added_tokens = settings.contains_key("added_tokens_decoder");
        let mut added_tokens = BTreeMap::new();
        if lists_added_tokens {
            added_tokens = added_tokens_decoder(dir, &settings)?;
        } else {
            settings.extend(read_object(&dir.join("special_tokens_map.json"))?);
        }
        let mut config = Self {
            added_tokens,
            lists_added_tokens,
            declared_class: field(&settings, "tokenizer_class").or(field(&model, "tokenizer_class")),
            model_type: field(&model, "model_type"),
            model_vocab_size: model.get("vocab_size").and_then(Value::as_u64),
            model_segments: model_segments(&model),
            chat_template: chat_template(dir, &settings)?,
            settings,
        };
        if !lists_added_tokens {
            config.added_tokens = config.legacy_added_tokens(&read_object(&dir.join("added_tokens.json"))?);
        }
        Ok(config)
    }

    /// A true/false setting, if given.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.settings.get(name).and_then(Value::as_bool)
    }

    /// A text setting, if given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.settings.get(name).and_then(Value::as_str)
    }

    /// A list of strings, if given.
    pub(super) fn list(&self, name: &str) -> Option<Vec<&str>> {
        Some(self.settings.get(name)?.as_array()?.iter().filter_map(Value::as_str).collect())
    }

    /// A special token by name: `None` if the files do not mention it, `Some(None)` if they say there is none.
    pub(super) fn special_token(&self, name: &str) -> Option<Option<AddedToken>> {
        self.settings.get(name).map(special_token)
    }

    /// Tokens with names of a model's own (`image_token`, …), which transformers adds beside the seven.
    pub(super) fn model_specific_tokens(&self) -> Vec<(String, AddedToken)> {
        let own =
            self.settings.iter().filter(|(name, _)| name.ends_with("_token") && !NAMED_TOKENS.contains(&name.as_str()));
        let extra = self.extra_tokens().and_then(Value::as_object).into_iter().flatten();
        own.chain(extra).filter_map(|(name, value)| Some((name.clone(), special_token(value)?))).collect()
    }

    /// Nameless special tokens (`extra_special_tokens`, formerly `additional_special_tokens`).
    pub(super) fn nameless_tokens(&self) -> Vec<AddedToken> {
        self.extra_tokens().and_then(Value::as_array).into_iter().flatten().filter_map(special_token).collect()
    }

    fn extra_tokens(&self) -> Option<&Value> {
        let names = ["extra_special_tokens", "additional_special_tokens"];
        names.into_iter().filter_map(|name| self.settings.get(name)).find(|value| !is_empty(value))
    }

    /// `added_tokens.json` gives ids alone; a token is special when another file calls it so.
    fn legacy_added_tokens(&self, file: &Map<String, Value>) -> BTreeMap<u32, AddedToken> {
        let named = NAMED_TOKENS.iter().filter_map(|name| self.special_token(name).flatten());
        let special: Vec<String> = named.chain(self.nameless_tokens()).map(|token| token.content).collect();
        let entry = |(content, id): (&String, &Value)| {
            let id = u32::try_from(id.as_u64()?).ok()?;
            Some((id, AddedToken::from(content, special.contains(content))))
        };
        file.iter().filter_map(entry).collect()
    }
}

fn model_segments(model: &Map<String, Value>) -> Option<u64> {
    let family = model.get("model_type").and_then(Value::as_str)?;
    if WITHOUT_SEGMENTS.contains(&family) {
        return Some(0);
    }
    model.get("type_vocab_size").and_then(Value::as_u64)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(array) => array.is_empty(),
        Value::Object(object) => object.is_empty(),
        other => other.is_null(),
    }
}

fn field(file: &Map<String, Value>, name: &str) -> Option<String> {
    file.get(name).and_then(string)
}

fn string(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// `"[SEP]"` or `{"content": "[SEP]", "lstrip": …}`.
fn special_token(value: &Value) -> Option<AddedToken> {
    match value {
        Value::String(content) => Some(AddedToken::from(content, true)),
        Value::Object(fields) => added_token(fields, true),
        _ => None,
    }
}

fn added_token(fields: &Map<String, Value>, always_special: bool) -> Option<AddedToken> {
    let flag = |name: &str| fields.get(name).and_then(Value::as_bool);
    let special = always_special || flag("special").unwrap_or(false);
    let token = AddedToken::from(fields.get("content")?.as_str()?, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false));
    Some(token.normalized(flag("normalized").unwrap_or(!special)))
}

fn added_tokens_decoder(dir: &Path, settings: &Map<String, Value>) -> Result<BTreeMap<u32, AddedToken>, TextError> {
    let entry = |(id, fields): (&String, &Value)| {
        let token = fields.as_object().and_then(|fields| added_token(fields, false));
        let id = id.parse().ok();
        id.zip(token).ok_or_else(|| TextError::Malformed {
            path: dir.join("tokenizer_config.json"),
            expected: "added_tokens_decoder to map ids to {content, lstrip, …}",
            found: format!("{id:?}: {fields}"),
        })
    };
    settings["added_tokens_decoder"].as_object().into_iter().flatten().map(entry).collect()
}

/// `chat_template.jinja` before the field of `tokenizer_config.json`; of several templates, `default`.
fn chat_template(dir: &Path, settings: &Map<String, Value>) -> Result<Option<String>, TextError> {
    if let Some(bytes) = read_if_exists(&dir.join("chat_template.jinja"))? {
        let path = dir.join("chat_template.jinja");
        let utf8 = |error: std::string::FromUtf8Error| malformed(&path, "UTF-8 text", &error);
        return String::from_utf8(bytes).map(Some).map_err(utf8);
    }
    Ok(match settings.get("chat_template") {
        Some(Value::String(source)) => Some(source.clone()),
        Some(Value::Array(templates)) => {
            let default = templates.iter().find(|template| template["name"] == "default");
            default.and_then(|template| string(&template["template"]))
        }
        _ => None,
    })
}

/// A JSON file; a missing one is an empty object.
pub(super) fn read_object(path: &Path) -> Result<Map<String, Value>, TextError> {
    match read_if_exists(path)? {
        None => Ok(Map::new()),
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| malformed(path, "a JSON object", &error)),
    }
}

/// The file's bytes; `None` if there is no such file.
pub(super) fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>, TextError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TextError::Unreadable { path: path.into(), source }),
    }
}

/// An error about a file whose content is not what it should be.
pub(super) fn malformed(path: &Path, expected: &'static str, found: &dyn std::fmt::Display) -> TextError {
    TextError::Malformed { path: path.into(), expected, found: found.to_string() }
}
