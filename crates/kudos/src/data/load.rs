//! Rows → [`Group`]s: what training and evaluation read.
//!
//! Within a file, ranked rows of one prompt are one group, and so are pair and comparison rows of one
//! prompt: there a response that stands in many rows is one [`Response`], found by its content. Prompts and
//! responses are one where their [readings](Content::reading) are, so that every rendering of the group is that of
//! each of its rows. Every unusable row is kept as a problem with its place; nothing is dropped in silence.

mod people;

use super::columns::{ends_with_a_question, unusable};
use super::error::{DataError, ProblemKind, RowProblem};
use super::group::{Attributes, Comparison, Extra, Group, Judged, Response};
use super::reader::{Options, Reader, Row};
use super::record::{ASSISTANT, Candidate, Content, Kind, Location, RankOrRating, Record, USER};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, Hash, RandomState};
use std::path::Path;
use std::sync::Arc;

/// More ranked responses to one prompt than this make more pairs than memory should hold.
const MAX_RANKED: usize = 4096;

/// All groups of some files, with what could not be used.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The groups, in the order of the files and of their first rows.
    pub groups: Vec<Group>,
    /// Where each group came from; parallel to `groups`.
    pub origins: Vec<Origin>,
    /// Rows (or responses of a row) that could not be used.
    pub problems: Vec<RowProblem>,
    /// What was read, file by file.
    pub files: Vec<FileInfo>,
}

/// Where a group came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// Index in [`Loaded::files`].
    pub file: usize,
    /// The kind of its first row.
    pub kind: Kind,
}

/// What one file holds.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct FileInfo {
    /// The file as the user named it.
    pub file: String,
    /// SHA-256 of the file as it lies on disk, in hexadecimal.
    pub sha256: String,
    /// The kind of its first usable row; `None` if it has none.
    pub kind: Option<Kind>,
    /// The published layout it was read as, or the columns that the user or the header's spelling gave; `None` for our own kinds.
    pub layout: Option<String>,
    /// What is to be said of it once: its encoding, what labels mean, what was passed over.
    pub notes: Vec<String>,
    /// Columns of unlabelled rows that hold numbers or truth values: one of them may say what is better.
    pub might_rate: Vec<String>,
    /// Rows that hold no judgement by the layout of the file.
    pub passed_over: u64,
    /// Usable rows of each kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// All rows, usable or not.
    pub rows: u64,
    /// Rows that could not be used, whole or in part.
    pub unusable: u64,
    /// Groups.
    pub groups: usize,
    /// Preferences: comparisons that are not ties.
    pub pairs: usize,
    /// Comparisons that are ties.
    pub ties: usize,
    /// Comparisons of weight 0, which are none: their responses are read, their order is not.
    pub weightless: usize,
}

impl FileInfo {
    /// What a file of responses alone lacks, and which of its columns might have it.
    pub fn no_preference(&self) -> String {
        let names: Vec<String> = self.might_rate.iter().map(|name| format!("`{name}`")).collect();
        match self.might_rate.first() {
            None => "no row says which response is better".to_owned(),
            Some(first) => {
                let names = names.join(", ");
                format!(
                    "no row says which response is better; columns that might: {names} (--rating {first}, or --rank {first})"
                )
            }
        }
    }
}

/// Reads files and groups their rows.
///
/// # Errors
/// If a file cannot be read to its end, or, with [`Options::strict`], at the first unusable row.
pub fn load_groups<P: AsRef<Path>>(paths: &[P], options: &Options) -> Result<Loaded, DataError> {
    let mut loaded = Loaded::default();
    for path in paths {
        loaded.read(Reader::open(path, options)?, options)?;
    }
    Ok(loaded)
}

