//! Responses from a model that runs here.

use super::endpoint::Event;
use super::engine::{Draw, Drawn, End, Engine, IsOver};
use super::job::{FinishReason, Generated, Prompt, Task};
use super::sampler::Sampler;
use super::stop::{StopStrings, Watch};
use crate::data::{Content, Message};
use crate::models::gguf::{self, GgufModelError};
use crate::models::{Decoder, DecoderHead, LoadError};
use crate::nn::Precision;
use crate::nn::gguf::Gguf;
use crate::random::Stream;
use crate::text::{Prompter, TextError};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Why a model cannot generate.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Config or weights.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// Tokenizer or chat template.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufModelError),
    /// The tokenizer knows more words than the model.
    #[error("the tokenizer has {tokens} tokens, the model {vocabulary} words: the tokenizer belongs to another model")]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the table of words.
        vocabulary: usize,
    },
}

/// How prompts are put to a model, and how many texts it writes at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSettings {
    /// The prompt's text as it is, without the model's chat template.
    pub raw: bool,
    /// The system's message of a chat.
    pub system: Option<String>,
    /// Texts that are written at once.
    pub sequences: usize,
}

/// A decoder with its tokenizer.
pub struct LocalModel {
    model: Decoder,
    wording: Wording,
}

/// What the ids of a model mean: its tokenizer, its chat template, and the tokens that end a response.
pub struct Wording {
    prompter: Prompter,
    stops: Vec<u32>,
    /// The most tokens of a prompt and its response together.
    context: usize,
}

/// A prompt as the model gets it, or why it cannot.
type Encoded = Result<Arc<[u32]>, String>;

impl LocalModel {
    /// Loads a model directory or a `.gguf` file.
    ///
    /// # Errors
    /// [`GenerateError`] for a model that cannot be read or cannot generate.
    pub fn load(path: &Path, precision: Precision) -> Result<Self, GenerateError> {
        let prompter = Wording::prompter(path)?;
        let model = Decoder::load(path, DecoderHead::Words, precision)?;
        Ok(Self { wording: Wording::new(prompter, &model)?, model })
    }

    /// Whether prompts can be put through a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.wording.has_chat_template()
    }

    /// The tokens that end a response, as [`Generated::stopped_by`] names them.
    pub fn ends(&self) -> Vec<String> {
        self.wording.ends()
    }

    /// What a user should know about its tokenizer, one line each.
    pub fn notes(&self) -> &[String] {
        self.wording.notes()
    }

    /// How its weights are kept.
    pub fn precision(&self) -> Precision {
        self.model.precision()
    }

    /// The most tokens of a prompt and its response together.
    pub fn context(&self) -> usize {
        self.model.config.positions
    }

    /// Draws the responses of `work`, and of what `on_event` adds to it, which comes first. `prompts` are those that
    /// tasks may be about. `Break` ends the run after the step that is being computed.
    pub fn run<'a>(
        &mut self,
        prompts: &[Prompt],
        settings: &LocalSettings,
        work: impl IntoIterator<Item = Task<'a>>,
        mut on_event: impl FnMut(Event) -> ControlFlow<(), Vec<Task<'a>>>,
    ) -> ControlFlow<()> {
        let encoded: Vec<Encoded> = prompts.iter().map(|prompt| self.wording.encode(prompt, settings)).collect();
        let mut work = work.into_iter().peekable();
        let Some(most) = work.peek().map(|task| task.max_new_tokens) else { return ControlFlow::Continue(()) };
        let longest = encoded.iter().flatten().map(|ids| ids.len()).max().unwrap_or(1);
        let cache = self.model.cache(settings.sequences.max(1), (longest + most).min(self.context()));
        let Self { model, wording: Wording { prompter, stops, .. } } = self;
        let run = Run { prompter, stops, encoded: &encoded };
        run.drive(Engine::new(model, cache), work, &mut on_event)
    }
}

