//! [`Prompter`]: from a prompt to the ids that a model continues, and from its ids back to text.
//!
//! What [`super::Encoder`] is to a judge. A judge gets a finished (prompt, response) within a limit; a generator gets
//! the prompt alone, with the words that open the answer, and its ids become text again. The tokenizer is that
//! of a model directory or of a GGUF file; which one, nobody needs to ask.

use super::chat::ChatTemplate;
use super::encoder::{TokenizerFiles, open_tokenizer};
use super::ends::{Mark, ends};
use super::gguf_tokenizer::{GgufVocabulary, build};
use super::tokenizer_config::read_object;
use super::{TextError, tokenizer_failed};
use crate::data::Message;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// A tokenizer with its chat template.
pub struct Prompter {
    /// Directory or file, for messages.
    origin: PathBuf,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    bos: Option<u32>,
    eos: Option<u32>,
    stops: Vec<u32>,
    notes: Vec<String>,
}

impl Prompter {
    /// Reads the tokenizer of a model directory, as transformers' `AutoTokenizer` would.
    ///
    /// # Errors
    /// A missing or malformed file, a chat template that does not parse.
    pub fn load(dir: &Path) -> Result<Self, TextError> {
        let TokenizerFiles { tokenizer, rebuilt, template, .. } = open_tokenizer(dir)?;
        let named = |name| tokenizer.token_to_id(&rebuilt.special_tokens.get(name)?.content);
        let (bos, eos) = (named("bos_token"), named("eos_token"));
        let added = tokenizer.get_added_tokens_decoder();
        let marked = added.iter().map(|(id, token)| {
            let mark = if token.special { Mark::Control } else { Mark::Added };
            (*id, token.content.as_str(), mark)
        });
        let stops = ends(stop_ids(dir)?.into_iter().chain(eos), marked);
        let notes = rebuilt.notes.into_iter().chain(without_end(dir, &stops)).collect();
        Ok(Self { origin: dir.into(), template, bos, eos, stops, notes, tokenizer })
    }

    /// Builds the tokenizer of a GGUF file; `models::gguf::vocabulary` reads what it needs.
    ///
    /// # Errors
    /// A kind of tokenizer or a way to split text that is not known, a vocabulary that contradicts itself, a chat
    /// template that does not parse.
    pub fn from_gguf(vocabulary: GgufVocabulary) -> Result<Self, TextError> {
        let tokenizer = build(&vocabulary)?;
        let tokens: Vec<_> = vocabulary.named_tokens().collect();
        let tokens = tokens.iter().map(|(name, token)| (*name, token.as_str()));
        let template = vocabulary.chat_template.as_deref();
        let template = template.map(|source| ChatTemplate::parse(&vocabulary.origin, source, tokens)).transpose()?;
        let named = [vocabulary.eos, vocabulary.end_of_turn, vocabulary.end_of_message];
        let stops = ends(named.into_iter().flatten(), vocabulary.marked());
        let (bos, eos) = (vocabulary.bos, vocabulary.eos);
        let notes = vocabulary.notes().into_iter().chain(without_end(&vocabulary.origin, &stops)).collect();
        Ok(Self { origin: vocabulary.origin, tokenizer, template, bos, eos, stops, notes })
    }

