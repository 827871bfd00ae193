//! `kudos score --shard`: a job whose rows are scored in units, by any number of processes.
//!
//! [`kudos::shard`] knows which units there are and which of them are done. Here their rows are scored, exactly as those of a
//! file are.

use super::columns::Added;
use super::data;
use super::report::hashes;
use super::score::{self, WINDOW, inputs, nothing_scored, of_control, score_columns, with_scores};
use super::{Global, Usage, announce_precision, load_judge_for, refused::refusal, resolve};
use crate::display::Progress;
use crate::interrupt;
use anyhow::{Context, bail};
use kudos::data::{DataError, Options, PartFault, Record, Row, RowProblem, part_bytes};
use kudos::files::sha256;
use kudos::models::{Input, Rated, Scored, Scorer};
use kudos::nn::Precision;
use kudos::shard::{Claim, Facts, Limits, Manifest, PartProblem, Plan, ShardError, UnitReader, plan, remove_leftovers};
use kudos::text::{Encoded, Encoder};
use serde_json::{Map, Value, json};
use std::mem::discriminant;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::SyncSender;

/// Which share of a job: I of N, from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shard {
    index: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((index, of)) if (1..=of).contains(&index) => Ok(Self { index, of }),
            _ => Err("expected I/N with I from 1 to N, such as 2/8".to_owned()),
        }
    }
}

impl Shard {
    /// Every Nth unit: where rows are sorted by length, or files differ, the shares are alike all the same.
    fn has(self, unit: usize) -> bool {
        unit % self.of == self.index - 1
    }
}

/// Responses of a unit when nothing else is asked for: some seconds of work, and enough to fill batches of like length.
const UNIT_SIZE: u64 = 1024;
/// Bytes of rows that are held at a time.
const UNIT_BYTES: usize = 32 << 20;
/// Columns that a row of any kind gets.
const COUNTS: [&str; 2] = ["tokens", "truncated"];
/// What scoring calls the column of control tokens.
pub const CONTROL_TOKENS: &str = "control_tokens";

/// A job with a judge that can do units of it.
pub struct Job {
    dir: PathBuf,
    manifest: Manifest,
    judge: Scorer,
    added: Added,
    units: UnitReader,
    strict: bool,
}

/// What became of a unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Done {
    /// It is done, by this call.
    Now,
    /// It was done already.
    Before,
    /// Another process does it.
    Elsewhere,
}

/// Runs `kudos score --shard`.
pub fn run(args: &score::Args, shard: Shard, global: &Global) -> anyhow::Result<()> {
    let mut job = Job::begin(args, global, false)?;
    announce_precision(&job.judge, global);
    let own: Vec<usize> = (0..job.units()).filter(|unit| shard.has(*unit)).collect();
    let missing = job.missing(&own)?;
    let before = own.len() - missing.len();
    let rows = job.do_all(missing, global)?;
    if !global.quiet {
        let Shard { index, of } = shard;
        say!("shard {index}/{of}: {} units, {before} of them done before; scored {rows} rows now", own.len());
        say!("{}", job.state());
    }
    Ok(())
}

impl Job {
    /// Begins a job, or goes on with it. One that `joins` takes the inputs for those of the job: each unit sees to its own rows.
    ///
    /// # Errors
    /// If the directory holds another job or other things, or if the judge or an input cannot be read.
    pub fn begin(args: &score::Args, global: &Global, joins: bool) -> anyhow::Result<Self> {
        let judge = load_judge_for(&args.judge, args.precision, args.literal)?;
        let dir = args.output.clone().ok_or_else(|| Usage("--shard: expected -o DIR".to_owned()))?;
        let options = Options { labelled: false, ..args.input.options(args.strict)? };
        let there = Manifest::read(&dir)?;
        let asked = asked(args, &judge, there.as_ref())?;
        let manifest = match there {
            Some(there) => {
                let refuse = |difference| ShardError::Other { dir: dir.clone(), difference };
                there.check(&asked).map_err(refuse)?;
                if !joins {
                    there.check_inputs(&hashes_of(&args.data)?).map_err(refuse)?;
                }
                there
            }
            None if joins => bail!("{}: expected a job, found no {}", dir.display(), Manifest::NAME),
            None => {
                Manifest::check_empty(&dir)?;
                planned(args, asked, &options, &judge, global)?.publish(&dir)?
            }
        };
        remove_leftovers(&dir).with_context(|| dir.display().to_string())?;
        let mut added = Added::beside(input_columns(&manifest), args.prefix.as_deref());
        manifest.added.iter().for_each(|(column, _)| drop(added.name(column)));
        let units = UnitReader::new(args.data.clone(), options);
        Ok(Self { dir, manifest, judge, added, units, strict: args.strict })
    }

