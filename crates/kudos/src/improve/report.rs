//! What a run came to, as JSON and as a page for people. Its first line is the verdict.

use super::log::Writing;
use super::measure::{Answer, Change, Measurement, Sample, samples};
use super::{Algorithm, Settings};
use crate::data::Content;
use crate::eval::excerpt;
use serde::Serialize;
use std::fmt::Write;

/// A share of the responses.
type Share = fn(&Writing) -> f64;

/// What the report is about, beside the measurements.
pub struct About<'a> {
    /// The start model, as the user named it.
    pub model: &'a str,
    /// The judge.
    pub judge: &'a str,
    /// The second judge, if one looks.
    pub check_judge: Option<&'a str>,
    /// The file of the prompts.
    pub prompts: &'a str,
}

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The verdict, in one line.
    pub verdict: String,
    /// The start model.
    pub model: String,
    /// The judge.
    pub judge: String,
    /// The second judge.
    pub check_judge: Option<String>,
    /// The file of the prompts.
    pub prompts: String,
    /// Prompts that were learnt from.
    pub trained_prompts: usize,
    /// Why the run stopped before its last step.
    pub stopped: Option<String>,
    /// Steps done.
    pub steps: u64,
    /// The step whose weights the model has.
    pub kept: u64,
    /// Seconds of all steps.
    pub seconds: f64,
    /// The judge's score; `None` without two held-out prompts that have one before and after.
    pub reward: Option<Change>,
    /// The second judge's.
    pub check: Option<Change>,
    /// How the responses look before and after.
    pub writing: Option<[Writing; 2]>,
    /// KL divergence from the start model a token, on the held-out responses (k3).
    pub kl: f64,
    /// Responses to the held-out prompts without a score, before and after.
    pub unscored: [usize; 2],
    /// The held-out prompts with a response before and after, the largest loss of score first.
    pub samples: Vec<Sample>,
    /// The settings.
    pub settings: Settings,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub(super) struct Done {
    pub trained_prompts: usize,
    pub stopped: Option<String>,
    pub steps: u64,
    pub kept: u64,
    pub seconds: f64,
}

impl Report {
    pub(super) fn new(
        about: &About,
        settings: &Settings,
        done: Done,
        prompts: &[&Content],
        [before, after]: [&Measurement; 2],
    ) -> Self {
        let reward = Change::of(before, after, |answer| answer.reward);
        let check = Change::of(before, after, |answer| answer.check);
        let without = |of: &Measurement| of.answers.iter().flatten().filter(|answer| answer.reward.is_none()).count();
        let Done { trained_prompts, stopped, steps, kept, seconds } = done;
        let mut report = Self {
            verdict: String::new(),
            model: about.model.into(),
            judge: about.judge.into(),
            check_judge: about.check_judge.map(str::to_owned),
            prompts: about.prompts.into(),
            trained_prompts,
            stopped,
            steps,
            kept,
            seconds,
            reward,
            check,
            writing: (!prompts.is_empty()).then(|| [before.writing(), after.writing()]),
            kl: after.kl,
            unscored: [without(before), without(after)],
            samples: samples(prompts, before, after),
            settings: settings.clone(),
        };
        report.verdict = report.judged();
        report
    }

    /// The verdict.
    fn judged(&self) -> String {
        let mut verdict = match &self.stopped {
            Some(why) => format!("The run stopped: {why}. The model has the weights of step {}. ", self.kept),
            None => String::new(),
        };
        let Some(reward) = &self.reward else {
            verdict.push_str("Nothing is known of the gain: no held-out prompts were measured before and after.");
            return verdict;
        };
        let on = format!("{} held-out prompts", reward.prompts);
        let _ = match (reward.rose(), &self.check) {
            (true, Some(check)) if check.rose() => write!(
                verdict,
                "The judge's score rose by {reward} on {on}, and the second judge, which was not optimised, agrees: {check}."
            ),
            (true, Some(check)) => {
                let moved = if check.fell() { "fell" } else { "did not clearly rise" };
                write!(
                    verdict,
                    "The second judge does not confirm the gain: its score {moved}, by {check}, while the score that was \
                     optimised rose by {reward} on {on}. The model may have learnt what the judge likes, not what is better."
                )
            }
            (true, None) => write!(
                verdict,
                "The judge's score rose by {reward} on {on}; no second judge looked (--check-judge), so this is the gain \
                 by the judge that was optimised."
            ),
            (false, _) if reward.fell() => write!(verdict, "The judge's score fell by {reward} on {on}."),
            (false, _) => write!(verdict, "No clear gain: the judge's score moved by {reward} on {on}."),
        };
        verdict
    }

