//! `kudos train`: rankings in, a judge out.

use super::{Global, attributes, choice, encode_settings, folds, report, resolve};
use crate::display::Progress;
use crate::interrupt;
use anyhow::{Context, bail};
use kudos::data::{FileInfo, Group, Loaded, Options, check, load_groups, split_by_prompt};
use kudos::eval::{Analysis, AnalysisOptions, EvalOptions, Metrics, Outcome, analyse, render_table, verdict};
use kudos::models::{AttributeHead, ClassifierSource, LoadOptions, Model, TrainedOn, load};
use kudos::nn::Precision;
use kudos::nn::weights::INT8_FILE;
use kudos::text::Encoder;
use kudos::train::{
    Asked, Event, Example, Extent, Finished, FoldOptions, FoldResult, HeldOut, JudgeFiles, Labelled, Recipe, Settings,
    StepMetrics, Trainer, each_pair_alone, is_rated, truncated_share, write_judge,
};
use serde_json::json;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Train a judge on rankings, pairs or comparisons.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos train rankings.csv --base all-minilm-l6-v2 -o judge
  kudos train train.jsonl --eval test.jsonl --base distilbert-base-uncased --max-steps 1000 -o judge
  kudos train pairs.jsonl --base judge -o better --learning-rate 2e-5
  kudos train pairs.jsonl --base all-minilm-l6-v2 --recipe trl -o judge       as TRL's RewardTrainer would
  kudos train rated.jsonl --base all-minilm-l6-v2 --attributes helpfulness,correctness -o judge")]
