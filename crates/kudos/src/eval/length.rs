//! How much the score follows the length of a response, beyond what people's order explains.
//!
//! Longer is often better, so a plain correlation of score and length accuses a good judge too. The
//! partial correlation takes out what the people's order and the length have in common, and leaves
//! the rest.

use super::{ScoredGroup, mean};
use crate::data::{Content, Group};

/// Characters of a text, or of the contents of all messages together.
pub(super) fn characters(content: &Content) -> usize {
    match content {
        Content::Text(text) => text.chars().count(),
        Content::Messages(messages) => messages.iter().map(|m| m.content.chars().count()).sum(),
    }
}

/// Partial correlation of score and log length given people's order, within groups.
///
/// For each response: score `s`, `l = ln(1 + characters)`, and `q` = net wins, Σ (2·target − 1)
/// over its comparisons as seen from its side. Each is centred in its group; then over all
/// responses, with Pearson's r, `r_sl·q = (r_sl − r_sq·r_lq) / √((1 − r_sq²)(1 − r_lq²))`
/// (Yule 1907). Groups without comparisons are left out. `None` when it is undefined: equal scores
/// or lengths everywhere, or people's order decides one of them fully.
pub(super) fn partial_correlation(data: &[ScoredGroup]) -> Option<f64> {
    let (mut s, mut l, mut q) = (Vec::new(), Vec::new(), Vec::new());
    for scored in data.iter().filter(|d| d.group.counted().next().is_some()) {
        let responses = scored.group.responses.iter();
        s.extend(centred(scored.scores.iter().map(|&v| f64::from(v))));
        l.extend(centred(responses.map(|r| (characters(&r.content) as f64).ln_1p())));
        q.extend(centred(net_wins(scored.group)));
    }
    let (r_sl, r_sq, r_lq) =
        (correlation(&s, &l)?, correlation(&s, &q).unwrap_or(0.0), correlation(&l, &q).unwrap_or(0.0));
    let rest = (1.0 - r_sq * r_sq) * (1.0 - r_lq * r_lq);
    (rest > 1e-12).then(|| ((r_sl - r_sq * r_lq) / rest.sqrt()).clamp(-1.0, 1.0))
}

/// Votes won minus votes lost, of each response.
fn net_wins(group: &Group) -> Vec<f64> {
    let mut wins = vec![0.0; group.responses.len()];
    for comparison in group.counted() {
        let won = 2.0 * f64::from(comparison.target) - 1.0;
        wins[comparison.first] += won;
        wins[comparison.second] -= won;
    }
    wins
}

/// Less their mean; equal values give exact zeros, as they are first taken relative to one of them.
pub(super) fn centred(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    let origin = values.first().copied().unwrap_or(0.0);
    values.iter_mut().for_each(|v| *v -= origin);
    let centre = mean(values.iter().copied()).unwrap_or(0.0);
    values.iter().map(|v| v - centre).collect()
}

/// Pearson's r of values with mean 0; `None` when one of them does not vary.
pub(super) fn correlation(x: &[f64], y: &[f64]) -> Option<f64> {
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let (xx, yy) = (dot(x, x), dot(y, y));
    (xx > 0.0 && yy > 0.0).then(|| dot(x, y) / (xx * yy).sqrt())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ranked, scored};
    use super::*;
    use crate::data::Message;

    fn partial(ranks: &[&[f64]], scores: &[&[f32]]) -> Option<f64> {
        let groups: Vec<Group> = ranks.iter().map(|r| ranked("p", r)).collect();
        let scores: Vec<Vec<f32>> = scores.iter().map(|s| s.to_vec()).collect();
        partial_correlation(&scored(&groups, &scores))
    }

    #[test]
    fn characters_are_not_bytes() {
        let message = |content: &str| Message { role: "user".into(), content: content.into() };
        assert_eq!(characters(&Content::Text("Größe €".into())), 7);
        let messages = vec![message("né"), message("à")];
        assert_eq!(characters(&Content::Messages(messages)), 3);
    }

    #[test]
    fn a_judge_of_length_follows_length() {
        // Lengths are 1, 2, 3, 4; the order of people has nothing to do with them.
        let lengths: Vec<f32> = (1..=4).map(|n| (n as f32).ln_1p()).collect();
        let found = partial(&[&[2.0, 4.0, 1.0, 3.0]], &[&lengths]).unwrap();
        assert!((found - 1.0).abs() < 1e-6, "{found}");
        let shorter: Vec<f32> = lengths.iter().map(|l| -l).collect();
        let found = partial(&[&[2.0, 4.0, 1.0, 3.0]], &[&shorter]).unwrap();
        assert!((found + 1.0).abs() < 1e-6, "{found}");
    }

    #[test]
    fn it_is_undefined_without_variation() {
        assert_eq!(partial(&[&[1.0, 2.0, 3.0]], &[&[0.3, 0.3, 0.3]]), None);
        assert_eq!(partial(&[&[1.0, 2.0]], &[&[1.0, 2.0]]), None);
        assert_eq!(partial(&[], &[]), None);
    }
}
