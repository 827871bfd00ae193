//! `manifest.json`: what a job is, so that whoever goes on with it does the same, and nobody goes on with another one.

use super::units::Unit;
use super::{Claim, ShardError, unwritable};
use crate::data::{Part, PartFault, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What a job is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this file: 1.
    pub format: u32,
    /// Version of the program.
    pub kudos: String,
    /// What the judge was called.
    pub judge: String,
    /// Its files with their SHA-256.
    pub judge_files: BTreeMap<String, String>,
    /// Whatever else decides the result.
    pub settings: Map<String, Value>,
    /// The files of rows.
    pub inputs: Vec<Input>,
    /// Columns that are added to rows: what scoring calls each, and its name in the output.
    pub added: Vec<(String, String)>,
    /// The columns of every part.
    pub columns: Schema,
    /// What is to be done, in the order of the output.
    pub units: Vec<Unit>,
    /// Tells it from other jobs.
    #[serde(skip)]
    id: String,
}

/// A file of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// As the user named it.
    pub name: String,
    /// Hash of its bytes.
    pub sha256: String,
    /// Rows, usable or not.
    pub rows: u64,
    /// Those that are unusable whatever the judge.
    pub unreadable: u64,
}

/// What a part says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Which job it is of.
    pub job: String,
    /// Which unit of it.
    pub unit: usize,
    /// Rows in it.
    pub rows: u64,
    /// Responses that were scored.
    pub responses: u64,
    /// Tokens of these.
    pub tokens: u64,
    /// Rows with a text that was cut.
    pub truncated: u64,
    /// Rows with control tokens, and how many these are.
    #[serde(default)]
    pub control: (u64, u64),
    /// The lines of the first of these.
    #[serde(default)]
    pub control_lines: Vec<u64>,
    /// Rows that could not be used.
    #[serde(default)]
    pub problems: Vec<PartProblem>,
}

/// A row that could not be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartProblem {
    /// The line where it starts, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// How a job differs from that of the directory, in words.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference(String);

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Manifest {
    /// Its name in the directory of the job.
    pub const NAME: &str = "manifest.json";

    /// A job that is not begun: it has no inputs and no units yet.
    pub fn new(judge: String, judge_files: BTreeMap<String, String>, settings: Map<String, Value>) -> Self {
        let kudos = env!("CARGO_PKG_VERSION").to_owned();
        let (inputs, added, units) = (Vec::new(), Vec::new(), Vec::new());
        let columns = Schema::default();
        Self { format: 1, kudos, judge, judge_files, settings, inputs, added, columns, units, id: String::new() }
    }

    /// The job of a directory; `None` if there is none.
    ///
    /// # Errors
    /// If the manifest cannot be read, or is that of another version.
    pub fn read(dir: &Path) -> Result<Option<Self>, ShardError> {
        let path = dir.join(Self::NAME);
        let bad = |found: String| ShardError::Manifest { path: path.clone(), found };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(bad(error.to_string())),
        };
        let format = serde_json::from_slice::<Value>(&text).map_err(|error| bad(error.to_string()))?["format"].clone();
        if format != 1 {
            return Err(bad(format!("format {format}, which is that of another version")));
        }
        let mut manifest: Self = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        manifest.id = manifest.hash();
        Ok(Some(manifest))
    }

    /// Puts a new job into a directory, which is made if there is none. If another process was faster, the job there counts.
    ///
    /// # Errors
    /// If it cannot be written, or if the directory holds other things.
    pub fn publish(mut self, dir: &Path) -> Result<Self, ShardError> {
        self.id = self.hash();
        std::fs::create_dir_all(dir).map_err(unwritable(dir))?;
        let path = dir.join(Self::NAME);
        let text = format!("{:#}\n", json!(self));
        let claim = Claim::take(&path, true).map_err(unwritable(&path))?;
        match claim.map_or(Ok(()), |claim| claim.write_new(text.as_bytes())) {
            Ok(()) => Ok(self),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match Self::read(dir)? {
                Some(there) => there.same_as(self, dir),
                None => Err(unwritable(&path)(error)),
            },
            Err(error) => Err(unwritable(&path)(error)),
        }
    }

    /// This job, if the other one is the same.
    fn same_as(self, other: Self, dir: &Path) -> Result<Self, ShardError> {
        let refuse = |difference| ShardError::Other { dir: dir.to_owned(), difference };
        self.check(&other).map_err(refuse)?;
        let hashes: Vec<&str> = other.inputs.iter().map(|input| input.sha256.as_str()).collect();
        self.check_inputs(&hashes).map_err(refuse)?;
        match self.id == other.id {
            true => Ok(self),
            false => Err(refuse(Difference("the job there was cut into other units".to_owned()))),
        }
    }

    /// Refuses a directory that holds anything but a job. What is hidden does not count.
    ///
    /// # Errors
    /// If it cannot be read, or holds something.
    pub fn check_empty(dir: &Path) -> Result<(), ShardError> {
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(unwritable(dir))?,
        };
        for entry in entries {
            let name = entry.map_err(unwritable(dir))?.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && name != Self::NAME {
                return Err(ShardError::NotEmpty { dir: dir.to_owned(), found: name });
            }
        }
        Ok(())
    }

    /// How what is asked for differs from this job, but for the inputs.
    ///
    /// # Errors
    /// The difference, if there is one.
    pub fn check(&self, asked: &Self) -> Result<(), Difference> {
        let differ = |text: String| Err(Difference(text));
        if self.kudos != asked.kudos {
            return differ(format!("the job there was begun by kudos {}, this is kudos {}", self.kudos, asked.kudos));
        }
        if self.judge_files != asked.judge_files {
            let names = self.judge_files.keys().chain(asked.judge_files.keys());
            let file = names.min_by_key(|name| self.judge_files.get(*name) == asked.judge_files.get(*name));
            let file = file.map_or("", String::as_str);
            return differ(format!("the job there is by another judge than {} ({file} differs)", asked.judge));
        }
        let names = self.settings.keys().chain(asked.settings.keys());
        for name in names {
            let [there, here] = [&self.settings, &asked.settings].map(|settings| settings.get(name));
            if there != here {
                let [there, here] = [there, here].map(|value| value.map_or("none".to_owned(), in_words));
                return differ(format!("the job there has the {} {there}, this call {here}", name.replace('_', " ")));
            }
        }
        Ok(())
    }

    /// Whether inputs with these hashes are those of the job.
    ///
    /// # Errors
    /// The difference, if there is one.
    pub fn check_inputs<T: AsRef<str>>(&self, hashes: &[T]) -> Result<(), Difference> {
        if hashes.len() != self.inputs.len() {
            return Err(Difference(format!(
                "the job there has {} inputs, this call {}",
                self.inputs.len(),
                hashes.len()
            )));
        }
        let changed = self.inputs.iter().zip(hashes).find(|(input, hash)| input.sha256 != hash.as_ref());
        match changed {
            None => Ok(()),
            Some((Input { name, sha256, .. }, hash)) => {
                let [there, here] = [sha256, hash.as_ref()].map(|hash| &hash[..hash.len().min(12)]);
                Err(Difference(format!("the job there has another {name} (SHA-256 {there}…, now {here}…)")))
            }
        }
    }

    /// What tells it from other jobs. Names of files do not.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn hash(&self) -> String {
        let inputs: Vec<_> = self.inputs.iter().map(|input| (&input.sha256, input.rows)).collect();
        let all = json!([
            self.format,
            self.kudos,
            self.judge_files,
            self.settings,
            inputs,
            self.added,
            self.columns,
            self.units
        ]);
        Sha256::digest(all.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Where the part of a unit is. Names in order of the alphabet are in the order of the rows.
    pub fn part(&self, dir: &Path, unit: usize) -> PathBuf {
        let digits = self.units.len().saturating_sub(1).to_string().len().max(5);
        dir.join(format!("part-{unit:0digits$}.parquet"))
    }

    /// The part of a unit, with what it says of itself.
    ///
    /// # Errors
    /// If it is missing, not whole, or of another job.
    pub fn open_part(&self, dir: &Path, unit: usize) -> Result<(Part, Facts), PartFault> {
        let part = Part::open(&self.part(dir, unit))?;
        let facts: Facts = serde_json::from_str(&part.facts).map_err(|error| PartFault::Damaged(error.to_string()))?;
        match facts.job == self.id && facts.unit == unit {
            true => Ok((part, facts)),
            false => Err(PartFault::Damaged("it is a part of another job".to_owned())),
        }
    }
}

