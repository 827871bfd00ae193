//! Which tokenizer class transformers picks for a directory, and what that class makes of `tokenizer.json`.
//!
//! transformers 5 does not always take `tokenizer.json` at its word. Its generic class does. But a class such as
//! `BertTokenizer` keeps only the vocabulary, and puts a normalizer, a pre-tokenizer and a post-processor of its own
//! around it, with the settings of `tokenizer_config.json`: a checkpoint whose `tokenizer.json` lowercases and whose
//! config says `do_lower_case: false` is cased there. A judge must get the same ids in both programs, so the same
//! choice and the same replacements are made here; [`Applied::notes`] says when they changed what `tokenizer.json`
//! declares. Checked against transformers 5.23 by the goldens of `tests/text_golden.rs`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, AddedVocabulary, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
};

use super::TextError;
use super::tokenizer_config::{NAMED_TOKENS, TokenizerConfig, malformed};

/// The classes of transformers that matter to the model families here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenizerClass {
    /// `TokenizersBackend`, also known as `PreTrainedTokenizerFast`: `tokenizer.json` as it is.
    AsIs,
    /// `BertTokenizer`.
    Bert,
    /// `DistilBertTokenizer`: `BertTokenizer` without type ids.
    DistilBert,
    /// `RobertaTokenizer`.
    Roberta,
    /// `XLMRobertaTokenizer`.
    XlmRoberta,
    /// `GPT2Tokenizer`.
    Gpt2,
    /// `Qwen2Tokenizer`.
    Qwen2,
    /// `LlamaTokenizer`.
    Llama,
    /// `DebertaV2Tokenizer`.
    DebertaV2,
}

/// What remains of the class once the tokenizer is made.
pub(super) struct Applied {
    /// Special tokens by name (`eos_token`, …).
    pub(super) special_tokens: BTreeMap<String, AddedToken>,
    /// Whether transformers hands type ids to the model.
    pub(super) type_ids: bool,
    /// One line for each way the ids differ from what `tokenizer.json` alone would give.
    pub(super) notes: Vec<String>,
}

