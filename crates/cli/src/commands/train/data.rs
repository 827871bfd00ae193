//! What a training learns from and is measured with: files → groups.

use super::super::data::{announce, load_groups};
use super::super::refused::{Taken, without_refused};
use super::super::report;
use super::super::resolve;
use super::{Answers, Args, Global, note};
use anyhow::{Context, bail};
use kudos::data::{Comparison, FileInfo, Group, Kind, Loaded, Location, check, split_by_prompt};
use kudos::models::{RewardModel, TrainedOn};
use kudos::text::Encoder;
use kudos::train::{
    Asked, HeldOut, HeldOutData, Labelled, Recipe, Taught, TrainError, each_pair_alone, is_rated, teach,
};
use std::collections::HashSet;

/// The groups to learn from and to be measured with.
pub(super) struct Data {
    pub train: Vec<Group>,
    pub eval: Vec<Group>,
    pub eval_name: String,
    pub files: Vec<FileInfo>,
    pub eval_files: Vec<FileInfo>,
    /// Names of the ratings that are learnt.
    attributes: Vec<String>,
    /// All labelled groups, for folds.
    pub labelled: Option<Labelled>,
    /// What `kudos check` says of the files.
    pub checked: check::Report,
}

impl Data {
    pub fn load(args: &Args, asked: &Asked, global: &Global) -> anyhow::Result<Self> {
        let options = args.input.options(args.strict)?;
        let loaded = load_groups(&args.data, &options)?;
        report_problems(&loaded, global);
        let alone = (asked.recipe == Some(Recipe::Trl)).then(|| each_pair_alone(&loaded));
        if alone.is_some() {
            warn_of_weights(&loaded, global);
        }
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
            let train = match load_teacher(args)? {
                None => groups,
                Some(teacher) => taught(&groups, &teacher, global),
            };
            let eval = eval_groups;
            return Ok(Self { train, eval, eval_name, files, eval_files, attributes, labelled, checked });
        }
        // With any rating at all, so that the split does not depend on which of them are learnt.
        let teaches = |g: &Group| match attributes.is_empty() {
            true => g.counted().next().is_some(),
            false => g.responses.iter().any(|r| !r.attributes.is_empty()),
        };
        let teacher = load_teacher(args)?;
        let usable = |g: &Group| teaches(g) || teacher.is_some() && g.responses.len() > 1;
        let compared: Vec<Group> = groups.into_iter().filter(usable).collect();
        let fraction = asked.eval_fraction_or_default();
        let (mut train, mut eval) = match fraction > 0.0 {
            true => split_by_prompt(compared, fraction, asked.seed.unwrap_or(42)),
            false => (compared, Vec::new()),
        };
        if let Some(teacher) = &teacher {
            train = taught(&train, teacher, global);
            // People's word, where there is one, is what the judge is measured with.
            let (labelled, others): (Vec<Group>, Vec<Group>) = eval.into_iter().partition(teaches);
            eval = if labelled.is_empty() { teach(&others, teacher).groups } else { labelled };
        }
        let eval_name = format!("{:.0} % of the prompts, held out", 100.0 * fraction);
        let (files, eval_files) = (loaded.files, Vec::new());
        Ok(Self { train, eval, eval_name, files, eval_files, attributes, labelled, checked })
    }

    /// Takes out of all groups what the base's chat template refuses, and states it.
    pub fn leave_out_refused(&mut self, encoder: &Encoder, strict: bool, global: &Global) -> anyhow::Result<()> {
        self.train = without_refused(std::mem::take(&mut self.train), &[encoder], strict, global)?;
        self.eval = without_refused(std::mem::take(&mut self.eval), &[encoder], strict, global)?;
        if let Some(Labelled { groups, rows }) = self.labelled.take() {
            let taken = Taken::of(&groups, &[encoder])?; // Stated above, as the same groups.
            let rows = groups.iter().zip(rows).zip(&taken.responses).filter(|(_, taken)| !taken.is_empty());
            let rows = rows.map(|((group, rows), taken)| kept_rows(group, rows, taken)).collect();
            self.labelled = Some(Labelled { groups: taken.parts(groups), rows });
        }
        Ok(())
    }

    pub fn held_out(&self, encoder: &Encoder) -> anyhow::Result<Option<HeldOut>> {
        if self.eval.iter().all(|g| g.counted().next().is_none() && !is_rated(g, &self.attributes)) {
            if !self.eval_files.is_empty() {
                bail!(
                    "--eval {}: expected labelled prompts to measure with, found none; {}",
                    self.eval_name,
                    nothing_in(&self.eval_files)
                );
            }
            return Ok(None);
        }
        Ok(Some(HeldOut::encode(&self.eval_name, self.eval.clone(), encoder)?))
    }

    /// Why no example is left to learn from.
    pub fn nothing_to_learn(&self, asked: &Asked) -> TrainError {
        let (pairs, ties) =
            self.files.iter().fold((0, 0), |(pairs, ties), file| (pairs + file.pairs, ties + file.ties));
        let reason = match (pairs, ties) {
            (0, 0) => nothing_in(&self.files),
            (0, _) if asked.recipe == Some(Recipe::Trl) => {
                "every comparison is a tie, from which --recipe trl learns nothing".to_owned()
            }
            _ => "every labelled prompt was held out; lower --eval-fraction".to_owned(),
        };
        TrainError::NoPairs { reason }
    }

    /// Where what is held out came from.
    pub fn held_out_from(&self, held_out: &Option<HeldOut>) -> HeldOutData {
        match held_out {
            None => HeldOutData::None,
            Some(_) if self.eval_files.is_empty() => HeldOutData::Drawn,
            Some(_) => HeldOutData::Given,
        }
    }
}

