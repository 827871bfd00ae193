//! From a cell to the text that a CSV export would have.

use super::package::{WorkbookFault, Xml};
use super::workbook::{DateFormat, Workbook};
use quick_xml::events::Event;

/// What is found in place of a value that no program has computed.
pub(super) const NO_VALUE: &str = "a formula without a stored value: open and save the file in the spreadsheet program";
/// What stands before the error in a cell, in messages.
pub(super) const ERROR: &str = "the error ";

/// A cell as it stands in the sheet.
pub(super) struct RawCell {
    /// What its value is: `s` for a shared text, `b` for a boolean, …
    kind: String,
    format: Option<usize>,
    value: String,
    has_formula: bool,
}

impl RawCell {
    /// Reads on to the end of the cell that has just started.
    pub fn read(sheet: &mut Xml, kind: String, format: Option<usize>) -> Result<RawCell, WorkbookFault> {
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
    pub fn content(self, workbook: &Workbook) -> Result<String, String> {
        let without_value = self.value.is_empty() && self.kind != "str";
        // Libraries that compute nothing write 0 for a formula, unless they are told its value.
        let nobody_computed = workbook.uncomputed && self.value.trim() == "0";
        if self.has_formula && (nobody_computed || without_value) {
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
pub(super) fn date(day: i64, from_1904: bool) -> String {
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
