//! Which responses are visited when: a function of the seed and the epoch alone, so that a resumed run
//! continues exactly where it was.
//!
//! A group of at most `group_size` responses is one visit. A larger one is cut, anew in each epoch, into
//! random subgroups that together hold every one of its comparisons, so each comparison is seen once an
//! epoch while a response that stands in many of them is encoded as rarely as possible.

//!
//! A larger group whose responses are rated is cut, anew in each epoch, into random parts instead: its ratings are learnt
//! one by one, so every response is seen once an epoch, with other neighbours each time.

use super::Example;
use crate::data::Comparison;
use crate::random::Stream;

/// One visit to a group: the members that are encoded and the comparisons between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Visit {
    /// Index of the example.
    pub example: usize,
    /// Indices of the encoded responses, within the example.
    pub members: Vec<usize>,
    /// Comparisons to learn from; indices into `members`.
    pub comparisons: Vec<Comparison>,
}

/// The visits of one epoch in their order.
pub fn epoch(examples: &[Example], group_size: usize, shuffle: bool, seed: u64, epoch: u64) -> Vec<Visit> {
    let mut visits = Vec::new();
    for (index, example) in examples.iter().enumerate() {
        if example.sequences.len() <= group_size {
            visits.push(whole(index, example));
        } else {
            let mut random = Stream::new(seed, epoch).fork(index as u64 + 1);
            match example.ratings.is_empty() {
                true => visits.extend(subgroups(index, example, group_size, &mut random)),
                false => visits.extend(parts(index, example, group_size, &mut random)),
            }
        }
    }
    if shuffle {
        Stream::new(seed, epoch).shuffle(&mut visits);
    }
    visits
}

fn whole(index: usize, example: &Example) -> Visit {
    Visit { example: index, members: (0..example.sequences.len()).collect(), comparisons: example.comparisons.clone() }
}

/// Cuts a large group into parts of nearly equal size, with the comparisons inside each.
fn parts(index: usize, example: &Example, size: usize, random: &mut Stream) -> Vec<Visit> {
    let mut order: Vec<usize> = (0..example.sequences.len()).collect();
    random.shuffle(&mut order);
    let count = order.len().div_ceil(size);
    let part = |i: usize| {
        let members = order[i * order.len() / count..(i + 1) * order.len() / count].to_vec();
        let place = |response| members.iter().position(|m| *m == response);
        let inside = |c: &Comparison| Some(Comparison { first: place(c.first)?, second: place(c.second)?, ..*c });
        let comparisons = example.comparisons.iter().filter_map(inside).collect();
        Visit { example: index, members, comparisons }
    };
    (0..count).map(part).collect()
}

/// Covers the comparisons of a large group: each subgroup starts from a random comparison that has not
/// been seen and takes in the responses with the most unseen comparisons to those already in.
fn subgroups(index: usize, example: &Example, size: usize, random: &mut Stream) -> Vec<Visit> {
    let mut order: Vec<usize> = (0..example.comparisons.len()).collect();
    random.shuffle(&mut order);
    let mut neighbours = vec![Vec::new(); example.sequences.len()];
    for &edge in &order {
        let c = example.comparisons[edge];
        neighbours[c.first].push((c.second, edge));
        neighbours[c.second].push((c.first, edge));
    }
    let mut seen = vec![false; order.len()];
    let mut visits = Vec::new();
    for &start in &order {
        if !seen[start] {
            let members = grow(example.comparisons[start], &neighbours, &seen, size);
            visits.push(take(index, example, members, &neighbours, &mut seen));
        }
    }
    visits
}

/// Members of one subgroup, grown greedily; ties go to whom the random order met first.
fn grow(start: Comparison, neighbours: &[Vec<(usize, usize)>], seen: &[bool], size: usize) -> Vec<usize> {
    let mut members = vec![start.first, start.second];
    let mut gain: Vec<(usize, usize)> = Vec::new();
    for added in 0.. {
        let Some(&member) = members.get(added) else { break };
        for &(other, _) in neighbours[member].iter().filter(|(o, edge)| !seen[*edge] && !members.contains(o)) {
            match gain.iter_mut().find(|(candidate, _)| *candidate == other) {
                Some((_, count)) => *count += 1,
                None => gain.push((other, 1)),
            }
        }
        if added == 0 || members.len() >= size {
            continue;
        }
        if let Some(best) = (0..gain.len()).rev().max_by_key(|i| gain[*i].1) {
            members.push(gain.remove(best).0);
        }
    }
    members
}

