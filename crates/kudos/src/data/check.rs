//! What is wrong with some data, before anything is trained on it.
//!
//! Every finding names its places. An *error* makes results untrue (prompts of the evaluation data that
//! are also trained on), a *warning* costs rows or teaches something false, a *note* is good to know.
//! Tokens are another module's business: whoever has a tokenizer passes [`CheckOptions::encode`].

use super::group::{Group, Response};
use super::load::{FileInfo, Loaded};
use super::record::{Content, Kind, Location, USER};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a tokenizer says of one (prompt, response).
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedInfo {
    /// The tokens the model will see.
    pub ids: Vec<u32>,
    /// How many there were before anything was cut off.
    pub tokens_before_truncation: usize,
    /// Control tokens in the texts themselves.
    pub control_tokens: usize,
    /// Whether the model reads other words than the response's own.
    pub rewritten: bool,
}

/// Encodes a (prompt, response) as training would, or says why it cannot be encoded.
pub type Encode<'a> = dyn Fn(Option<&Content>, &Content) -> Result<EncodedInfo, String> + 'a;

/// What to check beside the data itself.
#[derive(Clone, Copy, Default)]
pub struct CheckOptions<'a> {
    /// Finds texts too long for a base model, and pairs that truncation makes identical.
    pub encode: Option<&'a Encode<'a>>,
    /// Files from this index of [`Loaded::files`] on are for evaluation: a prompt they share with the
    /// others is a leak.
    pub eval_from: Option<usize>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Makes results untrue.
    Error,
    /// Costs rows, or teaches something false.
    Warning,
    /// Good to know.
    Note,
}

/// One kind of fault, with every place it was found.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name: `empty`, `contradictory`, `leak`, …
    pub code: &'static str,
    /// What it is and what to do.
    pub message: &'static str,
    /// Number of places.
    pub count: usize,
    /// All of them.
    pub places: Vec<Place>,
}

/// Where a finding stands.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Place {
    /// The file as the user named it.
    pub file: String,
    /// Line the row starts at, from 1 (row number for Parquet).
    pub line: u64,
    /// What is particular to this place.
    pub detail: String,
}

/// Accuracy of a rule that reads nothing, over the pairs it applies to.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Baseline {
    /// Share of pairs it gets right; a draw counts half.
    pub accuracy: f64,
    /// Pairs it applies to.
    pub pairs: usize,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Report {
    /// File by file.
    pub files: Vec<FileInfo>,
    /// Usable rows of each kind.
    pub rows: BTreeMap<Kind, u64>,
    /// Rows that cannot be used, whole or in part.
    pub unusable: u64,
    /// Distinct prompts.
    pub prompts: usize,
    /// Groups.
    pub groups: usize,
    /// Preferences.
    pub pairs: usize,
    /// Comparisons without a preference.
    pub ties: usize,
    /// "The longer response (in characters) is better."
    pub longer_wins: Option<Baseline>,
    /// "The response listed first is better"; pair rows, which list the better one first, are left out.
    pub first_listed_wins: Option<Baseline>,
    /// Errors first.
    pub findings: Vec<Finding>,
    /// What responses are rated in particular, by name.
    pub attributes: BTreeMap<String, Ratings>,
    /// The first preferences of each file, as they were understood.
    pub understood: Vec<Understood>,
}

/// A preference as it was understood.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Understood {
    /// The file as the user named it.
    pub file: String,
    /// Line of its row.
    pub line: u64,
    /// What was asked: the last turn, in one line; `None` for whole transcripts.
    pub prompt: Option<String>,
    /// Turns before it.
    pub earlier_turns: usize,
    /// The beginning of the better response.
    pub better: String,
    /// The beginning of the worse response.
    pub worse: String,
}

/// The ratings of one attribute.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Ratings {
    /// Responses that have one.
    pub ratings: usize,
    /// Responses that have none.
    pub missing: usize,
    /// Lowest rating.
    pub min: f64,
    /// Highest rating.
    pub max: f64,
    /// Their mean.
    pub mean: f64,
}

