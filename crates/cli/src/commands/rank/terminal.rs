//! `kudos rank --terminal`: the same work on the same database, with lines that are typed.
//!
//! Texts come from models and may hold anything: control characters, and with them every ANSI code, are taken out or written
//! in words before they reach the terminal.

use super::super::Global;
use crate::interrupt;
use kudos::data::{ASSISTANT, Content, USER};
use rank::{AnnotatorId, Ballot, QueueSettings, Revealed, Store, StoreError, Task};
use std::io::{BufRead, Write};
use std::time::Instant;

const HELP: &str = "\
  2 1 3      ranks, in the order shown: B is best, then A, then C
  1 1 2      the same number is a tie
  1 - -      A is best; of the others you cannot tell
  s REASON   skip this prompt
  u          undo the last ranking
  r          read the texts again
  q          end (everything is stored)";

/// Asks for rankings until nothing waits, the input ends, or `q` is typed.
pub fn run(store: &Store, name: &str, queue: &QueueSettings, global: &Global) -> anyhow::Result<()> {
    let annotator = store.annotator(name)?;
    let mut session = Session { store, annotator, queue, last: None, made: 0 };
    if !global.quiet {
        outln!("You rank as {name}. Type one number for each response, 1 for the best; ? for help.");
    }
    let input = std::io::stdin();
    session.run(&mut input.lock())
}

struct Session<'a> {
    store: &'a Store,
    annotator: AnnotatorId,
    queue: &'a QueueSettings,
    /// The vote that `u` takes back.
    last: Option<String>,
    /// Votes of this session, for their ids.
    made: u64,
}

/// What a line asks for.
#[derive(Debug, PartialEq)]
enum Line {
    Ranks(Vec<Option<u32>>),
    Skip(String),
    Undo,
    Again,
    Help,
    Quit,
    /// Not understood: what to say.
    Wrong(String),
}

impl Session<'_> {
    fn run(&mut self, input: &mut impl BufRead) -> anyhow::Result<()> {
        while let Some(task) = self.store.next(self.annotator, self.queue)? {
            show(&task);
            if !self.answer(&task, input)? {
                return Ok(());
            }
        }
        outln!("\nNothing waits for you: {} ranked.", self.progress());
        Ok(())
    }

    /// Reads lines until one of them ends the task; false ends the session.
    fn answer(&mut self, task: &Task, input: &mut impl BufRead) -> anyhow::Result<bool> {
        let began = Instant::now();
        loop {
            out!("{} > ", letters(task.responses.len()));
            std::io::stdout().flush()?;
            let mut line = String::new();
            if input.read_line(&mut line)? == 0 || interrupt::flow().is_break() {
                outln!();
                return Ok(false);
            }
            match understood(&line, task.responses.len()) {
                Line::Quit => return Ok(false),
                Line::Help => outln!("{HELP}"),
                Line::Again => show(task),
                Line::Wrong(why) => outln!("{why}"),
                Line::Undo => {
                    if self.undo()? {
                        return Ok(true);
                    }
                }
                Line::Ranks(ranks) => {
                    if self.submit(task, ranks, None, began)? {
                        return Ok(true);
                    }
                }
                Line::Skip(reason) => {
                    if self.submit(task, Vec::new(), Some(reason), began)? {
                        return Ok(true);
                    }
                }
            }
        }
    }

    fn submit(
        &mut self,
        task: &Task,
        ranks: Vec<Option<u32>>,
        skipped: Option<String>,
        began: Instant,
    ) -> anyhow::Result<bool> {
        self.made += 1;
        let ballot = Ballot {
            vote: self.id(task),
            task: task.task,
            annotator: self.annotator,
            ranks,
            ratings: Default::default(),
            flags: Vec::new(),
            comment: None,
            seconds: Some(began.elapsed().as_secs_f64()),
            skipped,
        };
        match self.store.submit(&ballot) {
            Err(StoreError::Ballot(reason)) => {
                outln!("{reason}");
                return Ok(false);
            }
            stored => drop(stored?),
        }
        let revealed = self.store.reveal(&ballot.vote, self.annotator)?.filter(|_| ballot.skipped.is_none());
        if let Some(said) = revealed.as_ref().filter(|_| self.queue.order == rank::Order::Review).and_then(label) {
            outln!("{said}");
        }
        self.last = Some(ballot.vote);
        Ok(true)
    }

    fn undo(&mut self) -> anyhow::Result<bool> {
        let Some(vote) = self.last.take() else {
            outln!("Nothing to undo in this session.");
            return Ok(false);
        };
        self.store.withdraw(&vote, self.annotator)?;
        outln!("Taken back.");
        Ok(true)
    }

    /// A UUID (version 8, of our own making): this process, this moment, this vote.
    fn id(&self, task: &Task) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mut stream = kudos::random::Stream::new(now as u64 ^ u64::from(std::process::id()), self.made);
        let (high, low) = (stream.bits(), stream.bits() ^ task.task.0 as u64);
        let (a, b, c) = (high >> 32, high >> 16 & 0xffff, high & 0xfff);
        format!("{a:08x}-{b:04x}-8{c:03x}-8{:03x}-{:012x}", low >> 48 & 0xfff, low & 0xffff_ffff_ffff)
    }

    fn progress(&self) -> String {
        let progress = self.store.progress(self.annotator, self.queue);
        format!("{} of yours, {} of {} prompts complete", progress.mine, progress.complete, progress.items)
    }
}

