//! What a tokenizer class makes of `tokenizer.json`: model settings, normalizer, pre-tokenizer, added tokens and
//! post-processor, in the words of the file itself.
//!
//! `tokenizer_class` chooses the class and says why this exists. [`Rebuilt::notes`] reports what was changed.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokenizers::models::unigram::Unigram;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, AddedVocabulary, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
};

use super::TextError;
use super::tokenizer_class::TokenizerClass;
use super::tokenizer_config::{NAMED_TOKENS, TokenizerConfig, malformed};

/// What else there is to know of a tokenizer once it is made.
pub(super) struct Rebuilt {
    /// Special tokens by name (`eos_token`, …).
    pub(super) special_tokens: BTreeMap<String, AddedToken>,
    /// Whether the model reads the type ids: transformers hands them over, and the model has segments.
    pub(super) type_ids: bool,
    /// One line for each way the ids may differ from what `tokenizer.json` alone gives, or from transformers'.
    pub(super) notes: Vec<String>,
}

/// Qwen2's way to split text, from its tokenizer class.
pub(super) const QWEN2_SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Makes of `tokenizer`, as parsed from `path`, the one that transformers would use.
pub(super) fn rebuild(path: &Path, tokenizer: &mut Tokenizer, config: &TokenizerConfig) -> Result<Rebuilt, TextError> {
    let class = TokenizerClass::choose(config, tokenizer);
    let unknown = TokenizerClass::unknown(config, tokenizer);
    let special_tokens = special_tokens(class, config, tokenizer);
    // Limits and padding that the file carries from someone's script are not the judge's.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| malformed(path, "a tokenizer", &error))?;
    let declared = Shape::of(tokenizer);
    let builder = Builder { path, class, config, special_tokens: &special_tokens };
    builder.build(tokenizer)?;
    let mut notes = Shape::of(tokenizer).differences(&declared, class);
    notes.extend(
        unknown.map(|name| format!("tokenizer_class {name} is not known here: tokenizer.json is used as it is")),
    );
    // What the tokenizer hands over is decided by `model_input_names` of the config or else of the class; a model
    // without segments makes nothing of it.
    let names = config.list("model_input_names");
    let handed_over = names.map_or(class.has_type_ids(), |names| names.contains(&"token_type_ids"));
    let type_ids = handed_over && config.model_segments != Some(0);
    Ok(Rebuilt { special_tokens, type_ids, notes })
}

fn special_tokens(
    class: TokenizerClass,
    config: &TokenizerConfig,
    tokenizer: &Tokenizer,
) -> BTreeMap<String, AddedToken> {
    let mut tokens = BTreeMap::new();
    for name in NAMED_TOKENS {
        let default = || class.default_token(name).map(|token| AddedToken::from(token, true));
        if let Some(token) = config.special_token(name).unwrap_or_else(default) {
            tokens.insert(name.to_owned(), token);
        }
    }
    if let Some(padding) = tokenizer.get_padding() {
        tokens.entry("pad_token".to_owned()).or_insert_with(|| AddedToken::from(&padding.pad_token, true));
    }
    tokens.extend(config.model_specific_tokens());
    tokens
}

/// Everything that a class looks at while it builds.
struct Builder<'a> {
    path: &'a Path,
    class: TokenizerClass,
    config: &'a TokenizerConfig,
    special_tokens: &'a BTreeMap<String, AddedToken>,
}