/// The visit of these members, with their unseen comparisons, which now count as seen.
fn take(
    index: usize,
    example: &Example,
    members: Vec<usize>,
    neighbours: &[Vec<(usize, usize)>],
    seen: &mut [bool],
) -> Visit {
    let mut edges: Vec<usize> = members
        .iter()
        .flat_map(|m| &neighbours[*m])
        .filter(|(other, edge)| !seen[*edge] && members.contains(other))
        .map(|(_, edge)| *edge)
        .collect();
    edges.sort_unstable();
    edges.dedup();
    let place = |response| members.iter().position(|m| *m == response).expect("both ends are members");
    let local = |edge: &usize| {
        let c = example.comparisons[*edge];
        Comparison { first: place(c.first), second: place(c.second), ..c }
    };
    let comparisons = edges.iter().map(local).collect();
    edges.iter().for_each(|edge| seen[*edge] = true);
    Visit { example: index, members, comparisons }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Encoded;
    use proptest::prelude::*;

    fn example(responses: usize, edges: &[(usize, usize)]) -> Example {
        let sequence = Encoded { ids: vec![1], type_ids: vec![0], truncated: false, tokens_before_truncation: 1 };
        let comparison =
            |&(first, second): &(usize, usize)| Comparison { first, second, target: 1.0, margin: 0.0, weight: 1.0 };
        Example {
            sequences: vec![sequence; responses],
            comparisons: edges.iter().map(comparison).collect(),
            ranks: vec![None; responses],
            ratings: Vec::new(),
            prompt: String::new(),
            location: crate::data::Location { file: "t".into(), line: 1 },
        }
    }

    proptest! {
        #[test]
        fn every_comparison_is_seen_once_an_epoch(
            edges in proptest::collection::vec((0usize..30, 1usize..30), 1..200), size in 2usize..9, seed in any::<u64>()
        ) {
            let edges: Vec<_> = edges.into_iter().map(|(a, step)| (a, (a + step) % 30)).collect();
            let examples = [example(30, &edges), example(2, &[(0, 1)])];
            let visits = epoch(&examples, size, true, seed, 3);
            let mut met: Vec<_> = visits.iter().filter(|v| v.example == 0)
                .flat_map(|v| v.comparisons.iter().map(|c| (v.members[c.first], v.members[c.second]))).collect();
            let mut expected = edges.clone();
            met.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(met, expected);
            prop_assert!(visits.iter().all(|v| v.members.len() <= size.max(2)));
            prop_assert_eq!(&visits, &epoch(&examples, size, true, seed, 3));
        }
    }

    #[test]
    fn a_complete_ranking_of_sixteen_is_covered_with_few_encodings() {
        let edges: Vec<_> = (0..16).flat_map(|i| (i + 1..16).map(move |j| (i, j))).collect();
        let visits = epoch(&[example(16, &edges)], 8, true, 1, 0);
        let encodings: usize = visits.iter().map(|v| v.members.len()).sum();
        assert!(encodings <= 100, "{encodings} encodings for 120 pairs, 240 one pair at a time");
        assert_ne!(visits, epoch(&[example(16, &edges)], 8, true, 1, 1), "epochs differ");
    }

    #[test]
    fn a_rated_group_is_seen_once_an_epoch() {
        let edges: Vec<_> = (0..17).flat_map(|i| (i + 1..17).map(move |j| (i, j))).collect();
        let rated = Example { ratings: vec![vec![Some(1.0)]; 17], ..example(17, &edges) };
        let visits = epoch(std::slice::from_ref(&rated), 8, true, 1, 0);
        let mut members: Vec<usize> = visits.iter().flat_map(|v| v.members.clone()).collect();
        members.sort_unstable();
        assert_eq!(members, (0..17).collect::<Vec<_>>());
        assert!(visits.iter().all(|v| matches!(v.members.len(), 5 | 6) && v.comparisons.len() >= 10));
        assert_ne!(visits, epoch(&[rated], 8, true, 1, 1), "epochs differ");
    }

    #[test]
    fn without_shuffling_the_order_is_the_files() {
        let examples: Vec<_> = (0..5).map(|_| example(2, &[(0, 1)])).collect();
        let order: Vec<_> = epoch(&examples, 8, false, 7, 0).iter().map(|v| v.example).collect();
        assert_eq!(order, [0, 1, 2, 3, 4]);
    }
}
