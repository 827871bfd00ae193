//! `kudos train`: rankings in, a judge out.
//!
//! | file | subject |
//! |---|---|
//! | `train.rs` | the flags, and a run from end to end |
//! | `train/base.rs` | what it starts from |
//! | `train/data.rs` | the groups to learn from and to be measured with |
//! | `train/progress.rs` | what is said while it runs |
//! | `train/outcome.rs` | what is said at its end, and the report |

mod base;
mod data;
mod outcome;
mod progress;

pub use data::report_problems;
pub(super) use progress::Smooth;

use super::convert_judge::{Answers, two_answers};
use super::data::DataArgs;
use super::{Global, attributes, choice, encode_settings, folds};
use anyhow::{Context, bail};
use base::Base;
use data::{Data, fingerprint, trained_on};
use kudos::models::adapter::{Adapter, LOWER_BASE, attach};
use kudos::models::{AttributeHead, ClassifierSource, LoadOptions, Model, TokenizerDir, is_gguf, load, load_frozen};
use kudos::nn::Precision;
use kudos::nn::weights::INT8_FILE;
use kudos::text::{Day, EncodeSettings, Encoder};
use kudos::train::{
    Asked, Example, FOLD_FILES, Features, Finished, FoldOptions, FoldResult, Given, JudgeFiles, Plan, Recipe, Start,
    Starts, Trainer, clear_judge, holds_judge, plan, resumed_day, resumed_settings, write_judge,
};
use outcome::{conclude, print_json, write_report};
use progress::{announce, watch};
use std::path::{Path, PathBuf};

/// Train a judge on rankings, pairs or comparisons.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos train rankings.csv -o judge
  kudos train train.jsonl --eval test.jsonl --base all-minilm-l6-v2 -o judge
  kudos train rankings.csv --base judge -o better --learning-rate 2e-5
  kudos train pairs.jsonl --recipe trl -o judge      as TRL's RewardTrainer does
  kudos train rated.jsonl --attributes helpfulness,correctness -o judge