    /// What a reader should be wary of.
    fn cautions(&self) -> Vec<String> {
        let Some([before, after]) = self.writing else { return Vec::new() };
        let mut cautions = Vec::new();
        let ratio = after.length / before.length.max(1e-9);
        if !(0.8..=1.25).contains(&ratio) {
            let way = if ratio > 1.0 { "longer" } else { "shorter" };
            cautions.push(format!(
                "Responses became {way}: {:.1} tokens, {:.1} before. Judges often like length, so part of the gain may be that.",
                after.length, before.length
            ));
        }
        if after.duplicates > before.duplicates + 0.05 {
            cautions
                .push("Responses to one prompt repeat each other more often: the model has become less varied.".into());
        }
        if after.truncated > 0.5 {
            cautions.push(format!(
                "{:.0} % of the responses are cut at --max-new-tokens {}: the judge saw their beginnings.",
                100.0 * after.truncated,
                self.settings.max_new_tokens
            ));
        }
        if self.unscored != [0, 0] {
            cautions.push(format!(
                "The judge could not score {} responses before and {} after; they count for nothing.",
                self.unscored[0], self.unscored[1]
            ));
        }
        cautions
    }

    /// The page, in Markdown.
    pub fn page(&self) -> String {
        let mut page = format!("{}\n\n# {}, improved by a judge\n\n", self.verdict, self.model);
        self.cautions().iter().for_each(|caution| {
            let _ = writeln!(page, "- {caution}");
        });
        page.push_str(&self.table());
        page.push_str(&self.setup());
        page.push_str(&self.examples());
        page
    }

    fn table(&self) -> String {
        let mut table =
            "\n| on held-out prompts | before | after | change, 95 % interval |\n|---|---|---|---|\n".to_owned();
        let scores = [("score of the judge", &self.reward), ("score of the second judge", &self.check)];
        for (name, change) in scores.into_iter().filter_map(|(name, change)| Some((name, change.as_ref()?))) {
            let [low, high] = change.gain_ci95;
            let Change { before, after, gain, .. } = change;
            let _ = writeln!(table, "| {name} | {before:.3} | {after:.3} | {gain:+.3} ({low:+.3} to {high:+.3}) |");
        }
        if let Some([before, after]) = self.writing {
            let _ = writeln!(table, "| tokens of a response | {:.1} | {:.1} | |", before.length, after.length);
            let shares: [(&str, Share); 3] = [
                ("cut at the limit", |one| one.truncated),
                ("repeat another of their prompt", |one| one.duplicates),
                ("empty", |one| one.empty),
            ];
            for (name, share) in shares {
                let _ =
                    writeln!(table, "| {name} | {:.1} % | {:.1} % | |", 100.0 * share(&before), 100.0 * share(&after));
            }
        }
        let _ = writeln!(table, "| KL divergence from the start model, nats a token | 0 | {:.4} | |", self.kl);
        table
    }

    fn setup(&self) -> String {
        let Settings { algorithm, n, batch_size, learning_rate, kl, max_new_tokens, temperature, .. } = &self.settings;
        let algorithm = match algorithm {
            Algorithm::Rloo => "rloo",
            Algorithm::BestOfN => "best-of-n",
        };
        let second = self.check_judge.as_ref().map_or(String::new(), |name| format!(", second judge `{name}`"));
        format!(
            "\nStart model `{}`, judge `{}`{second}. {} steps of {batch_size} prompt{} with {n} responses of up to \
             {max_new_tokens} tokens at temperature {temperature}, from {} prompts; {algorithm}, learning rate \
             {learning_rate:e}, KL penalty {kl}. The steps took {:.0} s.\n",
            self.model,
            self.judge,
            self.steps,
            if *batch_size == 1 { "" } else { "s" },
            self.trained_prompts,
            self.seconds,
        )
    }

    /// The worst changes, the best and one in the middle.
    fn examples(&self) -> String {
        const EACH: usize = 3;
        if self.samples.is_empty() {
            return String::new();
        }
        let count = self.samples.len();
        let each = EACH.min(count / 2);
        let middle = count / 2;
        let parts = [
            ("The largest losses", 0..each),
            ("In the middle", middle..(middle + 1).min(count - each)),
            ("The largest gains", count - each..count),
        ];
        let mut page =
            "\nOf each prompt, the first response is shown; the change is that of the mean of all.\n".to_owned();
        for (title, places) in parts {
            if !places.is_empty() {
                let _ = write!(page, "\n## {title}\n");
            }
            self.samples[places].iter().for_each(|sample| page.push_str(&example(sample)));
        }
        page
    }
}

fn example(sample: &Sample) -> String {
    let [before, after] = &sample.answers;
    let mut text = format!("\n**{:+.3}**\n\n{}\n", sample.gain, quoted("prompt", None, &excerpt(&sample.prompt)));
    for (name, Answer { text: own, reward, .. }) in [("before", before), ("after", after)] {
        text.push_str(&quoted(name, *reward, own));
        text.push('\n');
    }
    text
}

/// A text as a block that no text can end.
fn quoted(name: &str, score: Option<f64>, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let score = score.map_or(String::new(), |score| format!(", score {score:.3}"));
    format!("{name}{score}:\n\n{fence}text\n{text}\n{fence}\n")
}
