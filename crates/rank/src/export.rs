//! Votes → the formats that Kudos and others read. Every export is a function of the database alone.
//!
//! | format | rows |
//! |---|---|
//! | ranked | `prompt, answer, rank`: the consensus, one row a response |
//! | groups | `prompt, responses, comparisons`: each two responses with the share of votes |
//! | pairs | `prompt, chosen, rejected, weight`: TRL's |
//! | votes | every vote as it was given, those that were withdrawn among them |

use crate::merge::{Label, Labels, MergeSettings, Preference};
use crate::queue::parsed;
use crate::{Store, StoreError, Vote};
use kudos::data::Content;
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

/// A row of an output file.
pub type Row = Map<String, Value>;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One row a response, with its place in the consensus.
    Ranked,
    /// One row an item, with the share of votes of each two responses.
    Groups,
    /// One row a preference.
    Pairs,
    /// One row a vote.
    Votes,
}

/// An item with all that the file said of it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its number.
    pub item: i64,
    /// What was asked.
    pub prompt: Option<Content>,
    /// Its responses, in the order of the file.
    pub responses: Vec<StoredResponse>,
}

/// A response with all that the file said of it.
#[derive(Clone, Debug)]
pub struct StoredResponse {
    /// Its number.
    pub response: i64,
    /// Its text or messages.
    pub content: Content,
    /// Characters.
    pub chars: usize,
    /// Ratings of the file.
    pub attributes: Option<Value>,
    /// Other columns of its row.
    pub extra: Row,
}

/// What the file said of the order in each item that it judged: preferences by place.
pub(crate) fn given_orders(connection: &Connection) -> rusqlite::Result<HashMap<i64, Vec<Preference>>> {
    orders(connection, "item > ?1", 0)
}

/// The same of one item.
pub(crate) fn orders_of_item(connection: &Connection, item: i64) -> rusqlite::Result<Vec<Preference>> {
    Ok(orders(connection, "item = ?1", item)?.remove(&item).unwrap_or_default())
}

fn orders(connection: &Connection, condition: &str, item: i64) -> rusqlite::Result<HashMap<i64, Vec<Preference>>> {
    let mut orders: HashMap<i64, Vec<Preference>> = HashMap::new();
    let sql = format!("SELECT item, first, second, target FROM given WHERE {condition} ORDER BY given");
    let mut rows = connection.prepare(&sql)?;
    let row = |row: &rusqlite::Row| {
        Ok((row.get(0)?, (row.get::<_, i64>(1)? as usize, row.get::<_, i64>(2)? as usize, row.get(3)?)))
    };
    for row in rows.query_map([item], row)? {
        let (item, preference) = row?;
        orders.entry(item).or_default().push(preference);
    }
    let sql =
        format!("SELECT item, place, rank FROM response WHERE {condition} AND rank IS NOT NULL ORDER BY item, place");
    let mut rows = connection.prepare(&sql)?;
    let mut ranks: BTreeMap<i64, Vec<(usize, f64)>> = BTreeMap::new();
    for row in rows.query_map([item], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as usize, row.get(2)?)))? {
        let (item, place, rank) = row?;
        ranks.entry(item).or_default().push((place, rank));
    }
    for (item, ranks) in ranks {
        let pairs = ranks.iter().enumerate().flat_map(|(at, a)| ranks[at + 1..].iter().map(move |b| (a, b)));
        let target = |a: f64, b: f64| {
            if a < b {
                1.0
            } else if a > b {
                0.0
            } else {
                0.5
            }
        };
        let said = pairs.map(|(a, b)| (a.0, b.0, target(a.1, b.1)));
        orders.entry(item).or_default().extend(said);
    }
    Ok(orders)
}

