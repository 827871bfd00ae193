//! What can go wrong between a text and its ids. Each message says where, what was found and what to do.

use std::path::PathBuf;

/// Failure to load a tokenizer or to encode a text.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The directory has no `tokenizer.json`.
    #[error(
        "{}: no tokenizer.json here; expected a model directory with a fast tokenizer \
         (AutoTokenizer.from_pretrained(...).save_pretrained(...) writes one)", .dir.display()
    )]
    MissingTokenizer {
        /// The directory that was searched.
        dir: PathBuf,
    },
    /// A file exists and cannot be read.
    #[error("{}: cannot be read: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// An answer that is several tokens, or becomes one with the text before it.
    #[error(
        "the answer {answer:?} is not one token after this template, but {found}{}",
        if .offers.is_empty() { "; choose another word".to_owned() } else { format!("; one token would be {}", .offers) }
    )]
    NotOneToken {
        /// The answer.
        answer: String,
        /// What follows the template's own tokens.
        found: String,
        /// Spellings that are one token; may be empty.
        offers: String,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written: {source}", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file does not hold what its name promises.
    #[error("{}: expected {expected}, found: {found}; fetch or save the file again", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the file should hold.
        expected: &'static str,
        /// What the parser met instead.
        found: String,
    },
    /// `tokenizer_config.json` asks for a tokenizer that `tokenizer.json` cannot be made into.
    #[error(
        "{}: tokenizer_class {class} {expected}, found {found}; correct tokenizer_class in tokenizer_config.json \
         (PreTrainedTokenizerFast takes tokenizer.json as it is)", .path.display()
    )]
    ClassMismatch {
        /// The tokenizer file.
        path: PathBuf,
        /// The class that transformers would use.
        class: &'static str,
        /// What the class needs.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The tokenizer gives segments that the model has no vectors for.
    #[error(
        "{}: `type_vocab_size` is {segments}, but this tokenizer gives the response segment {largest}; \
         add \"model_input_names\": [\"input_ids\", \"attention_mask\"] to tokenizer_config.json beside it, \
         so that the model gets none", .dir.join("config.json").display()
    )]
    Segments {
        /// The model's directory.
        dir: PathBuf,
        /// Segments of the model.
        segments: u64,
        /// The largest segment that the tokenizer gives.
        largest: u32,
    },
    /// The token limit leaves nothing for the text.
    #[error(
        "max_length {max_length} leaves no room for text: this tokenizer adds {special_tokens} special tokens; \
         set max_length to at least {}", .special_tokens + 1
    )]
    MaxLengthTooSmall {
        /// The limit that was asked for.
        max_length: usize,
        /// Special tokens around the text (or the pair of texts).
        special_tokens: usize,
    },
    /// `render` is `chat` and the tokenizer has no template.
    #[error(
        "{}: render \"chat\" needs a chat template, found none in chat_template.jinja or tokenizer_config.json; \
         use render \"concat\" or \"pair\", or add the template", .dir.display()
    )]
    NoChatTemplate {
        /// The tokenizer's directory.
        dir: PathBuf,
    },
    /// The chat template does not parse.
    #[error("{}: the chat template does not parse: {reason}", .dir.display())]
    BadChatTemplate {
        /// The tokenizer's directory.
        dir: PathBuf,
        /// What the template engine said, with the line.
        reason: String,
    },
    /// The chat template refused these messages by `raise_exception`.
    #[error("the chat template refuses these messages: {reason}; the roles were: {roles}")]
    ChatTemplate {
        /// The template's own words.
        reason: String,
        /// Roles of the messages, in order.
        roles: String,
    },
    /// The chat template failed on these messages.
    #[error("the chat template fails on these messages: {reason}; the roles were: {roles}")]
    TemplateFails {
        /// What the template engine said, with the line.
        reason: String,
        /// Roles of the messages, in order.
        roles: String,
    },
    /// The chat template runs on and on.
    #[error(
        "the chat template does not end within {steps} steps and {megabytes} MB of text (more for a long conversation); \
         correct its loops"
    )]
    EndlessTemplate {
        /// Steps that it had.
        steps: u64,
        /// Text that it may write.
        megabytes: usize,
    },
    /// The chat template does not work for any conversation.
    #[error(
        "{}: the chat template cannot render a question with its answer: {reason}; correct the template, or use render \
         \"concat\"", .dir.display()
    )]
    UselessTemplate {
        /// The tokenizer's directory.
        dir: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The chat template made nothing of these messages.
    #[error("the chat template writes nothing for these messages; the roles were: {roles}")]
    RendersNothing {
        /// Roles of the messages, in order.
        roles: String,
    },
    /// What the chat template itself writes fills the token limit.
    #[error(
        "max_length {max_length} leaves no room for words: the chat template writes {template_tokens} tokens around them; \
         set max_length to at least {}", .template_tokens + 1
    )]
    TemplateTooLong {
        /// The limit.
        max_length: usize,
        /// Tokens of the template in this conversation.
        template_tokens: usize,
    },
    /// A whole transcript given as plain text cannot be rendered by a chat template.
    #[error(
        "render \"chat\" needs a prompt or a list of messages, found one plain text without a prompt; \
         split the transcript into {{role, content}} messages, or use render \"concat\""
    )]
    ChatNeedsMessages,
    /// Messages are to be rendered and the model brings no template.
    #[error(
        "{}: messages need a chat template, and this model has none; give the prompt as plain text, or add the template \
         (chat_template.jinja beside tokenizer.json)", .origin.display()
    )]
    NoPromptTemplate {
        /// The model's directory or file.
        origin: PathBuf,
    },
    /// A GGUF file names a tokenizer that is not known here.
    #[error("{}: {key} {found:?}; known are: {known}", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: &'static str,
        /// What it says.
        found: String,
        /// What it may say.
        known: String,
    },
    /// The tokenizer itself failed.
    #[error("the tokenizer cannot encode this text: {0}")]
    Tokenize(String),
    /// The tokenizer failed on the way back.
    #[error("the tokenizer cannot decode these ids: {0}")]
    Detokenize(String),
    /// The ids end in the judge's pad id, which transformers does not pool.
    #[error(
        "the text ends in {token:?}, which is also the judge's pad_token_id {pad}: Kudos would read the score at index \
         {last}, transformers at index {pooled} ({pooled_token:?}); give config.json a pad_token_id that ends no text"
    )]
    EndsInPad {
        /// The pad id.
        pad: u32,
        /// Its token.
        token: String,
        /// Index of the last token.
        last: usize,
        /// Index of the token that transformers pools.
        pooled: usize,
        /// That token.
        pooled_token: String,
    },
    /// The tokenizer made an id that the model has no embedding for.
    #[error(
        "token {token:?} has id {id}, but config.json gives the model a vocab_size of {vocab_size}; \
         the tokenizer and the model do not belong together"
    )]
    OutsideVocabulary {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Number of embeddings of the model.
        vocab_size: u64,
    },
}

impl TextError {
    /// True for what is wrong with one text: others may be sound. The other errors concern the model.
    pub fn is_about_the_text(&self) -> bool {
        matches!(
            self,
            Self::ChatTemplate { .. }
                | Self::TemplateFails { .. }
                | Self::EndlessTemplate { .. }
                | Self::RendersNothing { .. }
                | Self::TemplateTooLong { .. }
                | Self::ChatNeedsMessages
                | Self::Tokenize(_)
        )
    }
}