const QWEN2_SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl TokenizerClass {
    /// The class `AutoTokenizer` would use, and a remark if it is one that is not known here.
    pub(super) fn choose(config: &TokenizerConfig, tokenizer: &Tokenizer) -> (Self, Option<String>) {
        let registered = config.model_type.as_deref().map_or("", registered_class);
        let declared = config.declared_class.as_deref().map(|name| name.strip_suffix("Fast").unwrap_or(name));
        let name = match declared {
            Some("LlamaTokenizer") if is_byte_level(tokenizer) => "TokenizersBackend",
            Some(_) if registered == "TokenizersBackend" => registered,
            // A model type whose published configs are known to name the wrong class.
            Some(_) if config.model_type.as_deref() == Some("qwen2") => registered,
            Some(declared) => declared,
            None => registered,
        };
        match Self::by_name(name) {
            Some(class) => (class, None),
            None => {
                let note = format!("tokenizer_class {name} is not known here: tokenizer.json is used as it is");
                (Self::AsIs, Some(note))
            }
        }
    }

    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "" | "TokenizersBackend" | "PreTrainedTokenizer" | "PythonBackend" | "BloomTokenizer" => Self::AsIs,
            "BertTokenizer" => Self::Bert,
            "DistilBertTokenizer" => Self::DistilBert,
            "RobertaTokenizer" => Self::Roberta,
            "XLMRobertaTokenizer" => Self::XlmRoberta,
            "GPT2Tokenizer" => Self::Gpt2,
            "Qwen2Tokenizer" => Self::Qwen2,
            "LlamaTokenizer" => Self::Llama,
            "DebertaV2Tokenizer" => Self::DebertaV2,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::AsIs => "TokenizersBackend",
            Self::Bert => "BertTokenizer",
            Self::DistilBert => "DistilBertTokenizer",
            Self::Roberta => "RobertaTokenizer",
            Self::XlmRoberta => "XLMRobertaTokenizer",
            Self::Gpt2 => "GPT2Tokenizer",
            Self::Qwen2 => "Qwen2Tokenizer",
            Self::Llama => "LlamaTokenizer",
            Self::DebertaV2 => "DebertaV2Tokenizer",
        }
    }

    /// Special tokens of the class where the files name none.
    fn default_token(self, name: &str) -> Option<&'static str> {
        const END: &str = "<|endoftext|>";
        match (self, name) {
            (Self::Bert | Self::DistilBert | Self::DebertaV2, "unk_token") => Some("[UNK]"),
            (Self::Bert | Self::DistilBert | Self::DebertaV2, "sep_token") => Some("[SEP]"),
            (Self::Bert | Self::DistilBert | Self::DebertaV2, "pad_token") => Some("[PAD]"),
            (Self::Bert | Self::DistilBert | Self::DebertaV2, "cls_token") => Some("[CLS]"),
            (Self::Bert | Self::DistilBert | Self::DebertaV2, "mask_token") => Some("[MASK]"),
            (Self::DebertaV2, "bos_token") => Some("[CLS]"),
            (Self::DebertaV2, "eos_token") => Some("[SEP]"),
            (Self::Roberta | Self::XlmRoberta, "bos_token" | "cls_token") => Some("<s>"),
            (Self::Roberta | Self::XlmRoberta, "eos_token" | "sep_token") => Some("</s>"),
            (Self::Roberta | Self::XlmRoberta | Self::Llama, "unk_token") => Some("<unk>"),
            (Self::Roberta | Self::XlmRoberta, "pad_token") => Some("<pad>"),
            (Self::Roberta | Self::XlmRoberta, "mask_token") => Some("<mask>"),
            (Self::Gpt2, "unk_token" | "bos_token" | "eos_token") => Some(END),
            (Self::Qwen2, "unk_token" | "eos_token" | "pad_token") => Some(END),
            (Self::Llama, "bos_token") => Some("<s>"),
            (Self::Llama, "eos_token") => Some("</s>"),
            _ => None,
        }
    }

    /// Makes of `tokenizer`, as parsed from `tokenizer.json`, the one that transformers would use.
    pub(super) fn apply(
        self,
        path: &Path,
        tokenizer: &mut Tokenizer,
        config: &TokenizerConfig,
    ) -> Result<Applied, TextError> {
        let declared = Sections::of(tokenizer);
        let special_tokens = self.special_tokens(config, tokenizer);
        let added = added_tokens(config, tokenizer, &special_tokens);
        self.rebuild(path, tokenizer, config, &special_tokens)?;
        if self != Self::AsIs {
            tokenizer.with_added_vocabulary(AddedVocabulary::new());
        }
        tokenizer.add_tokens(added).map_err(|error| malformed(path, "added tokens", &error))?;
        self.post_process(path, tokenizer, &special_tokens)?;
        tokenizer.set_encode_special_tokens(config.flag("split_special_tokens").unwrap_or(false));
        let given = config.list("model_input_names");
        let type_ids = given.map_or(self.has_type_ids(), |names| names.contains(&"token_type_ids"));
        let notes = Sections::of(tokenizer).differences(&declared, self.name());
        Ok(Applied { special_tokens, type_ids, notes })
    }

    fn has_type_ids(self) -> bool {
        matches!(self, Self::Bert | Self::DebertaV2)
    }

    fn special_tokens(self, config: &TokenizerConfig, tokenizer: &Tokenizer) -> BTreeMap<String, AddedToken> {
        let mut tokens: BTreeMap<String, AddedToken> = BTreeMap::new();
        for name in NAMED_TOKENS {
            let default = || self.default_token(name).map(|token| AddedToken::from(token, true));
            if let Some(token) = config.special_token(name).unwrap_or_else(default) {
                tokens.insert(name.to_owned(), token);
            }
        }
        if let Some(padding) = tokenizer.get_padding() {
            let token = || AddedToken::from(&padding.pad_token, true);
            tokens.entry("pad_token".to_owned()).or_insert_with(token);
        }
        tokens.extend(config.model_specific_tokens());
        tokens
    }

    /// Replaces model settings, normalizer and pre-tokenizer by those of the class.
    fn rebuild(
        self,
        path: &Path,
        tokenizer: &mut Tokenizer,
        config: &TokenizerConfig,
        special_tokens: &BTreeMap<String, AddedToken>,
    ) -> Result<(), TextError> {
        let unknown = special_tokens.get("unk_token").map(|token| token.content.clone());
        match self {
            Self::AsIs => return Ok(()),
            Self::Bert | Self::DistilBert => self.rebuild_word_piece(path, tokenizer, unknown)?,
            Self::Roberta | Self::Gpt2 | Self::Qwen2 => self.rebuild_bpe(path, tokenizer, false)?,
            Self::Llama => self.rebuild_bpe(path, tokenizer, true)?,
            Self::XlmRoberta => self.rebuild_unigram(path, tokenizer, |_| 3)?,
            Self::DebertaV2 => self.rebuild_unigram(path, tokenizer, |vocab| {
                let is_unknown = |(token, score): &(String, f64)| Some(token) == unknown.as_ref() && *score == 0.0;
                vocab.iter().position(is_unknown).unwrap_or(1)
            })?,
        }
        let normalizer = section::<NormalizerWrapper>(path, self.normalizer(config, tokenizer))?;
        let pre_tokenizer = section::<PreTokenizerWrapper>(path, self.pre_tokenizer(config))?;
        tokenizer.with_normalizer(normalizer).map_err(|error| malformed(path, "a normalizer", &error))?;
        tokenizer.with_pre_tokenizer(pre_tokenizer);
        Ok(())
    }

    fn rebuild_word_piece(
        self,
        path: &Path,
        tokenizer: &mut Tokenizer,
        unknown: Option<String>,
    ) -> Result<(), TextError> {
        let ModelWrapper::WordPiece(model) = tokenizer.get_model() else {
            return Err(self.mismatch(path, "needs a WordPiece model", kind(tokenizer.get_model())));
        };
        let mut model: WordPiece = model.clone();
        model.unk_token = unknown.unwrap_or_else(|| "None".to_owned());
        "##".clone_into(&mut model.continuing_subword_prefix);
        model.max_input_chars_per_word = 100;
        tokenizer.with_model(model);
        Ok(())
    }

    fn rebuild_bpe(self, path: &Path, tokenizer: &mut Tokenizer, llama: bool) -> Result<(), TextError> {
        let ModelWrapper::BPE(model) = tokenizer.get_model() else {
            return Err(self.mismatch(path, "needs a BPE model", kind(tokenizer.get_model())));
        };
        let mut model: BPE = model.clone();
        model.dropout = None;
        model.unk_token = None;
        model.continuing_subword_prefix = None;
        model.end_of_word_suffix = None;
        model.fuse_unk = llama;
        model.byte_fallback = llama;
        model.ignore_merges = false;
        tokenizer.with_model(model);
        Ok(())
    }

    fn rebuild_unigram(
        self,
        path: &Path,
        tokenizer: &mut Tokenizer,
        unknown_id: impl Fn(&[(String, f64)]) -> usize,
    ) -> Result<(), TextError> {
        let ModelWrapper::Unigram(model) = tokenizer.get_model() else {
            return Err(self.mismatch(path, "needs a Unigram model", kind(tokenizer.get_model())));
        };
        let vocab: Vec<(String, f64)> = model.iter().cloned().collect();
        let unknown = unknown_id(&vocab);
        let model = Unigram::from(vocab, Some(unknown), false)
            .map_err(|error| self.mismatch(path, "needs an unknown token in the vocabulary", error.to_string()))?;
        tokenizer.with_model(model);
        Ok(())
    }

    fn normalizer(self, config: &TokenizerConfig, tokenizer: &Tokenizer) -> Value {
        match self {
            Self::Bert | Self::DistilBert => json!({
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": config.flag("tokenize_chinese_chars").unwrap_or(true),
                "strip_accents": config.flag("strip_accents"),
                "lowercase": config.flag("do_lower_case").unwrap_or(true),
            }),
            Self::XlmRoberta => precompiled(tokenizer),
            Self::Qwen2 => json!({"type": "NFC"}),
            Self::DebertaV2 => {
                let mut steps = vec![
                    json!({"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "}),
                    json!({"type": "NFC"}),
                    json!({"type": "Strip", "strip_left": false, "strip_right": true}),
                ];
                if config.flag("do_lower_case").unwrap_or(false) {
                    steps.insert(0, json!({"type": "Lowercase"}));
                }
                json!({"type": "Sequence", "normalizers": steps})
            }
            Self::AsIs | Self::Roberta | Self::Gpt2 | Self::Llama => Value::Null,
        }
    }

    fn pre_tokenizer(self, config: &TokenizerConfig) -> Value {
        let prefix_space = config.flag("add_prefix_space");
        match self {
            Self::AsIs => Value::Null,
            Self::Bert | Self::DistilBert => json!({"type": "BertPreTokenizer"}),
            Self::Roberta | Self::Gpt2 => byte_level(prefix_space.unwrap_or(false), true),
            Self::XlmRoberta => {
                let scheme = if prefix_space.unwrap_or(true) { "always" } else { "never" };
                json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace(scheme, true)]})
            }
            Self::Qwen2 => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": QWEN2_SPLIT}, "behavior": "Isolated", "invert": false},
                byte_level(prefix_space.unwrap_or(false), false),
            ]}),
            Self::Llama => metaspace(llama_scheme(prefix_space, config.flag("legacy")), false),
            Self::DebertaV2 => {
                let scheme = if prefix_space.unwrap_or(true) { "always" } else { "first" };
                let mut steps = vec![metaspace(scheme, true)];
                if config.flag("split_by_punct").unwrap_or(false) {
                    steps.insert(0, json!({"type": "Punctuation", "behavior": "Isolated"}));
                }
                json!({"type": "Sequence", "pretokenizers": steps})
            }
        }
    }

    /// Replaces the post-processor where the class brings its own; its special tokens must exist by now.
    fn post_process(
        self,
        path: &Path,
        tokenizer: &mut Tokenizer,
        special_tokens: &BTreeMap<String, AddedToken>,
    ) -> Result<(), TextError> {
        let token = |name: &'static str| {
            let content = special_tokens.get(name).map(|token| token.content.clone());
            let found = content.and_then(|content| tokenizer.token_to_id(&content).map(|id| (content, id)));
            found.ok_or_else(|| self.mismatch(path, "needs its separator tokens", format!("no {name}")))
        };
        let processor: PostProcessorWrapper = match self {
            Self::AsIs | Self::Gpt2 | Self::Qwen2 | Self::Llama => return Ok(()),
            Self::Roberta => RobertaProcessing::new(token("sep_token")?, token("cls_token")?).into(),
            Self::Bert | Self::DistilBert | Self::DebertaV2 => {
                let (cls, sep) = (token("cls_token")?, token("sep_token")?);
                let pair = [&cls.0, "$A:0", &sep.0, "$B:1", &format!("{}:1", sep.0)].map(str::to_owned);
                template(path, &[&cls.0, "$A:0", &sep.0].map(str::to_owned), &pair, vec![cls, sep])?
            }
            Self::XlmRoberta => {
                let (bos, eos) = (token("bos_token")?, token("eos_token")?);
                let single = [&bos.0, "$A", &eos.0].map(str::to_owned);
                let pair = [&bos.0, "$A", &eos.0, &eos.0, "$B", &eos.0].map(str::to_owned);
                template(path, &single, &pair, vec![bos, eos])?
            }
        };
        tokenizer.with_post_processor(Some(processor));
        Ok(())
    }

    fn mismatch(self, path: &Path, expected: &'static str, found: impl Into<String>) -> TextError {
        TextError::ClassMismatch { path: path.into(), class: self.name(), expected, found: found.into() }
    }
}

