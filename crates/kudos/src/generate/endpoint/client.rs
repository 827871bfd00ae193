//! One response: requests, redirects, patience, and words for what went wrong.
//!
//! Redirects are followed here and not by the HTTP library: only those that keep the request as it is (307, 308), and
//! without the key when they lead to another origin.

use super::super::job::Task;
use super::retry::{Stop, asked, may_pass, pause};
use super::wire::{Answer, Fault, answer, body, complaint, models, route};
use super::{EndpointError, EndpointSettings, MAX_CONCURRENCY};
use crate::http::{Response, header, in_words, join, same_origin, tls};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::config::Config;
use ureq::http::{HeaderValue, Method, Request, Uri};

/// Most bytes of an answer: no response to a prompt is larger.
const MOST_BYTES: u64 = 64 << 20;
/// Bytes of a refusal that are read for its message.
const REFUSAL_BYTES: u64 = 64 << 10;
/// Redirects followed before it counts as a loop.
const HOPS: usize = 4;
/// For opening a connection, of the time for the whole request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a connection is kept for the next request: less than servers wait for it (uvicorn: 5 seconds).
const IDLE: Duration = Duration::from_secs(4);

/// What all requests to an endpoint have in common.
pub(super) struct Shared {
    settings: EndpointSettings,
    /// Without a slash at the end.
    base: String,
    key: Option<String>,
    config: Config,
}

/// Connections to an endpoint, for one run.
#[derive(Clone)]
pub(super) struct Client {
    shared: Arc<Shared>,
    agent: Agent,
    pub stop: Stop,
}

/// Why a request brought no answer.
struct Failure {
    words: String,
    /// True if the same request may succeed later.
    may_pass: bool,
    /// What the server asked for.
    pause: Option<Duration>,
}

impl Failure {
    fn for_good(words: String) -> Self {
        Failure { words, may_pass: false, pause: None }
    }

    fn passing(words: String) -> Self {
        Failure { words, may_pass: true, pause: None }
    }
}

impl Shared {
    pub fn new(settings: EndpointSettings, key: Option<String>) -> Result<Self, EndpointError> {
        let base = base(&settings.url)?;
        let key = key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        if key.as_ref().is_some_and(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(EndpointError::BadKey { variable: settings.key_variable });
        }
        if !(1..=MAX_CONCURRENCY).contains(&settings.concurrency) {
            return Err(EndpointError::BadConcurrency { found: settings.concurrency });
        }
        let certificates = settings.certificates.as_deref();
        let tls = tls(certificates).map_err(|reason| EndpointError::Certificates {
            path: certificates.unwrap_or("certificates".as_ref()).to_owned(),
            reason,
        })?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT.min(settings.timeout)))
            .max_idle_connections_per_host(settings.concurrency)
            .max_idle_age(IDLE)
            .accept_encoding("identity")
            .user_agent(concat!("kudos/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        Ok(Shared { settings, base, key, config })
    }
}

/// The address without what is added for each kind of request.
fn base(url: &str) -> Result<String, EndpointError> {
    let bad = |found| {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let url = if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") };
        EndpointError::BadUrl { url, found }
    };
    let uri: Uri = url.parse().map_err(|_| bad("no address"))?;
    match uri.authority() {
        _ if !matches!(uri.scheme_str(), Some("http" | "https")) => {
            return Err(bad("no http:// or https:// before it"));
        }
        Some(authority) if authority.as_str().contains('@') => {
            return Err(bad("a name or a key in it; put the key into the environment variable"));
        }
        Some(_) if uri.query().is_none() => {}
        Some(_) => return Err(bad("a question mark")),
        None => return Err(bad("no host")),
    }
    let base = url.trim_end_matches('/');
    let ends = ["/chat/completions", "/completions"];
    Ok(ends.iter().find_map(|end| base.strip_suffix(end)).unwrap_or(base).to_owned())
}

impl Client {
    /// No connection is opened yet.
    pub fn new(shared: &Arc<Shared>) -> Self {
        Client { shared: shared.clone(), agent: shared.config.clone().new_agent(), stop: Stop::default() }
    }

    /// Requests at a time.
    pub fn concurrency(&self) -> usize {
        self.shared.settings.concurrency
    }

    /// Ends all pauses and requests of this client and its clones.
    pub fn shut_down(self) {
        self.stop.ring();
        self.agent.shutdown();
    }