impl Builder<'_> {
    fn build(&self, tokenizer: &mut Tokenizer) -> Result<(), TextError> {
        let added = self.added_tokens(tokenizer);
        if self.class != TokenizerClass::AsIs {
            let model = self.model(tokenizer.get_model())?;
            tokenizer.with_model(model);
            let normalizer: Option<NormalizerWrapper> = self.section(self.normalizer(tokenizer))?;
            tokenizer.with_normalizer(normalizer).map_err(|error| malformed(self.path, "a normalizer", &error))?;
            tokenizer.with_pre_tokenizer(self.section::<PreTokenizerWrapper>(self.pre_tokenizer())?);
            tokenizer.with_added_vocabulary(AddedVocabulary::new());
        }
        tokenizer.add_tokens(added).map_err(|error| malformed(self.path, "added tokens", &error))?;
        tokenizer.set_encode_special_tokens(self.config.flag("split_special_tokens").unwrap_or(false));
        if let Some(post_processor) = self.post_processor(tokenizer)? {
            tokenizer.with_post_processor(Some(post_processor));
        }
        Ok(())
    }

    /// Tokens outside the model's vocabulary, in the order in which transformers adds them.
    fn added_tokens(&self, tokenizer: &Tokenizer) -> Vec<AddedToken> {
        let mut by_id = self.config.added_tokens.clone();
        if !self.config.lists_added_tokens {
            by_id.extend(tokenizer.get_added_tokens_decoder());
        }
        let mut added: Vec<AddedToken> = by_id.into_values().collect();
        for token in self.all_special_tokens() {
            if !added.iter().any(|present| present.content == token.content) {
                added.push(token.special(true));
            }
        }
        added
    }

    /// The seven named ones first, then the model's own, then the nameless.
    fn all_special_tokens(&self) -> impl Iterator<Item = AddedToken> {
        let named = NAMED_TOKENS.iter().filter_map(|name| self.special_tokens.get(*name));
        let is_own = |(name, _): &(&String, &AddedToken)| !NAMED_TOKENS.contains(&name.as_str());
        let own = self.special_tokens.iter().filter(is_own).map(|(_, token)| token);
        named.chain(own).cloned().chain(self.config.nameless_tokens())
    }

    /// The model with its vocabulary, and the settings of the class.
    fn model(&self, model: &ModelWrapper) -> Result<ModelWrapper, TextError> {
        use TokenizerClass as Class;
        match (self.class, model.clone()) {
            (Class::Bert | Class::DistilBert, ModelWrapper::WordPiece(mut model)) => {
                model.unk_token = self.special_text("unk_token").unwrap_or_default();
                "##".clone_into(&mut model.continuing_subword_prefix);
                model.max_input_chars_per_word = 100;
                Ok(model.into())
            }
            (Class::Roberta | Class::Gpt2 | Class::Qwen2 | Class::Llama, ModelWrapper::BPE(mut model)) => {
                (model.dropout, model.unk_token) = (None, None);
                (model.continuing_subword_prefix, model.end_of_word_suffix) = (None, None);
                model.fuse_unk = self.class == Class::Llama;
                model.byte_fallback = self.class == Class::Llama;
                model.ignore_merges = false;
                Ok(model.into())
            }
            (Class::XlmRoberta | Class::DebertaV2, ModelWrapper::Unigram(model)) => self.unigram(&model),
            (Class::Bert | Class::DistilBert, other) => Err(self.mismatch("needs a WordPiece model", kind(&other))),
            (Class::XlmRoberta | Class::DebertaV2, other) => Err(self.mismatch("needs a Unigram model", kind(&other))),
            (_, other) => Err(self.mismatch("needs a BPE model", kind(&other))),
        }
    }

    fn unigram(&self, model: &Unigram) -> Result<ModelWrapper, TextError> {
        let vocab: Vec<(String, f64)> = model.iter().cloned().collect();
        let unknown_token = self.special_text("unk_token");
        let unknown_id = match self.class {
            TokenizerClass::XlmRoberta => 3,
            _ => {
                let is_unknown =
                    |(token, score): &(String, f64)| Some(token) == unknown_token.as_ref() && *score == 0.0;
                vocab.iter().position(is_unknown).unwrap_or(1)
            }
        };
        let built = Unigram::from(vocab, Some(unknown_id), false);
        built.map(Into::into).map_err(|error| self.mismatch("needs an unknown token", error.to_string()))
    }

    fn normalizer(&self, tokenizer: &Tokenizer) -> Value {
        let flag = |name| self.config.flag(name);
        match self.class {
            TokenizerClass::Bert | TokenizerClass::DistilBert => json!({
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": flag("tokenize_chinese_chars").unwrap_or(true),
                "strip_accents": flag("strip_accents"),
                "lowercase": flag("do_lower_case").unwrap_or(true),
            }),
            TokenizerClass::XlmRoberta => precompiled(tokenizer),
            TokenizerClass::Qwen2 => json!({"type": "NFC"}),
            TokenizerClass::DebertaV2 => {
                let lowercase = flag("do_lower_case").unwrap_or(false).then(|| json!({"type": "Lowercase"}));
                let always = [
                    json!({"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "}),
                    json!({"type": "NFC"}),
                    json!({"type": "Strip", "strip_left": false, "strip_right": true}),
                ];
                json!({"type": "Sequence", "normalizers": lowercase.into_iter().chain(always).collect::<Vec<_>>()})
            }
            _ => Value::Null,
        }
    }

    fn pre_tokenizer(&self) -> Value {
        let prefix_space = self.config.flag("add_prefix_space");
        match self.class {
            TokenizerClass::AsIs => Value::Null,
            TokenizerClass::Bert | TokenizerClass::DistilBert => {
                json!({"type": "BertPreTokenizer"})
            }
            TokenizerClass::Roberta | TokenizerClass::Gpt2 => byte_level(prefix_space.unwrap_or(false), true),
            TokenizerClass::XlmRoberta => {
                let scheme = if prefix_space.unwrap_or(true) { "always" } else { "never" };
                steps([json!({"type": "WhitespaceSplit"}), metaspace(scheme, true)])
            }
            TokenizerClass::Qwen2 => steps([
                json!({"type": "Split", "pattern": {"Regex": QWEN2_SPLIT}, "behavior": "Isolated", "invert": false}),
                byte_level(prefix_space.unwrap_or(false), false),
            ]),
            TokenizerClass::Llama => metaspace(self.llama_scheme(), false),
            TokenizerClass::DebertaV2 => {
                let scheme = if prefix_space.unwrap_or(true) { "always" } else { "first" };
                let punctuation = json!({"type": "Punctuation", "behavior": "Isolated"});
                let punctuation = self.config.flag("split_by_punct").unwrap_or(false).then_some(punctuation);
                steps(punctuation.into_iter().chain([metaspace(scheme, true)]))
            }
        }
    }

    fn llama_scheme(&self) -> &'static str {
        let flag = |name, default| self.config.flag(name).unwrap_or(default);
        match (flag("add_prefix_space", true), flag("legacy", false)) {
            (false, _) => "never",
            (true, true) => "always",
            (true, false) => "first",
        }
    }

    /// The class's own post-processor, if it has one; its special tokens must have ids by now.
    fn post_processor(&self, tokenizer: &Tokenizer) -> Result<Option<PostProcessorWrapper>, TextError> {
        use TokenizerClass as Class;
        let token = |name| self.token_with_id(tokenizer, name);
        Ok(Some(match self.class {
            Class::AsIs | Class::Gpt2 | Class::Qwen2 | Class::Llama => return Ok(None),
            Class::Roberta => {
                let prefix_space = self.config.flag("add_prefix_space").unwrap_or(false);
                let processor = RobertaProcessing::new(token("sep_token")?, token("cls_token")?);
                processor.add_prefix_space(prefix_space).into()
            }
            Class::Bert | Class::DistilBert | Class::DebertaV2 => {
                let (cls, sep) = (token("cls_token")?, token("sep_token")?);
                let second_sep = format!("{}:1", sep.0);
                self.template(&[&cls.0, "$A:0", &sep.0], &["$B:1", &second_sep], [cls.clone(), sep.clone()])?
            }
            Class::XlmRoberta => {
                let (bos, eos) = (token("bos_token")?, token("eos_token")?);
                self.template(&[&bos.0, "$A", &eos.0], &[&eos.0, "$B", &eos.0], [bos.clone(), eos.clone()])?
            }
        }))
    }

    /// The template of one sequence, and what a second one appends to it.
    fn template(
        &self,
        single: &[&str],
        second: &[&str],
        special_tokens: [(String, u32); 2],
    ) -> Result<PostProcessorWrapper, TextError> {
        let bad = |error: String| malformed(self.path, "separator tokens", &error);
        let pair: Vec<&str> = [single, second].concat();
        let mut builder = TemplateProcessing::builder();
        builder.try_single(single.to_vec()).map_err(bad)?;
        builder.try_pair(pair).map_err(bad)?;
        let built = builder.special_tokens(special_tokens.to_vec()).build();
        built.map(Into::into).map_err(|error| bad(error.to_string()))
    }

    fn token_with_id(&self, tokenizer: &Tokenizer, name: &str) -> Result<(String, u32), TextError> {
        let token = self.special_text(name);
        let with_id = token.and_then(|token| tokenizer.token_to_id(&token).map(|id| (token, id)));
        with_id.ok_or_else(|| self.mismatch("needs its separator tokens", format!("no {name}")))
    }

    fn special_text(&self, name: &str) -> Option<String> {
        self.special_tokens.get(name).map(|token| token.content.clone())
    }

    fn section<S: DeserializeOwned>(&self, json: Value) -> Result<Option<S>, TextError> {
        serde_json::from_value(json).map_err(|error| malformed(self.path, "a section of a tokenizer", &error))
    }

    fn mismatch(&self, expected: &'static str, found: impl Into<String>) -> TextError {
        TextError::ClassMismatch { path: self.path.into(), class: self.class.name(), expected, found: found.into() }
    }
}

