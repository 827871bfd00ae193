//! The trivial judge that reads the response without its prompt.
//!
//! What it reaches is what the responses alone give away: their words, their length, a refusal, an
//! apology. A judge that is not above it need not have read the prompts. It is a Bradley–Terry model
//! that is linear in a bag of words: P(a beats b) = σ(w · (f(a) − f(b))), with f the logarithms of
//! one plus the count of each word (lower case, letters and digits, hashed to 2¹⁴ places) and of one
//! plus the characters. w is fitted by logistic regression with an L2 penalty,
//!
//! min ½‖w‖² + C Σ ln(1 + exp(−w·x)),
//!
//! through its dual, one pair at a time (Yu, Huang & Lin 2011, *Dual coordinate descent methods for
//! logistic regression and maximum entropy models*, §3). Each pair is judged by the w of the other
//! four folds of prompts. C is fixed: .03 was within noise of the best of .001 to .3 on sets of
//! preferences, llmbar's and pandalm's test sets among them: this baseline, not the judge, is tuned to those a little.

use super::super::pairs::{Halves, Pair, halves};
use super::folds::{FNV_START, FOLDS, fnv};
use super::material::Material;
use crate::data::{Content, Response};
use crate::random::Stream;
use rayon::prelude::*;

/// Places that words are hashed to.
const PLACES: u32 = 1 << 14;
/// Weight of the losses against the penalty.
const C: f64 = 0.03;
/// Passes over the pairs; the tolerance is met earlier.
const MOST_PASSES: usize = 50;
/// The passes stop when no dual variable moves by more than this share of C.
const TOLERANCE: f64 = 1e-3;

/// Places and values of f(response), in rising order of the places.
type Features = Vec<(u32, f32)>;

/// How it judges each pair, by a model that never saw the pair's prompt; `None` with too few prompts.
pub(super) fn verdicts(material: &Material) -> Option<Vec<Halves>> {
    let folds = material.folds.as_ref()?;
    let of_group = |scored: &super::super::ScoredGroup| scored.group.responses.iter().map(features).collect();
    let bags: Vec<Vec<Features>> = material.data.par_iter().map(of_group).collect();
    let sides = |pair: &Pair| {
        let own = &bags[pair.scored.index];
        (&own[pair.better], &own[pair.worse])
    };
    let fit_without = |fold: usize| {
        let others = material.pairs.iter().filter(|pair| folds[pair.scored.index] != fold);
        fit(&others.map(sides).collect::<Vec<_>>())
    };
    let weights: Vec<Vec<f64>> = (0..FOLDS).into_par_iter().map(fit_without).collect();
    let verdict = |pair: &Pair| {
        let (w, (better, worse)) = (&weights[folds[pair.scored.index]], sides(pair));
        halves(dot(w, better).partial_cmp(&dot(w, worse)))
    };
    Some(material.pairs.iter().map(verdict).collect())
}

fn features(response: &Response) -> Features {
    let mut places = Vec::new();
    let mut characters = 0;
    each_text(&response.content, |text| characters += add_words(text, &mut places));
    places.sort_unstable();
    let counted = places.chunk_by(|a, b| a == b).map(|same| (same[0], (same.len() as f32).ln_1p()));
    counted.chain([(PLACES, (characters as f32).ln_1p())]).collect()
}

fn each_text(content: &Content, mut read: impl FnMut(&str)) {
    match content {
        Content::Text(text) => read(text),
        Content::Messages(turns) => turns.iter().for_each(|turn| read(&turn.content)),
    }
}

/// Adds the place of each word; returns the number of characters.
fn add_words(text: &str, places: &mut Vec<u32>) -> usize {
    let (mut word, mut characters) = (None, 0);
    for character in text.chars() {
        characters += 1;
        match character.is_alphanumeric() {
            true => word = Some(hash_character(word.unwrap_or(FNV_START), character)),
            false => places.extend(word.take().map(place)),
        }
    }
    places.extend(word.map(place));
    characters
}

fn place(hash: u64) -> u32 {
    (hash % u64::from(PLACES)) as u32
}

/// FNV-1a of the UTF-8 of the character in lower case.
fn hash_character(hash: u64, character: char) -> u64 {
    if character.is_ascii() {
        return fnv(hash, character.to_ascii_lowercase() as u8);
    }
    let mut bytes = [0; 4];
    character.to_lowercase().fold(hash, |hash, c| c.encode_utf8(&mut bytes).bytes().fold(hash, fnv))
}

/// The weights that make the first of each two the better one.
fn fit(pairs: &[(&Features, &Features)]) -> Vec<f64> {
    let mut w = vec![0.0; PLACES as usize + 1];
    let mut duals = vec![C / 2.0; pairs.len()];
    for (better, worse) in pairs {
        add(&mut w, better, C / 2.0);
        add(&mut w, worse, -C / 2.0);
    }
    let squares: Vec<f64> = pairs.iter().map(|(a, b)| squared_distance(a, b)).collect();
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    for pass in 0..MOST_PASSES {
        Stream::new(0, pass as u64).shuffle(&mut order);
        let mut widest: f64 = 0.0;
        for &i in &order {
            let (better, worse) = pairs[i];
            let step = best_dual(squares[i], dot(&w, better) - dot(&w, worse), duals[i]) - duals[i];
            add(&mut w, better, step);
            add(&mut w, worse, -step);
            duals[i] += step;
            widest = widest.max(step.abs());
        }
        if widest < TOLERANCE * C {
            break;
        }
    }
    w
}

