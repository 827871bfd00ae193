//! The verdict: what the figures mean for somebody who wants to use the judge, in plain words.
//!
//! A claim is made only where the interval carries it. What the data cannot decide is said to be undecided: it stands
//! among the things that the judge cannot be shown to do. From fewer than [`PROMPTS_NEEDED`] prompts nothing is
//! claimed for the judge, because the intervals themselves are then too narrow.

use super::ReportInput;
use super::html::{counted, decimal, interval, name, percent, points};
use crate::eval::{AccuracyRow, Analysis, Rate};

/// A sentence about what the judge does, and whether it speaks for it.
pub(super) struct Claim {
    /// Whether it can be relied on for this.
    pub can: bool,
    /// The sentence, as HTML.
    pub words: String,
}

fn can(words: String) -> Option<Claim> {
    Some(Claim { can: true, words })
}

fn cannot(words: String) -> Option<Claim> {
    Some(Claim { can: false, words })
}

/// Everything that can be said of the judge on one data set, the most important first.
pub(super) fn claims(analysis: &Analysis) -> Vec<Claim> {
    let checks: [fn(&Analysis) -> Option<Claim>; 9] = [
        few_prompts,
        collapsed,
        against_a_coin,
        against_trivial,
        past_length,
        sureness,
        picking,
        ties,
        small_differences,
    ];
    let mut claims: Vec<Claim> = checks.iter().filter_map(|check| check(analysis)).collect();
    claims.extend(weak_subsets(analysis));
    if is_from_few_prompts(analysis) {
        claims.retain(|claim| !claim.can);
    }
    claims
}

/// The opening paragraph of the page.
pub(super) fn lead(input: &ReportInput) -> String {
    let caution = input.caution.as_ref().map_or(String::new(), |c| format!("<p class=\"caution\">{c}</p>"));
    let words = match input.analyses {
        [] => {
            "Nothing was held out, so nothing is known about how good this judge is. Measure it on prompts that it was \
               not trained on: <code>kudos eval DATA --judge JUDGE --report report.html</code>."
                .to_owned()
        }
        [one] => lead_of_one(one),
        several => lead_of_several(several),
    };
    format!("<p class=\"lead\">{words}</p>{caution}")
}

fn lead_of_one(analysis: &Analysis) -> String {
    let row = &analysis.accuracy.all;
    let Some(accuracy) = analysis.data.metrics.accuracy else {
        return "No two responses of these data differ in rank, so they cannot say how good the judge is.".into();
    };
    let sure = match analysis.data.metrics.accuracy_ci95 {
        Some(_) if is_from_few_prompts(analysis) => "; so few prompts cannot say how sure that is".into(),
        Some([low, high]) => {
            format!("; the truth lies between {} and {} with 95 % confidence", percent(low), percent(high))
        }
        None => "; one prompt is too little to say how sure that is".into(),
    };
    let rival = best_rival(row).map_or(String::new(), |(rule, rate)| {
        format!(
            " The best rule that needs no judgement, {rule}, is right in {}.",
            percent(rate.accuracy.unwrap_or(0.5))
        )
    });
    format!(
        "Of two responses it picks the one that people prefer in <strong>{}</strong> of {} ({}){sure}.{rival}",
        percent(accuracy),
        counted(analysis.data.metrics.pairs, "pair"),
        counted(analysis.data.metrics.prompts, "prompt"),
    )
}

fn lead_of_several(analyses: &[Analysis]) -> String {
    let reached = |a: &Analysis| Some((a.data.metrics.accuracy?, name(&short_name(&a.data.file))));
    let mut known: Vec<_> = analyses.iter().filter_map(reached).collect();
    known.sort_by(|a, b| a.0.total_cmp(&b.0));
    let beats = analyses.iter().filter(|a| against_trivial(a).is_some_and(|claim| claim.can)).count();
    let (Some(least), Some(most)) = (known.first(), known.last()) else {
        return "No two responses of these data differ in rank, so they cannot say how good the judge is.".into();
    };
    format!(
        "Of two responses it picks the one that people prefer in <strong>{}</strong> of the pairs of {} and in <strong>{}</strong> \
         of those of {}. On {beats} of the {} data sets it clearly beats every rule that needs no judgement.",
        percent(least.0),
        least.1,
        percent(most.0),
        most.1,
        analyses.len(),
    )
}

/// The file's own name, without folders.
pub(super) fn short_name(file: &str) -> String {
    file.rsplit(['/', '\\']).next().unwrap_or(file).to_owned()
}