impl Loaded {
    /// Reads one more file.
    ///
    /// # Errors
    /// As [`load_groups`].
    pub fn read(&mut self, mut reader: Reader, options: &Options) -> Result<(), DataError> {
        let first_problem = self.problems.len();
        let mut grouping = Grouping::new(self.files.len(), reader.file().clone());
        for row in &mut reader {
            grouping.info.rows += 1;
            match row {
                Ok(row) => grouping.add(row, &mut self.problems),
                Err(DataError::Row(problem)) => self.problems.push(problem),
                Err(error) => return Err(error),
            }
            self.check_strict(options)?;
        }
        let info = &mut grouping.info;
        info.sha256 = reader.sha256();
        (info.layout, info.notes, info.passed_over) =
            (reader.layout().map(str::to_owned), reader.notes(), reader.passed_over());
        grouping.finish(self, first_problem)?;
        self.check_strict(options)
    }

    /// The first problem as an error, where the caller wants that.
    fn check_strict(&self, options: &Options) -> Result<(), DataError> {
        match self.problems.first() {
            Some(problem) if options.strict => Err(DataError::Row(problem.clone())),
            _ => Ok(()),
        }
    }

    /// Preferences: comparisons that are not ties.
    pub fn pairs(&self) -> usize {
        self.files.iter().map(|file| file.pairs).sum()
    }

    /// Comparisons that are ties.
    pub fn ties(&self) -> usize {
        self.files.iter().map(|file| file.ties).sum()
    }

    /// Comparisons of weight 0, which are in no group.
    pub fn weightless(&self) -> usize {
        self.files.iter().map(|file| file.weightless).sum()
    }
}

/// Which rows of one prompt go together.
#[derive(Clone, Copy, PartialEq, Hash)]
enum RowKind {
    Rankings,
    Judgements,
}

/// The groups of one file while it is read.
struct Grouping {
    info: FileInfo,
    file: usize,
    groups: Vec<Group>,
    origins: Vec<Origin>,
    /// Whose ranking each group is; parallel to `groups`.
    rankers: Vec<Option<Arc<str>>>,
    /// True if the file's rows, and not the user, say whose rankings they are.
    is_guessed: bool,
    /// Prompts whose rankings lack a response that could not be used.
    incomplete: HashSet<String>,
    /// The column of ranks of our own kinds, where the user has not said that it holds ranks.
    unsaid_ranks: Option<String>,
    prompts: Index,
    responses: Index,
}

impl Grouping {
    fn new(file: usize, name: Arc<str>) -> Self {
        let info = FileInfo { file: name.to_string(), ..FileInfo::default() };
        let (prompts, responses) = (Index::default(), Index::default());
        let (groups, origins, rankers) = (Vec::new(), Vec::new(), Vec::new());
        Grouping {
            info,
            file,
            groups,
            origins,
            rankers,
            is_guessed: false,
            incomplete: HashSet::new(),
            unsaid_ranks: None,
            prompts,
            responses,
        }
    }

    fn add(&mut self, row: Row, problems: &mut Vec<RowProblem>) {
        if let Some(kind) = unusable(&row.record, &row.original) {
            if let Record::Ranked { prompt, .. } = &row.record {
                self.incomplete.insert(prompt.prompt_key());
            }
            return problems.push(RowProblem { location: row.location, kind });
        }
        let kind = row.record.kind();
        self.is_guessed |= row.ranker.is_some() && row.ranker_is_guessed();
        self.unsaid_ranks = self.unsaid_ranks.take().or_else(|| row.unsaid_ranks());
        let voter = row.ranker.clone();
        let (record, location, extra) = row.into_parts();
        let row = Judged { kind, location, extra: extra.into(), voter };
        match record {
            Record::Ranked { prompt, response: content, place, attributes } => {
                let (rank, score) = match place {
                    RankOrRating::Rank(rank) => (rank, None),
                    RankOrRating::Rating(rating) => (None, rating),
                };
                self.add_response(prompt, Candidate { content, rank, score, attributes }, row.voter.clone(), &row)
            }
            Record::Unlabelled { prompt, response: content, attributes } => {
                self.note_numbers(&row.extra);
                self.add_response(prompt, Candidate { content, rank: None, score: None, attributes }, None, &row)
            }
            Record::Pair { prompt, chosen, rejected, margin, weight } => {
                let verdict = Comparison { margin, weight, ..Comparison::BETTER };
                self.add_judgement(prompt, [chosen, rejected], verdict, row);
            }
            Record::Comparison { prompt, a, b, target, margin, weight } => {
                let verdict = Comparison { target, margin, weight, ..Comparison::BETTER };
                self.add_judgement(prompt, [a, b], verdict, row);
            }
            Record::Group { prompt, responses, comparisons } => {
                let Some((responses, comparisons)) = usable_responses(responses, comparisons, &row, problems) else {
                    return;
                };
                self.add_group(prompt, responses, comparisons, row);
            }
        }
        self.info.kind.get_or_insert(kind);
        *self.info.kinds.entry(kind).or_default() += 1;
    }

