//! Words and numbers as HTML: everything that comes from data passes through here.
//!
//! Texts of data are hostile until escaped: they hold markup, control characters and, in right-to-left scripts, marks
//! that reorder what stands around them. [`escape`] makes them inert, and [`quoted`] gives each its own direction.

use crate::eval::Rate;
use std::fmt::Write;

/// Text for an element or a quoted attribute. Control characters are shown by their pictures (␀ …) and marks that
/// override the direction of text by their numbers, as both would otherwise change what is seen around them.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + text.len() / 8);
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(character),
            '\r' => {}
            '\0'..='\x1f' => safe.push(picture(character as u32)),
            '\x7f' => safe.push('␡'),
            '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(safe, "⟨U+{:04X}⟩", character as u32);
            }
            _ => safe.push(character),
        }
    }
    safe
}

/// The picture of a control character.
fn picture(control: u32) -> char {
    char::from_u32(0x2400 + control).unwrap_or('\u{fffd}')
}

/// Characters of a text that are shown at once; the rest opens on a click.
const SHOWN: usize = 320;

/// A text of the data, in its own direction; the end of a long one is folded away.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => format!("<p class=\"quote\" dir=\"auto\">{}</p>", escape(text)),
        Some((limit, _)) => {
            let cut = text[..limit].rfind(char::is_whitespace).filter(|cut| *cut > limit / 2).unwrap_or(limit);
            let (start, rest) = text.split_at(cut);
            format!(
                "<p class=\"quote\" dir=\"auto\">{} …</p><details class=\"rest\"><summary>the rest</summary>\
                 <p class=\"quote\" dir=\"auto\">… {}</p></details>",
                escape(start),
                escape(rest.trim_start())
            )
        }
    }
}

/// A short text of the data on one line.
pub(super) fn name(text: &str) -> String {
    format!("<bdi>{}</bdi>", escape(text))
}

/// `71.2 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{}\u{a0}%", decimal(100.0 * share, 1))
}

/// `3.4 points`: a difference of two shares.
pub(super) fn points(share: f64) -> String {
    format!("{}\u{a0}points", decimal(100.0 * share, 1))
}

/// With a true minus sign, and no minus before a rounded zero.
pub(super) fn decimal(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| c == '0' || c == '.') => rest.to_owned(),
        Some(rest) => format!("\u{2212}{rest}"),
        None => text,
    }
}

/// Decimals for values under each other that differ by up to `spread`: two, more where they would look equal.
pub(super) fn decimals_for(spread: f64) -> usize {
    if spread > 0.0 { (1.0 - spread.log10().floor()).clamp(2.0, 6.0) as usize } else { 2 }
}

/// Three significant digits or so: for figures of unknown size.
pub(super) fn figure_of(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if !(1e-4..1e6).contains(&size) => format!("{value:.2e}"),
        size => decimal(value, (2 - size.log10().floor() as i32).clamp(0, 6) as usize),
    }
}

/// `12,345`.
pub(super) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 pair`, `1,200 pairs`.
pub(super) fn counted(number: usize, noun: &str) -> String {
    format!("{}\u{a0}{noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A figure that `eval --json` has too: `pointer` is its place there (RFC 6901), and the page keeps all its digits.
pub(super) fn datum(pointer: &str, value: f64, shown: &str) -> String {
    format!("<data data-key=\"{}\" value=\"{value}\">{shown}</data>", escape(pointer))
}

/// The figure if there is one, else a dash.
pub(super) fn datum_or_dash(pointer: &str, value: Option<f64>, shown: impl Fn(f64) -> String) -> String {
    value.map_or("–".into(), |value| datum(pointer, value, &shown(value)))
}

/// `[64.1, 79.0]`, in percent.
pub(super) fn interval([low, high]: [f64; 2]) -> String {
    format!("[{}, {}]", decimal(100.0 * low, 1), decimal(100.0 * high, 1))
}

/// `71.2 % [64.1, 79.0]`, or a dash.
pub(super) fn rate(rate: &Rate) -> String {
    match (rate.accuracy, rate.accuracy_ci95) {
        (Some(accuracy), Some(ci)) => format!("{} <span class=\"ci\">{}</span>", percent(accuracy), interval(ci)),
        (Some(accuracy), None) => percent(accuracy),
        (None, _) => "–".into(),
    }
}

/// A key of an RFC 6901 pointer.
pub(super) fn pointer_key(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// A table; the first cell of a row is its heading, the others stand to the right as numbers do. Cells are HTML.
pub(super) fn table(caption: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = String::from("<div class=\"scroll\"><table>");
    if !caption.is_empty() {
        let _ = write!(html, "<caption>{caption}</caption>");
    }
    html.push_str("<thead><tr>");
    for cell in head {
        let _ = write!(html, "<th scope=\"col\">{cell}</th>");
    }
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let _ = match column {
                0 => write!(html, "<th scope=\"row\">{cell}</th>"),
                _ => write!(html, "<td>{cell}</td>"),
            };
        }
        html.push_str("</tr>");
    }
    html + "</tbody></table></div>"
}

/// Words in a table: they stand to the left.
pub(super) fn words(html: &str) -> String {
    format!("<span class=\"words\">{html}</span>")
}

/// A chart with its caption.
pub(super) fn figure(class: &str, chart: &str, caption: &str) -> String {
    format!("<figure class=\"{class}\">{chart}<figcaption>{caption}</figcaption></figure>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaping_leaves_nothing_that_acts() {
        let cases = [
            ("<script>alert('x')</script>", "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"),
            ("a \"b\" & c", "a &quot;b&quot; &amp; c"),
            ("nul \0 bell \x07 del \x7f", "nul ␀ bell ␇ del ␡"),
            ("line\r\nnext\ttab", "line\nnext\ttab"),
            ("abc\u{202e}fed", "abc⟨U+202E⟩fed"),
            ("\u{2066}x\u{2069}", "⟨U+2066⟩x⟨U+2069⟩"),
            ("c1 \u{85}", "c1 ⟨U+0085⟩"),
            ("مرحبا שלום 👋🏽", "مرحبا שלום 👋🏽"),
        ];
        for (text, expected) in cases {
            assert_eq!(escape(text), expected);
        }
    }

    #[test]
    fn long_texts_fold_at_a_word() {
        assert!(!quoted(&"x".repeat(SHOWN)).contains("<details"));
        let words = quoted(&"word ".repeat(100));
        assert!(words.contains("word …</p><details") && words.contains("… word"), "{words}");
        let unbroken = quoted(&"é".repeat(SHOWN + 1));
        assert!(unbroken.contains("… é</p></details>"), "{unbroken}");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(percent(0.7125), "71.2\u{a0}%");
        assert_eq!(decimal(-0.04, 1), "0.0");
        assert_eq!(decimal(-1.25, 1), "\u{2212}1.2");
        assert_eq!([0, 12, 1234, 1_234_567].map(count), ["0", "12", "1,234", "1,234,567"]);
        assert_eq!(counted(1, "pair"), "1\u{a0}pair");
        assert_eq!([0.0, 0.00005, 0.01234, 1.5, 123.456].map(figure_of), ["0", "5.00e-5", "0.0123", "1.50", "123"]);
    }

    #[test]
    fn a_datum_keeps_every_digit() {
        let html = datum("/data/0/accuracy", 2.0 / 3.0, "66.7 %");
        assert_eq!(html, "<data data-key=\"/data/0/accuracy\" value=\"0.6666666666666666\">66.7 %</data>");
        assert_eq!(pointer_key("a/b~c"), "a~1b~0c");
    }
}
