//! `kudos verify`: the self-test of a judge, and of every command that scores with it.
//!
//! What holds of a judge alone is tested by [`kudos::verify`]. Here the same texts go through this program's own
//! commands, each started as a user would start it, and every score must come back to the bit.

use super::{Global, resolve};
use anyhow::{Context, bail};
use kudos::data::{Options, load_groups};
use kudos::eval::{EvalOptions, evaluate};
use kudos::models::RewardConfig;
use kudos::verify::probes::Probe;
use kudos::verify::{Check, Found, Reference, Trouble, Verdict, self_test};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Test that a judge gives the same score however it is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos verify --judge judge
  kudos verify --judge judge --json | jq .failed

It prints one line a check: ok, skip (this processor cannot try it) or FAIL.
The exit status is 1 if any check fails.
It needs no data. How good the judge is, `kudos eval` says.")]
pub struct Args {
    /// The judge: a directory, or a name that `kudos pull` knows
    #[arg(long, value_name = "JUDGE")]
    judge: String,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let started = Instant::now();
    let checks = all_checks(&resolve(&args.judge)?)?;
    let seconds = started.elapsed().as_secs_f64();
    let [ok, skipped, failed] = counts(&checks);
    if global.json {
        outln!(
            "{:#}",
            json!({"judge": args.judge, "ok": ok, "skipped": skipped, "failed": failed, "seconds": seconds, "checks": checks})
        );
    } else {
        checks.iter().for_each(|check| outln!("{}", line(check)));
    }
    if failed > 0 {
        bail!("{}: {failed} of {} checks fail; do not rely on its scores", args.judge, checks.len());
    }
    if !global.quiet {
        say!("{ok} checks ok, {skipped} skipped, {seconds:.1} s");
    }
    Ok(())
}

/// The self-test at the end of a training: one line, unless something fails.
///
/// # Errors
/// When a check fails; the judge's files stay as they are.
pub fn after_training(judge: &Path, global: &Global) -> anyhow::Result<()> {
    let checks = all_checks(judge)?;
    let [ok, skipped, failed] = counts(&checks);
    let judge = judge.display();
    if failed > 0 {
        checks.iter().filter(|c| c.verdict == Verdict::Fail).for_each(|check| say!("{}", line(check)));
        bail!(
            "{judge}: the judge is written, but {failed} of {} checks of its self-test fail; do not rely on its scores",
            checks.len()
        );
    }
    if !global.quiet {
        say!("self-test: {ok} checks ok, {skipped} skipped (kudos verify --judge {judge} lists them)");
    }
    Ok(())
}

fn counts(checks: &[Check]) -> [usize; 3] {
    [Verdict::Ok, Verdict::Skipped, Verdict::Fail].map(|v| checks.iter().filter(|c| c.verdict == v).count())
}

fn line(check: &Check) -> String {
    let word = match check.verdict {
        Verdict::Ok => "ok  ",
        Verdict::Skipped => "skip",
        Verdict::Fail => "FAIL",
    };
    format!("{word}  {:<34}  {}", check.name, check.figure)
}

/// The judge's own checks, then those of the commands; these only where the judge scores at all.
fn all_checks(dir: &Path) -> anyhow::Result<Vec<Check>> {
    let dir = dir.canonicalize().with_context(|| dir.display().to_string())?;
    let tested = self_test(&dir);
    let mut checks = tested.checks;
    if let Some(reference) = &tested.reference {
        checks.extend(Commands::new(dir, reference)?.checks()?);
    }
    Ok(checks)
}

/// This program, to be started in a directory that holds the probes as files of each kind.
struct Commands<'a> {
    program: Vec<OsString>,
    judge: PathBuf,
    dir: tempfile::TempDir,
    reference: &'a Reference,
}

/// Ranked, scored and chosen from.
const PAIRS: &str = "pairs.jsonl";
/// One row a response.
const ROWS: &str = "rows.jsonl";
const COMPARISONS: &str = "comparisons.jsonl";
const GROUPS: &str = "groups.jsonl";