    /// How many units there are.
    pub fn units(&self) -> usize {
        self.manifest.units.len()
    }

    /// Rows of a unit, usable or not.
    pub fn rows(&self, unit: usize) -> u64 {
        self.manifest.units[unit].rows
    }

    /// Those of some units that have no whole part. Parts that are not whole are told of.
    ///
    /// # Errors
    /// If a part cannot be read.
    pub fn missing(&self, units: &[usize]) -> anyhow::Result<Vec<usize>> {
        let mut missing = Vec::new();
        for unit in units {
            match self.manifest.open_part(&self.dir, *unit) {
                Ok(_) => {}
                Err(PartFault::Missing) => missing.push(*unit),
                Err(PartFault::Damaged(why)) => {
                    say!("{}: done again, as {why}", self.manifest.part(&self.dir, *unit).display());
                    missing.push(*unit);
                }
                Err(PartFault::Read(reason)) => {
                    return Err(ShardError::Read { path: self.manifest.part(&self.dir, *unit), reason }.into());
                }
            }
            interrupt::check_job()?;
        }
        Ok(missing)
    }

    /// Does one unit, if it is not done and no other process is at it; `beside` others where that is asked for.
    ///
    /// # Errors
    /// If its rows cannot be read or scored, or its part not be written.
    pub fn score(&mut self, unit: usize, beside: bool) -> anyhow::Result<Done> {
        let encoder = self.judge.encoder.clone();
        let mut reading = Reading { dir: &self.dir, manifest: &self.manifest, encoder: &encoder, strict: self.strict };
        let (claim, rows) = match reading.prepare(&mut self.units, unit, beside)? {
            Prepared::Ready(claim, rows) => (claim, rows),
            Prepared::Done => return Ok(Done::Before),
            Prepared::Elsewhere => return Ok(Done::Elsewhere),
        };
        let mut scoring = Scoring { manifest: &self.manifest, judge: &mut self.judge, added: &mut self.added };
        scoring.finish(&self.dir, unit, claim, rows)?;
        Ok(Done::Now)
    }

    /// Does units, and reads one ahead on its own thread while the model computes. Gives the number of rows that were scored.
    fn do_all(&mut self, missing: Vec<usize>, global: &Global) -> anyhow::Result<u64> {
        let Self { dir, manifest, judge, added, units, strict } = self;
        let (dir, manifest): (&Path, &Manifest) = (dir, manifest);
        let total: u64 = missing.iter().map(|unit| manifest.units[*unit].rows).sum();
        let mut progress = Progress::new(Some(total), "rows", global.quiet);
        let encoder = judge.encoder.clone();
        let reading = Reading { dir, manifest, encoder: &encoder, strict: *strict };
        let (sender, prepared) = std::sync::mpsc::sync_channel(1);
        std::thread::scope(|scope| {
            scope.spawn(move || reading.feed(units, missing, &sender));
            let mut scoring = Scoring { manifest, judge, added };
            let (mut done, mut rows, mut tokens) = (0, 0, 0);
            for item in prepared {
                let (unit, prepared) = item?;
                if let Prepared::Ready(claim, window) = prepared {
                    let facts = scoring.finish(dir, unit, claim, window)?;
                    (rows, tokens) = (rows + facts.rows, tokens + facts.tokens);
                }
                done += manifest.units[unit].rows;
                progress.set(done, &format!("{tokens} tokens"));
                interrupt::check_job()?;
            }
            progress.finish();
            Ok(rows)
        })
    }

    /// How far the whole job is, and what comes next.
    fn state(&self) -> String {
        let dir = self.dir.display();
        let there = (0..self.units()).filter(|unit| self.manifest.part(&self.dir, *unit).is_file()).count();
        match self.units() - there {
            0 => format!("all {there} units are there: `kudos collect {dir} -o FILE` joins them"),
            missing => format!("{there} of {} units are there, {missing} are missing", self.units()),
        }
    }
}