    /// The ids of a text. With `add_special`, the tokenizer adds what it adds around a text, as `tokenizer(text)`
    /// does; a rendered chat has its own. Special tokens that stand in the text become themselves.
    ///
    /// # Errors
    /// A text that the tokenizer cannot encode.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        let encoding = self.tokenizer.encode_fast(text, add_special).map_err(tokenizer_failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids, as `decode(ids, skip_special_tokens=skip_special, clean_up_tokenization_spaces=False)`.
    /// Bytes that are no character yet become `\u{FFFD}`; ids that the tokenizer does not have become nothing.
    ///
    /// # Errors
    /// Ids that the tokenizer cannot decode.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        self.tokenizer.decode(ids, skip_special).map_err(|error| TextError::Detokenize(error.to_string()))
    }

    /// The chat template over the messages; with `add_generation_prompt`, up to where the assistant's answer begins.
    ///
    /// # Errors
    /// No template, or one that refuses the messages.
    pub fn render_chat(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> {
        let missing = || TextError::NoPromptTemplate { origin: self.origin.clone() };
        self.template.as_ref().ok_or_else(missing)?.run(messages, add_generation_prompt)
    }

    /// The token that continues `text` where the model writes `answer`.
    ///
    /// # Errors
    /// [`TextError::NotOneToken`] for an answer of several tokens here, or one that joins the text before it.
    pub fn answer_token(&self, text: &str, answer: &str) -> Result<u32, TextError> {
        let before = self.encode(text, false)?;
        let after = self.encode(&format!("{text}{answer}"), false)?;
        if let Some(id) = self.added_token(&before, &after, answer)? {
            return Ok(id);
        }
        let same = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
        let name = |id: &u32| format!("{:?}", self.token(*id).unwrap_or_default());
        let found = after[same..].iter().map(name).collect::<Vec<_>>().join(", ");
        let mut offers = Vec::new();
        for offer in spellings(answer) {
            let after = self.encode(&format!("{text}{offer}"), false)?;
            if self.added_token(&before, &after, &offer)?.is_some() {
                offers.push(format!("{offer:?}"));
            }
        }
        Err(TextError::NotOneToken { answer: answer.into(), found, offers: offers.join(", ") })
    }

    /// The one token by which `after` is longer than `before`, if it says `answer`.
    fn added_token(&self, before: &[u32], after: &[u32], answer: &str) -> Result<Option<u32>, TextError> {
        let [same @ .., id] = after else { return Ok(None) };
        let says = || Ok::<_, TextError>(self.decode(&[*id], false)?.trim() == answer.trim());
        Ok((same == before && !answer.trim().is_empty() && says()?).then_some(*id))
    }

    /// Whether what follows a text begins a line or a turn, so that a word there has no space before it.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn begins_anew(&self, text: &str) -> Result<bool, TextError> {
        let last = self.encode(text, false)?.last().and_then(|id| self.token(*id));
        let is_special = last.is_none_or(|token| self.tokenizer.get_added_vocabulary().is_special_token(&token));
        Ok(is_special || text.ends_with(char::is_whitespace))
    }

    /// The special token that the tokenizer puts before a text, if any.
    pub fn opening_token(&self) -> Option<String> {
        let ids = self.encode("", true).ok()?;
        self.token(*ids.first().filter(|id| self.bos == Some(**id))?)
    }

    /// Whether there is a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// Id of the beginning-of-text token.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.bos
    }

    /// Id of the end-of-text token.
    pub fn eos_token_id(&self) -> Option<u32> {
        self.eos
    }

    /// Ids that end a response: `eos_token_id` of `generation_config.json` and `config.json`, which may be several,
    /// and the tokenizer's own; of a GGUF file, its ends of text, turn and message; and all tokens whose name says
    /// that they end one, such as `<|eot_id|>`.
    pub fn stop_token_ids(&self) -> &[u32] {
        &self.stops
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The token of an id, for messages to people.
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// What a user should know about this tokenizer, one line each: usually nothing.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

impl std::fmt::Debug for Prompter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prompter").field("origin", &self.origin).field("stops", &self.stops).finish_non_exhaustive()
    }
}

/// Other ways to write an answer.
fn spellings(answer: &str) -> Vec<String> {
    let word = answer.trim();
    let lower = word.to_lowercase();
    let mut letters = lower.chars();
    let capital = letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect());
    let words = [word.to_owned(), capital, lower.clone(), word.to_uppercase()];
    let mut all: Vec<String> = words.into_iter().flat_map(|word| [format!(" {word}"), word]).collect();
    let mut seen = std::collections::HashSet::from([answer.to_owned()]);
    all.retain(|spelling| seen.insert(spelling.clone()));
    all
}

/// What to tell about a model that cannot end a response.
fn without_end(origin: &Path, stops: &[u32]) -> Option<String> {
    let origin = origin.display();
    stops.is_empty().then(|| format!("{origin}: no token ends a response, so each has the most tokens it may have"))
}

