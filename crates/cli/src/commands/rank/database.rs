//! DATA and the database: opened, made, and filled with what is new.

use super::super::train::report_problems;
use super::super::{Global, Usage};
use super::Args;
use anyhow::Context;
use kudos::data::{Kind, Loaded, Options, Reader, load_groups};
use rank::{AnnotatorId, Import, ImportSource, QueueSettings, Store, is_ranking_database};
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the name of a database ends with, where none was given.
const ENDING: &str = "rankings.db";

/// A database that is ready to rank from.
pub struct Opened {
    /// The database.
    pub store: Arc<Store>,
    /// Whether the data are judgements of two responses, whose labels are under review.
    pub is_judged: bool,
    /// True while further prompts come in on standard input.
    pub more: Arc<AtomicBool>,
}

impl Opened {
    /// A database into which nothing more comes.
    fn complete(store: Store, is_judged: bool) -> Opened {
        Opened { store: Arc::new(store), is_judged, more: Arc::default() }
    }
}

/// Opens or makes the database, and takes the data into it.
pub fn open(args: &Args, global: &Global) -> anyhow::Result<Opened> {
    let Some(first) = args.data.first().or(args.database.as_ref()) else {
        return Err(Usage("expected DATA to rank, found none; see kudos rank --help".into()).into());
    };
    if is_ranking_database(first)? {
        return reopen(args, first, global);
    }
    let path = args.database.clone().unwrap_or_else(|| beside(first));
    if args.data == [Path::new("-")] && !args.terminal {
        return from_input(args, &path, global);
    }
    let loaded = load(args)?;
    fill(args, &path, &loaded, global)
}

/// Rows of groups on standard input are ranked while others are still being written; anything else is read to its end first.
fn from_input(args: &Args, path: &Path, global: &Global) -> anyhow::Result<Opened> {
    let options = Options { labelled: false, ..args.input.options(args.strict)? };
    let mut input = BufReader::new(std::io::stdin());
    let mut first = String::new();
    while first.trim().is_empty() && input.read_line(&mut first).context("standard input")? > 0 {}
    let row = serde_json::from_str::<serde_json::Value>(&first).unwrap_or_default();
    if row.get("prompt").is_none() || row.get("responses").is_none() {
        let mut loaded = Loaded::default();
        loaded.read(Reader::from_read("-", Cursor::new(first).chain(input), &options)?, &options)?;
        return fill(args, path, &[loaded], global);
    }
    let store = Arc::new(Store::open_or_create(path)?);
    take_row(&store, first, &options)?;
    let more = Arc::new(AtomicBool::new(true));
    let (filling, waiting) = (store.clone(), more.clone());
    std::thread::spawn(move || {
        for row in input.lines() {
            let is_broken = row.is_err();
            let taken = row.map_err(anyhow::Error::from).and_then(|row| take_row(&filling, row, &options));
            if let Err(error) = taken {
                say!("standard input: not taken: {error:#}");
            }
            if is_broken {
                break;
            }
        }
        waiting.store(false, Ordering::Release);
    });
    Ok(Opened { store, is_judged: false, more })
}

/// One more prompt with its responses. A row that cannot be used is said and left out.
fn take_row(store: &Store, row: String, options: &Options) -> anyhow::Result<()> {
    if row.trim().is_empty() {
        return Ok(());
    }
    let mut loaded = Loaded::default();
    loaded.read(Reader::from_bytes("standard input", row.into_bytes(), options)?, options)?;
    loaded.problems.iter().for_each(|problem| say!("not used: {problem}"));
    let source = ImportSource { file: "standard input".to_owned(), sha256: loaded.files[0].sha256.clone() };
    let report = store.import(&loaded, &source, Import::Add)?;
    if let Some(left_out) = report.left_out() {
        say!("standard input: left out: {left_out}");
    }
    Ok(())
}