/// The job that is asked for, without its inputs. What is not said is as the job that is there has it.
fn asked(args: &score::Args, judge: &Scorer, there: Option<&Manifest>) -> anyhow::Result<Manifest> {
    let files = hashes(&resolve(&args.judge)?)?.into_iter().collect();
    let known = there.and_then(|there| there.settings.get("unit_size")?.as_u64());
    let settings = json!({
        "precision": judge.precision(),
        "arithmetic": arithmetic(judge.precision()),
        "literal": judge.reward.encode.literal,
        "data": args.input,
        "prefix": args.prefix,
        "unit_size": args.unit_size.or(known).unwrap_or(UNIT_SIZE),
    });
    Ok(Manifest::new(args.judge.clone(), files, settings.as_object().cloned().unwrap_or_default()))
}

/// The instructions that a score's last bits depend on.
fn arithmetic(precision: Precision) -> String {
    let all = kernels::description();
    let lines = all.lines().filter(|line| match precision {
        Precision::F32 => line.starts_with("instruction set"),
        _ => !line.starts_with("int8"), // sums of int8 are exact
    });
    lines.map(|line| line.split_once(": ").map_or(line, |(_, what)| what)).collect::<Vec<_>>().join("; bf16 by ")
}

fn hashes_of(inputs: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let hash = |path: &PathBuf| {
        let fail = |reason| DataError::Open { file: path.to_string_lossy().into(), reason };
        Ok(sha256(path).map_err(fail)?)
    };
    inputs.iter().map(hash).collect()
}

/// The columns of the inputs.
fn input_columns(manifest: &Manifest) -> std::collections::HashSet<String> {
    let mut names = manifest.columns.names();
    names.retain(|name| manifest.added.iter().all(|(_, added)| added != name));
    names
}

/// The job with its inputs, which are read once for that.
fn planned(
    args: &score::Args,
    mut job: Manifest,
    options: &Options,
    judge: &Scorer,
    global: &Global,
) -> anyhow::Result<Manifest> {
    for path in &args.data {
        if rank::is_ranking_database(path).unwrap_or(false) {
            bail!(
                "{}: expected a file of rows, found a database of kudos rank; `kudos rank export` writes one",
                path.display()
            );
        }
    }
    let mut progress = Progress::new(None, "rows read", global.quiet);
    let limits = Limits { responses: job.settings["unit_size"].as_u64().unwrap_or(UNIT_SIZE), bytes: UNIT_BYTES };
    let mut samples: Vec<(String, Value)> = Vec::new();
    let mut kinds = Vec::new();
    let visit = |record: &Record| {
        let responses = inputs(record).len();
        if !kinds.contains(&discriminant(record)) {
            kinds.push(discriminant(record));
            let new = sample_columns(record, responses.max(1), judge.attributes());
            samples.extend(new.into_iter().filter(|(column, _)| !COUNTS.contains(&column.as_str())));
        }
        responses as u64
    };
    let mut plan = plan(&args.data, options, limits, visit, |rows| {
        progress.set(rows, "");
        interrupt::check()
    })?;
    progress.finish();
    tell(&plan, global);
    if plan.responses == 0 {
        let unusable = plan.inputs.iter().map(|input| input.unreadable).sum();
        bail!("{}", nothing_scored(&args.data[0].to_string_lossy(), unusable, plan.first_problem.as_ref()));
    }
    let mut added = Added::beside(plan.schema.names(), args.prefix.as_deref());
    samples.extend([("tokens".to_owned(), json!(1)), ("truncated".to_owned(), json!(false))]);
    samples.push((CONTROL_TOKENS.to_owned(), json!(1)));
    for (column, sample) in samples {
        let name = added.name(&column);
        plan.schema.admit(&name, &sample);
        job.added.push((column, name));
    }
    if !global.quiet {
        added.notes().iter().for_each(|note| say!("{note}"));
    }
    plan.schema.settle();
    (job.inputs, job.units, job.columns) = (plan.inputs, plan.units, plan.schema);
    Ok(job)
}

fn tell(plan: &Plan, global: &Global) {
    if !global.quiet {
        plan.told.iter().for_each(|told| data::say(&told.file, told.layout.as_deref(), &told.notes));
        let rows: u64 = plan.inputs.iter().map(|input| input.rows).sum();
        say!("{rows} rows in {} units", plan.units.len());
    }
}