/// `eos_token_id` of the files that transformers asks, in its order.
fn stop_ids(dir: &Path) -> Result<Vec<u32>, TextError> {
    let mut stops = Vec::new();
    for name in ["generation_config.json", "config.json"] {
        let path = dir.join(name);
        let ids = match read_object(&path)?.get("eos_token_id") {
            None | Some(Value::Null) => continue,
            Some(Value::Array(ids)) => ids.clone(),
            Some(id) => vec![id.clone()],
        };
        let parsed: Option<Vec<u32>> = ids.iter().map(|id| id.as_u64().and_then(|id| id.try_into().ok())).collect();
        let malformed = || TextError::Malformed {
            path,
            expected: "eos_token_id to be a token's id or a list of them",
            found: Value::from(ids).to_string(),
        };
        stops.extend(parsed.ok_or_else(malformed)?);
    }
    Ok(stops)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into() }
    }

    fn vocabulary() -> GgufVocabulary {
        let template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}\
                        {% if add_generation_prompt %}<|assistant|>{% endif %}";
        GgufVocabulary {
            origin: "model.gguf".into(),
            model: "gpt2".into(),
            pre: Some("gpt-2".into()),
            tokens: ["<e>", "<|user|>", "<|assistant|>", "h", "i", "<t>"].map(str::to_owned).to_vec(),
            token_types: vec![3, 3, 3, 1, 1, 3],
            eos: Some(0),
            end_of_turn: Some(5),
            chat_template: Some(template.into()),
            ..GgufVocabulary::default()
        }
    }

    #[test]
    fn a_chat_is_rendered_encoded_and_decoded() {
        let prompter = Prompter::from_gguf(vocabulary()).unwrap();
        let chat = [message("user", "hi")];
        let text = prompter.render_chat(&chat, true).unwrap();
        assert_eq!(text, "<|user|>hi<e><|assistant|>");
        assert_eq!(prompter.render_chat(&chat, false).unwrap(), "<|user|>hi<e>");
        let ids = prompter.encode(&text, false).unwrap();
        assert_eq!(ids, [1, 3, 4, 0, 2]);
        assert_eq!(prompter.decode(&ids, true).unwrap(), "hi");
        assert_eq!(prompter.decode(&ids, false).unwrap(), text);
        assert_eq!(prompter.decode(&[3, 99], false).unwrap(), "h");
        assert_eq!((prompter.eos_token_id(), prompter.stop_token_ids()), (Some(0), &[0, 5][..]));
    }

    #[test]
    fn without_a_template_there_is_no_chat() {
        let prompter = Prompter::from_gguf(GgufVocabulary { chat_template: None, ..vocabulary() }).unwrap();
        assert!(!prompter.has_chat_template());
        let refused = prompter.render_chat(&[message("user", "hi")], true).unwrap_err().to_string();
        assert!(refused.starts_with("model.gguf") && refused.contains("chat template"), "{refused}");
        let broken = GgufVocabulary { chat_template: Some("{% if %}".into()), ..vocabulary() };
        assert!(Prompter::from_gguf(broken).unwrap_err().to_string().contains("does not parse"));
    }

    #[test]
    fn a_directory_has_the_same_interface() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/text/chatml");
        let prompter = Prompter::load(&dir).unwrap();
        let text = prompter.render_chat(&[message("user", "Hi there")], true).unwrap();
        assert!(text.ends_with("<|im_start|>assistant\n"), "{text}");
        let ids = prompter.encode(&text, false).unwrap();
        assert_eq!(prompter.decode(&ids, false).unwrap(), text);
        assert!(!prompter.decode(&ids, true).unwrap().contains("<|im_start|>"));
        let stops: Vec<_> = prompter.stop_token_ids().iter().map(|id| prompter.token(*id).unwrap()).collect();
        assert_eq!(stops, ["<|im_end|>", "<|endoftext|>"], "the end of text is known by its name alone");
        assert_eq!(prompter.stop_token_ids()[0], prompter.eos_token_id().unwrap());
    }

    #[test]
    fn an_answer_is_one_token_after_the_text() {
        let tokens = ["<e>", "Y", "e", "s", "Ye", "Yes", "Ġ", "ĠYes", ":", "ĠY", "N", "o", "Ċ"];
        let merges = ["Y e", "Ye s", "Ġ Y", "Ġ Yes"];
        let vocabulary = GgufVocabulary {
            tokens: tokens.map(str::to_owned).to_vec(),
            token_types: (0..13).map(|id| if id == 0 { 3 } else { 1 }).collect(),
            merges: merges.map(str::to_owned).to_vec(),
            eos: Some(0),
            end_of_turn: None,
            chat_template: None,
            ..vocabulary()
        };
        let prompter = Prompter::from_gguf(vocabulary).unwrap();
        assert_eq!(prompter.answer_token("s:", "Yes").unwrap(), 5);
        assert_eq!(prompter.answer_token("s:", " Yes").unwrap(), 7);
        let refused = |text: &str, answer: &str| prompter.answer_token(text, answer).unwrap_err().to_string();
        let several = refused("s:", "No");
        assert!(several.contains("\"N\", \"o\"") && !several.contains("would be"), "{several}");
        let offered = refused("s:", "yes");
        assert!(offered.contains("\" Yes\", \"Yes\""), "{offered}");
        assert!(refused("s:", "").contains("\"\"") && refused("s:", " ").contains("\" \""));
        let anew = ["s:", "s: ", "s\n", "", "s<e>"].map(|text| prompter.begins_anew(text).unwrap());
        assert_eq!(anew, [false, true, true, true, true]);
        // The space that ends the text joins the answer.
        assert!(refused("s: ", "Yes").contains("\"ĠYes\""));
    }

    #[test]
    fn f4_all_ends_of_the_generation_config_count() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        assert!(stop_ids(dir.path()).unwrap().is_empty());
        write("config.json", r#"{"eos_token_id": 7}"#);
        assert_eq!(stop_ids(dir.path()).unwrap(), [7]);
        write("generation_config.json", r#"{"eos_token_id": [1, 2]}"#);
        assert_eq!(stop_ids(dir.path()).unwrap(), [1, 2, 7]);
        write("generation_config.json", r#"{"eos_token_id": -1}"#);
        assert!(stop_ids(dir.path()).unwrap_err().to_string().contains("generation_config.json"));
    }

    /// The ends of a directory are looked for in all its files: here Qwen's two, of which `config.json` has one.
    #[test]
    fn f4_a_directory_ends_at_every_end_that_it_has() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/text/chatml");
        let dir = tempfile::tempdir().unwrap();
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(golden.join(name), dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("config.json"), r#"{"eos_token_id": 17}"#).unwrap();
        std::fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": [19, 18]}"#).unwrap();
        let prompter = Prompter::load(dir.path()).unwrap();
        let named = |name: &str| (0..4).find(|id| prompter.token(*id).as_deref() == Some(name)).unwrap();
        let expected = [19, 18, 17, named("<|im_end|>"), named("<|endoftext|>")];
        assert_eq!(prompter.stop_token_ids(), expected);
    }

    fn of_tokens(tokens: &[(&str, u32)], eos: u32) -> Prompter {
        let (tokens, token_types) = tokens.iter().map(|(token, kind)| (token.to_string(), *kind)).unzip();
        let vocabulary = GgufVocabulary { tokens, token_types, eos: Some(eos), end_of_turn: None, ..vocabulary() };
        Prompter::from_gguf(GgufVocabulary { chat_template: None, ..vocabulary }).unwrap()
    }

    #[test]
    fn f4_a_llama_3_vocabulary_ends_at_its_end_of_turn() {
        let tokens = [("h", 1), ("<|begin_of_text|>", 3), ("<|end_of_text|>", 3), ("<|eom_id|>", 3), ("<|eot_id|>", 3)];
        assert_eq!(of_tokens(&tokens, 2).stop_token_ids(), [2, 3, 4]);
    }

    #[test]
    fn f4_a_qwen_vocabulary_ends_at_its_end_of_text_and_not_at_a_plain_token() {
        let tokens = [("h", 1), ("</s>", 1), ("<|endoftext|>", 3), ("<|im_start|>", 3), ("<|im_end|>", 3)];
        assert_eq!(of_tokens(&tokens, 4).stop_token_ids(), [4, 2]);
    }

    #[test]
    fn f7_a_gguf_file_that_does_not_say_how_text_is_split_is_noted() {
        let notes = |pre: Option<&str>| {
            let vocabulary = GgufVocabulary { pre: pre.map(str::to_owned), ..vocabulary() };
            Prompter::from_gguf(vocabulary).unwrap().notes().to_vec()
        };
        assert!(notes(Some("gpt-2")).is_empty());
        for (pre, found) in [(None, "is missing"), (Some("default"), "is `default`")] {
            let notes = notes(pre);
            assert!(
                notes.len() == 1 && notes[0].contains("tokenizer.ggml.pre") && notes[0].contains(found),
                "{notes:?}"
            );
        }
        let untyped = GgufVocabulary { token_types: Vec::new(), ..vocabulary() };
        let notes = Prompter::from_gguf(untyped).unwrap().notes().to_vec();
        assert!(notes.len() == 1 && notes[0].contains("tokenizer.ggml.token_type"), "{notes:?}");
        let endless = GgufVocabulary { eos: None, end_of_turn: None, ..vocabulary() };
        let notes = Prompter::from_gguf(endless).unwrap().notes().to_vec();
        assert!(notes.len() == 1 && notes[0].contains("ends a response"), "{notes:?}");
    }
}
