//! The parts of `kudos train` that train more than one judge: `--folds` and `--ensemble`.

use super::Global;
use super::train::{Smooth, note};
use crate::display::Progress;
use crate::interrupt;
use anyhow::Context;
use kudos::data::{OutputFormat, Writer};
use kudos::eval::Rate;
use kudos::train::{
    Chosen, Event, FOLD_FILES, Features, Finished, FoldOptions, FoldResult, Folds, Labelled, Trainer, run_ensemble,
};
use serde_json::{Map, Value};
use std::ops::ControlFlow;
use std::path::Path;

/// Trains the judges of all folds, writes what they say, and says it. `judge_steps` are those of the judge itself.
pub fn run(
    options: FoldOptions,
    judge_steps: u64,
    features: &mut Features,
    global: &Global,
) -> anyhow::Result<FoldResult> {
    let (labelled, dir, count) = (options.labelled, options.dir, options.folds);
    let folds = Folds::plan(options)?;
    let (trainings, steps) = (folds.trainings(), folds.steps());
    let cost = steps as f64 / judge_steps as f64;
    note(
        global,
        &format!(
            "{count} folds before the judge itself: {trainings} trainings, on all, a half and a quarter of the other folds' \
             prompts; {steps} steps, as many as of {cost:.1} judges"
        ),
    );
    let mut progress = Progress::new(Some(steps), "steps", global.quiet);
    let result = folds.run(features, &mut |at| {
        progress.set(at.steps, &format!("training {} of {trainings}", at.training));
        interrupt::flow()
    });
    progress.finish();
    let result = result?;
    write(dir, &result, labelled)?;
    report(&result, dir, global);
    Ok(result)
}

fn write(dir: &Path, result: &FoldResult, labelled: &Labelled) -> anyhow::Result<()> {
    let [summary, scores, suspects] = FOLD_FILES.map(|file| dir.join("run").join(file));
    rows(&scores, &result.score_rows(labelled))?;
    rows(&suspects, &result.suspect_rows(labelled))?;
    let text = format!("{:#}\n", result.summary(labelled));
    kudos::files::write(&summary, text.as_bytes()).with_context(|| summary.display().to_string())
}

fn rows(path: &Path, rows: &[Map<String, Value>]) -> anyhow::Result<()> {
    let mut writer = Writer::create(path, OutputFormat::of_name(path))?;
    rows.iter().try_for_each(|row| writer.write(row))?;
    writer.finish()?;
    Ok(())
}

fn report(result: &FoldResult, dir: &Path, global: &Global) {
    note(global, &format!("out of fold: accuracy {}", rate(&result.accuracy)));
    for point in &result.learning_curve {
        note(global, &format!("  trained on {:>6} prompts: {}", point.prompts, rate(&point.rate)));
    }
    let run = dir.join("run");
    let doubted = match result.suspects.len() {
        0 => "no label looks wrong".to_owned(),
        n => format!("{n} pairs whose label looks wrong: {}", run.join(FOLD_FILES[2]).display()),
    };
    note(global, &format!("{doubted}; all figures: {}", run.join(FOLD_FILES[0]).display()));
}

fn rate(rate: &Rate) -> String {
    match (rate.accuracy, rate.accuracy_ci95) {
        (Some(accuracy), Some([low, high])) => format!("{accuracy:.3} [{low:.3}, {high:.3}]"),
        (Some(accuracy), None) => format!("{accuracy:.3}"),
        (None, _) => "–".into(),
    }
}

/// Trains all members with a progress display and says what their average is worth.
pub fn ensemble(trainer: &mut Trainer, members: usize, resume: bool, global: &Global) -> anyhow::Result<Finished> {
    let each = trainer.settings().max_steps;
    let mut progress = Progress::new(Some(each * members as u64), "steps", global.quiet);
    let mut smooth = Smooth::default();
    let finished = run_ensemble(trainer, members, resume, &mut |place, event| match event {
        Event::Step(metrics) => {
            smooth.add(metrics);
            progress.set(each * place as u64 + metrics.step, &format!("run {}  {}", place + 1, smooth.text()));
            interrupt::flow()
        }
        Event::Head(..) | Event::Evaluated(_) => ControlFlow::Continue(()),
    });
    progress.finish();
    let finished = finished?;
    if let Some(line) = ensemble_line(&finished) {
        note(global, &line);
    }
    Ok(finished)
}

fn ensemble_line(finished: &Finished) -> Option<String> {
    let ensemble = finished.ensemble.as_ref()?;
    let figure = |loss: Option<f64>| loss.map_or("–".into(), |loss| format!("{loss:.3}"));
    let members: Vec<String> = ensemble.members.iter().map(|member| figure(member.held_out.log_loss)).collect();
    let kept = match ensemble.chosen {
        Chosen::Average => "the average of their weights is kept".to_owned(),
        Chosen::Member(place) => format!("run {} is kept, for their average is worse than they are", place + 1),
    };
    Some(format!(
        "{} runs, held-out log loss {} (mean {}); of the average {}: {kept}",
        ensemble.members.len(),
        members.join(", "),
        figure(ensemble.mean().log_loss),
        figure(ensemble.average.log_loss)
    ))
}
