//! Rows of a frame → the columns that `kudos score` adds to them.

use crate::arrow::Arrays;
use crate::border::{data_error, exception};
use crate::judge::{Call, unscored};
use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use kudos::data::{DataError, Mapping, MappingText, Options, Reader, Record, Row};
use kudos::models::{Input, Rated, ScoreError};
use kudos_cli::{Added, inputs, score_columns};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict};
use serde_json::Value;

/// What frames are called in messages.
const NAME: &str = "frame";
/// Rows read, encoded and scored at a time.
const WINDOW: usize = 512;
/// Characters of the texts of a window: fewer rows of long texts are read ahead.
const WINDOW_CHARACTERS: usize = 8 << 20;

/// A column: what scoring calls it, its name beside the frame's, its kind (`f4`, `i8`, `?` or `O`), its values.
type Made<'py> = (String, String, &'static str, Bound<'py, PyAny>);
/// The columns, the rows without a score, which of them cannot be used and why, and what is to be said.
pub type Outcome<'py> = (Vec<Made<'py>>, Vec<usize>, Vec<(usize, String)>, Vec<String>);

/// How the frame is read: what the caller says of its columns, as on the command line.
pub fn options(said: &Bound<'_, PyDict>, strict: bool) -> PyResult<Options> {
    let list = |name: &str| said.get_item(name)?.map_or(Ok(Vec::new()), |value| value.extract::<Vec<String>>());
    let one = |name: &str| said.get_item(name)?.map_or(Ok(None), |value| value.extract::<Option<String>>());
    let text = MappingText {
        columns: list("columns")?,
        labels: list("labels")?,
        rating: one("rating")?,
        rank: one("rank")?,
        group_by: one("group_by")?,
    };
    let mapping = Mapping::parse(&text).map_err(|error| data_error(error.to_string(), None))?;
    Ok(Options { strict, mapping, labelled: false, ..Options::default() })
}

/// A frame of Arrow columns.
pub fn of_arrow(arrays: Arrays, options: &Options) -> PyResult<Reader> {
    if !arrays.is_table() {
        return Err(data_error("expected a frame with named columns, found a single column without a name", None));
    }
    let schema = arrays.schema();
    let batches = Box::new(arrays.into_batches()) as Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;
    Reader::from_batches(NAME, &schema, batches, options).map_err(|error| exception(&error.into()))
}

/// Rows as JSON, one a line.
pub fn of_json(lines: Vec<u8>, options: &Options) -> PyResult<Reader> {
    Reader::from_bytes(NAME, lines, options).map_err(|error| exception(&error.into()))
}

/// The columns for all rows, `rows` of them where that is known. A row that cannot be used is named, and its score is missing.
pub fn columns<'py>(
    py: Python<'py>,
    call: &mut Call<'_>,
    mut reader: Reader,
    (taken, prefix, strict, rows): (Vec<String>, Option<String>, bool, Option<usize>),
) -> PyResult<Outcome<'py>> {
    let mut table = Table { added: Added::beside(taken.into_iter().collect(), prefix.as_deref()), ..Table::new() };
    loop {
        let window = py.detach(|| read_window(&mut reader, strict))?;
        let is_last = window.is_last;
        py.detach(|| table.score(call, window, strict))?;
        if is_last {
            break;
        }
    }
    let notes = reader.layout().map(|layout| format!("the frame was read as {layout}"));
    let said = notes.into_iter().chain(reader.notes()).chain(table.added.notes()).collect();
    table.finish(py, rows, said)
}

/// Rows that were read together.
#[derive(Default)]
struct Window {
    rows: Vec<Row>,
    problems: Vec<(usize, String)>,
    is_last: bool,
}

fn read_window(reader: &mut Reader, strict: bool) -> PyResult<Window> {
    let (mut window, mut characters) = (Window::default(), 0);
    while window.rows.len() + window.problems.len() < WINDOW && characters < WINDOW_CHARACTERS {
        match reader.next() {
            None => {
                window.is_last = true;
                break;
            }
            Some(Ok(row)) => {
                characters += inputs(&row.record).iter().map(|(_, response)| response.chars()).sum::<usize>();
                window.rows.push(row);
            }
            Some(Err(DataError::Row(problem))) if !strict => {
                window.problems.push((place(problem.location.line), problem.kind.to_string()));
            }
            Some(Err(DataError::Row(problem))) => {
                let row = place(problem.location.line);
                return Err(data_error(format!("row {row}: {}", problem.kind), Some(row as u64)));
            }
            Some(Err(error)) => return Err(exception(&error.into())),
        }
    }
    Ok(window)
}

/// The place of a row from 0, as Python counts.
fn place(line: u64) -> usize {
    line.saturating_sub(1) as usize
}

/// Values of one column, as far as rows have them.
enum Values {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
    Flags(Vec<bool>),
    Other(Vec<Value>),
}

/// What was made so far.
struct Table {
    added: Added,
    columns: Vec<(String, String, Values)>,
    /// For each row, whether it has values.
    filled: Vec<bool>,
    problems: Vec<(usize, String)>,
}

