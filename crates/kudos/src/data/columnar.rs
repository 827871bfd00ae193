//! Rows of Parquet and Arrow files as JSON objects, a batch at a time.
//!
//! Columns of types that JSON lacks (dates, decimals, …) are carried as their text; a number that is
//! not finite becomes the text `NaN`, `Infinity` or `-Infinity`, so that nothing turns into null. Bytes are text where they
//! are UTF-8; where they are not, a column that Kudos reads has a problem, and any other gets them as a `data:` URL (RFC 2397).

use super::arrow::ArrowMessages;
use super::encoding::utf8;
use super::error::ProblemKind;
use super::jsonl::RawRow;
use super::record::Content;
use super::source::Bytes;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};
use std::cell::Cell;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

/// Rows decoded at once: the memory of a reader is a page of each column (of Arrow, a batch as it was written) and this many
/// rows.
const BATCH_ROWS: usize = 128;

/// What a decoder delivers.
pub type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// The rows of a file that stores its columns one by one.
pub(super) struct Columnar {
    /// What the file is, for errors: `a Parquet file`.
    pub expected: &'static str,
    batches: Batches,
    names: Vec<String>,
    /// For each column, whether its bytes must be text.
    held: Vec<bool>,
    /// The batch as it was decoded, and how many of its rows are in `columns` or were before.
    batch: Option<RecordBatch>,
    taken: usize,
    columns: Vec<ArrayRef>,
    /// Next row of the columns, and of the file (from 1).
    next: usize,
    length: usize,
    row: u64,
}

impl Columnar {
    /// Reads the footer of a Parquet file; the error is the decoder's words.
    pub fn parquet(file: File) -> Result<Self, String> {
        let batches = guarded(|| {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
            builder.with_batch_size(BATCH_ROWS).build()
        })?;
        let schema = arrow_array::RecordBatchReader::schema(&batches);
        Ok(Self::new("a Parquet file", Box::new(batches), &schema))
    }

    /// The rows of a Parquet file from row `first` (from 0) on, at most so many. Row groups without any of them are not read.
    pub fn parquet_rows(file: File, first: u64, rows: u64) -> Result<Self, String> {
        let batches = guarded(|| {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
            let (mut groups, mut before, mut at) = (Vec::new(), 0, 0);
            for (index, group) in builder.metadata().row_groups().iter().enumerate() {
                let next = at + group.num_rows().max(0) as u64;
                if next <= first {
                    before = next;
                } else if at < first.saturating_add(rows) {
                    groups.push(index);
                }
                at = next;
            }
            let builder = builder.with_row_groups(groups).with_batch_size(BATCH_ROWS);
            builder.with_offset((first - before) as usize).with_limit(rows as usize).build()
        })?;
        let schema = arrow_array::RecordBatchReader::schema(&batches);
        Ok(Columnar { row: first, ..Self::new("a Parquet file", Box::new(batches), &schema) })
    }

    /// Reads the schema of an Arrow stream or file; the error is the decoder's words.
    pub fn arrow(input: Bytes) -> Result<Self, String> {
        let (messages, schema) = guarded(|| ArrowMessages::open(input))?;
        Ok(Self::new("an Arrow file", Box::new(messages), &schema))
    }

    /// Batches from elsewhere than a file.
    pub fn batches(batches: Batches, schema: &Schema) -> Self {
        Self::new("Arrow data", batches, schema)
    }

    fn new(expected: &'static str, batches: Batches, schema: &Schema) -> Self {
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let held = vec![true; names.len()];
        let (columns, batch) = (Vec::new(), None);
        Columnar { expected, batches, names, held, batch, taken: 0, columns, next: 0, length: 0, row: 0 }
    }

    /// The column names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Says which columns must hold text where they hold bytes: all of them, until this is called.
    pub fn hold(&mut self, held: impl Fn(&str) -> bool) {
        self.held = self.names.iter().map(|name| held(name)).collect();
    }

    /// Row reached, from 1.
    pub fn row(&self) -> u64 {
        self.row.max(1)
    }

