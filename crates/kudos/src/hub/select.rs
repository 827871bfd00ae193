//! Which files of a repository are worth fetching, and which names may be written to disk.
//!
//! Repositories carry the same weights in many formats; fetching all of them would be several times
//! the bytes. The rule is: safetensors, else one GGUF, plus the few small files that give the weights
//! their meaning.

use std::path::Path;

use super::error::HubError;
use super::local::choose_gguf;
use crate::text::TOKENIZER_FILES;

/// Small files taken whenever they are there, besides those of the tokenizer.
const COMPANIONS: &[&str] = &[
    "config.json",
    "generation_config.json",
    "chat_template.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "reward.json",
    "README.md",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
];

/// Weight formats that are never fetched, to name them when there is nothing else.
const UNREAD_WEIGHTS: &[&str] = &["bin", "pt", "pth", "onnx", "h5", "msgpack", "ot", "tflite"];

/// The files of `listing` to fetch: weights and companions.
///
/// `file` chooses one GGUF file. Errors name the model `name` and `revision`.
pub(super) fn select(
    listing: &[String],
    file: Option<&str>,
    name: &str,
    revision: &str,
) -> Result<Vec<String>, HubError> {
    if let Some(bad) = listing.iter().find(|file| !is_safe(file)) {
        return Err(HubError::UnsafeFileName { name: name.to_string(), file: bad.clone() });
    }
    let mut chosen = weights(listing, file, name)?;
    if chosen.is_empty() {
        return Err(no_weights(listing, name, revision));
    }
    let has_config = listing.iter().any(|file| file == "config.json");
    if !chosen[0].ends_with(".gguf") && !has_config {
        return Err(incomplete(name, revision, "config.json"));
    }
    let companion = |file: &&String| COMPANIONS.contains(&file.as_str()) || TOKENIZER_FILES.contains(&file.as_str());
    chosen.extend(listing.iter().filter(companion).cloned());
    Ok(chosen)
}

/// Whether joining `file` to a folder stays inside that folder, on every system.
fn is_safe(file: &str) -> bool {
    let sound = |part: &str| !matches!(part, "" | "." | "..") && !part.ends_with([' ', '.']);
    !file.contains(['\\', ':'])
        && !file.chars().any(char::is_control)
        && !Path::new(file).is_absolute()
        && file.split('/').all(sound)
}

fn weights(listing: &[String], file: Option<&str>, name: &str) -> Result<Vec<String>, HubError> {
    let ggufs = with_extension(listing, "gguf");
    if let Some(wanted) = file {
        return Ok(vec![choose_gguf(&ggufs, wanted, name)?]);
    }
    let safetensors = safetensors(listing);
    if !safetensors.is_empty() {
        return Ok(safetensors);
    }
    if ggufs.len() > 1 {
        return Err(HubError::ManyGguf { name: name.to_string(), files: ggufs });
    }
    Ok(ggufs)
}

/// `model.safetensors`, else the shards with their index, else every safetensors file at the root.
fn safetensors(listing: &[String]) -> Vec<String> {
    let at_root: Vec<_> =
        with_extension(listing, "safetensors").into_iter().filter(|file| !file.contains('/')).collect();
    if at_root.iter().any(|file| file == "model.safetensors") {
        return vec!["model.safetensors".to_string()];
    }
    let index = "model.safetensors.index.json".to_string();
    if !listing.contains(&index) {
        return at_root;
    }
    let shard = |file: &String| file.starts_with("model-");
    at_root.into_iter().filter(shard).chain([index]).collect()
}

fn with_extension(listing: &[String], extension: &str) -> Vec<String> {
    let has = |file: &&String| Path::new(file).extension().is_some_and(|e| e == extension);
    listing.iter().filter(has).cloned().collect()
}

fn no_weights(listing: &[String], name: &str, revision: &str) -> HubError {
    let unread = |file: &&String| {
        let extension = Path::new(file).extension().and_then(|e| e.to_str());
        extension.is_some_and(|e| UNREAD_WEIGHTS.contains(&e))
    };
    let found: Vec<_> = listing.iter().filter(unread).take(4).cloned().collect();
    if found.is_empty() {
        return incomplete(name, revision, "*.safetensors or *.gguf");
    }
    HubError::NoSafetensors { name: name.to_string(), found: found.join(", ") }
}

fn incomplete(name: &str, revision: &str, expected: &str) -> HubError {
    HubError::Incomplete { name: name.to_string(), revision: revision.to_string(), expected: expected.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(files: &[&str]) -> Vec<String> {
        files.iter().map(|file| file.to_string()).collect()
    }

    fn pick(files: &[&str], file: Option<&str>) -> Result<Vec<String>, HubError> {
        select(&listing(files), file, "org/model", "main")
    }

    #[test]
    fn one_weight_format_is_fetched() {
        let cases: [(&[&str], &[&str]); 4] = [
            (
                &["config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.onnx"],
                &["model.safetensors", "config.json"],
            ),
            (
                &[
                    "config.json",
                    "model-1-of-2.safetensors",
                    "model-2-of-2.safetensors",
                    "model.safetensors.index.json",
                    "consolidated.safetensors",
                ],
                &[
                    "model-1-of-2.safetensors",
                    "model-2-of-2.safetensors",
                    "model.safetensors.index.json",
                    "config.json",
                ],
            ),
            (
                &["config.json", "model.safetensors", "unet/x.safetensors", "m.Q4.gguf"],
                &["model.safetensors", "config.json"],
            ),
            (&["README.md", "m.Q4.gguf"], &["m.Q4.gguf", "README.md"]),
        ];
        for (files, expected) in cases {
            assert_eq!(pick(files, None).unwrap(), listing(expected));
        }
    }

    #[test]
    fn a_gguf_is_chosen_by_name_or_by_a_part_of_it() {
        let files = ["m-Q4_K_M.gguf", "m-Q8_0.gguf"];
        assert!(matches!(pick(&files, None), Err(HubError::ManyGguf { .. })));
        for wanted in ["q8", "m-Q8_0.gguf"] {
            assert_eq!(pick(&files, Some(wanted)).unwrap(), listing(&["m-Q8_0.gguf"]));
        }
        for wanted in ["q", "q2"] {
            assert!(matches!(pick(&files, Some(wanted)), Err(HubError::FileChoice { .. })));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let pickle = pick(&["config.json", "pytorch_model.bin"], None).unwrap_err();
        assert!(pickle.to_string().contains("only as pytorch_model.bin"), "{pickle}");
        let nothing = pick(&["README.md"], None).unwrap_err();
        assert!(nothing.to_string().contains("expected *.safetensors"), "{nothing}");
        let bare = pick(&["model.safetensors"], None).unwrap_err();
        assert!(bare.to_string().contains("expected config.json"), "{bare}");
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let bad = ["../x", "a/../x", "/etc/x", "a\\..\\x", "C:x", "a//x", "./x", "x/", "", "a\0", "a/.. "];
        for file in bad {
            let refused = pick(&["config.json", "model.safetensors", file], None);
            assert!(matches!(refused, Err(HubError::UnsafeFileName { .. })), "{file:?}");
        }
        assert!(is_safe("1_Pooling/config.json") && is_safe("model-00001-of-00002.safetensors"));
    }
}
