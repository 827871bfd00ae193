//! Texts as callers have them → contents, a window at a time.
//!
//! One text that stands for all rows, an iterator of Python's, or Arrow data. Only a window of texts is ever copied, so Arrow
//! data larger than memory are read where they lie.

use crate::arrow::{Arrays, unreadable};
use crate::border::data_error;
use arrow_array::{Array, ArrayRef};
use kudos::data::{Content, ProblemKind, contents};
use pyo3::exceptions::PyUnicodeEncodeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyIterator, PyList, PyMapping, PyString, PyTuple};
use serde_json::{Map, Number, Value};

/// Where texts come from.
enum From {
    /// The same text for every row.
    One(Content),
    Iterator(Py<PyIterator>),
    Arrow {
        arrays: Arrays,
        current: Option<ArrayRef>,
        at: usize,
    },
}

/// Texts of one argument.
pub struct Texts {
    /// The argument, for messages: `prompts`.
    name: &'static str,
    from: From,
    /// Texts that were given out.
    given: usize,
}

/// Bytes of a window: what is read ahead of long texts.
const WINDOW_BYTES: usize = 8 << 20;

impl Texts {
    /// The texts of an argument. With `is_one`, it is one text, which stands for all rows.
    pub fn new(name: &'static str, object: &Bound<'_, PyAny>, is_one: bool) -> PyResult<Texts> {
        let from = if is_one {
            From::One(content(object, name, 0)?)
        } else {
            match Arrays::of(object)? {
                Some(arrays) => From::Arrow { arrays, current: None, at: 0 },
                None => From::Iterator(object.try_iter()?.unbind()),
            }
        };
        Ok(Texts { name, from, given: 0 })
    }

    /// True for one text that stands for all rows.
    pub fn is_one(&self) -> bool {
        matches!(self.from, From::One(_))
    }

    /// The text that stands for all rows.
    pub fn one(&self) -> Option<&Content> {
        match &self.from {
            From::One(content) => Some(content),
            _ => None,
        }
    }

    /// The next texts, at most so many; none at the end.
    pub fn take(&mut self, py: Python<'_>, count: usize) -> PyResult<Vec<Content>> {
        let (name, first) = (self.name, self.given);
        let taken = match &mut self.from {
            From::One(_) => Vec::new(),
            From::Iterator(iterator) => of_iterator(iterator.bind(py), name, first, count)?,
            // Another library's code runs there, which may want the interpreter.
            From::Arrow { arrays, current, at } => py.detach(|| of_arrow((arrays, current, at), name, first, count))?,
        };
        self.given += taken.len();
        Ok(taken)
    }

    /// Texts that were given out.
    pub fn given(&self) -> usize {
        self.given
    }
}

fn of_iterator(
    iterator: &Bound<'_, PyIterator>,
    name: &'static str,
    first: usize,
    count: usize,
) -> PyResult<Vec<Content>> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    let mut iterator = iterator.clone();
    while taken.len() < count && bytes < WINDOW_BYTES {
        let Some(next) = iterator.next() else { break };
        let text = content(&next?, name, first + taken.len())?;
        bytes += text.chars();
        taken.push(text);
    }
    Ok(taken)
}

fn of_arrow(
    (arrays, current, at): (&mut Arrays, &mut Option<ArrayRef>, &mut usize),
    name: &'static str,
    first: usize,
    count: usize,
) -> PyResult<Vec<Content>> {
    loop {
        let Some(array) = current.as_ref().filter(|array| *at < array.len()) else {
            match arrays.next() {
                Some(array) => (*current, *at) = (Some(array.map_err(unreadable)?), 0),
                None => return Ok(Vec::new()),
            }
            continue;
        };
        let slice = next_slice(array, *at, count);
        *at += slice.len();
        let found = contents(&slice, name)
            .map_err(|words| data_error(format!("{name}: expected texts, found Arrow data of which {words}"), None))?;
        let place =
            |(row, found): (usize, Result<Content, ProblemKind>)| found.map_err(|kind| problem(&kind, first + row));
        return found.into_iter().enumerate().map(place).collect();
    }
}

