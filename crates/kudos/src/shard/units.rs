//! Units: ranges of rows, and how a process reads its own without those before.

use super::ShardError;
use crate::data::{DataError, Options, Place, Reader, Row, RowProblem};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// A range of rows of one input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Which input, from 0.
    pub input: usize,
    /// Where it begins.
    pub from: Place,
    /// Rows of the file, usable or not.
    pub rows: u64,
    /// Hash of what was read of them.
    pub sha256: String,
}

/// The hash of rows as they were read, to see that two readings were the same.
#[derive(Default)]
pub(super) struct RowsDigest {
    hash: Sha256,
    /// Bytes of the rows as JSON.
    pub bytes: usize,
}

impl RowsDigest {
    pub fn add(&mut self, row: &Result<Row, RowProblem>) {
        let (line, text) = match row {
            Ok(row) => (row.location.line, to_json(&row.original)),
            Err(problem) => (problem.location.line, problem.kind.to_string()),
        };
        self.bytes += text.len();
        self.hash.update(line.to_le_bytes());
        self.hash.update((text.len() as u64).to_le_bytes());
        self.hash.update(text);
    }

    /// The hash in hexadecimal; what follows is another one's.
    pub fn take(&mut self) -> String {
        self.bytes = 0;
        std::mem::take(&mut self.hash).finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn to_json(row: &serde_json::Map<String, Value>) -> String {
    serde_json::to_string(row).unwrap_or_default()
}

/// Reads units, forwards with as little reading of other rows as the format allows.
pub struct UnitReader {
    inputs: Vec<PathBuf>,
    options: Options,
    /// The reader of the last unit, where it can go on to a later one.
    open: Option<(usize, Reader)>,
}

impl UnitReader {
    /// Reads units of these inputs, in the order of the manifest.
    pub fn new(inputs: Vec<PathBuf>, options: Options) -> Self {
        Self { inputs, options, open: None }
    }

    /// The rows of a unit, one by one, each usable or with what is wrong with it.
    ///
    /// # Errors
    /// If the input cannot be read, or does not have the unit's rows any more; and whatever `take` gives.
    pub fn read<E: From<ShardError>>(
        &mut self,
        unit: &Unit,
        mut take: impl FnMut(Result<Row, RowProblem>) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = self.inputs[unit.input].clone();
        let mut reader = self.reader(unit, &path).map_err(ShardError::from)?;
        let mut digest = RowsDigest::default();
        for row in reader.by_ref() {
            let row = match row {
                Err(DataError::Row(problem)) => Err(problem),
                row => Ok(row.map_err(ShardError::from)?),
            };
            digest.add(&row);
            take(row)?;
        }
        if reader.rows_read() != unit.from.row + unit.rows || digest.take() != unit.sha256 {
            let (file, row) = (path.to_string_lossy().into_owned(), unit.from.row + 1);
            return Err(ShardError::Changed { file, row }.into());
        }
        self.open = reader.goes_forward().then_some((unit.input, reader));
        Ok(())
    }

    fn reader(&mut self, unit: &Unit, path: &Path) -> Result<Reader, DataError> {
        match self.open.take() {
            Some((input, mut reader)) if input == unit.input && reader.rows_read() <= unit.from.row => {
                reader.go_to(path, &unit.from, unit.rows)?;
                Ok(reader)
            }
            _ => Reader::open_at(path, &self.options, &unit.from, unit.rows),
        }
    }
}
