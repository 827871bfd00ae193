//! "Why am I at 50 %?": what the figures after a training run mean, and what to do next.
//!
//! One decision is made from the figures, and one thing is said, so that nothing printed contradicts anything else:
//!
//! | the figures | what is said |
//! |---|---|
//! | training went wrong (diverged, equal scores, loss did not fall) | that: it explains the rest |
//! | no held-out pair, or ties alone | that nothing is known |
//! | the interval lies below 50 % | the labels may be the wrong way round |
//! | far better on the training pairs | it has learnt them by heart |
//! | the interval holds 50 %, and is wide | too few pairs to say anything |
//! | the interval holds 50 %, and is narrow | no better than a coin, and the usual causes |
//! | above 50 %, and the interval is wide | better than a coin, and too few pairs to say more |
//! | above 50 %, and no better than length | it may have learnt nothing else |
//! | above 50 % | the figures, and what they hold for |
//!
//! That responses were cut is said beside any of them.

use super::Metrics;

/// What is known after a training run.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// Accuracy on the training pairs, at the end.
    pub train_accuracy: Option<f64>,
    /// Training pairs.
    pub train_pairs: usize,
    /// Training loss at the start and at the end, each averaged over a few steps.
    pub loss: Option<[f64; 2]>,
    /// Share of the training responses that did not fit the token limit.
    pub truncated_share: f64,
    /// The figures on held-out data.
    pub held_out: &'a Metrics,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The loss ended far above its start, or is not a number.
    Diverged,
    /// All scores are equal.
    Collapsed,
    /// The loss did not fall.
    NotLearning,
    /// No held-out pair has a better response.
    Unmeasured,
    /// Reliably worse than chance.
    Inverted,
    /// Knows the training data by heart.
    Overfit,
    /// Too few pairs to tell the judge from a coin, or to tell how much better it is.
    LittleData,
    /// No better than a coin, on enough pairs to say so.
    NearChance,
    /// No better than counting characters.
    LengthOnly,
    /// Better than a coin and than length.
    Sound,
    /// Many responses were cut; beside one of the others.
    Truncated,
}

/// One thing seen, in words.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Finding {
    /// Which.
    pub cause: Cause,
    /// What was seen, with its numbers.
    pub seen: String,
    /// What usually lies behind it and what to do next.
    pub advice: &'static str,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.seen, self.advice)
    }
}

/// What the run came to, and beside it that responses were cut, if many were.
pub fn verdict(outcome: &Outcome) -> Vec<Finding> {
    let decided = training_trouble(outcome).unwrap_or_else(|| standing(outcome));
    [Some(decided), truncated(outcome)].into_iter().flatten().collect()
}

/// Wider than this, an interval says little.
const WIDE: f64 = 0.2;
/// Below this, a judge that is surely better than a coin is still of no use.
const USEFUL: f64 = 0.55;

