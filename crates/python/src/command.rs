//! Commands as functions, and the command `kudos`.

use crate::arrow::{Arrays, unreadable};
use crate::border::{data_error, exception, fault, guarded, kudos_error};
use crate::threads::pool;
use arrow_ipc::writer::FileWriter;
use kudos_cli::{Called, Caller};
use pyo3::prelude::*;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a command tells while it runs.
pub enum Told {
    Line(String),
    Progress { done: u64, total: Option<u64>, what: String, message: String },
    Done(Box<anyhow::Result<Called>>),
}

/// A caller of commands, and the other end of what it hears.
pub struct Hearer {
    pub caller: Caller,
    pub told: Receiver<Told>,
    pub stop: Arc<AtomicBool>,
}

/// A caller that passes on what it hears; `None` for one that only keeps it until it is dropped.
pub fn hearer(sender: Option<(Sender<Told>, Receiver<Told>)>) -> Hearer {
    let (sender, told) = sender.unwrap_or_else(channel);
    let (lines, stop) = (sender.clone(), Arc::new(AtomicBool::new(false)));
    let caller = Caller {
        say: Box::new(move |line| drop(lines.send(Told::Line(line.to_owned())))),
        progress: Box::new(move |done, total, what, message| {
            let (what, message) = (what.to_owned(), message.to_owned());
            drop(sender.send(Told::Progress { done, total, what, message }));
        }),
        stop: stop.clone(),
    };
    Hearer { caller, told, stop }
}

/// How long the calling thread waits before it looks for signals.
const LOOK: Duration = Duration::from_millis(25);

/// Runs `kudos WORDS…`, and gives what it writes to standard output. `say` hears each line for people, `progress` of each step; an
/// exception in either ends the command, as Ctrl-C does.
#[pyfunction]
#[pyo3(signature = (words, *, threads, say, progress))]
pub fn call(
    py: Python<'_>,
    words: Vec<OsString>,
    threads: usize,
    say: Py<PyAny>,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    guarded(|| {
        let pool = pool(threads)?;
        let (sender, receiver) = channel();
        let done = sender.clone();
        let Hearer { caller, told, stop } = hearer(Some((sender, receiver)));
        let told = Mutex::new(told);
        // Its own thread, so that this one can answer signals.
        let thread = std::thread::Builder::new().name("kudos-command".into()).spawn(move || {
            let run = AssertUnwindSafe(|| kudos_cli::call(words, caller));
            let called =
                pool.install(|| catch_unwind(run).unwrap_or_else(|panic| Err(anyhow::anyhow!(fault(&*panic)))));
            drop(done.send(Told::Done(Box::new(called))));
        });
        let thread = thread.map_err(|error| kudos_error(format!("expected to start a thread: {error}")))?;
        let (called, stopped) = listen(py, &told, &stop, &say, progress.as_ref());
        let _ = py.detach(|| thread.join());
        if let Some(error) = stopped {
            return Err(error);
        }
        let Called { output, result } = called.map_err(|error| exception(&error))?;
        match result {
            Err(error) if output.is_empty() => Err(exception(&error)),
            _ => Ok(output),
        }
    })
}

/// Hears the command until it is done: what it came to, and what ended it early.
fn listen(
    py: Python<'_>,
    told: &Mutex<Receiver<Told>>,
    stop: &AtomicBool,
    say: &Py<PyAny>,
    progress: Option<&Py<PyAny>>,
) -> (anyhow::Result<Called>, Option<PyErr>) {
    let mut stopped: Option<PyErr> = None;
    loop {
        let heard = py.detach(|| told.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(LOOK));
        let answer = match heard {
            Ok(Told::Done(called)) => return (*called, stopped),
            Ok(_) if stopped.is_some() => Ok(()),
            Ok(Told::Line(line)) => say.call1(py, (line,)).map(drop),
            Ok(Told::Progress { done, total, what, message }) => match progress {
                Some(progress) => progress.call1(py, (done, total, what, message)).map(drop),
                None => Ok(()),
            },
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                return (Err(anyhow::anyhow!("the command ended without a word")), stopped);
            }
        };
        if let (Err(error), None) = (answer.and_then(|()| py.check_signals()), &stopped) {
            stop.store(true, Ordering::SeqCst);
            stopped = Some(error);
        }
    }
}

/// Says how a command starts Kudos once more: `python -m kudos`.
pub fn start_again_with(py: Python<'_>) -> PyResult<()> {
    let executable: Option<OsString> = py.import("sys")?.getattr("executable")?.extract()?;
    if let Some(executable) = executable.filter(|path| !path.is_empty()) {
        kudos_cli::set_program(vec![executable, "-m".into(), "kudos".into()]);
    }
    Ok(())
}

/// The command line: `words` begins with the program. Gives the exit status.
#[pyfunction]
pub fn main(py: Python<'_>, words: Vec<OsString>) -> PyResult<u8> {
    drop(std::panic::take_hook()); // A fault is shown on a terminal.
    let status = catch_unwind(|| py.detach(|| kudos_cli::main_with(words)));
    status.or(Ok(101))
}

/// The flags of a command, each with whether it takes a value.
#[pyfunction]
pub fn flags(command: &str) -> Vec<(String, bool)> {
    kudos_cli::flags(command)
}

/// Writes a frame of Arrow columns to a file that the commands read; its number of rows.
#[pyfunction]
pub fn write_arrow(py: Python<'_>, source: &Bound<'_, PyAny>, path: PathBuf) -> PyResult<usize> {
    guarded(|| {
        let arrays = Arrays::of(source)?.filter(Arrays::is_table);
        let arrays = arrays.ok_or_else(|| data_error("expected a frame with named columns, found none", None))?;
        py.detach(|| {
            let fail = |error: std::io::Error| kudos_error(format!("{}: {error}", path.display()));
            let file = std::io::BufWriter::new(std::fs::File::create(&path).map_err(fail)?);
            let mut writer = FileWriter::try_new(file, &arrays.schema()).map_err(unreadable)?;
            let mut rows = 0;
            for batch in arrays.into_batches() {
                let batch = batch.map_err(unreadable)?;
                rows += batch.num_rows();
                writer.write(&batch).map_err(unreadable)?;
            }
            writer.finish().map_err(unreadable)?;
            Ok(rows)
        })
    })
}

/// A fault, as the tests need one.
#[pyfunction]
pub fn fault_for_tests() -> PyResult<()> {
    guarded(|| panic!("as a test asked"))
}
