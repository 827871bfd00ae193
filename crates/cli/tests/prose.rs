//! What people read in a checkout: lines that fit a screen, and links that lead somewhere.
//!
//! Tables, code blocks and images may be wider: they cannot be broken without changing what they show.

use std::fs;
use std::path::{Path, PathBuf};

/// Characters of a line of prose.
const WIDTH: usize = 120;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every markdown file at the root, in `docs/`, and beside the measurements.
fn pages() -> Vec<PathBuf> {
    let folders = ["", "docs", "bench", "bench/peers", "examples"].map(|folder| root().join(folder));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let pages: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    for expected in ["README.md", "CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/training.md"] {
        assert!(pages.contains(&root().join(expected)), "{expected} is not among the pages");
    }
    pages
}

/// The lines outside of code blocks, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut in_code = false;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let is_fence = line.trim_start().starts_with("```");
        if !in_code && !is_fence {
            lines.push((number + 1, line));
        }
        in_code ^= is_fence;
    }
    lines
}

fn is_too_wide(line: &str) -> bool {
    let may_be_wide = line.starts_with('|') || line.starts_with("![");
    !may_be_wide && line.chars().count() > WIDTH
}

/// What the links of a line point to.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The names of a page's headings, as they are spelt in links.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).into_iter().filter(|(_, line)| line.starts_with('#'));
    let name = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
    };
    headings.map(|(_, line)| name(line)).collect()
}

/// Whether a link of a page leads to a file, and to a heading where it names one; links to the web are not followed.
fn leads_somewhere(page: &Path, link: &str) -> bool {
    if link.contains("://") {
        return true;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let path = if file.is_empty() { page.to_path_buf() } else { page.parent().unwrap().join(file) };
    if anchor.is_empty() {
        return path.exists();
    }
    fs::read_to_string(path).is_ok_and(|text| anchors(&text).iter().any(|known| known == anchor))
}

#[test]
fn lines_fit_and_links_lead_to_files() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (number, line) in prose(&text) {
            let place = format!("{}:{number}", page.display());
            if is_too_wide(line) {
                wrong.push(format!("{place}: {} characters, at most {WIDTH}", line.chars().count()));
            }
            let lost = links(line).filter(|link| !leads_somewhere(&page, link));
            wrong.extend(lost.map(|link| format!("{place}: the link {link} leads nowhere")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_sees_what_it_should() {
    let wide = "x".repeat(WIDTH + 1);
    assert!(is_too_wide(&wide) && !is_too_wide(&wide[1..]));
    assert!(!is_too_wide(&format!("| {wide} |")));
    assert_eq!(prose("a\n```sh\nb\n```\nc"), [(1, "a"), (5, "c")]);
    assert_eq!(links("see [a](b.md), [c](d.md#e)").collect::<Vec<_>>(), ["b.md", "d.md#e"]);
    assert_eq!(anchors("# A `b`, c-d"), ["a-b-c-d"]);
    let page = root().join("README.md");
    assert!(leads_somewhere(&page, "LICENSE") && leads_somewhere(&page, "https://example.org/x"));
    assert!(!leads_somewhere(&page, "no-such-file.md") && !leads_somewhere(&page, "README.md#no-such-heading"));
}
