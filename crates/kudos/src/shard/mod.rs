//! A job over files of rows that is done in parts: by one process or by many, at once or after each other, whatever dies.
//!
//! The job stands in one directory. Its manifest says what is to be done: the inputs with their hashes, whatever else decides
//! the result, and the units into which the rows are cut. A unit is a range of rows of one input. Where it ends depends on the
//! inputs alone. Its result is one part, a file that appears whole ([`Claim`]) and knows that it is ([`crate::data::Part`]).
//! So the parts that are there say what is done, and no other state exists.
//!
//! Nobody coordinates the processes. Two of them may do the same unit. They write the same bytes, and the second takes the
//! place of the first. A claim only makes that rare: it is a locked file, and a lock ends with its process.
//!
//! This module knows rows and files. What is computed of a unit's rows is the caller's business.

mod claim;
mod manifest;
mod plan;
mod units;

pub use claim::{Claim, remove_leftovers};
pub use manifest::{Difference, Facts, Input, Manifest, PartProblem};
pub use plan::{Limits, Plan, Told, plan};
pub use units::{Unit, UnitReader};

use crate::data::DataError;
use std::path::{Path, PathBuf};

/// Why a job cannot be begun, or go on.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// An input cannot be read, or a row of it with `strict`.
    #[error("{0}")]
    Data(#[from] DataError),
    /// The directory holds other things.
    #[error("{dir}: expected a new or empty directory, or that of the same job, found {found} and no {NAME}", NAME = Manifest::NAME)]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// The directory holds another job.
    #[error("{dir}: {difference}; write to another directory, or remove this one to do all of it anew")]
    Other {
        /// The directory.
        dir: PathBuf,
        /// What differs.
        difference: Difference,
    },
    /// An input is not a file that can be read twice.
    #[error("{file}: expected a file, which can be read more than once, found {found}")]
    NoFile {
        /// The input as the user named it.
        file: String,
        /// What it is.
        found: &'static str,
    },
    /// An input was changed while the job was going on.
    #[error(
        "{file}: expected the rows of the beginning of the job, found others from row {row} on: the file was changed"
    )]
    Changed {
        /// The input as the user named it.
        file: String,
        /// First row of the unit, from 1.
        row: u64,
    },
    /// A manifest that is none.
    #[error("{path}: expected the manifest of a job, found {found}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },
    /// The system refuses.
    #[error("{path}: expected to write the output, found {reason}; check the directory and the free space")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The system does not deliver a part.
    #[error("{path}: expected to read a part, found {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
}

/// For `map_err`: what the system refused at a path.
fn unwritable(path: &Path) -> impl Fn(std::io::Error) -> ShardError {
    move |reason| ShardError::Write { path: path.to_owned(), reason }
}
