//! What crosses into Python: errors as its exceptions, panics as errors, and its signals.

use kudos::data::{DataError, RowProblem};
use kudos::models::JudgeError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

thread_local! {
    /// Where the last panic of this thread was, and what it said.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps a panic's words for the exception, instead of printing them.
pub fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|panic| PANIC.set(Some(panic.to_string().replace('\n', " ")))));
}

/// Runs `work`; a panic in it is a `KudosError`.
pub fn guarded<T>(work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(kudos_error(fault(&*panic))))
}

/// What to say of a panic that was caught on the thread where it was, or on the one that waited for it.
pub fn fault(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
    let found = PANIC.take().unwrap_or_else(|| text.to_owned());
    format!("a fault in Kudos itself, please report it: {found}")
}

/// The classes of `kudos.errors`.
#[derive(Clone, Copy)]
enum Class {
    Kudos,
    Data,
    Judge,
}

/// A `KudosError`.
pub fn kudos_error(message: impl Into<String>) -> PyErr {
    raise(Class::Kudos, message.into(), None)
}

/// A `DataError`, of a row where one is at fault.
pub fn data_error(message: impl Into<String>, row: Option<u64>) -> PyErr {
    raise(Class::Data, message.into(), row)
}

/// A `JudgeError`.
pub fn judge_error(message: impl Into<String>) -> PyErr {
    raise(Class::Judge, message.into(), None)
}

fn raise(class: Class, message: String, row: Option<u64>) -> PyErr {
    let name = match class {
        Class::Kudos => "KudosError",
        Class::Data => "DataError",
        Class::Judge => "JudgeError",
    };
    let made = Python::try_attach(|py| {
        let class = py.import("kudos.errors")?.getattr(name)?;
        let attributes = PyDict::new(py);
        attributes.set_item("row", row)?;
        Ok::<_, PyErr>(PyErr::from_value(class.call((&message,), Some(&attributes))?))
    });
    match made {
        Some(Ok(error)) => error,
        Some(Err(error)) => error,
        None => PyRuntimeError::new_err(message), // the interpreter is going away
    }
}

/// The exception for an error of the library or of a command, with the command line's sentence.
pub fn exception(error: &anyhow::Error) -> PyErr {
    let message = kudos_cli::message(error);
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<DataError>() {
            return raise(Class::Data, message, row_of(error));
        }
        if cause.is::<RowProblem>() || cause.is::<kudos::text::TextError>() {
            return raise(Class::Data, message, None);
        }
        if let Some(JudgeError::Unscored { text, .. }) = cause.downcast_ref::<JudgeError>() {
            return raise(Class::Data, message, Some(*text as u64));
        }
        if cause.is::<JudgeError>() || cause.is::<kudos::models::LoadError>() {
            return raise(Class::Judge, message, None);
        }
    }
    // A judge that is not there, or has no such name, is said in the words of the hub or of the system.
    let class = if message.starts_with("cannot load the judge") { Class::Judge } else { Class::Kudos };
    raise(class, message, None)
}

/// The line of a file, from 1.
fn row_of(error: &DataError) -> Option<u64> {
    match error {
        DataError::Row(problem) => Some(problem.location.line),
        _ => None,
    }
}

/// Asks Python now and then whether a signal came. Only its main thread hears them.
pub struct Signals {
    is_main: bool,
    last: Instant,
}

impl Signals {
    /// How often Python is asked: being asked may have to wait for another thread's turn.
    const EVERY: Duration = Duration::from_millis(25);

    /// `is_main` says whether this is Python's main thread.
    pub fn new(is_main: bool) -> Self {
        Self { is_main, last: Instant::now() }
    }

    /// An error if a signal handler raised one, `KeyboardInterrupt` for Ctrl-C.
    pub fn check(&mut self) -> PyResult<()> {
        if !self.is_main || self.last.elapsed() < Self::EVERY {
            return Ok(());
        }
        self.last = Instant::now();
        Python::try_attach(|py| py.check_signals())
            .unwrap_or_else(|| Err(PyRuntimeError::new_err("the interpreter is shutting down")))
    }
}
