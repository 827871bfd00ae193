//! A repository's files, from the hub into its cache: listed, measured, fetched, checked, linked.
//!
//! What makes an interruption harmless is the order. Bytes go to `<etag>.incomplete` and continue from
//! its end next time; a file becomes a blob when its digest is right; the snapshot is linked when all
//! blobs are there; the revision points to it last.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;

use serde::Deserialize;

use super::cache::RepoCache;
use super::client::{ATTEMPTS, Client, Request, percent_encode};
use super::error::HubError;
use super::name::ModelName;
use super::place::lock;
use super::promise::Promise;
use super::select::select;
use super::{Progress, PullOptions, Report, Settings};
use crate::http::{Response, header};

/// The hub's answer to `/api/models/{id}/revision/{revision}`, as far as it matters here.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// A file as the server describes it.
#[derive(Debug)]
struct RemoteFile {
    name: String,
    url: String,
    etag: String,
    size: Option<u64>,
}

/// Fetches what is needed of the repository and gives its snapshot folder.
pub(super) fn pull_repository(
    name: &ModelName,
    options: &PullOptions,
    settings: &Settings,
    report: Report,
) -> Result<PathBuf, HubError> {
    let mut client = Client::new(name, settings)?;
    let revision = name.revision_or_main();
    let Listing { sha: commit, siblings } = list(&mut client, name, settings, report)?;
    let listing: Vec<_> = siblings.into_iter().map(|sibling| sibling.rfilename).collect();
    let mut files = Vec::new();
    for file in select(&listing, options.file.as_deref(), &name.typed, revision)? {
        let encoded = percent_encode(&file, "/");
        let url = format!("{}/{}/resolve/{commit}/{encoded}", settings.endpoint, name.repo);
        files.push(describe(&mut client, &file, url, report)?);
    }
    let cache = RepoCache::new(&settings.cache, &name.repo);
    fetch_all(&mut client, &files, &cache, options.force, report)?;
    for file in &files {
        cache.link(&commit, &file.name, &file.etag)?;
    }
    cache.set_reference(revision, &commit)?;
    Ok(cache.snapshot_dir(&commit))
}

/// The commit that the revision is, and the names of its files.
fn list(client: &mut Client, name: &ModelName, settings: &Settings, report: Report) -> Result<Listing, HubError> {
    let revision = percent_encode(name.revision_or_main(), "");
    let url = format!("{}/api/models/{}/revision/{revision}", settings.endpoint, name.repo);
    let mut response = client.send(&Request::get(&url), report)?;
    let text = response.body_mut().read_to_string();
    let text = text.map_err(|error| protocol(&url, "a list of files", &error.to_string()))?;
    let listing: Listing =
        serde_json::from_str(&text).map_err(|error| protocol(&url, "a list of files in JSON", &error.to_string()))?;
    let is_commit = !listing.sha.is_empty() && listing.sha.chars().all(|c| c.is_ascii_alphanumeric());
    match is_commit {
        true => Ok(listing),
        false => Err(protocol(&url, "a commit in `sha`", &listing.sha)),
    }
}

/// Digest and size of one file, from the headers alone.
fn describe(client: &mut Client, file: &str, url: String, report: Report) -> Result<RemoteFile, HubError> {
    let response = client.send(&Request::head(&url), report)?;
    let size = match response.status().is_redirection() {
        true => header(&response, "x-linked-size"),
        false => header(&response, "x-linked-size").or(header(&response, "content-length")),
    };
    Ok(RemoteFile {
        name: file.to_string(),
        size: size.and_then(|size| size.parse().ok()),
        etag: entity_tag(&response, &url)?,
        url,
    })
}

/// The entity tag without its quotes; it becomes a file name.
fn entity_tag(response: &Response, url: &str) -> Result<String, HubError> {
    let tag = header(response, "x-linked-etag").or_else(|| header(response, "etag"));
    let tag = tag.map_or("", |tag| tag.trim_start_matches("W/").trim_matches('"'));
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !tag.is_empty() && tag.len() <= 128 && tag.chars().all(allowed) {
        return Ok(tag.to_string());
    }
    let found = if tag.is_empty() { "none" } else { tag };
    Err(protocol(url, "an entity tag that can name a file", found))
}

fn fetch_all(
    client: &mut Client,
    files: &[RemoteFile],
    cache: &RepoCache,
    force: bool,
    report: Report,
) -> Result<(), HubError> {
    let total = files.iter().filter_map(|file| file.size).sum();
    let mut done = 0;
    for file in files {
        let (name, bytes) = (file.name.clone(), file.size);
        report(Progress::File { name, bytes });
        let _lock = lock(&cache.lock_file(&file.etag), report)?;
        let blob = cache.blob(&file.etag);
        if !is_there(file, &blob, force) {
            let mut transfer = Transfer::new(client, file, cache, (done, total))?;
            transfer.run(report)?;
            transfer.accept(&blob, report)?;
        }
        done += fs::metadata(&blob).map_or(0, |metadata| metadata.len());
        report(Progress::Bytes { done, total });
    }
    Ok(())
}

/// Whether the blob can be used as it is; `force` means that its bytes are read to know.
fn is_there(file: &RemoteFile, blob: &Path, force: bool) -> bool {
    let Ok(metadata) = fs::metadata(blob) else {
        return false;
    };
    let is_whole = file.size.is_none_or(|size| size == metadata.len());
    let promise = Promise::of_etag(&file.etag);
    is_whole && (!force || (promise != Promise::Nothing && promise.check(blob, "").is_ok()))
}

