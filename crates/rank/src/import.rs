//! Groups of a data file → items to rank.
//!
//! An item is a prompt with 2 to 16 responses that differ. What the file says of their order is kept beside, for review, and
//! is no vote. A judgement of two responses (a pair, a comparison) is an item of its own: what is reviewed is that judgement.

use crate::{Store, StoreError};
use kudos::data::{Comparison, Content, Group, Judged, Kind, Loaded, Response};
use rusqlite::{OptionalExtension, Transaction};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Responses of an item, at least and at most.
pub const RESPONSES: std::ops::RangeInclusive<usize> = 2..=16;

/// The file that the groups come from.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportSource {
    /// The name that the user gave.
    pub file: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// What may come into a database that holds items already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Import {
    /// The same files again, from which nothing is new.
    New,
    /// The items that are new.
    Add,
}

/// What came in, and what did not.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct ImportReport {
    /// Items that are new.
    pub items: usize,
    /// Their responses.
    pub responses: usize,
    /// Judgements of the file, kept for review.
    pub judgements: usize,
    /// Items that were there already.
    pub known: usize,
    /// Items whose prompt was there already with other responses.
    pub other_responses: usize,
    /// Prompts left out: fewer than two responses that differ.
    pub too_few: usize,
    /// Prompts left out: more than 16 responses.
    pub too_many: usize,
    /// Responses left out: nothing to read.
    pub empty: usize,
    /// Responses left out: the same as one before.
    pub identical: usize,
}

impl ImportReport {
    /// What was left out, and why, in words; `None` if nothing was.
    pub fn left_out(&self) -> Option<String> {
        let counts = [
            (self.too_few, "prompts with fewer than 2 different responses"),
            (self.too_many, "prompts with more than 16 responses"),
            (self.empty, "empty responses"),
            (self.identical, "responses that are the same as another"),
        ];
        let said: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        (!said.is_empty()).then(|| said.join(", "))
    }
}

/// An item before it is stored.
struct Item<'a> {
    group: &'a Group,
    kind: Kind,
    /// Indices into the group's responses.
    responses: Vec<usize>,
    /// Indices into the group's comparisons.
    judgements: Vec<usize>,
}

impl Store {
    /// Takes in the groups of a file, all or nothing. The file itself is never touched.
    ///
    /// # Errors
    /// If the file is another one than was imported (with [`Import::New`]), holds nothing to rank, or the database cannot be
    /// written.
    pub fn import(&self, loaded: &Loaded, source: &ImportSource, mode: Import) -> Result<ImportReport, StoreError> {
        let known = self.query(|connection| {
            let same =
                "SELECT (SELECT count(*) FROM source WHERE sha256 = ?1), (SELECT count(*) FROM source WHERE file = ?2),
                (SELECT count(*) FROM source)";
            let count = |row: &rusqlite::Row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
            connection.query_row(same, (&source.sha256, &source.file), count)
        })?;
        let changed =
            |change| Err(StoreError::Changed { path: self.path().to_owned(), file: source.file.clone(), change });
        match (known, mode) {
            ((1.., _, _), Import::New) => {}
            ((0, 1.., _), Import::New) => return changed("has changed since"),
            ((0, 0, 1..), Import::New) => return changed("was never imported"),
            _ => {}
        }
        let mut report = ImportReport::default();
        let items = items(loaded, &mut report);
        if items.is_empty() && mode == Import::New {
            let why = report.left_out().unwrap_or_else(|| "no row could be read".to_owned());
            return Err(StoreError::NothingToRank { file: source.file.clone(), why });
        }
        self.write(|change, queue, _| {
            let first = Inserting::new(change, source)?.all(&items, &mut report)?;
            Ok(queue.add_items(change, first)?)
        })?;
        Ok(report)
    }
}