/// All items, in their order.
pub(crate) fn items(connection: &Connection) -> rusqlite::Result<Vec<Stored>> {
    let mut rows = connection.prepare("SELECT item, prompt FROM item ORDER BY item")?;
    let mut items: Vec<Stored> = rows
        .query_map([], |row| {
            let prompt = row.get::<_, Option<String>>(1)?.map(|text| parsed(1, &text)).transpose()?;
            Ok(Stored { item: row.get(0)?, prompt, responses: Vec::new() })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let at: HashMap<i64, usize> = items.iter().enumerate().map(|(at, item)| (item.item, at)).collect();
    let sql = "SELECT item, response, content, chars, attributes, extra FROM response ORDER BY item, place";
    let mut rows = connection.prepare(sql)?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let text = |column: usize| row.get::<_, Option<String>>(column);
        let response = StoredResponse {
            response: row.get(1)?,
            content: parsed(2, row.get_ref(2)?.as_str()?)?,
            chars: row.get::<_, i64>(3)? as usize,
            attributes: text(4)?.map(|text| parsed(4, &text)).transpose()?,
            extra: text(5)?.map(|text| parsed(5, &text)).transpose()?.unwrap_or_default(),
        };
        items[at[&row.get::<_, i64>(0)?]].responses.push(response);
    }
    Ok(items)
}

/// The rows of an export, with what is to be said of it.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// In the order of the items, or of the votes.
    pub rows: Vec<Row>,
    /// How votes were merged, and what could not be written: a sentence each.
    pub notes: Vec<String>,
}

impl Store {
    /// The rows of a format. Items without a vote make none, except with `all`, in groups.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn export(&self, format: Format, merge: &MergeSettings, all: bool) -> Result<Export, StoreError> {
        let names: BTreeMap<i64, String> = self.annotators()?.into_iter().map(|(id, name)| (id.0, name)).collect();
        if format == Format::Votes {
            let (items, votes) = (self.query(items)?, self.votes()?);
            return Ok(Export { rows: vote_rows(&items, &votes, &names), notes: Vec::new() });
        }
        let (items, votes) = self.query(|connection| Ok((items(connection)?, crate::votes::standing(connection)?)))?;
        let labels = Labels::of(&votes, merge);
        let mut notes = vec![labels.describe(&names)];
        let rows = match format {
            Format::Ranked => ranked_rows(&items, &labels, &mut notes),
            Format::Groups => items.iter().flat_map(|item| group_rows(item, &labels, all)).collect(),
            Format::Pairs | Format::Votes => items.iter().flat_map(|item| pair_rows(item, &labels)).collect(),
        };
        Ok(Export { rows, notes })
    }
}

/// The columns of a row beside ours. One of a name that means something is kept as `input_NAME`.
fn beside(extra: &Row, ours: &[&str]) -> Row {
    kudos::data::beside(extra.clone(), &[&kudos::data::MEANT, ours].concat())
}

