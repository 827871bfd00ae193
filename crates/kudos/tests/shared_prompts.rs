//! Texts of decoder judges that begin alike: what they share is computed once, and no score has other bits for it.

mod judges;

use judges::{FAMILIES, directory, encoded, golden, json, load};
use kernels::parallel::with_threads;
use kudos::models::{ScoreError, Scorer, Workspace, batches, computed_tokens};
use kudos::nn::{Mode, Precision, Sequence};
use kudos::random::Stream;
use kudos::text::Encoded;
use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize};
use std::path::Path;

/// Positions of [`judge`]: enough for the longest fork.
const POSITIONS: usize = 320;

/// The golden judge of a family with [`POSITIONS`] positions, and its directory.
fn judge(family: &str, precision: Precision) -> (Scorer, tempfile::TempDir) {
    let mut config = json(&golden(family).join("config.json"));
    let key = if family == "gpt2" { "n_positions" } else { "max_position_embeddings" };
    config[key] = POSITIONS.into();
    let dir = directory(family, &config);
    if family == "gpt2" {
        lengthen_positions(dir.path());
    }
    (load(dir.path(), precision).expect(family), dir)
}

/// Repeats the rows of GPT-2's table of positions.
fn lengthen_positions(dir: &Path) {
    let path = dir.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let table = file.tensor("transformer.wpe.weight").unwrap();
    let (width, repeated) = (table.shape()[1], table.data().repeat(POSITIONS / table.shape()[0]));
    let longer = TensorView::new(table.dtype(), vec![POSITIONS, width], &repeated).unwrap();
    let others = file.tensors().into_iter().filter(|(name, _)| name != "transformer.wpe.weight");
    let all: Vec<_> = others.chain([("transformer.wpe.weight".to_owned(), longer)]).collect();
    std::fs::write(path, serialize(all, None).unwrap()).unwrap();
}

/// So many ids that are not the pad id.
fn some_ids(random: &mut Stream, tokens: usize) -> Vec<u32> {
    (0..tokens).map(|_| 5 + random.below(59) as u32).collect()
}

fn bits(scores: &[f32]) -> Vec<u32> {
    scores.iter().map(|score| score.to_bits()).collect()
}

/// The score of each text on its own.
fn alone(judge: &mut Scorer, texts: &[Encoded]) -> Vec<u32> {
    let score = |text: &Encoded| judge.score_encoded(std::slice::from_ref(text)).expect("a score")[0];
    bits(&texts.iter().map(score).collect::<Vec<_>>())
}

/// Scores of texts that continue the first `fork` tokens of the first one, in a batch that is made here.
fn forked(judge: &Scorer, fork: usize, texts: &[Encoded]) -> Vec<u32> {
    let mut workspace = Workspace::default();
    let (first, other) = (&texts[0].ids[..fork], [7, 8, 9]);
    for ids in [&other[..], first] {
        workspace.batch.push(Sequence { ids, type_ids: &vec![0; ids.len()] }, None).unwrap();
    }
    texts.iter().for_each(|text| workspace.batch.push_child(&text.ids[fork..], 1).unwrap());
    let scores = workspace.forward(&judge.model, Mode::Score);
    bits(&workspace.tape.value(scores)[2..])
}

#[test]
fn a_fork_changes_no_bits() {
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let mut compared = 0;
        for family in FAMILIES {
            let (mut judge, _dir) = judge(family, precision);
            if judge.precision() != precision {
                continue; // The processor has no such products, or the family is scored in f32 alone.
            }
            compared += 1;
            for fork in [1, 63, 64, 65, 200] {
                let mut random = Stream::new(fork as u64, 1);
                let prompt = some_ids(&mut random, fork);
                let own = [1, 12, 40].map(|own| some_ids(&mut random, own));
                let texts = own.map(|own| encoded([prompt.clone(), own].concat()));
                let expected = alone(&mut judge, &texts);
                for threads in [1, 2, 3] {
                    let what = format!("{family} {precision}, fork at {fork}, {threads} threads");
                    assert_eq!(with_threads(threads, || forked(&judge, fork, &texts)), expected, "{what}");
                    let scored = with_threads(threads, || judge.score_encoded(&texts).unwrap());
                    assert_eq!(bits(&scored), expected, "{what}, as the judge packs them");
                }
            }
        }
        assert!(compared >= 7 || !precision.runs_here(), "{precision}: {compared} families");
    }
}

/// Ids of texts that repeat parts of each other, as responses and prompts do; some end in the pad id 0, or hold it.
fn tries(random: &mut Stream, texts: usize) -> Vec<Encoded> {
    let mut known: Vec<Vec<u32>> = vec![Vec::new()];
    for _ in 0..texts {
        let from = random.below(known.len());
        let kept = random.below(known[from].len() + 1).max(known[from].len() * random.below(2));
        let (own, pads) = (random.below(60), random.below(3) * random.below(2));
        let tail = if random.below(4) == 0 { Vec::new() } else { some_ids(random, own) };
        let text = [&known[from][..kept], &tail, &vec![0; pads][..]].concat();
        known.push(text[..text.len().min(POSITIONS)].to_vec());
    }
    known.into_iter().filter(|ids| !ids.is_empty()).map(encoded).collect()
}

