//! Rows of a workbook (.xlsx, .xlsm): the first visible sheet that has any, its first row as the header.
//!
//! Cells become the text that a CSV export would have, so that both are read alike. What has no value (an error, a formula that
//! no program has computed) is a problem of its row, and never an empty text. The sheet is read a row at a time; only the
//! texts that its cells share are held in memory. It is read here and not by a crate for spreadsheets: those hold the whole
//! sheet, trust the counts that it declares, and bring the formats of other programs.

mod cells;
mod package;
#[cfg(test)]
mod tests;
mod workbook;

use super::csv::TypeCell;
use super::error::ProblemKind;
use super::jsonl::RawRow;
use cells::{ERROR, NO_VALUE, RawCell};
pub(super) use package::WorkbookFault;
use package::{Xml, attribute};
use quick_xml::events::Event;
use serde_json::{Map, Value};
use std::fs::File;
use workbook::Workbook;

/// Columns that a sheet may have.
const MOST_COLUMNS: usize = 16_384;

/// The rows of a sheet under its header.
pub(super) struct Xlsx {
    workbook: Workbook,
    sheet: Xml,
    limit: usize,
    pub header: Vec<String>,
    pub header_line: u64,
    pub type_cell: TypeCell,
    /// Whether a cell without a value costs its row, for each column.
    held: Vec<bool>,
    /// Row reached.
    row: u64,
    notes: Vec<String>,
    /// What the notes have said once: that a column has no header, that one has formulas without values.
    said: Vec<String>,
}

/// One cell of a row that has something in it.
struct Cell {
    column: usize,
    content: Result<String, String>,
}

/// A row: its number and its cells.
type SheetRow = (u64, Vec<Cell>);

impl Xlsx {
    /// Finds the sheet and reads its header.
    pub fn open(file: File, limit: usize) -> Result<Xlsx, WorkbookFault> {
        let workbook = Workbook::open(file, limit)?;
        for at in 0..workbook.sheets.len() {
            if workbook.sheets[at].hidden {
                continue;
            }
            let (mut sheet, mut row) = (workbook.sheet(at)?, 0);
            if let Some((header_line, cells)) = next_row(&mut sheet, &workbook, &mut row, limit)? {
                let header = header(&cells)?;
                if let Some(other) = same_columns(&workbook, at, &header, limit)? {
                    let (name, other) = (&workbook.sheets[at].name, &workbook.sheets[other].name);
                    let found = format!(
                        "two visible sheets with the same columns, {name:?} and {other:?}, of which one is meant"
                    );
                    return Err(WorkbookFault::Damaged(found));
                }
                let notes = other_sheets(&workbook, at).into_iter().collect();
                let held = vec![true; header.len()];
                let type_cell: TypeCell = Box::new(|_, cell| cell.into());
                let said = Vec::new();
                return Ok(Xlsx { workbook, sheet, limit, header, header_line, type_cell, held, row, notes, said });
            }
        }
        Err(WorkbookFault::Empty)
    }

    /// Says which columns must have values: all of them, until this is called. In others, an error is its text.
    pub fn hold(&mut self, held: impl Fn(&str) -> bool) {
        self.held = self.header.iter().map(|name| held(name)).collect();
    }

    /// Row reached, from 1.
    pub fn row(&self) -> u64 {
        self.row.max(1)
    }

    /// What is to be said of the file since this was last called.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// The next row that is not blank.
    pub fn next(&mut self) -> Result<Option<RawRow>, WorkbookFault> {
        loop {
            let Some((row, cells)) = next_row(&mut self.sheet, &self.workbook, &mut self.row, self.limit)? else {
                return Ok(None);
            };
            let (named, unnamed): (Vec<Cell>, Vec<Cell>) =
                cells.into_iter().partition(|cell| self.is_named(cell.column));
            for cell in unnamed {
                let column = column_name(cell.column);
                self.say(format!("column {column} has no header and is left out"));
            }
            if !named.is_empty() {
                return Ok(Some((row, self.fields(row, named))));
            }
        }
    }

    fn is_named(&self, column: usize) -> bool {
        self.header.get(column).is_some_and(|name| !name.is_empty())
    }

    fn say(&mut self, note: String) {
        if !self.said.contains(&note) {
            self.said.push(note.clone());
            self.notes.push(note);
        }
    }

    fn fields(&mut self, row: u64, cells: Vec<Cell>) -> Result<Map<String, Value>, ProblemKind> {
        let mut texts = vec![String::new(); self.header.len()];
        let mut length = 0;
        for Cell { column, content } in cells {
            let text = match content {
                Ok(text) => text,
                Err(found) if self.held[column] => {
                    return Err(ProblemKind::BadCell { cell: format!("{}{row}", column_name(column)), found });
                }
                Err(found) if found == NO_VALUE => {
                    let name = &self.header[column];
                    self.say(format!("column `{name}` has formulas without a stored value, which are left empty"));
                    continue;
                }
                Err(found) => found.trim_start_matches(ERROR).to_owned(),
            };
            length += text.len();
            if length > self.limit {
                return Err(ProblemKind::TooLong { limit: self.limit });
            }
            texts[column] = text;
        }
        let named = self.header.iter().zip(texts).filter(|(name, _)| !name.is_empty());
        Ok(named.map(|(name, text)| (name.clone(), (self.type_cell)(name, text))).collect())
    }
}

