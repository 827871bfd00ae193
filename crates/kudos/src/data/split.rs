//! Holding groups back by prompt, so that no prompt is on both sides.

use super::group::Group;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};

/// Splits into (kept, held out): `fraction` of the distinct prompts are held out, rounded, and at least
/// one on each side where there are two and `fraction` is between 0 and 1.
///
/// The prompts held out are those with the smallest SHA-256 of seed and prompt: the choice depends on
/// nothing else, so adding data moves few prompts. Order is kept. Prompts that differ in white space
/// alone are the same.
pub fn split_by_prompt(groups: Vec<Group>, fraction: f64, seed: u64) -> (Vec<Group>, Vec<Group>) {
    let keys: Vec<String> = groups.iter().map(Group::prompt_key).collect();
    let by_hash: BTreeMap<[u8; 32], &str> = keys.iter().map(|key| (hash(seed, key), key.as_str())).collect();
    let held: HashSet<&str> = by_hash.values().copied().take(held_count(by_hash.len(), fraction)).collect();
    let (mut kept, mut out) = (Vec::new(), Vec::new());
    for (group, key) in groups.into_iter().zip(&keys) {
        if held.contains(key.as_str()) { out.push(group) } else { kept.push(group) }
    }
    (kept, out)
}

fn held_count(prompts: usize, fraction: f64) -> usize {
    let rounded = (fraction * prompts as f64).round() as usize;
    match prompts {
        2.. if fraction > 0.0 && fraction < 1.0 => rounded.clamp(1, prompts - 1),
        1 if fraction < 1.0 => 0,
        _ => rounded.min(prompts),
    }
}

fn hash(seed: u64, key: &str) -> [u8; 32] {
    Sha256::new().chain_update(seed.to_le_bytes()).chain_update(key).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Content, Location};
    use proptest::prelude::*;
    use serde_json::Map;

    fn group(prompt: &str) -> Group {
        let location = Location { file: "f".into(), line: 1 };
        let (responses, comparisons) = (Vec::new(), Vec::new());
        Group { prompt: Some(Content::Text(prompt.into())), responses, comparisons, location, extra: Map::new() }
    }

    #[test]
    fn counts() {
        let cases = [(0, 0.5, 0), (1, 0.5, 0), (1, 1.0, 1), (2, 0.01, 1), (2, 0.99, 1), (10, 0.0, 0), (10, 0.25, 3)];
        let more = [(10, 1.0, 10), (10, f64::NAN, 0), (10, -1.0, 0), (100, 0.1, 10)];
        for (prompts, fraction, expected) in cases.into_iter().chain(more) {
            assert_eq!(held_count(prompts, fraction), expected, "{prompts} × {fraction}");
        }
    }

    #[test]
    fn white_space_does_not_separate() {
        let groups = ["a  b", "c", "a\nb ", "d"].map(group).to_vec();
        for seed in 0..20 {
            let (kept, held) = split_by_prompt(groups.clone(), 0.34, seed);
            assert_eq!(held.len() + kept.len(), 4);
            let distinct: HashSet<_> = held.iter().map(Group::prompt_key).collect();
            assert_eq!(distinct.len(), 1);
        }
    }

    proptest! {
        #[test]
        fn no_prompt_on_both_sides(prompts in prop::collection::vec("[a-d ]{0,3}", 0..30), fraction in 0.0..1.0, seed: u64) {
            let groups: Vec<Group> = prompts.iter().map(|prompt| group(prompt)).collect();
            let (kept, held) = split_by_prompt(groups.clone(), fraction, seed);
            prop_assert_eq!(&split_by_prompt(groups.clone(), fraction, seed), &(kept.clone(), held.clone()));
            let keys = |groups: &[Group]| groups.iter().map(Group::prompt_key).collect::<HashSet<_>>();
            prop_assert!(keys(&kept).is_disjoint(&keys(&held)));
            prop_assert_eq!(kept.len() + held.len(), groups.len());
            prop_assert_eq!(keys(&held).len(), held_count(keys(&groups).len(), fraction));
        }
    }
}
