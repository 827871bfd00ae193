//! Chat templates, rendered as transformers renders them.
//!
//! A template is a Jinja program that a model brings along. transformers runs it in Jinja2 with
//! `trim_blocks`, `lstrip_blocks`, loop controls, its own `tojson`, `raise_exception` and `strftime_now`,
//! and a `generation` tag that marks the assistant's tokens; this file gives minijinja the same surroundings.
//! It knows messages and strings. It must not know tokenizers.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::TextError;
use crate::data::{Content, Message};

const NAME: &str = "chat_template";

/// A parsed chat template with the special tokens it may write.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Parses `source`. `special_tokens` are the names and texts a template can use (`bos_token`, …).
    pub(super) fn parse<'a>(
        dir: &Path,
        source: &str,
        special_tokens: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, TextError> {
        let bad = |error: Error| TextError::BadChatTemplate { dir: dir.into(), reason: error.to_string() };
        let mut environment = surroundings().map_err(bad)?;
        for (name, token) in special_tokens {
            environment.add_global(name.to_owned(), token.to_owned());
        }
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(bad)?;
        Ok(Self { environment })
    }

    /// The rendered conversation; without a prompt, `response` must be a list of messages.
    pub(super) fn render(&self, prompt: Option<&Content>, response: &Content) -> Result<String, TextError> {
        if prompt.is_none() && matches!(response, Content::Text(_)) {
            return Err(TextError::ChatNeedsMessages);
        }
        let mut messages = prompt.map_or_else(Vec::new, |prompt| as_messages(prompt, "user"));
        messages.extend(as_messages(response, "assistant"));
        self.run(&messages, false)
    }

    /// Bytes of `rendered` that come before the response's first word: as far as it agrees with the same
    /// conversation about a different response. (The prompt alone may be one that the template refuses.)
    pub(super) fn prompt_bytes(
        &self,
        rendered: &str,
        prompt: Option<&Content>,
        response: &Content,
    ) -> Result<usize, TextError> {
        let mut other = as_messages(response, "assistant");
        let (Some(prompt), Some(first)) = (prompt, other.first_mut()) else {
            return Ok(0);
        };
        let differs = if first.content.trim_start().starts_with('\u{1}') { "\u{2}" } else { "\u{1}" };
        differs.clone_into(&mut first.content);
        let other = self.render(Some(prompt), &Content::Messages(other))?;
        Ok(common_prefix(rendered, &other))
    }

    /// The rendered messages; with `add_generation_prompt`, with what opens the assistant's answer.
    pub(super) fn run(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> {
        let context = minijinja::context! {
            messages => messages.iter().map(as_value).collect::<Vec<_>>(),
            tools => Value::from(()),
            documents => Value::from(()),
            add_generation_prompt => add_generation_prompt,
        };
        let rendered = self.environment.get_template(NAME).and_then(|template| template.render(context));
        rendered.map_err(|error| TextError::ChatTemplate {
            reason: error.to_string(),
            roles: messages.iter().map(|message| message.role.as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}

fn as_value(message: &Message) -> Value {
    Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())])
}

fn as_messages(content: &Content, role: &str) -> Vec<Message> {
    match content {
        Content::Text(text) => vec![Message { role: role.into(), content: text.clone() }],
        Content::Messages(messages) => messages.clone(),
    }
}

/// Bytes that both texts begin with, in whole characters.
fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}

fn surroundings() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.add_test("iterable", is_iterable);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    Ok(environment)
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// As in Python: `none` cannot be iterated over, which templates ask about `tools`; an undefined value can.
fn is_iterable(value: Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String, Undefined};
    matches!(value.kind(), Seq | Map | Iterable | String | Undefined)
}