    /// Columns that might say what is better, of rows that do not.
    fn note_numbers(&mut self, extra: &Extra) {
        const MOST: usize = 8;
        let tells = |value: &Value| match value {
            Value::Number(_) | Value::Bool(_) => true,
            Value::String(text) => !text.is_empty() && text.trim().parse::<f64>().is_ok(),
            _ => false,
        };
        if self.info.might_rate.is_empty() {
            let names = extra.iter().filter(|(_, value)| tells(value)).map(|(name, _)| name.clone());
            self.info.might_rate = names.take(MOST).collect();
        }
    }

    fn add_response(&mut self, prompt: Content, candidate: Candidate, ranker: Option<Arc<str>>, row: &Judged) {
        let Candidate { content, rank, score, attributes } = candidate;
        let g = self.group_of(RowKind::Rankings, Some(prompt), ranker, row);
        let (location, extra) = (row.location.clone(), row.extra.clone());
        self.groups[g].responses.push(Response { content, rank, score, attributes, location, extra });
    }

    fn add_judgement(&mut self, prompt: Option<Content>, sides: [Content; 2], verdict: Comparison, row: Judged) {
        let g = self.group_of(RowKind::Judgements, prompt, None, &row);
        let [first, second] = sides.map(|side| self.response_of(g, side, &row));
        if !verdict.counts() {
            self.info.weightless += 1;
            return;
        }
        self.groups[g].comparisons.push(Comparison { first, second, ..verdict });
        self.groups[g].judged.push(row);
    }

    fn add_group(&mut self, prompt: Content, candidates: Vec<Candidate>, comparisons: Vec<Comparison>, row: Judged) {
        // One person's ranking of a row's responses: a ranking by itself, which meets others of the same prompt as votes.
        if let Some(voter) = row.voter.as_ref().filter(|_| comparisons.is_empty()) {
            let ranker: Arc<str> = format!("{voter}\n{}", row.location.line).into();
            candidates.into_iter().for_each(|candidate| {
                self.add_response(prompt.clone(), candidate, Some(ranker.clone()), &row);
            });
            return;
        }
        let g = self.new_group(Some(prompt), None, &row);
        self.groups[g].responses = ranked(candidates, &row);
        let counted = comparisons.iter().filter(|comparison| comparison.counts());
        self.groups[g].judged = counted.clone().map(|_| row.clone()).collect();
        self.groups[g].comparisons = counted.copied().collect();
        self.info.weightless += comparisons.len() - self.groups[g].comparisons.len();
    }

    /// The group of this prompt, family and ranker, new if there is none. Without a prompt it is always new.
    fn group_of(&mut self, family: RowKind, prompt: Option<Content>, ranker: Option<Arc<str>>, row: &Judged) -> usize {
        let Some(reading) = prompt.as_ref().map(|prompt| prompt.reading(USER)) else {
            return self.new_group(prompt, ranker, row);
        };
        let (groups, origins, rankers) = (&self.groups, &self.origins, &self.rankers);
        let read = |g: usize| groups[g].prompt.as_ref().map(|prompt| prompt.reading(USER));
        let same =
            |g: usize| read(g) == Some(reading) && RowKind::of(origins[g].kind) == Some(family) && rankers[g] == ranker;
        match self.prompts.find_or_insert(&(family, reading, &ranker), self.groups.len(), same) {
            Some(g) => g,
            None => self.new_group(prompt, ranker, row),
        }
    }