impl<'a> Commands<'a> {
    fn new(judge: PathBuf, reference: &'a Reference) -> anyhow::Result<Self> {
        let program = crate::program::words()?;
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        Ok(Self { program, judge, dir, reference })
    }

    fn checks(&self) -> anyhow::Result<Vec<Check>> {
        let write = |name: &str, rows: Vec<Value>| {
            let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
            std::fs::write(self.dir.path().join(name), text).context("cannot write to the temporary directory")
        };
        write(ROWS, self.rows().iter().map(|p| row(&self.reference.probes[*p])).collect())?;
        write(PAIRS, self.both(|[a, b]| json!({"prompt": text(a.prompt.as_ref()), "chosen": a.response.to_value(), "rejected": b.response.to_value()})))?;
        write(COMPARISONS, self.both(|[a, b]| json!({"prompt": text(a.prompt.as_ref()), "response_a": a.response.to_value(), "response_b": b.response.to_value(), "label": "a"})))?;
        write(GROUPS, self.both(|[a, b]| json!({"prompt": text(a.prompt.as_ref()), "responses": [{"text": a.response.to_value()}, {"text": b.response.to_value()}]})))?;
        let mut checks = vec![Check::new("kudos score, one text", self.one_text())];
        for threads in ["1", "2", "3"] {
            checks.push(Check::new(format!("kudos score, rows, --threads {threads}"), self.score_rows(threads)));
        }
        for (name, file, keys) in [
            ("pairs", PAIRS, ["/score_chosen", "/score_rejected"]),
            ("comparisons", COMPARISONS, ["/score_a", "/score_b"]),
            ("groups", GROUPS, ["/scores/0", "/scores/1"]),
        ] {
            checks.push(Check::new(format!("kudos score, {name}"), self.score_both(file, keys)));
        }
        checks.push(Check::new("kudos eval", self.eval()));
        checks.push(Check::new("kudos best", self.best()));
        Ok(checks)
    }

