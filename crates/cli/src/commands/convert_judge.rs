//! `kudos convert-judge`: a judge from a language model, without training.

use super::{Global, Usage, resolve, wrong_usage};
use anyhow::{Context, bail};
use kudos::models::{ConvertSettings, Converted, DEFAULT_LENGTH, convert_judge};
use kudos::text::{Asked, QUESTION};
use kudos::train::{clear_judge, holds_judge};
use std::path::{Path, PathBuf};

/// Make a judge of a language model, without training.
///
/// Each response is put into a question. The score is the log odds of the answer
/// Yes over No.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos convert-judge smollm2-135m-instruct -o judge
  kudos convert-judge Qwen3-0.6B.gguf --question correct.txt -o judge
  kudos eval test.jsonl --judge judge

A question is a text with {{ prompt }} and {{ response }} in it. It becomes a
turn of the model's own chat template. The question unless you give one:

  Here is a prompt, and a response to it.

  Prompt:
  {{ prompt }}

  Response:
  {{ response }}

  Is it a good response to the prompt? Answer Yes or No.

A template is the whole text, in Jinja, up to where the answer begins.")]
pub struct Args {
    /// The model: a directory, a .gguf file, or a name that `kudos pull` knows
    #[arg(value_name = "MODEL")]
    model: String,
    /// The two answers, the bad one first: each a single token [default: No,Yes]
    #[arg(long, value_name = "NO,YES", value_parser = two_answers)]
    tokens: Option<Answers>,
    /// A file with the question about a response
    #[arg(long, value_name = "FILE", conflicts_with = "template")]
    question: Option<PathBuf>,
    /// A file with the whole chat template of the judge
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..), help = limit())]
    max_length: Option<u32>,
    /// Directory of the new judge
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Replace what the output directory holds
    #[arg(long)]
    overwrite: bool,
}

fn limit() -> String {
    format!("Most tokens of a text [default: {DEFAULT_LENGTH}, or as many as the model takes]")
}

/// What `--tokens` says: no and yes.
#[derive(Clone, Debug)]
pub struct Answers(pub [String; 2]);

/// Two answers with a comma between them.
pub fn two_answers(typed: &str) -> Result<Answers, String> {
    let answers: Vec<&str> = typed.split(',').collect();
    match answers[..] {
        [no, yes] if !no.is_empty() && !yes.is_empty() && no != yes => Ok(Answers([no.to_owned(), yes.to_owned()])),
        _ => Err("expected two words that differ, with a comma between them: No,Yes".into()),
    }
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let words = read(args.question.as_deref().or(args.template.as_deref()))?;
    let asked = match (&words, &args.template) {
        (None, _) => Asked::Question(QUESTION),
        (Some(words), None) => Asked::Question(words),
        (Some(words), Some(_)) => Asked::Whole(words),
    };
    let model = resolve(&args.model)?;
    let output = &args.output;
    check_output(args, &model)?;
    let answers = args.tokens.as_ref().map(|Answers(answers)| answers.each_ref().map(String::as_str));
    let max_length = args.max_length.map(|length| length as usize);
    let settings = ConvertSettings { base: &args.model, asked, answers, max_length };
    std::fs::create_dir_all(output).with_context(|| output.display().to_string())?;
    // Whatever fails, the directory keeps what it held.
    let new = tempfile::Builder::new().prefix(".converting-").tempdir_in(output)?;
    let made = convert_judge(&model, new.path(), &settings)
        .with_context(|| format!("cannot make a judge of {}", args.model))?;
    clear_judge(output)?;
    move_files(new.path(), output)?;
    report(&made, args, global);
    Ok(())
}

/// A text that asks about a response, or the error that it does not.
pub(super) fn read(path: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let asks = ["response", "messages"].iter().any(|name| text.contains(name));
    if !asks {
        return Err(Usage(format!(
            "{}: it never says {{{{ response }}}}, which is what is to be judged",
            path.display()
        ))
        .into());
    }
    Ok(Some(text))
}

fn check_output(args: &Args, model: &Path) -> anyhow::Result<()> {
    let output = &args.output;
    let same =
        |path: &Path| output.canonicalize().is_ok_and(|output| path.canonicalize().is_ok_and(|path| path == output));
    if same(model) {
        wrong_usage!("{}: it is the model itself; choose another -o", output.display());
    }
    if holds_judge(output) && !args.overwrite {
        bail!("{}: it already holds a judge or a run; --overwrite replaces it", output.display());
    }
    Ok(())
}

fn move_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        std::fs::rename(entry.path(), &to).with_context(|| to.display().to_string())?;
    }
    Ok(())
}

fn report(made: &Converted, args: &Args, global: &Global) {
    made.notes.iter().for_each(|note| say!("note: {note}"));
    if !global.quiet {
        let (name, [no, yes]) = (args.output.display(), &made.answers);
        say!(
            "{name}: {}, up to {} tokens; score = log odds of {yes:?} over {no:?}\n\
             on two samples, these answers are {:.0} % of the next token    next: kudos eval DATA --judge {name}",
            made.class,
            made.max_length,
            100.0 * made.share
        );
    }
}
