//! The pages: one to try the judges at `/`, and the description of the API at `/docs`. Their files are part of the
//! program.
//!
//! They reveal nothing of the judges, so they are served without a key; what they ask the server needs it.

use crate::ask::Refusal;
use crate::dialects::form::Fault;
use crate::route::{Call, Route};
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderValue, Method};
use axum::response::Response;

macro_rules! assets {
    ($($folder:literal: $($name:literal),+);+ $(;)?) => {
        const ASSETS: &[(&str, &str)] =
            &[$($(($name, include_str!(concat!("../../../../assets/", $folder, "/", $name)))),+),+];
    };
}

// Type, colours and the building of elements are those of the ranking page.
assets! {
    "rank": "base.css", "dom.js", "icon.svg";
    "serve": "docs.html", "docs.js", "index.html", "openapi.json", "results.js", "serve.css", "server.js", "try.js";
}

/// The routes of the pages.
pub(super) fn routes() -> Vec<Route> {
    let refuse = |refusal: &Refusal| super::fault(&Fault::from(refusal)).into_response();
    let get = |path, handler| Route { method: Method::GET, path, needs_key: false, handler, refuse };
    vec![
        get("/", |_| Box::pin(async { file("index.html") })),
        get("/docs", |_| Box::pin(async { file("docs.html") })),
        get("/openapi.json", |_| Box::pin(async { file("openapi.json") })),
        get("/assets/{name}", |call: Call| {
            Box::pin(async move { file(call.parameters.get("name").map(String::as_str).unwrap_or_default()) })
        }),
    ]
}

/// Nothing but this server's own files, no inline script or style, no parsing of text as HTML, in no other page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// One file. The same program may be rebuilt at the same address, so a browser asks each time.
fn file(name: &str) -> Response {
    let Some((_, text)) = ASSETS.iter().find(|(known, _)| *known == name) else {
        let refusal = Refusal::NoSuchPath("file of that name".to_owned());
        return super::fault(&Fault::from(&refusal)).into_response();
    };
    let mut response = Response::new(Body::from(*text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind(name)));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    #[test]
    fn every_file_of_the_folder_is_served_and_no_module_is_long() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/serve");
        let found: BTreeSet<String> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        let served: BTreeSet<String> = ASSETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert!(found.is_subset(&served), "{:?}", found.difference(&served));
        for (name, text) in ASSETS.iter().filter(|(name, _)| !name.ends_with(".json")) {
            assert!(text.lines().count() < 250, "{name} has {} lines", text.lines().count());
            assert_ne!(kind(name), kind(""), "{name}");
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere_and_nothing_is_parsed_as_html() {
        let forbidden =
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=\"", "onclick=\""];
        for (name, text) in ASSETS.iter().filter(|(name, _)| !name.ends_with(".json")) {
            for word in forbidden {
                assert!(!text.contains(word), "{name} has {word}");
            }
            for scheme in ["http://", "https://"] {
                let others = text.matches(scheme).count()
                    - text.matches("http://www.w3.org/2000/svg").count().min(text.matches(scheme).count());
                assert_eq!(others, 0, "{name} names {scheme}");
            }
        }
    }

    #[test]
    fn the_description_has_each_route_and_no_other() {
        let text = ASSETS.iter().find(|(name, _)| *name == "openapi.json").unwrap().1;
        let description: Value = serde_json::from_str(text).unwrap();
        assert_eq!(description["openapi"], "3.1.0");
        let paths = description["paths"].as_object().unwrap();
        let described: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(|m| (m.to_uppercase(), path.clone())))
            .collect();
        let served = crate::router::routes().into_iter().map(|route| (route.method.to_string(), route.path.to_owned()));
        let served: BTreeSet<_> = served.collect();
        // The files of the pages are none of the API.
        let hidden: BTreeSet<_> = [("GET".to_owned(), "/assets/{name}".to_owned())].into();
        assert_eq!(served.difference(&hidden).cloned().collect::<BTreeSet<_>>(), described);
    }
}
