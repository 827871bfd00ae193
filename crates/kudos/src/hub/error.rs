//! One variant per way a model can fail to arrive: each message says where, what was expected, what
//! was found and what to do about it, in one line.

use std::path::{Path, PathBuf};

/// Why a model could not be found or fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The text is not a name the hub could know.
    #[error("model name `{name}`: {why}; give `org/name`, or one of the short names: {known}")]
    BadName {
        /// What was given.
        name: String,
        /// What is wrong with it.
        why: String,
        /// The short names, comma-separated.
        known: String,
    },
    /// The text looks like a path, and nothing is there.
    #[error(
        "{path}: no such file or directory; give a model directory, a .gguf file, or a name that `kudos pull` knows"
    )]
    NoSuchPath {
        /// What was given.
        path: String,
    },
    /// A file that is not a model.
    #[error("{path}: expected a model directory or a .gguf file, found another kind of file")]
    NotAModel {
        /// The file.
        path: PathBuf,
    },
    /// A good name, not pulled yet.
    #[error("model `{name}` is not on this machine (looked in {looked}): run `kudos pull {name}`")]
    NotPulled {
        /// What was given.
        name: String,
        /// The folders searched.
        looked: String,
    },
    /// A repository with several GGUF files and no choice made.
    #[error("model `{name}` has {} GGUF files: choose one with `kudos pull {name} --file F` or give its path: {}", .files.len(), .files.join(", "))]
    ManyGguf {
        /// The model.
        name: String,
        /// The candidates.
        files: Vec<String>,
    },
    /// `--file` matched nothing, or several.
    #[error("model `{name}`: `--file {wanted}` should match one GGUF file, it matches {matches}; there are: {}", list_or_none(.files))]
    FileChoice {
        /// The model.
        name: String,
        /// What was asked for.
        wanted: String,
        /// How many files match.
        matches: usize,
        /// The GGUF files there are.
        files: Vec<String>,
    },
    /// The weights are there only in a format Kudos does not read.
    #[error(
        "model `{name}` has its weights only as {found}, which Kudos does not read (a pickle can run code): expected *.safetensors or *.gguf; look for a converted revision (`--revision refs/pr/N`) or save it with transformers' save_pretrained"
    )]
    NoSafetensors {
        /// The model.
        name: String,
        /// The weight files found.
        found: String,
    },
    /// No weights, or weights without a config.
    #[error("model `{name}` at revision {revision}: expected {expected}, found none; is it a model repository?")]
    Incomplete {
        /// The model.
        name: String,
        /// The revision.
        revision: String,
        /// The missing file.
        expected: String,
    },
    /// No network is allowed.
    #[error("model `{name}` is not on this machine and HF_HUB_OFFLINE is set: unset it and run `kudos pull {name}`")]
    Offline {
        /// The model.
        name: String,
    },
    /// This build cannot open a connection.
    #[error(
        "model `{name}` is not on this machine and this build has no `hub` feature: rebuild with it, or give a model directory"
    )]
    FeatureOff {
        /// The model.
        name: String,
    },
    /// No answer from the server.
    #[error("cannot reach {url}: {reason}; check the network or HTTPS_PROXY, or set HF_ENDPOINT to a mirror")]
    Unreachable {
        /// The address asked.
        url: String,
        /// What the connection said.
        reason: String,
    },
    /// Neither the hub nor the package index gave the model.
    #[error("model `{name}`: {hub}; nor through pip: {package}")]
    NoSource {
        /// The model.
        name: String,
        /// What the hub attempt said.
        hub: Box<HubError>,
        /// What the package attempt said.
        package: Box<HubError>,
    },
    /// The authors want terms accepted first.
    #[error("model `{name}` is gated: accept its terms at {page}, then set HF_TOKEN to a token of that account")]
    Gated {
        /// The model.
        name: String,
        /// The page with the terms.
        page: String,
    },
    /// 401.
    #[error("{url}: not authorised (401): {advice}")]
    Unauthorized {
        /// The address asked.
        url: String,
        /// What to do.
        advice: String,
    },
    /// 403.
    #[error("{url}: forbidden (403): {detail}; use a token with read access to `{name}` in HF_TOKEN")]
    Forbidden {
        /// The address asked.
        url: String,
        /// The model.
        name: String,
        /// What the server said.
        detail: String,
    },
    /// 404 on the repository.
    #[error("the hub has no model `{name}` ({url}): check the spelling; if it is private, set HF_TOKEN")]
    NoSuchModel {
        /// The model.
        name: String,
        /// The address asked.
        url: String,
    },
    /// 404 on the revision.
    #[error("model `{name}` has no revision `{revision}`: give a branch, tag or commit listed at {page}/commits")]
    NoSuchRevision {
        /// The model.
        name: String,
        /// What was asked for.
        revision: String,
        /// The page of the model.
        page: String,
    },
    /// Retry-After is longer than anybody waits.
    #[error(
        "{url}: too many requests (429), the server asks to wait {seconds} s: try again later, or set HF_TOKEN for a higher limit"
    )]
    RateLimited {
        /// The address asked.
        url: String,
        /// How long the server asks to wait.
        seconds: u64,
    },
    /// Any other status that stays after the retries.
    #[error(
        "{url}: expected an answer, found HTTP status {status} ({detail}); try again later, or another HF_ENDPOINT"
    )]
    Status {
        /// The address asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server said.
        detail: String,
    },
    /// An answer that is not the hub's protocol.
    #[error("{url}: expected {expected}, found {found}; is HF_ENDPOINT a Hugging Face hub?")]
    Protocol {
        /// The address asked.
        url: String,
        /// What the protocol promises.
        expected: String,
        /// What came.
        found: String,
    },
    /// The connection kept being cut.
    #[error(
        "{url}: the connection was cut at {got} of {size} bytes ({reason}): run the command again, it continues from there"
    )]
    Interrupted {
        /// The address asked.
        url: String,
        /// Bytes on disk.
        got: u64,
        /// Bytes expected (`unknown` when the server did not say).
        size: String,
        /// What the connection said.
        reason: String,
    },
    /// A file name that would leave the model's folder.
    #[error(
        "model `{name}`: the server lists a file named {file:?}, which could be written outside the model's folder: refused; report this repository"
    )]
    UnsafeFileName {
        /// The model.
        name: String,
        /// The file name.
        file: String,
    },
    /// The bytes are not the promised ones.
    #[error(
        "{what}: expected {algorithm} {expected}, found {found}; the damaged file was deleted: run `kudos pull` again"
    )]
    Checksum {
        /// File or address.
        what: String,
        /// `sha256`, or `git blob sha1`.
        algorithm: &'static str,
        /// The promised digest.
        expected: String,
        /// The digest of what came.
        found: String,
    },
    /// The number of bytes is not the promised one.
    #[error("{what}: expected {expected} bytes, found {found}; the damaged file was deleted: run `kudos pull` again")]
    Size {
        /// File or address.
        what: String,
        /// The promised size.
        expected: u64,
        /// The size of what came.
        found: u64,
    },
    /// pip failed, or is not there.
    #[error("`{command}`: {reason}")]
    Pip {
        /// The command line.
        command: String,
        /// Its last line, or why it did not start.
        reason: String,
    },
    /// A wheel that cannot be read or lacks a file.
    #[error("{wheel}: expected {expected}, found {found}; run `kudos pull` again")]
    Wheel {
        /// The wheel's file name.
        wheel: String,
        /// What should be in it.
        expected: String,
        /// What is.
        found: String,
    },
    /// `--dir` holds something else.
    #[error(
        "{dir}: expected a new or empty folder, or `{name}` pulled there before; found other files: choose another --dir"
    )]
    Occupied {
        /// The folder.
        dir: PathBuf,
        /// The model.
        name: String,
    },
    /// The file system refused.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl HubError {
    /// Whether the hub gave no answer at all, so that another source is worth trying.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// An [`HubError::Io`] maker for `map_err`.
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }
}

fn list_or_none(files: &[String]) -> String {
    if files.is_empty() {
        return "no GGUF files".to_string();
    }
    files.join(", ")
}