/// How one attempt at a file's bytes ended.
enum Attempt {
    Whole,
    Cut(String),
}

/// The bytes of one file on their way to disk, under its lock.
struct Transfer<'t, 'c> {
    client: &'t mut Client<'c>,
    file: &'t RemoteFile,
    path: PathBuf,
    out: File,
    have: u64,
    /// Bytes of the pull before this file, and of the whole pull.
    of_all: (u64, u64),
}

impl<'t, 'c> Transfer<'t, 'c> {
    fn new(
        client: &'t mut Client<'c>,
        file: &'t RemoteFile,
        cache: &RepoCache,
        of_all: (u64, u64),
    ) -> Result<Self, HubError> {
        let path = cache.incomplete(&file.etag);
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(HubError::io(folder, "create the folder"))?;
        let out = OpenOptions::new().append(true).create(true).open(&path);
        let out = out.map_err(HubError::io(&path, "create the file"))?;
        let metadata = out.metadata().map_err(HubError::io(&path, "read the file"))?;
        Ok(Self { client, file, path, out, have: metadata.len(), of_all })
    }

    /// Attempts until the file is whole, or until several in a row brought nothing new.
    fn run(&mut self, report: Report) -> Result<(), HubError> {
        let (mut failures, mut best) = (0, self.have);
        while self.file.size.is_none_or(|size| self.have != size) {
            let reason = match self.attempt(report)? {
                Attempt::Whole => return Ok(()),
                Attempt::Cut(reason) => reason,
            };
            failures = if self.have > best { 1 } else { failures + 1 };
            best = best.max(self.have);
            if failures >= ATTEMPTS {
                return Err(self.interrupted(reason));
            }
            let (name, have) = (&self.file.name, self.have);
            report(Progress::Note(format!("{name}: {reason} at byte {have}; going on from there")));
            sleep(self.client.backoff(failures));
        }
        Ok(())
    }

    fn attempt(&mut self, report: Report) -> Result<Attempt, HubError> {
        if self.file.size.is_some_and(|size| self.have > size) {
            self.restart()?;
        }
        let request = Request::get_from(&self.file.url, self.have);
        let response = self.client.send(&request, report)?;
        match response.status().as_u16() {
            206 if starts_at(&response, self.have) => {}
            206 | 416 => {
                self.restart()?;
                return Ok(Attempt::Cut("the server refused to continue".to_string()));
            }
            _ => self.restart()?,
        }
        self.receive(response, report)
    }

    fn receive(&mut self, mut response: Response, report: Report) -> Result<Attempt, HubError> {
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 17];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(read) => read,
                Err(error) => return Ok(Attempt::Cut(error.to_string())),
            };
            if read == 0 {
                return Ok(self.at_end());
            }
            self.out.write_all(&buffer[..read]).map_err(HubError::io(&self.path, "write the file"))?;
            self.have += read as u64;
            if self.file.size.is_some_and(|size| self.have > size) {
                return Err(self.too_long());
            }
            let (before, total) = self.of_all;
            report(Progress::Bytes { done: before + self.have, total });
        }
    }

    fn at_end(&self) -> Attempt {
        match self.file.size {
            Some(size) if self.have < size => Attempt::Cut("the connection closed".to_string()),
            _ => Attempt::Whole,
        }
    }

    fn restart(&mut self) -> Result<(), HubError> {
        self.out.set_len(0).map_err(HubError::io(&self.path, "empty the file"))?;
        self.have = 0;
        Ok(())
    }

    /// The bytes become a blob if they are the promised ones, and are deleted if not.
    fn accept(&mut self, blob: &Path, report: Report) -> Result<(), HubError> {
        let promise = Promise::of_etag(&self.file.etag);
        if promise == Promise::Nothing {
            let note = format!("{}: the server gives no checksum to compare", self.file.name);
            report(Progress::Note(note));
        }
        if let Err(error) = promise.check(&self.path, &self.file.url) {
            let _ = fs::remove_file(&self.path);
            return Err(error);
        }
        self.out.sync_all().map_err(HubError::io(&self.path, "write the file"))?;
        fs::rename(&self.path, blob).map_err(HubError::io(blob, "put the file in place"))
    }

    fn too_long(&self) -> HubError {
        let _ = fs::remove_file(&self.path);
        HubError::Size { what: self.file.url.clone(), expected: self.file.size.unwrap_or_default(), found: self.have }
    }

    fn interrupted(&self, reason: String) -> HubError {
        let size = self.file.size;
        HubError::Interrupted {
            url: self.file.url.clone(),
            got: self.have,
            size: size.map_or("an unknown number of".to_string(), |size| size.to_string()),
            reason,
        }
    }
}

/// Whether the part that came begins at byte `from`.
fn starts_at(response: &Response, from: u64) -> bool {
    let range = header(response, "content-range").and_then(|range| range.strip_prefix("bytes "));
    range.and_then(|range| range.split('-').next()) == Some(from.to_string().as_str())
}

fn protocol(url: &str, expected: &str, found: &str) -> HubError {
    HubError::Protocol { url: url.to_string(), expected: expected.to_string(), found: found.to_string() }
}