/// `TOKENIZER_MAPPING_NAMES` of transformers for the model types whose class is known here.
fn registered_class(model_type: &str) -> &'static str {
    match model_type {
        "bert" | "convbert" | "distilbert" | "electra" | "ernie" | "layoutlm" | "megatron-bert" | "nezha"
        | "nomic_bert" | "qdqbert" | "realm" | "retribert" | "squeezebert" => "BertTokenizer",
        "bart" | "data2vec-text" | "ibert" | "longformer" | "mega" | "mra" | "roberta" | "roberta-prelayernorm" => {
            "RobertaTokenizer"
        }
        "gte" | "jina_embeddings_v3" | "xlm-roberta" | "xmod" => "XLMRobertaTokenizer",
        "codegen" | "dbrx" | "gpt2" | "gpt_neo" | "gptj" | "opt" | "phi" | "starcoder2" => "GPT2Tokenizer",
        "qwen2" | "qwen2_moe" | "qwen3" | "qwen3_moe" | "qwen3_next" => "Qwen2Tokenizer",
        "deberta-v2" => "DebertaV2Tokenizer",
        "ernie4_5" | "ernie4_5_moe" | "flex_olmo" | "glm" | "glm4" | "glm4_moe" | "gpt_bigcode" | "granite"
        | "granitemoe" | "granitemoehybrid" | "internlm2" | "internlm3" | "jamba" | "minicpm3" | "ministral"
        | "ministral3" | "mistral" | "mistral3" | "mixtral" | "modernbert" | "modernbert-decoder" | "nemotron"
        | "nystromformer" | "olmo2" | "olmo3" | "persimmon" | "phi3" | "phimoe" | "smolvlm" | "stablelm" | "umt5"
        | "xlm-roberta-xl" => "TokenizersBackend",
        _ => "",
    }
}

