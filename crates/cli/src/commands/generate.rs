//! `kudos generate`: several different responses to each prompt, ready to be ranked.

use super::train::note;
use super::{Global, choice, resolve, wrong_usage};
use crate::display::{Progress, one_line};
use crate::interrupt;
use anyhow::{Context, bail, ensure};
use kudos::data::Content;
use kudos::generate::{
    Attempt, Distinct, Diversity, Endpoint, EndpointSettings, Event, FinishReason, Generated, Journal, LocalModel,
    LocalSettings, MAX_RETRIES, Prompt, PromptList, Sampling, Schedule, Task, Wanted, fingerprint, read_prompts,
    seed_of, shortest, write_output,
};
use kudos::nn::Precision;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Write several responses to each prompt, by a model that runs here or on a server.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos generate --model phi-2.gguf --prompts prompts.txt -n 8 -o answers.csv
  kudos generate --model smollm2-135m-instruct --prompts prompts.jsonl \\
      --temperature 0.6,0.8,1.0 -o answers.jsonl
  kudos generate --model http://127.0.0.1:8000/v1 --model-name llama \\
      --prompts prompts.csv -o answers.parquet

Each finished response is kept at once in a file beside the output, whose name
ends in .progress.jsonl. After an interruption the same command continues.
A model that runs here gives the same texts for the same settings.")]
pub struct Args {
    /// A directory, a .gguf file, a name that `kudos pull` knows, or the address of a server that speaks
    /// OpenAI's protocol (https://host/v1)
    #[arg(long, value_name = "M")]
    model: String,
    /// Prompts: a text file with one a line, or CSV, JSONL, JSON or Parquet with a column `prompt`
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    /// Responses to each prompt
    #[arg(short, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    n: u32,
    /// File to write: .csv, .jsonl, .json or .parquet
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Also print each prompt with its responses, in JSON, as soon as they are all there: for `kudos rank -`
    #[arg(long, conflicts_with = "json")]
    pipe: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Seed of all random choices
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Tokens after which a response is cut
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: u32,
    /// Text that ends a response and is not part of it; may be given again for another
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Which responses to a prompt count as equal and are written anew: exact, near or off
    #[arg(long, default_value = "exact", value_parser = choice::<Distinct>, value_name = "WHICH")]
    distinct: Distinct,
    /// Give the model the bare prompt, without its chat template
    #[arg(long)]
    raw: bool,
    /// System message of the chat
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// How a model that runs here keeps its weights: int8, bf16 or f32
    #[arg(long, default_value = "int8", value_parser = choice::<Precision>, value_name = "NAME")]
    precision: Precision,
    /// Texts that a model that runs here writes at once
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    sequences: u16,
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Start anew, without what an interrupted run has finished
    #[arg(long)]
    restart: bool,
    /// Replace an existing output
    #[arg(long)]
    overwrite: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

// How tokens are chosen. (A doc comment would become the command's description.)
#[derive(Debug, clap::Args)]
struct SamplingArgs {
    /// Randomness; 0 takes the likeliest token. Several values take turns over a prompt's responses
    #[arg(long, default_value = "0.8", value_delimiter = ',', value_parser = number::<0, 100>, value_name = "X,…")]
    temperature: Vec<f32>,
    /// Draw from the likeliest tokens that together reach this probability; 1 keeps all
    #[arg(long, default_value = "0.92", value_parser = number::<0, 1>, value_name = "P")]
    top_p: f32,
    /// Draw from the K likeliest tokens; 0 keeps all
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: usize,
    /// Draw from tokens at least P times as likely as the likeliest; 0 keeps all
    #[arg(long, default_value = "0", value_parser = number::<0, 1>, value_name = "P")]
    min_p: f32,
    /// Make tokens less likely that occurred before; 1 changes nothing
    #[arg(long, default_value = "1.2", value_parser = number::<0, 100>, value_name = "X")]
    repetition_penalty: f32,
}

// What concerns servers only. (A doc comment would become the command's description.)
#[derive(Debug, clap::Args)]
struct EndpointArgs {
    /// Name of the model on the server [default: its only model]
    #[arg(long, value_name = "NAME")]
    model_name: Option<String>,
    /// Environment variable that holds the server's key
    #[arg(long, default_value = "OPENAI_API_KEY", value_name = "NAME")]
    key_variable: String,
    /// Requests at a time
    #[arg(long, default_value_t = 4, value_name = "N")]
    concurrency: usize,
    /// Seconds that one request may take
    #[arg(long, default_value_t = 120, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// How often a failed request is repeated
    #[arg(long, default_value_t = 5, value_name = "N")]
    retries: u32,
}

/// A number between two bounds.
fn number<const LOW: i32, const HIGH: i32>(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (LOW as f32..=HIGH as f32).contains(&value) => Ok(value),
        _ => Err(format!("expected a number from {LOW} to {HIGH}")),
    }
}

