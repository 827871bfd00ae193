//! `'…%s…' % values` in a template, which minijinja has no operator for.
//!
//! Where the text is written out, `'%s: %d' % (name, n)` is rewritten to `'%s: %d' | percent_format((name, n))` before
//! the template is parsed. Any other `%` is left to minijinja, which computes the remainder of numbers and refuses
//! strings with an error: a text that is not written out (`pattern % x`) is such a case.
//!
//! This file knows the tokens of an expression. It must not know what they mean.

/// The filter that does it.
pub(super) const FILTER: &str = "percent_format";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Name,
    /// One of `([{`.
    Open,
    /// One of `)]}`.
    Close,
    Sign,
}

/// A token of an expression, with its place in the source.
#[derive(Clone, Copy, Debug)]
struct Token<'s> {
    kind: Kind,
    text: &'s str,
    start: usize,
}

impl Token<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }
}

/// The source with every `%` after a written-out text as a filter.
pub(super) fn as_filter(source: &str) -> String {
    let mut written = String::with_capacity(source.len());
    let mut copied = 0;
    let mut at = 0;
    while let Some(tag) = source[at..].find("{").map(|found| at + found) {
        let rest = &source[tag..];
        at = match rest.as_bytes().get(1) {
            Some(b'#') => rest.find("#}").map_or(source.len(), |end| tag + end + 2),
            Some(b'{' | b'%') if is_raw(rest) => end_of_raw(rest).map_or(source.len(), |end| tag + end),
            Some(b'{' | b'%') => {
                let (tokens, end) = tokens(source, tag + 2);
                for (from, to, replaced) in replacements(source, &tokens) {
                    written.push_str(&source[copied..from]);
                    written.push_str(&replaced);
                    copied = to;
                }
                end
            }
            _ => tag + 1,
        };
    }
    written + &source[copied..]
}

/// Whether a tag opens a part that is text as it stands.
fn is_raw(tag: &str) -> bool {
    tag.strip_prefix("{%").is_some_and(|tag| first_word(tag) == "raw")
}

fn first_word(tag: &str) -> &str {
    let tag = tag.trim_start_matches(['-', '+']).trim_start();
    &tag[..tag.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(tag.len())]
}

/// Where the part ends that a raw tag opens.
fn end_of_raw(tag: &str) -> Option<usize> {
    let mut ends = tag.match_indices("{%").skip(1);
    ends.find(|(at, _)| first_word(&tag[at + 2..]) == "endraw").map(|(at, _)| at + 2)
}

/// The tokens of a tag from byte `at` on, and where the tag ends.
fn tokens(source: &str, mut at: usize) -> (Vec<Token<'_>>, usize) {
    let mut tokens: Vec<Token> = Vec::new();
    let mut depth = 0usize;
    while let Some(letter) = source[at..].chars().next() {
        let rest = &source[at..];
        if letter.is_whitespace() {
            at += letter.len_utf8();
            continue;
        }
        if depth == 0 && (rest.starts_with("}}") || rest.starts_with("%}")) {
            return (tokens, at + 2);
        }
        let (kind, length) = token(rest, letter);
        match kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        tokens.push(Token { kind, text: &rest[..length], start: at });
        at += length;
    }
    (tokens, at)
}

/// Kind and bytes of the token at the front, which begins with `letter`.
fn token(rest: &str, letter: char) -> (Kind, usize) {
    let run = |goes_on: fn(char) -> bool| rest.find(|letter| !goes_on(letter)).unwrap_or(rest.len());
    match letter {
        '\'' | '"' => (Kind::Text, end_of_text(rest, letter)),
        '0'..='9' => (Kind::Number, run(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '.'))),
        '(' | '[' | '{' => (Kind::Open, 1),
        ')' | ']' | '}' => (Kind::Close, 1),
        letter if letter.is_alphabetic() || letter == '_' => {
            (Kind::Name, run(|letter| letter.is_alphanumeric() || letter == '_'))
        }
        _ if rest.starts_with("**") || rest.starts_with("//") => (Kind::Sign, 2),
        _ => (Kind::Sign, letter.len_utf8()),
    }
}