/// Tokens outside the model's vocabulary, in the order in which transformers adds them.
fn added_tokens(
    config: &TokenizerConfig,
    tokenizer: &Tokenizer,
    special_tokens: &BTreeMap<String, AddedToken>,
) -> Vec<AddedToken> {
    let mut by_id = config.added_tokens.clone();
    if !config.lists_added_tokens {
        by_id.extend(tokenizer.get_added_tokens_decoder());
    }
    let mut added: Vec<AddedToken> = by_id.into_values().collect();
    let own = special_tokens.iter().filter(|(name, _)| !NAMED_TOKENS.contains(&name.as_str())).map(|(_, token)| token);
    let named = NAMED_TOKENS.iter().filter_map(|name| special_tokens.get(*name)).chain(own).cloned();
    for token in named.chain(config.nameless_tokens()) {
        if !added.iter().any(|present| present.content == token.content) {
            added.push(token.special(true));
        }
    }
    added
}

/// Llama and its descendants share a class name; those with a byte-level vocabulary are not meant by it.
fn is_byte_level(tokenizer: &Tokenizer) -> bool {
    let sections = [json(tokenizer.get_pre_tokenizer()), json(tokenizer.get_decoder())];
    sections.iter().any(|section| section.to_string().contains("\"ByteLevel\""))
}

