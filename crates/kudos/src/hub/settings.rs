//! What the environment decides: where to ask, where to keep, and with what patience.
//!
//! The variables are Hugging Face's own wherever they have one, so that a machine set up for their
//! tools is set up for this. Nothing else in `hub` reads the environment.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::known::{KNOWN_MODELS, KnownModel};

/// Where models come from and where they are kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the hub, without a slash at the end. `HF_ENDPOINT`, else `https://huggingface.co`.
    pub endpoint: String,
    /// The hub's cache. `HF_HUB_CACHE`, else `$HF_HOME/hub`, else `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// Sent to `endpoint` and to no other host. `HF_TOKEN`, else the contents of `$HF_HOME/token`.
    pub token: Option<String>,
    /// Open no connection. `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`.
    pub offline: bool,
    /// Kudos' own folder. `KUDOS_HOME`, else `$XDG_DATA_HOME/kudos`, else `~/.local/share/kudos`.
    pub home: PathBuf,
    /// A PEM file of certificate authorities to trust instead of Mozilla's, for networks that inspect
    /// TLS. `SSL_CERT_FILE`, else `REQUESTS_CA_BUNDLE`.
    pub certificates: Option<PathBuf>,
    /// The short names. [`KNOWN_MODELS`].
    pub known: &'static [KnownModel],
    /// Ways to call pip, tried in turn until one starts.
    pub pip: Vec<Vec<OsString>>,
    /// How long a connection may take to open: it decides "the hub cannot be reached".
    pub connect_timeout: Duration,
    /// How long a server may be silent before the connection counts as cut.
    pub read_timeout: Duration,
    /// The wait before the first retry; each further one doubles it.
    pub first_delay: Duration,
}

impl Settings {
    /// The settings of this process's environment.
    pub fn from_env() -> Self {
        let hf_home = hf_home();
        Self {
            endpoint: endpoint(),
            cache: path_var("HF_HUB_CACHE").unwrap_or_else(|| hf_home.join("hub")),
            token: token(&hf_home),
            offline: is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE"),
            home: kudos_home(),
            certificates: path_var("SSL_CERT_FILE").or_else(|| path_var("REQUESTS_CA_BUNDLE")),
            known: KNOWN_MODELS,
            pip: pip_commands(),
            connect_timeout: Duration::from_secs(4),
            read_timeout: Duration::from_secs(30),
            first_delay: Duration::from_secs(1),
        }
    }

    /// The local model directory: one folder a model that did not come from the hub.
    pub fn models(&self) -> PathBuf {
        self.home.join("models")
    }

    /// The short names, for messages.
    pub(super) fn known_names(&self) -> String {
        let names: Vec<_> = self.known.iter().map(|known| known.name).collect();
        names.join(", ")
    }
}

fn endpoint() -> String {
    let given = text_var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string());
    given.trim_end_matches('/').to_string()
}

fn hf_home() -> PathBuf {
    path_var("HF_HOME").unwrap_or_else(|| {
        let cache = path_var("XDG_CACHE_HOME").unwrap_or_else(|| user_home().join(".cache"));
        cache.join("huggingface")
    })
}

fn kudos_home() -> PathBuf {
    path_var("KUDOS_HOME").unwrap_or_else(|| {
        let data = path_var("XDG_DATA_HOME").unwrap_or_else(|| user_home().join(".local/share"));
        data.join("kudos")
    })
}

fn token(hf_home: &std::path::Path) -> Option<String> {
    text_var("HF_TOKEN").or_else(|| {
        let file = path_var("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        let text = std::fs::read_to_string(file).ok()?;
        Some(text.trim().to_string()).filter(|token| !token.is_empty())
    })
}

fn pip_commands() -> Vec<Vec<OsString>> {
    let commands: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];
    let owned = |words: &&[&str]| words.iter().map(OsString::from).collect();
    commands.iter().map(owned).collect()
}

fn user_home() -> PathBuf {
    std::env::home_dir().unwrap_or_else(|| PathBuf::from("."))
}

/// A variable that is set and not blank, trimmed.
fn text_var(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    Some(value.trim().to_string()).filter(|value| !value.is_empty())
}

/// A folder or file in a variable; `~/` is the user's home, as Hugging Face's tools read it.
fn path_var(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
    let path = PathBuf::from(value);
    match path.strip_prefix("~") {
        Ok(rest) => Some(user_home().join(rest)),
        Err(_) => Some(path),
    }
}

fn is_true(name: &str) -> bool {
    let value = text_var(name).unwrap_or_default().to_ascii_uppercase();
    ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
}
