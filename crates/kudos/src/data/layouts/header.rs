//! The names of a file's columns → the layout that its rows have.

use super::{Layout, Read, Refusal, own, table, wide};
use crate::data::content::shorten;
use crate::data::mapping::{Mapping, Source};
use std::collections::HashMap;

/// Columns of answers, each with that of its place.
type WideColumns = Vec<(String, String)>;

/// The columns of a file, under the names that layouts have for them.
pub(super) struct Header<'a> {
    names: &'a [&'a str],
    /// Names without case, blanks, `_` and `-` → those that the file has.
    squashed: HashMap<String, Vec<&'a str>>,
    /// True for an export whose columns begin with `Input.` and `Answer.`.
    has_prefixes: bool,
}

/// The columns that mark an export of Mechanical Turk.
const MTURK: [&str; 2] = ["HITId", "AssignmentStatus"];
/// What its columns of data begin with.
const PREFIXES: [&str; 2] = ["Input.", "Answer."];

/// Columns that say whose ranking a row belongs to.
const RANKERS: [&str; 13] = [
    "annotator",
    "annotator_id",
    "worker",
    "worker_id",
    "user",
    "user_id",
    "judge",
    "judge_id",
    "session",
    "session_id",
    "labeler",
    "rater",
    "_annotator_id",
];

/// A name without what people vary in it.
pub(super) fn squash(name: &str) -> String {
    name.chars().filter(|c| !c.is_whitespace() && !"_-".contains(*c)).flat_map(char::to_lowercase).collect()
}

