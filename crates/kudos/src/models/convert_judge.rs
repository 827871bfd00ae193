//! A judge from a language model, without training: each response is put into a question, and the score is the log odds of
//! the answer yes over the answer no.
//!
//! The judge is a `…ForSequenceClassification` of the model's family like any other. Its template asks the question
//! (`text::judge_template`), its output layer is the difference of two rows of the model's head ([`TokenHead`]), and all
//! other tensors are the model's, in the types that they have there. So it is scored, evaluated, trained and served as
//! other judges are, here and in transformers.

use super::reward_config::{RewardConfig, config_of_new_judge};
use super::reward_model::RewardModel;
use super::scoring::{Workspace, features_each};
use super::source::TokenizerDir;
use super::token_head::{ConvertError, Origin, TokenHead};
use crate::data::{ASSISTANT, Content, Message, USER};
use crate::nn::weights::{Entered, write_each};
use crate::nn::{ParameterSpec, Role};
use crate::text::{
    Asked, Day, EncodeSettings, Encoded, Encoder, Prompter, Rendering, TOKENIZER_CONFIG, TOKENIZER_FILES, TextError,
    Truncation, judge_template, pad_for_judge, set_template, template_of, with_max_length,
};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::path::Path;

/// What is asked of a model.
pub struct ConvertSettings<'a> {
    /// Its name, for `reward.json`.
    pub base: &'a str,
    /// How prompt and response are put before it.
    pub asked: Asked<'a>,
    /// The answers no and yes; `None` for `No` and `Yes`, with or without a space before them.
    pub answers: Option<[&'a str; 2]>,
    /// Most tokens of a text; `None` for [`DEFAULT_LENGTH`], or as many as the model takes.
    pub max_length: Option<usize>,
}

/// Most tokens of a text unless it is said.
pub const DEFAULT_LENGTH: usize = 4096;

/// A judge that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// Its class.
    pub class: String,
    /// The answers, no and yes.
    pub answers: [String; 2],
    /// Most tokens of a text.
    pub max_length: usize,
    /// How much of the model's next token the two answers are, on samples: near 1 where the template asks what the model
    /// answers.
    pub share: f64,
    /// What the model would write most likely after the last sample, and how likely that is.
    pub likeliest: (String, f64),
    /// What to know of it, one line each.
    pub notes: Vec<String>,
}

/// Below this share of the next token, the template hardly asks for the answers.
const LITTLE: f64 = 0.1;

/// A token that Llama 3's tokenizer keeps for padding.
const SPARE_PAD: &str = "<|finetune_right_pad_id|>";

/// The answers unless others are asked for: at the start of a line or a turn, and within a line.
const ANSWERS: [[&str; 2]; 2] = [["No", "Yes"], [" No", " Yes"]];

const SAMPLES: [[&str; 2]; 2] = [
    ["What is the capital of France?", "The capital of France is Paris."],
    ["Name three colours.", "I do not know what you mean."],
];

/// Makes a judge of a model, a directory or a `.gguf` file, in an empty directory.
///
/// # Errors
/// [`ConvertError`] for a model that is of no family of judges or has no logits, a template that cannot be rendered,
/// answers that are not one token each, and a directory that cannot be written.
pub fn convert_judge(model: &Path, dir: &Path, settings: &ConvertSettings) -> Result<Converted, ConvertError> {
    let origin = Origin::open(model)?;
    let mut config = config_of_new_judge(&origin.judge.config, &[]);
    write_json(dir, "config.json", &config)?;
    let max_length = settings.max_length.unwrap_or(DEFAULT_LENGTH.min(origin.config().positions));
    write_text(model, dir, settings.asked, max_length)?;
    let prompter = Prompter::load(dir)?;
    let (answers, tokens) = answers(&prompter, settings.answers)?;
    let encode = EncodeSettings::new(Rendering::Chat, max_length, Truncation::LongestFirst);
    let encoder = Encoder::load_for_training(dir, encode, Day::DEFAULT)?;
    let samples = samples(&encoder)?;
    let last = samples.iter().filter_map(|sample| sample.ids.last().copied()).next();
    let spare = encoder.token_id(SPARE_PAD);
    let pad = pad_for_judge(last, encoder.pad_token_id(), spare);
    config.insert("pad_token_id".into(), pad.into());
    write_json(dir, "config.json", &config)?;
    write_json(dir, "reward.json", &reward(&encoder, settings.base, &answers, tokens))?;
    write_weights(&dir.join("model.safetensors"), &origin, &origin.head(tokens)?)?;
    write(dir, "README.md", card(settings.base, &answers).as_bytes())?;
    let judge = RewardModel::load(dir, None)?;
    let (share, likeliest) = share(&origin, &judge, &samples, tokens)?;
    let mut notes = notes(&origin, &answers, share, &likeliest);
    notes.extend(encoder.notes().iter().cloned());
    Ok(Converted { class: class_of(&config), answers, max_length, share, likeliest, notes })
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), ConvertError> {
    let path = dir.join(name);
    crate::files::write(&path, bytes).map_err(|source| ConvertError::Io { path, source })
}