fn label(revealed: &Revealed) -> Option<&'static str> {
    match revealed.agrees? {
        share if share > 0.5 => Some("The label of the file says the same."),
        share if share < 0.5 => Some("The label of the file says the opposite."),
        _ => Some("The label of the file says neither the same nor the opposite."),
    }
}

fn understood(line: &str, responses: usize) -> Line {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match word {
        "" | "?" | "h" | "help" => Line::Help,
        "q" => Line::Quit,
        "u" => Line::Undo,
        "r" => Line::Again,
        "s" if rest.trim().is_empty() => Line::Wrong("Say why, as in: s cannot judge".into()),
        "s" => Line::Skip(rest.trim().to_owned()),
        _ => ranks(line, responses),
    }
}

/// `2 1 3`, `2,1,3`, or, of at most nine responses, `213`.
fn ranks(line: &str, responses: usize) -> Line {
    let mut words: Vec<&str> = line.split([' ', ',', '\t']).filter(|word| !word.is_empty()).collect();
    if words.len() == 1 && responses <= 9 && words[0].is_ascii() {
        words = words[0].split("").filter(|word| !word.is_empty()).collect();
    }
    if words.len() != responses {
        return Line::Wrong(format!("Expected {responses} numbers, one a response, found {}; ? for help", words.len()));
    }
    let rank = |word: &&str| match *word {
        "-" | "." => Ok(None),
        word => word.parse().map(Some).map_err(|_| word.to_owned()),
    };
    match words.iter().map(rank).collect() {
        Ok(ranks) => Line::Ranks(ranks),
        Err(word) => Line::Wrong(format!("Expected numbers or -, found {}; ? for help", plain(&word))),
    }
}

fn letters(responses: usize) -> String {
    (0..responses).map(letter).collect::<Vec<_>>().join(" ")
}

fn letter(at: usize) -> String {
    char::from(b'A' + at as u8).to_string()
}

fn show(task: &Task) {
    let progress = &task.progress;
    outln!("\n─── {} left for you ───", progress.left);
    if let Some(prompt) = &task.prompt {
        outln!("{}", text(prompt, USER));
    }
    for (at, response) in task.responses.iter().enumerate() {
        outln!("\n[{}] {}", letter(at), text(&response.content, ASSISTANT));
    }
    outln!();
}

fn text(content: &Content, role: &str) -> String {
    plain(content.as_text(role).trim())
}

/// Without control characters: the codes that they begin are taken out, line ends and tabs stay. Marks that turn the direction
/// of writing are taken out too.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\t' => plain.push(c),
            '\r' => {}
            '\u{1b}' | '\u{9b}' => skip_code(c, &mut chars),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

/// The rest of an escape sequence (ECMA-48): `[` … a letter, `]` … BEL or ESC \, or one character.
fn skip_code(first: char, chars: &mut std::iter::Peekable<std::str::Chars>) {
    let kind = if first == '\u{9b}' { Some('[') } else { chars.next() };
    match kind {
        Some('[') => {
            while chars.peek().is_some_and(|c| (' '..='?').contains(c)) {
                chars.next();
            }
            if chars.peek().is_some_and(|c| ('@'..='~').contains(c)) {
                chars.next();
            }
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = chars.next() {
                if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) || c == '\u{9c}' {
                    break;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let ranks = |ranks: &[u32]| Line::Ranks(ranks.iter().map(|r| (*r > 0).then_some(*r)).collect());
        let cases = [
            ("2 1 3\n", ranks(&[2, 1, 3])),
            ("213", ranks(&[2, 1, 3])),
            ("1,1,2", ranks(&[1, 1, 2])),
            ("1 - -", ranks(&[1, 0, 0])),
            ("1--", ranks(&[1, 0, 0])),
            ("s  cannot judge ", Line::Skip("cannot judge".into())),
            ("u", Line::Undo),
            ("?", Line::Help),
            ("", Line::Help),
            ("q", Line::Quit),
        ];
        for (line, expected) in cases {
            assert_eq!(understood(line, 3), expected, "{line}");
        }
        for wrong in ["12", "1 2", "1 2 x", "s", "10 2", "é12"] {
            assert!(matches!(understood(wrong, 3), Line::Wrong(_)), "{wrong}");
        }
        assert_eq!(understood(&"1 ".repeat(12), 12), ranks(&[1; 12]));
    }

    #[test]
    fn texts_cannot_steer_the_terminal() {
        let cases = [
            ("a\u{1b}[31mred\u{1b}[0m b", "ared b"),
            ("a\u{1b}]0;title\u{7}b", "ab"),
            ("a\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\b", "alinkb"),
            ("a\u{9b}2Jb", "ab"),
            ("a\u{1b}cb\u{0}\u{8}c\r\nd\te", "abc\nd\te"),
            ("\u{1b}", ""),
            ("\u{1b}[", ""),
            ("a\u{202e}b\u{2067}c", "abc"),
            ("عربي é 🙂", "عربي é 🙂"),
        ];
        for (text, expected) in cases {
            assert_eq!(plain(text), expected, "{text:?}");
        }
    }
}