/// Makes or opens the database, and takes what was loaded into it.
fn fill(args: &Args, path: &Path, loaded: &[Loaded], global: &Global) -> anyhow::Result<Opened> {
    let is_new = !path.exists();
    let store = Store::open_or_create(path)?;
    let fill = |(place, loaded): (usize, &Loaded)| {
        // A new database takes all of DATA; an old one knows the files, or is told to take them.
        let mode = if args.add || (is_new && place > 0) { Import::Add } else { Import::New };
        import(&store, loaded, mode, global)
    };
    if let Err(error) = loaded.iter().enumerate().try_for_each(fill) {
        drop(store);
        if is_new {
            remove(path);
        }
        return Err(error);
    }
    let is_judged = loaded.iter().flat_map(|loaded| &loaded.files).all(|file| is_judgement(file.kind));
    Ok(Opened::complete(store, is_judged))
}

/// A database into which nothing came.
fn remove(path: &Path) {
    let mut lock = path.as_os_str().to_owned();
    lock.push("-lock");
    let _ = (std::fs::remove_file(path), std::fs::remove_file(lock));
}

fn reopen(args: &Args, database: &Path, global: &Global) -> anyhow::Result<Opened> {
    if args.data.len() > 1 || (args.database.is_some() && !args.data.is_empty()) {
        let found = database.display();
        return Err(
            Usage(format!("expected one database, found {found} beside other files; give it as --database")).into()
        );
    }
    let store = Store::open(database)?;
    if !global.quiet {
        let all = store.progress(AnnotatorId(0), &QueueSettings::default());
        say!("{}: {} prompts, {} rankings", database.display(), all.items, all.rankings);
    }
    Ok(Opened::complete(store, false))
}

/// Each file on its own: a database knows its sources by their hashes.
fn load(args: &Args) -> anyhow::Result<Vec<Loaded>> {
    let options = Options { labelled: false, ..args.input.options(args.strict)? };
    args.data.iter().map(|file| Ok(load_groups(std::slice::from_ref(file), &options)?)).collect()
}

fn import(store: &Store, loaded: &Loaded, mode: Import, global: &Global) -> anyhow::Result<()> {
    report_problems(loaded, global);
    let Some(file) = loaded.files.first() else { return Ok(()) };
    let source = ImportSource { file: file.file.clone(), sha256: file.sha256.clone() };
    let report = store.import(loaded, &source, mode)?;
    if !global.quiet {
        let known = if report.known > 0 { format!(", {} known", report.known) } else { String::new() };
        say!("{}: {} new prompts with {} responses{known}", file.file, report.items, report.responses);
        if let Some(left_out) = report.left_out() {
            say!("{}: left out: {left_out}", file.file);
        }
    }
    Ok(())
}

/// Pairs and comparisons say which of two is better; other layouts have no such label, or a whole ranking.
fn is_judgement(kind: Option<Kind>) -> bool {
    matches!(kind, Some(Kind::Pairs | Kind::Comparisons))
}

/// `answers.csv.gz` → `answers.rankings.db`, beside it; for standard input, in the working directory.
fn beside(data: &Path) -> PathBuf {
    let name = data.file_name().map(|name| name.to_string_lossy().into_owned()).filter(|name| name != "-");
    let name = name.unwrap_or_else(|| "stdin".into());
    let stem = name.split('.').find(|part| !part.is_empty()).unwrap_or("data").to_owned();
    data.with_file_name(format!("{stem}.{ENDING}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_stand_beside_their_data() {
        let cases = [
            ("answers.csv", "answers.rankings.db"),
            ("a/b.jsonl.gz", "a/b.rankings.db"),
            ("-", "stdin.rankings.db"),
            (".hidden.csv", "hidden.rankings.db"),
            ("plain", "plain.rankings.db"),
        ];
        for (data, expected) in cases {
            assert_eq!(beside(Path::new(data)), Path::new(expected), "{data}");
        }
    }
}