fn in_words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(judge: &str, precision: &str) -> Manifest {
        let files =
            BTreeMap::from([("config.json".to_owned(), "1".to_owned()), ("model".to_owned(), judge.to_owned())]);
        let settings = json!({"literal": false, "precision": precision}).as_object().unwrap().clone();
        Manifest::new("judge".to_owned(), files, settings)
    }

    fn with_input(mut job: Manifest, hash: &str) -> Manifest {
        job.inputs.push(Input { name: "a.csv".into(), sha256: hash.into(), rows: 1, unreadable: 0 });
        job
    }

    #[test]
    fn differences_are_said() {
        let there = with_input(job("2", "f32"), "0123456789abcdef");
        let said = |other: &Manifest| there.check(other).unwrap_err().to_string();
        assert_eq!(there.check(&job("2", "f32")), Ok(()));
        assert_eq!(said(&job("3", "f32")), "the job there is by another judge than judge (model differs)");
        assert_eq!(said(&job("2", "bf16")), "the job there has the precision f32, this call bf16");
        let inputs = |hashes: &[&str]| there.check_inputs(hashes).unwrap_err().to_string();
        assert_eq!(there.check_inputs(&["0123456789abcdef"]), Ok(()));
        assert_eq!(
            inputs(&["fedcba9876543210"]),
            "the job there has another a.csv (SHA-256 0123456789ab…, now fedcba987654…)"
        );
        assert_eq!(inputs(&[]), "the job there has 1 inputs, this call 0");
    }

    #[test]
    fn the_first_job_of_a_directory_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        assert_eq!(Manifest::read(&path).unwrap(), None);
        Manifest::check_empty(&path).unwrap();
        let first = with_input(job("2", "f32"), "aa").publish(&path).unwrap();
        assert_eq!(with_input(job("2", "f32"), "aa").publish(&path).unwrap(), first, "the same one");
        let error = with_input(job("2", "f32"), "bb").publish(&path).unwrap_err().to_string();
        assert!(error.contains("another a.csv"), "{error}");
        assert_eq!(Manifest::read(&path).unwrap(), Some(first));
        std::fs::write(path.join("thesis.tex"), "").unwrap();
        let error = Manifest::check_empty(&path).unwrap_err().to_string();
        assert!(error.contains("found thesis.tex and no manifest.json"), "{error}");
        std::fs::write(path.join(Manifest::NAME), "{}").unwrap();
        assert!(
            Manifest::read(&path).unwrap_err().to_string().contains("manifest.json: expected the manifest of a job")
        );
    }
}
