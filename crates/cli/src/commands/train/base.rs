//! What a run starts from: a model; with `--head-from`, the judge of its own answers; its lowest layers, for adapters of
//! these.

use super::super::convert_judge::{Answers, read};
use super::super::{Global, resolve, wrong_usage};
use super::{Args, keep_base, note};
use anyhow::Context;
use kudos::models::adapter::LOWER_BASE;
use kudos::models::{ConvertSettings, convert_judge};
use kudos::text::{Asked, QUESTION};
use kudos::train::write_lower_base;
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
        match (&args.head_from, args.keep_layers.filter(|_| args.lora.is_some())) {
            (None, None) => Ok(Self { dir: named, made: false }),
            (None, Some(layers)) => Self::lowest(args, &named, layers, global),
            (Some(_), Some(_)) => {
                wrong_usage!("--head-from reads the last layer, and --keep-layers drops it: leave one of them out")
            }
            (Some(Answers(answers)), None) => Self::asked(args, &named, answers.each_ref().map(String::as_str), global),
        }
    }

    /// The judge of a model's answers, to the question of `convert-judge` or to the template that is given.
    fn asked(args: &Args, model: &Path, answers: [&str; 2], global: &Global) -> anyhow::Result<Self> {
        let template = read(args.template.as_deref())?;
        let base = Self { dir: args.output.join(FOLDER), made: true };
        base.remove(); // A killed run may have left one.
        std::fs::create_dir_all(&base.dir).with_context(|| base.dir.display().to_string())?;
        let settings = ConvertSettings {
            base: &args.base,
            asked: template.as_deref().map_or(Asked::Question(QUESTION), Asked::Whole),
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

    /// The lowest layers of a model.
    fn lowest(args: &Args, model: &Path, layers: usize, global: &Global) -> anyhow::Result<Self> {
        let base = Self { dir: args.output.join(FOLDER), made: true };
        base.remove();
        std::fs::create_dir_all(&base.dir).with_context(|| base.dir.display().to_string())?;
        write_lower_base(model, layers, args.new_head, &base.dir)
            .with_context(|| format!("cannot start from {}", args.base))?;
        note(global, &format!("adapting the lower {layers} layers of {}", args.base));
        Ok(base)
    }

    /// Where the base of the written judge lies. That of an adapter over fewer layers is put beside it; the tokenizer is
    /// still read from where it was made.
    pub(super) fn keep(&self, args: &Args) -> anyhow::Result<PathBuf> {
        if args.keep_layers.is_none() || args.lora.is_none() {
            return resolve(&args.base);
        }
        let place = args.output.join(LOWER_BASE);
        let _ = std::fs::remove_dir_all(&place); // Of an earlier run that is continued.
        std::fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let (from, to) = (entry.path(), place.join(entry.file_name()));
            std::fs::hard_link(&from, &to)
                .or_else(|_| std::fs::copy(&from, &to).map(drop))
                .with_context(|| to.display().to_string())?;
        }
        Ok(place)
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
