//! Rows of a workbook (.xlsx, .xlsm): the first visible sheet that has any, its first row as the header.
//!
//! Cells become the text that a CSV export would have, so that both are read alike. What has no value (an error, a formula that
//! no program has computed) is a problem of its row, and never an empty text. The sheet is read a row at a time; only the
//! texts that its cells share are held in memory. It is read here and not by a crate for spreadsheets: those hold the whole
//! sheet, trust the counts that it declares, and bring the formats of other programs.

use super::csv::TypeCell;
use super::error::ProblemKind;
use super::jsonl::RawRow;
use super::workbook::{DateFormat, Workbook, WorkbookFault, Xml, attribute};
use quick_xml::events::Event;
use serde_json::{Map, Value};
use std::fs::File;

/// Columns that a sheet may have.
const MOST_COLUMNS: usize = 16_384;
const NO_VALUE: &str = "a formula without a stored value: open and save the file in the spreadsheet program";

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

/// What stands before the error in a cell, in messages.
const ERROR: &str = "the error ";

/// A cell as it stands in the sheet.
struct RawCell {
    /// What its value is: `s` for a shared text, `b` for a boolean, …
    kind: String,
    format: Option<usize>,
    value: String,
    has_formula: bool,
}

impl RawCell {
    /// Reads on to the end of the cell that has just started.
    fn read(sheet: &mut Xml, kind: String, format: Option<usize>) -> Result<RawCell, WorkbookFault> {
        let mut cell = RawCell { kind, format, value: String::new(), has_formula: false };
        loop {
            match sheet.next()? {
                Event::Start(tag) => match tag.local_name().as_ref() {
                    "v" | "is" => {
                        let is_text = tag.local_name().as_ref() == "is";
                        let text = if is_text { sheet.pieces()? } else { sheet.text()? };
                        if is_text || cell.kind != "inlineStr" {
                            cell.value = text;
                        }
                    }
                    name => {
                        cell.has_formula |= name == "f";
                        sheet.text()?;
                    }
                },
                Event::End(tag) if tag.local_name().as_ref() == "c" => return Ok(cell),
                _ => {}
            }
        }
    }

    /// The text that a CSV export would have, or what there is in place of a value.
    fn content(self, workbook: &Workbook) -> Result<String, String> {
        let without_value = self.value.is_empty() && self.kind != "str";
        if self.has_formula && (workbook.uncomputed || without_value) {
            return Err(NO_VALUE.to_owned());
        }
        match self.kind.as_str() {
            "s" => {
                let shared = self.value.trim().parse().ok().and_then(|at| workbook.texts.get(at));
                shared.map(unescaped).ok_or_else(|| format!("the unknown shared text {:?}", self.value))
            }
            "b" => match self.value.trim() {
                "1" | "true" => Ok("true".to_owned()),
                "0" | "false" => Ok("false".to_owned()),
                "" => Ok(String::new()),
                other => Err(format!("the unknown boolean {other:?}")),
            },
            "e" => Err(format!("{ERROR}{}", self.value)),
            "str" | "inlineStr" => Ok(unescaped(&self.value)),
            "d" => Ok(self.value),
            "n" | "" => self.number(workbook),
            other => Err(format!("a value of the unknown type {other:?}")),
        }
    }

    fn number(self, workbook: &Workbook) -> Result<String, String> {
        let text = self.value.trim();
        if text.is_empty() {
            return Ok(String::new());
        }
        let number: f64 =
            text.parse().ok().filter(|n: &f64| n.is_finite()).ok_or_else(|| format!("the number {text:?}"))?;
        let format = self.format.and_then(|at| workbook.formats.get(at).copied().flatten());
        Ok(match format {
            Some(format) => time(number, format, workbook.from_1904).ok_or_else(|| format!("the date {text:?}"))?,
            // More digits than a float has are those of an identifier that some program wrote.
            None if text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit()) => text.to_owned(),
            None => shown(number).to_string(),
        })
    }
}

/// A number with the 15 digits that spreadsheets show: 0.3 for 0.1 + 0.2.
fn shown(number: f64) -> f64 {
    format!("{number:.14e}").parse().unwrap_or(number)
}

/// Characters that XML cannot hold are written `_x000D_`.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("_x") {
        let escape = rest.get(start..start + 7).filter(|escape| escape.ends_with('_'));
        let digits = escape.and_then(|escape| escape.get(2..6)).filter(|digits| !digits.starts_with('+'));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
        out.push_str(&rest[..start]);
        let length = match code {
            Some(char) => {
                out.push(char);
                7
            }
            None => {
                out.push_str("_x");
                2
            }
        };
        rest = &rest[start + length..];
    }
    out + rest
}

