//! What a run starts from: a model, or, with `--head-from`, the judge of its own answers.

use super::super::convert_judge::Answers;
use super::super::{Global, resolve};
use super::{Args, keep_base, note};
use anyhow::Context;
use kudos::models::{ConvertSettings, convert_judge};
use kudos::text::{Asked, QUESTION};
use std::path::{Path, PathBuf};

/// Where the judge of a base's answers lies while a run needs it, in the output directory.
const FOLDER: &str = ".base";

/// The base of a run.
pub(super) struct Base {
    dir: PathBuf,
    /// Whether it was made for this run.
    made: bool,
}

impl Base {
    /// The base that the flags name.
    pub(super) fn of(args: &Args, global: &Global) -> anyhow::Result<Self> {
        let named = resolve(&args.base)?;
        keep_base(args, &named)?;
        match &args.head_from {
            None => Ok(Self { dir: named, made: false }),
            Some(Answers(answers)) => Self::asked(args, &named, answers.each_ref().map(String::as_str), global),
        }
    }

    /// The judge of a model's answers.
    fn asked(args: &Args, model: &Path, answers: [&str; 2], global: &Global) -> anyhow::Result<Self> {
        let base = Self { dir: args.output.join(FOLDER), made: true };
        base.remove(); // A killed run may have left one.
        std::fs::create_dir_all(&base.dir).with_context(|| base.dir.display().to_string())?;
        let settings = ConvertSettings {
            base: &args.base,
            asked: Asked::Question(QUESTION),
            answers: Some(answers),
            max_length: args.max_length,
        };
        let made = convert_judge(model, &base.dir, &settings);
        let made = made.with_context(|| format!("cannot start from the answers of {}", args.base))?;
        made.notes.iter().for_each(|line| note(global, &format!("note: {line}")));
        let [no, yes] = &made.answers;
        note(global, &format!("the head starts as the log odds of {yes:?} over {no:?}"));
        Ok(base)
    }

    /// Its directory, or its file.
    pub(super) fn path(&self) -> &Path {
        &self.dir
    }

    fn remove(&self) {
        let _ = std::fs::remove_dir_all(&self.dir); // Mostly there is none.
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        if self.made {
            self.remove();
        }
    }
}