pub struct Args {
    /// CSV, JSONL, JSON or Parquet files, also .gz or .zst; `-` is standard input
    #[arg(required = true, value_name = "DATA")]
    data: Vec<PathBuf>,
    /// What to start from: a model directory, a name that `kudos pull` knows, or the judge in the box
    #[arg(long, value_name = "M", default_value = crate::boxed::NAME)]
    base: String,
    /// Directory of the judge
    #[arg(long, short, value_name = "DIR", default_value = "judge")]
    output: PathBuf,
    /// default (whole groups, centring, warm-up, best held-out checkpoint) or trl (TRL's RewardTrainer)
    #[arg(long, value_parser = choice::<Recipe>, value_name = "NAME")]
    recipe: Option<Recipe>,
    /// bradley-terry or plackett-luce [default: bradley-terry]
    #[arg(long, value_parser = choice::<kudos::train::Loss>, value_name = "NAME")]
    loss: Option<kudos::train::Loss>,
    /// Optimizer steps [default: 3 epochs, and at least 100 steps unless --recipe trl]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_steps: Option<u64>,
    /// Passes over the data
    #[arg(long, value_name = "X")]
    epochs: Option<f64>,
    /// Groups a batch [default: as many as have about 8 responses, at most 4; trl: 4 pairs]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Batches a step [default: 1]
    #[arg(long, value_name = "N")]
    accumulate: Option<usize>,
    /// Most responses of a group that are encoded together; larger groups are visited in parts [default: 8]
    #[arg(long, value_name = "K")]
    group_size: Option<usize>,
    /// Peak learning rate [default: 5e-5]
    #[arg(long, value_name = "X")]
    learning_rate: Option<f64>,
    /// Factor on the learning rate from each layer to the one below it [default: 1, the same for all]
    #[arg(long, value_name = "X")]
    layer_decay: Option<f64>,
    /// Last layers of the base to start anew, not from what pretraining left there [default: 0]
    #[arg(long, value_name = "N")]
    renew_layers: Option<usize>,
    /// linear, cosine or constant [default: linear]
    #[arg(long, value_parser = choice::<kudos::train::Schedule>, value_name = "NAME")]
    schedule: Option<kudos::train::Schedule>,
    /// Steps up to the peak learning rate [default: a tenth of the steps; trl: 0]
    #[arg(long, value_name = "N")]
    warmup_steps: Option<u64>,
    /// AdamW's weight decay, not on biases and norms [default: 0]
    #[arg(long, value_name = "X")]
    weight_decay: Option<f32>,
    /// Gradients are scaled down to this norm; 0 is off [default: 1]
    #[arg(long, value_name = "X")]
    max_grad_norm: Option<f64>,
    /// Weight of (score + score)², which keeps scores near 0 [default: 0.01; trl: 0]
    #[arg(long, value_name = "X")]
    center_coefficient: Option<f64>,
    /// Token limit of prompt and response together [default: the base's reward.json, else 512 or what it can hold]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// longest_first or keep_response (cut the prompt's start first) [default: longest_first]
    #[arg(long, value_parser = truncation, value_name = "RULE")]
    truncation: Option<kudos::text::Truncation>,
    /// Arithmetic: f32, or bf16 (f32 weights, sums, norms and optimizer) [default: the fastest this processor has]
    #[arg(long, value_parser = choice::<Precision>, value_name = "NAME")]
    precision: Option<Precision>,
    /// Seed of a new head, the order and the split [default: 42]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Keep the order of the files
    #[arg(long)]
    no_shuffle: bool,
    /// Data to evaluate on while training; without it, prompts are held out
    #[arg(long, num_args = 1.., value_name = "DATA")]
    eval: Vec<PathBuf>,
    /// Share of the prompts to hold out when there is no --eval [default: 0.2; trl: 0]
    #[arg(long, value_name = "X", conflicts_with = "eval")]
    eval_fraction: Option<f64>,
    /// Steps between evaluations [default: a tenth of the steps]
    #[arg(long, value_name = "N")]
    eval_every: Option<u64>,
    /// Stop after N evaluations without a lower held-out loss
    #[arg(long, value_name = "N")]
    early_stop: Option<u64>,
    /// Steps between checkpoints [default: 100]
    #[arg(long, value_name = "N")]
    save_every: Option<u64>,
    /// Fit the head on frozen features before the first step [default: with fewer than 500 pairs; trl: never]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    head_first: Option<bool>,
    /// First train K times without a fold of the prompts: accuracy on all prompts, a learning curve, doubtful labels
    #[arg(long, value_name = "K", conflicts_with = "attributes", value_parser = clap::value_parser!(u8).range(2..=20))]
    folds: Option<u8>,
    /// Train K runs that differ in their order and average their weights
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u8).range(2..=20))]
    ensemble: Option<u8>,
    /// Continue the run in the output directory from its last checkpoint
    #[arg(long)]
    resume: bool,
    /// Replace what the output directory holds
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Make a new classification head even if the base has one
    #[arg(long)]
    new_head: bool,
    /// Make the first unusable row an error
    #[arg(long)]
    strict: bool,
    /// Print the held-out report as JSON, as `kudos eval --json` does
    #[arg(long)]
    json: bool,
    /// Train one output for each of these ratings (`attributes` of the responses) instead of one score from the order
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', conflicts_with = "loss")]
    attributes: Vec<String>,
    /// Overall score: the sum of WEIGHT × rating (a=0.5,b=0.5), equal, or fit (to the data's overall score or order)
    /// [default: fit where the data have one, else equal]
    #[arg(long, value_name = "A=X,…|fit|equal", requires = "attributes")]
    attribute_weights: Option<String>,
}