A group is a prompt with its responses. A pair is a group of two.")]
pub struct Args {
    /// Files in any layout that Kudos reads; `-` is standard input
    #[arg(required = true, value_name = "DATA")]
    data: Vec<PathBuf>,
    /// What to start from: a model directory, or a name that `kudos pull` knows
    #[arg(long, value_name = "M", default_value = crate::boxed::NAME)]
    base: String,
    /// Directory for the judge
    #[arg(long, short, value_name = "DIR", default_value = "judge")]
    output: PathBuf,
    /// default, or trl: what TRL's RewardTrainer does, for comparison [default: default]
    #[arg(long, value_parser = choice::<Recipe>, value_name = "NAME")]
    recipe: Option<Recipe>,
    /// Loss: bradley-terry or plackett-luce [default: bradley-terry]
    #[arg(long, value_parser = choice::<kudos::train::Loss>, value_name = "NAME")]
    loss: Option<kudos::train::Loss>,
    /// Steps of the optimizer [default: 3 epochs, at least 200; trl: 3 epochs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_steps: Option<u64>,
    /// Passes over the data, instead of --max-steps
    #[arg(long, value_name = "X")]
    epochs: Option<f64>,
    /// Groups a batch [default: as many as have about 4 responses; trl: 4]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Batches whose gradients make one step [default: 1]
    #[arg(long, value_name = "N")]
    accumulate: Option<usize>,
    /// Responses of a group that are read together; a larger group is read in parts [default: 8]
    #[arg(long, value_name = "K")]
    group_size: Option<usize>,
    /// Peak learning rate [default: 5e-5; up to 1e-4 for a new head on a base narrower than 768]
    #[arg(long, value_name = "X")]
    learning_rate: Option<f64>,
    /// Factor on the learning rate from each layer to the one below [default: 1]
    #[arg(long, value_name = "X")]
    layer_decay: Option<f64>,
    /// Lower layers of a BERT, MPNet or decoder to keep under a new head [default: half of them, at least 3; all of a
    /// BERT with a pretrained pooler, and with --lora]
    #[arg(long, value_name = "N")]
    keep_layers: Option<usize>,
    /// Last layers of the base to start anew instead of as pretrained [default: 0]
    #[arg(long, value_name = "N")]
    renew_layers: Option<usize>,
    /// Train the top N layers and the head alone [default: all of the model]
    #[arg(long, value_name = "N")]
    freeze: Option<usize>,
    /// Memory that the run may take, as 6GB: layers are computed twice as far as that asks [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory: Option<u64>,
    /// Course of the learning rate: linear, cosine or constant [default: linear]
    #[arg(long, value_parser = choice::<kudos::train::LearningRateSchedule>, value_name = "NAME")]
    schedule: Option<kudos::train::LearningRateSchedule>,
    /// Steps to reach the peak learning rate [default: a tenth of the steps; trl: 0]
    #[arg(long, value_name = "N")]
    warmup_steps: Option<u64>,
    /// AdamW's weight decay; biases and norms have none [default: 0]
    #[arg(long, value_name = "X")]
    weight_decay: Option<f32>,
    /// Norm to which larger gradients are scaled down; 0 is off [default: 1]
    #[arg(long, value_name = "X")]
    max_grad_norm: Option<f64>,
    /// Weight of a term that keeps scores near 0 [default: 0.01; trl: 0]
    #[arg(long, value_name = "X")]
    center_coefficient: Option<f64>,
    /// Tokens of prompt and response together [default: the base's; 512 if it has none]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// What to cut of a longer text: longest_first, or keep_response, which cuts the prompt's start first
    /// [default: longest_first]
    #[arg(long, value_parser = truncation, value_name = "RULE")]
    truncation: Option<kudos::text::Truncation>,
    /// Arithmetic: f32 or bf16; int8 keeps the base of --lora in 8 bits [default: the fastest here]
    #[arg(long, value_parser = choice::<Precision>, value_name = "NAME")]
    precision: Option<Precision>,
    /// Seed of all random choices [default: 42]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Read the data in the order of the files
    #[arg(long)]
    no_shuffle: bool,
    /// Data to measure on while training, instead of held-out prompts
    #[arg(long, num_args = 1.., value_name = "DATA")]
    eval: Vec<PathBuf>,
    /// Share of the prompts to hold out, 0 to 0.9 [default: 0.2; trl: 0]
    #[arg(long, value_name = "X", conflicts_with = "eval")]
    eval_fraction: Option<f64>,
    /// Steps between evaluations [default: a tenth of the steps, at least a third of an epoch]
    #[arg(long, value_name = "N")]
    eval_every: Option<u64>,
    /// Stop after N evaluations in a row without a lower held-out loss [default: never]
    #[arg(long, value_name = "N")]
    early_stop: Option<u64>,
    /// Steps between checkpoints [default: 100]
    #[arg(long, value_name = "N")]
    save_every: Option<u64>,
    /// Fit the head alone before the first step [default: true below 20,000 pairs; trl: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    head_first: Option<bool>,
    /// First train K times without a K-th of the prompts: accuracy on all, a learning curve, doubtful labels
    #[arg(long, value_name = "K", conflicts_with = "attributes", value_parser = clap::value_parser!(u8).range(2..=20))]
    folds: Option<u8>,
    /// Train K times in different orders and average the weights
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u8).range(2..=20))]
    ensemble: Option<u8>,
    /// Continue the run in the output directory from its last checkpoint
    #[arg(long)]
    resume: bool,
    /// Replace what the output directory holds
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Make a new head even if the base has one
    #[arg(long)]
    new_head: bool,
    /// Ask the base, a language model, whether a response is good, and start from the log odds of these two
    /// answers, the bad one first: No,Yes
    #[arg(long, value_name = "NO,YES", value_parser = two_answers, conflicts_with_all = ["new_head", "attributes"])]
    head_from: Option<Answers>,
    /// With --head-from: a file with the whole chat template of the judge [default: a question in the base's own]
    #[arg(long, value_name = "FILE", requires = "head_from")]
    template: Option<PathBuf>,
    /// Train low-rank adapters of this rank and the head; the base stays as it is [default rank: 16]
    #[arg(long, value_name = "RANK", num_args = 0..=1, default_missing_value = "16")]
    lora: Option<usize>,
    /// Alpha of the adapters: they are multiplied by alpha / rank [default: twice the rank]
    #[arg(long, value_name = "X", requires = "lora")]
    lora_alpha: Option<f64>,
    /// What is adapted: names of linear layers, or their ends [default: all-linear]
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', requires = "lora")]
    lora_targets: Vec<String>,
    /// Share of an adapter's inputs that are dropped in training [default: 0]
    #[arg(long, value_name = "X", requires = "lora")]
    lora_dropout: Option<f32>,
    /// Multiply adapters by alpha / √rank (rank-stabilised LoRA)
    #[arg(long, requires = "lora")]
    rslora: bool,
    #[command(flatten)]
    input: DataArgs,
    /// Stop at the first row that cannot be used
    #[arg(long)]
    strict: bool,
    /// Print the held-out figures as JSON, as `kudos eval --json` does
    #[arg(long)]
    json: bool,
    /// Read control tokens inside texts (`<|im_end|>`, `[SEP]`, …) as plain text [default: the base's]
    #[arg(long)]
    literal: bool,
    /// Learn from this judge's margins instead of from labels: any prompts with two responses or more
    #[arg(long, value_name = "JUDGE", conflicts_with_all = ["folds", "attributes"])]
    teacher: Option<String>,
    /// Learn these ratings of the responses, one output each, instead of one score from the order
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', conflicts_with = "loss")]
    attributes: Vec<String>,
    /// Weights of the ratings in the overall score: A=X,B=Y, equal, or fit (to the data's overall score or
    /// order) [default: fit if the data have one, else equal]
    #[arg(long, value_name = "W", requires = "attributes")]
    attribute_weights: Option<String>,
}