/// The judge that labels, if there is one.
fn load_teacher(args: &Args) -> anyhow::Result<Option<RewardModel>> {
    let load = |name: &String| -> anyhow::Result<RewardModel> {
        RewardModel::load(&resolve(name)?, None).with_context(|| format!("--teacher {name}"))
    };
    args.teacher.as_ref().map(load).transpose()
}

/// What the teacher says of the groups, stated.
fn taught(groups: &[Group], teacher: &RewardModel, global: &Global) -> Vec<Group> {
    let Taught { groups, comparisons, unscored } = teach(groups, teacher);
    let left =
        if unscored > 0 { format!("; {unscored} responses it cannot score are left out") } else { String::new() };
    note(global, &format!("the teacher labels {comparisons} pairs of {} prompts{left}", groups.len()));
    groups
}

/// The rows of the comparisons between responses that are taken.
fn kept_rows(group: &Group, rows: Vec<Location>, taken: &[usize]) -> Vec<Location> {
    let both = |c: &Comparison| taken.contains(&c.first) && taken.contains(&c.second);
    rows.into_iter().zip(&group.comparisons).filter(|(_, c)| both(c)).map(|(row, _)| row).collect()
}

/// What files without a comparison have instead.
fn nothing_in(files: &[FileInfo]) -> String {
    if files.iter().any(|file| file.weightless > 0) {
        return "every comparison has weight 0, which makes it none".to_owned();
    }
    let unlabelled = files.iter().find(|file| file.kind == Some(Kind::Unlabelled) && !file.might_rate.is_empty());
    unlabelled.map_or("no response is ranked or compared".to_owned(), FileInfo::no_preference)
}

/// TRL's trainer knows no weights.
fn warn_of_weights(loaded: &Loaded, global: &Global) {
    if loaded.groups.iter().flat_map(|group| &group.comparisons).any(|c| c.weight != 1.0) {
        note(
            global,
            "note: --recipe trl ignores `weight`, as TRL does: every pair counts the same, but for those of weight 0",
        );
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
    announce(&loaded.files, global);
    for problem in loaded.problems.iter().take(SHOWN) {
        note(global, &format!("not used: {problem}"));
    }
    if loaded.problems.len() > SHOWN {
        let left = loaded.problems.len() - SHOWN;
        note(global, &format!("not used: {left} more rows; `kudos check` lists them all"));
    }
    if loaded.weightless() > 0 {
        note(global, &format!("not used: {} comparisons of weight 0", loaded.weightless()));
    }
}

pub(super) fn trained_on(file: &FileInfo) -> TrainedOn {
    TrainedOn { file: file.file.clone(), sha256: file.sha256.clone(), groups: file.groups, pairs: file.pairs }
}

/// What a resumed run must share with the one that was killed.
pub(super) fn fingerprint(data: &Data, args: &Args, encoder: &Encoder) -> String {
    let hashes: Vec<_> = data.files.iter().chain(&data.eval_files).map(|f| f.sha256.as_str()).collect();
    let encode = serde_json::to_string(encoder.settings()).expect("plain data");
    let teacher = args.teacher.as_ref().map_or(String::new(), |teacher| format!(" teacher={teacher}"));
    let from = args.head_from.as_ref().map_or(String::new(), |Answers(answers)| format!(" head_from={answers:?}"));
    let text = |path: &std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default(); // It was read when the base was made.
    let template = args.template.as_ref().map_or(String::new(), |path| format!(" template={:?}", text(path)));
    format!("{} {encode} {} new_head={}{teacher}{from}{template}", args.base, hashes.join(" "), args.new_head)
}