fn truncation(name: &str) -> Result<kudos::text::Truncation, String> {
    choice(&name.replace('-', "_"))
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
            renew_layers: self.renew_layers,
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
        }
    }
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    attributes::check_flags(&args.attributes, args.recipe)?;
    prepare_output(args)?;
    let asked = args.asked();
    let data = Data::load(args, &asked, global)?;
    let base = resolve(&args.base)?;
    let seed = asked.seed.unwrap_or(42);
    let rated = attributes::learnt(&args.attributes, args.attribute_weights.as_deref(), &data.train)?;
    let (model, head) = load_base(args, &base, rated.as_ref(), seed, global)?;
    let encoder = Encoder::load(&base, encode_settings(&base, &model.config, args.max_length, args.truncation)?)?;
    encoder.notes().iter().for_each(|line| note(global, line));
    let held_out = data.held_out(&encoder)?;
    let examples = match &rated {
        None => Example::encode(&data.train, &encoder)?,
        Some(rated) => Example::encode_rated(&data.train, rated, &encoder)?,
    };
    let new_head = head == ClassifierSource::New;
    let extent = Extent::of(&examples, asked.group_size_or_default(), held_out.is_some(), new_head);
    let decided = asked.decide(extent)?;
    let settings = Settings { head_first: decided.head_first && rated.is_none(), attributes: rated, ..decided };
    let fingerprint = fingerprint(&data, args, &encoder);
    let folds = train_folds(args, (&asked, settings.max_steps), &data, &encoder, global)?;
    let mut trainer = Trainer::new(model, settings, examples, held_out, args.output.clone(), fingerprint)?;
    check_precision(&asked, &trainer)?;
    announce(&trainer, &data, head, global);
    if args.resume && args.ensemble.is_none() {
        let step = trainer.resume()?;
        note(global, &format!("resuming after step {step}"));
    }
    let finished = match args.ensemble {
        Some(members) => folds::ensemble(&mut trainer, members.into(), args.resume, global)?,
        None => watch(&mut trainer, global)?,
    };
    let files = JudgeFiles {
        encoder: &encoder,
        base: &args.base,
        new_head,
        data: data.files.iter().map(trained_on).collect(),
        folds: folds.as_ref(),
    };
    write_judge(&args.output, &trainer, &finished, &files)?;
    write_report(args, &data, (&trainer, &finished), folds.as_ref())?;
    conclude(args, &trainer, &finished, global);
    if args.json {
        print_json(args, &data, &finished, folds.as_ref());
    }
    super::verify::after_training(&args.output, global)
}