/// What all responses of an item have in common.
fn shared(item: &Stored) -> Row {
    let (first, others) = item.responses.split_first().expect("an item has two responses");
    let is_shared = |(name, value): &(&String, &Value)| others.iter().all(|r| r.extra.get(*name) == Some(value));
    first.extra.iter().filter(is_shared).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn put_prompt(row: &mut Row, item: &Stored) {
    if let Some(prompt) = &item.prompt {
        row.insert("prompt".into(), prompt.to_value());
    }
}

fn ranked_rows(items: &[Stored], labels: &Labels, notes: &mut Vec<String>) -> Vec<Row> {
    let (mut rows, mut unplaced, mut unwritten) = (Vec::new(), 0, 0);
    for item in items {
        let Some(ranks) = labels.ranks(item.item, item.responses.len()) else { continue };
        if item.prompt.is_none() {
            unwritten += 1;
            continue;
        }
        unplaced += ranks.iter().filter(|rank| rank.is_none()).count();
        for (response, rank) in item.responses.iter().zip(ranks) {
            let mut row = beside(&response.extra, &[]);
            put_prompt(&mut row, item);
            row.insert("answer".into(), response.content.to_value());
            row.insert("rank".into(), rank.into());
            rows.push(row);
        }
    }
    if unplaced > 0 {
        notes.push(format!(
            "{unplaced} responses that nobody placed have no rank; --format groups says also what they lost to"
        ));
    }
    if unwritten > 0 {
        notes.push(format!("{unwritten} items without a prompt cannot be written as ranked rows; use --format groups"));
    }
    rows
}

/// One row; of whole transcripts, which no group row can hold, one row for each two responses.
fn group_rows(item: &Stored, labels: &Labels, all: bool) -> Vec<Row> {
    let merged = labels.of_item(item.item);
    let extra = beside(&shared(item), &[]);
    match item.prompt {
        None => merged.iter().map(|label| transcripts_row(item, label, extra.clone())).collect(),
        Some(_) if merged.is_empty() && !all => Vec::new(),
        Some(_) => vec![group_row(item, merged, extra)],
    }
}

fn group_row(item: &Stored, merged: &[Label], mut row: Row) -> Row {
    put_prompt(&mut row, item);
    let response = |response: &StoredResponse| {
        let mut fields = Map::from_iter([("text".to_owned(), response.content.to_value())]);
        fields.extend(response.attributes.clone().map(|ratings| ("attributes".to_owned(), ratings)));
        Value::Object(fields)
    };
    row.insert("responses".into(), item.responses.iter().map(response).collect());
    let comparison = |label: &Label| json!({"first": label.first, "second": label.second, "target": label.target, "votes": label.votes});
    if !merged.is_empty() {
        row.insert("comparisons".into(), merged.iter().map(comparison).collect());
    }
    row
}

fn transcripts_row(item: &Stored, label: &Label, mut row: Row) -> Row {
    row.insert("response_a".into(), item.responses[label.first].content.to_value());
    row.insert("response_b".into(), item.responses[label.second].content.to_value());
    row.insert("label".into(), label.target.into());
    row.insert("votes".into(), label.votes.into());
    row
}

fn pair_rows(item: &Stored, labels: &Labels) -> Vec<Row> {
    let shared = beside(&shared(item), &[]);
    let pair = |label: &Label| {
        let (better, worse, share) = match label.target {
            share if share > 0.5 => (label.first, label.second, share),
            share if share < 0.5 => (label.second, label.first, 1.0 - share),
            _ => return None,
        };
        let mut row = shared.clone();
        put_prompt(&mut row, item);
        row.insert("chosen".into(), item.responses[better].content.to_value());
        row.insert("rejected".into(), item.responses[worse].content.to_value());
        row.insert("share".into(), share.into());
        row.insert("votes".into(), label.votes.into());
        Some(row)
    };
    labels.of_item(item.item).iter().filter_map(pair).collect()
}

fn vote_rows(items: &[Stored], votes: &[Vote], names: &BTreeMap<i64, String>) -> Vec<Row> {
    let at: HashMap<i64, &Stored> = items.iter().map(|item| (item.item, item)).collect();
    votes.iter().filter_map(|vote| at.get(&vote.item.0).map(|item| vote_row(item, vote, names))).collect()
}

fn vote_row(item: &Stored, vote: &Vote, names: &BTreeMap<i64, String>) -> Row {
    const OURS: [&str; 9] = ["vote", "item", "shown", "repeat", "flags", "comment", "skipped", "seconds", "stored_at"];
    let mut row = beside(&shared(item), &OURS);
    let mut put = |name: &str, value: Value| {
        row.insert(name.to_owned(), value);
    };
    put("vote", vote.vote.as_str().into());
    put("annotator", names.get(&vote.annotator.0).cloned().into());
    put("item", vote.item.0.into());
    if let Some(prompt) = &item.prompt {
        put("prompt", prompt.to_value());
    }
    put("responses", item.responses.iter().map(|response| response.content.to_value()).collect());
    put("ranks", json!(vote.ranks));
    put("shown", json!(vote.shown));
    put("repeat", vote.repeat.into());
    put("ratings", json!(vote.ratings));
    put("flags", json!(vote.flags));
    put("comment", vote.comment.clone().into());
    put("skipped", vote.skipped.clone().into());
    put("seconds", vote.seconds.into());
    put("stored_at", vote.stored_at.as_str().into());
    put("withdrawn_at", vote.withdrawn_at.clone().into());
    row
}
