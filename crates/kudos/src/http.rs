//! What both HTTP clients of this crate (for the hub, and for endpoints) hold to: redirects are followed by hand, a
//! secret goes to the origin it was given for, and certificates can be the machine's own.

use std::io;
use std::path::Path;
use std::sync::Arc;

use ureq::Body;
use ureq::http::Uri;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// An answer, its body unread.
pub(crate) type Response = ureq::http::Response<Body>;

/// A header as text.
pub(crate) fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

/// TLS that trusts the authorities of a PEM file, or Mozilla's.
pub(crate) fn tls(certificates: Option<&Path>) -> io::Result<TlsConfig> {
    let builder = TlsConfig::builder();
    let Some(path) = certificates else {
        return Ok(builder.build());
    };
    let pem = std::fs::read(path)?;
    let certificates = parse_pem(&pem).filter_map(|part| match part {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let roots = RootCerts::Specific(Arc::new(certificates.collect()));
    Ok(builder.root_certs(roots).build())
}

/// What a connection's error says.
pub(crate) fn in_words(error: &ureq::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("io: ").unwrap_or(&text).to_string()
}

/// Same scheme, host and port.
pub(crate) fn same_origin(a: &str, b: &str) -> bool {
    match (origin(a), origin(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_string();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// The address that `location` means in an answer from `base`.
pub(crate) fn join(base: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_string());
    }
    let uri: Uri = base.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    let (folder, _) = uri.path().rsplit_once('/')?;
    (!location.contains(':')).then(|| format!("{scheme}://{authority}{folder}/{location}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_goes_to_one_origin_alone() {
        let hub = "https://huggingface.co";
        let cases = [
            ("https://huggingface.co/org/model", true),
            ("https://HuggingFace.co:443/x", true),
            ("http://huggingface.co/x", false),
            ("https://huggingface.co.evil.net/x", false),
            ("https://huggingface.co:8443/x", false),
            ("https://huggingface.co@evil.net/x", false),
            ("https://cdn.huggingface.co/x", false),
        ];
        for (url, expected) in cases {
            assert_eq!(same_origin(url, hub), expected, "{url}");
        }
    }

    #[test]
    fn redirects_are_joined_to_where_they_came_from() {
        let base = "https://hub.example/a/b?c=d";
        let cases = [
            ("https://cdn.example/x", Some("https://cdn.example/x")),
            ("//cdn.example/x", Some("https://cdn.example/x")),
            ("/x?y", Some("https://hub.example/x?y")),
            ("x", Some("https://hub.example/a/x")),
            ("file:///etc/passwd", None),
        ];
        for (location, expected) in cases {
            assert_eq!(join(base, location).as_deref(), expected, "{location}");
        }
    }
}
