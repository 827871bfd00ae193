//! The judge's outputs, one attribute at a time, for judges that have several.

use super::html::{count, datum_or_dash, decimal, figure_of, name, percent, pointer_key, table};
use super::{ReportInput, per_data_set};
use crate::eval::AttributeMetrics;
use std::collections::BTreeMap;

/// The section; empty for a judge with one score alone.
pub(super) fn section(input: &ReportInput) -> String {
    per_data_set(input, |index, analysis| block(index, &analysis.data.attributes))
}

fn block(index: usize, attributes: &BTreeMap<String, AttributeMetrics>) -> String {
    if attributes.is_empty() {
        return String::new();
    }
    let rows: Vec<_> = attributes.iter().map(|(attribute, metrics)| row(index, attribute, metrics)).collect();
    let caption = "Each output beside people’s ratings. Within a prompt: the share of pairs in the right order (50 % is a coin) and \
                   the rank correlations, means over prompts. Over all responses: Pearson’s r, and the mean error in \
                   units of the rating, which must be below that of always saying the mean.";
    let head = [
        "",
        "pairs right",
        "Spearman’s ρ",
        "Kendall’s τ<sub>b</sub>",
        "Pearson’s r",
        "error",
        "of the mean",
        "ratings",
    ];
    table(caption, &head, &rows)
}

fn row(index: usize, attribute: &str, metrics: &AttributeMetrics) -> Vec<String> {
    let cell = |key: &str, value: Option<f64>, shown: fn(f64) -> String| {
        datum_or_dash(&format!("/data/{index}/attributes/{}/{key}", pointer_key(attribute)), value, shown)
    };
    let three = |value: f64| decimal(value, 3);
    let missing = match metrics.missing {
        0 => String::new(),
        missing => format!(" ({} missing)", count(missing)),
    };
    vec![
        name(attribute),
        cell("accuracy", metrics.accuracy, percent),
        cell("spearman", metrics.spearman, three),
        cell("kendall_tau_b", metrics.kendall_tau_b, three),
        cell("pearson", metrics.pearson, three),
        cell("mae", metrics.mae, figure_of),
        cell("mae_of_mean", metrics.mae_of_mean, figure_of),
        count(metrics.n) + &missing,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_an_attribute_with_its_place_in_the_json() {
        let metrics = AttributeMetrics { n: 3, missing: 1, accuracy: Some(0.75), ..AttributeMetrics::default() };
        let html = block(1, &BTreeMap::from([("tone/<b>".to_owned(), metrics)]));
        assert!(html.contains("data-key=\"/data/1/attributes/tone~1&lt;b&gt;/accuracy\" value=\"0.75\""), "{html}");
        assert!(html.contains("tone/&lt;b&gt;") && html.contains("3 (1 missing)") && !html.contains("<b>"), "{html}");
        assert_eq!(block(0, &BTreeMap::new()), "");
    }
}