/// The columns that a record's row gets, with a value of the type of each.
fn sample_columns(record: &Record, responses: usize, attributes: &[String]) -> Vec<(String, Value)> {
    let scored = Scored { score: 0.5, tokens: 1, truncated: false };
    let rated = Rated { scored, attributes: vec![0.5; attributes.len()] };
    score_columns(record, &vec![rated; responses], attributes)
}

/// What one thread reads units with.
struct Reading<'a> {
    dir: &'a Path,
    manifest: &'a Manifest,
    encoder: &'a Encoder,
    strict: bool,
}

/// A unit before its texts are scored.
enum Prepared {
    Ready(Claim, Rows),
    Done,
    Elsewhere,
}

/// The rows of a unit, with their texts as ids.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    /// Texts of all rows, in the order of their score columns.
    encoded: Vec<Encoded>,
    /// Control tokens in the texts of each row.
    control: Vec<usize>,
    problems: Vec<RowProblem>,
}

impl Reading<'_> {
    /// Sends units one by one, those that other processes are at last; until the end, an error, or nobody listens.
    fn feed(
        mut self,
        units: &mut UnitReader,
        missing: Vec<usize>,
        sender: &SyncSender<anyhow::Result<(usize, Prepared)>>,
    ) {
        let mut later = Vec::new();
        for unit in missing {
            match self.prepare(units, unit, false) {
                Ok(Prepared::Elsewhere) => later.push(unit),
                prepared => {
                    let failed = prepared.is_err();
                    if sender.send(prepared.map(|prepared| (unit, prepared))).is_err() || failed {
                        return;
                    }
                }
            }
        }
        for unit in later {
            let prepared = self.prepare(units, unit, true);
            let failed = prepared.is_err();
            if sender.send(prepared.map(|prepared| (unit, prepared))).is_err() || failed {
                return;
            }
        }
    }

    fn prepare(&mut self, units: &mut UnitReader, unit: usize, beside: bool) -> anyhow::Result<Prepared> {
        let path = self.manifest.part(self.dir, unit);
        // Another process may have done it in the meantime.
        if path.is_file() && self.manifest.open_part(self.dir, unit).is_ok() {
            return Ok(Prepared::Done);
        }
        let fail = |reason| ShardError::Write { path: path.clone(), reason };
        let Some(claim) = Claim::take(&path, beside).map_err(fail)? else {
            return Ok(Prepared::Elsewhere);
        };
        Ok(Prepared::Ready(claim, self.read(units, unit)?))
    }

    fn read(&self, units: &mut UnitReader, unit: usize) -> anyhow::Result<Rows> {
        let (mut read, mut window) = (Vec::new(), Rows::default());
        units.read(&self.manifest.units[unit], |row| match row {
            Ok(row) => {
                read.push(row);
                anyhow::Ok(())
            }
            Err(problem) => super::score::refuse(&mut window.problems, problem, self.strict),
        })?;
        window.encode(read, self.encoder, self.strict)?;
        // Some of them were met before others were encoded.
        window.problems.sort_by_key(|problem| problem.location.line);
        Ok(window)
    }
}

impl Rows {
    fn encode(&mut self, rows: Vec<Row>, encoder: &Encoder, strict: bool) -> anyhow::Result<()> {
        let texts: Vec<Input> = rows.iter().flat_map(|row| inputs(&row.record)).collect();
        let mut encoded = encoder.encode_each(&texts).into_iter();
        for row in rows {
            let texts = inputs(&row.record);
            let own: Vec<_> = encoded.by_ref().take(texts.len()).collect();
            match own.into_iter().collect::<Result<Vec<_>, _>>() {
                Ok(own) => {
                    self.encoded.extend(own);
                    let control = texts.iter().map(|(prompt, response)| encoder.control_tokens(*prompt, response));
                    self.control.push(control.sum());
                    self.rows.push(row);
                }
                Err(error) => {
                    let problem = RowProblem { location: row.location.clone(), kind: refusal(error)? };
                    super::score::refuse(&mut self.problems, problem, strict)?;
                }
            }
        }
        Ok(())
    }
}

/// What one thread scores units with.
struct Scoring<'a> {
    manifest: &'a Manifest,
    judge: &'a mut Scorer,
    added: &'a mut Added,
}

