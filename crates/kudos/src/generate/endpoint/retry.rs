//! Which failures may pass, and how long to wait before asking again.

use crate::http::{Response, header};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest pause that a server may ask for: it is asked again then, whatever it said.
const LONGEST_ASKED: Duration = Duration::from_secs(600);
/// The longest pause of our own choice.
const LONGEST: Duration = Duration::from_secs(60);

/// True for statuses of servers that are busy, restarting or overloaded, and of requests that came too early or late.
pub(super) fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 409 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// The wait before retry number `retry` (from 0): what the server asked for, or else between half and all of `first`
/// doubled each time, at random so that many clients do not return together.
pub(super) fn pause(asked: Option<Duration>, retry: u32, first: Duration) -> Duration {
    if let Some(asked) = asked.filter(|asked| !asked.is_zero()) {
        return asked.min(LONGEST_ASKED);
    }
    let doubled = first.saturating_mul(2u32.saturating_pow(retry.min(16))).min(LONGEST);
    doubled.mul_f64(0.5 + 0.5 * chance())
}

/// A number in [0, 1), another one each time. The texts must not depend on it.
fn chance() -> f64 {
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}

/// What `Retry-After` asks for, in either of its forms. A date is measured by the server's own clock if it shows it.
pub(super) fn asked(response: &Response) -> Option<Duration> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let date = header(response, "date").and_then(http_date).unwrap_or_else(now);
    retry_after(header(response, "retry-after")?, date)
}

fn retry_after(text: &str, now: u64) -> Option<Duration> {
    let text = text.trim();
    let seconds = text.parse::<u64>().ok();
    let until = || http_date(text).map(|at| at.saturating_sub(now));
    seconds.or_else(until).map(Duration::from_secs)
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the one form of date that servers may send (RFC 9110, 5.6.7).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words[..] else {
        return None;
    };
    let month = MONTHS.iter().position(|name| *name == month)? as u64;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<u64> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hour, minute, second] = clock[..] else {
        return None;
    };
    let is_valid = (1..=31).contains(&day) && (1970..=9999).contains(&year) && hour < 24 && minute < 60 && second < 61;
    is_valid.then(|| ((days_before(year, month) + day - 1) * 24 + hour) * 3600 + minute * 60 + second)
}

/// Days from 1 January 1970 to the first of a month (0 is January).
fn days_before(year: u64, month: u64) -> u64 {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let this_year = BEFORE[month as usize] + u64::from(is_leap && month > 1);
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969) + this_year
}

/// A bell that ends all pauses at once.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    pub fn ring(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    pub fn has_rung(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; false if the bell rang.
    pub fn pause(&self, length: Duration) -> bool {
        let rung = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(rung, length, |rung| !*rung);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let first = Duration::from_secs(1);
        for (retry, most) in [(0, 1), (1, 2), (3, 8), (6, 60), (99, 60)] {
            let pause = pause(None, retry, first);
            let most = Duration::from_secs(most);
            assert!(most / 2 <= pause && pause <= most, "{retry}: {pause:?}");
        }
        assert!(pause(Some(Duration::ZERO), 3, first) >= Duration::from_secs(4), "at once is not obeyed");
        assert_eq!(pause(Some(Duration::from_secs(7)), 0, first), Duration::from_secs(7));
        assert_eq!(pause(Some(Duration::from_secs(99_999)), 0, first), LONGEST_ASKED);
    }

    #[test]
    fn dates() {
        let cases = [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(1_709_251_199)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("Fri, 31 Dec 2100 00:00:00 GMT", Some(4_133_894_400)),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sun, 06 Foo 1994 08:49:37 GMT", None),
            ("Sun, 99 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 99999999999 08:49:37 GMT", None),
            ("soon", None),
        ];
        for (text, expected) in cases {
            assert_eq!(http_date(text), expected, "{text}");
        }
    }

    #[test]
    fn both_forms_of_retry_after() {
        let cases = [
            (" 12 ", Some(12)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-3", None),
            ("1.5", None),
        ];
        for (text, expected) in cases {
            assert_eq!(retry_after(text, 784_111_740), expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_bell_ends_a_pause() {
        let stop = Stop::default();
        assert!(stop.pause(Duration::from_millis(1)));
        let other = stop.clone();
        let thread = std::thread::spawn(move || other.pause(Duration::from_secs(60)));
        stop.ring();
        assert!(!thread.join().unwrap() && stop.has_rung());
    }
}
