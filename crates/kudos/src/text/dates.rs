//! `strftime_now` of chat templates, in the words of Python's `strftime` in the C locale.
//!
//! A generator gets the time now. It is UTC, so that every machine of a cluster writes the same text; Python takes the
//! machine's own zone. A judge gets the start of a fixed [`Day`]: with the time now, a text would have another score
//! tomorrow.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// A day of the Gregorian calendar from 1970 to 9999, written `2026-11-29`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day {
    /// Since 1970-01-01.
    days: u64,
}

impl Day {
    /// 2024-07-26: the day that Llama 3's own templates write where there is no clock. A judge whose `reward.json`
    /// says no day gets it.
    pub const DEFAULT: Self = Self { days: 19_930 };

    /// Today, in UTC.
    pub fn today() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { days: now.as_secs() / 86_400 }
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_date(self.days);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a day as 2026-11-29, from 1970 to 9999, found {text:?}");
        let year: u64 = text.get(..4).and_then(|year| year.parse().ok()).ok_or_else(wrong)?;
        let in_year = |year: &u64| (1970..=9999).contains(year);
        let first = Some(year).filter(in_year).map(days_before).ok_or_else(wrong)?;
        let mut days = (first..first + 366).map(|days| Self { days });
        days.find(|day| day.to_string() == text).ok_or_else(wrong)
    }
}

impl serde::Serialize for Day {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Day {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// `datetime.now().strftime(format)`, in UTC.
pub(super) fn strftime_now(format: &str) -> Result<String, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    strftime(format, now.as_secs(), now.subsec_micros())
}

/// `strftime(format)` of the start of a day.
pub(super) fn strftime_on(day: Day, format: &str) -> Result<String, String> {
    strftime(format, day.days * 86_400, 0)
}

fn strftime(format: &str, seconds: u64, micros: u32) -> Result<String, String> {
    let time = Time::new(seconds, micros);
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let flags = letters.as_str();
        let flag = flags.chars().next().filter(|flag| matches!(flag, '-' | '_' | '0' | '^' | '#'));
        if flag.is_some() {
            letters.next();
        }
        let letter = letters.next().ok_or("strftime_now: expected a letter after %, found the end")?;
        text.push_str(&time.field(letter, flag)?);
    }
    Ok(text)
}

/// A moment in the Gregorian calendar.
struct Time {
    seconds: u64,
    micros: u32,
    year: u64,
    month: u64,
    day: u64,
    /// From 0, Monday.
    weekday: u64,
    /// From 0.
    day_of_year: u64,
}

impl Time {
    fn new(seconds: u64, micros: u32) -> Self {
        let days = seconds / 86_400;
        let (year, month, day) = civil_date(days);
        let day_of_year = days - days_before(year);
        Self { seconds, micros, year, month, day, weekday: (days + 3) % 7, day_of_year }
    }

    /// What stands for `%letter`.
    fn field(&self, letter: char, flag: Option<char>) -> Result<String, String> {
        if let Some((value, width, pad)) = self.number(letter) {
            return Ok(padded(value, width, pad, flag));
        }
        let composed = match letter {
            'F' => Some("%Y-%m-%d"),
            'T' | 'X' => Some("%H:%M:%S"),
            'D' | 'x' => Some("%m/%d/%y"),
            'R' => Some("%H:%M"),
            'r' => Some("%I:%M:%S %p"),
            'c' => Some("%a %b %e %H:%M:%S %Y"),
            _ => None,
        };
        let words = match composed {
            Some(format) => strftime(format, self.seconds, self.micros)?,
            None => self.words(letter)?,
        };
        Ok(if flag == Some('^') { words.to_uppercase() } else { words })
    }

