//! Holding groups back by prompt, and dealing them into folds, so that no prompt is on both sides.

use super::group::Group;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Splits into (kept, held out): `fraction` of the distinct prompts are held out, rounded, and at least
/// one on each side where there are two and `fraction` is between 0 and 1.
///
/// The prompts held out are those with the smallest SHA-256 of seed and prompt: the choice depends on
/// nothing else, so adding data moves few prompts. Order is kept. Prompts that differ in white space
/// or case alone are the same.
pub fn split_by_prompt(groups: Vec<Group>, fraction: f64, seed: u64) -> (Vec<Group>, Vec<Group>) {
    let keys: Vec<String> = groups.iter().map(Group::prompt_key).collect();
    let held = held_out_by_prompt(&keys, fraction, seed);
    let (mut kept, mut out) = (Vec::new(), Vec::new());
    for (group, held) in groups.into_iter().zip(held) {
        if held { out.push(group) } else { kept.push(group) }
    }
    (kept, out)
}

/// As [`split_by_prompt`], of groups that are known by their [`Group::prompt_key`]: which are held out.
pub fn held_out_by_prompt<K: AsRef<str>>(keys: &[K], fraction: f64, seed: u64) -> Vec<bool> {
    let by_hash = in_order_of_hash(keys, seed);
    let held: HashSet<&str> = by_hash.values().copied().take(held_count(by_hash.len(), fraction)).collect();
    keys.iter().map(|key| held.contains(key.as_ref())).collect()
}

/// Deals the prompts into `folds` of equal size, to one prompt, in the order of their hashes; the fold of each key.
pub fn prompt_folds<K: AsRef<str>>(keys: &[K], folds: usize, seed: u64) -> Vec<usize> {
    let by_hash = in_order_of_hash(keys, seed);
    let fold: HashMap<&str, usize> = by_hash.values().enumerate().map(|(place, key)| (*key, place % folds)).collect();
    keys.iter().map(|key| fold[key.as_ref()]).collect()
}

fn in_order_of_hash<K: AsRef<str>>(keys: &[K], seed: u64) -> BTreeMap<[u8; 32], &str> {
    keys.iter().map(|key| (hash(seed, key.as_ref()), key.as_ref())).collect()
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

    fn group(prompt: &str) -> Group {
        let location = Location { file: "f".into(), line: 1 };
        let (responses, comparisons, judged) = (Vec::new(), Vec::new(), Vec::new());
        Group { prompt: Some(Content::Text(prompt.into())), responses, comparisons, judged, location }
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

    #[test]
    fn folds_are_even_and_prompts_stay_together() {
        let mut keys: Vec<String> = (0..23).map(|n| format!("prompt {n}")).collect();
        keys.push("prompt 7".into());
        let found = prompt_folds(&keys, 5, 42);
        assert_eq!(found[7], found[23]);
        let size = |fold| found[..23].iter().filter(|f| **f == fold).count();
        assert_eq!((0..5).map(size).collect::<Vec<_>>(), [5, 5, 5, 4, 4]);
        keys.reverse();
        let reversed = prompt_folds(&keys, 5, 42);
        assert!(found.iter().eq(reversed.iter().rev()), "the order of the file does not matter");
        assert_ne!(prompt_folds(&keys, 5, 43), reversed);
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