/// The names of the columns, up to the last one that has a name.
fn header(cells: &[Cell]) -> Result<Vec<String>, WorkbookFault> {
    let mut header = Vec::new();
    for cell in cells {
        let name = cell.content.as_ref().map_err(|found| {
            let cell = column_name(cell.column);
            WorkbookFault::Damaged(format!("{found} in the header of column {cell}"))
        })?;
        header.resize(header.len().max(cell.column + 1), String::new());
        header[cell.column] = name.trim().to_owned();
    }
    while header.last().is_some_and(String::is_empty) {
        header.pop();
    }
    Ok(header)
}

/// A visible sheet after this one that has the same columns: it may be meant, too.
fn same_columns(workbook: &Workbook, at: usize, own: &[String], limit: usize) -> Result<Option<usize>, WorkbookFault> {
    for other in at + 1..workbook.sheets.len() {
        if workbook.sheets[other].hidden {
            continue;
        }
        let first = next_row(&mut workbook.sheet(other)?, workbook, &mut 0, limit)?;
        if first.is_some_and(|(_, cells)| header(&cells).is_ok_and(|header| header == own)) {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

/// Which sheet was read, if there are others.
fn other_sheets(workbook: &Workbook, read: usize) -> Option<String> {
    let others = workbook.sheets.iter().enumerate().filter(|(at, _)| *at != read).map(|(_, sheet)| {
        let hidden = if sheet.hidden { "the hidden " } else { "" };
        format!("{hidden}{:?}", sheet.name)
    });
    let others: Vec<String> = others.collect();
    let read = &workbook.sheets[read].name;
    (!others.is_empty()).then(|| format!("read the sheet {read:?}, and not {}", others.join(", ")))
}

/// The next row that has a cell with something in it. `row` is the number of the last one, and becomes that of this one.
fn next_row(
    sheet: &mut Xml,
    workbook: &Workbook,
    row: &mut u64,
    limit: usize,
) -> Result<Option<SheetRow>, WorkbookFault> {
    loop {
        match sheet.next()? {
            Event::Start(tag) if tag.local_name().as_ref() == "row" => {
                let number = attribute(&tag, "r").and_then(|number| number.parse().ok());
                *row = number.unwrap_or(*row + 1);
                let cells = row_cells(sheet, workbook, limit)?;
                if !cells.is_empty() {
                    return Ok(Some((*row, cells)));
                }
            }
            Event::End(tag) if tag.local_name().as_ref() == "sheetData" => return sheet.finish().map(|()| None),
            _ => {}
        }
    }
}

/// The cells of the row that has just started, but for the blank ones.
fn row_cells(sheet: &mut Xml, workbook: &Workbook, limit: usize) -> Result<Vec<Cell>, WorkbookFault> {
    let (mut cells, mut column, mut length) = (Vec::new(), 0, 0);
    loop {
        match sheet.next()? {
            Event::Start(tag) if tag.local_name().as_ref() == "c" => {
                column = attribute(&tag, "r").map_or(Some(column), |name| column_of(&name)).ok_or_else(bad_column)?;
                let kind = attribute(&tag, "t").unwrap_or_default();
                let format = attribute(&tag, "s").and_then(|format| format.parse::<usize>().ok());
                let raw = RawCell::read(sheet, kind, format)?;
                let content = raw.content(workbook);
                // A row that is too long is found to be so by its length, whatever is in the cells after it.
                if length <= limit && !matches!(&content, Ok(text) if text.trim().is_empty()) {
                    length += content.as_ref().map_or(0, String::len);
                    cells.push(Cell { column, content });
                }
                column += 1;
            }
            Event::End(tag) if tag.local_name().as_ref() == "row" => return Ok(cells),
            _ => {}
        }
    }
}

fn bad_column() -> WorkbookFault {
    WorkbookFault::Damaged("a cell outside the sheet".to_owned())
}

/// The column of a cell's name, from 0.
fn column_of(name: &str) -> Option<usize> {
    let letters = name.bytes().take_while(u8::is_ascii_alphabetic);
    let number = letters.fold(0, |number: usize, letter| {
        number.saturating_mul(26).saturating_add(usize::from(letter.to_ascii_uppercase() - b'A') + 1)
    });
    (1..=MOST_COLUMNS).contains(&number).then(|| number - 1)
}

/// The letters of a column.
fn column_name(column: usize) -> String {
    let (before, letter) = (column / 26, char::from(b'A' + (column % 26) as u8));
    let before = if before == 0 { String::new() } else { column_name(before - 1) };
    format!("{before}{letter}")
}
