//! Another program that reads the database while people rank, as a backup or a notebook does, takes nothing away.

use rank::Store;
use std::path::Path;
use std::process::Command;

const DATABASE: &str = "KUDOS_TEST_DATABASE";

/// Reads the names in a process of its own, as any program with SQLite would.
fn names_elsewhere(path: &Path) -> usize {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let command = command.args(["--exact", "reads_and_ends", "--ignored", "--nocapture"]).env(DATABASE, path);
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let count = output.split("names: ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    count.unwrap_or_else(|| panic!("{output}"))
}

#[test]
#[ignore = "a part of the test below, in a process of its own"]
fn reads_and_ends() {
    let path = std::env::var(DATABASE).unwrap();
    let connection = rusqlite::Connection::open(path).unwrap();
    let count: i64 = connection.query_row("SELECT count(*) FROM annotator", [], |row| row.get(0)).unwrap();
    println!("names: {count} ");
}

/// Closing a file frees all locks of a process on it. A handle that was closed too late let the other program take itself
/// for the last one, delete the log, and with it all that was written later.
#[test]
fn what_is_written_after_another_program_has_read_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.rankings.db");
    for session in ["made", "opened"] {
        let store = Store::open_or_create(&path).unwrap();
        store.annotator(&format!("before, {session}")).unwrap();
        let before = names_elsewhere(&path);
        store.annotator(&format!("after, {session}")).unwrap();
        assert_eq!(names_elsewhere(&path), before + 1, "in a database that was {session}");
    }
}

#[test]
fn a_database_is_recognised_while_its_first_session_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.rankings.db");
    let _open = Store::create(&path).unwrap();
    assert!(rank::is_ranking_database(&path).unwrap());
}
