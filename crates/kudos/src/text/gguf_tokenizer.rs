//! From the vocabulary inside a GGUF file to a tokenizer.
//!
//! The file has a list of tokens, what kind each is, and either merges (byte-level BPE, `gpt2`) or scores
//! (SentencePiece, `llama`); how text is split before merging it only names (`pre`). The names are llama.cpp's, and
//! so is what they stand for: a name that is not known here is refused, because a wrong split makes wrong ids that
//! nobody would notice.
//!
//! SentencePiece merges the two neighbours whose union has the best score. The same is said here with merges in the
//! order of their union's score, which a BPE model takes. Spaces become `▁`, one is put before the text and after each
//! special token, and characters that no token has become byte tokens: as llama.cpp does, and as Llama's first
//! tokenizer did; transformers' present one puts a space before the text alone.
//!
//! It must not know files: [`GgufVocabulary`] is filled by `models::gguf`.

use super::TextError;
use super::ends::Mark;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer};

/// What a GGUF file says about its tokenizer, under its `tokenizer.ggml.` keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocabulary {
    /// The file, for messages.
    pub origin: PathBuf,
    /// `model`: `gpt2` or `llama`.
    pub model: String,
    /// `pre`: how text is split; only for `gpt2`.
    pub pre: Option<String>,
    /// `tokens`, by id.
    pub tokens: Vec<String>,
    /// `scores`, by id; only for `llama`.
    pub scores: Vec<f32>,
    /// `token_type`, by id: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. Empty: all normal.
    pub token_types: Vec<u32>,
    /// `merges`, best first, two tokens with a space between; only for `gpt2`.
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `eot_token_id`: ends a turn where that is another token than the text's end.
    pub end_of_turn: Option<u32>,
    /// `eom_token_id`: ends a message that another one of the same turn follows.
    pub end_of_message: Option<u32>,
    /// `unknown_token_id`.
    pub unknown: Option<u32>,
    /// `padding_token_id`.
    pub padding: Option<u32>,
    /// `add_bos_token`; a default for each kind of vocabulary if absent.
    pub add_bos: Option<bool>,
    /// `add_eos_token`; no if absent.
    pub add_eos: Option<bool>,
    /// `add_space_prefix`, for `llama`; yes if absent.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

const UNKNOWN: u32 = 2;
const CONTROL: u32 = 3;
const USER_DEFINED: u32 = 4;
const BYTE: u32 = 6;

/// Longest token in bytes. Finding merges takes time in the square of it; real ones have at most a few hundred.
const TOKEN_LIMIT: usize = 1024;

/// How text is split before it is merged.
struct Split {
    /// What files call it.
    names: &'static [&'static str],
    /// Applied one after the other, each to the pieces of those before it.
    patterns: &'static [&'static str],
    /// Whether text is composed first (NFC), as the models' own tokenizers do.
    compose: bool,
    /// Whether a piece that is a token is taken whole, without merging.
    whole_tokens: bool,
    /// Whether the text begins with the beginning-of-text token where the file does not say.
    add_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const PLAIN: Split = Split { names: &[], patterns: &[], compose: false, whole_tokens: false, add_bos: false };

const SPLITS: [Split; 7] = [
    Split { names: &["default"], patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], ..PLAIN },
    Split { names: &["gpt-2", "phi-2", "olmo", "mpt", "jais"], patterns: &[GPT2], ..PLAIN },
    Split {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        patterns: &[r"\p{N}", GPT2],
        ..PLAIN
    },
    Split {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"],
        patterns: &[LLAMA3],
        whole_tokens: true,
        add_bos: true,
        ..PLAIN
    },
    Split { names: &["dbrx", "smaug-bpe"], patterns: &[LLAMA3], ..PLAIN },
    Split { names: &["qwen2"], patterns: &[super::rebuild::QWEN2_SPLIT], compose: true, ..PLAIN },
    Split { names: &["deepseek-r1-qwen", "megrez"], patterns: &[super::rebuild::QWEN2_SPLIT], ..PLAIN },
];

/// The tokenizer of a vocabulary.
pub(super) fn build(vocabulary: &GgufVocabulary) -> Result<Tokenizer, TextError> {
    vocabulary.check()?;
    let (mut tokenizer, add_bos) = match vocabulary.model.as_str() {
        "gpt2" => byte_level(vocabulary)?,
        "llama" => (sentence_piece(vocabulary)?, true),
        _ => return Err(vocabulary.unsupported("tokenizer.ggml.model", &vocabulary.model, "gpt2, llama".into())),
    };
    let added = vocabulary.added_tokens();
    tokenizer.add_tokens(added).map_err(|error| vocabulary.bad("tokens", error))?;
    let add_bos = vocabulary.add_bos.unwrap_or(add_bos);
    tokenizer.with_post_processor(post_processor(vocabulary, add_bos)?);
    Ok(tokenizer)
}