/// The next rows, at most so many; fewer of long texts.
fn next_slice(array: &ArrayRef, at: usize, count: usize) -> ArrayRef {
    let mut slice = array.slice(at, count.min(array.len() - at));
    let bytes = |slice: &ArrayRef| slice.to_data().get_slice_memory_size().unwrap_or_default();
    while slice.len() > 1 && bytes(&slice) > WINDOW_BYTES {
        slice = slice.slice(0, slice.len() / 2);
    }
    slice
}

/// A text, or the messages of a conversation.
pub fn content(object: &Bound<'_, PyAny>, name: &str, row: usize) -> PyResult<Content> {
    let value = match object.cast::<PyString>() {
        Ok(text) => Value::String(string(text, row)?),
        Err(_)
            if object.is_instance_of::<PyDict>()
                || object.is_instance_of::<PyList>()
                || object.is_instance_of::<PyTuple>() =>
        {
            json(object, row)?
        }
        // A mapping of another class, as a message may be.
        Err(_) if object.cast::<PyMapping>().is_ok() => json(object, row)?,
        Err(_) => return Err(data_error(wrong_type(object, name, row), Some(row as u64))),
    };
    Content::from_json(&value, name).map_err(|kind| problem(&kind, row))
}

fn problem(kind: &ProblemKind, row: usize) -> PyErr {
    data_error(format!("row {row}: {kind}"), Some(row as u64))
}

fn wrong_type(object: &Bound<'_, PyAny>, name: &str, row: usize) -> String {
    let found = match object.is_none() {
        true => "None".to_owned(),
        false => object
            .get_type()
            .name()
            .map_or_else(|_| "something else".to_owned(), |name| format!("a value of type {name}")),
    };
    format!("row {row}: column `{name}`: expected text or a list of {{role, content}} messages, found {found}")
}

fn string(text: &Bound<'_, PyString>, row: usize) -> PyResult<String> {
    text.to_str().map(str::to_owned).map_err(|error| match error.is_instance_of::<PyUnicodeEncodeError>(text.py()) {
        true => data_error(
            format!("row {row}: expected text, found half of a surrogate pair, which is no character: {error}"),
            Some(row as u64),
        ),
        false => error,
    })
}

/// The JSON value of plain Python objects.
pub fn json(object: &Bound<'_, PyAny>, row: usize) -> PyResult<Value> {
    deep_json(object, row, 0)
}

/// Lists in lists at most: a list may hold itself.
const DEEPEST: usize = 64;

fn deep_json(object: &Bound<'_, PyAny>, row: usize, depth: usize) -> PyResult<Value> {
    if depth > DEEPEST {
        return Err(data_error(
            format!("row {row}: expected plain values, found more than {DEEPEST} levels"),
            Some(row as u64),
        ));
    }
    if object.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(text) = object.cast::<PyString>() {
        return string(text, row).map(Value::String);
    }
    if object.is_instance_of::<PyBool>() {
        return Ok(Value::Bool(object.extract()?));
    }
    if object.is_instance_of::<PyInt>() {
        return Ok(object.extract::<i64>().map_or_else(|_| Value::String(object.to_string()), Value::from));
    }
    if object.is_instance_of::<PyFloat>() {
        let number: f64 = object.extract()?;
        return Ok(Number::from_f64(number).map_or_else(|| Value::String(number.to_string()), Value::Number));
    }
    if let Ok(mapping) = object.cast::<PyMapping>() {
        let mut map = Map::new();
        for pair in mapping.items()?.iter() {
            let (key, value): (Bound<PyAny>, Bound<PyAny>) = pair.extract()?;
            map.insert(key.str()?.to_string(), deep_json(&value, row, depth + 1)?);
        }
        return Ok(Value::Object(map));
    }
    if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() {
        return object
            .try_iter()?
            .map(|item| deep_json(&item?, row, depth + 1))
            .collect::<PyResult<_>>()
            .map(Value::Array);
    }
    // Numbers and arrays of numpy know their Python values.
    match object.getattr_opt("tolist")? {
        Some(method) => deep_json(&method.call0()?, row, depth + 1),
        None => Err(data_error(wrong_type(object, "value", row), Some(row as u64))),
    }
}
