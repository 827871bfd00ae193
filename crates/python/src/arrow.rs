//! Arrow data of other libraries (pyarrow, polars, pandas, …), taken over by its C interface and read in place.
//!
//! The protocol is a method `__arrow_c_stream__` or `__arrow_c_array__` that gives capsules with C structures. This is the only
//! unsafe code of the crate. What is behind the pointers cannot be checked; what they describe is, before anything reads it.

#![allow(unsafe_code, reason = "the C structures of the Arrow interface are taken over by pointer")]

use crate::border::data_error;
use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi};
use arrow_array::ffi_stream::{ArrayStreamReader, FFI_ArrowArrayStream};
use arrow_array::{Array, ArrayReader, ArrayRef, RecordBatch, StructArray, make_array};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::Arc;

/// Arrays of one type, one after the other.
pub struct Arrays {
    /// Their name and type.
    pub field: Arc<Field>,
    arrays: Box<dyn Iterator<Item = Result<ArrayRef, ArrowError>> + Send>,
}

impl Arrays {
    /// The Arrow data of an object; `None` for one that offers none.
    ///
    /// # Errors
    /// If what it offers is no Arrow data, or was taken already.
    pub fn of(object: &Bound<'_, PyAny>) -> PyResult<Option<Arrays>> {
        if let Some(method) = object.getattr_opt("__arrow_c_stream__")? {
            return Self::of_stream(&method.call0()?).map(Some);
        }
        match object.getattr_opt("__arrow_c_array__")? {
            Some(method) => Self::of_array(&method.call0()?).map(Some),
            None => Ok(None),
        }
    }

    fn of_stream(capsule: &Bound<'_, PyAny>) -> PyResult<Arrays> {
        let pointer = pointer(capsule, c"arrow_array_stream")?;
        // SAFETY: a capsule of this name holds an ArrowArrayStream, by the PyCapsule interface of Arrow. It is moved out, and what is
        // left in the capsule counts as released. `try_new` refuses a stream that is released already.
        let stream = unsafe { FFI_ArrowArrayStream::from_raw(pointer.cast().as_ptr()) };
        let reader = ArrayStreamReader::try_new(stream).map_err(unreadable)?;
        let field = reader.field().clone();
        Ok(Arrays { field, arrays: Box::new(reader.map(|array| array.and_then(checked))) })
    }

    fn of_array(capsules: &Bound<'_, PyAny>) -> PyResult<Arrays> {
        let pair = capsules.cast::<PyTuple>().map_err(|_| not_arrow("a pair of capsules"))?;
        let schema = pointer(&pair.get_item(0)?, c"arrow_schema")?;
        let array = pointer(&pair.get_item(1)?, c"arrow_array")?;
        // SAFETY: capsules of these names hold an ArrowSchema and an ArrowArray. Both are moved out, as above.
        let (schema, array) = unsafe {
            (FFI_ArrowSchema::from_raw(schema.cast().as_ptr()), FFI_ArrowArray::from_raw(array.cast().as_ptr()))
        };
        if array.is_released() {
            return Err(not_arrow("an array that was not taken already"));
        }
        let field = Arc::new(Field::try_from(&schema).map_err(unreadable)?);
        // SAFETY: the producer promises that the array has the type of the schema; `checked` looks at what can be looked at.
        let data = unsafe { from_ffi(array, &schema) }.map_err(unreadable)?;
        let array = checked(make_array(data)).map_err(unreadable)?;
        Ok(Arrays { field, arrays: Box::new(std::iter::once(Ok(array))) })
    }

    /// True for a table: its arrays are rows of named columns.
    pub fn is_table(&self) -> bool {
        matches!(self.field.data_type(), DataType::Struct(_))
    }

    /// The columns of a table.
    pub fn schema(&self) -> Schema {
        match self.field.data_type() {
            DataType::Struct(fields) => Schema::new(fields.clone()),
            _ => Schema::new(vec![self.field.clone()]),
        }
    }

    /// The same as record batches.
    pub fn into_batches(self) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + Send {
        let schema = Arc::new(self.schema());
        self.arrays.map(move |array| match array?.as_any().downcast_ref::<StructArray>() {
            Some(rows) if rows.null_count() == 0 => RecordBatch::try_new(schema.clone(), rows.columns().to_vec()),
            _ => Err(ArrowError::InvalidArgumentError("rows that are null as a whole".into())),
        })
    }
}

impl Iterator for Arrays {
    type Item = Result<ArrayRef, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.arrays.next()
    }
}

/// Refuses an array whose offsets, lengths or texts contradict each other.
fn checked(array: ArrayRef) -> Result<ArrayRef, ArrowError> {
    array.to_data().validate_full()?;
    Ok(array)
}

fn pointer(capsule: &Bound<'_, PyAny>, name: &'static CStr) -> PyResult<NonNull<std::ffi::c_void>> {
    let capsule = capsule.cast::<PyCapsule>().map_err(|_| not_arrow("a capsule"))?;
    capsule.pointer_checked(Some(name)).map_err(|_| not_arrow(&format!("a capsule named {}", name.to_string_lossy())))
}

fn not_arrow(expected: &str) -> PyErr {
    data_error(format!("Arrow data: expected {expected}, found something else or nothing"), None)
}

/// The exception for Arrow data that cannot be read.
pub fn unreadable(error: ArrowError) -> PyErr {
    data_error(format!("Arrow data that cannot be read: {}", error.to_string().replace('\n', " ")), None)
}