impl GgufVocabulary {
    fn bad(&self, expected: &'static str, found: impl std::fmt::Display) -> TextError {
        TextError::Malformed { path: self.origin.clone(), expected, found: found.to_string() }
    }

    fn unsupported(&self, key: &'static str, found: &str, known: String) -> TextError {
        TextError::Unsupported { path: self.origin.clone(), key, found: found.into(), known }
    }

    fn check(&self) -> Result<(), TextError> {
        let tokens = self.tokens.len();
        if tokens == 0 || u32::try_from(tokens).is_err() {
            return Err(self.bad("a list of tokens", format!("{tokens} of them")));
        }
        if ![0, tokens].contains(&self.token_types.len()) {
            return Err(self.bad("one token_type for each token", self.token_types.len()));
        }
        if let Some(id) = self.named().find(|id| *id as usize >= tokens) {
            return Err(self.bad("special tokens of the list", format!("id {id} of {tokens} tokens")));
        }
        if let Some(long) = self.tokens.iter().find(|token| token.len() > TOKEN_LIMIT) {
            return Err(self.bad("tokens of at most 1024 bytes", format!("one of {} bytes", long.len())));
        }
        Ok(())
    }

    /// Ids that a setting names.
    fn named(&self) -> impl Iterator<Item = u32> {
        let ends = [self.eos, self.end_of_turn, self.end_of_message];
        [self.bos, self.unknown, self.padding].into_iter().chain(ends).flatten()
    }

    /// The tokens that are set apart from text.
    pub(super) fn marked(&self) -> impl Iterator<Item = (u32, &str, Mark)> {
        (0..).zip(&self.tokens).filter_map(|(id, token)| match self.kind(id as usize) {
            CONTROL => Some((id, token.as_str(), Mark::Control)),
            USER_DEFINED => Some((id, token.as_str(), Mark::Added)),
            _ => None,
        })
    }

    /// The special tokens that transformers has names for, as far as a setting gives them.
    pub(super) fn named_tokens(&self) -> impl Iterator<Item = (&'static str, String)> {
        let named = [
            ("bos_token", self.bos),
            ("eos_token", self.eos),
            ("unk_token", self.unknown),
            ("pad_token", self.padding),
        ];
        named.into_iter().filter_map(|(name, id)| Some((name, self.token(id?))))
    }

    /// What the file leaves open, and what is done about it: one line each.
    pub(super) fn notes(&self) -> Vec<String> {
        let origin = self.origin.display();
        let mut notes = Vec::new();
        let unsplit = match self.pre.as_deref() {
            None => Some("is missing"),
            Some("default") => Some("is `default`"),
            Some(_) => None,
        };
        if let Some(found) = unsplit.filter(|_| self.model == "gpt2") {
            notes.push(format!(
                "{origin}: `tokenizer.ggml.pre` {found}, so text is split by llama.cpp's default rule; the model may \
                 have learnt other ids and write worse; convert the model again with a present llama.cpp"
            ));
        }
        if self.token_types.is_empty() {
            notes.push(format!(
                "{origin}: `tokenizer.ggml.token_type` is missing, so only the tokens that a setting names are \
                 special; a chat template's marks become plain text; convert the model again"
            ));
        }
        notes
    }

    fn kind(&self, id: usize) -> u32 {
        self.token_types.get(id).copied().unwrap_or(1)
    }

    /// The text of a token. A user-defined one is looked for in text as it is written, with plain spaces.
    pub(super) fn token(&self, id: u32) -> String {
        let token = &self.tokens[id as usize];
        let is_piece = self.model == "llama" && self.kind(id as usize) == USER_DEFINED;
        if is_piece { token.replace('▁', " ") } else { token.clone() }
    }

    /// Ids by text.
    fn by_text(&self) -> Result<Vocab, TextError> {
        let mut ids = Vocab::default();
        for id in 0..self.tokens.len() as u32 {
            let token = self.token(id);
            if let Some(other) = ids.insert(token, id) {
                return Err(self.bad("tokens that differ", format!("{:?} as {other} and {id}", self.token(id))));
            }
        }
        Ok(ids)
    }

