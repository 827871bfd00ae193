//! The scores of each response of a prompt, as bars, the best on top.

use super::html::{decimal, decimals_for, escape, name};
use super::svg::{Axis, Strip, extent};
use crate::eval::{Bar, PromptBars};

/// Responses that are shown at once, of at least one prompt; the others open on a click.
const SHOWN: usize = 20;

/// The bars of all prompts given; `typical` is the mean score of the file, where bars start.
pub(super) fn block(prompts: &[PromptBars], typical: Option<f64>) -> String {
    if prompts.is_empty() {
        return String::new();
    }
    let scores = || prompts.iter().flat_map(|p| p.responses.iter().map(|r| r.score));
    let typical = typical.filter(|t| t.is_finite()).unwrap_or(0.0);
    let (low, high) = extent(scores().chain([typical]));
    let axis = Axis::with_ticks("", low, high, Vec::new());
    let digits = decimals_for(high - low);
    let drawn: Vec<String> = prompts.iter().map(|prompt| one(prompt, &axis, typical, digits)).collect();
    let (shown, folded) = drawn.split_at(shown(prompts));
    let more = match folded.len() {
        0 => String::new(),
        1 => format!("<details class=\"more\"><summary>One more prompt</summary>{}</details>", folded.concat()),
        n => format!("<details class=\"more\"><summary>{n} more prompts</summary>{}</details>", folded.concat()),
    };
    let ranked = prompts.iter().flat_map(|p| &p.responses).any(|r| r.rank.is_some());
    let places = match ranked {
        true => {
            " The number in front is people’s place for it; <span class=\"swapped\">marked</span> where the judge’s place is another."
        }
        false => "",
    };
    format!(
        "<h3>The responses of a prompt</h3><p>In the judge’s order, best first. Bars start at the mean score of the file ({}): to the \
         right, better than a typical response; to the left, worse.{places}</p>{}{more}",
        decimal(typical, digits),
        shown.concat()
    )
}

/// Prompts whose responses fit what is shown at once.
fn shown(prompts: &[PromptBars]) -> usize {
    let mut rows = 0;
    let fits = |prompt: &&PromptBars| {
        rows += prompt.responses.len();
        rows <= SHOWN
    };
    prompts.iter().take_while(fits).count().max(1)
}

fn one(prompt: &PromptBars, axis: &Axis, typical: f64, digits: usize) -> String {
    let mut order: Vec<&Bar> = prompt.responses.iter().collect();
    order.sort_by(|a, b| b.score.total_cmp(&a.score));
    let rows: String = order.iter().map(|bar| row(bar, axis, typical, digits)).collect();
    let words = match &prompt.prompt {
        Some(text) => format!("<p class=\"quote\" dir=\"auto\">{}</p>", escape(&excerpt(text, 280))),
        None => String::new(),
    };
    format!(
        "<div class=\"prompt\"><p class=\"place\">{}</p>{words}<ol class=\"bars\">{rows}</ol></div>",
        name(&prompt.location)
    )
}

fn row(bar: &Bar, axis: &Axis, typical: f64, digits: usize) -> String {
    let mut strip = Strip::new(axis);
    strip.upright("typical", typical);
    strip.bar(if bar.score >= typical { "above" } else { "below" }, typical, bar.score);
    let swapped = bar.rank.is_some_and(|rank| rank != bar.judge_rank);
    let place = bar.rank.map_or(String::new(), place);
    format!(
        "<li><span class=\"place{}\">{place}</span><span class=\"text\" dir=\"auto\">{}</span><span class=\"strip-box\">{}</span>\
         <span class=\"score\">{}</span></li>",
        if swapped { " swapped" } else { "" },
        escape(&excerpt(&bar.text, 160)),
        strip.finish(&format!("score {}", decimal(bar.score, digits))),
        decimal(bar.score, digits)
    )
}

/// `2`, or `2.5` for a mean place.
fn place(rank: f64) -> String {
    if rank.fract() == 0.0 { decimal(rank, 0) } else { decimal(rank, 1) }
}

/// The first characters on one line.
fn excerpt(text: &str, length: usize) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match flat.char_indices().nth(length) {
        None => flat,
        Some((cut, _)) => format!("{} …", flat[..cut].trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(text: &str, score: f64, rank: f64, judge_rank: f64) -> Bar {
        Bar { text: text.into(), score, rank: Some(rank), judge_rank }
    }

    #[test]
    fn bars_are_sorted_and_marked_where_the_places_differ() {
        let responses = vec![bar("low", -1.0, 1.0, 3.0), bar("high", 2.0, 2.0, 1.0), bar("mid", 1.0, 2.0, 2.0)];
        let prompt = PromptBars { prompt: Some("<p>".into()), location: "a.csv:1".into(), responses };
        let html = block(&[prompt], Some(0.0));
        let place = |text: &str| html.find(&format!(">{text}<")).unwrap();
        assert!(place("high") < place("mid") && place("mid") < place("low"));
        assert_eq!(html.matches("place swapped").count(), 2);
        assert!(html.contains("&lt;p&gt;") && !html.contains("<details"));
    }

    #[test]
    fn small_scores_are_told_apart() {
        let responses = vec![bar("a", 0.0012, 1.0, 1.0), bar("b", -0.0004, 2.0, 2.0)];
        let html = block(&[PromptBars { prompt: None, location: "a:1".into(), responses }], Some(0.0));
        assert!(html.contains(">0.0012<") && html.contains(">\u{2212}0.0004<"), "{html}");
    }

    #[test]
    fn equal_scores_and_many_prompts_are_no_trouble() {
        let responses = (0..16).map(|_| bar("same", 1.0, 1.0, 8.5)).collect();
        let prompt = PromptBars { prompt: None, location: "a:1".into(), responses };
        let html = block(&vec![prompt; 20], None);
        assert!(html.contains("19 more prompts") && !html.contains("NaN"));
    }
}