    /// The body that asks for a response.
    pub fn body(&self, task: &Task) -> Result<String, String> {
        body(&self.shared.settings, task)
    }

    /// One response. The error is in words, and final.
    pub fn complete(&self, body: &str, note: &mut dyn FnMut(String)) -> Result<Answer, String> {
        let settings = &self.shared.settings;
        let url = self.address(route(settings));
        let mut retry = 0;
        loop {
            let failure = match self.exchange(&Method::POST, &url, body, |bytes| answer(bytes, settings.chat)) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let words = self.without_key(&failure.words);
            if !failure.may_pass || retry == settings.max_retries || self.stop.has_rung() {
                let tries = if retry == 0 { String::new() } else { format!(" (tried {} times)", retry + 1) };
                return Err(format!("{url}: {words}{tries}"));
            }
            let pause = pause(failure.pause, retry, settings.first_delay);
            note(format!("{url}: {words}; trying again in {:.0} s", pause.as_secs_f64().ceil()));
            self.stop.pause(pause);
            retry += 1;
        }
    }

    /// The names of the models. Asked once: somebody waits for it.
    pub fn models(&self) -> Result<Vec<String>, String> {
        let url = self.address("models");
        let found = self.exchange(&Method::GET, &url, "", models);
        found.map_err(|failure| format!("{url}: {}", self.without_key(&failure.words)))
    }

    fn address(&self, route: &str) -> String {
        format!("{}/{route}", self.shared.base)
    }

    /// The key has no place in what people read or files hold.
    fn without_key(&self, words: &str) -> String {
        match &self.shared.key {
            Some(key) => words.replace(key.as_str(), "[key]"),
            None => words.to_owned(),
        }
    }

    /// One request and its answer, within the timeout.
    fn exchange<T>(
        &self,
        method: &Method,
        url: &str,
        body: &str,
        read: impl Fn(&[u8]) -> Result<T, Fault>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + self.shared.settings.timeout;
        let (mut response, has_key) = self.follow(method, url, body, deadline)?;
        let status = response.status().as_u16();
        if !response.status().is_success() {
            return Err(self.refusal(&mut response, status, has_key));
        }
        let bytes = self.bytes(&mut response, MOST_BYTES + 1)?;
        if bytes.len() as u64 > MOST_BYTES {
            let most = MOST_BYTES >> 20;
            return Err(Failure::for_good(format!("expected an answer of at most {most} MiB, found a larger one")));
        }
        read(&bytes).map_err(|fault| match fault {
            Fault::Cut => Failure::passing("expected a whole answer, found its end too early".to_owned()),
            Fault::Wrong(words) => Failure::for_good(words),
        })
    }

    /// Sends, and follows redirects that keep the request; also tells whether the last one carried the key.
    fn follow(&self, method: &Method, url: &str, body: &str, deadline: Instant) -> Result<(Response, bool), Failure> {
        let mut url = url.to_owned();
        for _ in 0..HOPS {
            let has_key = self.shared.key.is_some() && same_origin(&url, &self.shared.base);
            let response = self.hop(method, &url, body, deadline, has_key).map_err(|e| self.broken(&e))?;
            let location = header(&response, "location").map(str::to_owned);
            match (response.status().as_u16(), location) {
                (307 | 308, Some(next)) => {
                    let next = join(&url, &next);
                    url = next.ok_or_else(|| Failure::for_good("a redirect to no address".to_owned()))?;
                }
                (status @ 300..400, next) => {
                    let next = next.map_or(String::new(), |next| format!(" to {next}"));
                    let words = format!(
                        "expected an answer, found a redirect{next} (HTTP status {status}); give the address it leads to"
                    );
                    return Err(Failure::for_good(words));
                }
                _ => return Ok((response, has_key)),
            }
        }
        Err(Failure::for_good(format!("more than {HOPS} redirects")))
    }

