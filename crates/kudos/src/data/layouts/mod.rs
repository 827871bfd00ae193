//! Which layout the rows of a file have: a table of what is published and exported, and the rule that picks an entry.
//!
//! An entry is a name, the columns that identify it, and a function row → records. Recognition is exact: all columns are there.
//! Where two entries fit, the one that knows more of the columns is meant; where neither knows more, the file is refused.

mod header;
mod own;
mod preferences;
mod rated;
mod refused;
mod threads;
mod tools;
mod trainers;
mod wide;

use super::cells::{Cells, View};
use super::content::shorten;
use super::error::ProblemKind;
use super::mapping::{Mapping, Source};
use super::record::{Kind, Record};
use header::{Header, squash};
use serde_json::Value;
use std::collections::BTreeSet;

pub(crate) use own::RATING;
pub(super) use threads::own_row;

/// What a row holds.
pub(super) enum Outcome {
    /// One record, or several: a thread with many replies, several people's rankings.
    Parts(Vec<Part>),
    /// No judgement, and why.
    Nothing(&'static str),
}

/// One record of a row.
pub(super) struct Part {
    pub record: Record,
    /// Whose ranking it belongs to: rankings of one prompt by two people are two.
    pub ranker: Option<String>,
}

impl From<Record> for Outcome {
    fn from(record: Record) -> Self {
        Outcome::Parts(vec![Part { record, ranker: None }])
    }
}

/// Reads a row.
pub(super) type ReadRow = fn(&Cells) -> Result<Outcome, ProblemKind>;

/// What is done with the rows of a layout.
#[derive(Clone, Copy, Debug)]
pub(super) enum Read {
    /// Rows of our own kind.
    Own(Kind, ReadRow),
    /// Rows of a published layout.
    Published(ReadRow),
    /// Nothing: why, and what to do.
    Refused(&'static str),
}

/// An entry of the table.
#[derive(Debug)]
pub(super) struct Layout {
    /// As people call it; empty for our own.
    pub name: &'static str,
    /// Columns that are all there. `*.x` is any column that ends with `.x`.
    pub columns: &'static [&'static str],
    /// Columns of which none is there.
    pub unless: &'static [&'static str],
    /// Further columns that are read where they are there.
    pub also: &'static [&'static str],
    /// Columns that can say which is better, where there are several; the first is the usual one.
    pub verdicts: &'static [&'static str],
    /// What the verdict is and which way it runs.
    pub said: &'static str,
    pub read: Read,
}

/// The verdicts of a layout of responses alone.
const NO_VERDICT: &[&str] = &["none"];

/// An entry with nothing beside its columns.
const PLAIN: Layout =
    Layout { name: "", columns: &[], unless: &[], also: &[], verdicts: &[], said: "", read: Read::Refused("") };

/// The names of the published layouts that are read, responses without a verdict aside.
pub fn layouts() -> Vec<&'static str> {
    let is_read = |layout: &&Layout| matches!(layout.read, Read::Published(_)) && layout.verdicts != NO_VERDICT;
    let mut names: Vec<&str> = table().chain([&wide::LAYOUT]).filter(is_read).map(|layout| layout.name).collect();
    names.dedup();
    names
}

/// All tables, ours first.
fn table() -> impl Iterator<Item = &'static Layout> {
    own::KINDS
        .iter()
        .chain(&preferences::TABLE)
        .chain(&rated::TABLE)
        .chain(&threads::TABLE)
        .chain(&trainers::TABLE)
        .chain(&tools::TABLE)
        .chain(&refused::TABLE)
}

/// How the rows of a file are read.
#[derive(Debug)]
pub(super) struct Plan {
    pub layout: &'static Layout,
    pub view: View,
    /// Columns (as the file calls them) that the records hold; all others are extra.
    held: BTreeSet<String>,
    /// The column that says whose ranking a row belongs to, and whether the user named it.
    pub ranker: Option<(Source, bool)>,
    /// True if the user says that a column holds ranks.
    pub ranks_are_said: bool,
    /// Rows of an assignment that was rejected are left out, where the file has such a column.
    pub status: Option<String>,
}

/// Why no layout can be had.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Refusal {
    /// No layout has these columns.
    Unrecognised {
        expected: String,
        found: String,
        /// The column that is likely the prompt, where nothing but that is missing.
        prompt: Option<String>,
    },
    /// Two have.
    Ambiguous { names: [String; 2] },
    /// A layout that cannot be used.
    Refused { name: &'static str, why: &'static str },
    /// The user named a column that is not there.
    NoColumn { name: String, found: String },
    /// The user named a column that the layout cannot go by.
    NoVerdict { column: String, layout: &'static str, known: String },
}