/// The dual variable z in (0, C) that is best while the others stay: the root of
/// square·(z − old) + margin + ln(z / (C − z)), by Newton's method in t = ln(z / (C − z)), which
/// falls back to halving when a step leaves the bracket.
fn best_dual(square: f64, margin: f64, old: f64) -> f64 {
    let (mut low, mut high) = (-margin - square * (C - old), -margin + square * old);
    let mut t = (old / (C - old)).ln().clamp(low, high);
    for _ in 0..60 {
        let share = 1.0 / (1.0 + (-t).exp());
        let excess = square * (C * share - old) + margin + t;
        if excess.abs() < 1e-9 {
            break;
        }
        if excess > 0.0 {
            high = t
        } else {
            low = t
        }
        let newton = t - excess / (square * C * share * (1.0 - share) + 1.0);
        t = if newton > low && newton < high { newton } else { (low + high) / 2.0 };
    }
    // Away from the ends, where the logarithm has no value.
    (C / (1.0 + (-t).exp())).clamp(C * 1e-12, C * (1.0 - 1e-12))
}

fn dot(w: &[f64], features: &Features) -> f64 {
    features.iter().map(|&(place, value)| w[place as usize] * f64::from(value)).sum()
}

fn add(w: &mut [f64], features: &Features, factor: f64) {
    for &(place, value) in features {
        w[place as usize] += factor * f64::from(value);
    }
}

fn squared_distance(a: &Features, b: &Features) -> f64 {
    let square = |f: &Features| -> f64 { f.iter().map(|(_, v)| f64::from(*v).powi(2)).sum() };
    let (mut i, mut j, mut both) = (0, 0, 0.0);
    while i < a.len() && j < b.len() {
        match a[i].0.cmp(&b[j].0) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                both += f64::from(a[i].1) * f64::from(b[j].1);
                (i, j) = (i + 1, j + 1);
            }
        }
    }
    square(a) + square(b) - 2.0 * both
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{comparison, scored, unranked};
    use super::super::super::{EvalOptions, mean};
    use super::*;
    use crate::data::Group;

    fn bag(text: &str) -> Features {
        let mut places = Vec::new();
        add_words(text, &mut places);
        features(&unranked("p", &[text]).responses[0])
    }

    #[test]
    fn bags_count_words_in_any_case() {
        assert_eq!(bag("Été, été 7"), bag("7 été: ÉTÉ"));
        let found = bag("b a a");
        assert_eq!(found.len(), 3);
        assert!(found.contains(&(place(fnv(FNV_START, b'a')), 2_f32.ln_1p())));
        assert_eq!(found[2], (PLACES, 5_f32.ln_1p()));
        assert_eq!(bag("!?"), [(PLACES, 2_f32.ln_1p())]);
    }

    #[test]
    fn the_fit_is_at_the_minimum() {
        let texts = ["a b c", "a a d", "b d e e", "c", "f a", "e d c b a"].map(bag);
        let pairs: Vec<_> = [(0, 1), (1, 2), (2, 0), (3, 4), (5, 4), (0, 5), (3, 1)]
            .map(|(i, j): (usize, usize)| (&texts[i], &texts[j]))
            .to_vec();
        let w = fit(&pairs);
        // At the minimum, w = C Σ σ(−w·x) x.
        let mut expected = vec![0.0; w.len()];
        for (a, b) in pairs {
            let z = dot(&w, a) - dot(&w, b);
            add(&mut expected, a, C / (1.0 + z.exp()));
            add(&mut expected, b, -C / (1.0 + z.exp()));
        }
        let worst = w.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-4, "{worst}");
    }

    #[test]
    fn duals_are_roots() {
        for (square, margin, old) in [(0.0, 1.0, C / 2.0), (50.0, -3.0, C * 0.9), (5000.0, 8.0, C * 0.1)] {
            let z = best_dual(square, margin, old);
            let rest = square * (z - old) + margin + (z / (C - z)).ln();
            assert!(rest.abs() < 1e-6, "{square} {margin}: {rest}");
        }
    }

    /// Forty prompts; the better response has the word `good` where `telling` says so.
    fn share_right(telling: bool) -> f64 {
        let group = |n: usize| -> Group {
            let (better, worse) = if telling { ("good", "poor") } else { ("word", "word") };
            let mut group = unranked(&format!("p{n}"), &[&format!("{better} x{n}"), &format!("{worse} y{n}")]);
            group.comparisons = vec![comparison(0, 1, 1.0)];
            group
        };
        let groups: Vec<Group> = (0..40).map(group).collect();
        let scores = vec![vec![0.0, 0.0]; 40];
        let found = verdicts(&Material::new(scored(&groups, &scores), EvalOptions::default())).unwrap();
        mean(found.iter().map(|h| *h as f64 / 2.0)).unwrap()
    }

    #[test]
    fn words_that_tell_are_found_and_prompts_are_not_learnt_by_heart() {
        assert_eq!(share_right(true), 1.0);
        assert!(share_right(false) < 0.7);
    }
}
