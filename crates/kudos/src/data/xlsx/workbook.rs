//! What the sheets of a workbook share: their list, the texts that cells name by number, and the formats of numbers.

use super::super::source::{Refusal, ZIP_ARCHIVE};
use super::package::{Package, WorkbookFault, Xml, attribute};
use quick_xml::events::Event;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;

/// The content type of an OpenDocument spreadsheet begins with this.
const OPEN_DOCUMENT: &[u8] = b"application/vnd.oasis.opendocument";
const ODS: Refusal = Refusal { found: "an OpenDocument file (.ods)", advice: "save it as .xlsx or CSV" };
const XLSB: Refusal = Refusal { found: "a binary workbook (.xlsb)", advice: "save it as .xlsx or CSV" };
const OFFICE: Refusal = Refusal { found: "an Office document without sheets", advice: "export the data as CSV" };
const NUMBERS: Refusal = Refusal { found: "a Numbers document", advice: "export it as .xlsx or CSV" };

/// A sheet of the workbook.
pub(super) struct Sheet {
    pub name: String,
    pub hidden: bool,
    /// The name of its part.
    part: String,
}

/// What all sheets share.
pub(super) struct Workbook {
    package: Package,
    pub sheets: Vec<Sheet>,
    pub texts: Texts,
    /// For each cell format, how a number is written as a date, if it is one.
    pub formats: Vec<Option<DateFormat>>,
    /// True if days are counted from 1904.
    pub from_1904: bool,
    /// True if the values of formulas are those of a program that did not compute them.
    pub uncomputed: bool,
}

impl Workbook {
    /// Opens an archive that should be a workbook.
    pub fn open(file: File, limit: usize) -> Result<Workbook, WorkbookFault> {
        let package = Package::open(file, limit)?;
        let main = main_part(&package)?;
        let relations = relations(&package, &main)?;
        let of_kind = |kind: &str| relations.values().find(|part| part.kind == kind).map(|part| part.name.clone());
        let texts = Texts::read(&package, of_kind("sharedStrings"))?;
        let formats = date_formats(&package, of_kind("styles"))?;
        let mut workbook =
            Workbook { package, sheets: Vec::new(), texts, formats, from_1904: false, uncomputed: false };
        workbook.read_sheets(&main, &relations)?;
        Ok(workbook)
    }

    fn read_sheets(&mut self, main: &str, relations: &HashMap<String, Related>) -> Result<(), WorkbookFault> {
        let mut xml = self.package.xml(main)?.ok_or(WorkbookFault::Refused(ZIP_ARCHIVE))?;
        let is_true = |value: Option<String>| value.is_some_and(|value| value == "1" || value == "true");
        xml.each_start(|tag| {
            match tag.local_name().as_ref() {
                "sheet" => {
                    let related = attribute(tag, "id").and_then(|id| relations.get(&id));
                    if let Some(related) = related.filter(|related| related.kind == "worksheet") {
                        let name = attribute(tag, "name").unwrap_or_default();
                        let hidden = attribute(tag, "state").is_some_and(|state| state != "visible");
                        self.sheets.push(Sheet { name, hidden, part: related.name.clone() });
                    }
                }
                "workbookPr" => self.from_1904 = is_true(attribute(tag, "date1904")),
                "calcPr" => self.uncomputed = is_true(attribute(tag, "fullCalcOnLoad")),
                _ => {}
            }
            Ok(())
        })
    }

    /// The XML of a sheet.
    pub fn sheet(&self, at: usize) -> Result<Xml, WorkbookFault> {
        let missing = || WorkbookFault::Damaged(format!("no part for the sheet {:?}", self.sheets[at].name));
        self.package.xml(&self.sheets[at].part)?.ok_or_else(missing)
    }
}

/// The name of the part that lists the sheets.
fn main_part(package: &Package) -> Result<String, WorkbookFault> {
    let mut kind = Vec::new();
    if let Some(part) = package.part("mimetype")? {
        part.take(OPEN_DOCUMENT.len() as u64).read_to_end(&mut kind)?;
    }
    let roots = relations(package, "")?;
    let main = roots.into_values().find(|part| part.kind == "officeDocument").map(|part| part.name);
    match main {
        _ if kind == OPEN_DOCUMENT => Err(WorkbookFault::Refused(ODS)),
        Some(main) if main.ends_with(".bin") => Err(WorkbookFault::Refused(XLSB)),
        Some(main) if main.contains("word/") || main.contains("ppt/") => Err(WorkbookFault::Refused(OFFICE)),
        Some(main) => Ok(main),
        None if package.has("Index/Document.iwa") => Err(WorkbookFault::Refused(NUMBERS)),
        None => Err(WorkbookFault::Refused(ZIP_ARCHIVE)),
    }
}

/// A part that another one names.
struct Related {
    name: String,
    /// The last piece of its type: `worksheet`, `styles`, …
    kind: String,
}

/// The parts that a part names, by their identifiers.
fn relations(package: &Package, part: &str) -> Result<HashMap<String, Related>, WorkbookFault> {
    let (folder, name) = part.rsplit_once('/').unwrap_or(("", part));
    let path = format!("{folder}/_rels/{name}.rels");
    let mut related = HashMap::new();
    let Some(mut xml) = package.xml(path.trim_start_matches('/'))? else {
        return Ok(related);
    };
    xml.each_start(|tag| {
        let (id, kind) = (attribute(tag, "Id"), attribute(tag, "Type"));
        if let (Some(id), Some(kind), Some(target)) = (id, kind, attribute(tag, "Target")) {
            let kind = kind.rsplit('/').next().unwrap_or_default().to_owned();
            related.insert(id, Related { name: resolved(folder, &target), kind });
        }
        Ok(())
    })?;
    Ok(related)
}