    fn new_group(&mut self, prompt: Option<Content>, ranker: Option<Arc<str>>, row: &Judged) -> usize {
        // A ranking that is told by a group row is one of the rankings by rows.
        let kind = if ranker.is_some() && row.kind == Kind::Groups { Kind::Ranked } else { row.kind };
        self.origins.push(Origin { file: self.file, kind });
        self.rankers.push(ranker);
        let (responses, comparisons, judged) = (Vec::new(), Vec::new(), Vec::new());
        self.groups.push(Group { prompt, responses, comparisons, judged, location: row.location.clone() });
        self.groups.len() - 1
    }

    /// The response of this content in group `g`, new and of this row if there is none.
    fn response_of(&mut self, g: usize, content: Content, row: &Judged) -> usize {
        let responses = &mut self.groups[g].responses;
        let reading = content.reading(ASSISTANT);
        let same = |r: usize| responses.get(r).is_some_and(|known| known.content.reading(ASSISTANT) == reading);
        let found = self.responses.find_or_insert(&(g, reading), responses.len(), same);
        found.unwrap_or_else(|| {
            let (attributes, location, extra) = (Attributes::new(), row.location.clone(), row.extra.clone());
            responses.push(Response { content, rank: None, score: None, attributes, location, extra });
            responses.len() - 1
        })
    }

    /// Turns ranks into comparisons and hands everything over; the problems of this file begin at `first_problem`.
    fn finish(mut self, loaded: &mut Loaded, first_problem: usize) -> Result<(), DataError> {
        self.one_person_a_row();
        self.check_ranks()?;
        self.check_prompts(&loaded.problems[first_problem..])?;
        for group in self.groups.iter_mut().filter(|group| group.judged.is_empty()) {
            rank_by_score(group);
            let alike = group.first_alike();
            ranked_twice(group, &alike, &mut loaded.problems);
            group.comparisons = comparisons_of_ranks(group, &alike)?;
        }
        self.merge_people();
        let new = &mut loaded.problems[first_problem..];
        new.sort_by_key(|problem| problem.location.line);
        self.info.unusable = new.chunk_by(|a, b| a.location == b.location).count() as u64;
        self.info.groups = self.groups.len();
        self.info.ties = self.groups.iter().map(Group::ties).sum();
        self.info.pairs = self.groups.iter().map(|group| group.comparisons.len()).sum::<usize>() - self.info.ties;
        loaded.groups.append(&mut self.groups);
        loaded.origins.append(&mut self.origins);
        loaded.files.push(self.info);
        Ok(())
    }
}

impl Grouping {
    /// Ranks that do not begin with 1, or go beyond the number of responses, in most rankings, are ratings, or ranks of
    /// something else.
    fn check_ranks(&self) -> Result<(), DataError> {
        let Some(column) = &self.unsaid_ranks else { return Ok(()) };
        let ranks = |group: &Group| group.responses.iter().filter_map(|r| r.rank).collect::<Vec<f64>>();
        let highest = |ranks: &[f64]| ranks.iter().copied().fold(0.0, f64::max);
        let lowest = |ranks: &[f64]| ranks.iter().copied().fold(f64::MAX, f64::min);
        let is_whole = |group: &&Group| !self.incomplete.contains(&group.prompt_key());
        let rankings = || {
            let whole = self.groups.iter().filter(is_whole);
            whole.map(|group| (group, ranks(group))).filter(|(_, ranks)| ranks.len() > 1)
        };
        let beyond = || rankings().filter(|(_, ranks)| highest(ranks) > ranks.len() as f64 || lowest(ranks) > 1.0);
        match beyond().next() {
            Some((group, ranks)) if 2 * beyond().count() > rankings().count() => Err(DataError::RanksOrRatings {
                location: group.location.clone(),
                column: column.clone(),
                responses: ranks.len(),
                found: highest(&ranks),
            }),
            _ => Ok(()),
        }
    }