    fn hop(
        &self,
        method: &Method,
        url: &str,
        body: &str,
        deadline: Instant,
        has_key: bool,
    ) -> Result<Response, ureq::Error> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let mut request = Request::builder().method(method.clone()).uri(url);
        if let Some(key) = self.shared.key.as_ref().filter(|_| has_key) {
            let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|e| ureq::Error::Http(e.into()))?;
            value.set_sensitive(true);
            request = request.header("authorization", value);
        }
        if *method == Method::GET {
            let request = request.body(()).map_err(ureq::Error::Http)?;
            return self.agent.run(self.agent.configure_request(request).timeout_global(Some(left)).build());
        }
        let request = request.header("content-type", "application/json");
        let request = request.body(body).map_err(ureq::Error::Http)?;
        self.agent.run(self.agent.configure_request(request).timeout_global(Some(left)).build())
    }

    fn bytes(&self, response: &mut Response, most: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = response.body_mut().as_reader().take(most).read_to_end(&mut bytes);
        match read {
            Ok(_) => Ok(bytes),
            Err(error) => Err(match error.downcast::<ureq::Error>() {
                Ok(error) => self.broken(&error),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Failure::passing("expected a whole answer, found its end too early".to_owned())
                }
                Err(error) => self.broken(&ureq::Error::Io(error)),
            }),
        }
    }

    /// A status that is no success, with the server's words.
    fn refusal(&self, response: &mut Response, status: u16, has_key: bool) -> Failure {
        let pause = asked(response);
        let said = self.bytes(response, REFUSAL_BYTES).map_or_else(|_| "nothing more".to_owned(), |b| complaint(&b));
        let variable = &self.shared.settings.key_variable;
        let advice = match (status, &self.shared.key) {
            (401 | 403, None) => format!("; set {variable} to a key of this server"),
            (401 | 403, Some(_)) if !has_key => {
                "; a redirect led to another server, which does not get the key: give its address".to_owned()
            }
            (401 | 403, Some(_)) => format!("; check the key in {variable}"),
            (404, _) => "; check the address (it often ends in /v1) and the name of the model".to_owned(),
            _ => String::new(),
        };
        Failure { words: format!("HTTP status {status}: {said}{advice}"), may_pass: may_pass(status), pause }
    }

    /// A connection that did not come about or did not hold.
    fn broken(&self, error: &ureq::Error) -> Failure {
        use ureq::Error::{BodyStalled, ConnectionFailed, HostNotFound, Io, Protocol, Timeout};
        match error {
            Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                Failure::passing("expected a connection, found none in time".to_owned())
            }
            Timeout(_) => {
                let seconds = self.shared.settings.timeout.as_secs_f64();
                Failure::passing(format!("expected a whole answer within {seconds} s, found none"))
            }
            // Certificates that do not convince are data that is invalid.
            Io(reason) if reason.kind() == io::ErrorKind::InvalidData => Failure::for_good(in_words(error)),
            Io(_) | Protocol(_) | HostNotFound | ConnectionFailed | BodyStalled => Failure::passing(in_words(error)),
            _ => Failure::for_good(in_words(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let cases = [
            ("https://host/v1/", Ok("https://host/v1")),
            ("http://127.0.0.1:8000/v1/chat/completions", Ok("http://127.0.0.1:8000/v1")),
            ("http://[::1]:8000", Ok("http://[::1]:8000")),
            ("https://host/v1/completions/", Ok("https://host/v1")),
            ("ftp://host", Err("no http:// or https://")),
            ("host/v1", Err("\"host/v1\": expected an address such as")),
            ("https://", Err("no address")),
            ("https://sk-secret@host/v1", Err("endpoint \"https://host/v1\"")),
            ("https://host/v1?key=x", Err("a question mark")),
        ];
        for (url, expected) in cases {
            match (base(url), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(expected)) => {
                    let error = error.to_string();
                    assert!(error.contains(expected) && !error.contains("sk-secret"), "{error}");
                }
                (found, _) => panic!("{url}: {found:?}"),
            }
        }
    }

    #[test]
    fn settings_that_cannot_be() {
        let settings = || EndpointSettings::new("http://127.0.0.1:9/v1", "m");
        let of = |settings, key: &str| Shared::new(settings, Some(key.to_owned())).err().map(|e| e.to_string());
        assert_eq!(of(settings(), " sk-1 \n"), None);
        let error = of(settings(), "sk\n-secret").unwrap();
        assert!(error.contains("OPENAI_API_KEY") && !error.contains("secret"), "{error}");
        assert!(of(EndpointSettings { concurrency: 0, ..settings() }, "").unwrap().contains("from 1 to 256, found 0"));
        let nowhere = EndpointSettings { certificates: Some("/no/such.pem".into()), ..settings() };
        assert!(of(nowhere, "").unwrap().contains("/no/such.pem: expected a PEM file"));
    }
}