    /// What a command prints, its judge and silence given.
    fn output(&self, args: &[&str]) -> Result<String, Trouble> {
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]);
        command.current_dir(self.dir.path()).args(args).arg("--judge").arg(&self.judge).arg("--quiet");
        let output = command.output().map_err(|error| {
            Trouble::Fails(format!("{} cannot be started: {error}; was it replaced?", self.program[0].display()))
        })?;
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout)?),
            false => Err(Trouble::Fails(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    }

    fn lines(&self, args: &[&str]) -> Result<Vec<Value>, Trouble> {
        Ok(self.output(args)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    /// The probes that have a prompt and a response, without which a row counts as unusable.
    fn rows(&self) -> Vec<usize> {
        let probes = &self.reference.probes;
        let full =
            |p: &usize| probes[*p].prompt.as_ref().is_some_and(|p| !p.is_blank()) && !probes[*p].response.is_blank();
        (0..probes.len()).filter(full).collect()
    }

    /// The plain probes two by two: two responses to one prompt.
    fn twos(&self) -> impl Iterator<Item = [usize; 2]> {
        let plain = |p: &usize| self.reference.probes[*p].name == "plain";
        let plain: Vec<usize> = (0..self.reference.probes.len()).filter(plain).collect();
        plain.chunks_exact(2).map(|two| [two[0], two[1]]).collect::<Vec<_>>().into_iter()
    }

    fn both(&self, row: impl Fn([&Probe; 2]) -> Value) -> Vec<Value> {
        self.twos().map(|two| row(two.map(|p| &self.reference.probes[p]))).collect()
    }

    fn one_text(&self) -> Found {
        let [probe, _] = self.twos().next().expect("there are plain probes");
        let plain = |content: Option<&kudos::data::Content>| text(content).as_str().unwrap_or_default().to_owned();
        let Probe { prompt, response, .. } = &self.reference.probes[probe];
        let (prompt, response) = (plain(prompt.as_ref()), plain(Some(response)));
        let printed = self.output(&["score", "--prompt", &prompt, "--response", &response])?;
        self.agree(probe, &json!(printed.trim().parse::<f32>()?))?;
        Ok(format!("{}, bit for bit", printed.trim()))
    }

    fn score_rows(&self, threads: &str) -> Found {
        let (rows, found) = (self.rows(), self.lines(&["score", ROWS, "--threads", threads])?);
        same_count(rows.len(), found.len())?;
        rows.iter().zip(&found).try_for_each(|(p, row)| self.agree(*p, &row["score"]))?;
        Ok(format!("{} rows, bit for bit", rows.len()))
    }

    fn score_both(&self, file: &str, keys: [&str; 2]) -> Found {
        let found = self.lines(&["score", file])?;
        same_count(self.twos().count(), found.len())?;
        for (two, row) in self.twos().zip(&found) {
            for (p, key) in two.iter().zip(keys) {
                self.agree(*p, row.pointer(key).unwrap_or(&Value::Null))?;
            }
        }
        Ok(format!("{} rows, bit for bit", found.len()))
    }

    /// Every figure of the report that scores go into.
    fn eval(&self) -> Found {
        let printed: Value = serde_json::from_str(&self.output(&["eval", PAIRS, "--json", "--bootstrap", "100"])?)?;
        let loaded = load_groups(&[self.dir.path().join(PAIRS)], &Options::default())?;
        let scores: Vec<Vec<f32>> =
            self.twos().map(|two| two.map(|p| self.reference.scores[p].score).to_vec()).collect();
        let temperature = RewardConfig::read(&self.judge)?.map_or(1.0, |reward| reward.temperature());
        let options = EvalOptions { bootstrap: 100, temperature, ..EvalOptions::default() };
        let expected = serde_json::to_value(evaluate(PAIRS, &loaded.groups, &scores, &options)?)?;
        let keys = ["pairs", "accuracy", "accuracy_ci95", "score_mean", "score_std", "log_loss"];
        for key in keys {
            let (found, expected) = (&printed["data"][0][key], &expected[key]);
            if found != expected {
                return Err(Trouble::Fails(format!("{key} is {found}, expected {expected}")));
            }
        }
        Ok(format!("{} of {} pairs, the same", keys.join(", "), scores.len()))
    }

    /// Both responses of each prompt, the better first.
    fn best(&self) -> Found {
        let found = self.lines(&["best", PAIRS, "-k", "2"])?;
        same_count(2 * self.twos().count(), found.len())?;
        for (mut two, rows) in self.twos().zip(found.chunks(2)) {
            two.sort_by(|a, b| self.reference.scores[*b].score.total_cmp(&self.reference.scores[*a].score));
            two.iter().zip(rows).try_for_each(|(p, row)| self.agree(*p, &row["score"]))?;
        }
        Ok(format!("{} responses, best first, bit for bit", found.len()))
    }

    /// Fails when a printed score is not that of the library, bit for bit.
    fn agree(&self, probe: usize, found: &Value) -> Result<(), Trouble> {
        let expected = self.reference.scores[probe].score;
        match found.as_f64().map(|score| score as f32) {
            Some(score) if score.to_bits() == expected.to_bits() => Ok(()),
            _ => Err(Trouble::Fails(format!("{}: {found} instead of {expected}", self.reference.probes[probe].name))),
        }
    }
}

fn row(probe: &Probe) -> Value {
    json!({"prompt": text(probe.prompt.as_ref()), "response": probe.response.to_value()})
}

fn text(content: Option<&kudos::data::Content>) -> Value {
    content.map_or(Value::Null, kudos::data::Content::to_value)
}

fn same_count(expected: usize, found: usize) -> Result<(), Trouble> {
    match expected == found {
        true => Ok(()),
        false => Err(Trouble::Fails(format!("{found} rows come back of {expected}"))),
    }
}
