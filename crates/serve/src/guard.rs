//! Who may ask: the key, the host that was asked for, and the site that asks.

use crate::ask::Refusal;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HeaderName};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use web::origin;

/// The key of a server. It is kept as its hash alone.
#[derive(Clone)]
pub struct Key([u8; 32]);

/// Why a key file is not one.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", .path.display())]
pub struct KeyError {
    path: PathBuf,
    reason: String,
}

/// Characters that a key has at least.
const SHORTEST: usize = 16;
/// Bytes that a key file has at most.
const LONGEST: usize = 4096;

impl Key {
    /// Reads a key file: one line.
    ///
    /// # Errors
    /// A file that cannot be read, is empty, has several lines, or whose key is short or has white space in it.
    pub fn read(path: &Path) -> Result<Key, KeyError> {
        let error = |reason: String| KeyError { path: path.into(), reason };
        let bytes = std::fs::read(path).map_err(|cause| error(format!("cannot read the key: {cause}")))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| error("the key is not UTF-8".into()))?;
        Key::of_line(text).map_err(error)
    }

    fn of_line(text: &str) -> Result<Key, String> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let found = line.chars().count();
        if line.is_empty() {
            return Err(format!("the file is empty, expected a key of at least {SHORTEST} characters in one line"));
        }
        if line.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("the key has white space in it, expected one line without any".into());
        }
        if !line.is_ascii() {
            return Err("the key has characters that a header cannot carry, expected ASCII".into());
        }
        match found {
            0..SHORTEST => Err(format!("the key has {found} characters, expected at least {SHORTEST}")),
            _ if line.len() > LONGEST => Err(format!("the key has {found} characters, expected at most {LONGEST}")),
            _ => Ok(Key::new(line)),
        }
    }

    /// The key that is this text.
    pub fn new(key: &str) -> Key {
        Key(Sha256::digest(key).into())
    }

    /// Whether the request carries it. Hashes are compared, in constant time, so that time tells nothing of the key.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let bearer = origin::text(headers, &AUTHORIZATION).and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
        });
        let given = bearer.or_else(|| origin::text(headers, &X_API_KEY).map(str::trim));
        given.is_some_and(|given| web::same_secret(&Key::new(given).0, &self.0))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What a server asks of those who ask it.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// The key; `None` lets in who can reach the address.
    pub key: Option<Key>,
    /// Whether the server listens at this machine's own address alone.
    pub is_local: bool,
}

impl Guard {
    /// Whether a request may come in.
    ///
    /// # Errors
    /// [`Refusal::Unauthorised`], [`Refusal::Forbidden`].
    pub fn check(&self, headers: &HeaderMap, needs_key: bool) -> Result<(), Refusal> {
        let host = origin::host(headers);
        // Who has the key is no page of another site. Without one, the host tells such a page from one's own.
        if self.key.is_none() && self.is_local && !origin::is_loopback(host) {
            let host: String = host.chars().take(100).collect();
            return Err(Refusal::Forbidden(format!(
                "the host is `{host}`, expected localhost; a page elsewhere may be pretending to be this server"
            )));
        }
        if origin::is_foreign(headers) {
            return Err(Refusal::Forbidden("the request comes from a page of another site".into()));
        }
        match &self.key {
            Some(key) if needs_key && !key.is_in(headers) => Err(Refusal::Unauthorised),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const KEY: &str = "0123456789abcdef";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn key_files() {
        for good in ["0123456789abcdef", "0123456789abcdef\n", "0123456789abcdef\r\n"] {
            assert_eq!(Key::of_line(good).unwrap().0, Key::new(KEY).0, "{good:?}");
        }
        let cases = [
            ("", "is empty"),
            ("\n", "is empty"),
            ("\n\n", "white space"),
            ("0123456789 abcdef", "white space"),
            (" 0123456789abcdef", "white space"),
            ("0123456789abcdef\n\n", "white space"),
            ("0123456789abcdef\nother", "white space"),
            ("0123456789abcde\n", "has 15 characters"),
            ("0123456789abcdé0", "ASCII"),
        ];
        for (text, expected) in cases {
            let error = Key::of_line(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        let missing = Key::read(Path::new("/nonexistent/key")).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/key: cannot read the key"), "{missing}");
    }

    #[test]
    fn the_key_is_asked_for_in_either_header_and_wherever_it_is_needed() {
        let guard = Guard { key: Some(Key::new(KEY)), is_local: false };
        for (name, value) in [
            ("authorization", "Bearer 0123456789abcdef"),
            ("authorization", "bearer 0123456789abcdef"),
            ("x-api-key", "0123456789abcdef"),
        ] {
            assert_eq!(guard.check(&headers(&[(name, value)]), true), Ok(()), "{name}: {value}");
        }
        for (name, value) in [
            ("authorization", "0123456789abcdef"),
            ("authorization", "Basic 0123456789abcdef"),
            ("authorization", "Bearer 0123456789abcdeg"),
            ("authorization", "Bearer 0123456789abcde"),
            ("authorization", "Bearer "),
            ("x-api-key", ""),
            ("x-api-key", "0123456789abcdef0"),
            ("cookie", "0123456789abcdef"),
        ] {
            assert_eq!(guard.check(&headers(&[(name, value)]), true), Err(Refusal::Unauthorised), "{name}: {value}");
        }
        assert_eq!(guard.check(&HeaderMap::new(), false), Ok(()));
        assert!(!format!("{guard:?}").contains("0123"));
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let local = Guard { key: None, is_local: true };
        assert_eq!(local.check(&headers(&[("host", "localhost:8080")]), true), Ok(()));
        for host in ["evil.example", "", "10.0.0.1:8080"] {
            let refusal = local.check(&headers(&[("host", host)]), false).unwrap_err();
            assert!(matches!(refusal, Refusal::Forbidden(_)), "{host}");
        }
        let foreign = headers(&[("host", "localhost:8080"), ("origin", "http://evil.example")]);
        assert!(local.check(&foreign, true).is_err());
        let open = Guard { key: Some(Key::new(KEY)), is_local: true };
        let named = headers(&[("host", "judge.example"), ("x-api-key", KEY)]);
        assert_eq!(open.check(&named, true), Ok(()), "a key lets in through a proxy with a name");
    }
}
