//! How the end-to-end tests call the real binary.
#![allow(dead_code, reason = "each test file uses a part of it")]

use assert_cmd::cargo::cargo_bin;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A tiny base with its tokenizer and pairs of text, which the goldens of training were made with.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models/trl_text")
}

/// A command in a directory of the test's own.
pub fn kudos(dir: &Path) -> Command {
    let mut command = Command::new(cargo_bin("kudos"));
    command.current_dir(dir);
    command
}

/// Runs to the end, however it ends.
pub fn run(dir: &Path, args: &[&str]) -> Output {
    kudos(dir).args(args).output().unwrap()
}

/// What a command that must succeed prints.
pub fn ok(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert!(output.status.success(), "kudos {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The message of a command that must fail with status 1 and without a panic.
pub fn error(dir: &Path, args: &[&str]) -> String {
    failure(dir, args, 1)
}

/// The message of a command that must be refused as wrong usage, whatever the files hold: status 2.
pub fn usage(dir: &Path, args: &[&str]) -> String {
    failure(dir, args, 2)
}

fn failure(dir: &Path, args: &[&str], status: i32) -> String {
    let output = run(dir, args);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "kudos {}: {message}", args.join(" "));
    assert!(!message.contains("panicked"), "{message}");
    message
}