/// Bytes of a text with its quotes.
fn end_of_text(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// What is to be replaced: first byte, end, and by what.
fn replacements(source: &str, tokens: &[Token]) -> Vec<(usize, usize, String)> {
    let mut found = Vec::new();
    let mut at = 1;
    while at < tokens.len() {
        let binds = at >= 2
            && (tokens[at - 2].kind == Kind::Text || matches!(tokens[at - 2].text, "*" | "/" | "//" | "%" | "**"));
        let is_format = tokens[at].text == "%" && tokens[at - 1].kind == Kind::Text && !binds;
        let Some(end) = is_format.then(|| operand(tokens, at + 1)).flatten() else {
            at += 1;
            continue;
        };
        let (first, last) = (tokens[at + 1].start, tokens[end - 1].end());
        found.push((tokens[at].start, last, format!("| {FILTER}({})", as_operand(&source[first..last]))));
        at = end;
    }
    found
}

/// An operand may hold the like.
fn as_operand(source: &str) -> String {
    let (tokens, _) = tokens(source, 0);
    let mut written = String::new();
    let mut copied = 0;
    for (from, to, replaced) in replacements(source, &tokens) {
        written.push_str(&source[copied..from]);
        written.push_str(&replaced);
        copied = to;
    }
    written + &source[copied..]
}

/// The token after the operand that begins at token `at`: a value with its attributes, items, calls and filters.
/// `None` for what goes on in another way (a test, a power, another `%`), and where there is no value.
fn operand(tokens: &[Token], mut at: usize) -> Option<usize> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    while text(at) == "-" {
        at += 1;
    }
    at = match tokens.get(at)?.kind {
        Kind::Text | Kind::Number | Kind::Name => at + 1,
        Kind::Open => after_group(tokens, at)?,
        Kind::Close | Kind::Sign => return None,
    };
    loop {
        at = match text(at) {
            "." | "|" => at + 2,
            "(" | "[" => after_group(tokens, at)?,
            "is" | "**" | "%" => return None,
            _ => return Some(at.min(tokens.len())),
        };
    }
}

/// The token after the bracket that closes the one at `at`.
fn after_group(tokens: &[Token], at: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (after, token) in tokens.iter().enumerate().skip(at) {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(after + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn written_out_texts_are_formatted_and_all_else_is_left() {
        let same = [
            "100 % of {{ n % 2 }}",
            "{% if loop.index0 % 2 == 0 %}{{ 'even' }}{% endif %}",
            "{# 'a' % b #}{% raw %}{{ 'a' % b }}{% endraw %}",
            "{{ pattern % x }}{{ 2 * 'a' % b }}{{ 'a' % b is string }}{{ 'a' % b ** 2 }}",
            "{% set x = 'a' %}{%- set y = \"b\" -%}",
            "{{ 'unfinished % x",
            "{{ 'a' % }}{% 'b' %",
        ];
        for source in same {
            assert_eq!(as_filter(source), source);
        }
        let cases = [
            ("{{ '%s' % x }}", "{{ '%s' | percent_format(x) }}"),
            ("{{ '%s, %d' % (a.b, n + 1) ~ 'z' }}", "{{ '%s, %d' | percent_format((a.b, n + 1)) ~ 'z' }}"),
            (
                "{%- set x = \"%s\" % m['content']|trim -%}",
                "{%- set x = \"%s\" | percent_format(m['content']|trim) -%}",
            ),
            (
                "{{ '%s' % -n }}%{{ f('%s' % f(x), y) }}",
                "{{ '%s' | percent_format(-n) }}%{{ f('%s' | percent_format(f(x)), y) }}",
            ),
            ("{{ '%s' % ('<%s>' % x) }}", "{{ '%s' | percent_format(('<%s>' | percent_format(x))) }}"),
            ("{{ {'a': '%s' % {'b': 1}} }}", "{{ {'a': '%s' | percent_format({'b': 1})} }}"),
        ];
        for (source, expected) in cases {
            assert_eq!(as_filter(source), expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_gone_through(source in "[{}%#'\"()\\[\\] ax1|.é-]{0,40}") {
            let written = as_filter(&source);
            prop_assert!(written == source || written.contains(FILTER));
        }
    }
}
