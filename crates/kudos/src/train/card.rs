//! The model card: what a judge was trained on, how good it is, and what that does not say.

use super::{Chosen, Figures, Finished, JudgeFiles, Measured, Trainer, preferred_pairs, truncated_share};
use crate::eval::{DataReport, Metrics};
use crate::models::RewardConfig;
use crate::text::Truncation;
use std::fmt::Write;

/// `README.md` of a judge directory.
pub(super) fn render(trainer: &Trainer, finished: &Finished, files: &JudgeFiles, reward: &RewardConfig) -> String {
    let lora = trainer.adapters();
    let mut card = format!(
        "---\nlibrary_name: {}\npipeline_tag: text-classification\ntags:\n- reward-model\n- kudos\n---\n\n# Reward model\n\n",
        if lora.is_some() { "peft" } else { "transformers" }
    );
    let head = if files.new_head { "a new classification head" } else { "its own classification head" };
    let _ = writeln!(
        card,
        "Scores how good a response to a prompt is: one number, higher is better. Trained with Kudos {} from `{}` with {head}.\n",
        env!("CARGO_PKG_VERSION"),
        files.base
    );
    if let Some(lora) = lora {
        let _ = writeln!(
            card,
            "It is a LoRA adapter of rank {} and a head, over the base. `kudos merge` makes one model of both.\n",
            lora.rank
        );
    }
    attributes(&mut card, trainer);
    data(&mut card, (trainer, finished), files);
    held_out(&mut card, finished);
    usage(&mut card, reward, lora.is_some());
    settings(&mut card, trainer, finished);
    several_runs(&mut card, finished, files);
    limits(&mut card, finished);
    card
}

fn attributes(card: &mut String, trainer: &Trainer) {
    let Some(head) = &trainer.settings().attributes else { return };
    card.push_str("## Attributes\n\nIt has one output for each of these ratings, in the units of the rating. The score is their weighted sum.\n\n");
    card.push_str("| output | attribute | weight | mean rating | standard deviation |\n|---|---|---|---|---|\n");
    let rows = head.names.iter().zip(&head.weights).zip(head.means.iter().zip(&head.stds)).enumerate();
    for (output, ((name, weight), (mean, std))) in rows {
        let _ = writeln!(card, "| {output} | {name} | {weight:.4} | {mean:.3} | {std:.3} |");
    }
    let _ = writeln!(
        card,
        "\nThe weights are {}; the constant added to the sum is {:.4}.\n",
        name(&head.weighting),
        head.intercept
    );
}

fn data(card: &mut String, (trainer, finished): (&Trainer, &Finished), files: &JudgeFiles) {
    card.push_str("## Data\n\n| file | groups | pairs | SHA-256 |\n|---|---|---|---|\n");
    for file in &files.data {
        let _ = writeln!(card, "| {} | {} | {} | `{}` |", file.file, file.groups, file.pairs, file.sha256);
    }
    let pairs = preferred_pairs(trainer.examples());
    let truncated = truncated_share(trainer.examples());
    let _ = writeln!(
        card,
        "\nTrained on {pairs} pairs in {} groups.{} {:.1} % of the responses were cut to the token limit.\n",
        trainer.examples().len(),
        if finished.refitted { " The head was then fitted again, on all prompts." } else { "" },
        100.0 * truncated
    );
}

fn held_out(card: &mut String, finished: &Finished) {
    card.push_str("## Held-out results\n\n");
    let Some(Measured { report, .. }) = &finished.held_out else {
        card.push_str("None: nothing was held out, so nothing is known about how good this judge is.\n\n");
        return;
    };
    let metrics = &report.metrics;
    let _ = writeln!(
        card,
        "On {} pairs of {} prompts ({}), none of which {} trained on:\n\n| metric | value |\n|---|---|",
        metrics.pairs,
        metrics.prompts,
        report.file,
        if finished.refitted { "had been" } else { "was" }
    );
    for (name, value) in rows(metrics) {
        let _ = writeln!(card, "| {name} | {value} |");
    }
    card.push('\n');
    if !report.attributes.is_empty() {
        card.push_str(&attribute_table(report));
    }
    if let Some(caution) = finished.caution() {
        let _ = writeln!(card, "{caution}\n");
    }
}

fn attribute_table(report: &DataReport) -> String {
    let number = |value: Option<f64>| value.map_or("–".into(), |v| format!("{v:.3}"));
    let mut table = String::from(
        "| attribute | ratings | Spearman | accuracy of pairs | mean absolute error |\n|---|---|---|---|---|\n",
    );
    for (name, m) in &report.attributes {
        let figures = [m.spearman, m.accuracy, m.mae].map(number).join(" | ");
        let _ = writeln!(table, "| {name} | {} | {figures} |", m.n);
    }
    table + "\n"
}

fn rows(metrics: &Metrics) -> Vec<(&'static str, String)> {
    let number = |value: Option<f64>| value.map_or("–".into(), |v| format!("{v:.3}"));
    let accuracy = match metrics.accuracy_ci95 {
        Some([low, high]) => format!("{} (95 % interval {low:.3} to {high:.3})", number(metrics.accuracy)),
        None => number(metrics.accuracy),
    };
    vec![
        ("accuracy", accuracy),
        ("\"the longer response wins\" on the same pairs", number(metrics.longer_response_accuracy)),
        ("Kendall tau-b", number(metrics.kendall_tau_b)),
        ("Spearman", number(metrics.spearman)),
        ("NDCG", number(metrics.ndcg)),
        ("log loss", number(metrics.log_loss)),
        ("expected calibration error", number(metrics.ece)),
    ]
}