    /// Tokens that are found in text before anything is split or merged.
    fn added_tokens(&self) -> Vec<AddedToken> {
        let named: HashSet<u32> = self.named().collect();
        let added = |id: u32| {
            let special = match self.kind(id as usize) {
                UNKNOWN | CONTROL => true,
                USER_DEFINED => named.contains(&id),
                _ if named.contains(&id) => true,
                _ => return None,
            };
            Some(AddedToken::from(self.token(id), special).normalized(false))
        };
        (0..self.tokens.len() as u32).filter_map(added).collect()
    }
}

/// A section of a tokenizer, in the words of `tokenizer.json`.
fn section<S: DeserializeOwned>(vocabulary: &GgufVocabulary, json: Value) -> Result<Option<S>, TextError> {
    serde_json::from_value(json).map(Some).map_err(|error| vocabulary.bad("a section of a tokenizer", error))
}

/// Byte-level BPE, and whether its texts begin with a special token by default.
fn byte_level(vocabulary: &GgufVocabulary) -> Result<(Tokenizer, bool), TextError> {
    let name = vocabulary.pre.as_deref().unwrap_or("default");
    let known = || SPLITS.iter().flat_map(|split| split.names).copied().collect::<Vec<_>>().join(", ");
    let split = SPLITS.iter().find(|split| split.names.contains(&name));
    let split = split.ok_or_else(|| vocabulary.unsupported("tokenizer.ggml.pre", name, known()))?;
    let model = BPE::builder().vocab_and_merges(vocabulary.by_text()?, written_merges(vocabulary)?);
    let model = model.ignore_merges(split.whole_tokens).build().map_err(|error| vocabulary.bad("merges", error))?;
    let mut tokenizer = Tokenizer::new(model);
    if split.compose {
        let normalizer: Option<NormalizerWrapper> = section(vocabulary, json!({"type": "NFC"}))?;
        tokenizer.with_normalizer(normalizer).map_err(|error| vocabulary.bad("a normalizer", error))?;
    }
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let pattern = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let steps: Vec<Value> = split.patterns.iter().map(pattern).chain([byte_level.clone()]).collect();
    let pre_tokenizer = json!({"type": "Sequence", "pretokenizers": steps});
    tokenizer.with_pre_tokenizer(section::<PreTokenizerWrapper>(vocabulary, pre_tokenizer)?);
    tokenizer.with_decoder(section::<DecoderWrapper>(vocabulary, byte_level)?);
    Ok((tokenizer, split.add_bos))
}

fn written_merges(vocabulary: &GgufVocabulary) -> Result<Merges, TextError> {
    let pair = |merge: &String| {
        // A token may be a space itself, so the one that separates is looked for after the first character.
        let first = merge.chars().next().map_or(0, char::len_utf8);
        let space = merge[first..].find(' ').map(|at| at + first);
        let pair = space.map(|at| (merge[..at].to_owned(), merge[at + 1..].to_owned()));
        pair.ok_or_else(|| vocabulary.bad("merges of two tokens with a space between", format!("{merge:?}")))
    };
    vocabulary.merges.iter().map(pair).collect()
}

