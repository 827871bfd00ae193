//! What separates the fields of a CSV file, by its header line.
//!
//! It is a comma, a semicolon or a tab: the one that the header has most of, outside quotes. A first line `sep=;`, as Excel
//! reads and writes it, names it instead. A first line that is that of no table is told here too.

use super::source::{Bytes, NO_TEXT, Refusal};
use std::io::{self, BufRead, Read};

/// What may stand between two fields. The first of them wins where a header has equally many of two.
pub(super) const SEPARATORS: [u8; 3] = [b',', b';', b'\t'];
/// Bytes in which a header must end for its separator to be told.
pub(super) const LONGEST_HEADER: u64 = 1 << 20;

/// Text that is no table, and never will be.
pub(super) fn refused(line: &[u8]) -> Option<Refusal> {
    const HTML: [&[u8]; 2] = [b"<!doctype html", b"<html"];
    let begins = |with: &[u8]| line.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    if HTML.into_iter().any(begins) {
        return Some(Refusal { found: "an HTML page", advice: "was the download link opened in a browser?" });
    }
    if begins(b"<?xml") {
        return Some(Refusal { found: "an XML file", advice: "export it as CSV or JSON" });
    }
    let has_zeros = line.contains(&0);
    has_zeros.then_some(NO_TEXT)
}

/// The separator that a line `sep=;` names, and the length of the line. It may be quoted, and be followed by empty fields.
pub(super) fn named_separator(text: &[u8]) -> Option<(u8, usize)> {
    let end = text.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(text.len());
    let (line, after) = text.split_at(end);
    let line = line.strip_prefix(b"\"").unwrap_or(line);
    let (separator, rest) = line.strip_prefix(b"sep=")?.split_first()?;
    let may_be = *separator == b'\t' || separator.is_ascii_punctuation() && *separator != b'"';
    let named = may_be && rest.iter().all(|byte| byte == separator || *byte == b'"');
    let line_break = if after.starts_with(b"\r\n") { 2 } else { after.len().min(1) };
    named.then_some((*separator, end + line_break))
}

/// The separator that the header has most of outside quotes. Reads on where the header has a line break inside quotes.
pub(super) fn found_separator(start: &mut Vec<u8>, input: &mut Bytes) -> io::Result<u8> {
    loop {
        let (counts, open) = separators_in(start);
        let room = LONGEST_HEADER.saturating_sub(start.len() as u64);
        if !open || input.take(room).read_until(b'\n', start)? == 0 {
            let most = SEPARATORS.iter().zip(counts).rev().max_by_key(|(_, count)| *count);
            return Ok(*most.map_or(&SEPARATORS[0], |(separator, _)| separator));
        }
    }
}

/// How many of each separator stand in the record outside quotes, and whether it ends inside them.
fn separators_in(record: &[u8]) -> ([usize; SEPARATORS.len()], bool) {
    let mut counts = [0; SEPARATORS.len()];
    let (mut at_start, mut quoted) = (true, false);
    for byte in record {
        let separator = SEPARATORS.iter().position(|separator| separator == byte).filter(|_| !quoted);
        match (separator, byte) {
            (Some(found), _) => counts[found] += 1,
            (None, b'"') if quoted || at_start => quoted = !quoted,
            (None, b'\r' | b'\n') if !quoted => break,
            _ => {}
        }
        // The second half of a doubled quote opens again what the first has closed.
        at_start = separator.is_some() || *byte == b'"' && !quoted;
    }
    (counts, quoted)
}

#[cfg(test)]
mod tests {
    use super::super::csv::{Csv, CsvFault};
    use super::super::encoding::Encoding;
    use super::*;
    use std::io::Cursor;

    #[test]
    fn the_header_decides_the_separator() {
        let cases: [(&str, u8, u64, usize); 18] = [
            ("a,b\n1;2;3,4", b',', 1, 2),
            ("a;b;c,d\n", b';', 1, 3),
            ("a\tb,c\td\n", b'\t', 1, 3),
            ("a;b,c", b',', 1, 2),
            ("a;b\tc", b';', 1, 2),
            ("alone\n1;2;3", b',', 1, 1),
            ("\"a;b;c\",d", b',', 1, 2),
            ("a,\"b;c;d\",e", b',', 1, 3),
            ("a,\"b\n;;;;\",\"c\"\nx;y", b',', 1, 3),
            ("\"a\"\";;;\",b", b',', 1, 2),
            ("a\";b;c", b';', 1, 3),
            ("\ta\tb\n0\tx\ty", b'\t', 1, 3),
            ("a;b\rx,y,z,z", b';', 1, 2),
            ("sep=;\na,b;c", b';', 2, 2),
            ("\"sep=,\"\r\na;b;c,d", b',', 2, 2),
            ("sep=\t\r\na\tb", b'\t', 2, 2),
            ("sep=|\ra|b|c", b'|', 2, 3),
            ("sep=;;;\na;b;c", b';', 2, 3),
        ];
        for (text, separator, line, columns) in cases {
            let csv =
                Csv::new(Box::new(Cursor::new(text.as_bytes().to_vec())), 1, 9999, Encoding::Undecided).ok().unwrap();
            let found = (csv.separator(), csv.header_line, csv.header.len());
            assert_eq!(found, (separator, line, columns), "{text:?}");
        }
        for text in ["sep=,x\n", "sep=\n", "sep=a\n", "a,sep=;\n", "sep=\"\n"] {
            assert_eq!(named_separator(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let cases: [(&[u8], &str); 4] = [
            (b"<!DOCTYPE html>\n<html>", "an HTML page"),
            (b"<HTML lang=\"en\">", "an HTML page"),
            (b"<?xml version=\"1.0\"?>", "an XML file"),
            (
                "é,b\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>().leak(),
                "zero bytes in its first line, ",
            ),
        ];
        for (bytes, expected) in cases {
            let csv = Csv::new(Box::new(Cursor::new(bytes.to_vec())), 1, 99, Encoding::Undecided);
            let Some(CsvFault::Refused(refusal)) = csv.err() else { panic!("{expected}") };
            assert!(refusal.found.starts_with(expected), "{}", refusal.found);
        }
    }
}