impl Plan {
    /// The layout of rows with these columns.
    pub fn of(names: &[&str], mapping: &Mapping, is_cell: bool) -> Result<Plan, Refusal> {
        let header = Header::new(names, mapping)?;
        let (layout, wide) = header.layout(mapping)?;
        if let Read::Refused(why) = layout.read {
            return Err(Refusal::Refused { name: layout.name, why });
        }
        let verdict = header.verdict(layout, mapping)?;
        let mut view =
            View { aliases: header.aliases(layout, mapping), labels: mapping.labels().to_vec(), ..View::default() };
        (view.verdict, view.wide, view.is_cell) = (verdict, wide, is_cell);
        let mut held: BTreeSet<String> =
            layout.columns.iter().chain(layout.also).map(|name| header.real(name)).collect();
        held.extend(view.aliases.iter().filter_map(|(_, source)| header.column_of(source)));
        held.extend(view.wide.iter().flat_map(|(answer, place)| [answer.clone(), place.clone()]));
        held.extend(view.verdict.iter().map(|column| header.real(column)));
        let (ranker, status) = (header.ranker(mapping, layout), header.status());
        Ok(Plan { ranker, ranks_are_said: mapping.source("rank").is_some(), status, layout, view, held })
    }

    /// True for columns that the records hold; all others are extra.
    pub fn holds(&self, column: &str) -> bool {
        self.held.contains(column) || (self.has_one_response() && column.starts_with(RATING))
    }

    /// As [`Self::holds`], for one row: an object `attributes` is held too, anything else of that name is extra.
    pub fn holds_value(&self, column: &str, value: &Value) -> bool {
        let is_object = || value.is_object() && super::integer::digits(value).is_none();
        self.holds(column) || (self.has_one_response() && column == own::ATTRIBUTES && is_object())
    }

    /// The kind of our own that the rows have.
    pub fn kind(&self) -> Option<Kind> {
        match self.layout.read {
            Read::Own(kind, _) => Some(kind),
            Read::Published(_) | Read::Refused(_) => None,
        }
    }

    fn has_one_response(&self) -> bool {
        matches!(self.kind(), Some(Kind::Ranked | Kind::Rated | Kind::Unlabelled))
    }

    /// What a row says.
    pub fn read(&self, cells: &Cells) -> Result<Outcome, ProblemKind> {
        match self.layout.read {
            Read::Own(_, read) | Read::Published(read) => read(cells),
            Read::Refused(why) => Ok(Outcome::Nothing(why)),
        }
    }

    /// The responses of a row whose verdict cannot be understood.
    pub fn read_without_label(&self, cells: &Cells) -> Result<Outcome, ProblemKind> {
        let view = View { labels: Vec::new(), ..cells.view.clone() };
        let mut fields = cells.fields.clone();
        let column = self.view.verdict.as_deref().unwrap_or("label");
        fields.insert(cells.name(column), Value::from("tie"));
        self.read(&Cells { fields: &fields, view: &view, memory: cells.memory })
    }

    /// True if rows of both may stand in one file: kinds of our own go together, and so do rows of one layout.
    pub fn goes_with(&self, other: &Plan) -> bool {
        let is_pair = |plan: &Plan| {
            plan.kind() == Some(Kind::Pairs) || [preferences::RATED_PAIRS, "RewardBench"].contains(&plan.layout.name)
        };
        self.layout.name == other.layout.name || (is_pair(self) && is_pair(other))
    }

    /// A CSV cell as the value its column calls for. Cells that do not parse stay text.
    pub fn type_cell(&self, column: &str, cell: String) -> Value {
        let Some(kind) = self.kind() else { return cell.into() };
        let named = self.view.aliases.iter().find(|(_, source)| source.path() == column);
        let name = named.map_or(column, |(name, _)| name.as_str());
        match name {
            own::ATTRIBUTES if self.has_one_response() && cell.starts_with('{') => json_cell(cell),
            _ if !self.holds(column) => cell.into(),
            _ if self.has_one_response() && name.starts_with(RATING) => number_cell(cell),
            "rank" | "rating" | "margin" | "weight" | "label" => number_cell(cell),
            "responses" | "comparisons" => json_cell(cell),
            // The one column that may say nothing: an empty cell is no prompt, where other texts are empty texts.
            "prompt" if kind == Kind::Pairs && cell.is_empty() => Value::Null,
            _ => messages_cell(cell),
        }
    }

