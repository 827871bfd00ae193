//! Judge directories → judges that are ready to score.

use crate::ask::{FaultKind, Item, ItemFault, JudgeFacts, Scorer, Tokeniser};
use crate::service::Judge;
use kudos::data::Content;
use kudos::models::adapter::{Adapter, TENSORS_FILE, find_base};
use kudos::models::{JudgeError, Rated, RewardModel, ScoreError, Workspace};
use kudos::nn::Precision;
use kudos::nn::weights::{INT8_FILE, shard_names};
use kudos::text::{Encoded, Encoder};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// A judge to serve.
#[derive(Clone, Debug)]
pub struct JudgeSource {
    /// The name under which requests ask for it.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// What to score in; `None` is what `kudos score` takes.
    pub precision: Option<Precision>,
}

/// Why a judge cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum JudgeLoadError {
    /// The directory is no judge.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// The weights cannot be read.
    #[error("{path}: {cause}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Somebody wrote the directory while it was read.
    #[error("{0} changed while it was read; load it again when it is complete")]
    Changed(PathBuf),
    /// The arithmetic cannot be had here.
    #[error(
        "--precision {asked}: expected {} and layers of even sizes; leave it away to score in {found}",
        .asked.processor()
    )]
    Precision {
        /// Asked for.
        asked: Precision,
        /// Possible.
        found: Precision,
    },
    /// It loads, and cannot score.
    #[error("the judge cannot score: {0}")]
    WarmUp(ItemFault),
    /// A failure of the loader itself.
    #[error("loading failed; this is a fault of the program")]
    Failed,
}

/// Loads a judge and has it score a text.
///
/// # Errors
/// [`JudgeLoadError`].
pub(crate) fn load(source: &JudgeSource) -> Result<Judge, JudgeLoadError> {
    let files = weight_files(&source.dir);
    let before = stamps(&files);
    // The hash takes as long as the loading: both at once.
    let (loaded, sha256) = std::thread::scope(|scope| {
        let hashing = scope.spawn(|| hash_files(&files));
        let loaded = RewardModel::load(&source.dir, source.precision);
        (loaded, hashing.join().unwrap_or(Err(JudgeLoadError::Failed)))
    });
    let model = loaded?;
    if let Some(asked) = source.precision.filter(|asked| *asked != model.precision()) {
        return Err(JudgeLoadError::Precision { asked, found: model.precision() });
    }
    let facts = facts(source, &model, sha256?);
    if before.is_none() || before != stamps(&files) {
        return Err(JudgeLoadError::Changed(source.dir.clone()));
    }
    let tokeniser = JudgeTokeniser(model.encoder.clone());
    let mut scorer = ModelScorer { judge: Arc::new(model), workspace: Workspace::default() };
    warm_up(&tokeniser, &mut scorer).map_err(JudgeLoadError::WarmUp)?;
    Ok(Judge { facts, tokeniser: Arc::new(tokeniser), scorer: Box::new(scorer) })
}

fn facts(source: &JudgeSource, model: &RewardModel, sha256: String) -> JudgeFacts {
    let names = model.model.config.label_names();
    let labels =
        if names.is_empty() { (0..model.model.config.labels()).map(|i| format!("LABEL_{i}")).collect() } else { names };
    JudgeFacts {
        name: source.name.clone(),
        sha256,
        base: model.reward.base.clone(),
        max_length: model.reward.encode.max_length,
        labels,
        precision: model.precision(),
        calibration: model.reward.calibration,
        attributes: model.attributes().to_vec(),
        loaded_at: SystemTime::now(),
    }
}

/// The files that the loader reads the weights from.
fn weight_files(dir: &Path) -> Vec<PathBuf> {
    if Adapter::is_in(dir) {
        let of_base = find_base(dir).map(|base| if base.is_file() { vec![base] } else { weight_files(&base) });
        return of_base.unwrap_or_default().into_iter().chain([dir.join(TENSORS_FILE)]).collect();
    }
    let index = dir.join("model.safetensors.index.json");
    if index.exists() {
        // What is wrong with the index is said by the loader.
        return shard_names(&index).unwrap_or_default().iter().map(|name| dir.join(name)).collect();
    }
    let files = [dir.join("model.safetensors"), dir.join(INT8_FILE)];
    files.into_iter().find(|file| file.exists()).into_iter().collect()
}

/// What changes with the files: length and time of the last change.
fn stamps(files: &[PathBuf]) -> Option<Vec<(u64, SystemTime)>> {
    let stamp = |file: &PathBuf| {
        let facts = std::fs::metadata(file).ok()?;
        Some((facts.len(), facts.modified().ok()?))
    };
    files.iter().map(stamp).collect()
}

/// The hash of one file; of several, that of their hashes one after the other.
fn hash_files(files: &[PathBuf]) -> Result<String, JudgeLoadError> {
    let hashes: Vec<String> = files.iter().map(|file| hash_file(file)).collect::<Result<_, _>>()?;
    match hashes.as_slice() {
        [hash] => Ok(hash.clone()),
        hashes => Ok(hexadecimal(&Sha256::digest(hashes.concat()))),
    }
}

fn hash_file(path: &Path) -> Result<String, JudgeLoadError> {
    let error = |cause| JudgeLoadError::Weights { path: path.into(), cause };
    let mut file = std::fs::File::open(path).map_err(error)?;
    // Small enough to be hashed from the processor's cache.
    let (mut hash, mut bytes) = (Sha256::new(), vec![0; 128 * 1024]);
    loop {
        match file.read(&mut bytes).map_err(error)? {
            0 => return Ok(hexadecimal(&hash.finalize())),
            read => hash.update(&bytes[..read]),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Scores one text, which also takes the memory that scoring needs.
fn warm_up(tokeniser: &JudgeTokeniser, scorer: &mut ModelScorer) -> Result<(), ItemFault> {
    let prompt = Some(Arc::new(Content::Text("Is the server ready?".into())));
    let item = Item { prompt, response: Content::Text("It is.".into()), cut: Default::default() };
    let encoded = tokeniser.encode(&item)?;
    let result = crate::batcher::score_all(scorer, &[&encoded]).pop();
    result.unwrap_or_else(|| Err(ItemFault::new(FaultKind::Score, "no score came"))).map(drop)
}

struct JudgeTokeniser(Arc<Encoder>);

impl Tokeniser for JudgeTokeniser {
    fn encode(&self, item: &Item) -> Result<Encoded, ItemFault> {
        let encoded = self.0.encode(item.prompt.as_deref(), &item.response);
        encoded.map_err(|error| ItemFault::new(FaultKind::Tokenise, error.to_string()))
    }
}

struct ModelScorer {
    judge: Arc<RewardModel>,
    workspace: Workspace,
}

impl Scorer for ModelScorer {
    fn run(&mut self, texts: &[&Encoded]) -> Vec<Result<Rated, ItemFault>> {
        let results = self.judge.run(texts, &mut self.workspace);
        results.into_iter().map(|result| result.map_err(fault)).collect()
    }

    fn shares(&self) -> bool {
        self.judge.model.shares_beginnings()
    }

    fn renew(&mut self) {
        self.workspace = Workspace::default();
    }
}

fn fault(error: ScoreError) -> ItemFault {
    let kind = match error {
        ScoreError::NotFinite { .. } => FaultKind::NotFinite,
        ScoreError::Text(_) => FaultKind::Tokenise,
        _ => FaultKind::Score,
    };
    ItemFault::new(kind, error.to_string())
}