fn finding(cause: Cause, seen: String, advice: &'static str) -> Finding {
    Finding { cause, seen, advice }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// `72 % (95 % interval 64 % to 79 %)`.
fn accuracy_in_words(held_out: &Metrics) -> String {
    let accuracy = held_out.accuracy.map_or("unknown".into(), percent);
    match held_out.accuracy_ci95 {
        Some([low, high]) => {
            let (low, high) = (percent(low), percent(high));
            format!("{accuracy} (95 % interval {low} to {high})")
        }
        None => accuracy,
    }
}

/// `6 held-out pairs of 2 prompts`.
fn counts_in_words(held_out: &Metrics) -> String {
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    format!("{} of {}", counted(held_out.pairs, "held-out pair"), counted(held_out.prompts, "prompt"))
}

/// What explains any figure on held-out data.
fn training_trouble(outcome: &Outcome) -> Option<Finding> {
    let better_than_a_coin = outcome.held_out.accuracy_ci95.is_some_and(|[low, _]| low > 0.5);
    let not_learning = not_learning(outcome).filter(|_| !better_than_a_coin);
    diverged(outcome).or_else(|| collapsed(outcome)).or(not_learning)
}

fn diverged(outcome: &Outcome) -> Option<Finding> {
    let [start, end] = outcome.loss?;
    if end.is_finite() && end <= 1.5 * start {
        return None;
    }
    Some(finding(
        Cause::Diverged,
        format!("The training loss rose from {start:.3} to {end:.3}."),
        "The learning rate is too high for this base or batch size. Divide --learning-rate by ten, or reach it later \
         with --warmup-steps.",
    ))
}

fn collapsed(outcome: &Outcome) -> Option<Finding> {
    let spread = outcome.held_out.score_std.filter(|std| *std < 1e-3)?;
    Some(finding(
        Cause::Collapsed,
        format!("The judge gives all held-out responses nearly the same score (standard deviation {spread:.1e})."),
        "Perhaps it was hardly trained: the steps are few, or the learning rate is far too low. Perhaps too high a \
         rate destroyed it: try a third. Or the prompts fill the token limit, so that no response is read: `kudos \
         check --base` counts those, and --truncation keep_response cuts the prompts instead.",
    ))
}

fn not_learning(outcome: &Outcome) -> Option<Finding> {
    let [start, end] = outcome.loss?;
    let flat = end > 0.97 * start && end <= 1.5 * start;
    if !flat || outcome.train_accuracy.is_some_and(|a| a > 0.6) {
        return None;
    }
    Some(finding(
        Cause::NotLearning,
        format!("The training loss did not fall: {start:.3} at the start, {end:.3} at the end."),
        "Perhaps the steps are too few or too small: raise --max-steps, then --learning-rate threefold. Perhaps the \
         labels contradict each other: `kudos check` counts those.",
    ))
}

/// What the held-out figures say of the judge.
fn standing(outcome: &Outcome) -> Finding {
    let held_out = outcome.held_out;
    let Some(accuracy) = held_out.accuracy.filter(|_| held_out.pairs > 0) else { return unmeasured(held_out) };
    let [low, high] = held_out.accuracy_ci95.unwrap_or([0.0, 1.0]); // One prompt: nothing is known.
    let wide = high - low > WIDE;
    if high < 0.5 {
        return inverted(held_out);
    }
    if let Some(found) = overfit(outcome, high) {
        return found;
    }
    if wide {
        return little_data(held_out, accuracy, low);
    }
    if low <= 0.5 || accuracy < USEFUL {
        return near_chance(held_out);
    }
    length_only(held_out, accuracy).unwrap_or_else(|| sound(outcome, accuracy))
}

fn unmeasured(held_out: &Metrics) -> Finding {
    let seen = match held_out.ties {
        0 => "No held-out pair says which response is better.".to_owned(),
        1 => "The only held-out comparison is a tie.".to_owned(),
        ties => format!("All {ties} held-out comparisons are ties."),
    };
    finding(
        Cause::Unmeasured,
        seen,
        "So nothing is known about how good the judge is. Measure it with `kudos eval` on prompts whose responses differ \
         in rank.",
    )
}

fn inverted(held_out: &Metrics) -> Finding {
    finding(
        Cause::Inverted,
        format!("Held-out accuracy is {}: reliably worse than a coin.", accuracy_in_words(held_out)),
        "Probably the training data or the held-out data are the wrong way round. Rank 1 is the best; a higher score \
         is better. Look at ten rows of each.",
    )
}

fn overfit(outcome: &Outcome, upper: f64) -> Option<Finding> {
    let (train, held_out) = (outcome.train_accuracy?, outcome.held_out.accuracy?);
    if train - held_out <= 0.15 || train <= upper {
        return None;
    }
    Some(finding(
        Cause::Overfit,
        format!(
            "The judge is right on {} of its {} training pairs, but on {} of the {}.",
            percent(train),
            outcome.train_pairs,
            accuracy_in_words(outcome.held_out),
            counts_in_words(outcome.held_out)
        ),
        "It has learnt the training pairs by heart. Train for fewer --epochs or with --early-stop. More prompts help, \
         more responses to the same prompts hardly do. `kudos check` finds labels that contradict each other.",
    ))
}

fn little_data(held_out: &Metrics, accuracy: f64, low: f64) -> Finding {
    let what = match () {
        () if low > 0.5 => "That is better than a coin, but how much better, so few cannot say.",
        () if accuracy > 0.5 => "That looks better than a coin, but so few cannot show it.",
        () => "So few cannot say whether the judge is better than a coin.",
    };
    finding(
        Cause::LittleData,
        format!("Accuracy on {} is {}. {what}", counts_in_words(held_out), accuracy_in_words(held_out)),
        "Do not choose between two runs on this. About 400 held-out pairs of different prompts bring the interval to \
         5 points on either side. Use a larger --eval-fraction, or give more data with --eval.",
    )
}

fn near_chance(held_out: &Metrics) -> Finding {
    finding(
        Cause::NearChance,
        format!("Held-out accuracy is {}: hardly better than a coin, if at all.", accuracy_in_words(held_out)),
        "The usual causes, in this order. Labels are noisy or contradict each other: run `kudos check`, and let two \
         people rank the same twenty prompts. The prompts are too few: a hundred is little. The steps are too few, or \
         the learning rate is off by a factor of ten. The held-out prompts are of another kind than the training \
         prompts.",
    )
}

/// The rule by length that does better on these pairs, and how well.
fn best_by_length(held_out: &Metrics) -> Option<(&'static str, f64)> {
    let longer = held_out.longer_response_accuracy?;
    Some(if longer >= 0.5 { ("longer", longer) } else { ("shorter", 1.0 - longer) })
}

fn length_only(held_out: &Metrics, accuracy: f64) -> Option<Finding> {
    let (rule, reached) = best_by_length(held_out).filter(|(_, reached)| *reached >= accuracy)?;
    Some(finding(
        Cause::LengthOnly,
        format!(
            "Held-out accuracy is {}. Always picking the {rule} response is right on {} of the same pairs.",
            accuracy_in_words(held_out),
            percent(reached)
        ),
        "Perhaps the judge has learnt nothing but length: see `length_partial_correlation` in `kudos eval --json`. Add \
         pairs in which the better response is the one of the other length.",
    ))
}

fn sound(outcome: &Outcome, accuracy: f64) -> Finding {
    let held_out = outcome.held_out;
    let length = best_by_length(held_out).map_or(String::new(), |(rule, reached)| {
        format!(" Always picking the {rule} response is right on {}.", percent(reached))
    });
    finding(
        Cause::Sound,
        format!(
            "Held-out accuracy is {} on {}: better than a coin.{length}",
            accuracy_in_words(held_out),
            counts_in_words(held_out)
        ),
        if accuracy >= SUSPICIOUS {
            "So few mistakes are rare. Make sure with `kudos check DATA --eval FILE` that no prompt is in both, and \
             that nothing but quality tells the better responses from the worse."
        } else {
            "This holds for prompts like the held-out ones. Measure on others before you rely on it elsewhere."
        },
    )
}

/// From here on, a leak or a shortcut in the data is likelier than a good judge.
const SUSPICIOUS: f64 = 0.98;

fn truncated(outcome: &Outcome) -> Option<Finding> {
    let many = outcome.truncated_share > 0.2;
    many.then(|| {
        finding(
            Cause::Truncated,
            format!("{} of the training responses did not fit the token limit.", percent(outcome.truncated_share)),
            "The judge does not see what is cut. Raise --max-length if the base allows it, or cut the prompts first \
             with --truncation keep_response.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::{EvalOptions, evaluate};
    use super::*;

    /// Held-out figures: pairs, prompts, accuracy, interval, accuracy of the longer response.
    type Figures = (usize, usize, Option<f64>, Option<[f64; 2]>, Option<f64>);

    fn metrics((pairs, prompts, accuracy, interval, longer): Figures) -> Metrics {
        let mut metrics = evaluate("none", &[], &[], &EvalOptions::default()).expect("nothing to fail on").metrics;
        (metrics.pairs, metrics.prompts) = (pairs, prompts);
        (metrics.accuracy, metrics.accuracy_ci95) = (accuracy, interval);
        metrics.longer_response_accuracy = longer;
        metrics.score_std = Some(1.3);
        metrics
    }

    /// Figures of a healthy run, to be spoilt by the cases.
    const HEALTHY: Figures = (500, 400, Some(0.75), Some([0.71, 0.79]), Some(0.52));

    fn run(held_out: &Metrics) -> Outcome<'_> {
        let (train_accuracy, loss) = (Some(0.8), Some([0.69, 0.45]));
        Outcome { train_accuracy, train_pairs: 2000, loss, truncated_share: 0.01, held_out }
    }

    /// The causes, and the words.
    fn said(outcome: &Outcome) -> (Vec<Cause>, String) {
        let found = verdict(outcome);
        let words: Vec<String> = found.iter().map(ToString::to_string).collect();
        (found.iter().map(|finding| finding.cause).collect(), words.join(" "))
    }

    #[test]
    fn one_thing_is_said_of_the_held_out_figures() {
        let (few, many) = ((6, 2), (500, 400));
        let figures = |(pairs, prompts), accuracy, ci, longer| (pairs, prompts, Some(accuracy), Some(ci), Some(longer));
        let cases = [
            ("perfect on few pairs", figures(few, 1.0, [0.4, 1.0], 0.5), Cause::LittleData),
            ("perfect on many", figures(many, 1.0, [0.99, 1.0], 0.5), Cause::Sound),
            ("good on many", HEALTHY, Cause::Sound),
            ("good, nothing known of length", (500, 400, Some(0.75), Some([0.71, 0.79]), None), Cause::Sound),
            ("good on some, wide interval", figures((40, 20), 0.75, [0.6, 0.9], 0.52), Cause::LittleData),
            ("good on one prompt", (6, 1, Some(0.83), None, Some(0.5)), Cause::LittleData),
            ("chance on many", figures(many, 0.52, [0.48, 0.56], 0.5), Cause::NearChance),
            ("surely above chance, of no use", figures((9000, 9000), 0.54, [0.51, 0.57], 0.5), Cause::NearChance),
            ("chance on few", figures(few, 0.5, [0.1, 0.9], 0.5), Cause::LittleData),
            ("below chance on many", figures(many, 0.40, [0.35, 0.45], 0.5), Cause::Inverted),
            ("below chance on few, not reliably", figures(few, 0.17, [0.0, 0.6], 0.5), Cause::LittleData),
            ("no better than the longer one", figures(many, 0.70, [0.66, 0.74], 0.72), Cause::LengthOnly),
            ("no better than the shorter one", figures(many, 0.70, [0.66, 0.74], 0.28), Cause::LengthOnly),
            ("barely better than length", figures(many, 0.73, [0.69, 0.77], 0.72), Cause::Sound),
            ("worse than length, on few", figures(few, 0.67, [0.3, 0.9], 0.83), Cause::LittleData),
            ("nothing held out", (0, 0, None, None, None), Cause::Unmeasured),
        ];
        for (name, figures, expected) in cases {
            let held_out = metrics(figures);
            // Nothing is known of the training pairs, as when the head alone is kept.
            let run = Outcome { train_accuracy: None, loss: None, ..run(&held_out) };
            let (causes, words) = said(&run);
            assert_eq!(causes, [expected], "{name}: {words}");
            contradicts_nothing(name, &held_out, &words);
        }
    }

    /// What must not be said beside these figures.
    fn contradicts_nothing(name: &str, held_out: &Metrics, words: &str) {
        let accuracy = held_out.accuracy.unwrap_or(0.5);
        assert!(accuracy < 0.6 || !words.contains("noisy"), "{name}: {words}");
        assert!(accuracy < 0.6 || !words.contains("hardly better than a coin"), "{name}: {words}");
        let shown = held_out.accuracy_ci95.is_some_and(|[low, _]| low > 0.5);
        assert!(shown || !words.contains("is better than a coin,") && !words.contains(": better"), "{name}: {words}");
        let longest = words.split(". ").map(|sentence| sentence.split_whitespace().count()).max();
        assert!(longest < Some(32), "{name}: {words}");
    }

    #[test]
    fn ties_alone_say_nothing_of_the_judge() {
        let mut held_out = metrics((0, 0, None, None, None));
        held_out.ties = 12;
        let (causes, words) = said(&run(&held_out));
        assert_eq!(causes, [Cause::Unmeasured]);
        assert!(words.starts_with("All 12 held-out comparisons are ties."), "{words}");
    }

    #[test]
    fn training_figures_and_their_causes() {
        let held_out = metrics(HEALTHY);
        let run = run(&held_out);
        let cases = [
            (Outcome { train_accuracy: Some(0.99), ..run }, vec![Cause::Overfit]),
            (Outcome { loss: Some([0.69, f64::NAN]), ..run }, vec![Cause::Diverged]),
            (Outcome { loss: Some([0.69, 3.0]), ..run }, vec![Cause::Diverged]),
            (Outcome { truncated_share: 0.4, ..run }, vec![Cause::Sound, Cause::Truncated]),
            (Outcome { loss: None, train_accuracy: None, ..run }, vec![Cause::Sound]),
            // The loss is flat and the judge is good all the same: its base was.
            (Outcome { loss: Some([0.69, 0.69]), train_accuracy: Some(0.51), ..run }, vec![Cause::Sound]),
        ];
        for (outcome, expected) in cases {
            assert_eq!(said(&outcome).0, expected, "{outcome:?}");
        }
    }

    #[test]
    fn what_went_wrong_in_training_is_said_alone() {
        let mut equal = metrics((500, 400, Some(0.5), Some([0.5, 0.5]), Some(0.52)));
        equal.score_std = Some(1e-5);
        assert_eq!(said(&run(&equal)).0, [Cause::Collapsed]);
        let chance = metrics((500, 400, Some(0.52), Some([0.48, 0.56]), Some(0.5)));
        let flat = Outcome { loss: Some([0.69, 0.69]), train_accuracy: Some(0.51), ..run(&chance) };
        assert_eq!(said(&flat).0, [Cause::NotLearning]);
        assert_eq!(said(&run(&chance)).0, [Cause::Overfit], "80 % of the training pairs, 52 % of the others");
        let inverted = metrics((500, 400, Some(0.4), Some([0.35, 0.45]), Some(0.5)));
        assert_eq!(said(&run(&inverted)).0, [Cause::Inverted]);
    }

    #[test]
    fn findings_are_sentences_with_their_numbers() {
        let held_out = metrics((6, 2, Some(1.0), Some([0.4, 1.0]), Some(0.5)));
        let text = verdict(&run(&held_out))[0].to_string();
        let expected = "Accuracy on 6 held-out pairs of 2 prompts is 100 % (95 % interval 40 % to 100 %). That looks \
                        better than a coin, but so few cannot show it. Do not";
        assert!(text.starts_with(expected) && text.ends_with('.'), "{text}");
    }
}
