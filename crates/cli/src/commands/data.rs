//! How DATA is read: the flags that every such command has, and what is said of the files once.
//!
//! A database of `kudos rank` is DATA too. It is read as the groups that `kudos rank export` would write of it.

use super::{Global, Usage};
use anyhow::bail;
use kudos::data::{FileInfo, Loaded, Mapping, MappingText, Options, OutputFormat, Reader, Writer};
use rank::export::{Export, Format};
use rank::merge::MergeSettings;
use rank::{Store, is_ranking_database};
use std::collections::HashSet;
use std::path::Path;
use tempfile::NamedTempFile;

/// Which columns hold what, where the file itself does not say it.
#[derive(Clone, Debug, Default, clap::Args, serde::Serialize)]
pub struct DataArgs {
    /// Which columns of DATA are meant: prompt=question.text,response_a=left
    #[arg(long, value_name = "TO=FROM")]
    columns: Vec<String>,
    /// What labels mean: a=1,b=0,tie=draw
    #[arg(long, value_name = "TO=VALUE")]
    labels: Vec<String>,
    /// The column of ratings: higher is better
    #[arg(long, value_name = "COLUMN", conflicts_with = "rank")]
    rating: Option<String>,
    /// The column of ranks: 1 is best
    #[arg(long, value_name = "COLUMN")]
    rank: Option<String>,
    /// The column that says whose ranking a row belongs to [default: annotator, worker, user, judge or session]
    #[arg(long, value_name = "COLUMN")]
    group_by: Option<String>,
}

impl DataArgs {
    /// How the files are read.
    pub fn options(&self, strict: bool) -> anyhow::Result<Options> {
        let text = MappingText {
            columns: self.columns.clone(),
            labels: self.labels.clone(),
            rating: self.rating.clone(),
            rank: self.rank.clone(),
            group_by: self.group_by.clone(),
        };
        let mapping = Mapping::parse(&text).map_err(|error| Usage(error.to_string()))?;
        Ok(Options { strict, mapping, ..Options::default() })
    }
}

/// As [`kudos::data::load_groups`], of databases too.
pub fn load_groups<P: AsRef<Path>>(paths: &[P], options: &Options) -> anyhow::Result<Loaded> {
    let mut loaded = Loaded::default();
    for path in paths {
        match exported(path.as_ref(), options)? {
            None => loaded.read(Reader::open(path, options)?, options)?,
            Some((file, export)) => {
                let name = path.as_ref().to_string_lossy();
                loaded.read(Reader::from_read(&name, file.reopen()?, options)?, options)?;
                if let Some(info) = loaded.files.last_mut() {
                    info.layout = Some("a database of kudos rank".to_owned());
                    info.notes.extend(export.notes);
                }
            }
        }
    }
    Ok(loaded)
}

/// As [`Reader::open`], of a database too.
pub fn open(path: &Path, options: &Options) -> anyhow::Result<Reader> {
    match exported(path, options)? {
        None => Ok(Reader::open(path, options)?),
        Some((file, _)) => Ok(Reader::from_read(&path.to_string_lossy(), file.reopen()?, options)?),
    }
}

/// As [`kudos::data::column_names`], of a database too.
pub fn column_names(path: &Path, options: &Options) -> anyhow::Result<Option<HashSet<String>>> {
    match exported(path, options)? {
        None => Ok(kudos::data::column_names(path, options)?),
        Some((file, _)) => Ok(kudos::data::column_names(file.path(), options)?),
    }
}

/// The groups of a database in a file of their own, for as long as they are read; `None` for any other file. Where labels are
/// not read, items that nobody ranked are among them.
fn exported(path: &Path, options: &Options) -> anyhow::Result<Option<(NamedTempFile, Export)>> {
    // What cannot be opened is left to the reader, whose message says more.
    if !is_ranking_database(path).unwrap_or(false) {
        return Ok(None);
    }
    let export = Store::read(path)?.export(Format::Groups, &MergeSettings::default(), !options.labelled)?;
    if export.rows.is_empty() {
        bail!("{}: expected rankings, found none yet; rank some with `kudos rank {0}`", path.display());
    }
    let file = NamedTempFile::new()?;
    let mut writer = Writer::create(file.path(), OutputFormat::default())?;
    for row in &export.rows {
        writer.write(row)?;
    }
    writer.finish()?;
    // The writer has put a new file under the name.
    let file = NamedTempFile::from_parts(std::fs::File::open(file.path())?, file.into_temp_path());
    Ok(Some((file, export)))
}

/// Says what each file was read as, once.
pub fn announce(files: &[FileInfo], global: &Global) {
    if !global.quiet {
        files.iter().for_each(|file| say(&file.file, file.layout.as_deref(), &file.notes));
    }
}

/// The same of one file.
pub fn say(file: &str, layout: Option<&str>, notes: &[String]) {
    if let Some(layout) = layout {
        say!("{file}: read as {layout}");
    }
    notes.iter().for_each(|note| say!("{file}: {note}"));
}
