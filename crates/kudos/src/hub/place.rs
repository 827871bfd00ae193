//! Putting a whole folder of files in its place at once, with a note of where they came from.
//!
//! Files are staged beside the destination and renamed over it, under a lock for that destination: a
//! reader sees no folder, the old one, or the new one, and two pulls of one model do not meet.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::HubError;
use super::hash::{sha256_hex, sha256_of};
use super::local::files_below;
use super::source::{Provenance, SourceFile};
use super::{Progress, Report};

/// Refuses a folder that holds anything but an earlier pull of `repo`.
pub(super) fn check_destination(dir: &Path, repo: &str, name: &str) -> Result<(), HubError> {
    let is_ours = Provenance::read(dir).is_some_and(|source| source.repo == repo);
    let is_empty = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !dir.exists(),
    };
    if is_ours || is_empty {
        return Ok(());
    }
    Err(HubError::Occupied { dir: dir.to_path_buf(), name: name.to_string() })
}

/// Copies the model in `from` to `destination` as plain files, with `source` as its note.
///
/// Of several GGUF files only `gguf` is copied.
pub(super) fn copy_model(
    from: &Path,
    gguf: Option<&str>,
    mut source: Provenance,
    staging: Staging,
) -> Result<PathBuf, HubError> {
    source.files.clear();
    for name in files_below(from) {
        if name.ends_with(".gguf") && gguf.is_some_and(|gguf| gguf != name) {
            continue;
        }
        source.files.push(copy_file(from, staging.dir(), &name)?);
    }
    source.write(staging.dir())?;
    staging.finish()
}

fn copy_file(from: &Path, to: &Path, name: &str) -> Result<SourceFile, HubError> {
    let target = to.join(name);
    let folder = target.parent().unwrap_or(to);
    fs::create_dir_all(folder).map_err(HubError::io(folder, "create the folder"))?;
    let bytes = fs::copy(from.join(name), &target).map_err(HubError::io(&target, "copy the file"))?;
    Ok(SourceFile { name: name.to_string(), bytes, sha256: sha256_of(&target)? })
}

/// A folder beside its destination, removed again unless it is put in place.
pub(super) struct Staging {
    dir: PathBuf,
    destination: PathBuf,
    _lock: File,
}

impl Staging {
    /// Waits for the lock on `destination` and opens an empty folder beside it. `home` holds the locks.
    pub fn begin(destination: &Path, home: &Path, report: Report) -> Result<Self, HubError> {
        let destination =
            std::path::absolute(destination).map_err(HubError::io(destination, "find the current folder"))?;
        let lock = lock(&lock_file(&destination, home), report)?;
        let dir = beside(&destination, "pulling");
        // Under the lock, a staging folder is the leftover of a pull that was killed.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).map_err(HubError::io(&dir, "create the folder"))?;
        Ok(Self { dir, destination, _lock: lock })
    }

    /// The folder to fill.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts the folder in place of whatever was there.
    pub fn finish(self) -> Result<PathBuf, HubError> {
        let old = beside(&self.destination, "old");
        let _ = fs::remove_dir_all(&old);
        if self.destination.exists() {
            fs::rename(&self.destination, &old).map_err(HubError::io(&self.destination, "move the old folder away"))?;
        }
        fs::rename(&self.dir, &self.destination).map_err(HubError::io(&self.destination, "put the folder in place"))?;
        let _ = fs::remove_dir_all(&old);
        Ok(self.destination.clone())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// `path` opened and locked; the lock goes with the file. Tells the user when it has to wait.
pub(super) fn lock(path: &Path, report: Report) -> Result<File, HubError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(HubError::io(folder, "create the folder"))?;
    let file = File::create(path).map_err(HubError::io(path, "create the lock file"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            report(Progress::Note("waiting for another pull of this file".to_string()));
            file.lock().map_err(HubError::io(path, "lock the file"))?;
            Ok(file)
        }
        // Some network file systems have no locks; the digest still catches two writers.
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(source)) => Err(HubError::io(path, "lock the file")(source)),
    }
}

/// One lock a destination, wherever that is; in Kudos' own folder, so that no litter stays beside it.
fn lock_file(destination: &Path, home: &Path) -> PathBuf {
    let digest = sha256_hex(destination.as_os_str().as_encoded_bytes());
    home.join("locks").join(format!("{}.lock", &digest[..16]))
}

fn beside(destination: &Path, what: &str) -> PathBuf {
    let name = destination.file_name().unwrap_or_default().to_string_lossy();
    destination.with_file_name(format!(".{name}.{what}"))
}