/// The model to start from, with a head for what is learnt.
fn load_base(
    args: &Args,
    base: &Path,
    rated: Option<&AttributeHead>,
    seed: u64,
    global: &Global,
) -> anyhow::Result<(Model, ClassifierSource)> {
    let loaded = match rated {
        None => load(base, LoadOptions::Base { seed, new_head: args.new_head }),
        Some(rated) => attributes::load_base(base, rated, seed, args.new_head),
    };
    if base.join(INT8_FILE).exists() {
        note(global, "the base is stored in 8 bits; training starts from its weights as they are rounded");
    }
    loaded.with_context(|| format!("cannot start from {}", args.base))
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

/// What `--json` prints: the held-out report as `kudos eval` has it, and how the run went.
fn print_json(args: &Args, data: &Data, finished: &Finished, folds: Option<&FoldResult>) {
    let report: Vec<_> = finished.held_out.iter().collect();
    let folds = folds.zip(data.labelled.as_ref()).map(|(folds, labelled)| folds.summary(labelled));
    let (judge, kept_step, ensemble) = (&args.output, finished.kept, &finished.ensemble);
    outln!(
        "{:#}",
        json!({"judge": judge, "kept_step": kept_step, "ensemble": ensemble, "folds": folds, "data": report})
    );
}

/// The folds, if they are asked for and were not finished before the run that is continued.
fn train_folds(
    args: &Args,
    (asked, judge_steps): (&Asked, u64),
    data: &Data,
    encoder: &Encoder,
    global: &Global,
) -> anyhow::Result<Option<FoldResult>> {
    let Some((count, labelled)) = args.folds.zip(data.labelled.as_ref()) else { return Ok(None) };
    if args.resume && args.output.join("run").join(folds::FILES[0]).exists() {
        note(global, "the folds are finished and are not trained again");
        return Ok(None);
    }
    let base = resolve(&args.base)?;
    let eval = (!args.eval.is_empty()).then_some(data.eval.as_slice());
    let (base, dir, new_head) = (base.as_path(), args.output.as_path(), args.new_head);
    let options = FoldOptions { labelled, eval, encoder, asked, base, new_head, folds: count.into(), dir };
    folds::run(options, judge_steps, global).map(Some)
}

pub(super) fn note(global: &Global, line: &str) {
    if !global.quiet {
        eprintln!("{line}");
    }
}

/// Refuses to write over a judge, unless told so.
fn prepare_output(args: &Args) -> anyhow::Result<()> {
    let run = args.output.join("run");
    let members = run.join("ensemble");
    let used = [args.output.join("model.safetensors"), run.join("checkpoint.safetensors"), members.clone()];
    let used = used.iter().any(|path| path.exists());
    if args.resume || !used {
        return Ok(());
    }
    if !args.overwrite {
        bail!(
            "{}: it already holds a judge or a run; --resume continues it, --overwrite replaces it, -o names another",
            args.output.display()
        );
    }
    let judge = ["model.safetensors", "config.json", "reward.json", "training_args.json", "README.md", "report.html"];
    let files = judge.iter().map(|f| args.output.join(f));
    let run_files = ["metrics.jsonl", "checkpoint.safetensors"].iter().chain(&folds::FILES).map(|f| run.join(f));
    for file in files.chain(run_files).filter(|f| f.exists()) {
        std::fs::remove_file(&file).with_context(|| file.display().to_string())?;
    }
    if members.exists() {
        std::fs::remove_dir_all(&members).with_context(|| members.display().to_string())?;
    }
    Ok(())
}

/// The groups to learn from and to be measured with.
struct Data {
    train: Vec<Group>,
    eval: Vec<Group>,
    eval_name: String,
    files: Vec<FileInfo>,
    eval_files: Vec<FileInfo>,
    /// Names of the ratings that are learnt.
    attributes: Vec<String>,
    /// All labelled groups, for folds.
    labelled: Option<Labelled>,
    /// What `kudos check` says of the files.
    checked: check::Report,
}

impl Data {
    fn load(args: &Args, asked: &Asked, global: &Global) -> anyhow::Result<Self> {
        let options = Options { strict: args.strict, ..Options::default() };
        let loaded = load_groups(&args.data, &options)?;
        report_problems(&loaded, global);
        let alone = (asked.recipe == Some(Recipe::Trl)).then(|| each_pair_alone(&loaded));
        let labelled = args.folds.map(|_| alone.as_deref().map_or_else(|| Labelled::of(&loaded), Labelled::of_rows));
        let mut checked = check::run(&loaded, &check::CheckOptions::default());
        let groups = alone.unwrap_or_else(|| loaded.groups.clone());
        let attributes = args.attributes.clone();
        if !args.eval.is_empty() {
            let eval = load_groups(&args.eval, &options)?;
            report_problems(&eval, global);
            warn_of_leak(&groups, &eval.groups, global);
            let names: Vec<_> = eval.files.iter().map(|f| f.file.clone()).collect();
            let eval_name = names.join(", ");
            let (files, eval_files) = (loaded.files.clone(), eval.files.clone());
            let (eval_groups, eval_from) = (eval.groups.clone(), Some(files.len()));
            checked = check::run(&report::merged(vec![loaded, eval]), &check::CheckOptions { eval_from, encode: None });
            let (train, eval) = (groups, eval_groups);
            return Ok(Self { train, eval, eval_name, files, eval_files, attributes, labelled, checked });
        }
        // With any rating at all, so that the split does not depend on which of them are learnt.
        let teaches = |g: &Group| match attributes.is_empty() {
            true => !g.comparisons.is_empty(),
            false => g.responses.iter().any(|r| !r.attributes.is_empty()),
        };
        let compared: Vec<Group> = groups.into_iter().filter(teaches).collect();
        let fraction = asked.eval_fraction_or_default();
        let (train, eval) = match fraction > 0.0 {
            true => split_by_prompt(compared, fraction, asked.seed.unwrap_or(42)),
            false => (compared, Vec::new()),
        };
        let eval_name = format!("{:.0} % of the prompts, held out", 100.0 * fraction);
        let (files, eval_files) = (loaded.files, Vec::new());
        Ok(Self { train, eval, eval_name, files, eval_files, attributes, labelled, checked })
    }

    fn held_out(&self, encoder: &Encoder) -> anyhow::Result<Option<HeldOut>> {
        if self.eval.iter().all(|g| g.comparisons.is_empty() && !is_rated(g, &self.attributes)) {
            return Ok(None);
        }
        Ok(Some(HeldOut::encode(&self.eval_name, self.eval.clone(), encoder)?))
    }
}

/// Says when prompts of the evaluation data are trained on: its figures would be too good.
fn warn_of_leak(train: &[Group], eval: &[Group], global: &Global) {
    let trained: HashSet<_> = train.iter().map(Group::prompt_key).collect();
    let shared = eval.iter().filter(|group| trained.contains(&group.prompt_key())).count();
    if shared > 0 {
        note(
            global,
            &format!(
                "warning: {shared} of {} prompts of --eval are also trained on, so the held-out figures are too good; `kudos check DATA --eval FILE` lists them",
                eval.len()
            ),
        );
    }
}

/// States each unusable row, or the first few of many.
pub fn report_problems(loaded: &Loaded, global: &Global) {
    const SHOWN: usize = 5;
    for problem in loaded.problems.iter().take(SHOWN) {
        note(global, &format!("not used: {problem}"));
    }
    if loaded.problems.len() > SHOWN {
        let left = loaded.problems.len() - SHOWN;
        note(global, &format!("not used: {left} more rows; `kudos check` lists them all"));
    }
}

fn trained_on(file: &FileInfo) -> TrainedOn {
    TrainedOn { file: file.file.clone(), sha256: file.sha256.clone(), groups: file.groups, pairs: file.pairs }
}

/// What a resumed run must share with the one that was killed.
fn fingerprint(data: &Data, args: &Args, encoder: &Encoder) -> String {
    let hashes: Vec<_> = data.files.iter().chain(&data.eval_files).map(|f| f.sha256.as_str()).collect();
    let encode = serde_json::to_string(encoder.settings()).expect("plain data");
    format!("{} {encode} {} new_head={}", args.base, hashes.join(" "), args.new_head)
}

fn announce(trainer: &Trainer, data: &Data, head: ClassifierSource, global: &Global) {
    let (settings, examples) = (trainer.settings(), trainer.examples());
    let pairs: usize = examples.iter().flat_map(|e| &e.comparisons).filter(|c| !c.is_tie()).count();
    let responses: usize = examples.iter().map(|e| e.sequences.len()).sum();
    if let Some(rated) = &settings.attributes {
        note(global, &attributes::describe(rated));
    }
    let head = if head == ClassifierSource::New { "a new head" } else { "the base's head" };
    note(
        global,
        &format!(
            "training on {pairs} pairs of {responses} responses in {} groups; {} groups held out; {head}; {} steps of {} groups, {}, {} threads",
            examples.len(),
            data.eval.len(),
            settings.max_steps,
            settings.batch_size * settings.accumulate,
            settings.precision,
            kernels::parallel::threads(),
        ),
    );
    let cut = truncated_share(examples);
    if cut > 0.0 {
        note(global, &format!("{:.1} % of the responses are cut to the token limit", 100.0 * cut));
    }
}

/// Runs the loop with a progress display.
fn watch(trainer: &mut Trainer, global: &Global) -> anyhow::Result<Finished> {
    let mut progress = Progress::new(Some(trainer.settings().max_steps), "steps", global.quiet);
    progress.skip(trainer.steps_done());
    let mut smooth = Smooth::default();
    let finished = trainer.run(&mut |event| match event {
        Event::Head(head, evaluation) => {
            let accuracy = evaluation.and_then(|e| e.eval_accuracy).map_or("–".into(), |a| format!("{a:.3}"));
            progress.say(&format!(
                "the head alone, on frozen features: held-out accuracy {accuracy}, cross-validated loss {:.4}",
                head.loss
            ));
            ControlFlow::Continue(())
        }
        Event::Step(metrics) => {
            smooth.add(metrics);
            progress.set(metrics.step, &smooth.text());
            interrupt::flow()
        }
        Event::Evaluated(evaluation) => {
            let accuracy = evaluation.eval_accuracy.map_or("–".into(), |a| format!("{a:.3}"));
            progress.say(&format!(
                "step {}: held-out accuracy {accuracy}, loss {:.4}",
                evaluation.step, evaluation.eval_loss
            ));
            ControlFlow::Continue(())
        }
    });
    progress.finish();
    Ok(finished?)
}

/// Exponential averages for the display: single steps of four groups jump too much to read.
#[derive(Default)]
pub(super) struct Smooth {
    weight: f64,
    loss: f64,
    accuracy: f64,
    tokens: f64,
    seconds: f64,
}

impl Smooth {
    pub(super) fn add(&mut self, step: &StepMetrics) {
        const KEEP: f64 = 0.9;
        let mix = |old: f64, new: f64| KEEP * old + (1.0 - KEEP) * new;
        self.weight = mix(self.weight, 1.0);
        self.loss = mix(self.loss, step.loss);
        self.accuracy = mix(self.accuracy, step.accuracy.unwrap_or(0.5));
        self.tokens = mix(self.tokens, step.tokens as f64);
        self.seconds = mix(self.seconds, step.seconds);
    }

    pub(super) fn text(&self) -> String {
        let (loss, accuracy) = (self.loss / self.weight, self.accuracy / self.weight);
        format!("loss {loss:.4}  accuracy {accuracy:.3}  {:.0} tokens/s", self.tokens / self.seconds.max(1e-9))
    }
}

/// `report.html` in the judge's directory. Nothing in it depends on where the judge lies or how long the run took.
fn write_report(
    args: &Args,
    data: &Data,
    (trainer, finished): (&Trainer, &Finished),
    folds: Option<&FoldResult>,
) -> anyhow::Result<()> {
    let options = EvalOptions::default();
    let mut analyses: Vec<Analysis> = Vec::new();
    if let Some(held_out) = &finished.held_out {
        let options = AnalysisOptions { eval: options, ..AnalysisOptions::default() };
        let mut analysis = analyse(&held_out.file, &data.eval, &finished.held_out_scores, &options)?;
        analysis.data.truncated = held_out.truncated;
        analysis.data.attributes = held_out.attributes.clone();
        if let Some((folds, labelled)) = folds.zip(data.labelled.as_ref()) {
            folds.add_to(&mut analysis, labelled);
        }
        analyses.push(analysis);
    }
    let caution = finished.chosen_by_held_out.then(|| {
        "The weights are those of the step with the lowest held-out loss, so these figures are slightly optimistic: \
         evaluate on prompts that were used for neither."
            .to_owned()
    });
    let about = report::About {
        dir: &args.output,
        name: format!("A judge trained from {}", args.base),
        precision: trainer.settings().precision.to_string(),
        command: command(args),
        options,
        kept: Some(finished.kept),
        caution,
    };
    report::of_training(about, &analyses, &data.checked)
}

/// The command, but for the settings that the report lists.
fn command(args: &Args) -> String {
    let words = |paths: &[PathBuf]| paths.iter().map(|path| format!(" {}", path.display())).collect::<String>();
    let eval = if args.eval.is_empty() { String::new() } else { format!(" --eval{}", words(&args.eval)) };
    format!(
        "kudos train{} --base {}{eval} -o JUDGE    # and flags for the settings above",
        words(&args.data),
        args.base
    )
}

/// The held-out figures, what they mean, and what to do with the judge.
fn conclude(args: &Args, trainer: &Trainer, finished: &Finished, global: &Global) {
    if finished.stopped_early {
        note(global, &format!("stopped after step {}: the held-out loss no longer fell", finished.steps));
    }
    match &finished.held_out {
        Some(report) => {
            note(global, &render_table(std::slice::from_ref(report)));
            // Ratings without an order have no accuracy to explain.
            if report.metrics.pairs > 0 {
                explain(trainer, finished, &report.metrics, global);
            }
        }
        None => note(global, "nothing was held out: use `kudos eval` on prompts that were not trained on"),
    }
    let output = args.output.display();
    let chosen = if finished.chosen_by_held_out { " (the best on held-out prompts)" } else { "" };
    note(global, &format!("{}{chosen}", finished.kept_weights()));
    note(global, &format!("report: {output}/report.html"));
    note(global, &format!("judge: {output}    next: kudos score answers.csv --judge {output}"));
}

fn explain(trainer: &Trainer, finished: &Finished, held_out: &Metrics, global: &Global) {
    let pairs = trainer.examples().iter().flat_map(|e| &e.comparisons).filter(|c| !c.is_tie()).count();
    let outcome = Outcome {
        train_accuracy: finished.train_accuracy,
        train_pairs: pairs,
        loss: finished.loss,
        truncated_share: truncated_share(trainer.examples()),
        held_out,
    };
    for finding in verdict(&outcome) {
        note(global, &finding.to_string());
    }
}
