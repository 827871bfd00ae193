//! What a person sees while something runs: a bar on a terminal, plain lines otherwise, nothing with --quiet.

use crate::call;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Progress of a known or unknown number of steps.
pub struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    what: &'static str,
    total: Option<u64>,
    done: u64,
    /// Steps of an earlier run, which took none of this one's time.
    skipped: u64,
    started: Instant,
    last_line: Instant,
}

/// Seconds between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

impl Progress {
    /// Starts; `what` names the steps (`steps`, `rows`).
    pub fn new(total: Option<u64>, what: &'static str, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && !call::is_called();
        let bar = (terminal && !quiet).then(|| bar(total, what));
        let now = Instant::now();
        Self { bar, quiet, what, total, done: 0, skipped: 0, started: now, last_line: now }
    }

    /// Begins after the steps that an earlier run did.
    pub fn skip(&mut self, done: u64) {
        (self.done, self.skipped) = (done, done);
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.reset_eta();
        }
    }

    /// Sets how far it is, with a message of the latest figures.
    pub fn set(&mut self, done: u64, message: &str) {
        self.done = done;
        if call::is_called() {
            return call::progress(done, self.total, self.what, message);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message.to_owned());
        } else if !self.quiet && (self.last_line.elapsed() >= LINE_EVERY || Some(done) == self.total) {
            self.last_line = Instant::now();
            eprintln!("{}", self.line(message));
        }
    }

    fn line(&self, message: &str) -> String {
        let Progress { done, what, .. } = self;
        match self.total {
            Some(total) if *done == self.skipped => format!("{done}/{total} {what}  {message}"),
            Some(total) => {
                let rate = (*done - self.skipped) as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
                let left = Duration::from_secs_f64(total.saturating_sub(*done) as f64 / rate.max(1e-9));
                format!("{done}/{total} {what}, {} left  {message}", clock(left))
            }
            None => format!("{done} {what}  {message}"),
        }
    }

    /// More steps than were known at the start.
    pub fn lengthen(&mut self, more: u64) {
        self.total = self.total.map(|total| total + more);
        if let (Some(bar), Some(total)) = (&self.bar, self.total) {
            bar.set_length(total);
        }
    }

    /// A line that stays, above the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None if !self.quiet => say(line),
            None => {}
        }
    }

    /// Ends the display.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Option<u64>, what: &str) -> ProgressBar {
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let template = match total {
        Some(_) => format!("{{bar:30}} {{pos}}/{{len}} {what}, {{eta}} left  {{msg}}"),
        None => format!("{{spinner}} {{pos}} {what}, {{per_sec}}  {{msg}}"),
    };
    bar.set_style(ProgressStyle::with_template(&template).expect("the template is constant"));
    bar
}

fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=99 => format!("{seconds} s"),
        _ => format!("{} min", seconds / 60),
    }
}

/// A line for people: to the command's caller, or to standard error.
pub fn say(line: &str) {
    if !call::hears(line) {
        eprintln!("{line}");
    }
}

/// Writes a result to the command's caller, or to standard output.
pub fn print(text: std::fmt::Arguments) {
    if call::takes_output(text) {
        return;
    }
    match std::io::stdout().lock().write_fmt(text) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("kudos: standard output: {error}");
            std::process::exit(1);
        }
    }
}

/// A bar of `width` cells, `share` of it filled.
pub fn meter(share: f64, width: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let mut cells = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        cells.push(['▏', '▎', '▍', '▌', '▋', '▊', '▉'][eighths % 8 - 1]);
    }
    let used = cells.chars().count();
    cells + &" ".repeat(width - used)
}

/// The first `width` characters on one line, with an ellipsis when something is left out.
pub fn one_line(text: &str, width: usize) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match flat.chars().count() > width {
        true => flat.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        false => flat,
    }
}

/// The text in lines of at most 80 characters, cut between words; a longer word has a line of its own, and a number
/// keeps its percent sign.
pub fn wrapped(text: &str) -> String {
    const WIDTH: usize = 80;
    let glued = text.replace(" %", "\0%");
    let (mut lines, mut width) = (String::new(), 0);
    for word in glued.split_whitespace() {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > WIDTH {
            lines.push('\n');
            width = 0;
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += length;
    }
    lines.replace('\0', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_run_takes_the_time_of_what_is_left() {
        let mut progress = Progress::new(Some(100), "steps", true);
        progress.skip(90);
        assert_eq!(progress.line(""), "90/100 steps  ");
        progress.started -= Duration::from_secs(10);
        progress.done = 95;
        assert_eq!(progress.line("x"), "95/100 steps, 10 s left  x");
    }

    #[test]
    fn text_is_cut_between_words() {
        let text = format!("{} {} tail", "é".repeat(40), "b".repeat(39));
        assert_eq!(wrapped(&text), format!("{} {}\ntail", "é".repeat(40), "b".repeat(39)));
        assert_eq!(wrapped(&format!("a {} b", "c".repeat(90))), format!("a\n{}\nb", "c".repeat(90)));
        assert_eq!(wrapped(&format!("{} 100 %).", "a".repeat(75))), format!("{}\n100 %).", "a".repeat(75)));
        assert_eq!(wrapped(""), "");
    }

    #[test]
    fn meters_and_lines_keep_their_width() {
        assert_eq!(meter(0.5, 4), "██  ");
        assert_eq!(meter(1.2, 3), "███");
        assert_eq!(meter(0.3, 4), "█▎  ");
        assert_eq!(one_line("a\n b   c", 10), "a b c");
        assert_eq!(one_line("abcdef", 4), "abc…");
    }
}
