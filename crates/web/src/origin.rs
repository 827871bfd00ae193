//! From where a request comes: whether its host is this machine, and whether another site's page sends it.
//!
//! A page elsewhere can have its own name point at 127.0.0.1 and then ask a server there as if it were its own. Its
//! requests still carry that name as their host.

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName};
use std::net::IpAddr;

/// The text of a header.
pub fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The host that a request asks for; empty where it does not say.
pub fn host(headers: &HeaderMap) -> &str {
    text(headers, &HOST).unwrap_or_default()
}

/// Whether the page that asks is of another host than the one that it asks.
pub fn is_foreign(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return true;
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let own = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    own != Some(host(headers))
}

/// Whether a Host header names this machine. Any port will do: it may be forwarded.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn hosts() {
        for host in ["localhost", "LOCALHOST:7265", "127.0.0.1:1", "127.0.0.2", "[::1]:7265", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "[::2]", "0.0.0.0"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    fn foreign(name: &'static str, value: Option<&'static str>) -> bool {
        let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("localhost:7265"))]);
        headers.extend(value.map(|value| (HeaderName::from_static(name), HeaderValue::from_static(value))));
        is_foreign(&headers)
    }

    #[test]
    fn origins() {
        assert!(!foreign("origin", None) && !foreign("origin", Some("http://localhost:7265")));
        for origin in ["http://evil.example", "null", "", "http://localhost:1", "http://localhost:7265.evil.example"] {
            assert!(foreign("origin", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn what_the_browser_says_of_the_site() {
        for site in ["same-origin", "none"] {
            assert!(!foreign("sec-fetch-site", Some(site)), "{site}");
        }
        for site in ["cross-site", "same-site", ""] {
            assert!(foreign("sec-fetch-site", Some(site)), "{site}");
        }
    }
}