/// Who writes.
enum Writer {
    Local(Box<LocalModel>, LocalSettings),
    Remote(Endpoint),
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    if args.sampling.repetition_penalty == 0.0 {
        wrong_usage!("--repetition-penalty 0: expected a number above 0; 1 changes nothing");
    }
    if args.output == Path::new("-") {
        wrong_usage!("-o -: expected a file, because finished responses are kept beside it");
    }
    let list = read_prompts(&args.prompts)?;
    report_prompts(&list, global);
    if args.restart {
        Journal::discard(&args.output)?;
    }
    let continues = Journal::path_of(&args.output).exists();
    if args.output.exists() && !continues && !args.overwrite && !args.restart {
        bail!("{}: it exists; --overwrite replaces it", args.output.display());
    }
    let (mut writer, name, identity) = open(args, global)?;
    let (mut journal, finished) = Journal::open(&args.output, &settings(args, &list, &identity))?;
    if !finished.is_empty() && !global.quiet {
        say!("continuing: {} responses are there already", finished.len());
    }
    let wanted = Wanted { n: args.n as usize, distinct: args.distinct, max_retries: MAX_RETRIES };
    let mut schedule = Schedule::new(list.prompts.len(), wanted, finished);
    let outcome = draw(args, global, &mut writer, &list.prompts, &mut schedule, &mut journal)?;
    let answers = schedule.answers();
    write_output(&args.output, &list.prompts, &answers, &name)?;
    let failed = answers.iter().filter(|one| one.finish_reason == FinishReason::Error).count();
    if schedule.is_complete() && failed == 0 {
        journal.finish()?;
    }
    summarise(args, global, &list.prompts, &schedule, &outcome)?;
    let output = args.output.display();
    ensure!(
        schedule.is_complete(),
        "interrupted: {output} holds {} responses; the same command continues",
        answers.len()
    );
    if let Some(first) = answers.iter().find_map(|one| one.error.as_deref()) {
        bail!(
            "{output}: {failed} of {} responses failed (column `error`; the same command tries them again); the first: {first}",
            answers.len()
        );
    }
    Ok(())
}

/// Says which rows have no prompt, and how many repeat one.
pub(super) fn report_prompts(list: &PromptList, global: &Global) {
    for problem in &list.problems {
        say!("not a prompt: {problem}");
    }
    if list.repeated > 0 && !global.quiet {
        say!("{} rows repeat an earlier prompt; each prompt is asked once", list.repeated);
    }
}

/// The writer, what the output calls it, and what decides its texts.
fn open(args: &Args, global: &Global) -> anyhow::Result<(Writer, String, Value)> {
    if args.model.starts_with("http://") || args.model.starts_with("https://") {
        return open_endpoint(args);
    }
    ensure!(
        args.endpoint.model_name.is_none(),
        "--model-name belongs to an endpoint, and --model {} is none",
        args.model
    );
    let path = model_path(&args.model)?;
    let name = path.file_stem().filter(|_| path.is_file()).or(path.file_name());
    let name = name.map_or_else(|| args.model.clone(), |name| name.to_string_lossy().into_owned());
    let model = LocalModel::load(&path, args.precision).with_context(|| format!("cannot load {}", args.model))?;
    let raw = args.raw || !model.has_chat_template();
    if raw && args.system.is_some() {
        bail!("--system: {} has no chat template to put it into", args.model);
    }
    if !global.quiet {
        let how = if raw { "prompts as they are" } else { "through its chat template" };
        let threads = kernels::parallel::threads();
        say!("{name}: weights in {}, {threads} threads, {how}, context {}", model.precision(), model.context());
    }
    model.notes().iter().for_each(|line| note(global, line));
    let settings = LocalSettings { raw, system: args.system.clone(), sequences: args.sequences.into() };
    let files = fingerprint(&path).with_context(|| path.display().to_string())?;
    let precision = args.precision;
    let identity = json!({"model": name, "files": files, "precision": precision, "raw": raw, "ends": model.ends()});
    Ok((Writer::Local(Box::new(model), settings), name, identity))
}