/// The name of a part that is named from a folder.
fn resolved(folder: &str, target: &str) -> String {
    let mut path: Vec<&str> = if target.starts_with('/') { Vec::new() } else { folder.split('/').collect() };
    for piece in target.split('/') {
        match piece {
            "" | "." => {}
            ".." => drop(path.pop()),
            piece => path.push(piece),
        }
    }
    path.retain(|piece| !piece.is_empty());
    path.join("/")
}

/// The texts that cells name by number, laid end to end.
#[derive(Default)]
pub(super) struct Texts {
    text: String,
    ends: Vec<usize>,
}

impl Texts {
    fn read(package: &Package, part: Option<String>) -> Result<Texts, WorkbookFault> {
        let mut texts = Texts::default();
        let Some(mut xml) = part.map(|part| package.xml(&part)).transpose()?.flatten() else {
            return Ok(texts);
        };
        loop {
            match xml.next_or_end()? {
                Event::Start(tag) if tag.local_name().as_ref() == "si" => {
                    texts.text += &xml.pieces()?;
                    texts.ends.push(texts.text.len());
                }
                Event::Eof => return Ok(texts),
                _ => {}
            }
        }
    }

    /// The text of a number.
    pub fn get(&self, at: usize) -> Option<&str> {
        let start = if at == 0 { 0 } else { *self.ends.get(at - 1)? };
        self.ends.get(at).map(|end| &self.text[start..*end])
    }
}

/// What a number that stands for a time is written as.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum DateFormat {
    /// A day, with its time if it has one, or a time of day.
    Date,
    /// Hours beyond 24 go on.
    Duration,
}

/// The date formats of the cell formats, in their order.
fn date_formats(package: &Package, part: Option<String>) -> Result<Vec<Option<DateFormat>>, WorkbookFault> {
    let (mut own, mut formats) = (HashMap::new(), Vec::new());
    let Some(mut xml) = part.map(|part| package.xml(&part)).transpose()?.flatten() else {
        return Ok(formats);
    };
    let mut in_cell_formats = false;
    xml.each_start(|tag| {
        let number = |name| attribute(tag, name).and_then(|number| number.parse::<u32>().ok());
        match tag.local_name().as_ref() {
            "numFmt" => {
                if let (Some(id), Some(code)) = (number("numFmtId"), attribute(tag, "formatCode")) {
                    own.insert(id, date_format(&code));
                }
            }
            "cellXfs" => in_cell_formats = true,
            "cellStyles" | "dxfs" => in_cell_formats = false,
            "xf" if in_cell_formats => {
                let id = number("numFmtId").unwrap_or(0);
                formats.push(own.get(&id).copied().unwrap_or_else(|| built_in(id)));
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(formats)
}

/// The formats that every spreadsheet program knows by number (ECMA-376, part 1, 18.8.30).
fn built_in(id: u32) -> Option<DateFormat> {
    match id {
        46 => Some(DateFormat::Duration),
        14..=22 | 27..=36 | 45 | 47 | 50..=58 => Some(DateFormat::Date),
        _ => None,
    }
}

/// Whether a format shows a date: it has a letter of one outside quotes, brackets and escapes.
fn date_format(code: &str) -> Option<DateFormat> {
    let mut chars = code.chars();
    let mut found = None;
    while let Some(char) = chars.next() {
        match char.to_ascii_lowercase() {
            '"' => drop(chars.by_ref().find(|char| *char == '"')),
            '\\' | '_' | '*' => drop(chars.next()),
            '[' => {
                let inner: String = chars.by_ref().take_while(|char| *char != ']').collect();
                if !inner.is_empty() && inner.chars().all(|char| "hmsHMS".contains(char)) {
                    return Some(DateFormat::Duration);
                }
            }
            // The section for other signs shows the same.
            ';' => break,
            'd' | 'm' | 'y' | 'h' | 's' => found = Some(DateFormat::Date),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_dates() {
        use DateFormat::{Date, Duration};
        let cases = [
            ("General", None),
            ("0.00%", None),
            ("#,##0.00_);[Red](#,##0.00)", None),
            ("0 \"days\"", None),
            ("0\\d", None),
            ("0.00E+00", None),
            ("@", None),
            ("[$-409]d-mmm-yy;@", Some(Date)),
            ("yyyy\\-mm\\-dd", Some(Date)),
            ("h:mm AM/PM", Some(Date)),
            ("[h]:mm:ss", Some(Duration)),
            ("[mm]:ss", Some(Duration)),
        ];
        for (code, expected) in cases {
            assert_eq!(date_format(code), expected, "{code}");
        }
        assert_eq!((built_in(9), built_in(14), built_in(46)), (None, Some(Date), Some(Duration)));
    }

    #[test]
    fn names_of_parts() {
        let cases = [
            ("xl", "worksheets/sheet1.xml", "xl/worksheets/sheet1.xml"),
            ("xl", "/xl/styles.xml", "xl/styles.xml"),
            ("xl/worksheets", "../sharedStrings.xml", "xl/sharedStrings.xml"),
            ("", "./xl/workbook.xml", "xl/workbook.xml"),
            ("a", "../../../b", "b"),
        ];
        for (folder, target, expected) in cases {
            assert_eq!(resolved(folder, target), expected);
        }
    }
}
