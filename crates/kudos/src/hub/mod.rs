//! Fetching checkpoints by name, and finding those already here.
//!
//! Every `--base`, `--model` and `--judge` goes through [`resolve`], which never opens a connection: a
//! training run must not depend on a server. [`pull`] is the one function that does. It speaks the Hugging Face
//! hub's protocol and lays files down in the hub's own cache, so that a model fetched here is there for
//! transformers and the other way round. Where the hub cannot be reached, two small models come
//! out of Python packages instead, through the machine's own pip.
//!
//! | file | purpose |
//! |---|---|
//! | `known` | the table of short names |
//! | `settings` | what the environment decides |
//! | `name` | `org/name@revision` → repository, revision |
//! | `select` | which files of a repository, and which names are safe to write |
//! | `cache` | the hub's layout on disk |
//! | `local` | finding a model without a connection |
//! | `client` | one HTTP request: redirects, retries, what a refusal means |
//! | `download` | a repository's files: resumed, checked, linked |
//! | `package` | the way round, through pip |
//! | `place` | whole folders put in place at once |
//! | `source` | the note of where files came from |
//! | `promise`, `hash` | digests |
//!
//! This module knows nothing of tensors or tokens: it moves bytes and says where they are.

mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;
mod error;
mod hash;
mod known;
mod local;
mod name;
#[cfg(feature = "hub")]
mod package;
mod place;
#[cfg(feature = "hub")]
mod promise;
#[cfg(feature = "hub")]
mod select;
mod settings;
mod source;

use std::path::{Path, PathBuf};

pub use error::HubError;
pub use known::{KNOWN_MODELS, KnownModel, Package, PackageFile};
pub use local::resolve_with;
pub use settings::Settings;

use name::ModelName;
use source::Provenance;

/// What to fetch of a model, and where to.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Branch, tag or commit; `main` when `None`.
    pub revision: Option<String>,
    /// The GGUF file to take, by its name or a part of it that only one has.
    pub file: Option<String>,
    /// Put plain copies of the files here, instead of only in the cache.
    pub dir: Option<PathBuf>,
    /// Ask the server again, check every file and fetch anew those that differ.
    pub force: bool,
}

/// What happens during a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Something the user should read.
    Note(String),
    /// A file begins.
    File {
        /// Its name in the repository.
        name: String,
        /// Its size, when the server says.
        bytes: Option<u64>,
    },
    /// How far the whole pull is, in bytes; what was on disk before counts as done.
    Bytes {
        /// Bytes on disk.
        done: u64,
        /// Bytes when finished, as far as known.
        total: u64,
    },
}

/// A pulled model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The name that was given.
    pub name: String,
    /// What `--base`, `--model` and `--judge` take: the model directory, or the GGUF file.
    pub path: PathBuf,
    /// The commit, or the package's version; `None` when it was already here and does not say.
    pub revision: Option<String>,
    /// The files of the model directory, by name.
    pub files: Vec<String>,
    /// Nothing was fetched, because it was already here.
    pub already: bool,
}

/// Where progress goes.
type Report<'a> = &'a mut dyn FnMut(Progress);

/// The path that a `--base`, `--model` or `--judge` stands for, without opening a connection.
///
/// An existing directory or `.gguf` file is taken as it is. A short name, `org/name` or
/// `org/name@revision` is looked up in the hub's cache and in the local model directory.
///
/// # Errors
///
/// [`HubError::NotPulled`] names the `kudos pull` that would help; [`HubError::NoSuchPath`],
/// [`HubError::NotAModel`], [`HubError::BadName`] and [`HubError::ManyGguf`] say what is wrong with the text.
pub fn resolve(name_or_path: &str) -> Result<PathBuf, HubError> {
    resolve_with(name_or_path, &Settings::from_env())
}