fn items<'a>(loaded: &'a Loaded, report: &mut ImportReport) -> Vec<Item<'a>> {
    let mut items = Vec::with_capacity(loaded.groups.len());
    for (group, origin) in loaded.groups.iter().zip(&loaded.origins) {
        let readable = readable(group, report);
        match origin.kind {
            Kind::Pairs | Kind::Comparisons => judged_items(group, origin.kind, &readable, &mut items, report),
            kind => items.extend(whole_item(group, kind, &readable, report)),
        }
    }
    items
}

/// For each response of the group, the first that reads the same, if it is one to show.
fn readable(group: &Group, report: &mut ImportReport) -> Vec<Option<usize>> {
    let alike = group.first_alike();
    let of = |(r, response): (usize, &Response)| {
        if response.content.is_blank() {
            report.empty += 1;
            return None;
        }
        report.identical += usize::from(alike[r] != r);
        Some(alike[r])
    };
    group.responses.iter().enumerate().map(of).collect()
}

fn whole_item<'a>(
    group: &'a Group,
    kind: Kind,
    readable: &[Option<usize>],
    report: &mut ImportReport,
) -> Option<Item<'a>> {
    let own = |r: &usize| readable[*r] == Some(*r);
    let responses: Vec<usize> = (0..group.responses.len()).filter(own).collect();
    report.too_few += usize::from(responses.len() < *RESPONSES.start());
    report.too_many += usize::from(responses.len() > *RESPONSES.end());
    // A ranking's comparisons follow from the ranks, which stand with the responses.
    let judgements = (0..group.judged.len()).collect();
    RESPONSES.contains(&responses.len()).then_some(Item { group, kind, responses, judgements })
}

/// Each two responses that were compared are an item; several judgements of the same two are one.
fn judged_items<'a>(
    group: &'a Group,
    kind: Kind,
    readable: &[Option<usize>],
    items: &mut Vec<Item<'a>>,
    report: &mut ImportReport,
) {
    let mut of_pair: HashMap<[usize; 2], usize> = HashMap::new();
    for (c, comparison) in group.comparisons.iter().enumerate() {
        let sides = [readable[comparison.first], readable[comparison.second]];
        let [Some(first), Some(second)] = sides else {
            report.too_few += 1;
            continue;
        };
        if first == second {
            report.too_few += 1;
            continue;
        }
        let at = *of_pair.entry([first.min(second), first.max(second)]).or_insert(items.len());
        if at == items.len() {
            items.push(Item { group, kind, responses: vec![first, second], judgements: Vec::new() });
        }
        items[at].judgements.push(c);
    }
}

/// What makes two items one: the prompt, and the responses in any order, each as JSON.
fn key(prompt: Option<&String>, responses: &[String]) -> [u8; 32] {
    let mut texts: Vec<&str> = responses.iter().map(String::as_str).collect();
    texts.sort_unstable();
    let mut digest = Sha256::new();
    for text in std::iter::once(prompt.map_or("", String::as_str)).chain(texts) {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    }
    digest.finalize().into()
}

fn json(content: &Content) -> String {
    content.to_value().to_string()
}

/// The statements of one import.
struct Inserting<'a> {
    change: &'a Transaction<'a>,
    source: i64,
    item: rusqlite::CachedStatement<'a>,
    response: rusqlite::CachedStatement<'a>,
    given: rusqlite::CachedStatement<'a>,
}