impl Table {
    fn new() -> Self {
        let added = Added::beside(Default::default(), None);
        Table { added, columns: Vec::new(), filled: Vec::new(), problems: Vec::new() }
    }

    fn score(&mut self, call: &mut Call<'_>, window: Window, strict: bool) -> PyResult<()> {
        let texts: Vec<Input> = window.rows.iter().flat_map(|row| inputs(&row.record)).collect();
        let mut rated = call.rate(&texts)?.into_iter();
        let names = call.judge().attributes().to_vec();
        self.problems.extend(window.problems);
        for row in &window.rows {
            let at = place(row.location.line);
            if at < self.filled.len() {
                return Err(data_error(
                    format!("row {at}: expected one judgement a row, found several; `kudos.pairs` makes a row of each"),
                    Some(at as u64),
                ));
            }
            let own: Result<Vec<Rated>, ScoreError> =
                rated.by_ref().take(inputs(&row.record).len()).collect::<Vec<_>>().into_iter().collect();
            match own {
                Ok(own) => self.add(at, &row.record, &own, &names),
                Err(error @ ScoreError::Text(_)) if !strict => self.problems.push((at, error.to_string())),
                Err(error) => return Err(unscored(&error, at)),
            }
        }
        Ok(())
    }

    /// Adds the columns of a row.
    fn add(&mut self, at: usize, record: &Record, rated: &[Rated], names: &[String]) {
        for (name, value) in score_columns(record, rated, names) {
            let known = self.columns.iter().position(|(own, ..)| *own == name);
            let place = known.unwrap_or_else(|| {
                let shown = self.added.name(&name);
                self.columns.push((name, shown, Values::for_value(&value)));
                self.columns.len() - 1
            });
            self.columns[place].2.set(at, value);
        }
        self.filled.resize(at, false);
        self.filled.push(true);
    }

    fn finish<'py>(mut self, py: Python<'py>, rows: Option<usize>, said: Vec<String>) -> PyResult<Outcome<'py>> {
        let last = self.problems.iter().map(|(row, _)| row + 1).max().unwrap_or(0);
        let length = self.filled.len().max(last).max(rows.unwrap_or(0));
        self.filled.resize(length, false);
        if self.columns.is_empty() {
            let why = self
                .problems
                .first()
                .map_or("no row has a response".to_owned(), |(row, why)| format!("row {row}: {why}"));
            return Err(data_error(
                format!("expected a response to score, found none: {why}"),
                self.problems.first().map(|p| p.0 as u64),
            ));
        }
        let mut made = Vec::new();
        for (name, shown, mut values) in std::mem::take(&mut self.columns) {
            values.lengthen(length);
            let (kind, values) = values.into_python(py)?;
            made.push((name, shown, kind, values));
        }
        let missing = (0..length).filter(|row| !self.filled[*row]).collect();
        Ok((made, missing, self.problems, said))
    }
}

impl Values {
    fn for_value(value: &Value) -> Values {
        match value {
            Value::Bool(_) => Values::Flags(Vec::new()),
            Value::Number(number) if number.is_f64() => Values::Floats(Vec::new()),
            Value::Number(_) => Values::Integers(Vec::new()),
            _ => Values::Other(Vec::new()),
        }
    }

    /// Makes room for rows that have no value.
    fn lengthen(&mut self, length: usize) {
        match self {
            Values::Floats(values) => values.resize(length, f32::NAN),
            Values::Integers(values) => values.resize(length, 0),
            Values::Flags(values) => values.resize(length, false),
            Values::Other(values) => values.resize(length, Value::Null),
        }
    }

    fn set(&mut self, at: usize, value: Value) {
        self.lengthen(at);
        match self {
            Values::Floats(values) => values.push(value.as_f64().map_or(f32::NAN, |value| value as f32)),
            Values::Integers(values) => values.push(value.as_i64().unwrap_or_default()),
            Values::Flags(values) => values.push(value.as_bool().unwrap_or_default()),
            Values::Other(values) => values.push(value),
        }
    }

    fn into_python(self, py: Python<'_>) -> PyResult<(&'static str, Bound<'_, PyAny>)> {
        let bytes = |bytes: Vec<u8>| PyByteArray::new(py, &bytes).into_any();
        Ok(match self {
            Values::Floats(values) => ("f4", bytes(values.iter().flat_map(|value| value.to_ne_bytes()).collect())),
            Values::Integers(values) => ("i8", bytes(values.iter().flat_map(|value| value.to_ne_bytes()).collect())),
            Values::Flags(values) => ("?", bytes(values.into_iter().map(u8::from).collect())),
            Values::Other(values) => {
                let lists = values.iter().map(|value| -> Option<Vec<f32>> {
                    Some(value.as_array()?.iter().map(|v| v.as_f64().map_or(f32::NAN, |v| v as f32)).collect())
                });
                ("O", lists.collect::<Vec<_>>().into_pyobject(py)?.into_any())
            }
        })
    }
}