fn byte_level(add_prefix_space: bool, use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": use_regex})
}

fn metaspace(prepend_scheme: &str, split: bool) -> Value {
    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": prepend_scheme, "split": split})
}

fn steps(pre_tokenizers: impl IntoIterator<Item = Value>) -> Value {
    json!({"type": "Sequence", "pretokenizers": pre_tokenizers.into_iter().collect::<Vec<_>>()})
}

/// SentencePiece's own normalization table, alone or as a step: all that XLM-R's class keeps of a normalizer.
fn precompiled(tokenizer: &Tokenizer) -> Value {
    let normalizer = serde_json::to_value(tokenizer.get_normalizer()).unwrap_or_default();
    let steps = normalizer.get("normalizers").and_then(Value::as_array).cloned();
    let steps = steps.unwrap_or_else(|| vec![normalizer]);
    steps.into_iter().find(|step| step["type"] == "Precompiled").unwrap_or_default()
}

fn kind(model: &ModelWrapper) -> &'static str {
    match model {
        ModelWrapper::BPE(_) => "a BPE model",
        ModelWrapper::WordPiece(_) => "a WordPiece model",
        ModelWrapper::WordLevel(_) => "a WordLevel model",
        ModelWrapper::Unigram(_) => "a Unigram model",
    }
}

