//! [`Encoder`]: from (prompt, response) to ids, within the token limit.
//!
//! Each sequence is tokenised whole and without special tokens, cut, and only then given its special
//! tokens, as the engine of transformers does; doing the steps apart is what lets `keep_response` exist
//! and lets a caller know how many tokens were lost. Nothing is ever padded.

mod conversations;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tokenizers::models::bpe::BPE;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{
    DecoderWrapper, Encoding, NormalizerWrapper, PostProcessor, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
    TokenizerImpl, TruncationDirection, TruncationParams, TruncationStrategy, decoders, truncate_encodings,
};

use super::chat::{ChatTemplate, Conversation};
use super::control::{Masked, texts};
use super::dates::Day;
use super::max_length::{TOKENIZER_CONFIG, with_max_length};
use super::pooled::pad_for_judge;
use super::rebuild::{Rebuilt, rebuild};
use super::render::{self, Rendered};
use super::splitter::Splitter;
use super::tokenizer_class::TokenizerClass;
use super::tokenizer_config::{TokenizerConfig, malformed, read_if_exists};
use super::{EncodeSettings, Rendering, TextError, Truncation, tokenizer_failed};
use crate::data::Content;

/// Files that make a tokenizer: what is fetched with a model and copied into a judge, in this order.
pub const TOKENIZER_FILES: [&str; 12] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
    "chat_template.jinja",
];

/// The token that Llama 3.1 and later keep for padding.
const SPARE_PAD: &str = "<|finetune_right_pad_id|>";

/// One text as the model gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, special tokens included; at most `max_length` of them.
    pub ids: Vec<u32>,
    /// The segment that the model reads for each token, 0 or 1; all 0 where transformers gives the model no type ids,
    /// and for a model without segments.
    pub type_ids: Vec<u32>,
    /// Whether tokens were cut to stay within `max_length`.
    pub truncated: bool,
    /// Number of tokens, special tokens included, that the uncut text has.
    pub tokens_before_truncation: usize,
}

/// A file of the tokenizer, to be copied byte for byte into a judge directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerFile {
    /// Name within the directory.
    pub name: &'static str,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A tokenizer with the settings of a judge: the only way from text to ids.
pub struct Encoder {
    dir: PathBuf,
    settings: EncodeSettings,
    tokenizer: Splitter,
    /// The side on which `longest_first` cuts.
    side: TruncationDirection,
    /// Special tokens around one sequence, and around two.
    special_counts: [usize; 2],
    rebuilt: Rebuilt,
    template: Option<ChatTemplate>,
    model_vocab_size: Option<u64>,
    model_segments: Option<u64>,
}

