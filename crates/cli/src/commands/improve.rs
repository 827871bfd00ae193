//! `kudos improve`: a generator is made better by its judge.

use super::generate::{model_path, report_prompts};
use super::train::{bytes, note};
use super::{Global, choice, load_judge, wrong_usage};
use crate::display::Progress;
use crate::interrupt;
use anyhow::{Context, bail, ensure};
use kudos::generate::{LocalSettings, Prompt, PromptList, fingerprint, read_prompts};
use kudos::improve::{
    About, Algorithm, Asked, Event, ImproveError, Improver, Job, Judges, Report, clear_model, holds_model,
};
use kudos::models::DecoderConfig;
use kudos::nn::Precision;
use kudos::random::Stream;
use kudos::train::LearningRateSchedule;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Make a generator better by its judge.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos improve --model smollm2-135m-instruct --prompts prompts.txt -o better
  kudos improve --model m --prompts p.jsonl --judge judge --check-judge other \\
      -o better --steps 100 -n 8 --max-new-tokens 64
  kudos generate --model better --prompts prompts.txt -o answers.csv

Each step draws N responses to a prompt, judges them, and makes those likelier
that are better than the others. Some prompts are held out: the report,
README.md in the output, compares the answers to them before and after.")]
pub struct Args {
    /// The model to start from, which is not changed: a directory, a .gguf file or a name that `kudos pull` knows
    #[arg(long, value_name = "M")]
    model: String,
    /// Prompts: a text file with one a line, or CSV, JSONL, JSON or Parquet with a column `prompt`
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    /// The judge whose score is to rise: a directory, or a name that `kudos pull` knows
    #[arg(long, value_name = "JUDGE", default_value = crate::boxed::NAME)]
    judge: String,
    /// A second judge, which only looks: the report says whether it agrees that the answers are better
    #[arg(long, value_name = "JUDGE")]
    check_judge: Option<String>,
    /// Directory for the model, its report and the run
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// What is learnt of the responses to a prompt: rloo, all of them by their score, or best-of-n
    #[arg(long, default_value = "rloo", value_parser = choice::<Algorithm>, value_name = "NAME")]
    algorithm: Algorithm,
    /// Steps of the optimizer [default: 50]
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Responses to each prompt of a step [default: 8]
    #[arg(short, value_name = "N")]
    n: Option<usize>,
    /// Prompts a step [default: 1]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Learning rate of the first step [default: 2e-5; best-of-n: 1e-4]
    #[arg(long, value_name = "X")]
    learning_rate: Option<f64>,
    /// Course of the learning rate: linear, cosine or constant [default: linear]
    #[arg(long, value_parser = choice::<LearningRateSchedule>, value_name = "NAME")]
    schedule: Option<LearningRateSchedule>,
    /// Weight of the KL divergence from the start model in the loss [default: 0]
    #[arg(long, value_name = "X")]
    kl: Option<f64>,
    /// Stop where that divergence goes beyond so many nats a token [default: 1]
    #[arg(long, value_name = "X")]
    max_kl: Option<f64>,
    /// Tokens after which a response is cut [default: 64]
    #[arg(long, alias = "max-tokens", value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Randomness of the responses [default: 1, the model's own]
    #[arg(long, value_name = "X")]
    temperature: Option<f32>,
    /// Seed of all random choices [default: 42]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Prompts to hold out and be measured on [default: a fifth, at most 64]
    #[arg(long, value_name = "N", conflicts_with = "eval")]
    held_out: Option<usize>,
    /// Prompts to be measured on, instead of held-out ones
    #[arg(long, value_name = "FILE")]
    eval: Option<PathBuf>,
    /// Responses to each of these, before and after [default: 4]
    #[arg(long, value_name = "N")]
    held_out_samples: Option<usize>,
    /// Steps between checkpoints; 0 writes none [default: 25]
    #[arg(long, value_name = "N")]
    save_every: Option<u64>,
    /// Memory that the run may take, as 3GB: layers are computed twice as far as that asks [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory: Option<u64>,
    /// Arithmetic of learning: f32 or bf16 [default: the fastest here]
    #[arg(long, value_parser = choice::<Precision>, value_name = "NAME")]
    precision: Option<Precision>,
    /// Give the model the bare prompt, without its chat template
    #[arg(long)]
    raw: bool,
    /// System message of the chat
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// Continue the run in the output directory from its last checkpoint
    #[arg(long)]
    resume: bool,
    /// Replace what the output directory holds
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Most prompts that are held out where nothing is said.
const HELD_OUT: usize = 64;

impl Args {
    fn asked(&self) -> Asked {
        Asked {
            algorithm: self.algorithm,
            steps: self.steps,
            n: self.n,
            batch_size: self.batch_size,
            learning_rate: self.learning_rate,
            schedule: self.schedule,
            kl: self.kl,
            max_kl: self.max_kl,
            max_new_tokens: self.max_new_tokens,
            temperature: self.temperature,
            seed: self.seed,
            held_out_samples: self.held_out_samples,
            save_every: self.save_every,
            memory: self.memory,
        }
    }
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    check(args)?;
    let (train, held_out) = prompts(args, global)?;
    let start = model_path(&args.model)?;
    let judge = load_judge(&args.judge, None)?;
    let check = args.check_judge.as_ref().map(|name| load_judge(name, None)).transpose()?;
    let judges = Judges { judge: Arc::clone(judge.judge()), check: check.map(|check| Arc::clone(check.judge())) };
    let sha = fingerprint_of(args, &start, (&train, &held_out))?;
    let counts = [train.len(), held_out.len()];
    let job = Job {
        start,
        prompts: train,
        held_out,
        local: LocalSettings { raw: args.raw, system: args.system.clone(), sequences: 0 },
        dir: args.output.clone(),
        fingerprint: sha,
    };
    let mut improver = open(args, job, judges)?;
    announce(&improver, args, counts, global);
    if args.resume {
        let step = improver.resume()?;
        note(global, &format!("resuming after step {step}"));
    }
    let prompts = args.prompts.display().to_string();
    let about =
        About { model: &args.model, judge: &args.judge, check_judge: args.check_judge.as_deref(), prompts: &prompts };
    conclude(&watched(&mut improver, &about, global)?, args, global)
}

/// Refuses what makes no sense before anything is read.
fn check(args: &Args) -> anyhow::Result<()> {
    if let Err(error) = args.asked().settings(Precision::F32) {
        wrong_usage!("{error}");
    }
    if args.precision == Some(Precision::Int8) {
        wrong_usage!("--precision int8: expected f32 or bf16, in which a model can learn");
    }
    if !args.resume && !args.overwrite && holds_model(&args.output) {
        bail!(
            "{}: it already holds a model or a run; --resume continues it, --overwrite replaces it, -o names another",
            args.output.display()
        );
    }
    Ok(())
}

/// Prompts to learn from, and prompts to be measured on, which are not among them.
fn prompts(args: &Args, global: &Global) -> anyhow::Result<(Vec<Prompt>, Vec<Prompt>)> {
    let list = read_prompts(&args.prompts)?;
    report_prompts(&list, global);
    let PromptList { mut prompts, .. } = list;
    if let Some(path) = &args.eval {
        let eval = read_prompts(path)?;
        report_prompts(&eval, global);
        let before = prompts.len();
        prompts.retain(|prompt| eval.prompts.iter().all(|other| other.content != prompt.content));
        ensure!(!prompts.is_empty(), "{}: all its prompts are in {} too", args.prompts.display(), path.display());
        if prompts.len() < before {
            note(global, &format!("{} prompts are in --eval too, and are not learnt from", before - prompts.len()));
        }
        return Ok((prompts, eval.prompts));
    }
    let wanted = args.held_out.unwrap_or((prompts.len() / 5).clamp(2, HELD_OUT));
    ensure!(
        wanted < prompts.len(),
        "{}: expected more than {wanted} prompts, found {}: {wanted} are held out; add prompts, or set --held-out",
        args.prompts.display(),
        prompts.len()
    );
    Stream::named(args.seed.unwrap_or(42), "held-out prompts").shuffle(&mut prompts);
    let train = prompts.split_off(wanted);
    Ok((train, prompts))
}

/// What decides the run's numbers, beside its settings.
fn fingerprint_of(args: &Args, start: &Path, (train, held_out): (&[Prompt], &[Prompt])) -> anyhow::Result<String> {
    let of = |path: &Path| fingerprint(path).with_context(|| path.display().to_string());
    let judge = |name: &String| of(&super::resolve(name)?);
    let sha = |prompts: &[Prompt]| PromptList { prompts: prompts.to_vec(), ..PromptList::default() }.sha256();
    let identity = json!({
        "model": of(start)?,
        "judge": judge(&args.judge)?,
        "check_judge": args.check_judge.as_ref().map(judge).transpose()?,
        "prompts": sha(train),
        "held_out": sha(held_out),
        "raw": args.raw,
        "system": args.system,
    });
    Ok(identity.to_string())
}

/// Loads the model, and refuses a precision that it cannot be trained in.
fn open(args: &Args, mut job: Job, judges: Judges) -> anyhow::Result<Improver> {
    ensure!(
        !same(&job.start, &args.output),
        "{}: it is the start model, which is not replaced; -o names another directory",
        args.output.display()
    );
    if job.start.is_dir() {
        DecoderConfig::read(&job.start).with_context(|| format!("cannot start from {}", args.model))?;
    }
    job.local.raw |= !has_template(&job.start).with_context(|| format!("cannot start from {}", args.model))?;
    if job.local.raw && job.local.system.is_some() {
        bail!("--system: {} has no chat template to put it into", args.model);
    }
    if args.overwrite {
        clear_model(&args.output)?;
    }
    let precision = args.precision.unwrap_or_else(Precision::best);
    let improver = Improver::new(job, &args.asked(), precision, judges)
        .with_context(|| format!("cannot improve {}", args.model))?;
    let got = improver.settings().precision;
    ensure!(
        args.precision.is_none_or(|asked| asked == got),
        "--precision bf16: expected a processor with AVX-512 BF16 and layers of even sizes; --precision f32 runs anywhere"
    );
    Ok(improver)
}

fn has_template(start: &Path) -> Result<bool, ImproveError> {
    Ok(kudos::generate::Wording::prompter(start)?.has_chat_template())
}

fn same(start: &Path, output: &Path) -> bool {
    start.canonicalize().is_ok_and(|start| output.canonicalize().is_ok_and(|output| output == start))
}

fn announce(improver: &Improver, args: &Args, [train, held_out]: [usize; 2], global: &Global) {
    let settings = improver.settings();
    improver.notes().iter().for_each(|line| note(global, line));
    note(
        global,
        &format!(
            "{train} prompts to learn from, {held_out} held out; judge {}{}\n{} steps of {} × {} responses of up to {} tokens, {}, {} threads\nmemory: {}",
            args.judge,
            args.check_judge.as_ref().map_or(String::new(), |name| format!(", second judge {name}")),
            settings.steps,
            settings.batch_size,
            settings.n,
            settings.max_new_tokens,
            settings.precision,
            kernels::parallel::threads(),
            improver.memory,
        ),
    );
}

/// Runs the loop with a progress display.
fn watched(improver: &mut Improver, about: &About, global: &Global) -> anyhow::Result<Report> {
    let mut progress = Progress::new(Some(improver.settings().steps), "steps", global.quiet);
    progress.skip(improver.steps_done());
    let report = improver.run(about, &mut |event| {
        match event {
            Event::Drawing => {}
            Event::Before(before) => {
                let scores: Vec<f64> = before.answers.iter().flatten().filter_map(|answer| answer.reward).collect();
                let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
                progress.say(&format!("before: mean score {mean:.3} of {} held-out responses", scores.len()));
            }
            Event::Step(step) => progress.set(
                step.step,
                &format!(
                    "score {:.3} ± {:.3}  KL {:.4}  {:.0} tokens  {:.1} s a step",
                    step.mean_reward, step.std_reward, step.kl, step.length, step.seconds
                ),
            ),
        }
        interrupt::flow()
    });
    progress.finish();
    Ok(report?)
}

/// Says what came of it. A run that collapsed is a failure, though its model is there.
fn conclude(report: &Report, args: &Args, global: &Global) -> anyhow::Result<()> {
    if args.json {
        outln!("{}", serde_json::to_string_pretty(report)?);
    }
    let dir = args.output.display();
    if let Some(why) = &report.stopped {
        bail!(
            "{why}; {dir} has the model of step {}: lower --learning-rate, or set --kl to hold it to the start model",
            report.kept
        );
    }
    if !global.quiet {
        say!("{}", report.verdict);
        say!("{dir}: the model; README.md there shows answers before and after");
    }
    Ok(())
}
