//! "Why am I at 50 %?": what the figures after a training run mean, and what to do next.
//!
//! Each cause has one check, and each check says what was seen, what usually lies behind it, and
//! the next step. Several can hold at once; they come in the order in which they should be looked
//! at, since a judge with collapsed scores is also near chance, and more data would not help it.

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

/// What can be wrong with a run, in the order in which to look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The loss ended far above its start, or is not a number.
    Diverged,
    /// All scores are equal.
    Collapsed,
    /// The loss did not fall.
    NotLearning,
    /// Reliably worse than chance.
    Inverted,
    /// Not distinguishable from a coin.
    NearChance,
    /// Knows the training data by heart.
    Overfit,
    /// No better than counting characters.
    LengthOnly,
    /// Many responses were cut.
    Truncated,
    /// The interval is too wide to say much.
    LittleData,
    /// None of the above.
    Sound,
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

/// Everything that stands out, most urgent first; one finding [`Cause::Sound`] when nothing does.
pub fn verdict(outcome: &Outcome) -> Vec<Finding> {
    let checks: [fn(&Outcome) -> Option<Finding>; 9] =
        [diverged, collapsed, not_learning, inverted, near_chance, overfit, length_only, truncated, little_data];
    let findings: Vec<Finding> = checks.iter().filter_map(|check| check(outcome)).collect();
    match findings.is_empty() {
        true => vec![sound(outcome.held_out)],
        false => findings,
    }
}

