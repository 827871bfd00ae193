//! The Hugging Face cache on disk, read and written as their own tools do.
//!
//! ```text
//! $HF_HUB_CACHE/models--org--name/blobs/<etag>                 the bytes, named by their digest
//! $HF_HUB_CACHE/models--org--name/blobs/<etag>.incomplete      a download that can go on
//! $HF_HUB_CACHE/models--org--name/snapshots/<commit>/<file> →  ../../blobs/<etag>
//! $HF_HUB_CACHE/models--org--name/refs/<revision>              the commit, as text
//! $HF_HUB_CACHE/.locks/models--org--name/<etag>.lock           held while a blob is written
//! ```
//!
//! A snapshot's links and its ref are made only after all its blobs are there, so a model that can be
//! found is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::HubError;

/// Temporary files named so far by this process.
static TEMPORARIES: AtomicU64 = AtomicU64::new(0);

/// One repository's folder in the cache.
#[derive(Debug, Clone)]
pub(super) struct RepoCache {
    cache: PathBuf,
    folder: String,
}

impl RepoCache {
    /// The folder of `repo` (`org/name`) in `cache`; nothing is created.
    pub fn new(cache: &Path, repo: &str) -> Self {
        Self { cache: cache.to_path_buf(), folder: format!("models--{}", repo.replace('/', "--")) }
    }

    /// The snapshot that `revision` (branch, tag or commit) stands for, if it is on disk.
    pub fn snapshot(&self, revision: &str) -> Option<PathBuf> {
        let commit = match fs::read_to_string(self.reference(revision)) {
            Ok(commit) => commit.trim().to_string(),
            Err(_) => revision.to_string(),
        };
        let is_one_name = !commit.is_empty() && !commit.contains(['/', '\\', '.']);
        Some(self.snapshot_dir(&commit)).filter(|dir| is_one_name && dir.is_dir())
    }

    /// Where the files of `commit` are linked.
    pub fn snapshot_dir(&self, commit: &str) -> PathBuf {
        self.root().join("snapshots").join(commit)
    }

    fn root(&self) -> PathBuf {
        self.cache.join(&self.folder)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.root().join("refs").join(revision)
    }
}

#[cfg(feature = "hub")]
impl RepoCache {
    /// Where the bytes with this digest live.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.root().join("blobs").join(etag)
    }

    /// Where they live until they are all there.
    pub fn incomplete(&self, etag: &str) -> PathBuf {
        self.root().join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The file whose lock is held while that blob is written: the one huggingface_hub locks too.
    pub fn lock_file(&self, etag: &str) -> PathBuf {
        let locks = self.cache.join(".locks").join(&self.folder);
        locks.join(format!("{etag}.lock"))
    }

    /// Makes `file` of `commit` stand for the blob `etag`.
    pub fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let pointer = self.snapshot_dir(commit).join(file);
        let folder = pointer.parent().unwrap_or(&pointer);
        fs::create_dir_all(folder).map_err(HubError::io(folder, "create the folder"))?;
        let up = "../".repeat(file.split('/').count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        if fs::read_link(&pointer).is_ok_and(|found| found == target) {
            return Ok(());
        }
        let fresh = temporary(&pointer);
        symlink_or_copy(&target, &self.blob(etag), &fresh)
            .and_then(|()| fs::rename(&fresh, &pointer))
            .map_err(HubError::io(&pointer, "link the file"))
    }

    /// Makes `revision` stand for `commit`; a commit stands for itself.
    pub fn set_reference(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        write_atomically(&self.reference(revision), commit.as_bytes())
    }
}

/// Writes beside, then renames: a reader sees the old bytes or the new ones.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(HubError::io(folder, "create the folder"))?;
    let fresh = temporary(path);
    fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, path)).map_err(HubError::io(path, "write the file"))
}

/// A name beside `path` that no other process or thread uses.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    let count = TEMPORARIES.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}-{count}.tmp", std::process::id()));
    PathBuf::from(name)
}

#[cfg(all(feature = "hub", unix))]
fn symlink_or_copy(target: &Path, _blob: &Path, pointer: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, pointer)
}

/// Links need a privilege on Windows; huggingface_hub copies there too.
#[cfg(all(feature = "hub", not(unix)))]
fn symlink_or_copy(_target: &Path, blob: &Path, pointer: &Path) -> std::io::Result<()> {
    fs::copy(blob, pointer).map(|_| ())
}
