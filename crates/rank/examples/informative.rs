//! Does the informative order need fewer labels than order by chance? A simulation on labelled data.
//!
//! `informative JUDGE DATA…`: a judge's frozen body reads all responses; half of the prompts are held out; the labels of the
//! others are revealed one item at a time, in both orders, and a head learns them. What is printed is the accuracy on the
//! held-out prompts after each number of rankings, and how many rankings each order needs. Run by `bench/informative.sh`.

use kudos::data::{Group, Options, held_out_by_prompt, load_groups};
use kudos::models::{Input, Scorer};
use kudos::random::Stream;
use rank::informative::{Features, Head};
use rank::{ItemId, ResponseId, TaskId};

const SEEDS: u64 = 20;
const HELD_OUT: f64 = 0.5;
/// Measurements in a row that must reach an accuracy: a single one may by luck.
const IN_A_ROW: usize = 3;
/// Responses of an item, at most: a page shows no more.
const MOST: usize = 16;

/// An item of the simulation: ranks from the file, by place.
struct Item {
    responses: Vec<ResponseId>,
    ranks: Vec<Option<u32>>,
    /// `(better, worse)`.
    preferences: Vec<(usize, usize)>,
    held_out: bool,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let judge = arguments.next().expect("usage: informative JUDGE DATA…");
    let mut judge = Scorer::load(std::path::Path::new(&judge), None).expect("a judge");
    println!("data                        items  rankings  chance  informative  needs");
    for file in arguments {
        let loaded = load_groups(&[&file], &Options::default()).expect("data");
        let groups: Vec<Group> = loaded.groups.into_iter().flat_map(pairs_alone).collect();
        let features = features(&mut judge, &groups);
        compare(std::path::Path::new(&file).file_name().unwrap().to_str().unwrap(), &groups, &features);
    }
}

/// Judgements of one prompt are items of their own, as on the page.
fn pairs_alone(group: Group) -> Vec<Group> {
    if group.judged.is_empty() {
        return vec![group].into_iter().filter(|group| (2..=MOST).contains(&group.responses.len())).collect();
    }
    let one = |c: usize| {
        let comparison = group.comparisons[c];
        group.part(&[comparison.first, comparison.second], |other| other == c)
    };
    (0..group.comparisons.len()).map(one).collect()
}

fn features(judge: &mut Scorer, groups: &[Group]) -> Features {
    let inputs: Vec<Input> =
        groups.iter().flat_map(|g| g.responses.iter().map(|r| (g.prompt.as_ref(), &r.content))).collect();
    let rows: Vec<f32> = inputs.chunks(256).flat_map(|chunk| judge.features(chunk).expect("features")).collect();
    let responses = (0..inputs.len() as i64).map(ResponseId).collect();
    Features { width: rows.len() / inputs.len(), responses, rows }
}

fn items(groups: &[Group], seed: u64) -> Vec<Item> {
    let keys: Vec<String> = groups.iter().map(Group::prompt_key).collect();
    let held = held_out_by_prompt(&keys, HELD_OUT, seed);
    let mut next = 0;
    groups
        .iter()
        .zip(held)
        .map(|(group, held_out)| {
            let responses = (next..next + group.responses.len() as i64).map(ResponseId).collect();
            next += group.responses.len() as i64;
            let preferences: Vec<(usize, usize)> = group.pairs().map(|(better, worse, _)| (better, worse)).collect();
            Item { responses, ranks: ranks(group, &preferences), preferences, held_out }
        })
        .collect()
}

fn ranks(group: &Group, preferences: &[(usize, usize)]) -> Vec<Option<u32>> {
    let lost = |r: usize| preferences.iter().filter(|(_, worse)| *worse == r).count() as u32;
    (0..group.responses.len()).map(|r| Some(1 + lost(r))).collect()
}

/// Accuracy on the held-out preferences after each of `marks` rankings.
fn run(items: &[Item], features: &Features, marks: &[usize], seed: u64, informative: bool) -> Vec<f64> {
    let ids: Vec<(ItemId, Vec<ResponseId>)> =
        items.iter().enumerate().map(|(i, item)| (ItemId(i as i64), item.responses.clone())).collect();
    let mut head = Head::new(&ids, features);
    let mut pool: Vec<usize> =
        (0..items.len()).filter(|i| !items[*i].held_out && !items[*i].preferences.is_empty()).collect();
    Stream::new(seed, 7).shuffle(&mut pool);
    let mut accuracies = Vec::new();
    for n in 1..=*marks.last().unwrap() {
        let value = |i: &usize| head.value(ItemId(*i as i64)).unwrap_or(0.0);
        let best = pool.iter().enumerate().max_by(|a, b| value(a.1).total_cmp(&value(b.1)));
        let at = if informative { best.map_or(0, |(at, _)| at) } else { pool.len() - 1 };
        let item = pool.swap_remove(at);
        head.learn(ItemId(item as i64), TaskId(n as i64), &items[item].ranks);
        if marks.contains(&n) {
            accuracies.push(accuracy(&head, items));
        }
    }
    accuracies
}

fn accuracy(head: &Head, items: &[Item]) -> f64 {
    let (mut right, mut all) = (0.0, 0.0);
    for (i, item) in items.iter().enumerate().filter(|(_, item)| item.held_out) {
        let scores = head.scores(ItemId(i as i64)).expect("it has features");
        for (better, worse) in &item.preferences {
            all += 1.0;
            right += match scores[*better].total_cmp(&scores[*worse]) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
        }
    }
    right / all
}

/// Mean curves over seeds; for some numbers of rankings, how many the informative order needs for what chance reaches.
fn compare(name: &str, groups: &[Group], features: &Features) {
    let is_in_pool = |item: &&Item| !item.held_out && !item.preferences.is_empty();
    let pools = (0..SEEDS).map(|seed| items(groups, seed).iter().filter(is_in_pool).count());
    // The last measurements are there to see whether an accuracy lasts.
    let most = (pools.min().unwrap_or(0) * 9 / 10).min(1500);
    let mut marks: Vec<usize> = (1..=60).map(|step| most * step / 60).filter(|n| *n > 0).collect();
    marks.dedup();
    let mut curves = [vec![0.0; marks.len()], vec![0.0; marks.len()]];
    for seed in 0..SEEDS {
        let items = items(groups, seed);
        for (curve, informative) in curves.iter_mut().zip([false, true]) {
            let found = run(&items, features, &marks, seed, informative);
            curve.iter_mut().zip(found).for_each(|(sum, accuracy)| *sum += accuracy / SEEDS as f64);
        }
    }
    for part in [8, 4, 2] {
        let at = marks.len() / part - 1;
        let (chance, reached) = (curves[0][at], curves[1][at]);
        let stays = |part: &[f64]| part.iter().all(|accuracy| *accuracy >= chance);
        let needs = curves[1].windows(IN_A_ROW).position(stays).map(|first| marks[first]);
        let needs = needs.map_or("more".to_owned(), |n| format!("{n} ({:.0} %)", 100.0 * n as f64 / marks[at] as f64));
        let (items, rankings) = (groups.len(), marks[at]);
        println!("{name:<26} {items:>6}  {rankings:>8}  {chance:>6.3}  {reached:>11.3}  {needs}");
    }
}