fn finding(cause: Cause, seen: String, advice: &'static str) -> Option<Finding> {
    Some(Finding { cause, seen, advice })
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

/// Upper end of the interval; the accuracy itself where there is none.
fn upper(held_out: &Metrics) -> Option<f64> {
    let end = held_out.accuracy_ci95.map(|[_, high]| high);
    end.or(held_out.accuracy)
}

fn diverged(outcome: &Outcome) -> Option<Finding> {
    let [start, end] = outcome.loss?;
    if end.is_finite() && end <= 1.5 * start {
        return None;
    }
    finding(
        Cause::Diverged,
        format!("The training loss went from {start:.3} up to {end:.3}."),
        "The learning rate is too high for this base or batch size: divide --learning-rate by \
        ten, or warm up over the first tenth of the steps (--warmup-steps).",
    )
}

fn collapsed(outcome: &Outcome) -> Option<Finding> {
    let spread = outcome.held_out.score_std.filter(|std| *std < 1e-3)?;
    finding(
        Cause::Collapsed,
        format!("The judge gives every held-out response the same score (standard deviation {spread:.1e})."),
        "Either it did not train (too few steps, a learning rate far too low) or too high a rate \
        has destroyed it, or the prompts fill the token limit so that no response is read: look \
        at the truncated share in `kudos check`, try --truncation keep_response, then a third of \
        the --learning-rate.",
    )
}

fn not_learning(outcome: &Outcome) -> Option<Finding> {
    let [start, end] = outcome.loss?;
    let flat = end > 0.97 * start && end <= 1.5 * start;
    if !flat || outcome.train_accuracy.is_some_and(|a| a > 0.6) {
        return None;
    }
    finding(
        Cause::NotLearning,
        format!("The training loss did not fall: {start:.3} at the start, {end:.3} at the end."),
        "The steps are too few or too small (raise --max-steps, then --learning-rate threefold), \
        or the labels contradict each other, which `kudos check` counts.",
    )
}

fn inverted(outcome: &Outcome) -> Option<Finding> {
    upper(outcome.held_out).filter(|high| *high < 0.5)?;
    finding(
        Cause::Inverted,
        format!("Held-out accuracy is {}, reliably worse than chance.", accuracy_in_words(outcome.held_out)),
        "One of the two files is probably the wrong way round: rank 1 is the best and a higher \
        score is better. Look at ten rows of each, or the held-out data reward the opposite of \
        the training data.",
    )
}

fn near_chance(outcome: &Outcome) -> Option<Finding> {
    let accuracy = outcome.held_out.accuracy?;
    let [low, high] = outcome.held_out.accuracy_ci95.unwrap_or([accuracy; 2]);
    if high < 0.5 || (low > 0.5 && accuracy >= 0.55) {
        return None;
    }
    finding(
        Cause::NearChance,
        format!("Held-out accuracy is {}, hardly to be told from a coin.", accuracy_in_words(outcome.held_out)),
        "The usual causes, in this order: labels that are noisy or contradict each other (run \
        `kudos check`; let two people rank the same twenty prompts and see how often they agree), \
        too few prompts (a hundred is little), too few steps or a learning rate that is off by a \
        factor of ten, a held-out set about other things than the training set.",
    )
}

fn overfit(outcome: &Outcome) -> Option<Finding> {
    let (train, held_out) = (outcome.train_accuracy?, outcome.held_out.accuracy?);
    if train - held_out <= 0.15 || train <= upper(outcome.held_out)? {
        return None;
    }
    finding(
        Cause::Overfit,
        format!(
            "The judge is right on {} of its {} training pairs but on {} of the held-out ones.",
            percent(train),
            outcome.train_pairs,
            accuracy_in_words(outcome.held_out)
        ),
        "It has learnt these rows by heart: train for fewer --epochs or with --early-stop, and \
        collect more prompts rather than more responses to the same ones.",
    )
}

fn length_only(outcome: &Outcome) -> Option<Finding> {
    let longer = outcome.held_out.longer_response_accuracy?;
    let (rule, reached) = match longer >= 0.5 {
        true => ("longer", longer),
        false => ("shorter", 1.0 - longer),
    };
    let accuracy = outcome.held_out.accuracy?;
    if reached < 0.55 || accuracy > reached {
        return None;
    }
    finding(
        Cause::LengthOnly,
        format!(
            "Always picking the {rule} response would be right on {} of the held-out pairs, the \
            judge on {}.",
            percent(reached),
            percent(accuracy)
        ),
        "It may have learnt nothing but length: see `length_partial_correlation` in `kudos eval`, \
        and add pairs in which the better response is the one of the other length.",
    )
}

fn truncated(outcome: &Outcome) -> Option<Finding> {
    if outcome.truncated_share <= 0.2 {
        return None;
    }
    finding(
        Cause::Truncated,
        format!("{} of the training responses did not fit the token limit.", percent(outcome.truncated_share)),
        "What was cut cannot be judged: raise --max-length if the base allows it, or use \
        --truncation keep_response so that the prompt is cut first.",
    )
}

fn little_data(outcome: &Outcome) -> Option<Finding> {
    let held_out = outcome.held_out;
    let wide = match held_out.accuracy_ci95 {
        Some([low, high]) => high - low > 0.2,
        None => true,
    };
    if !wide {
        return None;
    }
    finding(
        Cause::LittleData,
        format!(
            "{} held-out pairs of {} prompts are too few to say how good the judge is: {}.",
            held_out.pairs,
            held_out.prompts,
            accuracy_in_words(held_out)
        ),
        "Do not choose between two runs on this. An interval of ±5 % takes about 400 held-out \
        pairs of different prompts; a larger --eval-fraction or a separate --eval file helps at \
        once.",
    )
}

fn sound(held_out: &Metrics) -> Finding {
    let longer = match held_out.longer_response_accuracy {
        Some(longer) => format!(", where the longer response wins in {}", percent(longer)),
        None => String::new(),
    };
    Finding {
        cause: Cause::Sound,
        seen: format!("Held-out accuracy is {}{longer}.", accuracy_in_words(held_out)),
        advice: "That is above chance and above length, and close to the training accuracy. It \
        holds for data like the held-out set; measure on another file before relying on it \
        elsewhere.",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EvalOptions, evaluate};
    use super::*;

    /// Figures of a healthy run, to be spoilt by the cases.
    fn healthy() -> Metrics {
        let mut metrics = evaluate("none", &[], &[], &EvalOptions::default()).expect("nothing to fail on").metrics;
        (metrics.pairs, metrics.prompts) = (500, 400);
        metrics.accuracy = Some(0.75);
        metrics.accuracy_ci95 = Some([0.71, 0.79]);
        metrics.longer_response_accuracy = Some(0.52);
        metrics.score_std = Some(1.3);
        metrics
    }

    fn run(held_out: &Metrics) -> Outcome<'_> {
        Outcome {
            train_accuracy: Some(0.8),
            train_pairs: 2000,
            loss: Some([0.69, 0.45]),
            truncated_share: 0.01,
            held_out,
        }
    }

    fn causes(outcome: &Outcome) -> Vec<Cause> {
        verdict(outcome).iter().map(|f| f.cause).collect()
    }

    #[test]
    fn held_out_figures_and_their_causes() {
        type Case = (f64, Option<[f64; 2]>, f64, Vec<Cause>);
        let cases: [Case; 8] = [
            (0.75, Some([0.71, 0.79]), 0.52, vec![Cause::Sound]),
            (0.52, Some([0.48, 0.56]), 0.50, vec![Cause::NearChance, Cause::Overfit]),
            (0.54, Some([0.51, 0.57]), 0.50, vec![Cause::NearChance, Cause::Overfit]),
            (0.40, Some([0.35, 0.45]), 0.50, vec![Cause::Inverted, Cause::Overfit]),
            (0.70, Some([0.66, 0.74]), 0.72, vec![Cause::LengthOnly]),
            (0.70, Some([0.66, 0.74]), 0.28, vec![Cause::LengthOnly]),
            (0.75, Some([0.60, 0.90]), 0.52, vec![Cause::LittleData]),
            (0.75, None, 0.52, vec![Cause::LittleData]),
        ];
        for (accuracy, interval, longer, expected) in cases {
            let mut held_out = healthy();
            held_out.accuracy = Some(accuracy);
            held_out.accuracy_ci95 = interval;
            held_out.longer_response_accuracy = Some(longer);
            assert_eq!(causes(&run(&held_out)), expected, "{accuracy} {longer}");
        }
    }

    #[test]
    fn training_figures_and_their_causes() {
        let held_out = healthy();
        let run = run(&held_out);
        let high = Outcome { train_accuracy: Some(0.99), ..run };
        assert_eq!(causes(&high), [Cause::Overfit]);
        let nan = Outcome { loss: Some([0.69, f64::NAN]), ..run };
        assert_eq!(causes(&nan), [Cause::Diverged]);
        let up = Outcome { loss: Some([0.69, 3.0]), ..run };
        assert_eq!(causes(&up), [Cause::Diverged]);
        let flat = Outcome { loss: Some([0.69, 0.69]), train_accuracy: Some(0.51), ..run };
        assert_eq!(causes(&flat), [Cause::NotLearning]);
        let cut = Outcome { truncated_share: 0.4, ..run };
        assert_eq!(causes(&cut), [Cause::Truncated]);
        let unknown = Outcome { loss: None, train_accuracy: None, ..run };
        assert_eq!(causes(&unknown), [Cause::Sound]);
    }

    #[test]
    fn equal_scores_come_first() {
        let mut held_out = healthy();
        held_out.accuracy = Some(0.5);
        held_out.accuracy_ci95 = Some([0.5, 0.5]);
        held_out.score_std = Some(1e-5);
        assert_eq!(causes(&run(&held_out))[..2], [Cause::Collapsed, Cause::NearChance]);
    }

    #[test]
    fn findings_are_sentences_with_their_numbers() {
        let mut held_out = healthy();
        held_out.accuracy = Some(0.52);
        held_out.accuracy_ci95 = Some([0.481, 0.559]);
        let text = verdict(&run(&held_out))[0].to_string();
        assert!(text.starts_with("Held-out accuracy is 52 % (95 % interval 48 % to 56 %)"), "{text}");
        assert!(text.contains("kudos check") && text.ends_with('.'), "{text}");
    }

    #[test]
    fn no_held_out_pairs_is_little_data() {
        let empty = evaluate("none", &[], &[], &EvalOptions::default()).unwrap().metrics;
        assert_eq!(causes(&run(&empty)), [Cause::LittleData]);
    }
}
