//! Which tokenizer class transformers would use for a directory.
//!
//! transformers 5 does not always take `tokenizer.json` at its word. Its generic class does. But a class such as
//! `BertTokenizer` keeps only the vocabulary, and puts a normalizer, a pre-tokenizer and a post-processor of its own
//! around it, with the settings of `tokenizer_config.json`: a checkpoint whose `tokenizer.json` lowercases and whose
//! config says `do_lower_case: false` is cased there. A judge must get the same ids in both programs, so the same
//! choice is made here, and the same replacements in `rebuild`. Checked against transformers 5.23 by the goldens.

use serde_json::Value;
use tokenizers::Tokenizer;

use super::tokenizer_config::TokenizerConfig;

/// The classes of transformers that matter to the model families here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenizerClass {
    /// `TokenizersBackend`, formerly `PreTrainedTokenizerFast`: `tokenizer.json` as it is.
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

const GENERIC: &str = "TokenizersBackend";

/// Names of the classes, without `Fast`; the first name of a class is what messages call it.
const NAMES: [(&str, TokenizerClass); 13] = [
    (GENERIC, TokenizerClass::AsIs),
    ("", TokenizerClass::AsIs),
    ("PreTrainedTokenizer", TokenizerClass::AsIs),
    ("PythonBackend", TokenizerClass::AsIs),
    ("BloomTokenizer", TokenizerClass::AsIs),
    ("BertTokenizer", TokenizerClass::Bert),
    ("DistilBertTokenizer", TokenizerClass::DistilBert),
    ("RobertaTokenizer", TokenizerClass::Roberta),
    ("XLMRobertaTokenizer", TokenizerClass::XlmRoberta),
    ("GPT2Tokenizer", TokenizerClass::Gpt2),
    ("Qwen2Tokenizer", TokenizerClass::Qwen2),
    ("LlamaTokenizer", TokenizerClass::Llama),
    ("DebertaV2Tokenizer", TokenizerClass::DebertaV2),
];

const BERT_TOKENS: &[(&str, &str)] = &[
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];
const DEBERTA_TOKENS: &[(&str, &str)] = &[
    ("bos_token", "[CLS]"),
    ("eos_token", "[SEP]"),
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];
const ROBERTA_TOKENS: &[(&str, &str)] = &[
    ("bos_token", "<s>"),
    ("eos_token", "</s>"),
    ("unk_token", "<unk>"),
    ("sep_token", "</s>"),
    ("pad_token", "<pad>"),
    ("cls_token", "<s>"),
    ("mask_token", "<mask>"),
];
const LLAMA_TOKENS: &[(&str, &str)] = &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")];
const GPT2_TOKENS: &[(&str, &str)] =
    &[("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>")];
const QWEN2_TOKENS: &[(&str, &str)] =
    &[("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>"), ("pad_token", "<|endoftext|>")];

impl TokenizerClass {
    /// The class that `AutoTokenizer` would use.
    pub(super) fn choose(config: &TokenizerConfig, tokenizer: &Tokenizer) -> Self {
        Self::by_name(class_name(config, tokenizer)).unwrap_or(Self::AsIs)
    }

    /// The name of a class that transformers may have and that is not known here.
    pub(super) fn unknown<'a>(config: &'a TokenizerConfig, tokenizer: &Tokenizer) -> Option<&'a str> {
        let name = class_name(config, tokenizer);
        Self::by_name(name).is_none().then_some(name)
    }

    fn by_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, class)| *class)
    }

    /// What transformers calls it.
    pub(super) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, class)| *class == self).map_or(GENERIC, |(name, _)| name)
    }

    /// A special token of the class, for when the files name none.
    pub(super) fn default_token(self, name: &str) -> Option<&'static str> {
        let tokens = match self {
            Self::AsIs => return None,
            Self::Bert | Self::DistilBert => BERT_TOKENS,
            Self::DebertaV2 => DEBERTA_TOKENS,
            Self::Roberta | Self::XlmRoberta => ROBERTA_TOKENS,
            Self::Llama => LLAMA_TOKENS,
            Self::Gpt2 => GPT2_TOKENS,
            Self::Qwen2 => QWEN2_TOKENS,
        };
        tokens.iter().find(|(known, _)| *known == name).map(|(_, token)| *token)
    }

    /// Whether transformers hands type ids to the model, unless the config says otherwise.
    pub(super) fn has_type_ids(self) -> bool {
        matches!(self, Self::Bert | Self::DebertaV2)
    }
}

/// The rules of `AutoTokenizer.from_pretrained`.
fn class_name<'a>(config: &'a TokenizerConfig, tokenizer: &Tokenizer) -> &'a str {
    let registered = config.model_type.as_deref().map_or("", registered_class);
    let declared = config.declared_class.as_deref().map(|name| name.strip_suffix("Fast").unwrap_or(name));
    match declared {
        // Llama and its descendants share a class name; those with a byte-level vocabulary are not meant by it.
        Some("LlamaTokenizer") if is_byte_level(tokenizer) => GENERIC,
        Some(_) if registered == GENERIC => registered,
        // A model type whose published configs are known to name the wrong class.
        Some(_) if config.model_type.as_deref() == Some("qwen2") => registered,
        Some(declared) => declared,
        None => registered,
    }
}

/// `TOKENIZER_MAPPING_NAMES` of transformers, for the model types whose class is known here.
fn registered_class(model_type: &str) -> &'static str {
    match model_type {
        "bert" | "convbert" | "distilbert" | "electra" | "ernie" | "layoutlm" | "megatron-bert" | "nezha"
        | "nomic_bert" | "squeezebert" => "BertTokenizer",
        "bart" | "data2vec-text" | "ibert" | "longformer" | "mra" | "roberta" | "roberta-prelayernorm" => {
            "RobertaTokenizer"
        }
        "gte" | "jina_embeddings_v3" | "xlm-roberta" | "xmod" => "XLMRobertaTokenizer",
        "codegen" | "dbrx" | "gpt2" | "gpt_neo" | "gptj" | "opt" | "phi" | "starcoder2" => "GPT2Tokenizer",
        "qwen2" | "qwen2_moe" | "qwen3" | "qwen3_moe" | "qwen3_next" => "Qwen2Tokenizer",
        "deberta-v2" => "DebertaV2Tokenizer",
        "ernie4_5" | "glm" | "glm4" | "gpt_bigcode" | "granite" | "granitemoe" | "internlm2" | "internlm3"
        | "jamba" | "minicpm3" | "ministral" | "ministral3" | "mistral" | "mistral3" | "mixtral" | "modernbert"
        | "modernbert-decoder" | "nemotron" | "nystromformer" | "olmo2" | "olmo3" | "persimmon" | "phi3" | "phimoe"
        | "stablelm" | "xlm-roberta-xl" => GENERIC,
        _ => "",
    }
}

fn is_byte_level(tokenizer: &Tokenizer) -> bool {
    let pre_tokenizer = serde_json::to_value(tokenizer.get_pre_tokenizer());
    let decoder = serde_json::to_value(tokenizer.get_decoder());
    [pre_tokenizer, decoder].into_iter().flatten().any(|section: Value| section.to_string().contains("\"ByteLevel\""))
}