impl Encoder {
    /// Reads the tokenizer of a model directory.
    ///
    /// # Errors
    /// A missing or malformed file, a chat rendering without a template, a `max_length` without room for text.
    pub fn load(dir: &Path, settings: EncodeSettings) -> Result<Self, TextError> {
        let TokenizerFiles { tokenizer, side, rebuilt, mut template, model_vocab_size, model_segments } =
            open_tokenizer(dir)?;
        let count = |pair| tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(pair));
        if let Some(template) = &mut template {
            template.set_day(settings.date.unwrap_or(Day::DEFAULT));
        }
        let encoder = Self {
            special_counts: [count(false), count(true)],
            template,
            model_vocab_size,
            model_segments,
            dir: dir.into(),
            tokenizer: Splitter::new(tokenizer, settings.literal)?,
            settings,
            side,
            rebuilt,
        };
        encoder.check_settings()?;
        encoder.check_segments()?;
        Ok(encoder)
    }

    /// As [`Self::load`], for a judge that is to be trained: where its template asks for the date and the settings say
    /// none, they get this day, and every later score is computed with it.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_for_training(dir: &Path, settings: EncodeSettings, today: Day) -> Result<Self, TextError> {
        let encoder = Self::load(dir, settings)?;
        if !encoder.needs_date() {
            return Ok(encoder);
        }
        Self::load(dir, EncodeSettings { date: Some(today), ..encoder.settings })
    }

    /// A segment that the model has no vector for is an error, as it is in transformers: with zeros instead, the judge
    /// would work here and nowhere else.
    fn check_segments(&self) -> Result<(), TextError> {
        let Some(segments) = self.model_segments.filter(|_| self.rebuilt.type_ids) else {
            return Ok(());
        };
        let pair = self.settings.render == Rendering::Pair;
        let largest = if pair { self.encode_pair("a", "a")?.type_ids.into_iter().max() } else { Some(0) };
        match largest.filter(|largest| u64::from(*largest) >= segments) {
            None => Ok(()),
            Some(largest) => Err(TextError::Segments { dir: self.dir.clone(), segments, largest }),
        }
    }

    fn check_settings(&self) -> Result<(), TextError> {
        let max_length = self.settings.max_length;
        let special_tokens = match self.settings.render {
            Rendering::Pair => self.special_counts[0].max(self.special_counts[1]),
            Rendering::Concat => self.special_counts[0],
            Rendering::Chat => return self.check_template(),
        };
        if max_length <= special_tokens {
            return Err(TextError::MaxLengthTooSmall { max_length, special_tokens });
        }
        Ok(())
    }

    /// Encodes one response; without a prompt, `response` is a whole transcript.
    ///
    /// # Errors
    /// A template that refuses the messages, or a token the model has no embedding for.
    pub fn encode(&self, prompt: Option<&Content>, response: &Content) -> Result<Encoded, TextError> {
        if self.settings.render == Rendering::Pair {
            return self.encode_sides(prompt, response);
        }
        let Some(masked) = self.mask(prompt, response) else {
            return self.encode_one(prompt, response, None);
        };
        let prompt = prompt.map(|prompt| masked.content(prompt));
        self.encode_one(prompt.as_ref(), &masked.content(response), Some(&masked))
    }

    /// Two sequences, or one where there is no prompt or no response.
    fn encode_sides(&self, prompt: Option<&Content>, response: &Content) -> Result<Encoded, TextError> {
        match render::pair(prompt, response) {
            Rendered::Pair { prompt, response } => self.encode_pair(&prompt, &response),
            Rendered::Single { text, prompt_chars } => match self.tokenizer.mask(&[&text]) {
                None => self.encode_single((&text, None), prompt_chars),
                Some(masked) => self.encode_single((&masked.mask(&text), Some(&masked)), prompt_chars),
            },
        }
    }

    /// What hides the control tokens of the messages from the tokenizer, where they are to be plain text.
    fn mask(&self, prompt: Option<&Content>, response: &Content) -> Option<Masked<'_>> {
        let all: Vec<&str> = prompt.into_iter().chain([response]).flat_map(texts).collect();
        self.tokenizer.mask(&all)
    }

    /// A rendering of one sequence, whose control tokens of the messages may be masked.
    fn encode_one(
        &self,
        prompt: Option<&Content>,
        response: &Content,
        masked: Option<&Masked>,
    ) -> Result<Encoded, TextError> {
        if self.settings.render == Rendering::Chat {
            return self.encode_chat(&Conversation::of(prompt, response)?, masked);
        }
        match render::concat(prompt, response, self.special_token("eos_token")) {
            Rendered::Pair { prompt, response } => self.encode_pair(&prompt, &response),
            Rendered::Single { text, prompt_chars } => self.encode_single((&text, masked), prompt_chars),
        }
    }

    /// Encodes many, on all threads of the current rayon pool; results in the order given.
    ///
    /// # Errors
    /// That of the first text that cannot be encoded.
    pub fn encode_batch(&self, texts: &[(Option<&Content>, &Content)]) -> Result<Vec<Encoded>, TextError> {
        self.encode_each(texts).into_iter().collect()
    }

    /// As [`Self::encode_batch`], with an error for each text that cannot be encoded.
    pub fn encode_each(&self, texts: &[(Option<&Content>, &Content)]) -> Vec<Result<Encoded, TextError>> {
        texts.par_iter().map(|(prompt, response)| self.encode(*prompt, response)).collect()
    }

    fn encode_pair(&self, prompt: &str, response: &str) -> Result<Encoded, TextError> {
        let budget = self.settings.max_length.saturating_sub(self.special_counts[1]);
        let mut first = self.tokenise(prompt)?;
        let mut second = self.tokenise(response)?;
        second.set_type_ids(vec![1; second.len()]);
        let total = first.len() + second.len();
        if total > budget {
            (first, second) = match self.settings.truncation {
                Truncation::KeepResponse => {
                    first.truncate(budget.saturating_sub(second.len()), 0, TruncationDirection::Left);
                    second.truncate(budget, 0, TruncationDirection::Right);
                    (first, second)
                }
                Truncation::LongestFirst => self.cut_longest_first(first, second, budget)?,
            };
        }
        self.finish(first, Some(second), total)
    }

    fn cut_longest_first(
        &self,
        first: Encoding,
        second: Encoding,
        max_length: usize,
    ) -> Result<(Encoding, Encoding), TextError> {
        let strategy = TruncationStrategy::LongestFirst;
        let params = TruncationParams { direction: self.side, max_length, strategy, stride: 0 };
        let (first, second) = truncate_encodings(first, Some(second), &params).map_err(tokenizer_failed)?;
        Ok((first, second.unwrap_or_default()))
    }

    fn encode_single(
        &self,
        (text, masked): (&str, Option<&Masked>),
        prompt_chars: usize,
    ) -> Result<Encoded, TextError> {
        let budget = self.settings.max_length.saturating_sub(self.special_counts[0]);
        let (total, kept) = match self.settings.truncation {
            Truncation::LongestFirst => {
                let mut tokens = self.tokenizer.encode(text, masked, false)?;
                let total = tokens.len();
                tokens.truncate(budget, 0, self.side);
                (total, tokens)
            }
            Truncation::KeepResponse => {
                // Only here does it matter where in the text a token comes from.
                let tokens = self.tokenizer.encode(text, masked, true)?;
                (tokens.len(), cut_prompt_first(tokens, prompt_chars, budget))
            }
        };
        self.finish(kept, None, total)
    }

    fn tokenise(&self, text: &str) -> Result<Encoding, TextError> {
        self.tokenizer.of_side(text)
    }

    /// Adds the special tokens to what is left of `text_tokens` tokens of text.
    fn finish(&self, first: Encoding, second: Option<Encoding>, text_tokens: usize) -> Result<Encoded, TextError> {
        let (first, second) = (without_overflow(first), second.map(without_overflow));
        let cut = text_tokens - first.len() - second.as_ref().map_or(0, Encoding::len);
        let encoding = self.tokenizer.engine().post_process(first, second, true).map_err(tokenizer_failed)?;
        self.check_vocabulary(encoding.get_ids())?;
        let has_type_ids = self.rebuilt.type_ids;
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            type_ids: if has_type_ids { encoding.get_type_ids().to_vec() } else { vec![0; encoding.len()] },
            truncated: cut > 0,
            tokens_before_truncation: encoding.len() + cut,
        })
    }

    fn check_vocabulary(&self, ids: &[u32]) -> Result<(), TextError> {
        let Some(vocab_size) = self.model_vocab_size else {
            return Ok(());
        };
        match ids.iter().copied().find(|&id| u64::from(id) >= vocab_size) {
            None => Ok(()),
            Some(id) => {
                let token = self.tokenizer.engine().id_to_token(id).unwrap_or_default();
                Err(TextError::OutsideVocabulary { token, id, vocab_size })
            }
        }
    }

    /// The settings the encoder was loaded with.
    pub fn settings(&self) -> &EncodeSettings {
        &self.settings
    }

    /// Number of tokens the tokenizer knows, added ones included. The model may have more embeddings.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.engine().get_vocab_size(true)
    }

    /// Id of the padding token, if the tokenizer has one. Nothing here pads; `config.json` names it.
    pub fn pad_token_id(&self) -> Option<u32> {
        self.tokenizer.engine().token_to_id(self.special_token("pad_token")?)
    }

    /// The pad id for the `config.json` of a new decoder judge, which no text may end in.
    ///
    /// # Errors
    /// A template that renders nothing.
    pub fn pad_for_judge(&self) -> Result<Option<u32>, TextError> {
        let text = Content::Text("a".into());
        let last = self.encode(Some(&text), &text)?.ids.last().copied();
        let spare = self.tokenizer.engine().token_to_id(SPARE_PAD);
        Ok(pad_for_judge(last, self.pad_token_id(), spare))
    }

    /// Id of the end-of-sequence token, if the tokenizer has one.
    pub fn eos_token_id(&self) -> Option<u32> {
        self.tokenizer.engine().token_to_id(self.special_token("eos_token")?)
    }

    /// The text of a special token by its name in `tokenizer_config.json`, such as `eos_token`.
    pub fn special_token(&self, name: &str) -> Option<&str> {
        self.rebuilt.special_tokens.get(name).map(|token| token.content.as_str())
    }

    /// The token of an id, for messages to people.
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.engine().id_to_token(id)
    }

    /// The id of a token that is in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.engine().token_to_id(token)
    }

    /// Whether the tokenizer brings a chat template, which [`Rendering::Chat`] needs.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// How many control tokens (`<|im_end|>`, `[SEP]`, …) the messages hold, which the tokenizer takes for themselves:
    /// a text can end its own turn with them. None with [`EncodeSettings::literal`], which makes them plain text.
    pub fn control_tokens(&self, prompt: Option<&Content>, response: &Content) -> usize {
        prompt.into_iter().chain([response]).map(|content| self.tokenizer.control_tokens(content)).sum()
    }

    /// What a user should know about this tokenizer, one line each: usually nothing.
    pub fn notes(&self) -> &[String] {
        &self.rebuilt.notes
    }

    /// The tokenizer's files, byte for byte: with them, a judge's directory encodes as its base does.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn files(&self) -> Result<Vec<TokenizerFile>, TextError> {
        let read = |name| Ok(read_if_exists(&self.dir.join(name))?.map(|bytes| TokenizerFile { name, bytes }));
        TOKENIZER_FILES.into_iter().filter_map(|name| read(name).transpose()).collect()
    }

    /// The tokenizer's files for a new judge: as [`Self::files`], but for `model_max_length` in `tokenizer_config.json`, which
    /// is the token limit. `AutoTokenizer(judge)(prompt, response, truncation=True)` then cuts where Kudos does.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn judge_files(&self) -> Result<Vec<TokenizerFile>, TextError> {
        let mut files = self.files()?;
        if !files.iter().any(|file| file.name == TOKENIZER_CONFIG) {
            files.push(TokenizerFile { name: TOKENIZER_CONFIG, bytes: Vec::new() });
        }
        for file in files.iter_mut().filter(|file| file.name == TOKENIZER_CONFIG) {
            let path = self.dir.join(file.name);
            file.bytes = with_max_length(&file.bytes, self.settings.max_length)
                .map_err(|reason| malformed(&path, "a JSON object", &reason))?;
        }
        Ok(files)
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("dir", &self.dir).field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What a model directory says about text.
pub(super) struct TokenizerFiles {
    pub(super) tokenizer: Tokenizer,
    side: TruncationDirection,
    pub(super) rebuilt: Rebuilt,
    pub(super) template: Option<ChatTemplate>,
    model_vocab_size: Option<u64>,
    model_segments: Option<u64>,
}