    pub fn next(&mut self) -> Result<Option<RawRow>, String> {
        while self.next == self.length {
            if !self.advance()? {
                return Ok(None);
            }
        }
        self.row += 1;
        let fields = self.names.iter().zip(&self.columns).zip(&self.held).map(|((name, column), held)| {
            let text = if *held { text } else { text_or_url };
            let value = value_at(column, self.next, text).map_err(|problem| problem.in_column(name))?;
            Ok((name.clone(), value))
        });
        let row = fields.collect::<Result<Map<_, _>, ProblemKind>>();
        self.next += 1;
        Ok(Some((self.row, row)))
    }
}

impl Columnar {
    /// Converts the next rows of the batch, or takes the next batch; false at the end of the file.
    fn advance(&mut self) -> Result<bool, String> {
        (self.next, self.length) = (0, 0);
        let Some(batch) = self.batch.as_ref().filter(|batch| self.taken < batch.num_rows()) else {
            self.batch = guarded(|| self.batches.next().transpose())?;
            self.taken = 0;
            return Ok(self.batch.is_some());
        };
        let length = BATCH_ROWS.min(batch.num_rows() - self.taken);
        self.columns = guarded(|| plain_columns(&batch.slice(self.taken, length)))?;
        self.taken += length;
        self.length = length;
        Ok(true)
    }
}

/// The contents of a column of any type that a data file may have: texts, or messages; and of each row that is neither, what
/// is wrong with it. `name` is what the column is called there.
///
/// # Errors
/// The decoder's words, if the column cannot be decoded.
pub fn contents(column: &ArrayRef, name: &str) -> Result<Vec<Result<Content, ProblemKind>>, String> {
    let plain = guarded(|| plain(column))?;
    let content = |at| Content::from_json(&value_at(&plain, at, text).map_err(|p| p.in_column(name))?, name);
    Ok((0..plain.len()).map(content).collect())
}

thread_local! {
    /// True while this thread runs the decoder: what it says when it panics is not for the user.
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a decoder. On a corrupt file it may panic instead of returning an error (fuzzing finds such
/// files within seconds), and a data file must never end the program or print a backtrace.
pub(super) fn guarded<T, E: std::fmt::Display>(decode: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    static QUIET_HOOK: Once = Once::new();
    QUIET_HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !DECODING.get() {
                others(panic);
            }
        }));
    });
    let outer = DECODING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(decode));
    DECODING.set(outer);
    match result {
        Ok(result) => result.map_err(|e| e.to_string().replace('\n', " ")),
        Err(_) => Err("data that the decoder cannot follow".to_owned()),
    }
}

fn plain_columns(batch: &RecordBatch) -> Result<Vec<ArrayRef>, ArrowError> {
    batch.columns().iter().map(plain).collect()
}

/// Casts to one of the few types that [`value_at`] knows.
fn plain(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let target = plain_type(column.data_type());
    if *column.data_type() == target { Ok(column.clone()) } else { cast(column, &target) }
}

fn plain_type(found: &DataType) -> DataType {
    use DataType::*;
    let inner = |field: &Field| Arc::new(field.clone().with_data_type(plain_type(field.data_type())));
    match found {
        Null | Boolean => found.clone(),
        Int8 | Int16 | Int32 | Int64 => Int64,
        UInt8 | UInt16 | UInt32 | UInt64 => UInt64,
        Float16 | Float32 | Float64 => Float64,
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => LargeBinary,
        Dictionary(_, values) => plain_type(values),
        List(field) | LargeList(field) | FixedSizeList(field, _) | ListView(field) | LargeListView(field) => {
            LargeList(inner(field))
        }
        Struct(fields) => Struct(fields.iter().map(|field| inner(field)).collect()),
        _ => LargeUtf8,
    }
}

/// How bytes become a value.
type OfBytes = fn(&[u8]) -> Result<Value, ProblemKind>;

