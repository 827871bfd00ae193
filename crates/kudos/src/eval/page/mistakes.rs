//! Section 5: the hardest mistakes, to be read, and the pairs whose labels look wrong.

use super::html::{figure_of, name, percent, quoted};
use super::{ReportInput, per_data_set};
use crate::eval::{Analysis, JudgedPair};

/// Pairs that are shown at once; the others open on a click.
const SHOWN: usize = 5;

/// The section; empty when nothing was evaluated.
pub(super) fn section(input: &ReportInput) -> String {
    per_data_set(input, |_, analysis| mistakes(analysis) + &suspects(analysis))
}

fn mistakes(analysis: &Analysis) -> String {
    if analysis.mistakes.is_empty() {
        return match analysis.data.metrics.pairs {
            0 => String::new(),
            _ => "<p>It makes no mistake on these pairs.</p>".into(),
        };
    }
    format!(
        "<p>The pairs on which it is most sure and wrong: read them before trusting it. Some will be the judge’s faults, some the labels’.</p>{}",
        list(&analysis.mistakes, "mistakes")
    )
}

fn suspects(analysis: &Analysis) -> String {
    match &analysis.suspects {
        None => "<h3>Labels that look wrong</h3><p class=\"hint\">Not known: a judge that has seen a label cannot doubt it. \
                 <code>kudos train DATA --folds 5</code> scores every pair by a judge that was trained without its prompt.</p>"
            .into(),
        Some(suspects) if suspects.is_empty() => {
            "<h3>Labels that look wrong</h3><p>None: no label has a probability below 10 % by judges that were trained without its prompt.</p>".into()
        }
        Some(suspects) => format!(
            "<h3>Labels that look wrong</h3><p>By judges that were trained without the prompt, these labels have a probability below \
             10 %. Look at each again; <code>kudos rank</code> opens them as a list.</p>{}",
            list(suspects, "pairs")
        ),
    }
}

fn list(pairs: &[JudgedPair], noun: &str) -> String {
    let drawn: Vec<String> = a_prompt_each_first(pairs).into_iter().map(one).collect();
    let (shown, folded) = drawn.split_at(drawn.len().min(SHOWN));
    match folded.len() {
        0 => shown.concat(),
        n => format!(
            "{}<details class=\"more\"><summary>{n} more {noun}</summary>{}</details>",
            shown.concat(),
            folded.concat()
        ),
    }
}

/// The first pair of each prompt, then the others: many pairs of one prompt read alike.
fn a_prompt_each_first(pairs: &[JudgedPair]) -> Vec<&JudgedPair> {
    let mut seen = std::collections::HashSet::new();
    let (mut first, others): (Vec<_>, Vec<_>) = pairs.iter().partition(|pair| seen.insert(pair.group));
    first.extend(others);
    first
}

fn one(pair: &JudgedPair) -> String {
    let subset = pair.subset.as_ref().map_or(String::new(), |subset| format!(" · {}", name(subset)));
    let prompt = pair.prompt.as_ref().map_or(String::new(), |prompt| quoted(prompt));
    format!(
        "<article class=\"pair\"><p class=\"place\">{}{subset} · margin {} · it gives the label {}</p>{prompt}<div class=\"sides\">\
         <div class=\"better\"><h4>People prefer</h4>{}</div><div class=\"worse\"><h4>The judge prefers</h4>{}</div></div></article>",
        name(&pair.location),
        figure_of(pair.margin),
        chance(pair.probability),
        quoted(&pair.better),
        quoted(&pair.worse),
    )
}

/// A probability that may be very small.
fn chance(probability: f64) -> String {
    if probability < 0.001 { format!("{}\u{a0}%", figure_of(100.0 * probability)) } else { percent(probability) }
}
