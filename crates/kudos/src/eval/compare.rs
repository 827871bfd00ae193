//! Two judges on the same pairs: which is better, and whether the data can show it.
//!
//! Two accuracies with overlapping intervals may still differ for sure, since the judges saw the same
//! pairs and are mostly right and wrong together. So the difference itself is resampled, by prompts,
//! and the pairs on which only one judge is right are put to a sign test (McNemar 1947, in its exact
//! form). The bootstrap knows that pairs of one prompt belong together but is too sure of itself on
//! few prompts; the exact test is the other way round. A difference is called real when both say so.

use super::bootstrap::{self, accuracies, accuracies_of_resamples, percentile_interval};
use super::report::matched;
use super::{EvalError, EvalOptions, Rate, pairs};
use crate::data::Group;

/// Two judges on one file.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct JudgeComparison {
    /// The file, as the user named it.
    pub file: String,
    /// Prompts with pairs.
    pub prompts: usize,
    /// Pairs with a preferred side.
    pub pairs: usize,
    /// The first judge.
    pub first: Rate,
    /// The second judge.
    pub second: Rate,
    /// Accuracy of the first less accuracy of the second.
    pub difference: Option<f64>,
    /// 95 % interval of the difference: paired bootstrap over prompts.
    pub difference_ci95: Option<[f64; 2]>,
    /// The test on the pairs that they judge differently.
    pub mcnemar: McNemar,
    /// What follows from both.
    pub verdict: Verdict,
}

/// McNemar's exact test.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct McNemar {
    /// Pairs that the first judge does better on (equal scores lie between right and wrong).
    pub first_alone: u64,
    /// Pairs that the second judge does better on.
    pub second_alone: u64,
    /// Two-sided probability of a split this uneven if each way were as likely.
    pub p_value: f64,
}

/// What the data say of two judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The first is better.
    FirstBetter,
    /// The second is better.
    SecondBetter,
    /// The difference could be chance.
    NotShown,
}

/// Compares two judges by their scores of the same groups.
///
/// # Errors
/// When scores do not fit the groups or are not finite.
pub fn compare(
    file: &str,
    groups: &[Group],
    [first, second]: [&[Vec<f32>]; 2],
    options: &EvalOptions,
) -> Result<JudgeComparison, EvalError> {
    let (first, second) = (matched(groups, first)?, matched(groups, second)?);
    let both = pairs::of(&first).into_iter().zip(pairs::of(&second));
    let verdicts: Vec<_> = both.map(|(a, b)| (a.scored.prompt, [a.judged(), b.judged()])).collect();
    let prompts = bootstrap::tallies(verdicts.iter().copied());
    let rates = rates(&prompts, options);
    let difference = rates[0].accuracy.zip(rates[1].accuracy).map(|(a, b)| a - b);
    let difference_ci95 = difference_interval(&prompts, options);
    let count = |wanted: fn(u64, u64) -> bool| verdicts.iter().filter(|(_, [a, b])| wanted(*a, *b)).count() as u64;
    let mcnemar = McNemar::of(count(|a, b| a > b), count(|a, b| a < b));
    Ok(JudgeComparison {
        file: file.to_owned(),
        prompts: prompts.len(),
        pairs: verdicts.len(),
        first: rates[0],
        second: rates[1],
        difference,
        difference_ci95,
        mcnemar,
        verdict: verdict(difference_ci95, mcnemar.p_value),
    })
}

fn rates(prompts: &[bootstrap::Tally<2>], options: &EvalOptions) -> [Rate; 2] {
    let found = accuracies(prompts.iter());
    let ends = bootstrap::intervals(prompts, options.bootstrap, options.seed);
    std::array::from_fn(|judge| Rate {
        accuracy: (!prompts.is_empty()).then_some(found[judge]),
        accuracy_ci95: ends[judge],
    })
}

fn difference_interval(prompts: &[bootstrap::Tally<2>], options: &EvalOptions) -> Option<[f64; 2]> {
    if prompts.len() < 2 || options.bootstrap == 0 {
        return None;
    }
    let samples = accuracies_of_resamples(prompts, options.bootstrap, options.seed);
    Some(percentile_interval(samples.into_iter().map(|[a, b]| a - b).collect()))
}

impl McNemar {
    fn of(first_alone: u64, second_alone: u64) -> Self {
        let p_value = sign_test(first_alone.min(second_alone), first_alone + second_alone);
        McNemar { first_alone, second_alone, p_value }
    }
}

