//! One process at one unit: a locked temporary file, which becomes the part. The manifest is written so, too.
//!
//! A lock ends with its process, however that dies. So a temporary file without a lock is left over, and one with a lock says
//! that its unit is being done. Where a file system has no locks, units may be done twice, and what is left over stays.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Start of the names of parts that are being written.
const PREFIX: &str = ".writing-";

/// The right to write a part, which others see.
pub struct Claim {
    file: NamedTempFile,
    path: PathBuf,
}

impl Claim {
    /// Claims the part of this path; `None` if another process has it, unless that is to be `beside` others.
    ///
    /// # Errors
    /// If no file can be made there.
    pub fn take(path: &Path, beside: bool) -> io::Result<Option<Claim>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (dir, prefix) = (path.parent().unwrap_or(Path::new(".")), format!("{PREFIX}{name}-"));
        if !beside && is_claimed(dir, &prefix)? {
            return Ok(None);
        }
        loop {
            let mut builder = tempfile::Builder::new();
            builder.prefix(&prefix);
            // `tempfile` makes private files; a part should have the rights of any other new file.
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
            let file = builder.tempfile_in(dir)?;
            // Before it was locked, another process may have taken it for left over.
            if !matches!(file.as_file().try_lock(), Err(TryLockError::WouldBlock)) && file.path().exists() {
                return Ok(Some(Claim { file, path: path.to_owned() }));
            }
        }
    }

    /// Writes the part: it is on the disk before it has its name.
    ///
    /// # Errors
    /// If the disk is full or fails. There is no part then.
    pub fn write(self, bytes: &[u8]) -> io::Result<()> {
        self.write_then(bytes, |file, path| file.persist(path).map_err(|error| error.error))
    }

    /// As [`Self::write`], where there is no such file yet.
    ///
    /// # Errors
    /// As [`Self::write`]; and if there is one, with the kind [`io::ErrorKind::AlreadyExists`].
    pub(super) fn write_new(self, bytes: &[u8]) -> io::Result<()> {
        self.write_then(bytes, |file, path| file.persist_noclobber(path).map_err(|error| error.error))
    }

    fn write_then(
        mut self,
        bytes: &[u8],
        publish: impl FnOnce(NamedTempFile, &Path) -> io::Result<File>,
    ) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.file.as_file().sync_all()?;
        publish(self.file, &self.path)?;
        // A file system that cannot sync a directory has written the name by itself.
        let _ = self.path.parent().map(|dir| File::open(dir)?.sync_all());
        Ok(())
    }
}

/// Whether a living process has a file with this beginning of its name.
fn is_claimed(dir: &Path, prefix: &str) -> io::Result<bool> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) && is_locked(&entry.path()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Removes what killed processes left in the directory of a job, and nothing that a living one writes.
///
/// # Errors
/// If the directory cannot be read.
pub fn remove_leftovers(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // Another process may remove it at the same time, or give it its name.
        if File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_claim_is_seen_until_its_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part-1");
        let claim = Claim::take(&path, false).unwrap().unwrap();
        assert!(Claim::take(&path, false).unwrap().is_none(), "it is taken");
        assert!(Claim::take(&dir.path().join("part-2"), false).unwrap().is_some(), "another one is not");
        let beside = Claim::take(&path, true).unwrap().unwrap();
        remove_leftovers(dir.path()).unwrap();
        beside.write(b"same").unwrap();
        claim.write(b"same").unwrap();
        assert_eq!((names(dir.path()), std::fs::read(&path).unwrap()), (vec!["part-1".to_owned()], b"same".to_vec()));
    }

    #[test]
    fn what_is_left_over_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part-1");
        let claim = Claim::take(&path, false).unwrap().unwrap();
        let left_over = claim.file.path().to_owned();
        claim.file.keep().unwrap(); // closes it, as the end of its process does
        assert!(left_over.exists());
        assert!(Claim::take(&path, false).unwrap().is_some(), "nobody has it");
        remove_leftovers(dir.path()).unwrap();
        assert!(names(dir.path()).is_empty());
    }
}