/// `{% generation %}` marks the assistant's tokens for training on them alone and changes no text. As a
/// `with` block it keeps its whitespace control and its scope.
fn without_generation_tags(source: &str) -> String {
    let mut rest = source;
    let mut kept = String::with_capacity(source.len());
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        kept.push_str(before);
        let length = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(length);
        match tag.trim_matches(['{', '%', '}', '-', '+', ' ', '\t', '\r', '\n']) {
            "generation" => kept.push_str(&tag.replacen("generation", "with", 1)),
            "endgeneration" => kept.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            _ => kept.push_str(tag),
        }
        rest = after;
    }
    kept + rest
}

/// `json.dumps(value, ensure_ascii=False, indent=…)`: Jinja's own filter escapes for HTML, transformers' does not.
fn tojson(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    if options.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: ensure_ascii=true is not supported"));
    }
    options.assert_all_used()?;
    let mut json = String::new();
    write_json(&mut json, &value, indent, 0)?;
    Ok(json)
}

/// Python's separators: `, ` and `: ` on one line; with an indent, a line for each entry.
fn write_json(json: &mut String, value: &Value, indent: Option<usize>, depth: usize) -> Result<(), Error> {
    if let Some(scalar) = json_scalar(value) {
        json.push_str(&scalar);
        return Ok(());
    }
    let is_map = value.kind() == ValueKind::Map;
    json.push(if is_map { '{' } else { '[' });
    for (position, entry) in value.try_iter()?.enumerate() {
        if position > 0 {
            json.push_str(if indent.is_some() { "," } else { ", " });
        }
        new_line(json, indent, depth + 1);
        if is_map {
            json.push_str(&format!("{}: ", json_string(&entry.to_string())));
            write_json(json, &value.get_item(&entry)?, indent, depth + 1)?;
        } else {
            write_json(json, &entry, indent, depth + 1)?;
        }
    }
    if !json.ends_with(['{', '[']) {
        new_line(json, indent, depth);
    }
    json.push(if is_map { '}' } else { ']' });
    Ok(())
}

/// The JSON of anything that has no entries; `None` for lists and maps.
fn json_scalar(value: &Value) -> Option<String> {
    Some(match value.kind() {
        ValueKind::Map | ValueKind::Seq | ValueKind::Iterable => return None,
        ValueKind::Undefined | ValueKind::None => "null".to_owned(),
        ValueKind::Bool => value.is_true().to_string(),
        ValueKind::Number => value.to_string(),
        _ => json_string(&value.to_string()),
    })
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn new_line(json: &mut String, indent: Option<usize>, depth: usize) {
    if let Some(indent) = indent {
        json.push('\n');
        json.push_str(&" ".repeat(indent * depth));
    }
}

/// `datetime.now().strftime(format)`, in UTC: the same text on every machine of a cluster.
fn strftime_now(format: &str) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    strftime(format, now)
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
const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '%' => text.push_str(&time_field(letters.next(), seconds)?),
            other => text.push(other),
        }
    }
    Ok(text)
}