    /// What the file is read as, in words; `None` for our own kinds under their own names.
    pub fn said(&self) -> Option<String> {
        let renamed = |(name, source): &(String, Source)| {
            (squash(name) != squash(source.path())).then(|| format!("{name} = `{}`", shorten(source.path())))
        };
        let mut words: Vec<String> = match self.kind() {
            Some(_) => self.view.aliases.iter().filter_map(renamed).collect(),
            None => Vec::new(),
        };
        if let Some(column) = &self.view.verdict {
            words.push(format!("by `{column}`, as asked"));
        } else if !self.layout.said.is_empty() {
            words.push(self.layout.said.to_owned());
        }
        match (self.layout.name, words.is_empty()) {
            ("", true) => None,
            ("", false) => Some(format!("{}: {}", self.layout.title(), words.join(", "))),
            (name, true) => Some(name.to_owned()),
            (name, false) => Some(format!("{name}: {}", words.join(", "))),
        }
    }
}

impl Layout {
    /// As messages call it.
    pub fn title(&self) -> String {
        match self.read {
            Read::Own(kind, _) => kind.to_string(),
            Read::Published(_) | Read::Refused(_) => self.name.to_owned(),
        }
    }

    /// True if it says nothing of which response is better.
    fn is_weak(&self) -> bool {
        matches!(self.read, Read::Own(Kind::Unlabelled, _) | Read::Refused(_)) || self.verdicts == NO_VERDICT
    }

    fn reads(&self, column: &str) -> bool {
        self.columns.contains(&column)
            || self.also.contains(&column)
            || column.starts_with(RATING)
            || column == own::ATTRIBUTES
    }
}

impl From<Refusal> for ProblemKind {
    fn from(refusal: Refusal) -> Self {
        let (expected, found) = refusal.sides();
        ProblemKind::Missing { expected, found }
    }
}

impl Refusal {
    /// What to do.
    pub fn advice(&self) -> String {
        match self {
            Refusal::Unrecognised { prompt: Some(column), .. } => {
                format!("is `{column}` the prompt? --columns prompt={column}")
            }
            Refusal::Unrecognised { .. } => {
                "rename the columns, or say which they are: --columns prompt=…,chosen=…,rejected=…".to_owned()
            }
            Refusal::Ambiguous { .. } => {
                "say which columns are meant: --columns prompt=…,chosen=…,rejected=…".to_owned()
            }
            Refusal::Refused { .. } => "nothing was read".to_owned(),
            Refusal::NoColumn { .. } | Refusal::NoVerdict { .. } => "correct the name".to_owned(),
        }
    }

    /// What was expected, and what was found.
    pub fn sides(self) -> (String, String) {
        match self {
            Refusal::Unrecognised { expected, found, .. } => (expected, found),
            Refusal::Ambiguous { names: [a, b] } => {
                ("the columns of one layout".to_owned(), format!("those of {a} and of {b}"))
            }
            Refusal::Refused { name, why } => ("preferences between responses".to_owned(), format!("{name}: {why}")),
            Refusal::NoColumn { name, found } => (format!("a column `{name}`, as asked"), found),
            Refusal::NoVerdict { column, layout, known } => {
                (format!("a column that {layout} can go by: {known}"), format!("`{column}`"))
            }
        }
    }
}

/// A cell that holds JSON; text where it does not parse.
fn json_cell(cell: String) -> Value {
    super::integer::parse(&cell).unwrap_or(Value::String(cell))
}

/// A cell that is the JSON of a list of messages is that list (this is how we write one to CSV).
fn messages_cell(cell: String) -> Value {
    let is_message = |turn: &Value| turn.get("role").is_some() && turn.get("content").is_some();
    let parsed = if cell.starts_with("[{") { super::integer::parse(&cell).ok() } else { None };
    match parsed {
        Some(Value::Array(turns)) if turns.iter().all(is_message) => Value::Array(turns),
        _ => Value::String(cell),
    }
}