fn value_at(column: &ArrayRef, at: usize, of_bytes: OfBytes) -> Result<Value, ProblemKind> {
    if column.is_null(at) {
        return Ok(Value::Null);
    }
    Ok(match column.data_type() {
        DataType::Boolean => column.as_boolean().value(at).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(at).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(at).into(),
        DataType::Float64 => number(column.as_primitive::<Float64Type>().value(at)),
        DataType::LargeUtf8 => column.as_string::<i64>().value(at).into(),
        DataType::LargeBinary => of_bytes(column.as_binary::<i64>().value(at))?,
        DataType::LargeList(_) => {
            let items = column.as_list::<i64>().value(at);
            Value::Array((0..items.len()).map(|i| value_at(&items, i, of_bytes)).collect::<Result<_, _>>()?)
        }
        DataType::Struct(fields) => {
            let members = column.as_struct().columns();
            let entry =
                |(field, member): (&Arc<Field>, &ArrayRef)| Ok((field.name().clone(), value_at(member, at, of_bytes)?));
            Value::Object(fields.iter().zip(members).map(entry).collect::<Result<_, ProblemKind>>()?)
        }
        _ => Value::Null,
    })
}

/// Parquet written without a logical type calls its text "bytes".
fn text(bytes: &[u8]) -> Result<Value, ProblemKind> {
    utf8(bytes, String::new).map(Value::from)
}

/// The same, and a URL of what is no text.
fn text_or_url(bytes: &[u8]) -> Result<Value, ProblemKind> {
    Ok(text(bytes).unwrap_or_else(|_| format!("data:;base64,{}", base64(bytes)).into()))
}