fn usage(card: &mut String, reward: &RewardConfig, adapter: bool) {
    let cut = match reward.encode.truncation {
        Truncation::LongestFirst => "",
        Truncation::KeepResponse => {
            " Kudos cuts a text that is too long from the start of its prompt. Transformers has no such rule and cuts elsewhere, \
             so its scores of such texts are others."
        }
    };
    let _ = writeln!(
        card,
        "## Use\n\n```\nkudos score DATA --judge THIS_DIRECTORY\n```\n\nIn transformers: `AutoModelForSequenceClassification`{} on \
         `tokenizer(prompt, response, truncation=True, max_length={})`; the logit is the score.{cut} Scores of different prompts \
         compare only loosely; differences within a prompt are what it was trained for.\n",
        if adapter { " of the base, with `PeftModel.from_pretrained(base, THIS_DIRECTORY)`," } else { "" },
        reward.encode.max_length
    );
}

fn settings(card: &mut String, trainer: &Trainer, finished: &Finished) {
    let s = trainer.settings();
    let loss = if s.attributes.is_some() { "regression and pairwise".into() } else { name(&s.loss) };
    let _ = writeln!(
        card,
        "## Training\n\n{} steps of {} groups ({} loss, AdamW, peak learning rate {}, {} schedule, {} warm-up steps, seed {}); \
         {}. All settings: `training_args.json`; all steps: `run/metrics.jsonl`.\n",
        finished.steps,
        s.batch_size * s.accumulate,
        loss,
        s.learning_rate,
        name(&s.schedule),
        s.warmup_steps,
        s.seed,
        finished.kept_weights()
    );
    if let Some(head) = &finished.head {
        let _ = writeln!(
            card,
            "The head alone, on the frozen features of the base, had a held-out accuracy of {:.3} (that is step 0).\n",
            head.accuracy
        );
    }
}

/// What an ensemble and folds found, if they were asked for.
fn several_runs(card: &mut String, finished: &Finished, files: &JudgeFiles) {
    let number = |value: Option<f64>| value.map_or("–".into(), |v| format!("{v:.3}"));
    let figures = |figures: &Figures| format!("{} | {}", number(figures.accuracy), number(figures.log_loss));
    if let Some(ensemble) = &finished.ensemble {
        let kept = match ensemble.chosen {
            Chosen::Average => "The weights are the average of all runs (a model soup).".to_owned(),
            Chosen::Member(place) => {
                format!("The average is worse than its members, so the weights are run {}'s.", place + 1)
            }
        };
        card.push_str("Several runs from the same start, each in an order of its own:\n\n| run | seed | step | held-out accuracy | log loss |\n|---|---|---|---|---|\n");
        for (place, member) in ensemble.members.iter().enumerate() {
            let figures = figures(&member.held_out);
            let _ = writeln!(card, "| {} | {} | {} | {figures} |", place + 1, member.seed, member.step);
        }
        let (mean, average) = (figures(&ensemble.mean()), figures(&ensemble.average));
        let _ = writeln!(
            card,
            "| mean of the runs | | | {mean} |\n| average of their weights | | | {average} |\n\n{kept}\n"
        );
    }
    if let Some(folds) = files.folds {
        let rate = &folds.accuracy;
        let interval = rate.accuracy_ci95.map(|[low, high]| format!(" (95 % interval {low:.3} to {high:.3})"));
        let _ = writeln!(
            card,
            "{} judges of the same recipe, each trained without a fold of the prompts, reach an accuracy of {}{} on the prompts they \
             did not see (`run/folds.json`); {} labels look wrong to them (`run/suspects.jsonl`).\n",
            folds.temperatures.len(),
            number(rate.accuracy),
            interval.unwrap_or_default(),
            folds.suspects.len()
        );
    }
}

/// A closed choice as flags and files spell it.
fn name(choice: &impl serde::Serialize) -> String {
    serde_json::to_value(choice).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn limits(card: &mut String, finished: &Finished) {
    card.push_str("## Limits\n\nIt knows the taste of the people who ranked its data, in the kinds of prompt they ranked, and nothing about truth. ");
    let length = finished.held_out.as_ref().and_then(|held_out| length_sentence(&held_out.report));
    card.push_str(&length.unwrap_or_default());
    card.push_str(
        "Optimising a language model hard against it will find its mistakes. Do not use it to decide about people.\n",
    );
}

fn length_sentence(report: &DataReport) -> Option<String> {
    let correlation = report.metrics.length_partial_correlation?;
    let words = match correlation {
        c if c > 0.2 => "prefers longer responses beyond what people's order explains",
        c if c < -0.2 => "prefers shorter responses beyond what people's order explains",
        _ => "shows no strong preference for length",
    };
    Some(format!("On the held-out data it {words} (partial correlation {correlation:.2}). "))
}
