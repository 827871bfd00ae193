//! One request to the hub: redirects, patience, and what a refusal means.
//!
//! Redirects are followed here and not by the HTTP library, for two reasons: the token must go to
//! the hub's own address and to no other, and the first answer carries the file's digest while the
//! last one carries its bytes.
//!
//! A server that never answered is unreachable at once, because there may be another way to the model;
//! one that answered before is asked again, with growing pauses.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use ureq::Agent;
use ureq::http::{Method, Request as HttpRequest};

use super::error::HubError;
use super::name::ModelName;
use super::{Progress, Report, Settings};
use crate::http::{Response, header, in_words, join, same_origin, tls};

/// Attempts at one thing before giving up.
pub(super) const ATTEMPTS: u32 = 5;
/// The longest pause a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// Redirects followed before it counts as a loop.
const HOPS: usize = 8;

/// What to ask.
#[derive(Debug, Clone)]
pub(super) struct Request {
    method: Method,
    url: String,
    from: u64,
}

impl Request {
    /// The whole of `url`.
    pub fn get(url: &str) -> Self {
        Self::get_from(url, 0)
    }

    /// The bytes of `url` from `from` on.
    pub fn get_from(url: &str, from: u64) -> Self {
        let url = url.to_string();
        Self { method: Method::GET, url, from }
    }

    /// The headers of `url`: those of the first answer that carries the file's digest.
    pub fn head(url: &str) -> Self {
        Self { method: Method::HEAD, ..Self::get(url) }
    }
}

/// A connection to one hub, about one model.
pub(super) struct Client<'a> {
    agent: Agent,
    settings: &'a Settings,
    name: &'a ModelName,
    reached: bool,
}

