//! `--attributes` and `--attribute-weights` of `kudos train`, and the columns of attributes that other commands write.

use super::wrong_usage;
use kudos::data::Group;
use kudos::models::{AttributeHead, ClassifierSource, LoadError, Model, Rated, load_for_attributes};
use kudos::train::{AttributeWeights, Recipe, attribute_head};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Refuses what does not go together, before anything is read.
pub fn check_flags(names: &[String], recipe: Option<Recipe>) -> anyhow::Result<()> {
    if let Some(name) = names.iter().find(|name| name.trim().is_empty()) {
        wrong_usage!("--attributes: expected names separated by commas, found {name:?}");
    }
    if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        wrong_usage!("--attributes: expected each name once, found {} twice", twice.1);
    }
    if !names.is_empty() && recipe == Some(Recipe::Trl) {
        wrong_usage!("--attributes: --recipe trl learns pairs alone; leave one of the two away");
    }
    Ok(())
}

/// What is to be learnt of the training groups; `None` without `--attributes`.
pub fn learnt(names: &[String], weights: Option<&str>, groups: &[Group]) -> anyhow::Result<Option<AttributeHead>> {
    if names.is_empty() {
        return Ok(None);
    }
    Ok(Some(attribute_head(groups, names, &parse_weights(weights, names)?)?))
}

/// `fit`, `equal`, or a weight for each attribute.
fn parse_weights(text: Option<&str>, names: &[String]) -> anyhow::Result<AttributeWeights> {
    let text = match text {
        None => return Ok(AttributeWeights::Auto),
        Some("fit") => return Ok(AttributeWeights::Fit),
        Some("equal") => return Ok(AttributeWeights::Equal),
        Some(text) => text,
    };
    let mut weights = vec![None; names.len()];
    for part in text.split(',') {
        let parsed = part.rsplit_once('=').and_then(|(name, x)| Some((name.trim(), x.trim().parse::<f64>().ok()?)));
        let Some((name, weight)) = parsed.filter(|(_, weight)| weight.is_finite()) else {
            wrong_usage!("--attribute-weights: expected fit, equal or NAME=NUMBER,…, found {part:?}");
        };
        let Some(place) = names.iter().position(|known| known == name) else {
            wrong_usage!("--attribute-weights: expected names of --attributes ({}), found {name}", names.join(", "));
        };
        if weights[place].replace(weight).is_some() {
            wrong_usage!("--attribute-weights: expected each name once, found {name} twice");
        }
    }
    let missing: Vec<&str> =
        names.iter().zip(&weights).filter(|(_, w)| w.is_none()).map(|(name, _)| name.as_str()).collect();
    if !missing.is_empty() {
        wrong_usage!(
            "--attribute-weights: expected a weight for every attribute, found none for {}; 0 leaves one out",
            missing.join(", ")
        );
    }
    Ok(AttributeWeights::Declared(weights.into_iter().flatten().collect()))
}

/// The base, as training wants it: a head of its own for the same attributes is brought to standardised ratings. What
/// these are depends on whether it has biases.
pub fn load_base(
    dir: &Path,
    head: &mut AttributeHead,
    seed: u64,
    new_head: bool,
) -> Result<(Model, ClassifierSource), LoadError> {
    let (mut model, source) = load_for_attributes(dir, &head.names, seed, new_head)?;
    head.centred = model.head_out().bias.len > 0;
    if source == ClassifierSource::Checkpoint {
        head.to_standardised(&mut model);
    }
    Ok((model, source))
}

/// The outputs and their weights, for people.
pub fn describe(head: &AttributeHead) -> String {
    let weight = |(name, weight): (&String, &f64)| format!("{name} {weight:.3}");
    let weights: Vec<String> = head.names.iter().zip(&head.weights).map(weight).collect();
    let weighting = serde_json::to_value(head.weighting).ok();
    let weighting = weighting.as_ref().and_then(Value::as_str).unwrap_or_default();
    format!("attributes, with their {weighting} weights in the score: {}", weights.join(", "))
}

/// `{name: output}` of one response.
pub fn object(names: &[String], rated: &Rated) -> Value {
    names.iter().cloned().zip(rated.attributes.iter().map(|x| json!(x))).collect::<Map<_, _>>().into()
}

/// The score column and one for each attribute: `COLUMN` and `COLUMN_NAME` with the outputs of a row, one number or a list
/// as `shape` makes of them.
pub fn score_columns(
    names: &[String],
    column: &str,
    rated: &[Rated],
    shape: fn(Vec<f32>) -> Value,
) -> Vec<(String, Value)> {
    let score = (column.to_owned(), shape(rated.iter().map(|r| r.scored.score).collect()));
    let of_attribute = |(a, name): (usize, &String)| {
        (format!("{column}_{name}"), shape(rated.iter().map(|rated| rated.attributes[a]).collect()))
    };
    [score].into_iter().chain(names.iter().enumerate().map(of_attribute)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_parsed_or_refused() {
        let names = ["a".to_owned(), "b".to_owned()];
        let parse = |text| parse_weights(Some(text), &names).map_err(|e| e.to_string());
        assert_eq!(parse("b=2, a=-0.5").unwrap(), AttributeWeights::Declared(vec![-0.5, 2.0]));
        assert_eq!(parse("fit").unwrap(), AttributeWeights::Fit);
        assert_eq!(parse_weights(None, &names).unwrap(), AttributeWeights::Auto);
        let refused = [
            ("a=1", "none for b"),
            ("a=1,b", "found \"b\""),
            ("a=1,b=nan", "NAME=NUMBER"),
            ("a=1,c=2", "found c"),
            ("a=1,a=2,b=1", "found a twice"),
            ("", "found \"\""),
        ];
        for (text, expected) in refused {
            let message = parse(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn flags_that_do_not_go_together() {
        let names = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        assert!(check_flags(&names(&["a", ""]), None).is_err());
        assert!(check_flags(&names(&["a", "a"]), None).is_err());
        assert!(check_flags(&names(&["a"]), Some(Recipe::Trl)).is_err());
        assert!(check_flags(&[], Some(Recipe::Trl)).is_ok());
    }
}
