//! One small table as pandas, pyarrow, datasets, openpyxl and XlsxWriter write it, and workbooks with odd cells.
//!
//! `golden/make_data_fixtures.py` makes the files. What is in them must be read as it is, from a path, from a pipe and compressed.

use kudos::data::{Options, Reader};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data")
}

fn path(name: &str) -> PathBuf {
    folder().join(name)
}

/// The rows that stand in every file whose name begins with `same_`.
fn rows() -> Vec<Value> {
    let cafe = "What is a café?";
    let prime = "Name a prime, please";
    vec![
        json!([cafe, "A place for coffee; tea, too.", 1.0]),
        json!([cafe, "A “bean” shop\nwith chairs", 2.0]),
        json!([prime, "7", 1.0]),
        json!([prime, "€9 is one\tor not", 2.0]),
    ]
}

/// The rows of a reader: prompt, answer and rank, or the place and the problem; and its notes.
fn read(reader: Reader) -> (Vec<Value>, Vec<String>) {
    let mut reader = reader;
    let mut found = Vec::new();
    for row in reader.by_ref() {
        found.push(match row {
            Ok(row) => json!([row.original["prompt"], row.original["answer"], row.original["rank"].as_f64()]),
            Err(error) => error.to_string().split("; correct the row").next().into(),
        });
    }
    (found, reader.notes().to_vec())
}

/// What the reader says of a file, or the error that it ends with.
fn open(name: &str) -> Result<(Vec<Value>, Vec<String>), String> {
    Reader::open(path(name), &Options::default()).map(read).map_err(|error| error.to_string())
}

fn names_of(start: &str) -> Vec<String> {
    let names = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(start)).collect();
    names.sort();
    names
}

#[test]
fn the_same_table_in_every_format() {
    let names = names_of("same_");
    assert_eq!(names.len(), 38, "{names:?}");
    for name in names {
        let (found, notes) = open(&name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found, rows(), "{name}");
        let said = match &*name {
            name if name.contains("cp1252") => "read as Windows-1252",
            "same_wrapped.json" | "same_table.json" | "same_table_indented.json" => "the rows are the list `data`",
            "same_columns.json" | "same_list.json" => "a JSON table stored by column",
            "same_served.json" => "an answer of the datasets server",
            "same_side_by_side.json" => "one JSON object a row",
            "same_split.json" => "a JSON table with its `columns`",
            _ => "",
        };
        assert!(notes.iter().any(|note| note.contains(said)) || said.is_empty(), "{name}: {notes:?}");
        assert!(!said.is_empty() || notes.is_empty() || name.contains(".json"), "{name}: {notes:?}");
    }
}

#[test]
fn the_same_through_a_pipe_and_compressed() {
    for name in names_of("same_") {
        let bytes = std::fs::read(path(&name)).unwrap();
        let piped = Reader::from_read(&name, File::open(path(&name)).unwrap(), &Options::default()).unwrap();
        assert_eq!(read(piped).0, rows(), "{name}");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).unwrap();
        let packed = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(packed.path(), gzip.finish().unwrap()).unwrap();
        let unpacked = Reader::open(packed.path(), &Options::default()).unwrap();
        assert_eq!(read(unpacked).0, rows(), "{name}");
    }
}

#[test]
fn cells_without_a_value_cost_their_rows() {
    let (found, notes) = open("odd_cells.xlsx").unwrap();
    let expected = [
        json!(["merged", "first", 1.0]),
        json!(["", "second", 2.0]),
        json!("odd_cells.xlsx:4: cell B4: expected a value, found the error #N/A"),
        json!(
            "odd_cells.xlsx:5: cell B5: expected a value, found a formula without a stored value: open and save the file in \
             the spreadsheet program"
        ),
        json!(["stray", "answer", 1.0]),
    ];
    let found: Vec<Value> = found
        .into_iter()
        .map(|row| {
            row.as_str().and_then(|text| text.split("fixtures/data/").nth(1)).map_or(row.clone(), |text| text.into())
        })
        .collect();
    assert_eq!(found, expected);
    assert_eq!(
        notes,
        [
            "read the sheet \"Ratings\", and not the hidden \"Lists\", \"Notes\"",
            "column H has no header and is left out",
            "blank prompts are read as the prompt above them (merged cells)"
        ]
    );
    let mut reader = Reader::open(path("odd_cells.xlsx"), &Options::default()).unwrap();
    let others = |row: kudos::data::Row| json!([row.original["when"], row.original["share"], row.original["checked"]]);
    assert_eq!(others(reader.next().unwrap().unwrap()), json!(["2024-05-01", "0.5", "true"]));
    assert_eq!(others(reader.next().unwrap().unwrap()), json!(["2024-05-01T13:30:00", "0.25", "false"]));

    let (found, _) = open("formulas_xlsxwriter.xlsx").unwrap();
    assert!(found[0].as_str().unwrap().contains("cell C2: expected a value, found a formula without"), "{found:?}");
}

#[test]
fn what_is_not_read_is_named() {
    let cases = [
        ("encrypted.xlsx", "an encrypted workbook; open it in the spreadsheet program and save it without a password"),
        ("old.xls", "a workbook of the old format (.xls); save it as .xlsx or CSV"),
        ("open_document.ods", "an OpenDocument file (.ods); save it as .xlsx or CSV"),
    ];
    for (name, expected) in cases {
        let error = open(name).unwrap_err();
        assert!(error.contains(&format!("found {expected}")), "{error}");
    }
}

/// Rows without end, in a separator and an encoding: memory must not follow them.
struct Endless {
    row: Vec<u8>,
    at: usize,
    left: usize,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(self.left).min(self.row.len() - self.at);
        buffer[..count].copy_from_slice(&self.row[self.at..self.at + count]);
        self.at = (self.at + count) % self.row.len();
        self.left -= count;
        Ok(count)
    }
}

/// The most memory that the process has had, in MB.
#[cfg(target_os = "linux")]
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() >> 10
}

#[test]
#[cfg(target_os = "linux")]
fn streams_of_200_megabytes_do_not_fill_memory() {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let text = "how are you, today; or ever? ".repeat(40);
    let cases = [
        ("prompt;answer\n".into(), format!("\"{text}\";{}\n", text.replace(';', ".")).into_bytes()),
        ([b"\xff\xfe", &utf16("prompt\tanswer\n")[..]].concat(), utf16(&format!("{text}\t{text}\n"))),
        (
            [b"\xff\xfe", &utf16("\n")[..]].concat(),
            utf16(&format!("{{\"prompt\":\"{text}\",\"answer\":\"{text}\"}}\n")),
        ),
        (
            b"prompt,answer\n\xe9,b\n".to_vec(),
            [b"\x93p\x94,caf\xe9", text.replace(',', ".").as_bytes(), b"\n"].concat(),
        ),
    ];
    for (start, row) in cases {
        let size = row.len() * (200_000_000 / row.len());
        let input = std::io::Cursor::new(start).chain(Endless { row, at: 0, left: size });
        let before = peak();
        let rows = Reader::from_read("f", input, &Options::default()).unwrap();
        assert!(rows.map(|row| row.unwrap().location.line).max().unwrap() > 40_000);
        assert!(peak() < before + 50, "{before} MB, then {} MB", peak());
    }
}
