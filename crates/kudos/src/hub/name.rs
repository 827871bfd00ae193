//! What a user types for a model, made into a repository and a revision.
//!
//! A name becomes folder names and addresses, so only the characters the hub itself allows pass.

use super::error::HubError;
use super::known::KnownModel;
use super::settings::Settings;

/// A parsed `name`, `org/name` or `org/name@revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelName {
    /// As it was typed, without the revision.
    pub typed: String,
    /// The repository on the hub.
    pub repo: String,
    /// The row of the table of short names, when it has one.
    pub known: Option<KnownModel>,
    /// The branch, tag or commit, when one was asked for.
    pub revision: Option<String>,
}

impl ModelName {
    /// Parses `text`; `revision` (from a flag) wins over one after `@`.
    pub fn parse(text: &str, revision: Option<&str>, settings: &Settings) -> Result<Self, HubError> {
        let (typed, after_at) = match text.split_once('@') {
            Some((name, after)) => (name, Some(after)),
            None => (text, None),
        };
        let known = find_known(typed, settings.known);
        let repo = known.map_or(typed, |known| known.repo).to_string();
        let revision = revision.or(after_at).map(str::to_string);
        let name = Self { typed: typed.to_string(), repo, known, revision };
        match name.fault() {
            None => Ok(name),
            Some(why) => Err(HubError::BadName { name: text.to_string(), why, known: settings.known_names() }),
        }
    }

    /// The revision to ask the hub for.
    pub fn revision_or_main(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    fn fault(&self) -> Option<String> {
        let parts: Vec<_> = self.repo.split('/').collect();
        if parts.len() > 2 || !parts.iter().all(|part| is_repo_part(part)) {
            return Some("expected letters, digits, `.`, `_`, `-` and at most one `/`".to_string());
        }
        let revision = self.revision_or_main();
        (!is_revision(revision)).then(|| format!("`{revision}` is not a revision"))
    }
}

fn find_known(typed: &str, known: &[KnownModel]) -> Option<KnownModel> {
    let same = |row: &&KnownModel| row.name.eq_ignore_ascii_case(typed) || row.repo.eq_ignore_ascii_case(typed);
    known.iter().find(same).copied()
}

fn is_repo_part(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !part.is_empty()
        && part.len() <= 96
        && !part.starts_with(['.', '-'])
        && !part.contains("--")
        && part.chars().all(allowed)
}

/// A branch, tag or commit: it becomes a path under `refs/`, so no part of it may be `..`.
fn is_revision(revision: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '+' | '=');
    let part_is_sound = |part: &str| !part.is_empty() && !part.starts_with('.');
    revision.chars().all(allowed) && revision.split('/').all(part_is_sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ModelName, HubError> {
        ModelName::parse(text, None, &Settings::from_env())
    }

    #[test]
    fn short_names_and_repositories_meet_in_one_row() {
        for text in ["all-minilm-l6-v2", "sentence-transformers/all-MiniLM-L6-v2"] {
            let name = parse(text).unwrap();
            assert_eq!(name.repo, "sentence-transformers/all-MiniLM-L6-v2", "{text}");
            assert!(name.known.is_some(), "{text}");
        }
    }

    #[test]
    fn a_revision_follows_an_at_sign_and_a_flag_wins() {
        let name = parse("org/model@refs/pr/1").unwrap();
        assert_eq!((name.repo.as_str(), name.revision_or_main()), ("org/model", "refs/pr/1"));
        let flagged = ModelName::parse("org/model@a", Some("b"), &Settings::from_env()).unwrap();
        assert_eq!(flagged.revision_or_main(), "b");
    }

    #[test]
    fn names_that_would_leave_the_cache_are_refused() {
        let bad = [
            "",
            "..",
            "../x",
            "a/b/c",
            "a\\b",
            "a//b",
            "/a",
            "a/",
            "org/.hidden",
            "a--b/c",
            "o/m@../x",
            "o/m@",
            "o/m@a//b",
            "o/m@a\\b",
            "o/mo del",
        ];
        for text in bad {
            assert!(matches!(parse(text), Err(HubError::BadName { .. })), "{text}");
        }
    }
}
