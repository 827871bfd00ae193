//! A loaded judge.

use crate::border::{Signals, data_error, exception, guarded, judge_error, kudos_error};
use crate::command::{Hearer, Told, hearer};
use crate::lane::{Lane, Results};
use crate::texts::Texts;
use crate::threads::pool;
use crate::{arrow::Arrays, frame};
use anyhow::Context;
use kudos::data::Content;
use kudos::models::{Input, RewardModel, SCORING_TOKENS, ScoreError, batches};
use kudos::nn::Precision;
use kudos::text::Encoded;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict};
use rayon::ThreadPool;
use std::path::PathBuf;
use std::sync::Arc;

/// Texts read, encoded and scored at a time.
pub const WINDOW: usize = 512;

/// A judge, shared by all threads that score with it.
#[pyclass(frozen, module = "kudos._kudos")]
pub struct Judge {
    pub(crate) model: Arc<RewardModel>,
    lane: Lane,
    threads: usize,
    dir: PathBuf,
}

/// How one call is made.
pub struct Call<'a> {
    judge: &'a Judge,
    pool: Arc<ThreadPool>,
    signals: Signals,
    progress: Option<Py<PyAny>>,
    total: Option<usize>,
    done: usize,
}

#[pymethods]
impl Judge {
    /// Loads the judge of this name or directory.
    #[staticmethod]
    fn load(
        py: Python<'_>,
        name: &str,
        precision: Option<&str>,
        literal: bool,
        threads: usize,
        say: &Bound<'_, PyAny>,
    ) -> PyResult<Judge> {
        guarded(|| {
            let precision = precision.map(parse_precision).transpose()?;
            kernels::check_isa().map_err(|error| kudos_error(error.to_string()))?;
            // On the pool of this process: the one that Rayon has for all has lost its threads in a child after `fork`.
            let pool = pool(threads)?;
            let Hearer { caller, told, .. } = hearer(None);
            let loaded = py.detach(|| {
                let load = || {
                    let dir = kudos_cli::resolve(name).with_context(|| format!("cannot load the judge {name}"))?;
                    let judge = kudos_cli::load_judge(name, precision, literal)?;
                    anyhow::Ok((dir, judge.judge().clone()))
                };
                pool.install(|| kudos_cli::heard(caller, load).0)
            });
            for heard in told.try_iter() {
                if let Told::Line(line) = heard {
                    say.call1((line,))?;
                }
            }
            let (dir, model) = loaded.map_err(|error| exception(&error))?;
            Ok(Judge { model, lane: Lane::default(), threads, dir })
        })
    }

    /// The same judge for a process that was forked: nobody of this process uses it yet.
    fn reborn(&self) -> Judge {
        Judge { model: self.model.clone(), lane: Lane::default(), threads: self.threads, dir: self.dir.clone() }
    }

    #[getter]
    fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    #[getter]
    fn threads(&self) -> usize {
        self.threads
    }

    #[getter]
    fn precision(&self) -> String {
        self.model.precision().to_string()
    }

    #[getter]
    fn attributes(&self) -> Vec<String> {
        self.model.attributes().to_vec()
    }

    #[getter]
    fn temperature(&self) -> f32 {
        self.model.reward.temperature()
    }

    #[getter]
    fn max_length(&self) -> usize {
        self.model.reward.encode.max_length
    }

    /// The scores of texts, as the bytes of f32. A `prompts` of None means whole transcripts; `single` says that the prompt is one
    /// text for all responses.
    #[pyo3(signature = (prompts, responses, *, single, is_main, progress, total))]
    #[allow(clippy::too_many_arguments, reason = "the arguments of one Python call")]
    fn score<'py>(
        &self,
        py: Python<'py>,
        prompts: Option<Bound<'py, PyAny>>,
        responses: Bound<'py, PyAny>,
        single: bool,
        is_main: bool,
        progress: Option<Py<PyAny>>,
        total: Option<usize>,
    ) -> PyResult<Bound<'py, PyByteArray>> {
        guarded(|| {
            let prompts = prompts.map(|prompts| Texts::new("prompts", &prompts, single)).transpose()?;
            let responses = Texts::new("responses", &responses, false)?;
            let mut call = self.call(is_main, progress, total)?;
            let scores = call.scores(py, prompts, responses)?;
            let bytes: Vec<u8> = scores.iter().flat_map(|score| score.to_ne_bytes()).collect();
            Ok(PyByteArray::new(py, &bytes))
        })
    }

    /// The columns that scoring adds to a frame: of each its own name, its name beside `taken`, its kind and its values.
    #[pyo3(signature = (source, *, taken, prefix, strict, options, is_main, progress, rows))]
    #[allow(clippy::too_many_arguments, reason = "the arguments of one Python call")]
    fn columns<'py>(
        &self,
        py: Python<'py>,
        source: &Bound<'py, PyAny>,
        taken: Vec<String>,
        prefix: Option<String>,
        strict: bool,
        options: &Bound<'py, PyDict>,
        is_main: bool,
        progress: Option<Py<PyAny>>,
        rows: Option<usize>,
    ) -> PyResult<frame::Outcome<'py>> {
        guarded(|| {
            let options = frame::options(options, strict)?;
            let reader = match Arrays::of(source)? {
                Some(arrays) => frame::of_arrow(arrays, &options)?,
                None => frame::of_json(source.extract()?, &options)?,
            };
            let mut call = self.call(is_main, progress, None)?;
            frame::columns(py, &mut call, reader, (taken, prefix, strict, rows))
        })
    }
}

