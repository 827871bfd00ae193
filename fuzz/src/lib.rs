//! What targets do with their bytes: most read all rows and group them. Nothing may panic.

pub mod templates;

use kudos::data::{Loaded, Options, Reader, check, preferences};

/// Reads the bytes as a data file, to the end or to the first error that ends it.
pub fn read(bytes: Vec<u8>) {
    let options = Options {
        max_row_bytes: 1 << 12,
        ..Options::default()
    };
    let Ok(reader) = Reader::from_bytes("fuzz", bytes, &options) else {
        return;
    };
    let mut loaded = Loaded::default();
    if loaded.read(reader, &options).is_ok() {
        assert_eq!(preferences(&loaded).count(), loaded.pairs());
        check::run(&loaded, &check::CheckOptions::default());
    }
}

/// Overwrites bytes of a sound file: three bytes of `changes` are a place and a value.
pub fn damaged(sound: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for change in changes.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
        bytes[place] = change[2];
    }
    bytes
}
