//! What tells one model from another, so that a run is continued only with the model that began it.
//!
//! Two fine-tunings of one base agree in names, sizes and often in their first gigabyte, the embeddings. So weights
//! are known by a sample of every tensor. Smaller files are known by all their bytes.

use crate::nn::gguf::Gguf;
use crate::nn::weights::Checkpoint;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

/// Files up to this many bytes are read whole: settings, vocabularies, templates.
const WHOLE: u64 = 1 << 25;
/// Places of a tensor that are read, from its first byte to its last.
const PLACES: u64 = 8;
/// Bytes at each of them.
const PIECE: u64 = 512;
/// Parts of a large file that is no weights file known here, each sampled as a tensor is.
const PARTS: u64 = 64;

/// A hash that tells one model from another: of the names and sizes of its files, all bytes of the small ones, and
/// header and samples of every tensor of the others.
///
/// # Errors
/// When a file cannot be read.
pub fn fingerprint(path: &Path) -> Result<String> {
    identity(path, WHOLE)
}

fn identity(path: &Path, whole: u64) -> Result<String> {
    let mut files = match path.is_dir() {
        true => std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?,
        false => vec![path.to_path_buf()],
    };
    files.retain(|file| file.is_file());
    files.sort();
    let mut hash = Sha256::new();
    for path in files {
        add_file(&mut hash, &path, whole)?;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn add_file(hash: &mut Sha256, path: &Path, whole: u64) -> Result<()> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    hash.update(size.to_le_bytes());
    if size <= whole {
        return add_bytes(hash, &mut file, 0..size);
    }
    let tensors = tensors(path).unwrap_or_else(|| parts(size));
    let header = tensors.iter().map(|tensor| tensor.start).min().unwrap_or(size);
    add_bytes(hash, &mut file, 0..header)?;
    tensors.into_iter().try_for_each(|tensor| add_sample(hash, &mut file, tensor))
}

/// Where the tensors of a weights file lie, by name; `None` if it is none that is known here.
fn tensors(path: &Path) -> Option<Vec<Range<u64>>> {
    match path.extension()?.to_str()? {
        "safetensors" => {
            Some(Checkpoint::open_file(path).ok()?.tensors.values().map(|tensor| tensor.place()).collect())
        }
        "gguf" => Some(Gguf::open(path).ok()?.tensors.values().map(|tensor| tensor.place()).collect()),
        _ => None,
    }
}

fn parts(size: u64) -> Vec<Range<u64>> {
    let bytes = size.div_ceil(PARTS);
    (0..PARTS).map(|part| (part * bytes).min(size)..((part + 1) * bytes).min(size)).collect()
}

/// Bytes at places that are spread evenly over a tensor, its first and last among them; of a small one, all.
fn add_sample(hash: &mut Sha256, file: &mut File, tensor: Range<u64>) -> Result<()> {
    let bytes = tensor.end - tensor.start;
    if bytes <= PLACES * PIECE {
        return add_bytes(hash, file, tensor);
    }
    let start = |place: u64| tensor.start + (bytes - PIECE) / (PLACES - 1) * place;
    let mut places = (0..PLACES - 1).map(start).chain([tensor.end - PIECE]);
    places.try_for_each(|start| add_bytes(hash, file, start..start + PIECE))
}

fn add_bytes(hash: &mut Sha256, file: &mut File, place: Range<u64>) -> Result<()> {
    let mut bytes = vec![0; (place.end - place.start) as usize];
    file.seek(SeekFrom::Start(place.start))?;
    file.read_exact(&mut bytes)?;
    hash.update(&bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A safetensors file of `count` tensors of `values` numbers each.
    fn written(dir: &Path, count: usize, values: usize) -> PathBuf {
        let bytes = 4 * values;
        let entry = |i| {
            format!(
                r#""t{i:03}":{{"dtype":"F32","shape":[{values}],"data_offsets":[{},{}]}}"#,
                i * bytes,
                (i + 1) * bytes
            )
        };
        let header = format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(","));
        let path = dir.join("model.safetensors");
        let data: Vec<u8> = (0..count * values).flat_map(|i| (i as f32).to_le_bytes()).collect();
        std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()).unwrap();
        path
    }

    fn golden(dir: &Path) -> PathBuf {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/gguf/qwen3.gguf");
        let path = dir.join("model.gguf");
        std::fs::copy(from, &path).unwrap();
        path
    }

    /// Changes one byte of the last tensor, and of nothing else.
    fn change_late_tensor(path: &Path) {
        let mut bytes = std::fs::read(path).unwrap();
        let last = tensors(path).unwrap().into_iter().max_by_key(|tensor| tensor.start).unwrap();
        bytes[last.start as usize] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn c9_models_that_differ_in_one_late_tensor_have_other_identities() {
        let dir = tempfile::tempdir().unwrap();
        // The old rule covered the first 4 MiB: here, these are 40 of 60 tensors.
        for path in [written(dir.path(), 60, 26_000), golden(dir.path())] {
            for whole in [WHOLE, 0] {
                let before = identity(&path, whole).unwrap();
                assert_eq!(identity(&path, whole).unwrap(), before);
                change_late_tensor(&path);
                assert_ne!(identity(&path, whole).unwrap(), before, "{} up to {whole}", path.display());
            }
        }
        assert_ne!(identity(dir.path(), 0).unwrap(), identity(&dir.path().join("model.gguf"), 0).unwrap());
    }

    #[test]
    fn every_tensor_is_sampled_from_its_first_to_its_last_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), 3, 5000);
        let (bytes, before) = (std::fs::read(&path).unwrap(), identity(&path, 0).unwrap());
        for tensor in tensors(&path).unwrap() {
            for at in [tensor.start, tensor.end - 1] {
                let mut changed = bytes.clone();
                changed[at as usize] ^= 1;
                std::fs::write(&path, changed).unwrap();
                assert_ne!(identity(&path, 0).unwrap(), before, "byte {at}");
            }
        }
    }

    #[test]
    fn what_is_no_weights_file_is_sampled_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        for (name, size) in [("model.safetensors", 700_000), ("x.bin", 1), ("empty.bin", 0)] {
            let path = dir.path().join(name);
            std::fs::write(&path, vec![7u8; size]).unwrap();
            let before = identity(&path, 0).unwrap();
            assert_eq!(identity(&path, 0).unwrap(), before, "{name}");
            let mut other = vec![7u8; size];
            let Some(last) = other.last_mut() else { continue };
            *last = 8;
            std::fs::write(&path, other).unwrap();
            assert_ne!(identity(&path, 0).unwrap(), before, "{name}");
        }
    }
}
