//! Chat templates made of the bytes: none may panic, run on and on, or fill the memory.
#![no_main]

use std::sync::LazyLock;
use tempfile::TempDir;

static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

libfuzzer_sys::fuzz_target!(|data: &[u8]| kudos_fuzz::templates::render(DIRECTORY.path(), data));