impl Scoring<'_> {
    /// Scores the rows of a unit and writes its part.
    fn finish(&mut self, dir: &Path, unit: usize, claim: Claim, rows: Rows) -> anyhow::Result<Facts> {
        let (rows, facts) = self.score(unit, rows)?;
        let path = self.manifest.part(dir, unit);
        let said = serde_json::to_string(&facts)?;
        let written = part_bytes(&self.manifest.columns, &rows, &said).and_then(|bytes| claim.write(&bytes));
        written.map_err(|reason| ShardError::Write { path, reason })?;
        Ok(facts)
    }

    fn score(&mut self, unit: usize, window: Rows) -> anyhow::Result<(Vec<Map<String, Value>>, Facts)> {
        let mut rated: Vec<Rated> = Vec::with_capacity(window.encoded.len());
        for texts in window.encoded.chunks(WINDOW) {
            interrupt::check_job()?;
            rated.extend(self.judge.rate_encoded(texts)?);
        }
        let mut facts = Facts { job: self.manifest.id().to_owned(), unit, ..Facts::default() };
        let mut rest = rated.as_slice();
        let mut output = Vec::with_capacity(window.rows.len());
        for (row, control) in window.rows.iter().zip(&window.control) {
            let (own, after) = rest.split_at(inputs(&row.record).len());
            rest = after;
            count(&mut facts, row, own, *control);
            let mut columns = with_scores(row, own, self.judge.attributes(), self.added);
            if *control > 0 {
                columns.insert(self.added.name(CONTROL_TOKENS), json!(control));
            }
            output.push(columns);
        }
        let problem = |problem: RowProblem| PartProblem { line: problem.location.line, why: problem.kind.to_string() };
        facts.problems = window.problems.into_iter().map(problem).collect();
        Ok((output, facts))
    }
}

/// Rows with control tokens that a part names.
const NAMED: usize = 3;

fn count(facts: &mut Facts, row: &Row, rated: &[Rated], control: usize) {
    facts.rows += 1;
    facts.responses += rated.len() as u64;
    facts.tokens += rated.iter().map(|rated| rated.scored.tokens as u64).sum::<u64>();
    facts.truncated += u64::from(rated.iter().any(|rated| rated.scored.truncated));
    if control > 0 {
        facts.control = (facts.control.0 + 1, facts.control.1 + control as u64);
        facts.control_lines.extend((facts.control_lines.len() < NAMED).then_some(row.location.line));
    }
}

/// Says what was met in all parts, as `kudos score` does of a file.
pub fn summarise(manifest: &Manifest, parts: &[Facts]) {
    let sum = |of: fn(&Facts) -> u64| parts.iter().map(of).sum::<u64>();
    let (rows, responses) = (sum(|facts| facts.rows), sum(|facts| facts.responses));
    let (tokens, truncated) = (sum(|facts| facts.tokens), sum(|facts| facts.truncated));
    say!("{responses} responses in {rows} rows ({tokens} tokens), of {} units", parts.len());
    if truncated > 0 {
        say!("{truncated} rows hold a text that was cut to the token limit (column `truncated`)");
    }
    let place = |facts: &Facts, line: u64| format!("{}:{line}", manifest.inputs[manifest.units[facts.unit].input].name);
    let (control, control_tokens) = (sum(|facts| facts.control.0), sum(|facts| facts.control.1));
    if control > 0 {
        let lines = parts.iter().flat_map(|facts| facts.control_lines.iter().map(|line| place(facts, *line)));
        let first: Vec<String> = lines.take(NAMED).collect();
        let more = if control as usize > first.len() { ", …" } else { "" };
        say!(
            "{control} rows hold {} (column `{CONTROL_TOKENS}`): {}{more}; --literal reads them as plain text",
            of_control(control_tokens as usize),
            first.join(", ")
        );
    }
    let mut unusable = parts.iter().flat_map(|facts| facts.problems.iter().map(move |problem| (facts, problem)));
    if let Some((facts, first)) = unusable.next() {
        let (count, at) = (1 + unusable.count(), place(facts, first.line));
        say!("{count} rows could not be used and are not in the output, the first: {at}: {}", first.why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_of_one_share() {
        for of in 1..5 {
            let shards: Vec<Shard> = (1..=of).map(|index| format!("{index}/{of}").parse().unwrap()).collect();
            for unit in 0..20 {
                assert_eq!(shards.iter().filter(|shard| shard.has(unit)).count(), 1, "{unit} of {of}");
            }
        }
        for wrong in ["0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/4"] {
            assert!(wrong.parse::<Shard>().unwrap_err().contains("expected I/N"), "{wrong}");
        }
    }
}