/// As [`open`], for a server; without --model-name, the only model that it has.
fn open_endpoint(args: &Args) -> anyhow::Result<(Writer, String, Value)> {
    let settings = |name: &str| EndpointSettings {
        key_variable: args.endpoint.key_variable.clone(),
        concurrency: args.endpoint.concurrency,
        timeout: Duration::from_secs(args.endpoint.timeout),
        max_retries: args.endpoint.retries,
        chat: !args.raw,
        system: args.system.clone(),
        ..EndpointSettings::new(&args.model, name)
    };
    let name = match &args.endpoint.model_name {
        Some(name) => name.clone(),
        None => {
            let models = Endpoint::new(settings("unknown"))?.models()?;
            let [only] = models.as_slice() else {
                bail!("--model {}: it has the models {}; choose one with --model-name", args.model, models.join(", "));
            };
            only.clone()
        }
    };
    let identity = json!({"endpoint": args.model, "model": name, "raw": args.raw});
    Ok((Writer::Remote(Endpoint::new(settings(&name))?), name, identity))
}

/// A few responses of a local model to one prompt, with the default settings.
pub fn responses(model: &str, prompt: &Content, n: usize) -> anyhow::Result<Vec<String>> {
    let mut model = LocalModel::load(&model_path(model)?, Precision::Int8)?;
    let settings = LocalSettings { raw: !model.has_chat_template(), system: None, sequences: n };
    let prompts = [Prompt { content: prompt.clone(), place: "the prompt".into() }];
    let sampling = Sampling::default();
    let task = |index| {
        let attempt = Attempt { prompt: 0, index, retry: 0 };
        Task { attempt, prompt: &prompts[0], sampling, seed: seed_of(0, attempt), stop: &[], max_new_tokens: 100 }
    };
    let mut texts = vec![String::new(); n];
    let _ = model.run(&prompts, &settings, (0..n).map(task), |event| {
        if let Event::Done(one) = event {
            texts[one.attempt.index] = one.text;
        }
        interrupt::flow().map_continue(|()| Vec::new())
    });
    Ok(texts)
}

/// The directory or .gguf file of a model; a directory that holds one .gguf file and no config is that file.
pub(super) fn model_path(name: &str) -> anyhow::Result<PathBuf> {
    let given = Path::new(name);
    let path = if given.is_file() { given.to_path_buf() } else { resolve(name)? };
    if !path.is_dir() || path.join("config.json").exists() {
        return Ok(path);
    }
    let entries = std::fs::read_dir(&path).with_context(|| path.display().to_string())?;
    let is_gguf = |path: &PathBuf| path.extension().is_some_and(|end| end == "gguf");
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_gguf).collect();
    match files.len() {
        1 => Ok(files.remove(0)),
        0 => bail!("{}: expected config.json or a .gguf file, found neither", path.display()),
        n => bail!("{}: it holds {n} .gguf files; name one of them", path.display()),
    }
}

/// Everything that decides the texts.
fn settings(args: &Args, list: &PromptList, identity: &Value) -> Value {
    let sampling = &args.sampling;
    json!({
        "writer": identity,
        "prompts": list.sha256(),
        "n": args.n,
        "seed": args.seed,
        "temperature": sampling.temperature.iter().map(|t| shortest(*t)).collect::<Vec<_>>(),
        "top_p": shortest(sampling.top_p),
        "top_k": sampling.top_k,
        "min_p": shortest(sampling.min_p),
        "repetition_penalty": shortest(sampling.repetition_penalty),
        "max_new_tokens": args.max_new_tokens,
        "stop": args.stop,
        "system": args.system,
        "distinct": args.distinct,
    })
}