fn llama_scheme(prefix_space: Option<bool>, legacy: Option<bool>) -> &'static str {
    match (prefix_space.unwrap_or(true), legacy.unwrap_or(false)) {
        (false, _) => "never",
        (true, true) => "always",
        (true, false) => "first",
    }
}

fn byte_level(add_prefix_space: bool, use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": use_regex})
}

fn metaspace(prepend_scheme: &str, split: bool) -> Value {
    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": prepend_scheme, "split": split})
}

/// SentencePiece's own normalization table, alone or as a step: all that XLM-R's class keeps of a normalizer.
fn precompiled(tokenizer: &Tokenizer) -> Value {
    let normalizer = json(tokenizer.get_normalizer());
    let steps = match normalizer.get("normalizers").and_then(Value::as_array) {
        Some(steps) => steps.clone(),
        None => vec![normalizer],
    };
    steps.into_iter().find(|step| step["type"] == "Precompiled").unwrap_or_default()
}

fn section<S: DeserializeOwned>(path: &Path, json: Value) -> Result<Option<S>, TextError> {
    serde_json::from_value(json).map_err(|error| malformed(path, "a section of tokenizer.json", &error))
}

fn template(
    path: &Path,
    single: &[String],
    pair: &[String],
    special_tokens: Vec<(String, u32)>,
) -> Result<PostProcessorWrapper, TextError> {
    let mut builder = TemplateProcessing::builder();
    builder
        .try_single(single.to_vec())
        .and_then(|builder| builder.try_pair(pair.to_vec()))
        .map_err(|error| malformed(path, "separator tokens", &error))?;
    let built = builder.special_tokens(special_tokens).build();
    built.map(Into::into).map_err(|error| malformed(path, "separator tokens", &error))
}

fn kind(model: &ModelWrapper) -> &'static str {
    match model {
        ModelWrapper::BPE(_) => "a BPE model",
        ModelWrapper::WordPiece(_) => "a WordPiece model",
        ModelWrapper::WordLevel(_) => "a WordLevel model",
        ModelWrapper::Unigram(_) => "a Unigram model",
    }
}

/// The sections of a tokenizer that a class may replace, for telling what it changed.
struct Sections([(&'static str, Value); 3]);

impl Sections {
    fn of(tokenizer: &Tokenizer) -> Self {
        Self([
            ("normalizer", json(tokenizer.get_normalizer())),
            ("pre_tokenizer", json(tokenizer.get_pre_tokenizer())),
            ("post_processor", json(tokenizer.get_post_processor())),
        ])
    }

    fn differences(&self, declared: &Self, class: &str) -> Vec<String> {
        let pairs = self.0.iter().zip(&declared.0);
        let changed = pairs.filter(|(now, then)| now != then).map(|((name, _), _)| name);
        let note =
            |name| format!("tokenizer_class {class} replaces the {name} of tokenizer.json, in transformers 5 as here");
        changed.map(note).collect()
    }
}

/// A section in the words of `tokenizer.json`.
fn json(section: Option<&impl Serialize>) -> Value {
    serde_json::to_value(section).unwrap_or_default()
}