    /// Texts that do not begin alike are no transcripts: in more than a tenth of the rows it is the prompt that is missing, and
    /// the others begin alike by chance.
    fn check_prompts(&self, problems: &[RowProblem]) -> Result<(), DataError> {
        let likely = |problem: &RowProblem| match &problem.kind {
            ProblemKind::NoPrompt { likely } => Some(likely.clone()),
            _ => None,
        };
        let missing: Vec<Option<String>> = problems.iter().filter_map(likely).collect();
        match missing.first() {
            Some(likely) if 10 * missing.len() as u64 > self.info.rows => {
                let (file, rows) = (self.info.file.clone(), missing.len());
                Err(DataError::NoPrompt { file, rows, likely: likely.clone() })
            }
            _ => Ok(()),
        }
    }
}

impl RowKind {
    /// Group rows stand alone: each is complete.
    fn of(kind: Kind) -> Option<RowKind> {
        match kind {
            Kind::Ranked | Kind::Rated | Kind::Unlabelled => Some(RowKind::Rankings),
            Kind::Pairs | Kind::Comparisons => Some(RowKind::Judgements),
            Kind::Groups => None,
        }
    }
}

/// The responses of a group row that hold text, with the comparisons between them; `None` if too few are left to compare.
fn usable_responses(
    candidates: Vec<Candidate>,
    comparisons: Vec<Comparison>,
    row: &Judged,
    problems: &mut Vec<RowProblem>,
) -> Option<(Vec<Candidate>, Vec<Comparison>)> {
    let mut report = |kind| problems.push(RowProblem { location: row.location.clone(), kind });
    let mut places = Vec::with_capacity(candidates.len());
    let mut usable = Vec::with_capacity(candidates.len());
    for (at, candidate) in candidates.into_iter().enumerate() {
        let column = format!("responses[{}].text", at + 1);
        let problem = match candidate.content.is_blank() {
            true => Some(ProblemKind::EmptyText { column }),
            false => ends_with_a_question(&column, &candidate.content),
        };
        match problem {
            Some(problem) => {
                report(problem);
                places.push(None);
            }
            None => {
                places.push(Some(usable.len()));
                usable.push(candidate);
            }
        }
    }
    let needed = if row.kind == Kind::Unlabelled { 1 } else { 2 };
    if usable.len() < needed {
        report(ProblemKind::TooFew { found: usable.len() });
        return None;
    }
    let moved = |comparison: Comparison| {
        Some(Comparison { first: places[comparison.first]?, second: places[comparison.second]?, ..comparison })
    };
    Some((usable, comparisons.into_iter().filter_map(moved).collect()))
}

/// Ranks the responses of rows with ratings: the highest first, equal ratings share a rank.
fn rank_by_score(group: &mut Group) {
    if group.responses.iter().any(|response| response.rank.is_some()) {
        return;
    }
    let mut scores: Vec<f64> = group.responses.iter().filter_map(|response| response.score).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    for response in &mut group.responses {
        response.rank = response.score.map(|score| 1.0 + scores.partition_point(|other| *other > score) as f64);
    }
}

/// Gives every candidate its rank: as stated, or, where no candidate states one, by score (highest
/// first, equal scores share a rank).
fn ranked(candidates: Vec<Candidate>, row: &Judged) -> Vec<Response> {
    let stated = candidates.iter().any(|candidate| candidate.rank.is_some());
    let scores: Vec<f64> = candidates.iter().filter_map(|candidate| candidate.score).collect();
    let place = |score: f64| 1.0 + scores.iter().filter(|other| **other > score).count() as f64;
    let response = |Candidate { content, rank, score, attributes }: Candidate| {
        let rank = if stated { rank } else { score.map(place) };
        let (location, extra) = (row.location.clone(), row.extra.clone());
        Response { content, rank, score, attributes, location, extra }
    };
    candidates.into_iter().map(response).collect()
}