/// 2·P(X ≤ fewer) for X binomial with `trials` and ½, at most 1.
fn sign_test(fewer: u64, trials: u64) -> f64 {
    let mut log_term = -(trials as f64) * std::f64::consts::LN_2; // of C(n, k) / 2ⁿ, from k = 0
    let mut sum = log_term.exp();
    for k in 1..=fewer {
        log_term += ((trials - k + 1) as f64 / k as f64).ln();
        sum += log_term.exp();
    }
    (2.0 * sum).min(1.0)
}

fn verdict(interval: Option<[f64; 2]>, p_value: f64) -> Verdict {
    match interval {
        Some([low, _]) if low > 0.0 && p_value < 0.05 => Verdict::FirstBetter,
        Some([_, high]) if high < 0.0 && p_value < 0.05 => Verdict::SecondBetter,
        _ => Verdict::NotShown,
    }
}

impl JudgeComparison {
    /// Whether the difference is real, in a sentence with its numbers; `names` are those of the judges.
    pub fn sentence(&self, names: [&str; 2]) -> String {
        let Some((difference, [low, high])) = self.difference.zip(self.difference_ci95) else {
            return format!("{} prompts with pairs are too few to compare two judges.", self.prompts);
        };
        let figures = format!(
            "{:+.1} points, 95 % interval {:+.1} to {:+.1}, p = {}",
            100.0 * difference,
            100.0 * low,
            100.0 * high,
            probability(self.mcnemar.p_value)
        );
        let [first, second] = names;
        match self.verdict {
            Verdict::FirstBetter => format!("The difference is real: {first} is better than {second} ({figures})."),
            Verdict::SecondBetter => format!("The difference is real: {second} is better than {first} ({figures})."),
            Verdict::NotShown => format!(
                "The difference is not shown to be real ({figures}): {} pairs of {} prompts cannot tell these judges apart.",
                self.pairs, self.prompts
            ),
        }
    }
}

fn probability(p: f64) -> String {
    if p < 0.001 { "below .001".into() } else { format!("{p:.3}") }
}

#[cfg(test)]
mod tests {
    use super::super::testing::ranked;
    use super::*;

    /// Judges that are right on the prompts that `right` says.
    fn compared(prompts: usize, right: impl Fn(usize) -> [bool; 2]) -> JudgeComparison {
        let groups: Vec<Group> = (0..prompts).map(|n| ranked(&format!("p{n}"), &[1.0, 2.0])).collect();
        let scores = |judge: usize| -> Vec<Vec<f32>> {
            (0..prompts).map(|n| vec![if right(n)[judge] { 1.0 } else { -1.0 }, 0.0]).collect()
        };
        compare("f", &groups, [&scores(0), &scores(1)], &EvalOptions::default()).unwrap()
    }

    #[test]
    fn sign_tests_are_binomial_tests() {
        // scipy.stats.binomtest(k, n).pvalue
        let cases =
            [(0, 0, 1.0), (0, 5, 0.0625), (0, 6, 0.03125), (3, 10, 0.34375), (5, 10, 1.0), (8, 30, 0.016_124_8)];
        for (fewer, trials, expected) in cases {
            let found = sign_test(fewer, trials);
            assert!((found - expected).abs() < 1e-6, "{fewer} of {trials}: {found}");
        }
        assert!(sign_test(499_000, 1_000_000) > 0.04 && sign_test(499_000, 1_000_000) < 0.05);
    }

    #[test]
    fn a_difference_that_shows_and_one_that_does_not() {
        let found = compared(300, |n| [n % 10 < 8, n % 10 < 6]);
        assert_eq!(found.verdict, Verdict::FirstBetter);
        assert!((found.difference.unwrap() - 0.2).abs() < 1e-12);
        assert_eq!((found.mcnemar.first_alone, found.mcnemar.second_alone), (60, 0));
        assert!(found.sentence(["A", "B"]).starts_with("The difference is real: A is better than B (+20.0 points"));
        let turned = compared(300, |n| [n % 10 < 6, n % 10 < 8]);
        assert_eq!(turned.verdict, Verdict::SecondBetter);
        let same = compared(40, |n| [n % 2 == 0, n % 3 == 0]);
        assert_eq!(same.verdict, Verdict::NotShown);
        assert!(same.sentence(["A", "B"]).contains("not shown"), "{}", same.sentence(["A", "B"]));
    }

    #[test]
    fn few_prompts_show_nothing_however_even() {
        let four = compared(4, |_| [true, false]);
        assert_eq!((four.difference, four.verdict), (Some(1.0), Verdict::NotShown));
        let none = compared(0, |_| [true, false]);
        assert_eq!((none.difference, none.mcnemar.p_value), (None, 1.0));
        assert!(none.sentence(["A", "B"]).contains("too few"));
        let equal = compared(50, |n| [n < 30, n < 30]);
        assert_eq!((equal.difference_ci95, equal.verdict), (Some([0.0, 0.0]), Verdict::NotShown));
    }
}