impl<'a> Inserting<'a> {
    fn new(change: &'a Transaction<'a>, source: &ImportSource) -> rusqlite::Result<Self> {
        let known = change.query_row("SELECT source FROM source WHERE sha256 = ?1", [&source.sha256], |row| row.get(0));
        let number = match known.optional()? {
            Some(number) => number,
            None => {
                let new = "INSERT INTO source (file, sha256, imported_at)
                    VALUES (?1, ?2, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))";
                change.execute(new, (&source.file, &source.sha256))?;
                change.last_insert_rowid()
            }
        };
        let item = "INSERT INTO item (source, line, key, prompt, kind) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT (key) DO NOTHING";
        let response = "INSERT INTO response (item, place, content, chars, rank, score, attributes, extra)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let given = "INSERT INTO given (item, first, second, target, margin, weight, line, voter, extra)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        Ok(Inserting {
            change,
            source: number,
            item: change.prepare_cached(item)?,
            response: change.prepare_cached(response)?,
            given: change.prepare_cached(given)?,
        })
    }

    /// Stores the items that are new; returns the highest number of an item before.
    fn all(mut self, items: &[Item], report: &mut ImportReport) -> rusqlite::Result<i64> {
        let last = "SELECT coalesce(max(item), 0) FROM item";
        let before: i64 = self.change.query_row(last, [], |row| row.get(0))?;
        let prompts = self.known_prompts()?;
        for item in items {
            let prompt = item.group.prompt.as_ref().map(json);
            let contents: Vec<String> =
                item.responses.iter().map(|r| json(&item.group.responses[*r].content)).collect();
            let line = item.responses.iter().map(|r| item.group.responses[*r].location.line).min().unwrap_or(0);
            let kind = format!("{:?}", item.kind).to_lowercase();
            let new = self.item.execute((self.source, line as i64, key(prompt.as_ref(), &contents), &prompt, kind))?;
            if new == 0 {
                report.known += 1;
                continue;
            }
            report.items += 1;
            report.other_responses += usize::from(prompt.is_some_and(|prompt| prompts.contains(&prompt)));
            self.contents(item, self.change.last_insert_rowid(), &contents, report)?;
        }
        Ok(before)
    }

    fn known_prompts(&self) -> rusqlite::Result<std::collections::HashSet<String>> {
        let mut prompts = self.change.prepare("SELECT DISTINCT prompt FROM item WHERE prompt IS NOT NULL")?;
        prompts.query_map([], |row| row.get(0))?.collect()
    }

    fn contents(
        &mut self,
        item: &Item,
        number: i64,
        contents: &[String],
        report: &mut ImportReport,
    ) -> rusqlite::Result<()> {
        for (place, (r, content)) in item.responses.iter().zip(contents).enumerate() {
            let response = &item.group.responses[*r];
            let attributes =
                (!response.attributes.is_empty()).then(|| serde_json::json!(response.attributes).to_string());
            let extra = (!response.extra.is_empty()).then(|| Value::Object((*response.extra).clone()).to_string());
            let chars = response.content.chars() as i64;
            let given = (response.rank, response.score);
            self.response.execute((number, place as i64, content, chars, given.0, given.1, attributes, extra))?;
            report.responses += 1;
            report.judgements += usize::from(response.rank.is_some());
        }
        for c in &item.judgements {
            let stored = self.judgement(item, number, &item.group.comparisons[*c], &item.group.judged[*c])?;
            report.judgements += usize::from(stored);
        }
        Ok(())
    }

    /// Stores a judgement; false for one of responses that are the same, or are not among those of the item.
    fn judgement(&mut self, item: &Item, number: i64, verdict: &Comparison, row: &Judged) -> rusqlite::Result<bool> {
        let alike = |r: usize| item.group.responses[r].content.reading(kudos::data::ASSISTANT);
        let place = |r: usize| item.responses.iter().position(|known| alike(*known) == alike(r));
        let (Some(first), Some(second)) = (place(verdict.first), place(verdict.second)) else { return Ok(false) };
        if first == second {
            return Ok(false);
        }
        let extra = (!row.extra.is_empty()).then(|| Value::Object((*row.extra).clone()).to_string());
        let [target, margin, weight] = [verdict.target, verdict.margin, verdict.weight].map(f64::from);
        let values = (number, first as i64, second as i64, target, margin, weight, row.location.line as i64);
        self.given.execute(rusqlite::params![
            values.0,
            values.1,
            values.2,
            values.3,
            values.4,
            values.5,
            values.6,
            row.voter.as_deref(),
            extra
        ])?;
        Ok(true)
    }
}