/// Notes every response that stood before with another rank: which of the two is meant cannot be known.
fn ranked_twice(group: &Group, alike: &[usize], problems: &mut Vec<RowProblem>) {
    let mut ranks: HashMap<usize, (f64, &Location)> = HashMap::new();
    for (response, first) in group.responses.iter().zip(alike) {
        let Some(rank) = response.rank else { continue };
        let (known, earlier) = *ranks.entry(*first).or_insert((rank, &response.location));
        if known != rank {
            let kind = ProblemKind::RankedTwice { earlier: earlier.clone() };
            problems.push(RowProblem { location: response.location.clone(), kind });
        }
    }
}

/// One comparison for every two ranked responses, in listed order; a response is not compared with itself (`alike` is
/// [`Group::first_alike`]).
fn comparisons_of_ranks(group: &Group, alike: &[usize]) -> Result<Vec<Comparison>, DataError> {
    let place = |(r, response): (usize, &Response)| response.rank.map(|rank| (r, rank));
    let places: Vec<(usize, f64)> = group.responses.iter().enumerate().filter_map(place).collect();
    if places.len() > MAX_RANKED {
        let location = group.location.clone();
        return Err(DataError::GroupTooLarge { location, limit: MAX_RANKED, found: places.len() });
    }
    let mut comparisons = Vec::with_capacity(places.len() * places.len().saturating_sub(1) / 2);
    for (i, (first, better)) in places.iter().enumerate() {
        for (second, other) in places[i + 1..].iter().filter(|(second, _)| alike[*first] != alike[*second]) {
            let target = if better < other {
                1.0
            } else if better > other {
                0.0
            } else {
                0.5
            };
            comparisons.push(Comparison { first: *first, second: *second, target, margin: 0.0, weight: 1.0 });
        }
    }
    Ok(comparisons)
}

/// Finds equal things by hash without keeping a second copy of their texts.
#[derive(Default)]
struct Index {
    hasher: RandomState,
    buckets: HashMap<u64, Vec<usize>>,
}