/// Reads the tokenizer of a model directory and makes of it the one that transformers would use.
pub(super) fn open_tokenizer(dir: &Path) -> Result<TokenizerFiles, TextError> {
    let path = dir.join("tokenizer.json");
    let config = TokenizerConfig::read(dir)?;
    let (mut tokenizer, is_whole) = match read_if_exists(&path)? {
        Some(bytes) => {
            let parsed = parse(&bytes);
            (parsed.map_err(|error| malformed(&path, "a tokenizer of the Hugging Face kind", &error))?, true)
        }
        None => (from_vocabulary(dir, &config)?, false),
    };
    let side = truncation_side(&config, &tokenizer);
    let mut rebuilt = rebuild(&path, &mut tokenizer, &config)?;
    if !is_whole {
        rebuilt.notes.clear(); // There was no tokenizer.json for the class to replace.
    }
    let template = chat_template(dir, &config, &rebuilt)?;
    let TokenizerConfig { model_vocab_size, model_segments, .. } = config;
    Ok(TokenizerFiles { tokenizer, side, rebuilt, template, model_vocab_size, model_segments })
}

/// What `tokenizer.json` holds. A vocabulary of byte pairs is read as such first: where the kind of the vocabulary is
/// open, the library copies all of it once more, which takes three times as long.
fn parse(bytes: &[u8]) -> tokenizers::Result<Tokenizer> {
    type OfBytePairs = TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;
    match OfBytePairs::from_bytes(bytes) {
        Ok(tokenizer) => Ok(tokenizer.into()),
        Err(_) => Tokenizer::from_bytes(bytes),
    }
}

