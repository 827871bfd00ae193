//! Models that are already on this machine, found by path or by name, without a connection.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::cache::RepoCache;
use super::error::HubError;
use super::name::ModelName;
use super::settings::Settings;
use super::source::{Provenance, SOURCE_FILE};

/// The path that `name_or_path` stands for: see [`super::resolve`].
pub fn resolve_with(name_or_path: &str, settings: &Settings) -> Result<PathBuf, HubError> {
    let path = Path::new(name_or_path);
    if path.is_dir() || (path.is_file() && is_gguf(path)) {
        return Ok(path.to_path_buf());
    }
    if path.is_file() {
        return Err(HubError::NotAModel { path: path.to_path_buf() });
    }
    if looks_like_a_path(name_or_path) {
        return Err(HubError::NoSuchPath { path: name_or_path.to_string() });
    }
    let name = ModelName::parse(name_or_path, None, settings)?;
    find_pulled(&name, None, settings)?.ok_or_else(|| not_pulled(name_or_path, settings))
}

/// Where a pulled model is: the hub's cache first, then the local model directory.
///
/// `file` asks for one GGUF file of it. `None` when it is not there, or not whole.
pub(super) fn find_pulled(
    name: &ModelName,
    file: Option<&str>,
    settings: &Settings,
) -> Result<Option<PathBuf>, HubError> {
    let cache = RepoCache::new(&settings.cache, &name.repo);
    if let Some(snapshot) = cache.snapshot(name.revision_or_main())
        && let Some(path) = model_in(&snapshot, file, &name.typed)?
    {
        return Ok(Some(path));
    }
    match name.known {
        Some(known) if name.revision.is_none() => model_in(&settings.models().join(known.name), file, &name.typed),
        _ => Ok(None),
    }
}

/// The model that an earlier pull copied to `dir`, if that is this one.
pub(super) fn find_in_dir(name: &ModelName, file: Option<&str>, dir: &Path) -> Result<Option<PathBuf>, HubError> {
    let is_this = |source: &Provenance| source.is_of(&name.repo, name.revision_or_main());
    match Provenance::read(dir).filter(is_this) {
        Some(_) => model_in(dir, file, &name.typed),
        None => Ok(None),
    }
}

/// The folder of what [`model_in`] found.
pub(super) fn model_dir(path: &Path) -> &Path {
    if path.is_dir() {
        return path;
    }
    path.parent().unwrap_or(path)
}

/// The commit of a snapshot, or what the note beside the files says.
pub(super) fn revision_of(dir: &Path) -> Option<String> {
    if dir.parent()?.file_name()? == "snapshots" {
        return Some(dir.file_name()?.to_string_lossy().into_owned());
    }
    Provenance::read(dir).map(|source| source.revision)
}

/// What to open in `dir`: the folder itself when it holds whole safetensors weights and a config,
/// else its one GGUF file.
pub(super) fn model_in(dir: &Path, file: Option<&str>, name: &str) -> Result<Option<PathBuf>, HubError> {
    let ggufs = ggufs_in(dir);
    if let Some(wanted) = file {
        return Ok(choose_gguf(&ggufs, wanted, name).ok().map(|f| dir.join(f)));
    }
    if dir.join("config.json").is_file() && has_safetensors(dir) {
        return Ok(Some(dir.to_path_buf()));
    }
    match ggufs.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(dir.join(one))),
        _ => Err(HubError::ManyGguf {
            name: name.to_string(),
            files: ggufs.iter().map(|f| dir.join(f).display().to_string()).collect(),
        }),
    }
}

/// The one GGUF file that `wanted` names: in full, or by a part only one file has (`q4_k_m`).
pub(super) fn choose_gguf(files: &[String], wanted: &str, name: &str) -> Result<String, HubError> {
    if let Some(exact) = files.iter().find(|file| *file == wanted) {
        return Ok(exact.clone());
    }
    let wanted_lower = wanted.to_ascii_lowercase();
    let part = |file: &&String| file.to_ascii_lowercase().contains(&wanted_lower);
    let matching: Vec<_> = files.iter().filter(part).collect();
    match matching.as_slice() {
        [one] => Ok((*one).clone()),
        _ => Err(HubError::FileChoice {
            name: name.to_string(),
            wanted: wanted.to_string(),
            matches: matching.len(),
            files: files.to_vec(),
        }),
    }
}

/// Whether the folder has all its safetensors weights: a dangling link is a file not there.
fn has_safetensors(dir: &Path) -> bool {
    if dir.join("model.safetensors").is_file() {
        return true;
    }
    match File::open(dir.join("model.safetensors.index.json")) {
        Ok(index) => shards(index).is_some_and(|all| all.iter().all(|f| dir.join(f).is_file())),
        Err(_) => file_names(dir).iter().any(|f| f.ends_with(".safetensors")),
    }
}

/// The files an index spreads its tensors over.
fn shards(index: File) -> Option<Vec<String>> {
    let index: serde_json::Value = serde_json::from_reader(std::io::BufReader::new(index)).ok()?;
    let files = index.get("weight_map")?.as_object()?.values();
    files.map(|file| Some(file.as_str()?.to_string())).collect()
}

fn ggufs_in(dir: &Path) -> Vec<String> {
    let mut files = file_names(dir);
    files.retain(|file| is_gguf(Path::new(file)));
    files
}

/// Names of the files in `dir`, sorted; links count as what they point to.
fn file_names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let files = entries.flatten().filter(|entry| entry.path().is_file());
    let mut names: Vec<_> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Paths of the files in `dir` and its folders, relative to it, sorted, without the note.
pub(super) fn files_below(dir: &Path) -> Vec<String> {
    let mut files = file_names(dir);
    files.retain(|file| file != SOURCE_FILE);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(folder) = entry.file_name().into_string() else {
            continue;
        };
        if entry.path().is_dir() {
            let inner = files_below(&entry.path());
            files.extend(inner.into_iter().map(|file| format!("{folder}/{file}")));
        }
    }
    files.sort();
    files
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

fn looks_like_a_path(text: &str) -> bool {
    let slashes = text.split('@').next().unwrap_or_default().matches('/').count();
    text.starts_with(['/', '.', '~', '\\']) || slashes > 1 || is_gguf(Path::new(text))
}

fn not_pulled(name: &str, settings: &Settings) -> HubError {
    let (cache, models) = (settings.cache.display(), settings.models());
    HubError::NotPulled { name: name.to_string(), looked: format!("{cache} and {}", models.display()) }
}