/// RFC 4648, §4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        let sextet = move |at: u32| char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize]);
        let length = chunk.len() as u32;
        (0..4).map(move |at| if at <= length { sextet(at) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// A JSON number, or the text of one that JSON cannot write.
fn number(value: f64) -> Value {
    let name = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    serde_json::Number::from_f64(value).map_or_else(|| name.into(), Value::Number)
}

impl ProblemKind {
    fn in_column(self, column: &str) -> Self {
        match self {
            ProblemKind::NotUtf8 { byte, .. } => ProblemKind::NotUtf8 { byte, place: format!("column `{column}`") },
            ProblemKind::HalfCharacter { byte, .. } => {
                ProblemKind::HalfCharacter { byte, place: format!("column `{column}`") }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataError, Options, Reader};
    use arrow_array::types::{Float16Type, Int32Type};
    use arrow_array::*;
    use arrow_ipc::CompressionType;
    use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
    use parquet::arrow::ArrowWriter;
    use serde_json::json;

    fn file(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    fn texts(texts: [&str; 2]) -> ArrayRef {
        Arc::new(StringArray::from(texts.to_vec()))
    }

    fn open(columns: Vec<(&str, ArrayRef)>) -> Result<Reader, DataError> {
        Reader::from_bytes("f", file(columns), &Options::default())
    }

    #[test]
    fn values_of_every_type() {
        let dictionary: DictionaryArray<Int32Type> = ["x", "y"].into_iter().collect();
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
        let half =
            Float16Array::from_iter_values([0.5, 2.0].map(<Float16Type as ArrowPrimitiveType>::Native::from_f64));
        let cases: Vec<(ArrayRef, Value)> = vec![
            (Arc::new(Int8Array::from(vec![-1, 2])), json!([-1, 2])),
            (Arc::new(UInt64Array::from(vec![u64::MAX, 2])), json!([u64::MAX, 2])),
            (Arc::new(Float64Array::from(vec![f64::NAN, f64::NEG_INFINITY])), json!(["NaN", "-Infinity"])),
            (Arc::new(half), json!([0.5, 2.0])),
            (Arc::new(BooleanArray::from(vec![Some(true), None])), json!([true, null])),
            (Arc::new(StringViewArray::from(vec!["x", "é"])), json!(["x", "é"])),
            (Arc::new(BinaryArray::from(vec![&b"x"[..], b"y"])), json!(["x", "y"])),
            (Arc::new(dictionary), json!(["x", "y"])),
            (Arc::new(list), json!([[1, null], null])),
            (Arc::new(Date32Array::from(vec![0, 1])), json!(["1970-01-01", "1970-01-02"])),
            (Arc::new(Decimal128Array::from(vec![150, 25])), json!(["0.0000000150", "0.0000000025"])),
        ];
        for (column, expected) in cases {
            let columns = vec![("prompt", texts(["p", "p"])), ("answer", texts(["a", "b"])), ("x", column)];
            let rows: Vec<Value> = open(columns).unwrap().map(|row| row.unwrap().original["x"].clone()).collect();
            assert_eq!(Value::Array(rows), expected);
        }
    }

    #[test]
    fn columns_of_other_types_are_reported() {
        let columns: [ArrayRef; 3] = [
            Arc::new(Int32Array::from(vec![1, 2])),
            Arc::new(BinaryArray::from(vec![&b"\xff"[..], b"\xff"])),
            Arc::new(StringArray::from(vec![None::<&str>, None])),
        ];
        for (column, expected) in columns.into_iter().zip(["wrong_type", "not_utf8", "empty"]) {
            let rows = open(vec![("prompt", texts(["p", "p"])), ("answer", column)]).unwrap();
            let found: Vec<_> = rows.map(|row| row.unwrap_err()).collect();
            assert_eq!(found.len(), 2);
            for (at, error) in found.iter().enumerate() {
                let DataError::Row(problem) = error else { panic!("{error}") };
                assert_eq!((problem.location.line, problem.kind.name()), (at as u64 + 1, expected));
            }
        }
        let error = open(vec![("prompt", texts(["p", "p"]))]).err().unwrap();
        assert!(matches!(error, DataError::Columns { .. }), "{error}");
    }

    /// A table in memory is read as the file that holds it, and a column as it is in the table.
    #[test]
    fn batches_and_columns_read_as_files_do() {
        let batch = RecordBatch::try_from_iter(sample()).unwrap();
        let parts: Vec<Result<RecordBatch, ArrowError>> = (0..2).map(|row| Ok(batch.slice(row, 1))).collect();
        let reader =
            Reader::from_batches("t", &batch.schema(), Box::new(parts.into_iter()), &Options::default()).unwrap();
        let found: Vec<_> = reader.map(|row| row.unwrap()).collect();
        let expected = rows(file(sample())).unwrap();
        assert_eq!(found.iter().map(|row| row.original.clone()).collect::<Vec<_>>(), expected);
        assert_eq!(found[1].location.to_string(), "t:2");
        let kinds: ArrayRef = batch.column(2).clone();
        let texts: Vec<Content> = contents(&kinds, "kind").unwrap().into_iter().map(Result::unwrap).collect();
        assert_eq!(texts, [Content::Text("x".into()), Content::Text("x".into())]);
        let numbers = contents(batch.column(3), "n").unwrap();
        assert!(numbers[0].as_ref().unwrap_err().to_string().contains("found the number 7"), "{numbers:?}");
        let none: Vec<Result<RecordBatch, ArrowError>> = Vec::new();
        let schema = batch.schema();
        let mut empty = Reader::from_batches("t", &schema, Box::new(none.into_iter()), &Options::default()).unwrap();
        assert!(empty.next().unwrap().unwrap_err().to_string().contains("found columns and no rows"));
    }

    #[test]
    fn bytes_of_an_extra_column_do_not_cost_the_row() {
        let image: ArrayRef = Arc::new(BinaryArray::from(vec![&b"\xff\xd8\xff"[..], b"text"]));
        let columns = vec![("prompt", texts(["p", "p"])), ("answer", texts(["a", "b"])), ("image", image)];
        let found: Vec<Value> = open(columns).unwrap().map(|row| row.unwrap().original["image"].clone()).collect();
        assert_eq!(found, [json!("data:;base64,/9j/"), json!("text")]);
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        cases.iter().for_each(|(bytes, expected)| assert_eq!(base64(bytes.as_bytes()), *expected)); // RFC 4648, §10
    }

    #[test]
    fn a_panic_of_the_decoder_is_an_error() {
        let caught = guarded(|| -> Result<(), String> { panic!("as on some corrupt files") });
        assert_eq!(caught, Err("data that the decoder cannot follow".to_owned()));
        assert!(!DECODING.get());
    }

    /// The columns as an Arrow stream or file, in batches of one row.
    fn ipc(columns: Vec<(&str, ArrayRef)>, as_file: bool, compression: Option<CompressionType>) -> Vec<u8> {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let rows = (0..batch.num_rows()).map(|row| batch.slice(row, 1));
        if as_file {
            let mut writer = FileWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
            rows.for_each(|row| writer.write(&row).unwrap());
            writer.into_inner().unwrap()
        } else {
            let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
            rows.for_each(|row| writer.write(&row).unwrap());
            writer.into_inner().unwrap()
        }
    }

    fn sample() -> Vec<(&'static str, ArrayRef)> {
        let dictionary: DictionaryArray<Int32Type> = ["x", "x"].into_iter().collect();
        let long = "long enough to be worth the compression, ".repeat(9);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
        vec![
            ("prompt", texts(["p", "q"])),
            ("answer", texts([&long, "b"])),
            ("kind", Arc::new(dictionary)),
            ("n", numbers),
        ]
    }

    fn rows(bytes: Vec<u8>) -> Result<Vec<Map<String, Value>>, DataError> {
        Reader::from_bytes("f", bytes, &Options::default())?.map(|row| row.map(|row| row.original)).collect()
    }

    #[test]
    fn arrow_reads_as_parquet_does() {
        let expected = rows(file(sample())).unwrap();
        assert_eq!(expected.len(), 2);
        for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
            for as_file in [false, true] {
                assert_eq!(rows(ipc(sample(), as_file, compression)).unwrap(), expected, "{compression:?} {as_file}");
            }
        }
        let none: Vec<(&str, ArrayRef)> = vec![("prompt", texts(["p", "p"])), ("answer", texts(["a", "b"]))];
        let batch = RecordBatch::try_from_iter(none).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.finish().unwrap();
        let error = rows(writer.into_inner().unwrap()).unwrap_err();
        assert!(error.to_string().contains("found columns and no rows"), "{error}");
    }

    /// A writer that was killed leaves whole batches and no end; a second stream behind the first would be lost in silence.
    #[test]
    fn arrow_must_end_where_it_says() {
        let (stream, whole) = (ipc(sample(), false, None), ipc(sample(), true, None));
        let cases: [(Vec<u8>, &str); 4] = [
            (stream[..stream.len() - 8].to_vec(), "its end too early"),
            ([stream.clone(), stream.clone()].concat(), "more bytes after the end of the stream"),
            (whole[..whole.len() - 6].to_vec(), "no footer at its end"),
            (stream[..6].to_vec(), "its end too early"),
        ];
        for (bytes, expected) in cases {
            let error = rows(bytes).unwrap_err().to_string();
            assert!(error.contains("expected an Arrow file") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn damaged_arrow_files_are_errors() {
        for (as_file, compression) in
            [(false, None), (true, Some(CompressionType::LZ4_FRAME)), (false, Some(CompressionType::ZSTD))]
        {
            let sound = ipc(sample(), as_file, compression);
            for at in 4..sound.len() {
                for flip in [0x55, 0x80] {
                    let mut bytes = sound.clone();
                    bytes[at] ^= flip;
                    let _ = Reader::from_bytes("f", bytes, &Options::default()).map(|rows| rows.take(9).for_each(drop));
                }
                assert!(rows(sound[..at].to_vec()).is_err(), "{at}");
            }
        }
    }

    #[test]
    fn damaged_files_are_errors() {
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None]));
        let sound = file(vec![("prompt", texts(["p", "p"])), ("answer", texts(["a", "b"])), ("flag", flags)]);
        for at in 4..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x55;
            if let Ok(reader) = Reader::from_bytes("f", bytes, &Options::default()) {
                reader.for_each(drop);
            }
            let _ = Reader::from_bytes("f", sound[..at].to_vec(), &Options::default()).map(|rows| rows.for_each(drop));
        }
    }
}