/// The tokenizer of an old BERT or DistilBERT, which has its words alone: the class gives all the rest.
fn from_vocabulary(dir: &Path, config: &TokenizerConfig) -> Result<Tokenizer, TextError> {
    let path = dir.join("vocab.txt");
    let missing = || TextError::MissingTokenizer { dir: dir.into() };
    let name = path.to_str().filter(|_| path.exists()).ok_or_else(missing)?;
    let words = WordPiece::from_file(name).build().map_err(|error| malformed(&path, "a word a line", &error))?;
    let mut tokenizer = Tokenizer::new(words);
    tokenizer.with_decoder(Some(decoders::wordpiece::WordPiece::default()));
    let class = TokenizerClass::choose(config, &tokenizer);
    if matches!(class, TokenizerClass::Bert | TokenizerClass::DistilBert) { Ok(tokenizer) } else { Err(missing()) }
}

/// Drops tokens from the start as far as they are the prompt's, and only then from the end.
fn cut_prompt_first(mut tokens: Encoding, prompt_chars: usize, budget: usize) -> Encoding {
    if tokens.len() > budget {
        // A token that straddles the boundary holds some of the response, and is kept with it.
        let is_prompt = |&&(start, end): &&(usize, usize)| start < prompt_chars && end <= prompt_chars;
        let prompt_tokens = tokens.get_offsets().iter().take_while(is_prompt).count();
        let response_tokens = tokens.len() - prompt_tokens;
        tokens.truncate(response_tokens.max(budget), 0, TruncationDirection::Left);
        tokens.truncate(budget, 0, TruncationDirection::Right);
    }
    tokens
}

/// What was cut off stays with an encoding as its overflow, which post-processing would work through too.
fn without_overflow(mut tokens: Encoding) -> Encoding {
    drop(tokens.take_overflowing());
    tokens
}

fn truncation_side(config: &TokenizerConfig, tokenizer: &Tokenizer) -> TruncationDirection {
    match config.text("truncation_side") {
        Some("left") => TruncationDirection::Left,
        Some(_) => TruncationDirection::Right,
        None => tokenizer.get_truncation().map_or(TruncationDirection::Right, |truncation| truncation.direction),
    }
}

fn chat_template(dir: &Path, config: &TokenizerConfig, rebuilt: &Rebuilt) -> Result<Option<ChatTemplate>, TextError> {
    let Some(source) = &config.chat_template else {
        return Ok(None);
    };
    let tokens = rebuilt.special_tokens.iter().map(|(name, token)| (name.as_str(), token.content.as_str()));
    ChatTemplate::parse(dir, source, tokens).map(Some)
}
