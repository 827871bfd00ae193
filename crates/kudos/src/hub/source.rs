//! The note beside a model's files that says where they came from: `kudos-source.json`.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cache::write_atomically;
use super::error::HubError;

/// The note's file name.
pub(super) const SOURCE_FILE: &str = "kudos-source.json";

/// Where the files beside this note came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Provenance {
    /// Version of this note's format: 1.
    pub format: u32,
    /// The name that was pulled.
    pub name: String,
    /// The repository on the hub.
    pub repo: String,
    /// The branch, tag or commit that was asked for.
    pub asked: String,
    /// What that was: the commit, or the version of the package.
    pub revision: String,
    /// The hub's address, or the package.
    pub source: String,
    /// How the files differ from the hub's, in words; empty when they do not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub difference: String,
    /// The files, as they were written.
    pub files: Vec<SourceFile>,
}

/// One file of a [`Provenance`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SourceFile {
    /// Path in the folder.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

impl Provenance {
    /// The note in `dir`, if there is a readable one.
    pub fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join(SOURCE_FILE)).ok()?).ok()
    }

    /// Writes the note into `dir`.
    pub fn write(&self, dir: &Path) -> Result<(), HubError> {
        let path = dir.join(SOURCE_FILE);
        let mut text =
            serde_json::to_vec_pretty(self).map_err(|error| HubError::io(&path, "write the file")(error.into()))?;
        text.push(b'\n');
        write_atomically(&path, &text)
    }

    /// Whether these are the files of `repo` at `revision` (as asked for, or the commit itself).
    pub fn is_of(&self, repo: &str, revision: &str) -> bool {
        self.repo == repo && (self.asked == revision || self.revision == revision)
    }
}