fn sentence_piece(vocabulary: &GgufVocabulary) -> Result<Tokenizer, TextError> {
    if vocabulary.scores.len() != vocabulary.tokens.len() {
        return Err(vocabulary.bad("one score for each token", vocabulary.scores.len()));
    }
    let mut model = BPE::builder().vocab_and_merges(vocabulary.by_text()?, scored_merges(vocabulary));
    if let Some(unknown) = vocabulary.unknown {
        model = model.unk_token(vocabulary.token(unknown));
    }
    let model = model.fuse_unk(true).byte_fallback(true).build().map_err(|error| vocabulary.bad("tokens", error))?;
    let mut tokenizer = Tokenizer::new(model);
    let prefix = vocabulary.add_space_prefix.unwrap_or(true);
    let prepend = prefix.then(|| json!({"type": "Prepend", "prepend": "▁"}));
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let steps: Vec<Value> = prepend.into_iter().chain([spaces]).collect();
    let normalizer: Option<NormalizerWrapper> = section(vocabulary, json!({"type": "Sequence", "normalizers": steps}))?;
    tokenizer.with_normalizer(normalizer).map_err(|error| vocabulary.bad("a normalizer", error))?;
    let strip = prefix.then(|| json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    let steps = [
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    let steps: Vec<Value> = steps.into_iter().chain(strip).collect();
    let decoder = json!({"type": "Sequence", "decoders": steps});
    tokenizer.with_decoder(section::<DecoderWrapper>(vocabulary, decoder)?);
    Ok(tokenizer)
}

/// Every way to put a token together from two others, the best-scored token first and the longer left part first.
fn scored_merges(vocabulary: &GgufVocabulary) -> Merges {
    let pieces = vocabulary.tokens.iter().enumerate().filter(|(id, token)| {
        !token.is_empty() && ![UNKNOWN, CONTROL, USER_DEFINED, BYTE].contains(&vocabulary.kind(*id))
    });
    let pieces: HashMap<&str, usize> = pieces.map(|(id, token)| (token.as_str(), id)).collect();
    let mut merges = Vec::new();
    for (token, id) in &pieces {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if pieces.contains_key(left) && pieces.contains_key(right) {
                merges.push((*id, left, right));
            }
        }
    }
    let score = |id: usize| vocabulary.scores[id];
    merges.sort_unstable_by(|(a, a_left, _), (b, b_left, _)| {
        score(*b).total_cmp(&score(*a)).then(a.cmp(b)).then(b_left.len().cmp(&a_left.len()))
    });
    merges.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect()
}

/// Special tokens around the text; `None` if there are none.
fn post_processor(vocabulary: &GgufVocabulary, add_bos: bool) -> Result<Option<PostProcessorWrapper>, TextError> {
    let named = [("bos", add_bos, vocabulary.bos), ("eos", vocabulary.add_eos.unwrap_or(false), vocabulary.eos)];
    let mut tokens = serde_json::Map::new();
    for (name, wanted, id) in named {
        match id {
            _ if !wanted => {}
            Some(id) => {
                tokens.insert(name.into(), json!({"id": name, "ids": [id], "tokens": [vocabulary.token(id)]}));
            }
            None => {
                return Err(vocabulary.bad("ids of the special tokens that are added to texts", format!("no {name}")));
            }
        }
    }
    if tokens.is_empty() {
        return Ok(None);
    }
    let special = |name| tokens.contains_key(name).then(|| json!({"SpecialToken": {"id": name, "type_id": 0}}));
    let around = |text: &str| {
        let text = json!({"Sequence": {"id": text, "type_id": 0}});
        special("bos").into_iter().chain([text]).chain(special("eos")).collect::<Vec<_>>()
    };
    let (single, pair) = (around("A"), [around("A"), around("B")].concat());
    section(vocabulary, json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The characters that stand for bytes: letters, space and newline are enough here.
    pub(in super::super) fn bytes() -> GgufVocabulary {
        let tokens = ["<end>", "<turn>", "a", "b", "Ġ", "Ċ", "1", "2", "ab", "Ġab", "12", "Ã", "©", "<tool>"];
        GgufVocabulary {
            origin: "model.gguf".into(),
            model: "gpt2".into(),
            pre: Some("gpt-2".into()),
            tokens: tokens.map(str::to_owned).to_vec(),
            token_types: vec![3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4],
            merges: ["a b", "Ġ ab", "1 2"].map(str::to_owned).to_vec(),
            bos: Some(0),
            eos: Some(0),
            ..GgufVocabulary::default()
        }
    }

    pub(in super::super) fn pieces() -> GgufVocabulary {
        let tokens = ["<unk>", "<s>", "</s>", "<0x0A>", "<0xC3>", "<0xA9>", "▁", "a", "b", "ab", "▁a", "▁ab", "▁▁"];
        GgufVocabulary {
            origin: "model.gguf".into(),
            model: "llama".into(),
            tokens: tokens.map(str::to_owned).to_vec(),
            scores: vec![0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -9.0, -8.0, -7.0, -2.0, -1.0, -3.0, 0.0],
            token_types: vec![2, 3, 3, 6, 6, 6, 1, 1, 1, 1, 1, 1, 4],
            unknown: Some(0),
            bos: Some(1),
            eos: Some(2),
            ..GgufVocabulary::default()
        }
    }

    fn ids(vocabulary: &GgufVocabulary, text: &str) -> Vec<u32> {
        build(vocabulary).unwrap().encode_fast(text, true).unwrap().get_ids().to_vec()
    }

    fn refused(vocabulary: &GgufVocabulary) -> String {
        build(vocabulary).unwrap_err().to_string()
    }

    #[test]
    fn bytes_are_merged_within_the_split() {
        let cases: [(&str, &str, &[u32]); 7] = [
            ("gpt-2", "ab ab12", &[8, 9, 10]),
            ("smollm", "ab 12", &[8, 4, 6, 7]),
            ("llama-bpe", "12ab", &[0, 10, 8]),
            ("qwen2", "12ab\n", &[6, 7, 8, 5]),
            ("qwen2", "e\u{301}", &[11, 12]),
            ("gpt-2", "a<turn><tool>b", &[2, 1, 13, 3]),
            ("default", "ab\n", &[8, 5]),
        ];
        for (pre, text, expected) in cases {
            let vocabulary = GgufVocabulary { pre: Some(pre.into()), ..bytes() };
            assert_eq!(ids(&vocabulary, text), expected, "{pre} {text:?}");
        }
    }

    #[test]
    fn pieces_are_merged_by_score() {
        // ▁a before ab, although ▁ab is a token: its own score is lower, but ▁a + b still makes it.
        assert_eq!(ids(&pieces(), "ab"), [1, 11]);
        assert_eq!(ids(&pieces(), "bab"), [1, 6, 8, 9]);
        assert_eq!(ids(&pieces(), "é\n"), [1, 6, 4, 5, 3]);
        assert_eq!(ids(&pieces(), "x"), [1, 6, 0]);
        assert_eq!(ids(&pieces(), "b  b</s>a"), [1, 6, 8, 12, 6, 8, 2, 10]);
        let plain = GgufVocabulary { add_space_prefix: Some(false), add_bos: Some(false), ..pieces() };
        assert_eq!(ids(&plain, "ab ab"), [9, 11]);
        let ended = GgufVocabulary { add_eos: Some(true), ..pieces() };
        assert_eq!(ids(&ended, "ab"), [1, 11, 2]);
    }

    #[test]
    fn decoding_gives_the_text_back() {
        for (vocabulary, text) in [(bytes(), "ab 12\né"), (pieces(), "ab bé\n b"), (pieces(), " a")] {
            let tokenizer = build(&vocabulary).unwrap();
            let ids = tokenizer.encode_fast(text, true).unwrap().get_ids().to_vec();
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
        }
    }

    #[test]
    fn vocabularies_that_make_no_sense_are_refused() {
        type Damage = fn(&mut GgufVocabulary);
        let cases: [(Damage, &str); 11] = [
            (|v| v.model = "bert".into(), "tokenizer.ggml.model \"bert\"; known are: gpt2, llama"),
            (|v| v.pre = Some("mystery".into()), "known are: default, gpt-2, phi-2"),
            (|v| v.tokens.clear(), "a list of tokens"),
            (|v| v.token_types.truncate(3), "one token_type"),
            (|v| v.eos = Some(99), "id 99 of 14 tokens"),
            (|v| v.tokens[3] = "a".into(), "\"a\" as 2 and 3"),
            (|v| v.merges[0] = "ab".into(), "a space between"),
            (|v| v.merges[0] = "a x".into(), "merges"),
            (|v| (v.bos, v.add_bos) = (None, Some(true)), "no bos"),
            (|v| v.tokens[2] = "a".repeat(2000), "2000 bytes"),
            (|v| v.model = "llama".into(), "one score"),
        ];
        for (damage, expected) in cases {
            let mut vocabulary = bytes();
            damage(&mut vocabulary);
            let message = refused(&vocabulary);
            assert!(message.starts_with("model.gguf") && message.contains(expected), "{expected}: {message}");
        }
    }

    proptest! {
        #[test]
        fn any_vocabulary_is_built_or_refused(
            tokens in proptest::collection::vec("[ab▁ Ġ<>0-9A-Fx]{0,4}", 0..30),
            types in proptest::collection::vec(0u32..8, 0..30),
            merges in proptest::collection::vec("[ab▁Ġ]{1,2} [ab▁Ġ]{1,2}", 0..4),
            ids in proptest::array::uniform5(proptest::option::of(0u32..40)),
            pieces in any::<bool>(),
            text in "\\PC{0,20}",
        ) {
            let vocabulary = GgufVocabulary {
                model: if pieces { "llama" } else { "gpt2" }.into(),
                scores: (0..tokens.len()).map(|id| -(id as f32 % 5.0)).collect(),
                token_types: types, merges, tokens,
                bos: ids[0], eos: ids[1], end_of_turn: ids[2], unknown: ids[3], padding: ids[4],
                add_eos: Some(ids[1].is_some()),
                ..GgufVocabulary::default()
            };
            let Ok(tokenizer) = build(&vocabulary) else { return Ok(()) };
            if let Ok(encoding) = tokenizer.encode_fast(text.as_str(), true) {
                prop_assert!(encoding.get_ids().iter().all(|id| (*id as usize) < vocabulary.tokens.len()));
                let _ = tokenizer.decode(encoding.get_ids(), false);
            }
        }
    }
}
