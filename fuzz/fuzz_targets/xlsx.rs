//! Workbooks: a sound one with some bytes overwritten, or one whose sheet, texts or formats are the fuzzer's.
#![no_main]

use std::io::{Cursor, Write};
use zip::write::SimpleFileOptions;

const SOUND: &[u8] = include_bytes!("../../crates/kudos/tests/fixtures/data/odd_cells.xlsx");
const PARTS: [(&str, &str); 6] = [
    (
        "_rels/.rels",
        r#"<Relationships><Relationship Id="r1" Type="x/officeDocument" Target="xl/workbook.xml"/></Relationships>"#,
    ),
    (
        "xl/_rels/workbook.xml.rels",
        r#"<Relationships><Relationship Id="r1" Type="x/worksheet" Target="sheet.xml"/>
        <Relationship Id="r2" Type="x/sharedStrings" Target="texts.xml"/>
        <Relationship Id="r3" Type="x/styles" Target="styles.xml"/></Relationships>"#,
    ),
    (
        "xl/workbook.xml",
        r#"<workbook><sheets><sheet name="One" r:id="r1"/></sheets></workbook>"#,
    ),
    (
        "xl/sheet.xml",
        r#"<worksheet><sheetData><row><c t="s"><v>0</v></c><c t="s"><v>1</v></c></row>
        <row><c s="1"><v>7</v></c><c t="str"><v>b</v></c></row></sheetData></worksheet>"#,
    ),
    (
        "xl/texts.xml",
        "<sst><si><t>prompt</t></si><si><r><t>answer</t></r></si></sst>",
    ),
    (
        "xl/styles.xml",
        r#"<styleSheet><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs></styleSheet>"#,
    ),
];

/// A workbook with one part replaced.
fn workbook(replaced: usize, by: &[u8]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (at, (name, text)) in PARTS.iter().enumerate() {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(if at == replaced { by } else { text.as_bytes() }).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    kudos_fuzz::read(match kind % 7 {
        6 => kudos_fuzz::damaged(SOUND, rest),
        part => workbook(usize::from(part), rest),
    });
});