fn number_cell(cell: String) -> Value {
    let trimmed = cell.trim();
    if trimmed.is_empty() {
        return Value::Null;
    }
    if let Ok(whole) = trimmed.parse::<i64>() {
        return whole.into();
    }
    let real = trimmed.parse().ok().and_then(serde_json::Number::from_f64);
    real.map_or(Value::String(cell), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::mapping::MappingText;

    fn plan(header: &str, mapping: &MappingText) -> Result<Plan, String> {
        let names: Vec<&str> = header.split(',').collect();
        let said = |refusal: Refusal| {
            let (expected, found) = refusal.sides();
            format!("expected {expected}, found {found}")
        };
        Plan::of(&names, &Mapping::parse(mapping).unwrap(), true).map_err(said)
    }

    #[test]
    fn what_a_header_is_read_as() {
        let cases = [
            ("prompt,answer,rank", "ranked responses"),
            (" Prompt,ANSWER,Rank", "ranked responses"),
            ("prompt,response,rating", "rated responses"),
            ("prompt,chosen,rejected", "pairs"),
            ("prompt,responses,chosen,rejected", "pairs"),
            ("Prompt,Response A,Response-B,label", "comparisons"),
            ("prompt,response_0,response_1,better_response_id,safer_response_id", "PKU-SafeRLHF"),
            ("question,chosen,rejected,system", "pairs under `question` (Orca, Axolotl intel)"),
            ("prompt,question,chosen,rejected", "pairs"),
            ("prompt,response,helpfulness,correctness,coherence,complexity,verbosity", "HelpSteer"),
            ("prompt,answer 1,answer 2,rank 1,rank 2", "a table with a row a prompt"),
            ("Timestamp,Which is better?", "nothing"),
        ];
        for (header, expected) in cases {
            let found = plan(header, &MappingText::default());
            match found {
                Ok(plan) => assert_eq!(plan.layout.title(), expected, "{header}"),
                Err(error) => assert!(expected == "nothing" && error.contains("Google Forms"), "{header}: {error}"),
            }
        }
    }

    #[test]
    fn what_fits_two_layouts_is_refused_with_both_names() {
        for (header, names) in [
            ("question,input,chosen,rejected", ["`question`", "`input`"]),
            ("question,answer_0,answer_1,score_0,response_j,response_k", ["WebGPT", "stack-exchange"]),
            ("prompt,answer,rank,response_0,response_1,better_response_id", ["PKU-SafeRLHF", "ranked responses"]),
        ] {
            let error = plan(header, &MappingText::default()).err().unwrap();
            assert!(error.contains("one layout") && names.iter().all(|name| error.contains(name)), "{header}: {error}");
        }
    }

    #[test]
    fn what_the_user_says_wins() {
        let text = |columns: &str| MappingText { columns: vec![columns.to_owned()], ..MappingText::default() };
        let read = |header, columns: &str| plan(header, &text(columns)).map(|plan| plan.layout.title());
        assert_eq!(
            read("q,left,right,vote", "prompt=q,response_a=left,response_b=right,label=vote").unwrap(),
            "comparisons"
        );
        assert_eq!(read("prompt,reply,stars", "answer=reply,rating=stars").unwrap(), "rated responses");
        assert_eq!(read("prompt,response,stars", "rating=stars").unwrap(), "rated responses");
        assert_eq!(read("question,chosen,rejected,ctx", "prompt=ctx").unwrap(), "pairs");
        let safer =
            plan("prompt,response_0,response_1,better_response_id,safer_response_id", &text("label=safer_response_id"));
        assert_eq!(safer.unwrap().view.verdict.as_deref(), Some("safer_response_id"));
        for (header, columns, expected) in [
            ("prompt,answer,rank", "prompt=question", "a column `question`, as asked"),
            ("prompt,response_0,response_1,better_response_id", "label=prompt_x", "can go by: `better_response_id`"),
            ("q,r", "prompt=q,margin=r", "make a kind of row with `prompt`, `margin`"),
        ] {
            let error = read(header, columns).unwrap_err();
            assert!(error.contains(expected), "{header} {columns}: {error}");
        }
    }

    #[test]
    fn long_names_are_shortened() {
        let long = "x".repeat(500);
        let names: Vec<&str> = vec![&long; 30];
        let (_, found) = Plan::of(&names, &Mapping::default(), false).err().unwrap().sides();
        assert!(found.len() < 700 && found.ends_with("and 18 more"), "{found}");
    }

    #[test]
    fn every_entry_can_be_told_from_the_others() {
        for layout in table() {
            let names: Vec<String> = layout.columns.iter().map(|name| name.replace('*', "q")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            match Plan::of(&names, &Mapping::default(), false) {
                Ok(plan) => assert_eq!(plan.layout.title(), layout.title(), "{names:?}"),
                Err(Refusal::Refused { name, .. }) => assert_eq!(name, layout.name),
                Err(other) => panic!("{names:?}: {other:?}"),
            }
        }
    }
}
