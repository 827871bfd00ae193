//! Prompts dealt into folds: what is fitted to the labels is measured on other prompts.

use crate::data::Group;
use std::collections::BTreeMap;

/// Folds of everything that is fitted here.
pub(super) const FOLDS: usize = 5;
/// With fewer prompts, four fifths of them are too few to fit anything to.
pub(super) const FEWEST_PROMPTS: usize = 2 * FOLDS;

/// The fold of each group, or `None` with fewer than [`FEWEST_PROMPTS`] prompts.
///
/// The prompts (by their keys) are dealt in the order of their FNV-1a hashes, so the folds
/// are equal in size to one prompt and do not depend on the order of the file.
pub(super) fn of<'a>(groups: impl Iterator<Item = &'a Group>) -> Option<Vec<usize>> {
    let keys: Vec<String> = groups.map(Group::prompt_key).collect();
    let mut dealt: BTreeMap<(u64, &str), usize> = keys.iter().map(|key| ((hash(key), key.as_str()), 0)).collect();
    dealt.values_mut().enumerate().for_each(|(place, fold)| *fold = place % FOLDS);
    let fold = |key: &String| dealt[&(hash(key), key.as_str())];
    (dealt.len() >= FEWEST_PROMPTS).then(|| keys.iter().map(fold).collect())
}

/// FNV-1a, 64 bits.
fn hash(text: &str) -> u64 {
    text.bytes().fold(FNV_START, fnv)
}

/// What FNV-1a starts from.
pub(super) const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// One step of FNV-1a.
pub(super) fn fnv(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::unranked;
    use super::*;

    fn folds(prompts: &[String]) -> Option<Vec<usize>> {
        let groups: Vec<Group> = prompts.iter().map(|p| unranked(p, &["a"])).collect();
        of(groups.iter())
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn folds_are_even_and_prompts_stay_together() {
        let mut prompts: Vec<String> = (0..23).map(|n| format!("prompt {n}")).collect();
        prompts.push("prompt  7".into());
        let found = folds(&prompts).unwrap();
        assert_eq!(found[7], found[23]);
        let size = |fold: usize| found[..23].iter().filter(|f| **f == fold).count();
        assert_eq!((0..FOLDS).map(size).collect::<Vec<_>>(), [5, 5, 5, 4, 4]);
        prompts.reverse();
        let mut reversed = folds(&prompts).unwrap();
        reversed.reverse();
        assert_eq!(found, reversed);
        assert_eq!(folds(&prompts[..9]), None);
    }
}