impl<'a> Header<'a> {
    pub fn new(names: &'a [&'a str], mapping: &Mapping) -> Result<Self, Refusal> {
        let has_prefixes = MTURK.iter().all(|column| names.contains(column));
        let mut squashed: HashMap<String, Vec<&str>> = HashMap::new();
        for name in names {
            let bare = PREFIXES.iter().filter(|_| has_prefixes).find_map(|prefix| name.strip_prefix(prefix));
            squashed.entry(squash(bare.unwrap_or(name))).or_default().push(name);
        }
        let header = Header { names, squashed, has_prefixes };
        let sources = mapping.columns().iter().map(|(_, source)| source).chain(mapping.group_by());
        for source in sources {
            // A verdict may be one that a layout knows by a name of its own.
            let is_verdict = mapping.verdict() == Some(source);
            if header.column_of(source).is_none() && !is_verdict {
                return Err(header.no_column(source));
            }
        }
        Ok(header)
    }

    fn no_column(&self, source: &Source) -> Refusal {
        Refusal::NoColumn { name: source.path().to_owned(), found: quoted(&self.useful()) }
    }

    /// The file's column that a mapping begins with.
    pub fn column_of(&self, source: &Source) -> Option<String> {
        source.column(|name| self.names.contains(&name)).map(str::to_owned)
    }

    /// The file's name for a layout's column: the same, or the only one that differs in case, blanks, `_` and `-` alone.
    fn find(&self, column: &str) -> Option<&'a str> {
        if let Some(end) = column.strip_prefix('*') {
            return self.names.iter().copied().find(|name| name.len() > end.len() && name.ends_with(end));
        }
        if let Some(exact) = self.names.iter().copied().find(|name| *name == column) {
            return Some(exact);
        }
        match self.squashed.get(&squash(column)).map(Vec::as_slice) {
            Some([only]) => Some(only),
            _ => None,
        }
    }

    pub fn real(&self, column: &str) -> String {
        self.find(column).unwrap_or(column).to_owned()
    }

    fn has_all(&self, layout: &Layout) -> bool {
        // What is refused goes by its very names: `Timestamp` is a form's, `_timestamp` is not.
        let exact = matches!(layout.read, Read::Refused(_));
        let has = |column: &str| if exact { self.names.contains(&column) } else { self.find(column).is_some() };
        layout.columns.iter().all(|column| has(column))
            && layout.unless.iter().all(|column| self.find(column).is_none())
    }

    /// The layout that fits, with the columns of a wide table.
    pub fn layout(&self, mapping: &Mapping) -> Result<(&'static Layout, WideColumns), Refusal> {
        if mapping.says_texts() {
            return Ok((self.mapped(mapping)?, Vec::new()));
        }
        let fits: Vec<&'static Layout> = table().filter(|layout| self.has_all(layout)).collect();
        let knows_more = |a: &Layout, b: &Layout| {
            a.columns.len() > b.columns.len() && b.columns.iter().all(|c| a.columns.contains(c))
        };
        let mut best: Vec<&'static Layout> =
            fits.iter().copied().filter(|layout| !fits.iter().any(|other| knows_more(other, layout))).collect();
        // A refusal, and rows without a verdict, give way to what has one.
        let has_verdict = best.iter().any(|layout| !layout.is_weak());
        best.retain(|layout| !has_verdict || !layout.is_weak());
        // Of our own kinds the first in the table is meant.
        let own = best.iter().copied().find(|layout| layout.name.is_empty());
        best.retain(|layout| !layout.name.is_empty() || own.is_some_and(|own| std::ptr::eq(own, *layout)));
        let wide = wide::columns(self.names);
        match (&best[..], wide) {
            ([], Some(columns)) => Ok((&wide::LAYOUT, columns)),
            ([], None) => {
                self.by_verdict(mapping).ok_or_else(|| self.unrecognised()).map(|layout| (layout, Vec::new()))
            }
            ([only], _) => Ok((self.by_verdict(mapping).unwrap_or(only), Vec::new())),
            ([first, second, ..], _) => Err(Refusal::Ambiguous { names: [first, second].map(|layout| layout.title()) }),
        }
    }

    /// The kind of our own that the user's columns and those under their own name make.
    fn mapped(&self, mapping: &Mapping) -> Result<&'static Layout, Refusal> {
        let has = |column: &str| mapping.source(column).is_some() || self.free(column, mapping);
        // What is mapped must be read: of the kinds that fit, the one that reads most of it.
        let reads = |layout: &Layout| mapping.columns().iter().filter(|(name, _)| layout.reads(name)).count();
        let fits = own::KINDS.iter().filter(|layout| layout.columns.iter().all(|column| has(column)));
        let best =
            fits.rev().max_by_key(|layout| reads(layout)).filter(|layout| reads(layout) == mapping.columns().len());
        best.ok_or_else(|| self.unmapped(mapping))
    }

    /// A column under its own name that the user has not given another.
    fn free(&self, column: &str, mapping: &Mapping) -> bool {
        let taken = |name: &str| mapping.columns().iter().any(|(_, source)| source.path() == name);
        self.find(column).is_some_and(|name| !taken(name))
    }

    /// Our own kind of a file that lacks nothing but the verdict, which the user names.
    fn by_verdict(&self, mapping: &Mapping) -> Option<&'static Layout> {
        let source = mapping.verdict()?;
        self.column_of(source)?;
        let has = |column: &str| mapping.source(column).is_some() || self.find(column).is_some();
        let name = mapping.columns().iter().find(|(_, known)| known == source).map(|(name, _)| name.as_str())?;
        own::KINDS
            .iter()
            .find(|layout| layout.columns.contains(&name) && layout.columns.iter().all(|column| has(column)))
    }

    /// The verdict's column where the user names one that the layout knows.
    pub fn verdict(&self, layout: &Layout, mapping: &Mapping) -> Result<Option<String>, Refusal> {
        let Some(source) = mapping.verdict() else { return Ok(None) };
        if matches!(layout.read, Read::Own(..)) {
            return if self.column_of(source).is_some() { Ok(None) } else { Err(self.no_column(source)) };
        }
        match layout.verdicts.iter().find(|known| squash(known) == squash(source.path())) {
            Some(known) => Ok(Some((*known).to_owned())),
            None => Err(Refusal::NoVerdict {
                column: source.path().to_owned(),
                layout: layout.name,
                known: if layout.verdicts.is_empty() { "its own alone".to_owned() } else { quoted(layout.verdicts) },
            }),
        }
    }

    /// Columns of the layout that stand elsewhere than under their name.
    pub fn aliases(&self, layout: &Layout, mapping: &Mapping) -> Vec<(String, Source)> {
        let is_own = matches!(layout.read, Read::Own(..));
        let mut aliases = if is_own { mapping.columns().to_vec() } else { Vec::new() };
        for column in layout.columns.iter().chain(layout.also).chain(layout.verdicts) {
            let known = aliases.iter().any(|(name, _)| name == column);
            if let Some(name) = self.find(column).filter(|name| name != column && !known && !column.starts_with('*')) {
                aliases.push((column.to_string(), Source::new(name)));
            }
        }
        aliases
    }

    pub fn ranker(&self, mapping: &Mapping, layout: &Layout) -> Option<(Source, bool)> {
        if let Some(source) = mapping.group_by() {
            return Some((source.clone(), true));
        }
        let is_own = matches!(layout.read, Read::Own(..));
        let held = |name: &&str| !layout.reads(name);
        let named = RANKERS.iter().filter(|_| is_own).find_map(|name| self.find(name)).filter(held);
        named.map(|name| (Source::new(name), false))
    }

    pub fn status(&self) -> Option<String> {
        self.has_prefixes.then(|| MTURK[1].to_owned())
    }

    /// The columns that may matter: those of an export that are its own bookkeeping come last.
    fn useful(&self) -> Vec<&'a str> {
        let data = |name: &str| !self.has_prefixes || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let (useful, rest): (Vec<&str>, Vec<&str>) = self.names.iter().partition(|name| data(name));
        [useful, rest].concat()
    }

    fn unmapped(&self, mapping: &Mapping) -> Refusal {
        let named: Vec<&str> = mapping.columns().iter().map(|(name, _)| name.as_str()).collect();
        let expected = format!("columns that make a kind of row with {} of --columns", quoted(&named));
        Refusal::Unrecognised { expected, found: quoted(&self.useful()), prompt: None }
    }

    /// Names the nearest layout: the one with the greatest share of its columns present.
    fn unrecognised(&self) -> Refusal {
        let missing = |layout: &'static Layout| -> Vec<&'static str> {
            layout.columns.iter().filter(|name| self.find(name).is_none()).copied().collect()
        };
        // Every kind has a prompt, so having one tells nothing.
        let share = |layout: &&'static Layout| {
            let telling = || layout.columns.iter().filter(|name| **name != "prompt");
            telling().filter(|name| self.find(name).is_some()).count() * 60 / telling().count().max(1)
        };
        let is_read = |layout: &&'static Layout| !matches!(layout.read, Read::Refused(_));
        // Of equal shares ours wins, and of those the first.
        let nearest = table().filter(is_read).fold(None, |best: Option<&'static Layout>, layout| match best {
            Some(known) if share(&known) >= share(&layout) => Some(known),
            _ => Some(layout),
        });
        let expected = match nearest.filter(|layout| share(layout) > 0) {
            Some(layout) => {
                format!(
                    "the columns {} ({}; missing: {})",
                    quoted(layout.columns),
                    layout.title(),
                    quoted(&missing(layout))
                )
            }
            None => "the columns prompt, answer, rank, or prompt, chosen, rejected, or prompt, response_a, \
                     response_b, label, or prompt, responses, or prompt, response"
                .to_owned(),
        };
        let found = if self.names.is_empty() { "none".to_owned() } else { quoted(&self.useful()) };
        let lacks_prompt = nearest.is_some_and(|layout| missing(layout) == ["prompt"]);
        let likely = own::PROMPTS.iter().filter(|_| lacks_prompt).find_map(|name| self.find(name));
        Refusal::Unrecognised { expected, found, prompt: likely.map(str::to_owned) }
    }
}

const NAMES_SHOWN: usize = 12;

fn quoted(names: &[&str]) -> String {
    let mut list: Vec<String> = names.iter().take(NAMES_SHOWN).map(|name| format!("`{}`", shorten(name))).collect();
    if names.len() > NAMES_SHOWN {
        list.push(format!("and {} more", names.len() - NAMES_SHOWN));
    }
    list.join(", ")
}
