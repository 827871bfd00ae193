//! One file of a table that is written in parts: a Parquet file that knows what it is a part of, and whether it is whole.
//!
//! Its footer holds what its writer says of it, and the length and SHA-256 of all bytes before the footer. So a file that was
//! cut short, or whose bytes were changed, is recognised without another file beside it.

use super::columnar::{Columnar, guarded};
use super::schema::Schema;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What its writer says of it.
const FACTS: &str = "kudos.part";
/// Length and hash of the bytes before the footer.
const DATA: &str = "kudos.data";

/// A part that is whole.
pub struct Part {
    file: File,
    /// What its writer says of it.
    pub facts: String,
}

/// Why there is no whole part.
#[derive(Debug, thiserror::Error)]
pub enum PartFault {
    /// There is none.
    #[error("it is not there")]
    Missing,
    /// It was cut short, or changed.
    #[error("{0}")]
    Damaged(String),
    /// The system does not deliver it.
    #[error(transparent)]
    Read(#[from] io::Error),
}

/// The bytes of a part: rows of a settled schema. The same rows and facts give the same bytes.
///
/// # Errors
/// If a row does not fit the schema.
pub fn part_bytes(schema: &Schema, rows: &[Map<String, Value>], facts: &str) -> io::Result<Vec<u8>> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.arrow(), Some(properties))?;
    writer.write(&schema.batch(rows).map_err(io::Error::other)?)?;
    writer.flush()?;
    writer.sync()?;
    let data = format!("{} {}", writer.inner().len(), hex(&Sha256::digest(writer.inner())));
    writer.append_key_value_metadata(KeyValue::new(FACTS.to_owned(), facts.to_owned()));
    writer.append_key_value_metadata(KeyValue::new(DATA.to_owned(), data));
    Ok(writer.into_inner()?)
}

impl Part {
    /// Opens a part and reads all of it, to see that it is whole.
    ///
    /// # Errors
    /// If it is missing or not whole.
    pub fn open(path: &Path) -> Result<Part, PartFault> {
        let file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => PartFault::Missing,
            _ => PartFault::Read(error),
        })?;
        let footer =
            guarded(|| ParquetRecordBatchReaderBuilder::try_new(file.try_clone()?)).map_err(PartFault::Damaged)?;
        let pairs = footer.metadata().file_metadata().key_value_metadata();
        let value = |key: &str| pairs?.iter().find(|pair| pair.key == key)?.value.clone();
        let (Some(facts), Some(data)) = (value(FACTS), value(DATA)) else {
            return Err(PartFault::Damaged("it was not written by kudos score --shard".to_owned()));
        };
        match hash_of_start(path, &data)? {
            true => Ok(Part { file, facts }),
            false => Err(PartFault::Damaged("its bytes are not those that were written".to_owned())),
        }
    }

    /// Its rows, as they were written.
    ///
    /// # Errors
    /// Each row the decoder's words, if it cannot go on.
    pub fn rows(self, schema: &Schema) -> Result<impl Iterator<Item = Result<Map<String, Value>, String>>, String> {
        let mut columnar = Columnar::parquet(self.file)?;
        if !columnar.names().iter().map(String::as_str).eq(schema.titles()) {
            return Err("it has other columns than its job".to_owned());
        }
        Ok(std::iter::from_fn(move || match columnar.next() {
            Ok(None) => None,
            Ok(Some((_, Ok(row)))) => Some(Ok(schema.restore(row))),
            Ok(Some((_, Err(problem)))) => Some(Err(problem.to_string())),
            Err(error) => Some(Err(error)),
        }))
    }
}

/// Whether the first bytes of the file are as many as `data` says, and have that hash.
fn hash_of_start(path: &Path, data: &str) -> io::Result<bool> {
    let Some((length, expected)) = data.split_once(' ').and_then(|(length, hash)| Some((length.parse().ok()?, hash)))
    else {
        return Ok(false);
    };
    let mut bytes = Vec::new();
    File::open(path)?.take(length).read_to_end(&mut bytes)?;
    Ok(bytes.len() as u64 == length && hex(&Sha256::digest(&bytes)) == expected)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Rows of which no Parquet column could hold all, and the schema that does.
    fn sample() -> (Vec<Map<String, Value>>, Schema) {
        let big = serde_json::from_str::<Value>(r#"{"n": 18446744073709551615}"#).unwrap();
        let rows = json!([
            {"id": 1, "mixed": [1, "x"], "null": null, "text": "a\r\n\u{0}é", "score": -0.10000000149011612},
            {"id": 2, "mixed": "x", "null": "y", "late": {"a": [true]}, "score": 3.0, "big": big["n"]},
            {"id": 3, "mixed": 7, "null": null, "nan": "NaN", "score": 1e-30, "empty": {}},
        ]);
        let rows: Vec<_> = rows.as_array().unwrap().iter().map(|row| row.as_object().unwrap().clone()).collect();
        let mut schema = Schema::default();
        rows.iter().for_each(|row| schema.meet(row));
        schema.settle();
        (rows, schema)
    }

    fn read(path: &Path, schema: &Schema) -> Result<Vec<Map<String, Value>>, String> {
        let part = Part::open(path).map_err(|fault| fault.to_string())?;
        part.rows(schema)?.collect()
    }

    #[test]
    fn rows_come_back_as_they_were() {
        let (rows, schema) = sample();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("part");
        let bytes = part_bytes(&schema, &rows, "facts").unwrap();
        assert_eq!(bytes, part_bytes(&schema, &rows, "facts").unwrap());
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Part::open(&path).unwrap().facts, "facts");
        assert_eq!(read(&path, &schema).unwrap(), rows);
        std::fs::write(&path, part_bytes(&schema, &[], "none").unwrap()).unwrap();
        assert_eq!(read(&path, &schema).unwrap(), [], "a part may have no rows");
    }

    /// Each byte in turn is changed, and each length tried: no other rows are ever read.
    #[test]
    fn what_is_not_whole_is_recognised() {
        let (rows, schema) = sample();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("part");
        let sound = part_bytes(&schema, &rows, "facts").unwrap();
        let mut refused = 0;
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x55;
            std::fs::write(&path, &bytes).unwrap();
            match read(&path, &schema) {
                Err(_) => refused += 1,
                Ok(found) => assert_eq!(found, rows, "byte {at}"),
            }
            std::fs::write(&path, &sound[..at]).unwrap();
            assert!(Part::open(&path).is_err(), "{at} bytes");
        }
        assert!(refused > sound.len() / 3, "{refused} of {}", sound.len());
        assert!(matches!(Part::open(&directory.path().join("none")), Err(PartFault::Missing)));
    }
}