impl Index {
    /// The number of an equal thing; `None` if there is none, and it is then noted as `new`.
    fn find_or_insert(&mut self, key: &impl Hash, new: usize, same: impl Fn(usize) -> bool) -> Option<usize> {
        let bucket = self.buckets.entry(self.hasher.hash_one(key)).or_default();
        let found = bucket.iter().copied().find(|number| same(*number));
        if found.is_none() {
            bucket.push(new);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Loaded {
        let mut loaded = Loaded::default();
        let reader = Reader::from_bytes("t", text.as_bytes().to_vec(), &Options::default()).unwrap();
        loaded.read(reader, &Options::default()).unwrap();
        loaded
    }

    /// A ranked CSV of prompts with this many usable answers and this many empty ones.
    fn rankings(prompts: &[(usize, usize)]) -> String {
        let mut text = "prompt,answer,rank\n".to_owned();
        for (p, (usable, empty)) in prompts.iter().enumerate() {
            for r in 0..usable + empty {
                let answer = if r < *usable { format!("answer {r}") } else { String::new() };
                text += &format!("prompt {p},{answer},{}\n", r + 1);
            }
        }
        text
    }

    /// Prompts as (usable, empty) answers; pairs; problems.
    type Counts = (&'static [(usize, usize)], usize, usize);
    /// A file and the `(first, second, target)` of every comparison of every group.
    type Verdicts = (&'static str, &'static [&'static [(usize, usize, f32)]]);
    /// A file, line and name of every problem, and the pairs that are left.
    type Problems = (&'static str, &'static [(u64, &'static str)], usize);

    #[test]
    fn pairs_of_rankings() {
        let cases: [Counts; 5] = [
            (&[(4, 0); 5], 30, 0),
            (&[(4, 0), (4, 0), (4, 0), (3, 1), (3, 1)], 24, 2),
            (&[(4, 0), (4, 0), (4, 0), (4, 0), (2, 2)], 25, 2),
            (&[(1, 0)], 0, 0),
            (&[(0, 2), (2, 0)], 1, 2),
        ];
        for (prompts, pairs, empty) in cases {
            let loaded = load(&rankings(prompts));
            assert_eq!((loaded.pairs(), loaded.problems.len()), (pairs, empty), "{prompts:?}");
            assert_eq!(loaded.groups.iter().flat_map(Group::pairs).count(), pairs);
            assert_eq!(loaded.files[0].unusable, empty as u64);
            assert_eq!(loaded.files[0].rows, prompts.iter().map(|(a, b)| (a + b) as u64).sum::<u64>());
        }
    }

    /// `(first, second, target)` of every comparison, group by group.
    fn verdicts(loaded: &Loaded) -> Vec<Vec<(usize, usize, f32)>> {
        let triple = |c: &Comparison| (c.first, c.second, c.target);
        loaded.groups.iter().map(|group| group.comparisons.iter().map(triple).collect()).collect()
    }

    #[test]
    fn verdicts_of_every_kind() {
        let cases: [Verdicts; 8] = [
            ("prompt,answer,rank\np,a,2\np,b,1\np,c,\np,d,2\n", &[&[(0, 1, 0.0), (0, 3, 0.5), (1, 3, 1.0)]]),
            ("prompt,answer,rank\np,a,1\nq,c,1\np,b,1.5\n", &[&[(0, 1, 1.0)], &[]]),
            ("prompt,chosen,rejected\np,a,b\nq,a,b\np,c,a\n", &[&[(0, 1, 1.0), (2, 0, 1.0)], &[(0, 1, 1.0)]]),
            ("chosen,rejected\nx y a,x y b\nx y a,x y b\n", &[&[(0, 1, 1.0)], &[(0, 1, 1.0)]]),
            (
                "prompt,response_a,response_b,label\np,a,b,tie\np,b,a,b\np,a,c,0.25\n",
                &[&[(0, 1, 0.5), (1, 0, 0.0), (0, 2, 0.25)]],
            ),
            (
                r#"{"prompt":"p","responses":[{"text":"a","score":2},{"text":"b","score":5},{"text":"c"}]}"#,
                &[&[(0, 1, 0.0)]],
            ),
            (
                r#"{"prompt":"p","responses":[{"text":"a","rank":2,"score":9},{"text":"b","rank":1},"c"]}"#,
                &[&[(0, 1, 0.0)]],
            ),
            (r#"{"prompt":"p","responses":["a","b"]}"#, &[&[]]),
        ];
        for (text, expected) in cases {
            let loaded = load(text);
            assert_eq!(verdicts(&loaded), expected.iter().map(|v| v.to_vec()).collect::<Vec<_>>(), "{text}");
            assert_eq!(loaded.problems, [], "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_located() {
        let cases: [Problems; 7] = [
            ("prompt,answer,rank\np,a,first\np,b,1\np,,2\n", &[(2, "wrong_type"), (4, "empty")], 0),
            (
                "prompt,chosen,rejected,margin\np,a,b,nan\np,a,a,\np,a,b,1\n",
                &[(2, "out_of_range"), (3, "identical")],
                1,
            ),
            (
                "prompt,response_a,response_b,label\np,a,b,model_x\np,a,b,1.5\n",
                &[(2, "unknown_label"), (3, "unknown_label")],
                0,
            ),
            (r#"{"prompt":"p","responses":[{"text":"a","rank":1}]}"#, &[(1, "too_few_responses")], 0),
            (
                r#"{"prompt":"p","responses":[{"text":"a","rank":1},{"text":" ","rank":2},{"text":"c","rank":3}]}"#,
                &[(1, "empty")],
                1,
            ),
            (
                r#"{"prompt":"p","responses":[{"text":"a","rank":1},{"text":[{"role":"assistant","content":"b"},{"role":"user","content":"c"}],"rank":2},{"text":"d","rank":3}]}"#,
                &[(1, "last_speaker")],
                1,
            ),
            (
                "{\"prompt\":\"p\",\"chosen\":\"a\",\"rejected\":\"b\"}\n{\"prompt\":\"p\"}\n{",
                &[(2, "missing_column"), (3, "bad_json")],
                1,
            ),
        ];
        for (text, expected, pairs) in cases {
            let loaded = load(text);
            let found: Vec<_> = loaded.problems.iter().map(|p| (p.location.line, p.kind.name())).collect();
            assert_eq!((found.as_slice(), loaded.pairs()), (expected, pairs), "{text}");
        }
    }

    #[test]
    fn strict_stops_at_the_first_problem() {
        let options = Options { strict: true, ..Options::default() };
        for text in ["prompt,answer,rank\np,a,1\np,,2\n", r#"{"prompt":"p","responses":[{"text":"a","rank":1}]}"#] {
            let reader = Reader::from_bytes("t", text.into(), &options).unwrap();
            let error = Loaded::default().read(reader, &options).unwrap_err();
            assert!(matches!(error, DataError::Row(_)), "{error}");
        }
    }

    #[test]
    fn every_judgement_keeps_its_row() {
        let loaded = load("id,prompt,chosen,rejected,margin,weight\n1,p,a,b,2,\n2,q,a,b,,\n3,p,b,c,,0.5\n");
        assert_eq!(loaded.groups[0].responses.len(), 3);
        assert_eq!(loaded.groups[0].comparison_location(1).to_string(), "t:4");
        assert_eq!(loaded.groups[0].comparison_fact(1, "id"), Some(&"3".into()));
        let ids: Vec<_> = loaded.groups[0].responses.iter().map(|r| r.extra["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["1", "1", "3"], "the row in which a response first stands");
        let (first, second) = (loaded.groups[0].comparisons[0], loaded.groups[0].comparisons[1]);
        assert_eq!((first.margin, first.weight, second.margin, second.weight), (2.0, 1.0, 0.0, 0.5));
        let loaded = load("prompt,answer,rank,topic,model\np,a,1,t,x\np,b,2,t,y\n");
        assert_eq!(loaded.groups[0].comparison_location(0).to_string(), "t:3");
        assert_eq!(serde_json::to_string(&loaded.groups[0].comparison_extra(0)).unwrap(), r#"{"topic":"t"}"#);
        assert_eq!(loaded.groups[0].responses[1].extra["model"], "y");
    }

    #[test]
    fn f3_rows_of_both_forms_of_a_prompt_are_one_group() {
        let lone = |role: &str, text: &str| format!(r#"[{{"role":"{role}","content":"{text}"}}]"#);
        let text = format!(
            "{{\"prompt\":\"p\",\"chosen\":\"a\",\"rejected\":\"b\"}}\n{{\"prompt\":{},\"chosen\":\"c\",\"rejected\":{}}}\n",
            lone("user", "p"),
            lone("assistant", "a")
        );
        assert_eq!(verdicts(&load(&text)), [[(0, 1, 1.0), (2, 0, 1.0)]]);
        let apart = load("prompt,chosen,rejected\np,a,b\nP,a,b\n");
        assert_eq!(apart.groups.len(), 2, "a group is read with one prompt, so case counts there");
        assert_eq!(apart.groups[0].prompt_key(), apart.groups[1].prompt_key());
    }

    #[test]
    fn f13_identical_texts_of_different_ranks_make_no_pair() {
        let loaded = load("prompt,answer,rank\np,same,1\np,same,2\np,other,3\nq,x,1\nq,x,1\nq,y,2\n");
        let found = verdicts(&loaded);
        assert_eq!(found, [[(0, 2, 1.0), (1, 2, 1.0)], [(0, 2, 1.0), (1, 2, 1.0)]]);
        let problems: Vec<_> = loaded.problems.iter().map(|p| (p.location.line, p.kind.name())).collect();
        assert_eq!((problems.as_slice(), loaded.files[0].unusable), (&[(3, "identical")][..], 1));
    }

    #[test]
    fn too_many_ranks_for_one_prompt() {
        let reader = Reader::from_bytes("t", rankings(&[(MAX_RANKED + 1, 0)]).into(), &Options::default()).unwrap();
        let error = Loaded::default().read(reader, &Options::default()).unwrap_err();
        assert!(matches!(error, DataError::GroupTooLarge { .. }), "{error}");
    }
}
