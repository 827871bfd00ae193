//! Pools of threads. Each number of threads has one, and each process its own: a child after `fork` has no thread of its
//! parent's pools.
//!
//! The list of pools is locked for moments only, by threads that hold the interpreter. `fork` is called by a thread that holds
//! it too, so a child never finds the list locked.

use crate::border::kudos_error;
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::{Arc, Mutex, PoisonError};

/// Threads at most, as for the command's `--threads`.
const MOST: usize = 1024;

/// The pools of this process.
static POOLS: Mutex<Vec<Arc<ThreadPool>>> = Mutex::new(Vec::new());

/// Forgets the pools of the parent, whose threads did not come along. Their memory stays: they cannot be shut down.
#[pyfunction]
pub fn forked() {
    let pools = std::mem::take(&mut *POOLS.lock().unwrap_or_else(PoisonError::into_inner));
    pools.into_iter().for_each(std::mem::forget);
}

/// The pool of so many threads.
pub fn pool(threads: usize) -> PyResult<Arc<ThreadPool>> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = pools.iter().find(|pool| pool.current_num_threads() == threads) {
        return Ok(pool.clone());
    }
    if !(1..=MOST).contains(&threads) {
        return Err(kudos_error(format!("threads={threads}: expected a number from 1 to {MOST}")));
    }
    let name = |index| format!("kudos-{index}");
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build();
    let pool = Arc::new(pool.map_err(|error| kudos_error(format!("threads={threads}: {error}")))?);
    pools.push(pool.clone());
    Ok(pool)
}

/// The threads that are used where nothing is said: `KUDOS_THREADS`, else `OMP_NUM_THREADS`, else the processors that this
/// process may use, by its affinity and its container's quota.
#[pyfunction]
pub fn default_threads() -> PyResult<usize> {
    for name in ["KUDOS_THREADS", "OMP_NUM_THREADS"] {
        let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else { continue };
        // OpenMP's variable may hold a list, a number for each level of nesting.
        let text = value.to_string_lossy();
        let first = text.split(',').next().unwrap_or_default().trim();
        match first.parse::<usize>() {
            Ok(threads) if (1..=MOST).contains(&threads) => return Ok(threads),
            _ => return Err(kudos_error(format!("{name}={text}: expected a number of threads from 1 to {MOST}"))),
        }
    }
    Ok(std::thread::available_parallelism().map_or(1, usize::from).min(MOST))
}