fn write_json(dir: &Path, name: &str, json: &Map<String, Value>) -> Result<(), ConvertError> {
    write(dir, name, format!("{:#}\n", Value::Object(json.clone())).as_bytes())
}

/// The tokenizer, with the template that asks.
fn write_text(model: &Path, dir: &Path, asked: Asked, max_length: usize) -> Result<(), ConvertError> {
    let files = TokenizerDir::of(model)?;
    for name in TOKENIZER_FILES {
        let (from, to) = (files.path().join(name), dir.join(name));
        if from.exists() {
            std::fs::copy(&from, &to).map_err(|source| ConvertError::Io { path: from, source })?;
        }
    }
    let (own, opening) = (template_of(dir)?, Prompter::load(dir)?.opening_token());
    set_template(dir, &judge_template(asked, own.as_deref(), opening.as_deref()))?;
    let path = dir.join(TOKENIZER_CONFIG);
    let bytes = std::fs::read(&path).unwrap_or_default();
    let limited = with_max_length(&bytes, max_length);
    let malformed = |found| TextError::Malformed { path: path.clone(), expected: "a JSON object", found };
    write(dir, TOKENIZER_CONFIG, &limited.map_err(malformed)?)
}

/// The answers and their tokens, after the template.
fn answers(prompter: &Prompter, asked: Option<[&str; 2]>) -> Result<([String; 2], [u32; 2]), ConvertError> {
    let [prompt, response] = SAMPLES[0];
    let messages = [(USER, prompt), (ASSISTANT, response)];
    let messages = messages.map(|(role, content)| Message { role: role.into(), content: content.into() });
    let text = prompter.render_chat(&messages, false)?;
    let tokens = |[no, yes]: [&str; 2]| -> Result<_, ConvertError> {
        let found = [prompter.answer_token(&text, no)?, prompter.answer_token(&text, yes)?];
        match found {
            [a, b] if a == b => Err(ConvertError::OneToken { no: no.into(), yes: yes.into(), token: a }),
            found => Ok(([no.to_owned(), yes.to_owned()], found)),
        }
    };
    match asked {
        Some(asked) => tokens(asked),
        None => {
            let [first, second] = ANSWERS;
            let [usual, other] = if prompter.begins_anew(&text)? { [first, second] } else { [second, first] };
            tokens(usual).or_else(|error| tokens(other).map_err(|_| error))
        }
    }
}

fn samples(encoder: &Encoder) -> Result<Vec<Encoded>, ConvertError> {
    let encode = |[prompt, response]: [&str; 2]| {
        let text = |text: &str| Content::Text(text.into());
        Ok(encoder.encode(Some(&text(prompt)), &text(response))?)
    };
    SAMPLES.into_iter().map(encode).collect()
}

fn reward(encoder: &Encoder, base: &str, answers: &[String; 2], tokens: [u32; 2]) -> Map<String, Value> {
    let mut reward = RewardConfig::new(encoder.settings().clone());
    reward.base = base.into();
    reward.recipe.insert("answers".into(), json!(answers));
    reward.recipe.insert("answer_tokens".into(), json!(tokens));
    let json = serde_json::to_value(reward).expect("plain data");
    json.as_object().cloned().unwrap_or_default()
}

fn class_of(config: &Map<String, Value>) -> String {
    config["architectures"][0].as_str().unwrap_or_default().into()
}