fn truncation(name: &str) -> Result<kudos::text::Truncation, String> {
    choice(&name.replace('-', "_"))
}

/// A number of bytes: 800MB, 6GB, 6GiB.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "mib" => 1024f64.powi(2),
        "gib" => 1024f64.powi(3),
        _ => return Err("expected a size as 800MB, 6GB or 6GiB".into()),
    };
    match digits.trim().parse::<f64>() {
        Ok(number) if number > 0.0 && number * unit < 1e15 => Ok((number * unit) as u64),
        _ => Err("expected a size above 0, as 800MB, 6GB or 6GiB".into()),
    }
}

impl Args {
    /// What a plain call with these essentials would be, for commands that train as one of their stages.
    pub fn plain(data: PathBuf, eval: PathBuf, base: String, output: PathBuf, max_steps: u64) -> Self {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            args: Args,
        }
        let words = ["train".into(), data.into_os_string(), "--base".into(), base.into(), "--output".into()];
        let more = [output.into_os_string(), "--max-steps".into(), max_steps.to_string().into(), "--eval".into()];
        let words = words.into_iter().chain(more).chain([eval.into_os_string(), "--overwrite".into()]);
        <Alone as clap::Parser>::parse_from(words).args
    }

    fn asked(&self) -> Asked {
        Asked {
            recipe: self.recipe,
            loss: self.loss,
            max_steps: self.max_steps,
            epochs: self.epochs,
            batch_size: self.batch_size,
            accumulate: self.accumulate,
            group_size: self.group_size,
            learning_rate: self.learning_rate,
            layer_decay: self.layer_decay,
            keep_layers: self.keep_layers,
            renew_layers: self.renew_layers,
            freeze: self.freeze,
            memory: self.memory,
            schedule: self.schedule,
            warmup_steps: self.warmup_steps,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            center_coefficient: self.center_coefficient,
            max_length: self.max_length,
            truncation: self.truncation,
            precision: self.precision,
            seed: self.seed,
            no_shuffle: Some(self.no_shuffle),
            eval_fraction: self.eval_fraction,
            eval_every: self.eval_every,
            early_stop: self.early_stop,
            save_every: self.save_every,
            head_first: self.head_first,
            lora: self.lora,
            lora_alpha: self.lora_alpha,
            lora_dropout: self.lora_dropout,
            lora_targets: self.lora_targets.clone(),
            rslora: self.rslora,
        }
    }
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    attributes::check_flags(&args.attributes, args.recipe)?;
    check_output(args)?;
    let asked = args.asked();
    asked.check()?;
    check_teacher(args)?;
    let mut data = Data::load(args, &asked, global)?;
    let begun = Base::of(args, global)?;
    let base = begun.path();
    let mut rated = attributes::learnt(&args.attributes, args.attribute_weights.as_deref(), &data.train)?;
    let (mut model, head) = load_base(args, base, rated.as_mut(), &asked, global)?;
    let files = TokenizerDir::of(base)?; // The judge gets copies of these files, so it stays to the end.
    let encoder = Encoder::load_for_training(files.path(), encode_of(args, base, &files, &model)?, day(args))?;
    model.read_with(&encoder, head)?;
    data.leave_out_refused(&encoder, args.strict, global)?;
    encoder.notes().iter().for_each(|line| note(global, line));
    let held_out = data.held_out(&encoder)?;
    let examples = match &rated {
        None => Example::encode(&data.train, &encoder)?,
        Some(rated) => Example::encode_rated(&data.train, rated, &encoder)?,
    };
    if examples.is_empty() {
        return Err(data.nothing_to_learn(&asked).into());
    }
    let given = Given {
        asked: &asked,
        examples: &examples,
        held_out: data.held_out_from(&held_out),
        head,
        attributes: rated,
        ensemble: args.ensemble.is_some(),
        resumed: args.resume.then(|| resumed_settings(&args.output)).flatten(),
    };
    let Plan { settings, start, compared, mut features } = plan(&given, &mut model)?;
    compared.iter().for_each(|starts| announce_start(starts, global));
    let fingerprint = fingerprint(&data, args, &encoder);
    if args.overwrite {
        clear_judge(&args.output)?; // Not before all that was asked for is known to make sense.
    }
    let run = (&model, &asked, start, settings.max_steps);
    let folds = train_folds(args, run, (&data, &encoder), &mut features, global)?;
    let mut trainer = Trainer::new(model, settings, examples, held_out, args.output.clone(), fingerprint)?;
    trainer.lend_features(features);
    check_precision(&asked, &trainer)?;
    announce(&trainer, &data, global);
    if args.resume && args.ensemble.is_none() {
        let step = trainer.resume()?;
        note(global, &format!("resuming after step {step}"));
    }
    let finished = match args.ensemble {
        Some(members) => folds::ensemble(&mut trainer, members.into(), args.resume, global)?,
        None => watch(&mut trainer, global)?,
    };
    let run = (&trainer, &finished, folds.as_ref());
    write_all(args, (&data, &encoder, &begun.keep(args)?), start.new_head, run, global)?;
    drop(trainer); // The self-test loads the judge anew, and would need the memory of both.
    super::verify::after_training(&args.output, global)
}

