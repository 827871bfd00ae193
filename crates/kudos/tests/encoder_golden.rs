//! Each encoder family with the tokenizer files that its published checkpoints carry: ids, segments and scores against
//! transformers.
//!
//! The checkpoints and numbers come from `golden/make_encoder_golden.py`.

use kudos::data::Content;
use kudos::models::{JudgeError, LoadOptions, RewardModel, ScoreError, Scorer, Workspace, all_or_first, load};
use kudos::nn::{Mode, Precision};
use kudos::text::{EncodeSettings, Encoded, Encoder, Prompter, Rendering, TextError, Truncation};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

#[derive(Deserialize)]
struct Golden {
    texts: Vec<(String, String)>,
    checks: Vec<Check>,
}

/// One form of the tokenizer files, and what transformers makes of the texts with it.
#[derive(Deserialize)]
struct Check {
    form: String,
    checkpoint: String,
    over: BTreeMap<String, Option<String>>,
    #[serde(default)]
    rows: Vec<Row>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Row {
    ids: Vec<u32>,
    /// Where segment 1 begins, in what the model reads.
    segments: usize,
    logit: f32,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/encoders")
}

impl Golden {
    fn read() -> Self {
        serde_json::from_slice(&std::fs::read(golden().join("checks.json")).unwrap()).unwrap()
    }
}

/// A copy of a checkpoint with files laid over it; nothing removes one.
fn directory(checkpoint: &str, over: &BTreeMap<String, Option<String>>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(golden().join(checkpoint)).unwrap() {
        let path = file.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    for (name, content) in over {
        let path = folder.path().join(name);
        match content {
            Some(content) => std::fs::write(path, content).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
    }
    folder
}

fn pair() -> EncodeSettings {
    EncodeSettings::new(Rendering::Pair, 64, Truncation::LongestFirst)
}

fn text(text: &str) -> Content {
    Content::Text(text.into())
}

impl Check {
    fn agrees(&self, texts: &[(String, String)]) {
        let folder = directory(&self.checkpoint, &self.over);
        if let Some(error) = &self.error {
            assert_eq!(error, "IndexError", "{}", self.form);
            let refused = Encoder::load(folder.path(), pair()).unwrap_err();
            assert!(matches!(refused, TextError::Segments { segments: 1, largest: 1, .. }), "{}: {refused}", self.form);
            return;
        }
        let mut judge = Scorer::load(folder.path(), Some(Precision::F32)).expect(&self.form);
        assert_eq!(self.rows.len(), texts.len(), "{}", self.form);
        for ((prompt, response), row) in texts.iter().zip(&self.rows) {
            let Encoded { ids, type_ids, .. } = judge.encoder.encode(Some(&text(prompt)), &text(response)).unwrap();
            let segments: Vec<u32> = (0..ids.len()).map(|i| u32::from(i >= row.segments)).collect();
            assert_eq!((&ids, &type_ids), (&row.ids, &segments), "{}: {prompt:?} {response:?}", self.form);
            let score = judge.score(&[(Some(&text(prompt)), &text(response))]).unwrap()[0].score;
            assert!((score - row.logit).abs() < 1e-5, "{}: {score} instead of {}", self.form, row.logit);
        }
    }
}

/// DistilBERT reads no segments although its tokenizer's template gives the response segment 1.
#[test]
fn each_family_reads_the_segments_that_transformers_feeds_it() {
    let golden = Golden::read();
    golden.checks.iter().for_each(|check| check.agrees(&golden.texts));
    for family in ["bert", "distilbert", "roberta", "xlm_roberta"] {
        let forms = golden.checks.iter().filter(|check| check.checkpoint == family && check.error.is_none()).count();
        assert!(forms >= 6, "{family}: {forms} forms");
    }
    let segments = |family: &str| {
        let published = |check: &&Check| check.form == format!("{family}: as published");
        let rows = &golden.checks.iter().find(published).unwrap().rows;
        rows.iter().any(|row| row.segments < row.ids.len())
    };
    assert!(segments("bert") && !segments("distilbert"), "the goldens tell the two apart");
}

/// Where `vocab.txt` alone makes the tokenizer, its ids become words again and not pieces of words.
#[test]
fn a_vocabulary_alone_is_a_whole_tokenizer() {
    let golden = Golden::read();
    let checks: Vec<_> = golden.checks.iter().filter(|check| check.form.ends_with("vocab.txt alone")).collect();
    assert_eq!(checks.len(), 2);
    for check in checks {
        let prompter = Prompter::load(directory(&check.checkpoint, &check.over).path()).unwrap();
        let ids = prompter.encode("the quickest gardens", false).unwrap();
        assert!(ids.len() > 3, "some words are cut to pieces: {ids:?}");
        assert_eq!(prompter.decode(&ids, true).unwrap(), "the quickest gardens", "{}", check.form);
        assert!(prompter.notes().is_empty(), "{}: {:?}", check.form, prompter.notes());
    }
}

/// A segment without a vector was a panic of the lookup.
#[test]
fn f8_a_tokenizer_with_more_segments_than_the_model_is_an_error_of_one_line() {
    let folder = directory("bert_one_segment", &BTreeMap::new());
    let Err(error) = Scorer::load(folder.path(), None) else { panic!("it was loaded") };
    let message = error.to_string();
    assert!(message.contains("config.json: `type_vocab_size` is 1") && !message.contains('\n'), "{message}");
    assert!(message.contains("model_input_names"), "what to do: {message}");
    // One sequence has segment 0 alone.
    let single = EncodeSettings { render: Rendering::Concat, ..pair() };
    assert!(Encoder::load(folder.path(), single).is_ok());
}

fn encoded(ids: Vec<u32>, type_ids: Vec<u32>) -> Encoded {
    Encoded { tokens_before_truncation: ids.len(), truncated: false, ids, type_ids }
}

/// What a caller of the library encoded by himself is checked before any table is read.
#[test]
fn f8_ids_segments_and_positions_without_a_vector_are_errors() {
    let mut bert = Scorer::load(&golden().join("bert"), None).unwrap();
    let mut refused = |text: Encoded| match bert.score_encoded(&[text]).unwrap_err() {
        JudgeError::Unscored { text: 0, error } => error,
        other => panic!("{other}"),
    };
    assert!(matches!(refused(encoded(vec![5; 3], vec![0, 1, 2])), ScoreError::Segment { segment: 2, segments: 2 }));
    assert!(matches!(refused(encoded(vec![1 << 30], vec![0])), ScoreError::Vocabulary { .. }));
    assert!(matches!(refused(encoded(vec![5; 65], vec![0; 65])), ScoreError::Tokens { tokens: 65, limit: 64 }));
    assert!(matches!(refused(encoded(vec![5; 3], vec![0; 2])), ScoreError::Batch(_)));
    let mut distilbert = Scorer::load(&golden().join("distilbert"), None).unwrap();
    let scores = [vec![0; 3], vec![1; 3]].map(|types| distilbert.score_encoded(&[encoded(vec![5; 3], types)]).unwrap());
    assert_eq!(scores[0], scores[1], "DistilBERT reads none");
}

/// It has no first token to read: it took that of its neighbour, or panicked when alone.
#[test]
fn c8_a_text_without_tokens_is_an_error() {
    let mut judge = Scorer::load(&golden().join("bert"), None).unwrap();
    let (empty, full) = (encoded(vec![], vec![]), encoded(vec![5; 3], vec![0; 3]));
    for texts in [vec![empty.clone()], vec![empty.clone(), full.clone()], vec![full.clone(), empty.clone()]] {
        let message = judge.score_encoded(&texts).unwrap_err().to_string();
        assert!(message.contains("without tokens"), "{message}");
    }
    assert_eq!(judge.score_encoded(&[]).unwrap(), [] as [f32; 0]);
    assert!(judge.score_encoded(&[full]).is_ok(), "and the judge still works");
}

/// Whoever serves many callers must not lose all of their texts to one of them.
#[test]
fn a_text_that_cannot_be_scored_fails_alone() {
    let mut judge = RewardModel::load(&golden().join("bert"), Some(Precision::F32)).unwrap();
    let poison = 9;
    let words = judge.model.parameters.specs().iter().find(|spec| spec.sparse).unwrap();
    let at = words.span.start + poison * words.shape[1];
    judge.model.parameters.values[at] = f32::NAN;
    let good = |ids: &[u32]| encoded(ids.to_vec(), vec![0; ids.len()]);
    let bad = [good(&[]), good(&[1 << 30]), good(&[5, poison as u32]), good(&[5; 65]), encoded(vec![5], vec![2])];
    let mut workspace = Workspace::default();
    let alone = |ids: &[u32]| judge.run(&[&good(ids)], &mut Workspace::default())[0].clone().unwrap();
    let expected = [alone(&[5, 6, 7]), alone(&[8])];
    for bad in bad {
        let texts = [good(&[5, 6, 7]), bad, good(&[8])];
        let found = judge.run(&texts.iter().collect::<Vec<_>>(), &mut workspace);
        assert_eq!([0, 2].map(|i| found[i].clone().unwrap()), expected);
        let error = found[1].clone().unwrap_err();
        let each = judge.rate_each(&texts, &mut workspace);
        assert_eq!([0, 2].map(|i| each[i].clone().unwrap()), expected);
        assert_eq!(each[1].clone().unwrap_err().to_string(), error.to_string());
        let Err(JudgeError::Unscored { text: 1, .. }) = all_or_first(each) else { panic!("{error}: not placed") };
    }
    let prompt = text("Why?");
    let rated = judge.rate_inputs(&[(Some(&prompt), &text("So."))], &mut workspace);
    assert!(rated[0].is_ok());
}

/// Threads share one judge, each with its own workspace, and no score has other bits for that.
#[test]
fn threads_score_with_one_judge() {
    let judge = RewardModel::load(&golden().join("roberta"), None).unwrap();
    let texts: Vec<Encoded> =
        (1..40).map(|n| encoded((0..n).map(|i| 5 + i % 50).collect(), vec![0; n as usize])).collect();
    let score = || {
        let rated = judge.rate_each(&texts, &mut Workspace::default());
        rated.into_iter().map(|rated| rated.unwrap().scored.score.to_bits()).collect::<Vec<_>>()
    };
    let expected = score();
    std::thread::scope(|scope| {
        let threads = [0; 3].map(|_| scope.spawn(|| (0..5).all(|_| score() == expected)));
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    });
}

/// A batch of no texts has no scores, in either mode.
#[test]
fn c10_an_empty_batch_is_computed_as_nothing() {
    let (model, _) = load(&golden().join("bert"), LoadOptions::Judge).unwrap();
    for mode in [Mode::Score, Mode::Train] {
        let mut workspace = Workspace::default();
        let logits = workspace.forward(&model, mode);
        assert_eq!(workspace.tape.value(logits), [] as [f32; 0]);
    }
}

/// What is packed has no second place in the flat buffer.
#[test]
fn c2_a_packed_judge_keeps_its_layers_once() {
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let judge = Scorer::load(&golden().join("bert"), Some(precision)).unwrap();
        let (flat, all) = (judge.model.parameters.len(), judge.model.parameters.count());
        assert_eq!(judge.model.parameters.values.len(), flat, "{precision}");
        match judge.precision() {
            Precision::F32 => assert_eq!(flat, all),
            _ => assert!(flat < all - all / 3, "{precision}: {flat} of {all} values lie in the buffer"),
        }
    }
}
