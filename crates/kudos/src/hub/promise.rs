//! What a server promises about a file's bytes, and the check that they are those.

use std::fs;
use std::path::Path;

use sha1::{Digest, Sha1};

use super::error::HubError;
use super::hash::{hex, read_through, sha256_of};

/// The digest in the hub's entity tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Promise {
    /// A file in large-file storage: the SHA-256 of its bytes.
    Sha256(String),
    /// A file in git: the SHA-1 of its blob object.
    GitBlob(String),
    /// A tag of another form, which some mirrors send: nothing to check.
    Nothing,
}

impl Promise {
    /// Reads an entity tag: 64 hexadecimal digits are a SHA-256, 40 a git blob.
    pub fn of_etag(etag: &str) -> Self {
        let is_hex = etag.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
        match etag.len() {
            64 if is_hex => Self::Sha256(etag.to_string()),
            40 if is_hex => Self::GitBlob(etag.to_string()),
            _ => Self::Nothing,
        }
    }

    /// Compares the file with the promise; `what` names it in the error.
    pub fn check(&self, path: &Path, what: &str) -> Result<(), HubError> {
        let (algorithm, expected, found) = match self {
            Self::Sha256(expected) => ("sha256", expected, sha256_of(path)?),
            Self::GitBlob(expected) => ("git blob sha1", expected, git_blob_of(path)?),
            Self::Nothing => return Ok(()),
        };
        if *expected == found {
            return Ok(());
        }
        Err(HubError::Checksum { what: what.to_string(), algorithm, expected: expected.clone(), found })
    }
}

/// SHA-1 of git's blob object: `blob <length>\0` and the bytes.
fn git_blob_of(path: &Path) -> Result<String, HubError> {
    let metadata = fs::metadata(path).map_err(HubError::io(path, "read the file"))?;
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", metadata.len()));
    read_through(path, |bytes| hasher.update(bytes))?;
    Ok(hex(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_git_and_sha256sum() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "hello\n").unwrap();
        let git = Promise::of_etag("ce013625030ba8dba906f756967f9e9ca394464a");
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert!(matches!(git, Promise::GitBlob(_)));
        git.check(&path, "x").unwrap();
        Promise::of_etag(sha256).check(&path, "x").unwrap();
        fs::write(&path, "hullo\n").unwrap();
        assert!(matches!(git.check(&path, "x"), Err(HubError::Checksum { .. })));
        assert_eq!(Promise::of_etag("some-other-tag"), Promise::Nothing);
    }
}
