//! Section 4: ties, the order of the list, and what choosing by this judge would bring.

use super::html::{counted, datum, datum_or_dash, decimal, figure, percent, rate, table, words};
use super::svg::{Axis, Chart, Side};
use super::{ReportInput, bars, per_data_set};
use crate::eval::{Analysis, BestOfN, Metrics, OrderSection, TieSection};
use std::collections::BTreeMap;

/// The section; empty when nothing was evaluated.
pub(super) fn section(input: &ReportInput) -> String {
    per_data_set(input, |index, analysis| {
        let metrics = &analysis.data.metrics;
        let typical = analysis.scores.mean.or(metrics.score_mean);
        [
            best_of_n(index, &metrics.best_of_n),
            rankings(index, metrics),
            ties(&analysis.ties),
            order(&analysis.order),
            equal_or_cut(index, analysis),
            bars::block(&analysis.bars, typical),
        ]
        .concat()
    })
}

fn best_of_n(index: usize, curve: &BTreeMap<usize, BestOfN>) -> String {
    let Some((most, _)) = curve.last_key_value() else { return String::new() };
    let at = |n: usize| (n as f64).log2();
    let ticks = std::iter::once(1).chain(curve.keys().copied()).map(|n| (at(n), n.to_string())).collect();
    let x = Axis::with_ticks("responses to choose from (n)", 0.0, at(*most), ticks);
    let low = curve.values().map(|b| b.judge).fold(0.5, f64::min);
    let mut chart =
        Chart::new(x, Axis::percent("other responses that the pick beats, %", (low * 10.0).floor() / 10.0, 1.0), 250);
    type Of = fn(&BestOfN) -> f64;
    let lines: [(&str, &str, Of); 3] = [
        ("oracle", "best possible", |b| b.oracle),
        ("neutral", "random", |b| b.random),
        ("judge", "this judge", |b| b.judge),
    ];
    for (class, words, of) in lines {
        // One response leaves nothing to choose.
        let points: Vec<_> = std::iter::once((0.0, 0.5)).chain(curve.iter().map(|(n, b)| (at(*n), of(b)))).collect();
        chart.line(class, &points);
        for (n, best) in curve {
            chart.dot(class, (at(*n), of(best)), 3.5, &format!("{words}, n = {n}: {}", percent(of(best))));
        }
        chart.label(class, points[points.len() - 1], Side::Right, words);
    }
    let caption = "Best of n: the quality of the response that the judge scores highest among n, as the share of the other responses \
                   to the prompt that it beats; averaged over all draws (unbiased).";
    figure("ends", &chart.finish("Quality of the best of n by judge, oracle and at random"), caption)
        + &format!("<details><summary>The same in figures</summary>{}</details>", best_table(index, curve))
}

fn best_table(index: usize, curve: &BTreeMap<usize, BestOfN>) -> String {
    let line = |(n, best): (&usize, &BestOfN)| {
        let pointer = |key: &str| format!("/data/{index}/best_of_n/{n}/{key}");
        vec![
            n.to_string(),
            datum(&pointer("judge"), best.judge, &percent(best.judge)),
            datum(&pointer("random"), best.random, &percent(best.random)),
            datum(&pointer("oracle"), best.oracle, &percent(best.oracle)),
            datum(&pointer("groups"), best.groups as f64, &super::html::count(best.groups)),
        ]
    };
    let rows: Vec<_> = curve.iter().map(line).collect();
    table("", &["n", "this judge", "random", "best possible", "prompts"], &rows)
}

fn rankings(index: usize, metrics: &Metrics) -> String {
    if metrics.kendall_tau_b.is_none() {
        return String::new();
    }
    let line = |name: &str, key: &str, value: Option<f64>, says: &str| {
        vec![name.to_owned(), datum_or_dash(&format!("/data/{index}/{key}"), value, |v| decimal(v, 3)), words(says)]
    };
    let rows = [
        line("Kendall’s τ<sub>b</sub>", "kendall_tau_b", metrics.kendall_tau_b, "0 is chance, 1 the same order"),
        line("Spearman’s ρ", "spearman", metrics.spearman, "0 is chance, 1 the same order"),
        line("NDCG", "ndcg", metrics.ndcg, "far above 0 by chance: about .81 for four responses"),
    ];
    table(
        "Whole rankings: agreement of the judge’s order with people’s, mean over prompts of three or more.",
        &["", "", ""],
        &rows,
    )
}

fn ties(ties: &TieSection) -> String {
    let (Some(of_ties), Some(of_pairs)) = (ties.unsure_of_ties, ties.unsure_of_pairs) else {
        return match ties.ties {
            0 => "<p><b>Ties.</b> These data have none.</p>".into(),
            n => format!("<p><b>Ties.</b> {}, and nothing to compare them with.</p>", counted(n, "tie")),
        };
    };
    let auc = ties.auc.map_or(String::new(), |auc| {
        format!(
            " A decided pair has a wider margin than a tie in {} of cases (50 % is a coin): {}.",
            percent(auc),
            if auc >= 0.6 { "the margin tells them apart, somewhat" } else { "the margin hardly tells them apart" }
        )
    });
    format!(
        "<p><b>Ties.</b> Where people saw no difference ({}), the judge is at most 60 % sure in {}; where they did ({}), in {}.{auc}</p>",
        counted(ties.ties, "tie"),
        percent(of_ties),
        counted(ties.pairs, "pair"),
        percent(of_pairs),
    )
}

fn order(order: &OrderSection) -> String {
    let Some(consistency) = order.consistency else { return String::new() };
    let sides = match order.first_better_pairs > 0 && order.second_better_pairs > 0 {
        true => format!(
            " It is right in {} where the better one is listed first ({}), and in {} where it is listed second ({}).",
            rate(&order.first_better),
            counted(order.first_better_pairs, "pair"),
            rate(&order.second_better),
            counted(order.second_better_pairs, "pair"),
        ),
        false => String::new(),
    };
    format!(
        "<p><b>Order.</b> With the two sides of a comparison exchanged, the verdict stays the same in {}: this judge reads each response \
         on its own.{sides}</p>",
        percent(consistency)
    )
}

fn equal_or_cut(index: usize, analysis: &Analysis) -> String {
    let metrics = &analysis.data.metrics;
    let equal =
        datum(&format!("/data/{index}/score_ties"), metrics.score_ties as f64, &counted(metrics.score_ties, "pair"));
    let cut = analysis.data.truncated.filter(|truncated| *truncated > 0).map_or(String::new(), |truncated| {
        let shown = datum(&format!("/data/{index}/truncated"), truncated as f64, &counted(truncated, "response"));
        let verb = if truncated == 1 { "was" } else { "were" };
        format!("<p><b>Cut.</b> {shown} did not fit the token limit and {verb} cut.</p>")
    });
    let equal = match metrics.score_ties {
        0 => String::new(),
        _ => format!("<p><b>Equal scores.</b> {equal} with exactly equal scores count one half.</p>"),
    };
    equal + &cut
}