impl Report {
    /// Findings of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// Checks data that has been loaded without [`super::Options::strict`].
pub fn run(loaded: &Loaded, options: &CheckOptions) -> Report {
    let mut findings = Findings::default();
    findings.problems(loaded);
    for g in 0..loaded.groups.len() {
        findings.group(loaded, g);
        if let Some(encode) = options.encode {
            findings.lengths(loaded, g, encode);
        }
    }
    let prompts = findings.prompts(loaded, options.eval_from);
    let rated = loaded.groups.iter().flat_map(|group| &group.responses).any(|response| !response.attributes.is_empty());
    if loaded.pairs() == 0 && !rated && loaded.files.iter().any(|file| file.kind != Some(Kind::Unlabelled)) {
        findings.nothing_to_learn(loaded);
    }
    if !rated {
        findings.no_preference(loaded);
    }
    let mut rows = BTreeMap::new();
    for (kind, count) in loaded.files.iter().flat_map(|file| &file.kinds) {
        *rows.entry(*kind).or_default() += count;
    }
    Report {
        files: loaded.files.clone(),
        rows,
        unusable: loaded.files.iter().map(|file| file.unusable).sum(),
        prompts,
        groups: loaded.groups.len(),
        pairs: loaded.pairs(),
        ties: loaded.ties(),
        longer_wins: longer_wins(loaded),
        first_listed_wins: first_listed_wins(loaded),
        findings: findings.sorted(),
        attributes: ratings(loaded),
        understood: understood(loaded),
    }
}

/// Preferences of each file that are shown.
const UNDERSTOOD: usize = 2;
/// Characters of each text that are shown.
const UNDERSTOOD_CHARS: usize = 160;

fn understood(loaded: &Loaded) -> Vec<Understood> {
    let mut shown = vec![0; loaded.files.len()];
    let mut found = Vec::new();
    for (group, origin) in loaded.groups.iter().zip(&loaded.origins) {
        for (c, comparison) in group.comparisons.iter().enumerate() {
            let Some((better, worse)) = comparison.better_worse().filter(|_| shown[origin.file] < UNDERSTOOD) else {
                continue;
            };
            shown[origin.file] += 1;
            let at = group.comparison_location(c);
            let text = |r: usize| in_one_line(&last_turn(&group.responses[r].content));
            found.push(Understood {
                file: at.file.to_string(),
                line: at.line,
                prompt: group.prompt.as_ref().map(|prompt| in_one_line(&last_turn(prompt))),
                earlier_turns: group.prompt.as_ref().map_or(0, |prompt| prompt.turns(USER).len().saturating_sub(1)),
                better: text(better),
                worse: text(worse),
            });
        }
    }
    found
}

fn last_turn(content: &Content) -> String {
    match content {
        Content::Text(text) => text.clone(),
        Content::Messages(turns) => turns.last().map(|turn| turn.content.clone()).unwrap_or_default(),
    }
}

fn in_one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(UNDERSTOOD_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Every attribute of the data; `missing` counts over all responses.
fn ratings(loaded: &Loaded) -> BTreeMap<String, Ratings> {
    let responses = || loaded.groups.iter().flat_map(|group| &group.responses);
    let mut all: BTreeMap<String, Ratings> = BTreeMap::new();
    for (name, &rating) in responses().flat_map(|response| &response.attributes) {
        let found = all.entry(name.clone()).or_insert(Ratings { min: rating, max: rating, ..Ratings::default() });
        found.ratings += 1;
        found.min = found.min.min(rating);
        found.max = found.max.max(rating);
        found.mean += (rating - found.mean) / found.ratings as f64;
    }
    let total = responses().count();
    all.values_mut().for_each(|found| found.missing = total - found.ratings);
    all
}

/// The faults, in the order they are reported within a severity.
const FAULTS: [(&str, Severity, &str); 41] = {
    use Severity::{Error, Note, Warning};
    [
        ("leak", Error, "prompts of the evaluation data are in the training data: take them out of one"),
        ("nothing_to_learn", Error, "no pair can be made: every prompt needs two responses of different rank"),
        ("bad_json", Warning, "rows that are not a JSON object are left out: correct them"),
        ("not_utf8", Warning, "rows that are not UTF-8 are left out: convert the file"),
        (
            "mixed_encodings",
            Warning,
            "rows in another encoding than the rest of the file are left out: save it as UTF-8",
        ),
        (
            "bad_cell",
            Warning,
            "rows with a cell that holds no value are left out: correct the cells in the spreadsheet",
        ),
        ("cut_short", Warning, "rows whose texts were cut when they were exported are left out: fetch the whole file"),
        ("ragged", Warning, "rows with more or fewer fields than the header are left out: correct them"),
        ("bad_quote", Warning, "rows with a quote out of place are left out: double the quotes inside fields"),
        ("too_long", Warning, "rows beyond the size limit are left out: look for an unclosed quote"),
        ("missing_column", Warning, "rows without the columns of their kind are left out: add them"),
        ("wrong_type", Warning, "rows with a value of another type are left out: correct them"),
        ("out_of_range", Warning, "rows with a number out of range are left out: correct them"),
        ("unknown_label", Warning, "rows with an unknown label are left out: use a, b, tie or a number from 0 to 1"),
        ("too_few_responses", Warning, "groups of fewer than two usable responses are left out"),
        ("empty", Warning, "empty texts are left out and make no pairs: fill them in or remove them"),
        ("identical", Warning, "a response is compared with itself: remove one of the two"),
        (
            "other_prompt",
            Warning,
            "conversations that do not begin with the prompt of their row are left out: correct them",
        ),
        ("no_prompt", Warning, "pairs without a prompt that do not begin alike are left out: say where the prompt is"),
        ("serialised", Warning, "cells with a list that was written as text are left out: export them as messages"),
        ("message", Warning, "conversations with a turn that is no text are left out"),
        ("last_speaker", Warning, "responses that end with the user's turn are left out: the reply is missing"),
        ("history", Warning, "rows with a `history` beside `prompt` are left out: say what it is with --columns"),
        ("not_text", Warning, "rows with pictures or sound are left out: Kudos reads text"),
        ("status", Warning, "rows that the tool marks as rejected are left out"),
        (
            "refused",
            Warning,
            "responses are left out that the tokenizer or its chat template refuses: correct the turns, or train with \
             another rendering",
        ),
        (
            "control_tokens",
            Warning,
            "texts hold control tokens, which the model takes for the ends of turns and texts: take them out, or use \
             --literal",
        ),
        ("contradictory", Warning, "pairs contradict an earlier one (A over B, B over A): keep one of the two"),
        ("cyclic", Warning, "preferences run in a circle, which no score can satisfy: judge again"),
        ("shared_prompt", Warning, "prompts stand in several files: do not train on one and evaluate on another"),
        ("too_long_for_base", Warning, "responses do not fit the token limit and will be cut: raise --max-length"),
        ("identical_after_truncation", Warning, "pairs differ only in what will be cut off: raise --max-length"),
        (
            "rewritten",
            Note,
            "the chat template rewrites responses, as a thought before </think>: the model reads other words there",
        ),
        ("disagreement", Note, "people disagree: each vote counts by itself"),
        ("no_preference", Note, "no row says which response is better: the responses can be scored, not learnt from"),
        ("duplicate_pair", Note, "the same judgement again: it will count more than once"),
        ("duplicate_response", Note, "the same response again for one prompt"),
        ("repeated_prompt", Note, "several group rows ask the same prompt: they stay separate groups"),
        ("empty_prompt", Note, "prompts hold no text: their responses are judged without a question"),
        ("lone_response", Note, "prompts with fewer than two ranked responses make no pair"),
        ("tied", Note, "ties make no pair"),
    ]
};

/// Places by the code of their fault.
#[derive(Default)]
struct Findings(HashMap<&'static str, Vec<Place>>);

impl Findings {
    fn add(&mut self, code: &'static str, at: &Location, detail: String) {
        let place = Place { file: at.file.to_string(), line: at.line, detail };
        self.0.entry(code).or_default().push(place);
    }

    fn sorted(mut self) -> Vec<Finding> {
        let finding = |(code, severity, message): (&'static str, Severity, &'static str)| {
            let places = self.0.remove(code)?;
            Some(Finding { severity, code, message, count: places.len(), places })
        };
        FAULTS.into_iter().filter_map(finding).collect()
    }

    fn problems(&mut self, loaded: &Loaded) {
        for problem in &loaded.problems {
            self.add(problem.kind.name(), &problem.location, problem.kind.to_string());
        }
    }

    /// Files of responses alone, and the columns that might say which is better.
    fn no_preference(&mut self, loaded: &Loaded) {
        for file in
            loaded.files.iter().filter(|file| file.kind == Some(Kind::Unlabelled) && file.pairs + file.ties == 0)
        {
            let start = Location { file: file.file.as_str().into(), line: 1 };
            self.add("no_preference", &start, file.no_preference());
        }
    }

    fn nothing_to_learn(&mut self, loaded: &Loaded) {
        for file in &loaded.files {
            let start = Location { file: file.file.as_str().into(), line: 1 };
            self.add("nothing_to_learn", &start, format!("{} rows, no pair", file.rows));
        }
    }

    /// Ties, repetitions, contradictions and circles among the responses of one prompt.
    fn group(&mut self, loaded: &Loaded, g: usize) {
        let (group, origin) = (&loaded.groups[g], &loaded.origins[g]);
        if group.prompt.as_ref().is_some_and(Content::is_blank) {
            self.add("empty_prompt", &group.location, "the prompt holds no text".to_owned());
        }
        if origin.kind == Kind::Ranked
            && group.judged.is_empty()
            && group.responses.iter().filter(|r| r.rank.is_some()).count() < 2
        {
            self.add("lone_response", &group.location, "nothing to compare it with".to_owned());
        }
        for (c, _) in group.comparisons.iter().enumerate().filter(|(_, c)| c.is_tie()) {
            self.add("tied", loaded.groups[g].comparison_location(c), "neither is better".to_owned());
        }
        let same_as = group.first_alike();
        self.repeated_responses(group, &same_as);
        // A ranking of distinct responses is an order: it can hold neither contradiction nor circle.
        let distinct = same_as.iter().enumerate().all(|(r, first)| r == *first);
        if !(distinct && group.judged.is_empty()) {
            let wins = self.wins(loaded, g, &same_as);
            // Of several people's votes a circle is disagreement.
            if group.judged.iter().all(|judged| judged.voter.is_none()) {
                self.circles(loaded, g, &wins);
            }
        }
    }

    fn repeated_responses(&mut self, group: &Group, same_as: &[usize]) {
        for (r, first) in same_as.iter().enumerate().filter(|(r, first)| r != *first) {
            let (again, first) = (&group.responses[r], &group.responses[*first]);
            // One that is ranked otherwise is a problem of its row.
            if !matches!((again.rank, first.rank), (Some(a), Some(b)) if a != b) {
                self.add("duplicate_response", &again.location, format!("same text as at {}", first.location));
            }
        }
    }

    /// Who beat whom; judgements that contradict or repeat an earlier one are noted.
    fn wins(&mut self, loaded: &Loaded, g: usize, same_as: &[usize]) -> Wins {
        let judged = !loaded.groups[g].judged.is_empty();
        let voter = |c: usize| loaded.groups[g].judged.get(c).and_then(|judged| judged.voter.as_ref());
        let two_people = |a: usize, b: usize| voter(a).zip(voter(b)).is_some_and(|(a, b)| a != b);
        let mut wins = Wins::new();
        for (c, comparison) in loaded.groups[g].comparisons.iter().enumerate() {
            let sides = comparison.better_worse().map(|(b, w)| (same_as[b], same_as[w]));
            let Some((better, worse)) = sides.filter(|(better, worse)| better != worse) else {
                continue;
            };
            let at = loaded.groups[g].comparison_location(c);
            if let Some(earlier) = wins.get(&(worse, better)) {
                let code = if two_people(*earlier, c) { "disagreement" } else { "contradictory" };
                self.add(code, at, format!("against {}", loaded.groups[g].comparison_location(*earlier)));
            }
            let earlier = *wins.entry((better, worse)).or_insert(c);
            if judged && earlier != c && !two_people(earlier, c) {
                self.add("duplicate_pair", at, format!("as at {}", loaded.groups[g].comparison_location(earlier)));
            }
        }
        wins
    }

    fn circles(&mut self, loaded: &Loaded, g: usize, wins: &Wins) {
        let mut beats = vec![Vec::new(); loaded.groups[g].responses.len()];
        for (better, worse) in wins.keys() {
            beats[*better].push(*worse);
        }
        for circle in strongly_connected(&beats).into_iter().filter(|circle| circle.len() > 2) {
            let members: HashSet<usize> = circle.into_iter().collect();
            let inside = wins.iter().filter(|((a, b), _)| members.contains(a) && members.contains(b));
            let mut lines: Vec<&Location> = inside.map(|(_, c)| loaded.groups[g].comparison_location(*c)).collect();
            lines.sort_by_key(|location| location.line);
            let detail = format!("{} responses, lines {}", members.len(), first_lines(&lines));
            self.add("cyclic", lines[0], detail);
        }
    }

    /// What the token limit does to a group.
    fn lengths(&mut self, loaded: &Loaded, g: usize, encode: &Encode) {
        let group = &loaded.groups[g];
        let same_as = group.first_alike();
        let encoded: Vec<Option<EncodedInfo>> = group
            .responses
            .iter()
            .map(|response| {
                let found = encode(group.prompt.as_ref(), &response.content);
                found.map_err(|reason| self.add("refused", &response.location, reason)).ok()
            })
            .collect();
        for (response, info) in group.responses.iter().zip(&encoded) {
            if let Some(info) = info {
                self.reading(response, info);
            }
        }
        for (c, comparison) in group.comparisons.iter().enumerate() {
            let (first, second) = (comparison.first, comparison.second);
            let (Some(a), Some(b)) = (&encoded[first], &encoded[second]) else { continue };
            if same_as[first] != same_as[second] && a.ids == b.ids {
                let detail = format!("the same {} tokens", a.ids.len());
                self.add("identical_after_truncation", loaded.groups[g].comparison_location(c), detail);
            }
        }
    }

    /// What a model reads of a response with its prompt.
    fn reading(&mut self, response: &Response, info: &EncodedInfo) {
        let (at, tokens) = (&response.location, info.tokens_before_truncation);
        if tokens > info.ids.len() {
            self.add("too_long_for_base", at, format!("{tokens} tokens, {} of them are kept", info.ids.len()));
        }
        if info.control_tokens > 0 {
            self.add("control_tokens", at, format!("{} in the prompt and the response", info.control_tokens));
        }
        if info.rewritten {
            self.add("rewritten", at, "the response does not stand in the conversation as it was given".to_owned());
        }
    }

    /// Prompts that stand in several files or in several group rows; the number of distinct prompts.
    fn prompts(&mut self, loaded: &Loaded, eval_from: Option<usize>) -> usize {
        let mut seen: HashMap<String, Vec<(usize, &Location)>> = HashMap::new();
        for (group, origin) in loaded.groups.iter().zip(&loaded.origins) {
            let earlier = seen.entry(group.prompt_key()).or_default();
            let here = earlier.iter().find(|(file, _)| *file == origin.file);
            if let Some((_, first)) = here {
                if origin.kind == Kind::Groups {
                    self.add("repeated_prompt", &group.location, format!("first at {first}"));
                }
                continue;
            }
            if let Some((file, first)) = earlier.first() {
                let leak = eval_from.is_some_and(|from| *file < from && origin.file >= from);
                let code = if leak { "leak" } else { "shared_prompt" };
                self.add(code, &group.location, format!("also at {first}"));
            }
            earlier.push((origin.file, &group.location));
        }
        seen.len()
    }
}

/// The first comparison that says so, for every (better, worse).
type Wins = BTreeMap<(usize, usize), usize>;

const LINES_SHOWN: usize = 8;

fn first_lines(locations: &[&Location]) -> String {
    let lines: Vec<String> = locations.iter().take(LINES_SHOWN).map(|location| location.line.to_string()).collect();
    lines.join(", ") + if locations.len() > LINES_SHOWN { ", …" } else { "" }
}

/// Strongly connected components (Kosaraju 1978), without recursion: chains can be long.
fn strongly_connected(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut reversed = vec![Vec::new(); edges.len()];
    for (from, targets) in edges.iter().enumerate() {
        targets.iter().for_each(|to| reversed[*to].push(from));
    }
    let mut visited = vec![false; edges.len()];
    let finished: Vec<usize> = (0..edges.len()).flat_map(|start| postorder(edges, start, &mut visited)).collect();
    visited.fill(false);
    let components = finished.into_iter().rev().map(|start| postorder(&reversed, start, &mut visited));
    components.filter(|component| !component.is_empty()).collect()
}

/// Unvisited nodes that can be reached from `start`, each after all it leads to.
fn postorder(edges: &[Vec<usize>], start: usize, visited: &mut [bool]) -> Vec<usize> {
    let mut order = Vec::new();
    let mut path = Vec::new();
    if !std::mem::replace(&mut visited[start], true) {
        path.push((start, 0));
    }
    while let Some((node, next)) = path.last_mut() {
        match edges[*node].get(*next) {
            Some(to) => {
                *next += 1;
                if !std::mem::replace(&mut visited[*to], true) {
                    path.push((*to, 0));
                }
            }
            None => {
                order.push(*node);
                path.pop();
            }
        }
    }
    order
}

fn longer_wins(loaded: &Loaded) -> Option<Baseline> {
    let results = loaded.groups.iter().flat_map(|group| {
        let lengths: Vec<usize> = group.responses.iter().map(|response| response.content.chars()).collect();
        group.pairs().map(move |(chosen, rejected, _)| match lengths[chosen].cmp(&lengths[rejected]) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        })
    });
    baseline(results)
}

/// Rows of pairs list the better response first by their format; they say nothing here.
fn first_listed_wins(loaded: &Loaded) -> Option<Baseline> {
    let listed = loaded.groups.iter().flat_map(|group| {
        let is_pair = |c: usize| group.judged.get(c).is_some_and(|row| row.kind == Kind::Pairs);
        group.comparisons.iter().enumerate().filter(move |(c, _)| !is_pair(*c))
    });
    let preferences = listed.filter(|(_, comparison)| !comparison.is_tie());
    baseline(preferences.map(|(_, comparison)| f64::from(u8::from(comparison.target > 0.5))))
}

/// `None` without any pair.
fn baseline(results: impl Iterator<Item = f64>) -> Option<Baseline> {
    let (sum, pairs) = results.fold((0.0, 0), |(sum, pairs), result| (sum + result, pairs + 1));
    (pairs > 0).then(|| Baseline { accuracy: sum / pairs as f64, pairs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_of_a_row_is_reported() {
        let source = include_str!("error.rs");
        let names = source.lines().filter_map(|line| line.trim().strip_prefix("ProblemKind::")?.split_once("=> \""));
        let names: Vec<&str> = names.filter_map(|(_, rest)| rest.strip_suffix("\",")).collect();
        assert!(names.len() > 20, "{names:?}");
        let missing: Vec<_> = names.iter().filter(|name| !FAULTS.iter().any(|(code, ..)| code == *name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
    use crate::data::{Options, ProblemKind, Reader};

    fn load(files: &[&str]) -> Loaded {
        let mut loaded = Loaded::default();
        for (f, text) in files.iter().enumerate() {
            let reader = Reader::from_bytes(&format!("f{f}"), text.as_bytes().to_vec(), &Options::default()).unwrap();
            loaded.read(reader, &Options::default()).unwrap();
        }
        loaded
    }

    /// `code file:line …` of every finding.
    fn found(loaded: &Loaded, options: &CheckOptions) -> Vec<String> {
        let places = |f: &Finding| f.places.iter().map(|p| format!(" {}:{}", p.file, p.line)).collect::<String>();
        run(loaded, options).findings.iter().map(|f| format!("{}{}", f.code, places(f))).collect()
    }

    const PAIRS: &str = "prompt,chosen,rejected\n";
    const RANKS: &str = "prompt,answer,rank\n";
    const VOTES: &str = "prompt,response_a,response_b,label\n";

    /// A header, the rows of each file under it, and the findings.
    type Case = (&'static str, &'static [&'static str], &'static [&'static str]);

    #[rustfmt::skip]
    const CASES: [Case; 13] = [
        (PAIRS, &["p,a,b\n"], &[]),
        (PAIRS, &["p,a,b\np,b,a\np,a,b\n"], &["contradictory f0:3 f0:4", "duplicate_pair f0:4"]),
        (PAIRS, &["p,a,b\np,b,c\np,c,a\nq,a,b\n"], &["cyclic f0:2"]),
        (PAIRS, &["p,a,b\np,b,c\np,c,d\n"], &[]),
        (PAIRS, &["p,a,a\np,,b\np,a,b\n"], &["empty f0:3", "identical f0:2"]),
        (PAIRS, &["p,a,b\n", " p,a,b\nq,c,d\n"], &["shared_prompt f1:2"]),
        (VOTES, &["p,a,b,tie\np,a,b,?\np,a,c,a\n"], &["unknown_label f0:3", "tied f0:2"]),
        (RANKS, &["p,a,1\np,b,2\np,a,3\n"], &["identical f0:4", "contradictory f0:4"]),
        (RANKS, &["p,a,1\np,b,2\np,a,1\n"], &["duplicate_response f0:4"]),
        (RANKS, &["p,a,1\nq,a,1\nq,b,2\n"], &["lone_response f0:2"]),
        (RANKS, &["p,a,1\np,,2\n"], &["nothing_to_learn f0:1", "empty f0:3", "lone_response f0:2"]),
        ("prompt,response\n", &["p,a\np,b\n"], &["no_preference f0:1"]),
        ("prompt,response,attribute:x\n", &["p,a,1\np,b,2\n"], &[]),
    ];

    #[test]
    fn faults() {
        for (header, files, expected) in CASES {
            let files: Vec<String> = files.iter().map(|rows| format!("{header}{rows}")).collect();
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            assert_eq!(found(&load(&files), &CheckOptions::default()), expected, "{files:?}");
        }
    }

    #[test]
    fn a_prompt_in_both_is_a_leak() {
        let loaded = load(&[
            "prompt,chosen,rejected
p,a,b
",
            "prompt,response_a,response_b,label
q,x,y,a
p,x,y,b
",
        ]);
        let options = CheckOptions { eval_from: Some(1), ..CheckOptions::default() };
        let report = run(&loaded, &options);
        assert_eq!(found(&loaded, &options), ["leak f1:3"]);
        assert_eq!((report.count(Severity::Error), report.prompts, report.findings[0].count), (1, 2, 1));
    }

    #[test]
    fn baselines() {
        let report = run(
            &load(&["prompt,chosen,rejected
p,aaa,b
q,b,aaa
r,a,b
s,aa,b
"]),
            &CheckOptions::default(),
        );
        assert_eq!(report.longer_wins, Some(Baseline { accuracy: 0.625, pairs: 4 }));
        assert_eq!(report.first_listed_wins, None);
        let report = run(
            &load(&["prompt,response_a,response_b,label
p,é,bb,a
p,c,dd,b
q,a,b,tie
r,a,b,1
"]),
            &CheckOptions::default(),
        );
        assert_eq!(report.longer_wins, Some(Baseline { accuracy: 0.5, pairs: 3 }));
        assert_eq!(report.first_listed_wins, Some(Baseline { accuracy: 2.0 / 3.0, pairs: 3 }));
    }

    #[test]
    fn attributes_are_counted_over_all_responses() {
        let report = run(
            &load(&[
                "prompt,answer,rank,attribute:tone\np,a,1,4\np,b,2,\np,c,3,-1\n",
                r#"{"prompt":"q","responses":[{"text":"d","attributes":{"tone":null,"truth":2}},{"text":"e"}]}"#,
            ]),
            &CheckOptions::default(),
        );
        let expected = [
            ("tone".to_owned(), Ratings { ratings: 2, missing: 3, min: -1.0, max: 4.0, mean: 1.5 }),
            ("truth".to_owned(), Ratings { ratings: 1, missing: 4, min: 2.0, max: 2.0, mean: 2.0 }),
        ];
        assert_eq!(report.attributes, BTreeMap::from(expected));
        assert_eq!(report.count(Severity::Error), 0);
    }

    #[test]
    fn token_limits() {
        // One token a character, at most three.
        let encode = |_: Option<&Content>, response: &Content| {
            let Content::Text(text) = response else { unreachable!() };
            let ids: Vec<u32> = text.chars().map(u32::from).collect();
            let control_tokens = text.matches('<').count();
            let info = EncodedInfo {
                tokens_before_truncation: ids.len(),
                ids: ids[..ids.len().min(3)].to_vec(),
                control_tokens,
                rewritten: text.contains('>'),
            };
            if text == "no" { Err("no thanks".to_owned()) } else { Ok(info) }
        };
        let options = CheckOptions { encode: Some(&encode), ..CheckOptions::default() };
        let loaded = load(&["prompt,chosen,rejected
p,abcd,abce
p,abc,x
"]);
        assert_eq!(found(&loaded, &options), ["too_long_for_base f0:2 f0:2", "identical_after_truncation f0:2"]);
        let loaded = load(&["prompt,chosen,rejected\np,no,<\np,a>,b\n"]);
        assert_eq!(found(&loaded, &options), ["refused f0:2", "control_tokens f0:2", "rewritten f0:3"]);
        assert_eq!(run(&loaded, &options).findings[0].places[0].detail, "no thanks");
    }

    #[test]
    fn every_problem_has_its_fault() {
        let (text, number) = (String::new, 0);
        let problems = [
            ProblemKind::NotUtf8 { byte: number, place: text() },
            ProblemKind::BadJson { found: text() },
            ProblemKind::Ragged { expected: number, found: number },
            ProblemKind::BadQuote { field: number },
            ProblemKind::TooLong { limit: number },
            ProblemKind::Missing { expected: text(), found: text() },
            ProblemKind::WrongType { column: text(), expected: "", found: text() },
            ProblemKind::OutOfRange { column: text(), expected: "", found: 0.0 },
            ProblemKind::UnknownLabel { found: text() },
            ProblemKind::EmptyText { column: text() },
            ProblemKind::TooFew { found: number },
            ProblemKind::Identical,
            ProblemKind::RankedTwice { earlier: Location { file: "f".into(), line: 1 } },
            ProblemKind::OtherPrompt { column: text() },
        ];
        for problem in problems {
            assert!(FAULTS.iter().any(|(code, ..)| *code == problem.name()), "{problem}");
        }
        assert!(FAULTS.is_sorted_by_key(|(_, severity, _)| *severity));
    }

    #[test]
    fn long_chains_do_not_recurse() {
        let chain: Vec<Vec<usize>> = (0..200_000).map(|node| vec![(node + 1) % 200_000]).collect();
        assert_eq!(strongly_connected(&chain).len(), 1);
        let tree = vec![vec![1, 2], vec![2], vec![]];
        assert_eq!(strongly_connected(&tree).len(), 3);
    }
}