impl Wording {
    /// The tokenizer of a model directory or a `.gguf` file.
    ///
    /// # Errors
    /// As [`LocalModel::load`].
    pub fn prompter(path: &Path) -> Result<Prompter, GenerateError> {
        if path.is_dir() {
            return Ok(Prompter::load(path)?);
        }
        let file = Gguf::open(path).map_err(GgufModelError::from)?;
        Ok(Prompter::from_gguf(gguf::vocabulary(&file)?)?)
    }

    /// The tokenizer as that of a decoder.
    ///
    /// # Errors
    /// [`GenerateError::Vocabulary`].
    pub fn new(prompter: Prompter, model: &Decoder) -> Result<Self, GenerateError> {
        let (tokens, vocabulary) = (prompter.vocab_size(), model.config.vocabulary);
        if tokens > vocabulary {
            return Err(GenerateError::Vocabulary { tokens, vocabulary });
        }
        let mut stops = prompter.stop_token_ids().to_vec();
        stops.extend(model.config.eos.iter().filter(|id| !prompter.stop_token_ids().contains(id)));
        Ok(Self { prompter, stops, context: model.config.positions })
    }

    /// Whether prompts can be put through a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.prompter.has_chat_template()
    }

    /// The tokens that end a response, by their texts.
    pub fn ends(&self) -> Vec<String> {
        self.stops.iter().map(|id| name_of(&self.prompter, *id)).collect()
    }

    /// The ids of these tokens.
    pub fn stops(&self) -> &[u32] {
        &self.stops
    }

    /// What a user should know about the tokenizer, one line each.
    pub fn notes(&self) -> &[String] {
        self.prompter.notes()
    }

    /// The text of a response without the token that ended it.
    ///
    /// # Errors
    /// Ids that make no text.
    pub fn text(&self, ids: &[u32]) -> Result<String, TextError> {
        let ids = ids.split_last().filter(|(last, _)| self.stops.contains(last)).map_or(ids, |(_, before)| before);
        self.prompter.decode(ids, true)
    }

    /// The ids of a prompt. A prompt that leaves no room for a response is none.
    ///
    /// # Errors
    /// Where it stands and why it cannot be answered.
    pub fn encode(&self, prompt: &Prompt, settings: &LocalSettings) -> Encoded {
        let place = &prompt.place;
        let ids = self.ids(&prompt.content, settings).map_err(|error| format!("{place}: {error}"))?;
        let context = self.context;
        match ids.len() {
            0 => Err(format!("{place}: the prompt has no token; expected at least one")),
            n if n >= context => Err(format!(
                "{place}: the prompt has {n} tokens, the model's context is {context}, response included; shorten the prompt"
            )),
            _ => Ok(ids.into()),
        }
    }

    fn ids(&self, content: &Content, settings: &LocalSettings) -> Result<Vec<u32>, TextError> {
        let text = match (content, settings.raw) {
            (Content::Text(text), true) => return self.prompter.encode(text, true),
            (Content::Messages(messages), true) => {
                let texts: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
                return self.prompter.encode(&texts.join("\n\n"), true);
            }
            (content, false) => self.prompter.render_chat(&messages(content, settings.system.as_deref()), true)?,
        };
        self.prompter.encode(&text, false)
    }
}

/// The text of a token, for people.
fn name_of(prompter: &Prompter, id: u32) -> String {
    prompter.token(id).unwrap_or_else(|| format!("token {id}"))
}

/// The messages of a prompt. A prompt that has a system message keeps it instead of `system`, as with a server.
fn messages(content: &Content, system: Option<&str>) -> Vec<Message> {
    let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let mut all = match content {
        Content::Text(text) => vec![message("user", text)],
        Content::Messages(messages) => messages.clone(),
    };
    let has_system = all.first().is_some_and(|first| first.role == "system");
    if let Some(system) = system.filter(|_| !has_system) {
        all.insert(0, message("system", system));
    }
    all
}

