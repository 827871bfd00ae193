//! How rows are cut into units: by the rows alone, so that everyone cuts them alike.

use super::manifest::Input;
use super::units::{RowsDigest, Unit};
use super::{ShardError, units};
use crate::data::{DataError, Options, Place, Reader, Record, Row, RowProblem, Schema};
use std::path::{Path, PathBuf};

/// How large a unit is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// A unit ends with the row that makes it so many responses. A row that cannot be used counts as one.
    pub responses: u64,
    /// And with the row that makes it so many bytes of JSON, as it is held in memory.
    pub bytes: usize,
}

/// What is known of the inputs once all rows have been read.
#[derive(Debug, Default)]
pub struct Plan {
    /// The inputs.
    pub inputs: Vec<Input>,
    /// Their rows in units.
    pub units: Vec<Unit>,
    /// The columns of all rows.
    pub schema: Schema,
    /// What is to be said of each input.
    pub told: Vec<Told>,
    /// Responses of all rows.
    pub responses: u64,
    /// The first row that cannot be used.
    pub first_problem: Option<RowProblem>,
}

/// How an input was read.
#[derive(Debug)]
pub struct Told {
    /// The input as the user named it.
    pub file: String,
    /// What it was read as.
    pub layout: Option<String>,
    /// What is to be said beside that.
    pub notes: Vec<String>,
}

/// Reads all inputs once. `visit` sees each record, and says how many responses it has; `progress` hears how many rows were read,
/// and ends the reading with an error.
///
/// # Errors
/// If an input cannot be read, or is no plain file; with `strict`, the first row that cannot be used; and what `progress` gives.
pub fn plan<E: From<ShardError>>(
    paths: &[PathBuf],
    options: &Options,
    limits: Limits,
    mut visit: impl FnMut(&Record) -> u64,
    mut progress: impl FnMut(u64) -> Result<(), E>,
) -> Result<Plan, E> {
    let mut plan = Plan::default();
    for (input, path) in paths.iter().enumerate() {
        check_is_file(path)?;
        let reader = Reader::open(path, options).map_err(ShardError::from)?;
        let mut cut = Cut { plan: &mut plan, limits, input, open: Open::default() };
        cut.read(reader, path, &mut visit, &mut progress)?;
    }
    plan.schema.settle();
    Ok(plan)
}

fn check_is_file(path: &Path) -> Result<(), ShardError> {
    let file = || path.to_string_lossy().into_owned();
    if path == Path::new("-") {
        return Err(ShardError::NoFile { file: file(), found: "standard input" });
    }
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() && !found.is_dir() => {
            Err(ShardError::NoFile { file: file(), found: "a pipe or a device" })
        }
        _ => Ok(()), // What else is wrong is said when it is opened.
    }
}

/// The unit that rows are added to.
#[derive(Default)]
struct Open {
    from: Place,
    responses: u64,
    digest: RowsDigest,
}

/// One input that is being cut.
struct Cut<'a> {
    plan: &'a mut Plan,
    limits: Limits,
    input: usize,
    open: Open,
}

impl Cut<'_> {
    fn read<E: From<ShardError>>(
        &mut self,
        mut reader: Reader,
        path: &Path,
        visit: &mut impl FnMut(&Record) -> u64,
        progress: &mut impl FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let (first, mut unreadable) = (self.plan.units.len(), 0);
        let before: u64 = self.plan.inputs.iter().map(|input| input.rows).sum();
        while let Some(row) = reader.next() {
            let row = match row {
                Err(DataError::Row(problem)) if !reader.is_strict() => Err(problem),
                row => Ok(row.map_err(ShardError::from)?),
            };
            unreadable += u64::from(row.is_err());
            self.add(row, visit);
            self.end_unit(&reader);
            progress(before + reader.rows_read())?;
        }
        let rows = reader.rows_read();
        if rows > self.open.from.row {
            self.close(Place { row: rows, text: None });
        }
        self.place_in_file(&reader, path, first).map_err(ShardError::from)?;
        let file = reader.file().to_string();
        self.plan.inputs.push(Input { name: file.clone(), sha256: reader.sha256(), rows, unreadable });
        let layout = reader.layout().map(str::to_owned);
        self.plan.told.push(Told { file, layout, notes: reader.notes() });
        Ok(())
    }

    fn add(&mut self, row: Result<Row, RowProblem>, visit: &mut impl FnMut(&Record) -> u64) {
        self.open.digest.add(&row);
        match row {
            Ok(row) => {
                self.plan.schema.meet(&row.original);
                let responses = visit(&row.record);
                self.plan.responses += responses;
                self.open.responses += responses;
            }
            Err(problem) => {
                self.open.responses += 1;
                self.plan.first_problem.get_or_insert(problem);
            }
        }
    }

    /// Ends the unit where it is large enough, behind the row that was read last.
    fn end_unit(&mut self, reader: &Reader) {
        let Open { responses, digest, .. } = &self.open;
        if (*responses >= self.limits.responses || digest.bytes >= self.limits.bytes)
            && let Some(place) = reader.place()
        {
            self.close(place);
        }
    }

    fn close(&mut self, next: Place) {
        let Open { from, mut digest, .. } = std::mem::replace(&mut self.open, Open { from: next, ..Open::default() });
        let (rows, sha256) = (self.open.from.row - from.row, digest.take());
        self.plan.units.push(units::Unit { input: self.input, from, rows, sha256 });
    }

    /// Counts the bytes of places from the beginning of the file: what stands before the rows is known once all were read.
    fn place_in_file(&mut self, reader: &Reader, path: &Path, first: usize) -> Result<(), DataError> {
        let Some(consumed) = reader.consumed() else { return Ok(()) };
        let fail = |reason| DataError::Open { file: reader.file().clone(), reason };
        let before = std::fs::metadata(path).map_err(fail)?.len().saturating_sub(consumed);
        let places = self.plan.units[first..].iter_mut().filter_map(|unit| unit.from.text.as_mut());
        places.for_each(|place| place.byte += before);
        Ok(())
    }
}
