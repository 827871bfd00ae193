//! How DATA is read: the flags that every such command has, and what is said of the files once.

use super::{Global, Usage};
use kudos::data::{FileInfo, Mapping, MappingText, Options};

/// Which columns hold what, where the file itself does not say it.
#[derive(Clone, Debug, Default, clap::Args)]
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

/// Says what each file was read as, once.
pub fn announce(files: &[FileInfo], global: &Global) {
    if !global.quiet {
        files.iter().for_each(|file| say(&file.file, file.layout.as_deref(), &file.notes));
    }
}

/// The same of one file.
pub fn say(file: &str, layout: Option<&str>, notes: &[String]) {
    if let Some(layout) = layout {
        eprintln!("{file}: read as {layout}");
    }
    notes.iter().for_each(|note| eprintln!("{file}: {note}"));
}