/// What one run works with.
struct Run<'r> {
    prompter: &'r Prompter,
    stops: &'r [u32],
    encoded: &'r [Encoded],
}

impl<'r> Run<'r> {
    fn drive<'a: 'r>(
        &self,
        mut engine: Engine<'_, 'r>,
        mut work: impl Iterator<Item = Task<'a>>,
        on_event: &mut impl FnMut(Event) -> ControlFlow<(), Vec<Task<'a>>>,
    ) -> ControlFlow<()> {
        let mut first: VecDeque<Task> = VecDeque::new();
        let mut tasks: Vec<Task> = Vec::new();
        loop {
            let mut started = 0;
            while engine.has_room() {
                let Some(task) = first.pop_front().or_else(|| work.next()) else { break };
                match &self.encoded[task.attempt.prompt] {
                    Ok(prompt) => {
                        engine.start(self.draw(tasks.len(), &task, prompt));
                        started += 1;
                    }
                    Err(error) => first.extend(on_event(Event::Done(failed(&task, error.clone())))?),
                }
                tasks.push(task);
            }
            for drawn in engine.finished() {
                first.extend(on_event(Event::Done(self.generated(&tasks[drawn.key], &drawn)))?);
            }
            match started + engine.step() {
                0 if engine.is_idle() && first.is_empty() => {
                    // What failed at once may leave work that found no room before.
                    match work.next() {
                        None => return ControlFlow::Continue(()),
                        Some(task) => first.push_back(task),
                    }
                }
                drawn => first.extend(on_event(Event::Drawn(drawn))?),
            }
        }
    }

    fn draw(&self, key: usize, task: &Task, prompt: &Arc<[u32]>) -> Draw<'r> {
        let prompter = self.prompter;
        let stop = StopStrings::new(task.stop.iter().cloned());
        let mut watch = Watch::new(stop, |ids: &[u32]| prompter.decode(ids, true).ok());
        let is_over = move |ids: &[u32]| watch.is_over(ids);
        Draw {
            key,
            prompt: Arc::clone(prompt),
            sampler: Sampler::new(task.sampling),
            random: Stream::new(task.seed, 0),
            stops: self.stops,
            most: task.max_new_tokens,
            is_over: (!task.stop.is_empty()).then(|| Box::new(is_over) as IsOver),
        }
    }

    fn generated(&self, task: &Task, drawn: &Drawn) -> Generated {
        let (ids, ended_by) = match (drawn.end, drawn.ids.split_last()) {
            (End::NotFinite, _) => {
                return failed(task, "the model's logits are no numbers: its weights are broken".into());
            }
            (End::StopId, Some((last, ids))) => (ids, Some(name_of(self.prompter, *last))),
            _ => (&drawn.ids[..], None),
        };
        let text = match self.prompter.decode(ids, true) {
            Ok(text) => text,
            Err(error) => return failed(task, error.to_string()),
        };
        let stop = StopStrings::new(task.stop.iter().cloned());
        let (end, stopped_by) = match stop.first(&text) {
            Some((start, string)) => (start, Some(string.to_owned())),
            None => (text.len(), ended_by),
        };
        let finish_reason = if stopped_by.is_some() { FinishReason::Stop } else { FinishReason::Length };
        Generated { text: text[..end].to_owned(), tokens: drawn.ids.len(), finish_reason, stopped_by, ..empty(task) }
    }
}

/// A response that is still without text.
fn empty(task: &Task) -> Generated {
    Generated {
        attempt: task.attempt,
        text: String::new(),
        seed: task.seed,
        temperature: task.sampling.temperature,
        tokens: 0,
        finish_reason: FinishReason::Error,
        stopped_by: None,
        error: None,
    }
}

fn failed(task: &Task, error: String) -> Generated {
    Generated { error: Some(error), ..empty(task) }
}
