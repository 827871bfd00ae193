//! How the program starts itself again: the self-test runs its commands, and the ranking page trains.

use anyhow::Context;
use std::ffi::OsString;
use std::sync::OnceLock;

static WORDS: OnceLock<Vec<OsString>> = OnceLock::new();

/// Says what starts Kudos where the running program is another: a Python interpreter. The first call holds.
pub fn set_program(words: Vec<OsString>) {
    let _ = WORDS.set(words);
}

/// What starts Kudos: the program, and the arguments that come first.
pub(crate) fn words() -> anyhow::Result<Vec<OsString>> {
    match WORDS.get() {
        Some(words) => Ok(words.clone()),
        None => {
            Ok(vec![std::env::current_exe().context("cannot find this program again to start its commands")?.into()])
        }
    }
}