/// What decides the ids, for telling what a class changed: two sections, and the special tokens around nothing.
struct Shape {
    normalizer: Value,
    pre_tokenizer: Value,
    special_ids: Option<Vec<u32>>,
}

impl Shape {
    fn of(tokenizer: &Tokenizer) -> Self {
        let around_nothing = tokenizer.encode_fast(("", ""), true);
        Self {
            normalizer: serde_json::to_value(tokenizer.get_normalizer()).unwrap_or_default(),
            pre_tokenizer: serde_json::to_value(tokenizer.get_pre_tokenizer()).unwrap_or_default(),
            special_ids: around_nothing.ok().map(|encoding| encoding.get_ids().to_vec()),
        }
    }

    fn differences(&self, declared: &Self, class: TokenizerClass) -> Vec<String> {
        let changed = [
            ("normalizer", self.normalizer != declared.normalizer),
            ("pre_tokenizer", self.pre_tokenizer != declared.pre_tokenizer),
            ("post_processor", self.special_ids != declared.special_ids),
        ];
        let note = |section: &str| {
            format!(
                "tokenizer_class {} replaces the {section} of tokenizer.json, in transformers 5 as here",
                class.name()
            )
        };
        changed.iter().filter(|(_, changed)| *changed).map(|(section, _)| note(section)).collect()
    }
}
