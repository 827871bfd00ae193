//! The native half of the Python package `kudos`.
//!
//! Nothing here is public in Python: `python/kudos` is a typed façade over it. This crate turns Python's values into those of
//! the library and back, and sees to threads, signals and errors. What it computes is done by `kudos` and by the commands.
//!
//! | file | subject |
//! |---|---|
//! | `judge.rs` | a loaded judge: scores of texts, columns of frames |
//! | `texts.rs` | texts of Python or Arrow, a window at a time |
//! | `arrow.rs` | Arrow data of other libraries, taken over and checked |
//! | `frame.rs` | rows of a frame → columns of scores |
//! | `lane.rs` | texts of many threads in one packed batch |
//! | `shard.rs` | jobs in units, for a cluster |
//! | `threads.rs` | the pools of threads, one set for each process |
//! | `command.rs` | commands as functions, and the command `kudos` |
//! | `border.rs` | errors and panics → Python's exceptions; signals |

mod arrow;
mod border;
mod command;
mod frame;
mod judge;
mod lane;
mod shard;
mod texts;
mod threads;

use pyo3::prelude::*;

/// The native module.
#[pymodule]
mod _kudos {
    use super::*;

    #[pymodule_export]
    use super::command::{call, fault_for_tests, flags, main, write_arrow};
    #[pymodule_export]
    use super::judge::{Judge, file_hashes};
    #[pymodule_export]
    use super::shard::Job;
    #[pymodule_export]
    use super::threads::{default_threads, forked};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        border::keep_panics_quiet();
        command::start_again_with(module.py())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("BOXED_JUDGE", kudos_cli::BOXED_JUDGE)
    }
}