/// How the judge will read texts: as its base does, unless the arguments say otherwise.
fn encode_of(args: &Args, base: &Path, files: &TokenizerDir, model: &Model) -> anyhow::Result<EncodeSettings> {
    let settings = if is_gguf(base) { files.path() } else { base };
    let encode = encode_settings(settings, &model.config, args.max_length, args.truncation)?;
    Ok(EncodeSettings { literal: args.literal || encode.literal, ..encode })
}

/// The day for a template that asks for the date: today, or that of the run that is continued.
fn day(args: &Args) -> Day {
    args.resume.then(|| resumed_day(&args.output)).flatten().unwrap_or_else(Day::today)
}

/// Writes the judge and the report of a finished run, and says what its figures mean.
fn write_all(
    args: &Args,
    (data, encoder, base_path): (&Data, &Encoder, &Path),
    new_head: bool,
    (trainer, finished, folds): (&Trainer, &Finished, Option<&FoldResult>),
    global: &Global,
) -> anyhow::Result<()> {
    let base_path = &base_path.canonicalize().unwrap_or(base_path.into());
    let data_files = data.files.iter().map(trained_on).collect();
    let files = JudgeFiles { encoder, base: &args.base, base_path, new_head, data: data_files, folds };
    write_judge(&args.output, trainer, finished, &files)?;
    write_report(args, data, (trainer, finished), folds)?;
    conclude(args, trainer, finished, global);
    if args.json {
        print_json(args, data, finished, folds);
    }
    Ok(())
}