/// Fetches a model by name and gives the path to open, with the settings of the environment.
///
/// # Errors
///
/// One variant of [`HubError`] per way it can fail.
pub fn pull(name: &str, options: &PullOptions, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf, HubError> {
    pull_with(name, options, &Settings::from_env(), progress).map(|pulled| pulled.path)
}

/// [`pull`] with settings given, and with everything known about the result.
///
/// # Errors
///
/// As [`pull`].
pub fn pull_with(
    name: &str,
    options: &PullOptions,
    settings: &Settings,
    progress: &mut dyn FnMut(Progress),
) -> Result<Pulled, HubError> {
    let name = ModelName::parse(name, options.revision.as_deref(), settings)?;
    let file = options.file.as_deref();
    let Some(dir) = &options.dir else {
        let (path, already) = find_or_fetch(&name, options, settings, progress)?;
        return Ok(describe(&name, path, already));
    };
    if !options.force
        && let Some(path) = local::find_in_dir(&name, file, dir)?
    {
        return Ok(describe(&name, path, true));
    }
    place::check_destination(dir, &name.repo, &name.typed)?;
    let (path, _) = find_or_fetch(&name, options, settings, progress)?;
    let copy = copy_to(dir, &name, &path, settings, progress)?;
    let path = local::model_in(&copy, file, &name.typed)?.unwrap_or(copy);
    Ok(describe(&name, path, false))
}

/// The model's path, and whether it was here before.
fn find_or_fetch(
    name: &ModelName,
    options: &PullOptions,
    settings: &Settings,
    progress: &mut dyn FnMut(Progress),
) -> Result<(PathBuf, bool), HubError> {
    if !options.force
        && let Some(path) = local::find_pulled(name, options.file.as_deref(), settings)?
    {
        return Ok((path, true));
    }
    let dir = fetch(name, options, settings, progress)?;
    let path = local::model_in(&dir, options.file.as_deref(), &name.typed)?.unwrap_or(dir);
    Ok((path, false))
}

/// Plain copies of the pulled model at `path`, in `dir`.
fn copy_to(
    dir: &Path,
    name: &ModelName,
    path: &Path,
    settings: &Settings,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, HubError> {
    let from = local::model_dir(path);
    let gguf = path.file_name().filter(|_| path.is_file()).map(|f| f.to_string_lossy());
    let source = Provenance::read(from).unwrap_or_else(|| Provenance {
        format: 1,
        name: name.typed.clone(),
        repo: name.repo.clone(),
        asked: name.revision_or_main().to_string(),
        revision: local::revision_of(from).unwrap_or_default(),
        source: settings.endpoint.clone(),
        difference: String::new(),
        files: Vec::new(),
    });
    let staging = place::Staging::begin(dir, &settings.home, progress)?;
    place::copy_model(from, gguf.as_deref(), source, staging)
}

/// A model on disk, described for the user.
fn describe(name: &ModelName, path: PathBuf, already: bool) -> Pulled {
    let dir = local::model_dir(&path);
    Pulled {
        name: name.typed.clone(),
        revision: local::revision_of(dir),
        files: local::files_below(dir),
        path,
        already,
    }
}

#[cfg(not(feature = "hub"))]
fn fetch(
    name: &ModelName,
    _options: &PullOptions,
    _settings: &Settings,
    _progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, HubError> {
    Err(HubError::FeatureOff { name: name.typed.clone() })
}

/// The folder with the files, from the hub; where that gives no answer, from a package.
#[cfg(feature = "hub")]
fn fetch(
    name: &ModelName,
    options: &PullOptions,
    settings: &Settings,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, HubError> {
    if settings.offline {
        return Err(HubError::Offline { name: name.typed.clone() });
    }
    match download::pull_repository(name, options, settings, progress) {
        Err(hub) if hub.is_unreachable() => package_instead(name, options, settings, hub, progress),
        result => result,
    }
}

/// The way round an unreachable hub; `hub` is the error to give where there is none.
#[cfg(feature = "hub")]
fn package_instead(
    name: &ModelName,
    options: &PullOptions,
    settings: &Settings,
    hub: HubError,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, HubError> {
    let Some((known, package)) = name.known.and_then(|known| Some((known, known.package?))) else {
        return Err(hub);
    };
    if name.revision.is_some() || options.file.is_some() {
        return Err(hub);
    }
    progress(Progress::Note(hub.to_string()));
    package::pull_package(&known, &package, options.force, settings, progress).map_err(|package| HubError::NoSource {
        name: name.typed.clone(),
        hub: Box::new(hub),
        package: Box::new(package),
    })
}

#[cfg(all(test, not(feature = "hub")))]
mod tests {
    use super::*;

    #[test]
    fn without_the_feature_only_local_models_are_found() {
        let here = tempfile::tempdir().unwrap();
        assert_eq!(resolve(here.path().to_str().unwrap()).unwrap(), here.path());
        let error = pull("no-org/no-model", &PullOptions::default(), &mut |_| {}).unwrap_err();
        assert!(matches!(error, HubError::FeatureOff { .. }), "{error}");
    }
}
