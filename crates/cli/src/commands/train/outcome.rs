//! What a training says at its end: the report, the figures and what they mean.

use super::super::report;
use super::data::Data;
use super::{Args, Global, note};
use crate::display::wrapped;
use kudos::eval::{Analysis, AnalysisOptions, EvalOptions, Metrics, Outcome, analyse, render_table, verdict};
use kudos::train::{Finished, FoldResult, Measured, Trainer, preferred_pairs, truncated_share};
use serde_json::json;
use std::path::PathBuf;

/// `report.html` in the judge's directory. Nothing in it depends on where the judge lies or how long the run took.
pub(super) fn write_report(
    args: &Args,
    data: &Data,
    (trainer, finished): (&Trainer, &Finished),
    folds: Option<&FoldResult>,
) -> anyhow::Result<()> {
    let temperature = finished.held_out.as_ref().map_or(1.0, |held_out| held_out.temperature);
    let options = EvalOptions { temperature, ..EvalOptions::default() };
    let mut analyses: Vec<Analysis> = Vec::new();
    if let Some(held_out) = &finished.held_out {
        let options = AnalysisOptions { eval: options, ..AnalysisOptions::default() };
        let Measured { report, scores, .. } = held_out;
        let mut analysis = analyse(&report.file, &data.eval, scores, &options)?;
        analysis.data.truncated = report.truncated;
        analysis.data.attributes = report.attributes.clone();
        if let Some((folds, labelled)) = folds.zip(data.labelled.as_ref()) {
            folds.add_to(&mut analysis, labelled);
        }
        analyses.push(analysis);
    }
    let caution = finished.caution().map(str::to_owned);
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
pub(super) fn conclude(args: &Args, trainer: &Trainer, finished: &Finished, global: &Global) {
    if finished.stopped_early {
        note(global, &format!("stopped after step {}: the held-out loss no longer fell", finished.steps));
    }
    match &finished.held_out {
        Some(Measured { report, .. }) => {
            note(global, &render_table(std::slice::from_ref(report)));
            // Ratings without an order have no accuracy to explain.
            if report.metrics.pairs > 0 || report.attributes.is_empty() {
                explain(trainer, finished, &report.metrics, global);
            }
        }
        None => note(
            global,
            "Nothing was held out, so nothing is known about how good the judge is. Measure it with `kudos eval` on \
             prompts that were not trained on.",
        ),
    }
    let output = args.output.display();
    let chosen = match finished.chosen_by_held_out && !finished.kept_head() {
        true => ", the best on the held-out prompts",
        false => "",
    };
    note(global, &format!("{}{chosen}", finished.kept_weights()));
    note(global, &format!("report: {output}/report.html"));
    note(global, &format!("judge: {output}    next: kudos score answers.csv --judge {output}"));
}

fn explain(trainer: &Trainer, finished: &Finished, held_out: &Metrics, global: &Global) {
    let of_its_steps = !finished.kept_head();
    let outcome = Outcome {
        train_accuracy: finished.train_accuracy.filter(|_| of_its_steps),
        train_pairs: preferred_pairs(trainer.examples()),
        loss: finished.loss.filter(|_| of_its_steps),
        truncated_share: truncated_share(trainer.examples()),
        held_out,
    };
    for finding in verdict(&outcome) {
        note(global, &wrapped(&finding.to_string()));
    }
}

/// What `--json` prints: the held-out report as `kudos eval` has it, and how the run went.
pub(super) fn print_json(args: &Args, data: &Data, finished: &Finished, folds: Option<&FoldResult>) {
    let report: Vec<_> = finished.held_out.iter().map(|held_out| &held_out.report).collect();
    let folds = folds.zip(data.labelled.as_ref()).map(|(folds, labelled)| folds.summary(labelled));
    let (judge, kept_step, ensemble) = (&args.output, finished.kept, &finished.ensemble);
    outln!(
        "{:#}",
        json!({"judge": judge, "kept_step": kept_step, "ensemble": ensemble, "folds": folds, "data": report})
    );
}
