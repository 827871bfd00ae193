//! The judge in the box (the built-in judge): a small general one inside the binary, for the first minute and as a base for one's own.
//!
//! It is an ordinary judge directory, made by `bench/judge/make.py`. At its first use it is unpacked into the local
//! model directory, whole or not at all; from then on its name stands for that directory.

use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// What `--judge` and `--base` call it.
pub const NAME: &str = "kudos-judge";

/// What the quickstart starts from: the judge in the box, else a small base that `kudos pull` fetches.
pub const QUICK_BASE: &str = if cfg!(feature = "boxed-judge") { NAME } else { "all-minilm-l6-v2" };

/// A file of the directory: its name and its bytes, compressed by zstd.
type Packed = (&'static str, &'static [u8]);

#[cfg(feature = "boxed-judge")]
macro_rules! packed {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../../assets/judge/", $name, ".zst")))),*]
    };
}

#[cfg(feature = "boxed-judge")]
static FILES: &[Packed] = packed![
    "config.json",
    "model.int8.safetensors",
    "reward.json",
    "README.md",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
];
#[cfg(not(feature = "boxed-judge"))]
static FILES: &[Packed] = &[];

/// The directory that a name of this module stands for; `None` for other names.
///
/// # Errors
/// When it has to be unpacked and cannot be.
pub fn resolve(name: &str) -> anyhow::Result<Option<PathBuf>> {
    if name != NAME || Path::new(name).is_dir() {
        return Ok(None);
    }
    if FILES.is_empty() {
        bail!(
            "no judge is built into this kudos (it was built without the feature boxed-judge): name one with --judge, or a base with --base"
        );
    }
    let folder = format!("{NAME}-{:016x}", fingerprint(FILES));
    let home = kudos::hub::Settings::from_env().models().join(&folder);
    if is_whole(&home) {
        return Ok(Some(home));
    }
    let placed = unpack(FILES, &home).or_else(|_| unpack(FILES, &std::env::temp_dir().join(&folder)));
    let dir = placed.with_context(|| format!("the built-in judge cannot be unpacked into {}", home.display()))?;
    let card = dir.join("README.md");
    say!("the built-in judge is small, and at chance on many kinds of prompt; its card: {}", card.display());
    Ok(Some(dir))
}

fn is_whole(dir: &Path) -> bool {
    FILES.iter().all(|(name, _)| dir.join(name).is_file())
}

/// Unpacks beside `dir` and puts the whole folder in its place at once.
fn unpack(files: &[Packed], dir: &Path) -> anyhow::Result<PathBuf> {
    let staging = dir.with_extension(std::process::id().to_string());
    fs::create_dir_all(&staging)?;
    let written = files.iter().try_for_each(|(name, bytes)| {
        fs::write(staging.join(name), zstd::decode_all(*bytes).with_context(|| format!("{name} in the box"))?)?;
        anyhow::Ok(())
    });
    let placed = written.and_then(|()| match fs::rename(&staging, dir) {
        Err(_) if is_whole(dir) => Ok(()), // another process was faster
        Err(_) if dir.is_dir() => {
            fs::remove_dir_all(dir)?;
            Ok(fs::rename(&staging, dir)?)
        }
        result => Ok(result?),
    });
    let _ = fs::remove_dir_all(&staging);
    placed.map(|()| dir.to_path_buf())
}

/// Tells one box from another: FNV-1a over the names, the sizes and the end of each file, where zstd keeps its checksum.
fn fingerprint(files: &[Packed]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |bytes: &[u8]| bytes.iter().for_each(|b| hash = (hash ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    for (name, bytes) in files {
        add(name.as_bytes());
        add(&bytes.len().to_le_bytes());
        add(&bytes[bytes.len().saturating_sub(4096)..]);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacks_whole_and_over_a_damaged_folder() {
        let packed: Vec<u8> = zstd::encode_all(&b"{}"[..], 3).unwrap();
        let packed: &'static [u8] = packed.leak();
        let files: &[Packed] = &[("a.json", packed)];
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("judge-1");
        for _ in 0..2 {
            assert_eq!(unpack(files, &dir).unwrap(), dir);
            assert_eq!(fs::read(dir.join("a.json")).unwrap(), b"{}");
            fs::remove_file(dir.join("a.json")).unwrap();
        }
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1, "no staging folder is left");
    }

    #[test]
    fn a_broken_box_says_which_file() {
        let temporary = tempfile::tempdir().unwrap();
        let error = unpack(&[("a.json", b"not zstd")], &temporary.path().join("judge")).unwrap_err();
        assert!(format!("{error:#}").contains("a.json in the box"), "{error:#}");
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    }

    #[test]
    fn another_box_has_another_name() {
        let [a, b]: [&[Packed]; 2] = [&[("a", b"1")], &[("a", b"2")]];
        assert_ne!(fingerprint(a), fingerprint(b));
    }

    #[test]
    fn other_names_are_not_ours() {
        assert_eq!(resolve("all-minilm-l6-v2").unwrap(), None);
    }
}