#[test]
fn random_tries_have_the_scores_of_their_texts_alone() {
    for (family, precision) in [
        ("qwen3", Precision::F32),
        ("gemma2", Precision::F32),
        ("gpt2", Precision::F32),
        ("llama", Precision::Bf16),
        ("mistral", Precision::Int8),
    ] {
        let (mut judge, _dir) = judge(family, precision);
        let mut saved = 0;
        for seed in 0..12 {
            let mut random = Stream::new(seed, 2);
            let texts = tries(&mut random, 24);
            let all: usize = texts.iter().map(|text| text.ids.len()).sum();
            saved += all - computed_tokens(&judge.model, &texts);
            let expected = alone(&mut judge, &texts);
            assert_eq!(bits(&judge.score_encoded(&texts).unwrap()), expected, "{family} {precision}, seed {seed}");
            let (one, refs) = (judge.judge().clone(), texts.iter().collect::<Vec<_>>());
            let run = one.run(&refs, &mut Workspace::default()).into_iter().map(|rated| rated.unwrap().scored.score);
            assert_eq!(bits(&run.collect::<Vec<_>>()), expected, "{family} {precision}, seed {seed}, as one batch");
        }
        assert!(saved > 1000, "{family}: {saved} tokens were shared, which tests little");
    }
}

/// Where the score is read decides what a text shares: pads behind it do not enter the batch.
#[test]
fn texts_that_are_a_beginning_are_equal_or_end_in_pads_share_too() {
    let (mut judge, _dir) = judge("llama", Precision::F32);
    let prompt = some_ids(&mut Stream::new(1, 3), 50);
    let with = |tail: &[u32]| encoded([&prompt[..], tail].concat());
    let texts = [with(&[]), with(&[7, 8]), with(&[0, 0]), with(&[7, 8, 0]), with(&[0, 9]), with(&[7, 8])];
    assert_eq!(computed_tokens(&judge.model, &texts), 50 + 2 + 2, "the prompt, `7 8` and `0 9`");
    let scores = bits(&judge.score_encoded(&texts).unwrap());
    assert_eq!(scores, alone(&mut judge, &texts));
    assert_eq!([scores[0], scores[1], scores[1]], [scores[2], scores[3], scores[5]]);
}

#[test]
fn groups_of_one_and_of_64_have_a_score_each() {
    let (mut judge, _dir) = judge("gemma3_text", Precision::F32);
    let mut random = Stream::new(1, 4);
    let prompt = some_ids(&mut random, 130);
    let texts: Vec<Encoded> = (0..64).map(|_| encoded([prompt.clone(), some_ids(&mut random, 100)].concat())).collect();
    assert_eq!(bits(&judge.score_encoded(&texts).unwrap()), alone(&mut judge, &texts));
    let computed = computed_tokens(&judge.model, &texts);
    assert_eq!(computed, 2 * 130 + 64 * 100, "two families of at most 4096 tokens");
    assert_eq!(computed_tokens(&judge.model, &texts[..1]), 230);
}

/// A caller that looks around between batches computes as little as one that does not, and gives the same bits.
#[test]
fn batches_keep_together_what_is_shared() {
    let (mut judge, _dir) = judge("qwen2", Precision::F32);
    let mut random = Stream::new(1, 5);
    let prompts = [130, 90].map(|tokens| some_ids(&mut random, tokens));
    let text = |place: usize| encoded([prompts[place % 2].clone(), vec![7 + place as u32; 20]].concat());
    let texts: Vec<Encoded> = (0..10).map(text).collect();
    let groups = batches(&judge.model, &texts, 200);
    assert_eq!(
        groups.iter().map(|group| group.iter().map(|place| place % 2).collect()).collect::<Vec<Vec<_>>>(),
        [[1; 5], [0; 5]]
    );
    let (mut workspace, mut found) = (Workspace::default(), vec![0; texts.len()]);
    for group in &groups {
        let own: Vec<&Encoded> = group.iter().map(|place| &texts[*place]).collect();
        let rated = judge.run(&own, &mut workspace);
        group.iter().zip(rated).for_each(|(place, rated)| found[*place] = rated.unwrap().scored.score.to_bits());
    }
    assert_eq!(found, alone(&mut judge, &texts));
}

/// A text fails alone, whatever it shares with others.
#[test]
fn a_text_that_cannot_be_scored_takes_none_with_it() {
    let (mut judge, _dir) = judge("qwen2", Precision::F32);
    let prompt = some_ids(&mut Stream::new(1, 5), 40);
    let with = |tail: &[u32]| encoded([&prompt[..], tail].concat());
    let texts = [with(&[7]), with(&[64]), with(&vec![7; 100_000]), encoded(Vec::new()), with(&[8])];
    let one = judge.judge().clone();
    let found = one.rate_each(&texts, &mut Workspace::default());
    let score = |place: usize| found[place].as_ref().unwrap().scored.score;
    assert_eq!(bits(&[score(0), score(4)]), alone(&mut judge, &[texts[0].clone(), texts[4].clone()]));
    assert!(matches!(found[1], Err(ScoreError::Vocabulary { id: 64, .. })));
    assert!(matches!(found[2], Err(ScoreError::Tokens { tokens: 100_040, .. })));
    assert!(matches!(found[3], Err(ScoreError::Batch(_))));
}

/// With windows alone, the work grows as the text does.
#[test]
fn a_text_of_100_000_tokens_shares_its_beginning() {
    let mut config = json(&golden("mistral").join("config.json"));
    config["max_position_embeddings"] = 131_072.into();
    let dir = directory("mistral", &config);
    let mut judge = load(dir.path(), Precision::F32).unwrap();
    let ids = some_ids(&mut Stream::new(1, 6), 100_000);
    let texts = [&[7u32][..], &[8, 9], &[]].map(|tail| encoded([&ids, tail].concat()));
    assert_eq!(computed_tokens(&judge.model, &texts), 100_003);
    assert_eq!(bits(&judge.score_encoded(&texts).unwrap()), alone(&mut judge, &texts));
}
