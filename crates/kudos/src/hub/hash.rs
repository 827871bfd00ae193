//! SHA-256 of files, for checking them and for saying which ones they were.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::HubError;

/// SHA-256 of a file, in lower-case hexadecimal.
pub(super) fn sha256_of(path: &Path) -> Result<String, HubError> {
    let mut hasher = Sha256::new();
    read_through(path, |bytes| hasher.update(bytes))?;
    Ok(hex(&hasher.finalize()))
}

/// SHA-256 of bytes, in lower-case hexadecimal.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Feeds a file's bytes to `sink`, a buffer at a time.
pub(super) fn read_through(path: &Path, mut sink: impl FnMut(&[u8])) -> Result<(), HubError> {
    let mut file = File::open(path).map_err(HubError::io(path, "open the file"))?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = file.read(&mut buffer).map_err(HubError::io(path, "read the file"))?;
        if read == 0 {
            return Ok(());
        }
        sink(&buffer[..read]);
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
