//! Small workbooks, made here, and what is read of them.

use super::cells::date;
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
    let long = format!("{}<row>{}</row><row><c><v>1</v></c></row>", header("a"), "<c t=\"s\"><v>0</v></c>".repeat(9));
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
    assert!(found.contains("f:2: expected an .xlsx workbook, found a text longer than a row may be"), "{found}");

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