    /// Value, width and padding of a number.
    fn number(&self, letter: char) -> Option<(u64, usize, char)> {
        let clock = self.seconds % 86_400;
        let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
        let (iso_year, iso_week) = self.iso_week();
        let half_day = (hour + 11) % 12 + 1;
        Some(match letter {
            'Y' => (self.year, 4, '0'),
            'G' => (iso_year, 4, '0'),
            'C' => (self.year / 100, 2, '0'),
            'y' => (self.year % 100, 2, '0'),
            'g' => (iso_year % 100, 2, '0'),
            'm' => (self.month, 2, '0'),
            'd' => (self.day, 2, '0'),
            'e' => (self.day, 2, ' '),
            'j' => (self.day_of_year + 1, 3, '0'),
            'H' => (hour, 2, '0'),
            'k' => (hour, 2, ' '),
            'I' => (half_day, 2, '0'),
            'l' => (half_day, 2, ' '),
            'M' => (minute, 2, '0'),
            'S' => (second, 2, '0'),
            'f' => (self.micros.into(), 6, '0'),
            's' => (self.seconds, 1, '0'),
            'u' => (self.weekday + 1, 1, '0'),
            'w' => ((self.weekday + 1) % 7, 1, '0'),
            'U' => ((self.day_of_year + 7 - (self.weekday + 1) % 7) / 7, 2, '0'),
            'W' => ((self.day_of_year + 7 - self.weekday) / 7, 2, '0'),
            'V' => (iso_week, 2, '0'),
            _ => return None,
        })
    }

    fn words(&self, letter: char) -> Result<String, String> {
        let (month, weekday) = (MONTHS[self.month as usize - 1], WEEKDAYS[self.weekday as usize]);
        let is_morning = self.seconds % 86_400 < 43_200;
        Ok(match letter {
            'B' => month,
            'b' | 'h' => &month[..3],
            'A' => weekday,
            'a' => &weekday[..3],
            'p' => ["PM", "AM"][usize::from(is_morning)],
            'P' => ["pm", "am"][usize::from(is_morning)],
            // A time without a zone has neither name nor offset.
            'Z' | 'z' => "",
            'n' => "\n",
            't' => "\t",
            '%' => "%",
            other => return Err(format!("strftime_now: expected a field of Python's strftime, found %{other}")),
        }
        .to_owned())
    }

    /// Year and week by ISO 8601: those of the week's Thursday.
    fn iso_week(&self) -> (u64, u64) {
        let days = self.seconds / 86_400;
        let thursday = (days + 3).saturating_sub(self.weekday);
        let year = civil_date(thursday).0;
        (year, (thursday - days_before(year)) / 7 + 1)
    }
}

fn padded(value: u64, width: usize, pad: char, flag: Option<char>) -> String {
    match flag {
        Some('-') => value.to_string(),
        Some('_') => format!("{value:width$}"),
        Some('0') => format!("{value:0width$}"),
        _ if pad == ' ' => format!("{value:width$}"),
        _ => format!("{value:0width$}"),
    }
}

/// Days from 1970-01-01 to the first of January.
fn days_before(year: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

/// Days since 1970-01-01 → (year, month, day) in the Gregorian calendar, by Howard Hinnant's
/// `civil_from_days`: eras of 400 years that begin on a first of March.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Every field and flag, at times around the ends of years and days: `golden/make_template_golden.py` has them
    /// from Python.
    #[test]
    fn f12_dates_are_those_of_python() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/templates/dates.json");
        let dates: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let dates = dates.as_array().unwrap();
        assert!(dates.len() > 100);
        for date in dates {
            let (seconds, format) = (date[0].as_u64().unwrap(), date[1].as_str().unwrap());
            assert_eq!(strftime(format, seconds, 1234).unwrap(), date[2].as_str().unwrap(), "{format} at {seconds}");
        }
    }

    #[test]
    fn days_are_written_as_they_are_read() {
        assert_eq!(Day::DEFAULT.to_string(), "2024-07-26");
        for text in ["1970-01-01", "2000-02-29", "2026-11-29", "2024-12-31", "9999-12-31"] {
            let day: Day = text.parse().unwrap();
            assert_eq!(serde_json::to_string(&day).unwrap(), format!("{text:?}"));
            assert_eq!(strftime_on(day, "%Y-%m-%d %H:%M:%S").unwrap(), format!("{text} 00:00:00"));
        }
        for text in ["", "today", "2026-11-31", "2023-02-29", "1969-12-31", "2026-1-1", "é26-01-01", "99999-01-01"] {
            assert!(text.parse::<Day>().unwrap_err().contains("2026-11-29"), "{text}");
        }
        assert!(Day::today() > Day::DEFAULT);
    }

    #[test]
    fn a_field_that_python_does_not_have_is_refused() {
        assert!(strftime("%Q", 0, 0).unwrap_err().contains("%Q"));
        assert!(strftime("%", 0, 0).unwrap_err().contains("the end"));
        assert!(strftime("%-", 0, 0).unwrap_err().contains("the end"));
        assert!(strftime_now("%Y").unwrap().starts_with("20"));
    }
}
