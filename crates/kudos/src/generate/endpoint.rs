//! Responses from a server that speaks OpenAI's protocol: vLLM, llama.cpp, Ollama, or a service.
//!
//! A response is one request. `concurrency` of them are under way at a time; what comes back is handed to the caller
//! on the caller's own thread. A server that is busy or breaks down is asked again, with growing pauses and no
//! earlier than it says; whatever else it refuses is a response with an `error`, and never ends the run.
//!
//! The key comes from an environment variable, goes to the endpoint's own origin and to no other, and is taken out of
//! whatever is written or said.
//!
//! | file | purpose |
//! |---|---|
//! | `wire` | a task → the body of a request; the body of an answer → text, reason, tokens |
//! | `retry` | which failures may pass, and how long to wait for that |
//! | `client` | one response: requests, redirects, patience |
//! | `pool` | many at a time |
//!
//! This module knows HTTP. It must not know files or which response is wanted next.

#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod pool;
#[cfg(feature = "hub")]
mod retry;
#[cfg(feature = "hub")]
mod wire;

use super::job::{Generated, Task};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

/// Most requests at a time: each is a thread.
pub const MAX_CONCURRENCY: usize = 256;

/// Where to ask, what for, and with what patience.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSettings {
    /// Address under which `/chat/completions` lies, such as `https://host/v1`.
    pub url: String,
    /// The `model` of the requests.
    pub model_name: String,
    /// Environment variable with the key; if it is not set, none is sent.
    pub key_variable: String,
    /// Requests at a time, `1..=`[`MAX_CONCURRENCY`].
    pub concurrency: usize,
    /// For one request, from connecting to the last byte of its answer.
    pub timeout: Duration,
    /// How often a request is repeated after a failure that may pass.
    pub max_retries: u32,
    /// The wait before the first of them; each further one doubles it, up to a minute.
    pub first_delay: Duration,
    /// `/chat/completions` with messages, or else `/completions` with the prompt as it is.
    pub chat: bool,
    /// System message before prompts that have none (chat only).
    pub system: Option<String>,
    /// A PEM file of certificate authorities to trust instead of Mozilla's.
    pub certificates: Option<PathBuf>,
}

impl EndpointSettings {
    /// The defaults, for a model at an address.
    pub fn new(url: &str, model_name: &str) -> Self {
        let file = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        EndpointSettings {
            url: url.to_owned(),
            model_name: model_name.to_owned(),
            key_variable: "OPENAI_API_KEY".to_owned(),
            concurrency: 4,
            timeout: Duration::from_secs(120),
            max_retries: 5,
            first_delay: Duration::from_secs(1),
            chat: true,
            system: None,
            certificates: file("SSL_CERT_FILE").or_else(|| file("REQUESTS_CA_BUNDLE")),
        }
    }
}

/// Why an endpoint cannot be asked at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// No address of a server.
    #[error("endpoint {url:?}: expected an address such as https://host/v1, found {found}")]
    BadUrl {
        /// As given; without what stood before an `@`.
        url: String,
        /// What is wrong with it.
        found: &'static str,
    },
    /// A key that no header can carry.
    #[error("environment variable {variable}: expected a key of printable ASCII characters, found others; set it anew")]
    BadKey {
        /// Its name; the value is nobody's business.
        variable: String,
    },
    /// Too few or too many threads.
    #[error("concurrency: expected a number from 1 to {MAX_CONCURRENCY}, found {found}")]
    BadConcurrency {
        /// As given.
        found: usize,
    },
    /// The certificates are not there.
    #[error("{path}: expected a PEM file of certificates, found {reason}; correct or unset SSL_CERT_FILE")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The list of models could not be had.
    #[error("{0}")]
    NoAnswer(String),
    /// This build cannot open a connection.
    #[error(
        "endpoint {url}: this build has no `hub` feature and opens no connection; rebuild with it, or give a model directory or a .gguf file"
    )]
    FeatureOff {
        /// As given.
        url: String,
    },
}

/// What happens while responses are drawn.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A response is there, or finally failed.
    Done(Generated),
    /// Something a person watching should read: a request is repeated, and why.
    Note(String),
    /// So many tokens were drawn (by a model that runs here).
    Drawn(usize),
    /// Nothing came for a moment: a chance to stop, or to draw the clock.
    Waiting,
}

/// A server that completes prompts.
#[cfg(feature = "hub")]
#[derive(Clone)]
pub struct Endpoint(std::sync::Arc<client::Shared>);

#[cfg(feature = "hub")]
impl Endpoint {
    /// Takes the key from the environment. No connection is opened.
    ///
    /// # Errors
    /// If a setting is unusable.
    pub fn new(settings: EndpointSettings) -> Result<Self, EndpointError> {
        let key = std::env::var(&settings.key_variable).ok();
        Self::with_key(settings, key)
    }

    /// With a key from elsewhere; blank is none.
    ///
    /// # Errors
    /// If a setting is unusable.
    pub fn with_key(settings: EndpointSettings, key: Option<String>) -> Result<Self, EndpointError> {
        let shared = client::Shared::new(settings, key)?;
        Ok(Endpoint(std::sync::Arc::new(shared)))
    }

    /// The models that the server says it has (`/models`).
    ///
    /// # Errors
    /// If it does not say.
    pub fn models(&self) -> Result<Vec<String>, EndpointError> {
        client::Client::new(&self.0).models().map_err(EndpointError::NoAnswer)
    }

    /// Draws the responses of `work`, and of what `on_event` adds to it, which comes first. Events are delivered on this
    /// thread, at least five a second. `Break` ends the run within a moment: requests under way are given up.
    pub fn run<'a>(
        &self,
        work: impl IntoIterator<Item = Task<'a>>,
        on_event: impl FnMut(Event) -> ControlFlow<(), Vec<Task<'a>>>,
    ) -> ControlFlow<()> {
        pool::run(client::Client::new(&self.0), work.into_iter(), on_event)
    }
}

/// Without the feature `hub` there is none.
#[cfg(not(feature = "hub"))]
#[derive(Clone)]
pub enum Endpoint {}

#[cfg(not(feature = "hub"))]
impl Endpoint {
    /// Always an error that says so.
    ///
    /// # Errors
    /// [`EndpointError::FeatureOff`].
    pub fn new(settings: EndpointSettings) -> Result<Self, EndpointError> {
        Err(EndpointError::FeatureOff { url: settings.url })
    }

    /// Always an error that says so.
    ///
    /// # Errors
    /// [`EndpointError::FeatureOff`].
    pub fn with_key(settings: EndpointSettings, _key: Option<String>) -> Result<Self, EndpointError> {
        Self::new(settings)
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn models(&self) -> Result<Vec<String>, EndpointError> {
        match *self {}
    }

    /// Never called.
    pub fn run<'a>(
        &self,
        _work: impl IntoIterator<Item = Task<'a>>,
        _on_event: impl FnMut(Event) -> ControlFlow<(), Vec<Task<'a>>>,
    ) -> ControlFlow<()> {
        match *self {}
    }
}