/// What a run came to.
#[derive(Default)]
struct Outcome {
    tokens: usize,
    seconds: f64,
}

/// Draws what is missing; every response is in the journal as soon as it is there.
fn draw(
    args: &Args,
    global: &Global,
    writer: &mut Writer,
    prompts: &[Prompt],
    schedule: &mut Schedule,
    journal: &mut Journal,
) -> anyhow::Result<Outcome> {
    let needed: Vec<Attempt> = schedule.needed().collect();
    let task = |attempt: Attempt| task(args, prompts, attempt);
    if args.pipe {
        (0..prompts.len()).for_each(|prompt| pipe(prompts, schedule, prompt));
    }
    let mut run = Drawing {
        piped: args.pipe.then_some(prompts),
        progress: Progress::new(Some(needed.len() as u64), "responses", global.quiet),
        started: Instant::now(),
        outcome: Outcome::default(),
        done: 0,
        failure: None,
    };
    let work: Vec<Task> = needed.into_iter().map(task).collect();
    let on_event = |event: Event| {
        let more = run.take(event, schedule, journal)?;
        ControlFlow::Continue(more.into_iter().map(task).collect())
    };
    let _ = match writer {
        Writer::Local(model, settings) => model.run(prompts, settings, work, on_event),
        Writer::Remote(endpoint) => endpoint.run(work, on_event),
    };
    run.progress.finish();
    run.outcome.seconds = run.started.elapsed().as_secs_f64();
    match run.failure {
        Some(failure) => Err(failure),
        None => Ok(run.outcome),
    }
}

fn task<'a>(args: &'a Args, prompts: &'a [Prompt], attempt: Attempt) -> Task<'a> {
    let sampling = &args.sampling;
    let sampling = Sampling {
        repetition_penalty: sampling.repetition_penalty,
        temperature: sampling.temperature[attempt.index % sampling.temperature.len()],
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
    };
    let (prompt, seed) = (&prompts[attempt.prompt], seed_of(args.seed, attempt));
    Task { attempt, prompt, sampling, seed, stop: &args.stop, max_new_tokens: args.max_new_tokens as usize }
}

/// A run while it goes on.
struct Drawing<'a> {
    /// The prompts, where each is printed when it is complete.
    piped: Option<&'a [Prompt]>,
    progress: Progress,
    started: Instant,
    outcome: Outcome,
    done: u64,
    failure: Option<anyhow::Error>,
}

impl Drawing<'_> {
    /// Takes in an event; returns what has to be drawn in addition.
    fn take(&mut self, event: Event, schedule: &mut Schedule, journal: &mut Journal) -> ControlFlow<(), Vec<Attempt>> {
        let mut more = Vec::new();
        match event {
            Event::Done(one) => {
                if let Err(error) = journal.append(&one) {
                    self.failure = Some(error.into());
                    return ControlFlow::Break(());
                }
                more = self.done(one, schedule);
            }
            Event::Drawn(tokens) => self.outcome.tokens += tokens,
            Event::Note(note) => self.progress.say(&note),
            _ => {}
        }
        self.show();
        interrupt::flow()?;
        ControlFlow::Continue(more)
    }

    fn done(&mut self, one: Generated, schedule: &mut Schedule) -> Vec<Attempt> {
        self.done += 1;
        let prompt = one.attempt.prompt;
        let more = schedule.finish(one);
        if let Some(prompts) = self.piped.filter(|_| more.is_empty()) {
            pipe(prompts, schedule, prompt);
        }
        self.progress.lengthen(more.len() as u64);
        more
    }

    fn show(&mut self) {
        let rate = self.outcome.tokens as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        let message = if self.outcome.tokens > 0 { format!("{rate:.0} tokens/s") } else { String::new() };
        self.progress.set(self.done, &message);
    }
}

/// Prints a prompt with its responses as a row of the kind `groups`, if they are all there. Failed ones are left out.
fn pipe(prompts: &[Prompt], schedule: &Schedule, prompt: usize) {
    let Some(answers) = schedule.complete(prompt) else { return };
    let there = answers.iter().filter(|one| one.finish_reason != FinishReason::Error);
    let responses: Vec<Value> = there.map(|one| json!({"text": one.text})).collect();
    if !responses.is_empty() {
        outln!("{}", json!({"prompt": prompts[prompt].content.to_value(), "responses": responses}));
    }
}