const MILLISECONDS: i64 = 86_400_000;

/// A count of days as ISO 8601: a day, a day and its time, or, of less than a day, a time.
fn time(days: f64, format: DateFormat, from_1904: bool) -> Option<String> {
    // Year 9999 is the last that spreadsheets know.
    if !(0.0..2_958_466.0).contains(&days) {
        return None;
    }
    let total = (days * MILLISECONDS as f64).round() as i64;
    let (day, within) = (total / MILLISECONDS, total % MILLISECONDS);
    if format == DateFormat::Duration {
        return Some(clock(total));
    }
    let date = date(day, from_1904);
    Some(match (day, within) {
        (0, _) if !from_1904 => clock(within),
        (_, 0) => date,
        _ => format!("{date}T{}", clock(within)),
    })
}

fn clock(milliseconds: i64) -> String {
    let seconds = milliseconds / 1000;
    let whole = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    match milliseconds % 1000 {
        0 => whole,
        rest => format!("{whole}.{rest:03}"),
    }
}

/// The day of a count. Spreadsheets count from 1900 as if that had been a leap year: day 60 is its 29 February.
fn date(day: i64, from_1904: bool) -> String {
    /// 1 March of the year 0 to 1 January 1970.
    const TO_1970: i64 = 719_468;
    const TO_1900: i64 = TO_1970 - 25_569;
    let day = match (from_1904, day) {
        (true, _) => day + TO_1900 + 1462,
        (false, 60) => return "1900-02-29".to_owned(),
        (false, ..60) => day + TO_1900 + 1,
        (false, _) => day + TO_1900,
    };
    // Years begin in March here, so that a leap day is the last of one.
    let era = day / 146_097;
    let of_era = day % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + era * 400 + i64::from(month >= 10), if month < 10 { month + 3 } else { month - 9 });
    format!("{year:04}-{month:02}-{of_month:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Rows;
    use std::io::{Cursor, Write};
    use zip::write::SimpleFileOptions;

    const ROOT: &str =
        r#"<Relationships><Relationship Id="r1" Type="x/officeDocument" Target="xl/workbook.xml"/></Relationships>"#;
    const PARTS: &str = r#"<Relationships>
        <Relationship Id="r1" Type="x/worksheet" Target="worksheets/sheet1.xml"/>
        <Relationship Id="r2" Type="x/worksheet" Target="/xl/worksheets/sheet2.xml"/>
        <Relationship Id="r3" Type="x/chartsheet" Target="chart.xml"/>
        <Relationship Id="r4" Type="x/sharedStrings" Target="sharedStrings.xml"/>
        <Relationship Id="r5" Type="x/styles" Target="styles.xml"/></Relationships>"#;
    const BOOK: &str = r#"<workbook><sheets><sheet name="One" sheetId="9" r:id="r1"/></sheets></workbook>"#;
    const STYLES: &str = r#"<styleSheet><numFmts><numFmt numFmtId="164" formatCode="[h]:mm"/></numFmts><cellStyleXfs><xf numFmtId="14"/></cellStyleXfs>
        <cellXfs><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="164"/><xf numFmtId="9"/></cellXfs></styleSheet>"#;
    const SHARED: &str = r#"<sst uniqueCount="99999999999"><si><t>zero</t></si><si>
        <r><rPr><b/></rPr><t xml:space="preserve">o</t></r><r><t>ne &amp; &#x41;</t></r><rPh><t>sound</t></rPh></si>
        <si><t>a_x000D_
b_x005F_x_xZZZZ_</t></si></sst>"#;

    fn archive(parts: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, text) in parts {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn book(workbook: &str, one: &str, two: &str) -> Vec<u8> {
        let sheet = |rows: &str| format!("<worksheet><sheetData>{rows}</sheetData></worksheet>");
        archive(&[
            ("_rels/.rels", ROOT),
            ("xl/_rels/workbook.xml.rels", PARTS),
            ("xl/workbook.xml", workbook),
            ("xl/styles.xml", STYLES),
            ("xl/sharedStrings.xml", SHARED),
            ("xl/worksheets/sheet1.xml", &sheet(one)),
            ("xl/worksheets/sheet2.xml", &sheet(two)),
        ])
    }

    /// The header, the rows and the notes, or the error.
    fn outline(bytes: Vec<u8>, held: bool) -> String {
        let mut rows = match Rows::of_bytes("f", bytes, 1 << 10) {
            Ok(rows) => rows,
            Err(error) => return error.to_string(),
        };
        rows.hold(|_| held);
        let mut outline = match rows.columns() {
            Ok(header) => header.map(|(names, at)| format!("{} {}", at.line, names.join(","))).unwrap(),
            Err(error) => return error.to_string(),
        };
        loop {
            match rows.next() {
                Ok(None) => break,
                Ok(Some((at, row))) => {
                    let row = row.map_or_else(|problem| problem.kind.to_string(), |row| Value::Object(row).to_string());
                    outline += &format!(" | {} {row}", at.line);
                }
                Err(error) => return format!("{outline} | {error}"),
            }
        }
        rows.notes().iter().fold(outline, |outline, note| format!("{outline} | note: {note}"))
    }

    fn header(names: &str) -> String {
        let cells = names.split(',').map(|name| format!("<c t=\"inlineStr\"><is><t>{name}</t></is></c>"));
        format!("<row r=\"1\">{}</row>", cells.collect::<String>())
    }

    /// What one cell reads as, and whether it is an error, in a column that must have a value.
    fn cell(xml: &str) -> String {
        let rows = format!("{}<row r=\"2\"><c r=\"A2\"><v>7</v></c>{xml}</row>", header("a,b"));
        let found = outline(book(BOOK, &rows, ""), true);
        found
            .strip_prefix("1 a,b | 2 ")
            .unwrap_or(&found)
            .replace("{\"a\":\"7\",\"b\":", "")
            .trim_end_matches('}')
            .to_owned()
    }

    #[test]
    fn cells_are_the_text_of_a_csv_export() {
        let cases = [
            (r#"<c><v>3</v></c>"#, r#""3""#),
            (r#"<c t="n"><v>12345678901234567890</v></c>"#, r#""12345678901234567890""#),
            (r#"<c><v>3.0</v></c>"#, r#""3""#),
            (r#"<c><v>0.30000000000000004</v></c>"#, r#""0.3""#),
            (r#"<c><v>1E-3</v></c>"#, r#""0.001""#),
            (r#"<c s="3"><v>0.5</v></c>"#, r#""0.5""#),
            (r#"<c t="b"><v>1</v></c>"#, r#""true""#),
            (r#"<c t="s"><v>0</v></c>"#, r#""zero""#),
            (r#"<c t="s"><v>1</v></c>"#, r#""one & A""#),
            (r#"<c t="s"><v>2</v></c>"#, r#""a\r\nb_x_xZZZZ_""#),
            (r#"<c t="str"><f>A1</f><v>x &lt; y</v></c>"#, r#""x < y""#),
            (r#"<c t="str"><f>A1</f><v></v></c>"#, r#""""#),
            (r#"<c t="inlineStr"><is><t>in</t></is></c>"#, r#""in""#),
            (r#"<c><f>1+1</f><v>2</v></c>"#, r#""2""#),
            (r#"<c s="1"><v>45413</v></c>"#, r#""2024-05-01""#),
            (r#"<c s="1"><v>45413.5625</v></c>"#, r#""2024-05-01T13:30:00""#),
            (r#"<c s="1"><v>0.25</v></c>"#, r#""06:00:00""#),
            (r#"<c s="1"><v>1</v></c>"#, r#""1900-01-01""#),
            (r#"<c s="1"><v>60</v></c>"#, r#""1900-02-29""#),
            (r#"<c s="1"><v>61</v></c>"#, r#""1900-03-01""#),
            (r#"<c s="2"><v>1.5</v></c>"#, r#""36:00:00""#),
            (r#"<c t="d"><v>2024-05-01</v></c>"#, r#""2024-05-01""#),
            (r#"<c/>"#, r#""""#),
            (r#""#, r#""""#),
            (r#"<c t="e"><v>#N/A</v></c>"#, "cell B2: expected a value, found the error #N/A"),
            (r#"<c><f>A1</f></c>"#, &format!("cell B2: expected a value, found {NO_VALUE}")),
            (r#"<c><f>A1</f><v></v></c>"#, &format!("cell B2: expected a value, found {NO_VALUE}")),
            (r#"<c t="s"><v>3</v></c>"#, r#"cell B2: expected a value, found the unknown shared text "3""#),
            (r#"<c t="s"><v>x</v></c>"#, r#"cell B2: expected a value, found the unknown shared text "x""#),
            (r#"<c t="n"><v>x</v></c>"#, r#"cell B2: expected a value, found the number "x""#),
            (r#"<c s="1"><v>-1</v></c>"#, r#"cell B2: expected a value, found the date "-1""#),
            (r#"<c t="q"><v>1</v></c>"#, r#"cell B2: expected a value, found a value of the unknown type "q""#),
        ];
        for (xml, expected) in cases {
            assert_eq!(cell(xml), expected, "{xml}");
        }
    }

    #[test]
    fn every_day_is_the_next_one() {
        let days: Vec<String> = (61..150_000).map(|day| date(day, false)).collect();
        let known =
            [(0, "1900-03-01"), (25_569 - 61, "1970-01-01"), (36_585 - 61, "2000-02-29"), (73_109 - 61, "2100-02-28")];
        known.iter().for_each(|(at, expected)| assert_eq!(days[*at], *expected));
        assert_eq!(days[73_110 - 61], "2100-03-01");
        assert!(days.windows(2).all(|two| two[0] < two[1]), "in order as text");
        assert_eq!((date(0, true), date(59, false)), ("1904-01-01".to_owned(), "1900-02-28".to_owned()));
    }

    #[test]
    fn rows_and_columns() {
        let number = |name: &str| format!("<c r=\"{name}\"><v>1</v></c>");
        let rows = [
            header("a,,b, ,"),
            "<row r=\"2\"/>".to_owned(),
            format!("<row r=\"4\">{}</row>", number("C4")),
            format!("<row>{}</row>", number("A5")),
            format!("<row>{}</row>", number("E6")),
            format!("<row r=\"9\">{}{}{}</row>", number("A9"), number("E9"), number("B9")),
        ];
        let expected = "1 a,b | 4 {\"a\":\"\",\"b\":\"1\"} | 5 {\"a\":\"1\",\"b\":\"\"} | 9 {\"a\":\"1\",\"b\":\"\"} \
                        | note: column E has no header and is left out | note: column B has no header and is left out";
        assert_eq!(outline(book(BOOK, &rows.concat(), ""), true), expected);
        let twice = outline(book(BOOK, &header("a,a"), ""), true);
        assert!(twice.contains("found \"a\" twice"), "{twice}");
        let none = outline(book(BOOK, &header("a,b"), ""), true);
        assert!(none.contains("found a header and no rows"), "{none}");
        let long =
            format!("{}<row>{}</row><row><c><v>1</v></c></row>", header("a"), "<c t=\"s\"><v>0</v></c>".repeat(9));
        assert!(outline(book(BOOK, &long, ""), true).contains("3 {\"a\":\"1\"}"));
    }

    #[test]
    fn cells_without_a_value_in_columns_that_are_not_read() {
        let row = "<row><c><v>1</v></c><c t=\"e\"><v>#REF!</v></c><c><f>A1</f></c></row>";
        let rows = format!("{}{row}{row}", header("a,b,c"));
        let found = outline(book(BOOK, &rows, ""), false);
        let fields = "{\"a\":\"1\",\"b\":\"#REF!\",\"c\":\"\"}";
        let note = "column `c` has formulas without a stored value, which are left empty";
        assert_eq!(found, format!("1 a,b,c | 2 {fields} | 3 {fields} | note: {note}"));
    }

    /// Some libraries write 0 for each formula and ask for all to be computed when the file is opened.
    #[test]
    fn values_that_nobody_computed_are_none() {
        let book_of = BOOK.replace("</workbook>", "<calcPr fullCalcOnLoad=\"1\"/></workbook>");
        let rows = format!("{}<row><c><f>A9</f><v>0</v></c></row><row><c><v>5</v></c></row>", header("a"));
        let found = outline(book(&book_of, &rows, ""), true);
        assert_eq!(found, format!("1 a | 2 cell A2: expected a value, found {NO_VALUE} | 3 {{\"a\":\"5\"}}"));
    }

    #[test]
    fn the_first_visible_sheet_with_rows() {
        let sheets = |sheets: &str| format!("<workbook><sheets>{sheets}</sheets></workbook>");
        let (one, two) = ("<sheet name=\"One\" r:id=\"r1\"", "<sheet name=\"Two\" r:id=\"r2\"/>");
        let rows = |name: &str| format!("{}<row><c><v>1</v></c></row>", header(name));
        let both = sheets(&format!("{one}/>{two}<sheet name=\"Chart\" r:id=\"r3\"/>"));
        assert_eq!(
            outline(book(&both, &rows("a"), &rows("b")), true),
            "1 a | 2 {\"a\":\"1\"} | note: read the sheet \"One\", and not \"Two\""
        );
        assert!(outline(book(&both, "<row/>", &rows("b")), true).starts_with("1 b | 2"));
        let hidden = sheets(&format!("{one} state=\"veryHidden\"/>{two}"));
        assert_eq!(
            outline(book(&hidden, &rows("a"), &rows("b")), true),
            "1 b | 2 {\"b\":\"1\"} | note: read the sheet \"Two\", and not the hidden \"One\""
        );
        let empty = outline(book(&both, "", ""), true);
        assert!(empty.contains("found a workbook without rows"), "{empty}");
    }

    #[test]
    fn other_archives_are_named() {
        let root = |target: &str| ROOT.replace("xl/workbook.xml", target);
        let cases = [
            (archive(&[("a.jsonl", "{}")]), "found a zip archive; unpack it and name the files in it"),
            (archive(&[]), "found a zip archive"),
            (
                archive(&[("mimetype", "application/vnd.oasis.opendocument.spreadsheet")]),
                "found an OpenDocument file (.ods)",
            ),
            (archive(&[("_rels/.rels", &root("word/document.xml"))]), "found an Office document without sheets"),
            (archive(&[("_rels/.rels", &root("xl/workbook.bin"))]), "found a binary workbook (.xlsb)"),
            (archive(&[("Index/Document.iwa", "")]), "found a Numbers document"),
            (b"PK\x03\x04rest".to_vec(), "expected an .xlsx workbook"),
        ];
        for (bytes, expected) in cases {
            let found = outline(bytes, true);
            assert!(found.contains(expected), "{found}\n{expected}");
        }
    }

    /// Stored bytes of another value give another text: only the checksum tells.
    #[test]
    fn a_sheet_is_checked_to_its_end() {
        let rows = format!("{}<row><c><v>7</v></c></row>", header("a"));
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let sheet = format!("<worksheet><sheetData>{rows}</sheetData></worksheet>");
        let parts = [
            ("_rels/.rels", ROOT),
            ("xl/_rels/workbook.xml.rels", PARTS),
            ("xl/workbook.xml", BOOK),
            ("xl/worksheets/sheet1.xml", &sheet),
        ];
        for (name, text) in parts {
            let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
            writer.start_file(name, stored).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        let mut bytes = writer.finish().unwrap().into_inner();
        let at = bytes.windows(8).position(|bytes| bytes == b"<v>7</v>").unwrap();
        bytes[at + 3] = b'8';
        let found = outline(bytes, true);
        assert!(found.contains("2 {\"a\":\"8\"}") && found.contains("a part whose checksum is another"), "{found}");
    }

    /// A text of 2 GB, packed in 2 MB, is not unpacked: neither one that is longer than a row, nor all of them.
    #[test]
    fn bombs_are_errors() {
        let long = format!("{}<row><c t=\"inlineStr\"><is><t>{}</t></is></c></row>", header("a"), "x".repeat(1 << 20));
        let found = outline(book(BOOK, &long, ""), true);
        assert!(
            found.contains("f:2: expected an .xlsx workbook, found I/O error: a text longer than a row may be"),
            "{found}"
        );

        let parts = [("_rels/.rels", ROOT), ("xl/_rels/workbook.xml.rels", PARTS), ("xl/workbook.xml", BOOK)];
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, text) in parts {
            writer.start_file(name, SimpleFileOptions::default()).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.start_file("xl/worksheets/sheet1.xml", SimpleFileOptions::default().compression_level(Some(1))).unwrap();
        let blank = vec![b' '; 1 << 20];
        writer.write_all(b"<worksheet>").unwrap();
        (0..1025).for_each(|_| writer.write_all(&[&blank[..], b"<x/>"].concat()).unwrap());
        let bytes = writer.finish().unwrap().into_inner();
        let error = Rows::of_bytes("f", bytes, 2 << 20).err().unwrap().to_string();
        assert!(error.contains("more than 1 GiB when unpacked"), "{error}");
    }

    #[test]
    fn damaged_workbooks_are_errors() {
        let rows = format!("{}<row><c s=\"1\"><v>7</v></c><c t=\"s\"><v>1</v></c></row>", header("a,b"));
        let sound = book(BOOK, &rows, "");
        assert!(outline(sound.clone(), true).contains("one & A"));
        for at in 4..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x55;
            outline(bytes, true);
            outline(sound[..at].to_vec(), true);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_sheet_makes_it_panic(noise in r#"(<row r="3">|<c r="[A-Z]{1,4}[0-9]" t="[sbe]">|<v>|</v>|</c>|</row>|<is>|<t>|[0-9a&;_x]{1,5}){0,12}"#) {
            outline(book(BOOK, &[&header("a,b"), noise.as_str()].concat(), ""), true);
        }
    }
}