fn time_field(letter: Option<char>, seconds: u64) -> Result<String, Error> {
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let (month_name, weekday) = (MONTHS[month as usize - 1], WEEKDAYS[(days % 7) as usize]);
    Ok(match letter {
        Some('Y') => format!("{year:04}"),
        Some('y') => format!("{:02}", year % 100),
        Some('m') => format!("{month:02}"),
        Some('d') => format!("{day:02}"),
        Some('B') => month_name.to_owned(),
        Some('b') => month_name[..3].to_owned(),
        Some('A') => weekday.to_owned(),
        Some('a') => weekday[..3].to_owned(),
        Some('H') => format!("{:02}", clock / 3600),
        Some('M') => format!("{:02}", clock / 60 % 60),
        Some('S') => format!("{:02}", clock % 60),
        Some('%') => "%".to_owned(),
        other => {
            let found = other.map_or_else(|| "a single %".to_owned(), |letter| format!("%{letter}"));
            let reason = format!("strftime_now knows %Y %y %m %d %B %b %A %a %H %M %S %%, found {found}");
            return Err(Error::new(ErrorKind::InvalidOperation, reason));
        }
    })
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

    fn render(source: &str, prompt: Option<&str>, response: &str) -> Result<(String, usize), TextError> {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let template = ChatTemplate::parse(Path::new("dir"), source, tokens.into_iter())?;
        let prompt = prompt.map(|prompt| Content::Text(prompt.into()));
        let response = Content::Text(response.into());
        let text = template.render(prompt.as_ref(), &response)?;
        let prompt_bytes = template.prompt_bytes(&text, prompt.as_ref(), &response)?;
        Ok((text, prompt_bytes))
    }

    const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + \
         '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    #[test]
    fn chatml_and_the_place_where_the_response_begins() {
        let (text, prompt_bytes) = render(CHATML, Some("Hi"), "Yo").unwrap();
        assert_eq!(text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n");
        assert_eq!(&text[prompt_bytes..], "Yo<|im_end|>\n");
    }

    #[test]
    fn what_templates_use() {
        let cases = [
            ("{{ bos_token }}{{ messages[-1].content.strip().upper() }}", "<s>YO"),
            (
                "{%- for m in messages %}\n  {%- if m.role == 'user' %}{% continue %}{% endif %}\n{{ m.content }}\n{%- endfor %}",
                " yo ",
            ),
            (
                "{% for m in messages %}\n{% generation %}\n{{ m.role }}\n{% endgeneration %}\n{% endfor %}",
                "user\nassistant\n",
            ),
            ("a {%- generation -%} b {%- endgeneration -%} c", "abc"),
            ("{{ messages[1] | tojson }}", r#"{"role": "assistant", "content": " yo "}"#),
            (
                "{{ {'b': [1, 'é<'], 'a': {}} | tojson(indent=2) }}",
                "{\n  \"b\": [\n    1,\n    \"é<\"\n  ],\n  \"a\": {}\n}",
            ),
            (
                "{{ none is iterable }}{{ 1 is iterable }}{{ missing is iterable }}{{ 'x' is iterable }}",
                "FalseFalseTrueTrue",
            ),
            ("{% if tools is none and not documents %}none{% endif %}", "none"),
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
                "2",
            ),
            ("{{ messages[0].content.split('h')[-1] }}|{{ messages[0]['nothing'] is defined }}", "i <b>|False"),
            (
                "{% if messages[0]['content'] is string and 'h' in messages[0].content %}{{ messages[0].content }}{% endif %}",
                "hi <b>",
            ),
            ("{% macro f(x) %}[{{ x | trim }}]{% endmacro %}{{ f(messages[1].content) }}\n", "[yo]"),
            ("{{ 'A' if messages | length == 2 else 'B' }}{{ messages[1:] | length }}{{ none }}", "A1None"),
        ];
        for (source, expected) in cases {
            assert_eq!(render(source, Some("hi <b>"), " yo ").unwrap().0, expected, "{source}");
        }
    }

    #[test]
    fn errors_say_what_the_template_said() {
        let refused = render("{{ raise_exception('only users here') }}", Some("a"), "b").unwrap_err().to_string();
        assert!(refused.contains("only users here") && refused.contains("roles were: user"), "{refused}");
        let broken = render("{% if %}", Some("a"), "b").unwrap_err().to_string();
        assert!(broken.starts_with("dir: the chat template does not parse"), "{broken}");
        let transcript = render(CHATML, None, "Human: hi").unwrap_err().to_string();
        assert!(transcript.contains("needs a prompt or a list of messages"), "{transcript}");
        for message in [refused, broken, transcript] {
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn dates() {
        let cases = [
            (0, "01 Jan 1970 Thursday"),
            (951_782_400, "29 Feb 2000 Tuesday"),
            (1_735_689_599, "31 Dec 2024 Tuesday"),
            (4_107_542_400, "01 Mar 2100 Monday"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(strftime("%d %b %Y %A", seconds).unwrap(), expected);
        }
        assert_eq!(strftime("%H:%M:%S %y-%m %B %a%%", 1_735_689_599).unwrap(), "23:59:59 24-12 December Tue%");
        assert!(strftime("%Q", 0).is_err() && strftime("%", 0).is_err());
    }
}