/// Prompts whose diversity is listed.
const LISTED: usize = 20;

fn summarise(
    args: &Args,
    global: &Global,
    prompts: &[Prompt],
    schedule: &Schedule,
    outcome: &Outcome,
) -> anyhow::Result<()> {
    let answers = schedule.answers();
    let of_prompt = |index: usize| {
        let own = answers.iter().filter(|one| one.attempt.prompt == index && one.finish_reason != FinishReason::Error);
        Diversity::of(&own.map(|one| one.text.as_str()).collect::<Vec<_>>())
    };
    let each: Vec<Diversity> = (0..prompts.len()).map(of_prompt).collect();
    if args.json {
        return print_json(args, prompts, &answers, &each, outcome);
    }
    if !global.quiet {
        print_diversity(prompts, &each);
        let repeats = Diversity::over(&each).exact_duplicates;
        let rate = match outcome.tokens {
            0 => String::new(),
            tokens => format!(", {:.0} tokens/s", tokens as f64 / outcome.seconds.max(1e-9)),
        };
        let failed = match ended(&answers, FinishReason::Error) {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        say!(
            "{}: {} responses to {} prompts{failed} in {:.1} s{rate}; {} reached --max-new-tokens; {repeats} repeat another of their prompt",
            args.output.display(),
            answers.len() - ended(&answers, FinishReason::Error),
            prompts.len(),
            outcome.seconds,
            ended(&answers, FinishReason::Length),
        );
    }
    Ok(())
}

/// How many responses ended for this reason.
fn ended(answers: &[&Generated], reason: FinishReason) -> usize {
    answers.iter().filter(|one| one.finish_reason == reason).count()
}

fn print_json(
    args: &Args,
    prompts: &[Prompt],
    answers: &[&Generated],
    each: &[Diversity],
    outcome: &Outcome,
) -> anyhow::Result<()> {
    let one = |(prompt, diversity): (&Prompt, &Diversity)| json!({"prompt": prompt.content.to_value(), "diversity": diversity});
    let summary = json!({
        "output": args.output, "prompts": prompts.len(), "responses": answers.len(),
        "failed": ended(answers, FinishReason::Error), "cut": ended(answers, FinishReason::Length),
        "tokens": outcome.tokens, "seconds": outcome.seconds,
        "tokens_per_second": outcome.tokens as f64 / outcome.seconds.max(1e-9),
        "diversity": Diversity::over(each), "per_prompt": prompts.iter().zip(each).map(one).collect::<Vec<_>>(),
    });
    outln!("{}", serde_json::to_string_pretty(&summary)?);
    Ok(())
}

/// A line for each of the first prompts, and the mean of all.
fn print_diversity(prompts: &[Prompt], each: &[Diversity]) {
    let ratio = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    let line = |one: &Diversity, words: &str| {
        let [d1, d2, similarity] = [one.distinct_1, one.distinct_2, one.mean_similarity].map(ratio);
        say!("{d1:>10}  {d2:>10}  {similarity:>10}  {words}");
    };
    say!("distinct-1  distinct-2  similarity  prompt");
    for (prompt, one) in prompts.iter().zip(each).take(LISTED) {
        let text = prompt.content.to_value();
        let text = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
        line(one, &one_line(&text, 60));
    }
    line(&Diversity::over(each), &format!("mean of {} prompts", prompts.len()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    /// The flags' defaults are those of the library.
    #[test]
    fn defaults_are_in_one_place() {
        let typed = ["generate", "--model", "m", "--prompts", "p", "-o", "o"];
        let sampling = Cli::parse_from(typed).args.sampling;
        let Sampling { repetition_penalty, temperature, top_k, top_p, min_p } = Sampling::default();
        assert_eq!(sampling.temperature, [temperature]);
        assert_eq!((sampling.repetition_penalty, sampling.top_k), (repetition_penalty, top_k));
        assert_eq!((sampling.top_p, sampling.min_p), (top_p, min_p));
    }
}