/// Writes the judge's tensors, with one in memory at a time.
fn write_weights(path: &Path, origin: &Origin, head: &TokenHead) -> Result<(), ConvertError> {
    let specs: Vec<&ParameterSpec> =
        origin.judge.parameters.specs().iter().filter(|spec| spec.role != Role::Output).collect();
    let shifted = format!("{}.bias", origin.config().names.final_norm);
    let mut tensors = Vec::new();
    for spec in &specs {
        let own = origin.dtype(&spec.name)?;
        let dtype = if head.shift != 0.0 && spec.name == shifted { "F32" } else { own };
        tensors.push(Entered { name: spec.name.clone(), dtype, shape: spec.shape.clone() });
    }
    tensors.push(Entered { name: "score.weight".into(), dtype: "F32", shape: vec![1, head.weight.len()] });
    write_each(path, &tensors, &[], |index| -> Result<_, ConvertError> {
        let Entered { name, dtype, shape } = &tensors[index];
        let mut values = match specs.get(index) {
            Some(_) => origin.read(name, shape)?,
            None => head.weight.clone(),
        };
        if head.shift != 0.0 && *name == shifted {
            shift(&mut values, head);
        }
        Ok(Cow::Owned(bytes(&values, dtype)))
    })
}

/// Adds the shift to every score. The head has no bias, but it alone reads the last norm, whose bias can hold it:
/// w · (b + w · shift / w·w) = w · b + shift.
fn shift(bias: &mut [f32], head: &TokenHead) {
    let square: f64 = head.weight.iter().map(|w| f64::from(*w) * f64::from(*w)).sum();
    for (bias, weight) in bias.iter_mut().zip(&head.weight) {
        *bias = (f64::from(*bias) + f64::from(*weight) * f64::from(head.shift) / square) as f32;
    }
}

/// Values as they lie in a file. Those of a 16-bit tensor have 16 bits, so nothing is rounded.
fn bytes(values: &[f32], dtype: &str) -> Vec<u8> {
    match dtype {
        "BF16" => values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect(),
        "F16" => values.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

/// How much of the next token the answers are, on the mean of the samples; and the likeliest token after the last one.
fn share(
    origin: &Origin,
    judge: &RewardModel,
    samples: &[Encoded],
    tokens: [u32; 2],
) -> Result<(f64, (String, f64)), ConvertError> {
    let features = features_each(&judge.model, samples, &mut Workspace::default());
    let features = super::all_or_first(features)?;
    let (rows, biases) = origin.logits()?;
    let (mut share, mut likeliest) = (0.0, (0, 0.0));
    for state in &features {
        let words = probabilities(&rows, biases.as_deref(), state, cap(origin));
        share += tokens.iter().map(|token| words[*token as usize]).sum::<f64>() / features.len() as f64;
        let best = words.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        likeliest = best.map_or(likeliest, |(id, chance)| (id as u32, *chance));
    }
    let (id, chance) = likeliest;
    Ok((share, (judge.encoder.token(id).unwrap_or_else(|| id.to_string()), chance)))
}

/// The cap of the logits, in families that have one.
fn cap(origin: &Origin) -> Option<f64> {
    origin.config().json.get("final_logit_softcapping").and_then(Value::as_f64)
}

fn probabilities(rows: &[f32], biases: Option<&[f32]>, state: &[f32], cap: Option<f64>) -> Vec<f64> {
    let logit = |(word, row): (usize, &[f32])| {
        let product: f64 = row.iter().zip(state).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let logit = product + biases.map_or(0.0, |biases| f64::from(biases[word]));
        cap.map_or(logit, |cap| cap * (logit / cap).tanh())
    };
    let logits: Vec<f64> = rows.chunks_exact(state.len()).enumerate().map(logit).collect();
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|logit| (logit - top).exp()).sum();
    logits.into_iter().map(|logit| (logit - top).exp() / total).collect()
}

fn notes(origin: &Origin, [no, yes]: &[String; 2], share: f64, likeliest: &(String, f64)) -> Vec<String> {
    let mut notes = Vec::new();
    if share < LITTLE {
        let (token, chance) = likeliest;
        notes.push(format!(
            "after this template the model writes {no:?} or {yes:?} in {:.1} % of cases, and most likely {token:?} \
             ({:.0} %): the scores may mean little; try other answers or another template",
            100.0 * share,
            100.0 * chance
        ));
    }
    if let Some(cap) = cap(origin) {
        notes.push(format!(
            "the model caps its logits at {cap}, which no score does: scores are the log odds before the cap"
        ));
    }
    notes
}

/// The model card.
fn card(base: &str, [no, yes]: &[String; 2]) -> String {
    format!(
        "# A judge made of {base}\n\n\
         It was not trained. `chat_template.jinja` asks the model about a response.\n\
         The score is the log odds of its answer {yes:?} over {no:?}, in logits.\n\n\
         `kudos eval DATA --judge DIR` says how good it is on your data.\n\
         `kudos train DATA --base DIR` trains it further.\n\
         `kudos convert-judge` wrote it.\n"
    )
}
