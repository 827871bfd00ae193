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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{Limits, Plan, plan};
    use std::io::Write;

    type Read = Vec<Result<(u64, String), String>>;

    fn shown(row: Result<Row, RowProblem>) -> Result<(u64, String), String> {
        row.map(|row| (row.location.line, to_json(&row.original))).map_err(|problem| problem.to_string())
    }

    /// All rows, as one reading of the file gives them.
    fn whole(path: &Path, options: &Options) -> Read {
        let rows = Reader::open(path, options).unwrap().map(|row| match row {
            Err(DataError::Row(problem)) => Err(problem),
            row => Ok(row.unwrap()),
        });
        rows.map(shown).collect()
    }

    fn planned(path: &Path, options: &Options, responses: u64) -> Plan {
        let limits = Limits { responses, bytes: 1 << 20 };
        plan(&[path.to_owned()], options, limits, |_| 1, |_| Ok::<_, ShardError>(())).unwrap()
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn parquet(lines: &[u8]) -> Vec<u8> {
        use arrow_array::{RecordBatch, StringArray};
        use parquet::file::properties::WriterProperties;
        let count = lines.iter().filter(|byte| **byte == b'\n').count();
        let column =
            |name: &str| std::sync::Arc::new((0..count).map(|n| Some(format!("{name} {n}"))).collect::<StringArray>());
        let batch = RecordBatch::try_from_iter([("prompt", column("p") as _), ("response", column("r") as _)]).unwrap();
        let groups = WriterProperties::builder().set_max_row_group_row_count(Some(7)).build();
        let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), Some(groups)).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    /// Texts whose rows are found again only if lines, bytes and what earlier rows decide are all right.
    fn files() -> Vec<(&'static str, Vec<u8>)> {
        let lines: String =
            (0..40).map(|n| format!("{{\"prompt\":\"p {n}\",\"response\":\"{}\"}}\n", "é".repeat(n % 7 + 1))).collect();
        let broken = lines.replace("\"p 0\"", "broken").replace("\"p 1\"", "broken").replace("\"p 20\"", "broken");
        let table: String = (0..40).map(|n| format!("{n},\"p\r\n{n}\",\"r, \"\"{n}\"\"\"\r\n")).collect();
        let table = format!("id,prompt,response\r\n{table}");
        let latin: Vec<u8> =
            table.replace("r, ", "r\u{1}").bytes().map(|byte| if byte == 1 { 0xe9 } else { byte }).collect();
        let array = format!("[{}]", lines.trim_end().replace('\n', ",\n"));
        vec![
            ("lines", lines.clone().into_bytes()),
            ("no line's end", lines.trim_end().to_owned().into_bytes()),
            ("crlf, blank lines, a mark", format!("\u{feff}\n \n{}\n\n", lines.replace('\n', "\r\n\r\n")).into_bytes()),
            ("first rows broken", broken.into_bytes()),
            ("keys come and go", lines.replace("\"p 3", "\"p\",\"late\":\"3").into_bytes()),
            ("table", table.clone().into_bytes()),
            ("lone carriage returns", table.replace("\r\n", "\r").into_bytes()),
            (
                "line feeds, blank lines",
                format!("\n\n{}\n", table.replace("\r\n", "\n")).replace("\n7,", "\n\n\n7,").into_bytes(),
            ),
            ("a separator is named", format!("sep=,\r\n{table}").into_bytes()),
            ("ragged", table.replace("\r\n9,", "\r\n9,9,9,").into_bytes()),
            ("windows-1252", latin),
            ("array", array.clone().into_bytes()),
            ("compressed", gzip(lines.as_bytes())),
            (
                "utf-16",
                [&b"\xff\xfe"[..], &lines.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()].concat(),
            ),
            ("parquet", parquet(lines.as_bytes())),
            ("document", format!("{{\"data\": {array}}}").into_bytes()),
        ]
    }

    #[test]
    fn units_are_the_rows_of_the_file_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files() {
            let (path, options) = (dir.path().join("f"), Options { labelled: false, ..Options::default() });
            std::fs::write(&path, bytes).unwrap();
            let expected = whole(&path, &options);
            for responses in [1, 3, 16, 1000] {
                let plan = planned(&path, &options, responses);
                assert!(responses > 40 || plan.units.len() as u64 >= 40 / responses, "{name}");
                let orders: [Vec<usize>; 2] = [(0..plan.units.len()).collect(), (0..plan.units.len()).rev().collect()];
                for order in orders {
                    let mut reader = UnitReader::new(vec![path.clone()], options.clone());
                    let mut found: Vec<Read> = vec![Vec::new(); plan.units.len()];
                    for unit in order {
                        let take = |row| {
                            found[unit].push(shown(row));
                            Ok::<_, ShardError>(())
                        };
                        reader
                            .read(&plan.units[unit], take)
                            .unwrap_or_else(|e| panic!("{name} {responses} {unit}: {e}"));
                    }
                    assert_eq!(found.concat(), expected, "{name} {responses}");
                }
            }
        }
    }

    #[test]
    fn changed_rows_are_seen_in_their_unit_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, options) = (dir.path().join("f"), Options::default());
        let lines = |word: &str| {
            (0..9)
                .map(|n| format!("{{\"prompt\":\"{}\",\"response\":\"r\"}}\n", if n == 4 { word } else { "p" }))
                .collect::<String>()
        };
        std::fs::write(&path, lines("a")).unwrap();
        let plan = planned(&path, &options, 3);
        std::fs::write(&path, lines("b")).unwrap();
        let mut reader = UnitReader::new(vec![path.clone()], options);
        let mut read = |unit: &Unit| reader.read(unit, |_| Ok::<_, ShardError>(())).map_err(|e| e.to_string());
        assert_eq!((read(&plan.units[0]), read(&plan.units[2])), (Ok(()), Ok(())));
        let error = read(&plan.units[1]).unwrap_err();
        assert!(error.contains("found others from row 4 on: the file was changed"), "{error}");
        std::fs::write(&path, &lines("a")[..90]).unwrap();
        assert!(read(&plan.units[1]).is_err());
    }
}