/// What the judge is, in one line.
pub(super) fn about(input: &ReportInput) -> String {
    let base = input.judge.reward.get("base").and_then(|base| base.as_str()).filter(|base| !base.is_empty());
    let mut parts = Vec::new();
    if let Some(base) = base {
        parts.push(format!("trained from {}", name(base)));
    }
    if !input.judge.precision.is_empty() {
        parts.push(format!("scored in {}", name(&input.judge.precision)));
    }
    if input.bootstrap.0 > 0 && !input.analyses.is_empty() {
        parts.push(format!(
            "intervals: 95 %, {} bootstrap resamples of the prompts",
            super::html::count(input.bootstrap.0)
        ));
    }
    parts.push(format!("Kudos {}", env!("CARGO_PKG_VERSION")));
    format!("<p class=\"about\">{}</p>", parts.join(" · "))
}

/// The trivial judges of a row with their names.
pub(super) fn rivals(row: &AccuracyRow) -> Vec<(&'static str, Rate)> {
    let always = [("the longer one wins", Some(row.longer_wins)), ("the shorter one wins", Some(row.shorter_wins))];
    let others = [
        ("the one listed first wins", row.first_listed),
        ("a word count that never sees the prompt", row.response_only),
    ];
    let known = always.into_iter().chain(others).filter_map(|(rule, rate)| Some((rule, rate?)));
    known.filter(|(_, rate)| rate.accuracy.is_some()).collect()
}

pub(super) fn best_rival(row: &AccuracyRow) -> Option<(&'static str, Rate)> {
    let accuracy = |rate: &Rate| rate.accuracy.unwrap_or(0.0);
    rivals(row).into_iter().max_by(|a, b| accuracy(&a.1).total_cmp(&accuracy(&b.1)))
}

fn with_interval(accuracy: f64, ci: Option<[f64; 2]>) -> String {
    ci.map_or(percent(accuracy), |ci| format!("{} {}", percent(accuracy), interval(ci)))
}

/// With fewer prompts, a percentile interval is too narrow (see `docs/evaluation.md`).
const PROMPTS_NEEDED: usize = 20;

fn is_from_few_prompts(analysis: &Analysis) -> bool {
    let metrics = &analysis.data.metrics;
    metrics.accuracy.is_some() && (2..PROMPTS_NEEDED).contains(&metrics.prompts)
}

fn few_prompts(analysis: &Analysis) -> Option<Claim> {
    let prompts = Some(analysis.data.metrics.prompts).filter(|_| is_from_few_prompts(analysis))?;
    cannot(format!(
        "<b>Be known well from {}.</b> With fewer than {PROMPTS_NEEDED}, the intervals here are too narrow, so nothing \
         is claimed for it.",
        counted(prompts, "prompt")
    ))
}

fn collapsed(analysis: &Analysis) -> Option<Claim> {
    analysis.data.metrics.score_std.filter(|std| *std < 1e-3)?;
    cannot("<b>Tell responses apart.</b> It gives nearly every response the same score.".into())
}

fn against_a_coin(analysis: &Analysis) -> Option<Claim> {
    let metrics = &analysis.data.metrics;
    let accuracy = metrics.accuracy?;
    let figure = with_interval(accuracy, metrics.accuracy_ci95);
    match metrics.accuracy_ci95 {
        Some([low, _]) if low > 0.5 => {
            can(format!("<b>Tell the better response from the worse</b> more often than a coin: {figure}."))
        }
        Some([_, high]) if high < 0.5 => cannot(format!(
            "<b>Agree with people.</b> It is right less often than a coin: {figure}. Are the labels the other way round?"
        )),
        Some(_) => cannot(format!("<b>Be told from a coin</b> on these data: the interval of {figure} contains 50 %.")),
        None => cannot(format!("<b>Be measured</b> on one prompt: {figure} may be luck.")),
    }
}

fn against_trivial(analysis: &Analysis) -> Option<Claim> {
    let row = &analysis.accuracy.all;
    let (rule, rival) = best_rival(row)?;
    let (judge, theirs) = (analysis.data.metrics.accuracy?, rival.accuracy?);
    let figure = with_interval(theirs, rival.accuracy_ci95);
    if judge <= theirs {
        let how = if judge < theirs { "better" } else { "as well" };
        return cannot(format!("<b>Beat a trivial rule.</b> On these pairs, {rule} does {how}: {figure}."));
    }
    match (analysis.data.metrics.accuracy_ci95, rival.accuracy_ci95) {
        (Some([low, _]), Some([_, high])) if low > high => {
            can(format!("<b>Beat every rule that needs no judgement.</b> The best of them, {rule}, reaches {figure}."))
        }
        (Some(_), Some(_)) => cannot(format!(
            "<b>Be shown to beat a trivial rule.</b> It is above {rule} ({figure}), but the intervals overlap."
        )),
        _ => cannot(format!(
            "<b>Be shown to beat a trivial rule.</b> It is above {rule} ({figure}), but one prompt is too few to say so."
        )),
    }
}