/// The model to start from, with a head for what is learnt.
fn load_base(
    args: &Args,
    base: &Path,
    mut rated: Option<&mut AttributeHead>,
    asked: &Asked,
    global: &Global,
) -> anyhow::Result<(Model, ClassifierSource)> {
    let seed = asked.seed.unwrap_or(42);
    let options = LoadOptions::Base { seed, new_head: args.new_head };
    let lora = asked.lora_settings();
    if lora.is_some() && Adapter::is_in(base) {
        bail!("--base {}: it is an adapter; `kudos merge` makes it a base for the next one", args.base);
    }
    if lora.is_some() && base.join(INT8_FILE).exists() {
        bail!(
            "--base {}: it is stored in 8 bits, and an adapter needs whole weights; name the judge it came from",
            args.base
        );
    }
    let precision = asked.precision.unwrap_or_else(Precision::best);
    let mut loaded = match (&mut rated, &lora) {
        (None, None) => load(base, options),
        (None, Some(_)) => load_frozen(base, options, precision),
        (Some(rated), _) => attributes::load_base(base, rated, seed, args.new_head),
    };
    if let (Ok((model, _)), Some(lora)) = (&mut loaded, &lora) {
        if rated.is_some() {
            model.pack_for_training(model.precision(precision));
        }
        attach(model, lora, seed)?;
    }
    if base.join(INT8_FILE).exists() {
        note(global, "the base is stored in 8 bits; training starts from its weights as they are rounded");
    }
    loaded.with_context(|| format!("cannot start from {}", args.base))
}

/// Says which head the run starts from, where two were tried.
fn announce_start(starts: &Starts, global: &Global) {
    let Starts { own, reopened, kept } = starts;
    let chosen = if starts.reopens() { "the new one" } else { "its own" };
    let over = kept.map_or(String::new(), |kept| format!(" over its lower {kept} layers"));
    note(
        global,
        &format!(
            "the base's own head: cross-validated loss {own:.4}; a new head{over}: {reopened:.4}; starting from {chosen}"
        ),
    );
}

/// Refuses a precision that was asked for and that this processor or model does not have.
fn check_precision(asked: &Asked, trainer: &Trainer) -> anyhow::Result<()> {
    match asked.precision.is_some_and(|asked| asked != trainer.settings().precision) {
        false => Ok(()),
        true => bail!(
            "--precision bf16: expected a processor with AVX-512 BF16 and layers of even sizes; --precision f32 runs anywhere"
        ),
    }
}

/// The folds, if they are asked for and were not finished before the run that is continued.
fn train_folds(
    args: &Args,
    (model, asked, start, judge_steps): (&Model, &Asked, Start, u64),
    (data, encoder): (&Data, &Encoder),
    features: &mut Features,
    global: &Global,
) -> anyhow::Result<Option<FoldResult>> {
    let Some((count, labelled)) = args.folds.zip(data.labelled.as_ref()) else { return Ok(None) };
    if args.resume && args.output.join("run").join(FOLD_FILES[0]).exists() {
        note(global, "the folds are finished and are not trained again");
        return Ok(None);
    }
    let eval = (!args.eval.is_empty()).then_some(data.eval.as_slice());
    let dir = args.output.as_path();
    let options = FoldOptions { labelled, eval, encoder, asked, model, start, folds: count.into(), dir };
    folds::run(options, judge_steps, features, global).map(Some)
}

pub(super) fn note(global: &Global, line: &str) {
    if !global.quiet {
        say!("{line}");
    }
}

/// Refuses what a teacher's soft targets cannot be used for.
fn check_teacher(args: &Args) -> anyhow::Result<()> {
    if args.teacher.is_none() {
        return Ok(());
    }
    if args.recipe == Some(Recipe::Trl) {
        bail!("--teacher with --recipe trl: TRL's trainer knows no soft targets; leave one of them out");
    }
    if args.loss == Some(kudos::train::Loss::PlackettLuce) {
        bail!(
            "--teacher with --loss plackett-luce: a teacher gives probabilities of pairs, no ranks; leave --loss out"
        );
    }
    Ok(())
}

/// Refuses to write over a judge, unless told so.
fn check_output(args: &Args) -> anyhow::Result<()> {
    if !args.resume && !args.overwrite && holds_judge(&args.output) {
        bail!(
            "{}: it already holds a judge or a run; --resume continues it, --overwrite replaces it, -o names another",
            args.output.display()
        );
    }
    Ok(())
}

/// Refuses to replace the base by the judge that is trained from it: a run that fails would leave neither.
fn keep_base(args: &Args, base: &Path) -> anyhow::Result<()> {
    let same = |output: PathBuf| {
        output.canonicalize().is_ok_and(|output| base.canonicalize().is_ok_and(|base| base == output))
    };
    if same(args.output.clone()) || same(args.output.join(LOWER_BASE)) {
        bail!("{}: it is the base, which training does not replace; -o names another directory", args.output.display());
    }
    Ok(())
}
