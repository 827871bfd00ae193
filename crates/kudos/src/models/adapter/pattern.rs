//! How a config of PEFT names modules: by whole names, by their ends, or by regular expressions.
//!
//! Expressions are Python's. They run here in time linear in the name, whatever they are. What Python's engine knows and
//! this one does not (looking around, references to groups) is refused, as is what both know but read in two ways.

use regex::{Regex, RegexBuilder};

/// An expression that must match a whole name.
#[derive(Clone, Debug)]
pub(super) struct Whole(Regex);

/// Bytes that a compiled expression may take.
const SIZE: usize = 1 << 20;
/// Characters that an expression may have.
const LENGTH: usize = 10_000;

impl Whole {
    /// Compiles an expression of Python.
    pub(super) fn new(expression: &str) -> Result<Self, String> {
        Self::within(expression, |inner| format!("^(?:{inner})$"))
    }

    /// As [`Self::new`]; the expression may also match the end of a name, after a dot.
    pub(super) fn ending(expression: &str) -> Result<Self, String> {
        Self::within(expression, |inner| format!(r"^(?:.*\.)?(?:{inner})$"))
    }

    fn within(expression: &str, whole: impl Fn(&str) -> String) -> Result<Self, String> {
        if expression.len() > LENGTH {
            return Err(format!("a regular expression of at most {LENGTH} bytes"));
        }
        if let Some(part) = ["&&", "--", "~~", "[["].iter().find(|part| expression.contains(**part)) {
            return Err(format!("a regular expression without `{part}`, which Python reads in another way"));
        }
        let compile = |text: &str| RegexBuilder::new(text).size_limit(SIZE).build();
        // The expression alone first: an unbalanced bracket must not pair with one of ours.
        let alone = compile(expression).and_then(|_| compile(&whole(expression)));
        alone.map(Self).map_err(|error| {
            let last = error.to_string();
            let reason = last.lines().last().unwrap_or_default().trim();
            format!("a regular expression: {}", reason.trim_start_matches("error: "))
        })
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

/// `target_modules` or `exclude_modules`.
#[derive(Clone, Debug)]
pub(super) enum Names {
    /// Whole names, or their ends after a dot.
    Listed(Vec<String>),
    /// An expression for whole names.
    Matching(Whole),
    /// `all-linear`: every linear layer but the output.
    AllLinear,
}

impl Names {
    /// How a list holds this name: as a whole, by its end, or not.
    pub(super) fn held(&self, name: &str) -> Held {
        let found = |whole: bool, end: bool| match (whole, end) {
            (true, _) => Held::Whole,
            (_, true) => Held::End,
            _ => Held::No,
        };
        match self {
            Names::Listed(names) => found(names.iter().any(|one| one == name), names.iter().any(|one| ends(name, one))),
            Names::Matching(whole) => found(whole.matches(name), false),
            Names::AllLinear => Held::Whole,
        }
    }
}

/// How [`Names`] hold a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Whole,
    End,
    No,
}

/// Whether a name ends in this one, after a dot.
pub(super) fn ends(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.'))
}

/// The number of the layer that a module is in. Of several patterns the first that is there counts: the name before the
/// number, an expression of Python. Without patterns, any name with a number behind it.
pub(super) fn layer_of(name: &str, patterns: &[Whole]) -> Option<usize> {
    let parts: Vec<&str> = name.split('.').collect();
    // As Python's greedy expressions: the last number that has a name and a name before it, and something behind it.
    let numbers = || (2..parts.len().saturating_sub(1)).rev();
    let number = |at: &usize| parts[*at].parse::<usize>().ok();
    if patterns.is_empty() {
        return numbers().find_map(|at| number(&at));
    }
    let named = |pattern: &Whole| numbers().find_map(|at| number(&at).filter(|_| pattern.matches(parts[at - 1])));
    patterns.iter().find_map(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_whole_names_as_in_python() {
        let matches = |expression: &str, name: &str| Whole::new(expression).unwrap().matches(name);
        assert!(matches(r".*\.layers\.[02]\.(self_attn\.q|mlp\.gate)_proj", "model.layers.2.mlp.gate_proj"));
        assert!(!matches(r".*\.q_proj", "model.q_proj.base"));
        assert!(matches("a|ab", "ab"), "whole names are matched, not the first alternative");
        assert!(!matches(r"(([a-z_.0-9])+)+!", &"a".repeat(10_000)), "in linear time");
        let ending = |expression: &str, name: &str| Whole::ending(expression).unwrap().matches(name);
        assert!(ending("q_proj", "layers.0.q_proj") && ending("q_proj", "q_proj") && !ending("q_proj", "xq_proj"));
    }

    #[test]
    fn what_python_reads_in_another_way_is_refused() {
        let refused = |expression: &str| Whole::new(expression).unwrap_err();
        assert!(refused("(q_proj").contains("unclosed group"), "{}", refused("(q_proj"));
        assert!(refused("a)(b").contains("unopened group"), "{}", refused("a)(b"));
        assert!(refused("(?!x)q").contains("look-around"), "{}", refused("(?!x)q"));
        assert!(refused(r"(a)\1").contains("backreferences"), "{}", refused(r"(a)\1"));
        assert!(refused("[a-z&&q]").contains("&&"));
        assert!(refused(&"a".repeat(20_000)).contains("at most"));
        assert!(refused("(a{1000}){1000}").contains("size limit"), "{}", refused("(a{1000}){1000}"));
    }

    #[test]
    fn layers_are_told_by_the_number_in_a_name() {
        let patterns = |names: &[&str]| names.iter().map(|name| Whole::new(name).unwrap()).collect::<Vec<_>>();
        assert_eq!(layer_of("model.layers.7.mlp.up_proj", &[]), Some(7));
        assert_eq!(layer_of("model.layers.7.mlp.up_proj", &patterns(&["h", "layers"])), Some(7));
        assert_eq!(layer_of("model.layers.7.mlp.up_proj", &patterns(&["h"])), None);
        assert_eq!(layer_of("model.embed_tokens", &[]), None);
    }
}
