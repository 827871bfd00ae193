//! Names of the columns that `score` and `best` add to rows, none of which the input has.

use anyhow::bail;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// What stands before the name of a column that the input has already.
const OURS: &str = "kudos_";

/// The added columns of one output. A column keeps its name for the whole output.
pub struct Added {
    /// Given by hand: stands before every name.
    prefix: Option<String>,
    /// Columns of the input.
    taken: HashSet<String>,
    names: HashMap<String, String>,
    notes: Vec<String>,
}

impl Added {
    /// Names beside these columns of the input.
    pub fn beside(taken: HashSet<String>, prefix: Option<&str>) -> Self {
        Added { prefix: prefix.map(str::to_owned), taken, names: HashMap::new(), notes: Vec::new() }
    }

    /// Takes note of the columns of a row whose file could not be looked through before.
    ///
    /// # Errors
    /// If an added column has such a name already.
    pub fn meet(&mut self, row: &Map<String, Value>) -> anyhow::Result<()> {
        for column in row.keys().filter(|column| !self.taken.contains(*column)).collect::<Vec<_>>() {
            if self.names.values().any(|name| name == column) {
                bail!(
                    "column `{column}`: expected the columns of the rows before, found one named as what is written \
                     beside them; give --prefix {OURS}"
                );
            }
            self.taken.insert(column.clone());
        }
        Ok(())
    }

    /// The name of an added column: its own, with the prefix that was given, or, where the input has that, the next that is
    /// free of `kudos_NAME`, `kudos_NAME_2`, ….
    pub fn name(&mut self, column: &str) -> String {
        if let Some(name) = self.names.get(column) {
            return name.clone();
        }
        let wished = format!("{}{column}", self.prefix.as_deref().unwrap_or_default());
        let stem = if self.prefix.is_some() { wished.clone() } else { format!("{OURS}{column}") };
        let name = self.free([wished.clone(), stem.clone()].into_iter(), &stem);
        if name != wished {
            self.notes.push(format!("the input has a column `{wished}`, so the judge's is written as `{name}`"));
        }
        self.names.insert(column.to_owned(), name.clone());
        name
    }

    /// The name of a column of the input whose own name the output needs for another: `input_NAME`, or the next that is free.
    pub fn input_name(&mut self, column: &str) -> String {
        let stem = format!("input_{column}");
        if let Some(name) = self.names.get(&stem) {
            return name.clone();
        }
        let name = self.free([stem.clone()].into_iter(), &stem);
        self.notes.push(format!("the input's column `{column}` is written as `{name}`"));
        self.names.insert(stem, name.clone());
        name
    }

    /// The first name that is free: of the candidates, and then of `stem_2`, `stem_3`, ….
    fn free(&self, candidates: impl Iterator<Item = String>, stem: &str) -> String {
        let is_free = |name: &String| !self.taken.contains(name) && !self.names.values().any(|known| known == name);
        let numbered = (2..).map(|n| format!("{stem}_{n}"));
        candidates.chain(numbered).find(is_free).expect("numbers do not end")
    }

    /// What was not said yet of names that are not as wished.
    pub fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(taken: &[&str], prefix: Option<&str>) -> Added {
        Added::beside(taken.iter().map(|name| name.to_string()).collect(), prefix)
    }

    #[test]
    fn f5_names_are_free() {
        let cases: [(&[&str], Option<&str>, &str, usize); 7] = [
            (&["prompt"], None, "score", 0),
            (&["score"], None, "kudos_score", 1),
            (&["score", "kudos_score"], None, "kudos_score_2", 1),
            (&["score", "kudos_score", "kudos_score_2"], None, "kudos_score_3", 1),
            (&["score"], Some("old_"), "old_score", 0),
            (&["score", "old_score"], Some("old_"), "old_score_2", 1),
            (&["score"], Some(""), "score_2", 1),
        ];
        for (taken, prefix, expected, notes) in cases {
            let mut added = added(taken, prefix);
            assert_eq!((added.name("score").as_str(), added.name("score").as_str()), (expected, expected));
            assert_eq!((added.notes().len(), added.notes().len()), (notes, 0), "said once");
        }
        let mut two = added(&["score"], None);
        assert_eq!((two.name("score"), two.name("kudos_score")), ("kudos_score".into(), "kudos_kudos_score".into()));
    }

    #[test]
    fn a_column_that_comes_too_late_is_an_error() {
        let mut added = added(&[], None);
        let row = |name: &str| Map::from_iter([(name.to_owned(), Value::Null)]);
        added.meet(&row("score")).unwrap();
        assert_eq!((added.name("score"), added.name("tokens")), ("kudos_score".into(), "tokens".into()));
        added.meet(&row("score")).unwrap();
        let error = added.meet(&row("tokens")).unwrap_err().to_string();
        assert!(error.contains("column `tokens`") && error.contains("--prefix"), "{error}");
    }
}