impl<'a> Client<'a> {
    /// No connection is opened yet.
    pub fn new(name: &'a ModelName, settings: &'a Settings) -> Result<Self, HubError> {
        let certificates = settings.certificates.as_deref();
        let tls =
            tls(certificates).map_err(HubError::io(certificates.unwrap_or(Path::new("")), "read the certificates"))?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(settings.connect_timeout))
            .timeout_connect(Some(settings.connect_timeout))
            .timeout_recv_response(Some(settings.read_timeout))
            .timeout_per_read(Some(settings.read_timeout))
            .accept_encoding("identity")
            .user_agent(concat!("kudos/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        Ok(Self { agent: config.new_agent(), settings, name, reached: false })
    }

    /// Sends, follows, waits and tries again; every status of the result is a success, or 416.
    pub fn send(&mut self, request: &Request, report: Report) -> Result<Response, HubError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (pause, why) = match self.follow(request) {
                Ok(response) if is_answer(&response, request) => return Ok(response),
                Ok(response) => match self.pause_before_retry(&response, request, attempt)? {
                    Some(pause) => (pause, format!("HTTP status {}", response.status().as_u16())),
                    None => return Err(self.refusal(&response, request)),
                },
                Err(reason) if !self.reached || attempt >= ATTEMPTS => {
                    return Err(unreachable(request, reason));
                }
                Err(reason) => (self.backoff(attempt), reason),
            };
            report(Progress::Note(retry_note(&request.url, &why, pause)));
            sleep(pause);
        }
    }

    /// The pause after the `attempt`-th failure: doubling.
    pub fn backoff(&self, attempt: u32) -> Duration {
        self.settings.first_delay * 2u32.saturating_pow(attempt.saturating_sub(1).min(6))
    }

    /// Follows redirects. The error is a connection's, in words.
    fn follow(&mut self, request: &Request) -> Result<Response, String> {
        let mut url = request.url.clone();
        for _ in 0..HOPS {
            let response = self.hop(request, &url).map_err(|error| in_words(&error))?;
            self.reached = true;
            let is_metadata = request.method == Method::HEAD && header(&response, "x-linked-etag").is_some();
            match header(&response, "location") {
                Some(next) if response.status().is_redirection() && !is_metadata => {
                    url = join(&url, next).ok_or(format!("a redirect to `{next}`"))?;
                }
                _ => return Ok(response),
            }
        }
        Err(format!("more than {HOPS} redirects"))
    }

    fn hop(&self, request: &Request, url: &str) -> Result<Response, ureq::Error> {
        let mut http = HttpRequest::builder().method(request.method.clone()).uri(url);
        if request.from > 0 {
            http = http.header("range", format!("bytes={}-", request.from));
        }
        let is_hub = same_origin(url, &self.settings.endpoint);
        if let Some(token) = self.settings.token.as_ref().filter(|_| is_hub) {
            http = http.header("authorization", format!("Bearer {token}"));
        }
        self.agent.run(http.body(()).map_err(ureq::Error::Http)?)
    }

    /// How long to wait before asking again; `None` when asking again would not help.
    fn pause_before_retry(
        &self,
        response: &Response,
        request: &Request,
        attempt: u32,
    ) -> Result<Option<Duration>, HubError> {
        let status = response.status().as_u16();
        if !matches!(status, 408 | 429 | 500 | 502 | 503 | 504) || attempt >= ATTEMPTS {
            return Ok(None);
        }
        match asked_pause(response) {
            None => Ok(Some(self.backoff(attempt))),
            Some(pause) if pause <= LONGEST_PAUSE => Ok(Some(pause)),
            Some(pause) => Err(HubError::RateLimited { url: request.url.clone(), seconds: pause.as_secs() }),
        }
    }

    /// The hub says in a header which of several things a 401, 403 or 404 means.
    fn refusal(&self, response: &Response, request: &Request) -> HubError {
        let code = header(response, "x-error-code").unwrap_or_default();
        let (name, url) = (self.name.typed.clone(), request.url.clone());
        let page = format!("{}/{}", self.settings.endpoint, self.name.repo);
        let revision = self.name.revision_or_main().to_string();
        let detail = header(response, "x-error-message").unwrap_or("no reason given").to_string();
        let advice = self.advice();
        match (response.status().as_u16(), code) {
            (401 | 403, "GatedRepo") => HubError::Gated { name, page },
            (_, "RevisionNotFound") => HubError::NoSuchRevision { name, revision, page },
            (_, "RepoNotFound") if self.settings.token.is_some() => HubError::NoSuchModel { name, url },
            (401, _) => HubError::Unauthorized { url, advice },
            (403, _) => HubError::Forbidden { url, name, detail },
            (404, "RepoNotFound" | "") => HubError::NoSuchModel { name, url },
            (status, _) => HubError::Status { url, status, detail },
        }
    }

    /// The hub answers 401 both to a bad token and to a name it does not know.
    fn advice(&self) -> String {
        match self.settings.token {
            Some(_) => "the token in HF_TOKEN was refused: make a new one, or unset it".to_string(),
            None => format!("check the spelling of `{}`; if it is private, set HF_TOKEN", self.name.repo),
        }
    }
}

/// `text` with everything but unreserved characters percent-encoded, each byte of `keep` kept.
pub(super) fn percent_encode(text: &str, keep: &str) -> String {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.as_bytes().contains(&byte);
    let mut encoded = String::new();
    for byte in text.bytes() {
        match is_plain(byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Success; for HEAD also the redirect that carries a digest; for a range also "not satisfiable".
fn is_answer(response: &Response, request: &Request) -> bool {
    let status = response.status();
    status.is_success()
        || (request.method == Method::HEAD && status.is_redirection())
        || (request.from > 0 && status.as_u16() == 416)
}

/// `Retry-After` in seconds, or the `t=` of the hub's `RateLimit` header.
fn asked_pause(response: &Response) -> Option<Duration> {
    let after = header(response, "retry-after").and_then(|text| text.trim().parse().ok());
    let limit = || {
        let parameters = header(response, "ratelimit")?.split(';');
        let seconds = parameters.filter_map(|part| part.trim().strip_prefix("t=")).next()?;
        seconds.parse().ok()
    };
    after.or_else(limit).map(Duration::from_secs)
}

fn retry_note(url: &str, why: &str, pause: Duration) -> String {
    format!("{url}: {why}; trying again in {:.0} s", pause.as_secs_f64().ceil())
}

fn unreachable(request: &Request, reason: String) -> HubError {
    HubError::Unreachable { url: request.url.clone(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_for_an_address() {
        assert_eq!(percent_encode("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(percent_encode("1_Pooling/a b?.json", "/"), "1_Pooling/a%20b%3F.json");
    }
}