fn past_length(analysis: &Analysis) -> Option<Claim> {
    let accuracy = analysis.length.longer_wrong.accuracy?;
    let [low, high] = analysis.length.longer_wrong.accuracy_ci95?;
    let figure = with_interval(accuracy, Some([low, high]));
    match () {
        () if low > 0.5 => {
            can(format!("<b>See past length.</b> Where people prefer the shorter response, it is right in {figure}."))
        }
        () if high < 0.5 => cannot(format!(
            "<b>See past length.</b> Where people prefer the shorter response, it is right in only {figure}: there it follows length."
        )),
        () => cannot(format!(
            "<b>Be relied on where the shorter response is better:</b> {figure} cannot be told from a coin."
        )),
    }
}

/// Probabilities that are off by less than this, on average, are called right.
const CALIBRATED: f64 = 0.05;

fn sureness(analysis: &Analysis) -> Option<Claim> {
    let ece = analysis.data.metrics.ece?;
    if ece <= CALIBRATED {
        return can(format!("<b>Say how sure it is.</b> Its probabilities are off by {} on average.", points(ece)));
    }
    if analysis.calibration.stored.ece_by_chance.is_some_and(|chance| ece <= chance) {
        return cannot(format!(
            "<b>Be shown to know how sure it is:</b> its probabilities are off by {} on average, and exact ones would be, too, on so few comparisons.",
            points(ece)
        ));
    }
    let after = analysis.calibration.after.as_ref().and_then(|after| after.ece).filter(|after| *after < ece);
    let cure = after.map_or(String::new(), |after| {
        format!(" <code>kudos eval --calibrate</code> would bring that to {}.", decimal(100.0 * after, 1))
    });
    cannot(format!("<b>Say how sure it is.</b> Its probabilities are off by {} on average.{cure}", points(ece)))
}

/// Share of what the best possible pick gains over a random one that is worth the choosing.
const GAIN: f64 = 0.2;

fn picking(analysis: &Analysis) -> Option<Claim> {
    let (n, pick) = analysis.data.metrics.best_of_n.last_key_value()?;
    let gain = (pick.judge - pick.random) / (pick.oracle - pick.random).max(1e-9);
    let words = format!(
        "its pick among {n} is better than {} of the other responses (a random pick: {}; the best possible: {})",
        percent(pick.judge),
        percent(pick.random),
        percent(pick.oracle)
    );
    match gain > GAIN {
        true => can(format!("<b>Choose the best of several:</b> {words}.")),
        false => cannot(format!("<b>Choose the best of several:</b> {words}.")),
    }
}

/// Fewer ties than this say nothing.
const TIES_NEEDED: usize = 20;

fn ties(analysis: &Analysis) -> Option<Claim> {
    let auc = analysis.ties.auc.filter(|_| analysis.ties.ties >= TIES_NEEDED)?;
    match auc >= 0.6 {
        true => can(format!(
            "<b>Notice when two responses are equally good:</b> a decided pair has a wider margin than a tie in {} of cases.",
            percent(auc)
        )),
        false => cannot(format!(
            "<b>Notice when two responses are equally good:</b> a decided pair has a wider margin than a tie in only {} of cases; a coin gives 50 %.",
            percent(auc)
        )),
    }
}

fn small_differences(analysis: &Analysis) -> Option<Claim> {
    let least = analysis.accuracy.all.smallest_difference?;
    cannot(format!(
        "<b>Be told from a judge less than {} better or worse</b>, with {}. The data are too few for less.",
        points(least.between_judges),
        counted(analysis.accuracy.all.prompts, "prompt")
    ))
}

/// Subsets on which it is reliably wrong, the worst first.
fn weak_subsets(analysis: &Analysis) -> Option<Claim> {
    let weak = |(subset, metrics): (&String, &crate::eval::Metrics)| {
        let [_, high] = metrics.accuracy_ci95?;
        (high < 0.5).then_some((metrics.accuracy?, name(subset)))
    };
    let mut weak: Vec<_> = analysis.data.subsets.iter().filter_map(weak).collect();
    weak.sort_by(|a, b| a.0.total_cmp(&b.0));
    let named: Vec<String> =
        weak.iter().take(4).map(|(accuracy, subset)| format!("{subset} ({})", percent(*accuracy))).collect();
    let more = if weak.len() > 4 { format!(" and {} more", weak.len() - 4) } else { String::new() };
    (!weak.is_empty()).then(|| Claim {
        can: false,
        words: format!(
            "<b>Agree with people on</b> {}{more}: there it is wrong more often than right.",
            named.join(", ")
        ),
    })
}
