//! The page's files, which are part of the program.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

macro_rules! assets {
    ($($name:literal),+ $(,)?) => {
        const ASSETS: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../../../assets/rank/", $name)))),+];
    };
}

assets![
    "api.js",
    "app.js",
    "base.css",
    "board.js",
    "cards.js",
    "charts.js",
    "clock.js",
    "dialogs.js",
    "dom.js",
    "drag.js",
    "figures.js",
    "icon.svg",
    "index.html",
    "inline.js",
    "kept.js",
    "keys.js",
    "markdown.js",
    "memory.js",
    "moves.js",
    "outbox.js",
    "rank.css",
    "ranking.js",
    "results.css",
    "results.html",
    "results.js",
    "state.js",
    "text.js",
    "train.js",
    "view.js",
];

/// `GET /`
pub async fn ranking() -> Response {
    file("index.html")
}

/// `GET /results`
pub async fn results() -> Response {
    file("results.html")
}

/// `GET /assets/NAME`
pub async fn asset(Path(name): Path<String>) -> Response {
    file(&name)
}

/// One file. The same program may be rebuilt at the same address, so a browser asks each time.
fn file(name: &str) -> Response {
    let Some((_, text)) = ASSETS.iter().find(|(known, _)| *known == name) else {
        return (StatusCode::NOT_FOUND, "there is no such file").into_response();
    };
    ([(header::CONTENT_TYPE, kind(name)), (header::CACHE_CONTROL, "no-cache")], *text).into_response()
}

fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_served_and_no_module_is_long() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/rank");
        let mut found: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        assert_eq!(found, ASSETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        for (name, text) in ASSETS {
            assert!(text.lines().count() < 200, "{name} has {} lines", text.lines().count());
            assert_ne!(kind(name), kind(""), "{name}");
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere_and_nothing_is_parsed_as_html() {
        for (name, text) in ASSETS {
            let forbidden = [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "style=\"",
                "onclick=\"",
                "https://",
            ];
            for word in forbidden {
                assert!(!text.contains(word), "{name} has {word}");
            }
        }
    }
}