fn parse_precision(name: &str) -> PyResult<Precision> {
    serde_json::from_value(name.into())
        .map_err(|_| kudos_error(format!("precision={name:?}: expected f32, bf16 or int8")))
}

impl Judge {
    fn call(&self, is_main: bool, progress: Option<Py<PyAny>>, total: Option<usize>) -> PyResult<Call<'_>> {
        let (pool, signals) = (pool(self.threads)?, Signals::new(is_main));
        Ok(Call { judge: self, pool, signals, progress, total, done: 0 })
    }
}

impl Call<'_> {
    /// The judge.
    pub fn judge(&self) -> &RewardModel {
        &self.judge.model
    }

    fn scores(&mut self, py: Python<'_>, mut prompts: Option<Texts>, mut responses: Texts) -> PyResult<Vec<f32>> {
        let mut scores = Vec::new();
        loop {
            let window = responses.take(py, WINDOW)?;
            let own = match prompts.as_mut().filter(|prompts| !prompts.is_one()) {
                Some(prompts) => take_all(py, prompts, window.len())?,
                None => Vec::new(),
            };
            if let Some(prompts) = &mut prompts {
                check_lengths(py, prompts, window.len(), own.len())?;
            }
            if window.is_empty() {
                return Ok(scores);
            }
            let one = prompts.as_ref().and_then(Texts::one);
            let prompt = |row: usize| one.or_else(|| own.get(row));
            let inputs: Vec<Input> = window.iter().enumerate().map(|(row, text)| (prompt(row), text)).collect();
            let rated = py.detach(|| self.rate(&inputs))?;
            for rated in rated {
                let place = scores.len();
                scores.push(rated.map_err(|error| unscored(&error, place))?.scored.score);
            }
        }
    }

    /// A result for each input, in order. The interpreter must not be held.
    pub fn rate(&mut self, inputs: &[Input]) -> PyResult<Results> {
        let encoded = self.encode(inputs);
        let mut results: Vec<Option<Result<_, ScoreError>>> = Vec::with_capacity(encoded.len());
        let (mut texts, mut places) = (Vec::with_capacity(encoded.len()), Vec::new());
        for (place, encoded) in encoded.into_iter().enumerate() {
            match encoded {
                Ok(text) => {
                    texts.push(Some(text));
                    places.push(place);
                    results.push(None);
                }
                Err(error) => results.push(Some(Err(error))),
            }
        }
        for group in self.groups(&texts) {
            let own: Vec<Encoded> = group.iter().filter_map(|at| texts[*at].take()).collect();
            let count = own.len();
            let rated = self.judge.lane.rate(&self.judge.model, &self.pool, own, &mut self.signals)?;
            group.iter().zip(rated).for_each(|(at, rated)| results[places[*at]] = Some(rated));
            self.advance(count)?;
        }
        Ok(results.into_iter().map(|result| result.expect("each text is of one group")).collect())
    }

    fn encode(&self, inputs: &[Input]) -> Vec<Result<Encoded, ScoreError>> {
        let encoder = &self.judge.model.encoder;
        let encoded = match inputs {
            [(prompt, response)] => vec![encoder.encode(*prompt, response)],
            _ => self.pool.install(|| encoder.encode_each(inputs)),
        };
        encoded.into_iter().map(|text| text.map_err(|error| Arc::new(error).into())).collect()
    }

    /// Which texts run together.
    fn groups(&self, texts: &[Option<Encoded>]) -> Vec<Vec<usize>> {
        let texts: Vec<&Encoded> = texts.iter().flatten().collect();
        match texts.len() {
            0 => Vec::new(),
            1 => vec![vec![0]],
            _ => batches(&self.judge.model.model, &texts, SCORING_TOKENS),
        }
    }

    /// Counts texts that are scored, and tells of it.
    fn advance(&mut self, count: usize) -> PyResult<()> {
        self.done += count;
        match &self.progress {
            None => Ok(()),
            Some(progress) => Python::attach(|py| progress.call1(py, (self.done, self.total)).map(drop)),
        }
    }
}

/// As many texts as there are, up to `count`.
fn take_all(py: Python<'_>, texts: &mut Texts, count: usize) -> PyResult<Vec<Content>> {
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        let more = texts.take(py, count - taken.len())?;
        if more.is_empty() {
            break;
        }
        taken.extend(more);
    }
    Ok(taken)
}

/// Refuses prompts and responses that are not as many; `window` responses were read last, and so many prompts for them.
fn check_lengths(py: Python<'_>, prompts: &mut Texts, window: usize, own: usize) -> PyResult<()> {
    if prompts.is_one() {
        return Ok(());
    }
    let more = match window {
        0 if !prompts.take(py, 1)?.is_empty() => "prompts than responses",
        _ if own < window => "responses than prompts",
        _ => return Ok(()),
    };
    let ended = prompts.given() - usize::from(window == 0);
    Err(data_error(
        format!("expected a prompt for each response, found more {more}: one of them ended after {ended}"),
        None,
    ))
}

/// The exception for a text without a score.
pub fn unscored(error: &ScoreError, row: usize) -> PyErr {
    match error {
        ScoreError::Text(_) => data_error(format!("row {row}: {error}"), Some(row as u64)),
        _ => judge_error(format!("row {row}: {error}")),
    }
}

/// The files of a judge that scores depend on, each with its SHA-256.
#[pyfunction]
pub fn file_hashes(py: Python<'_>, dir: PathBuf) -> PyResult<Vec<(String, String)>> {
    guarded(|| py.detach(|| kudos_cli::hashes(&dir)).map_err(|error| judge_error(kudos_cli::message(&error))))
}
