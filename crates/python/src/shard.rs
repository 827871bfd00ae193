//! A job in units, for callers that say which unit is done where.

use crate::border::{exception, fault, guarded, kudos_error};
use crate::command::{Hearer, Told, hearer};
use crate::threads::pool;
use kudos_cli::{Done, job};
use pyo3::prelude::*;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the calling thread waits before it looks for signals.
const LOOK: Duration = Duration::from_millis(25);

/// A job with a judge that does units of it, one at a time.
#[pyclass(frozen, module = "kudos._kudos")]
pub struct Job {
    job: Arc<Mutex<kudos_cli::Job>>,
    threads: usize,
}

#[pymethods]
impl Job {
    /// The job of the command line `kudos score … --shard I/N`. One that `joins` takes the inputs for those of the job.
    #[staticmethod]
    #[pyo3(signature = (words, *, threads, joins, say, progress))]
    fn begin(
        py: Python<'_>,
        words: Vec<OsString>,
        threads: usize,
        joins: bool,
        say: &Bound<'_, PyAny>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Job> {
        guarded(|| {
            kernels::check_isa().map_err(|error| kudos_error(error.to_string()))?;
            let job = attended(py, threads, (say, progress), move || job(words, joins))?;
            Ok(Job { job: Arc::new(Mutex::new(job)), threads })
        })
    }

    /// The rows of each unit, usable or not.
    #[getter]
    fn rows(&self) -> Vec<u64> {
        let job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        (0..job.units()).map(|unit| job.rows(unit)).collect()
    }

    /// The units that have no whole part.
    fn missing(&self, py: Python<'_>, say: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
        self.with(py, say, |job| job.missing(&(0..job.units()).collect::<Vec<_>>()))
    }

    /// Does a unit: `now`. Or it was done `before`, or is done `elsewhere`; `beside` others it is done all the same.
    fn score(&self, py: Python<'_>, unit: usize, beside: bool, say: &Bound<'_, PyAny>) -> PyResult<&'static str> {
        let done = self.with(py, say, move |job| job.score(unit, beside))?;
        Ok(match done {
            Done::Now => "now",
            Done::Before => "before",
            Done::Elsewhere => "elsewhere",
        })
    }
}

impl Job {
    fn with<T: Send + 'static>(
        &self,
        py: Python<'_>,
        say: &Bound<'_, PyAny>,
        work: impl FnOnce(&mut kudos_cli::Job) -> anyhow::Result<T> + Send + 'static,
    ) -> PyResult<T> {
        let job = self.job.clone();
        guarded(|| {
            let work = move || work(&mut job.lock().unwrap_or_else(PoisonError::into_inner));
            attended(py, self.threads, (say, None), work)
        })
    }
}

/// Runs `work` on a pool, on a thread of its own so that this one can answer signals. The two functions hear the lines that it
/// says, and its progress; an exception in either, or of a signal, ends it.
fn attended<T: Send + 'static>(
    py: Python<'_>,
    threads: usize,
    (say, progress): (&Bound<'_, PyAny>, Option<&Bound<'_, PyAny>>),
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> PyResult<T> {
    let pool = pool(threads)?;
    let Hearer { caller, told, stop } = hearer(None);
    let told = Mutex::new(told);
    let thread = std::thread::Builder::new().name("kudos-job".into()).spawn(move || {
        let run = AssertUnwindSafe(|| kudos_cli::heard(caller, work).0);
        pool.install(|| catch_unwind(run).unwrap_or_else(|panic| Err(anyhow::anyhow!(fault(&*panic)))))
    });
    let thread = thread.map_err(|error| kudos_error(format!("expected to start a thread: {error}")))?;
    let mut stopped: Option<PyErr> = None;
    loop {
        let heard = py.detach(|| told.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(LOOK));
        let answer = match heard {
            Err(RecvTimeoutError::Disconnected) => break,
            Ok(_) if stopped.is_some() => Ok(()),
            Ok(Told::Line(line)) => say.call1((line,)).map(drop),
            Ok(Told::Progress { done, total, .. }) => {
                progress.map_or(Ok(()), |progress| progress.call1((done, total)).map(drop))
            }
            Ok(Told::Done(_)) | Err(RecvTimeoutError::Timeout) => Ok(()),
        };
        if let (Err(error), None) = (answer.and_then(|()| py.check_signals()), &stopped) {
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
            stopped = Some(error);
        }
    }
    let result = py.detach(|| thread.join());
    match (stopped, result) {
        (Some(error), _) => Err(error),
        (None, Ok(result)) => result.map_err(|error| exception(&error)),
        (None, Err(panic)) => Err(kudos_error(fault(&*panic))),
    }
}
