//! Chat templates, rendered as transformers renders them.
//!
//! A template is a Jinja program that a model brings along. transformers runs it in Jinja2 with
//! `trim_blocks`, `lstrip_blocks`, loop controls, its own `tojson`, `raise_exception` and `strftime_now`,
//! and a `generation` tag that marks the assistant's tokens; this file gives minijinja the same surroundings. Beside
//! it: `python` (methods and filters), `percent` (`'%s' % x`), `tojson` and `dates`.
//! It knows messages and strings. It must not know tokenizers.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

use super::dates::{self, Day};
use super::{TextError, percent, python, tojson};
use crate::data::{ASSISTANT, Content, Message, USER};

const NAME: &str = "chat_template";
/// The function that gives a template the date.
const DATE: &str = "strftime_now";

/// Steps of a rendering, of which one also pays for 64 bytes of text. Published templates need a few thousand for a
/// question and its answer. With many more, a loop could put so many lists into each other that dropping them would
/// overflow the stack.
const FUEL: u64 = 100_000;
/// What a conversation has beyond that, for each byte of it and for each message.
const FUEL_PER_BYTE: u64 = 1;
const FUEL_PER_MESSAGE: u64 = 10_000;
/// Bytes that a rendering may have beyond so many times the conversation's. A tokenizer needs a hundred times as much.
const MOST_BYTES: usize = 4 << 20;
const TIMES: usize = 8;

/// A parsed chat template with the special tokens it may write.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    uses_date: bool,
}

/// What a template is asked to render: messages, of which the last ones are judged.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    pub(super) messages: Vec<Message>,
    /// Index of the first message that is judged. Without a prompt it is the last one.
    judged: usize,
}

/// Where the words of the messages stand in a rendered conversation, in characters. All else is the template's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// From the first word of the prompt to its last, with what the template writes between its turns.
    pub(super) prompt: Range<usize>,
    /// The same of the response.
    pub(super) response: Range<usize>,
}

/// A template's own refusal, by `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

impl Conversation {
    /// A text is one turn of its side. A plain text alone has no turns.
    pub(super) fn of(prompt: Option<&Content>, response: &Content) -> Result<Self, TextError> {
        let mut messages = prompt.map_or_else(Vec::new, |prompt| prompt.turns(USER).into_owned());
        if prompt.is_none() && matches!(response, Content::Text(_)) {
            return Err(TextError::ChatNeedsMessages);
        }
        let before = messages.len();
        messages.extend(response.turns(ASSISTANT).into_owned());
        let judged = if prompt.is_some() { before } else { messages.len().saturating_sub(1) };
        Ok(Self { messages, judged })
    }

    /// The same with other words in one message, which begin and end with another character.
    fn with_other_words(&self, message: usize) -> Self {
        let mut other = self.clone();
        let words = other.messages[message].content.trim();
        let ends = [words.chars().next(), words.chars().next_back()];
        let differs = |sign: &char| !ends.contains(&Some(*sign));
        other.messages[message].content = ['\u{1}', '\u{2}', '\u{3}'].into_iter().filter(differs).take(1).collect();
        other
    }
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
        environment.add_template_owned(NAME, percent::as_filter(&without_generation_tags(source))).map_err(bad)?;
        Ok(Self { environment, uses_date: source.contains(DATE) })
    }

    /// Whether the template asks for the date.
    pub(super) fn uses_date(&self) -> bool {
        self.uses_date
    }

    /// Gives the template this day, whenever it renders.
    pub(super) fn set_day(&mut self, day: Day) {
        let date = move |format: &str| dates::strftime_on(day, format).map_err(failed);
        self.environment.add_function(DATE, date);
    }

    /// The rendered conversation.
    pub(super) fn render(&self, conversation: &Conversation) -> Result<String, TextError> {
        self.run(&conversation.messages, false)
    }

    /// Where the words stand in `rendered`: as far as it differs from the same conversation about other words. (The
    /// prompt alone may be one that the template refuses.)
    pub(super) fn parts(&self, conversation: &Conversation, rendered: &str) -> Result<Parts, TextError> {
        let (judged, length) = (conversation.judged, rendered.chars().count());
        let other = |message| self.render(&conversation.with_other_words(message));
        let span = |messages: Range<usize>| -> Result<Range<usize>, TextError> {
            if messages.is_empty() {
                return Ok(length..length);
            }
            let start = common(rendered.chars(), other(messages.start)?.chars());
            let after = common(rendered.chars().rev(), other(messages.end - 1)?.chars().rev());
            Ok(start..length.saturating_sub(after).max(start))
        };
        let response = span(judged..conversation.messages.len())?;
        let prompt = if judged == 0 { 0..0 } else { span(0..judged)? };
        let start = prompt.start.min(response.start);
        Ok(Parts { prompt: start..prompt.end.clamp(start, response.start), response })
    }

    /// Whether the words of the response stand in the rendering as they were given, but for white space around them.
    pub(super) fn keeps_response(&self, conversation: &Conversation) -> Result<bool, TextError> {
        let rendered = self.render(conversation)?;
        Ok(conversation.messages[conversation.judged..].iter().all(|message| rendered.contains(message.content.trim())))
    }

    /// The rendered messages; with `add_generation_prompt`, with what opens the assistant's answer.
    pub(super) fn run(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> {
        let context = minijinja::context! {
            messages => messages.iter().map(as_value).collect::<Vec<_>>(),
            tools => Value::from(()),
            documents => Value::from(()),
            add_generation_prompt => add_generation_prompt,
        };
        let environment = self.fuelled(messages);
        let rendered = environment.get_template(NAME).and_then(|template| template.render(context));
        let rendered = rendered.map_err(|error| said(&error, messages))?;
        if rendered.len() > MOST_BYTES + TIMES * bytes(messages) {
            return Err(endless());
        }
        Ok(rendered)
    }

    /// The environment, with more fuel where the conversation is long.
    fn fuelled(&self, messages: &[Message]) -> Cow<'_, Environment<'static>> {
        let more = bytes(messages) as u64 * FUEL_PER_BYTE + messages.len() as u64 * FUEL_PER_MESSAGE;
        if more < FUEL / 4 {
            return Cow::Borrowed(&self.environment);
        }
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL + more));
        Cow::Owned(environment)
    }
}

fn bytes(messages: &[Message]) -> usize {
    messages.iter().map(|message| message.role.len() + message.content.len()).sum()
}

fn endless() -> TextError {
    TextError::EndlessTemplate { steps: FUEL, megabytes: MOST_BYTES >> 20 }
}

/// Why a conversation was not rendered.
fn said(error: &Error, messages: &[Message]) -> TextError {
    let roles = roles(messages);
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |cause| cause.source());
    match causes.find_map(|cause| cause.downcast_ref::<Refusal>()) {
        Some(Refusal(reason)) => TextError::ChatTemplate { reason: reason.clone(), roles },
        None if error.kind() == ErrorKind::OutOfFuel => endless(),
        None => TextError::TemplateFails { reason: error.to_string(), roles },
    }
}

/// The roles of a conversation, or the first of many, for messages.
pub(super) fn roles(messages: &[Message]) -> String {
    const SHOWN: usize = 12;
    let roles: Vec<&str> = messages.iter().map(|message| message.role.as_str()).take(SHOWN).collect();
    roles.join(", ") + if messages.len() > SHOWN { ", …" } else { "" }
}

fn as_value(message: &Message) -> Value {
    Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())])
}

/// Number of characters that both texts begin with.
fn common(a: impl Iterator<Item = char>, b: impl Iterator<Item = char>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).count()
}

fn surroundings() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(python::method);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.add_test("iterable", is_iterable);
    environment.add_filter("tojson", tojson::tojson);
    environment.add_filter("trim", python::trim);
    environment.add_filter("indent", python::indent);
    environment.add_filter("wordcount", python::word_count);
    environment.add_filter(percent::FILTER, python::percent);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function(DATE, |format: &str| dates::strftime_now(format).map_err(failed));
    Ok(environment)
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(failed(message.clone()).with_source(Refusal(message)))
}

fn failed(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str) -> Result<ChatTemplate, TextError> {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        ChatTemplate::parse(Path::new("dir"), source, tokens.into_iter())
    }

    fn conversation(prompt: Option<&str>, response: &str) -> Result<Conversation, TextError> {
        let prompt = prompt.map(|prompt| Content::Text(prompt.into()));
        Conversation::of(prompt.as_ref(), &Content::Text(response.into()))
    }

    fn render(source: &str, prompt: Option<&str>, response: &str) -> Result<String, TextError> {
        parse(source)?.render(&conversation(prompt, response)?)
    }

    const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + \
         '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    /// The words of the prompt and of the response, as they stand in the rendering.
    fn words(source: &str, conversation: &Conversation) -> [String; 2] {
        let template = parse(source).unwrap();
        let rendered = template.render(conversation).unwrap();
        let Parts { prompt, response } = template.parts(conversation, &rendered).unwrap();
        [prompt, response].map(|part| rendered.chars().skip(part.start).take(part.len()).collect())
    }

    fn of_turns(prompt: Option<usize>, turns: &[(&str, &str)]) -> Conversation {
        let message = |&(role, content): &(&str, &str)| Message { role: role.into(), content: content.into() };
        let messages: Vec<_> = turns.iter().map(message).collect();
        let (before, after) = messages.split_at(prompt.unwrap_or(0));
        let before = prompt.map(|_| Content::Messages(before.to_vec()));
        Conversation::of(before.as_ref(), &Content::Messages(after.to_vec())).unwrap()
    }

    #[test]
    fn chatml_and_where_its_words_stand() {
        let asked = conversation(Some("Hi é"), "Yo ö").unwrap();
        let text = parse(CHATML).unwrap().render(&asked).unwrap();
        assert_eq!(text, "<|im_start|>user\nHi é<|im_end|>\n<|im_start|>assistant\nYo ö<|im_end|>\n");
        assert_eq!(words(CHATML, &asked), ["Hi é", "Yo ö"]);
        // Words that begin or end as the template goes on, and words that are what others are replaced by.
        for (prompt, response) in [("", ""), ("\u{1}", "\u{2}x\u{1}"), ("<|im_end|>\n", "\n"), ("user", "a\u{3}")] {
            let asked = conversation(Some(prompt), response).unwrap();
            assert_eq!(words(CHATML, &asked), [prompt, response], "{prompt:?} {response:?}");
        }
        let turns = [("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b")];
        let earlier = "s<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n\
                       <|im_start|>user\nv";
        for prompt in [None, Some(4)] {
            assert_eq!(words(CHATML, &of_turns(prompt, &turns)), [earlier, "b"], "{prompt:?}");
        }
        assert_eq!(words(CHATML, &of_turns(None, &turns[4..])), ["", "b"]);
        assert_eq!(words(CHATML, &of_turns(Some(1), &turns[..1])), ["s", ""]);
        assert_eq!(words(CHATML, &of_turns(None, &[])), ["", ""]);
    }

    const SPLITS: &str = "{% for m in messages %}[{{ m.role }}]{% if '</t>' in m.content %}<t>{{ m.content.split('</t>')[0] }}\
        </t>{{ m.content.split('</t>')[-1] | trim }}{% else %}{{ m.content | trim }}{% endif %};{% endfor %}";

    #[test]
    fn a_response_that_is_rewritten_is_known() {
        let keeps = |response| parse(SPLITS).unwrap().keeps_response(&conversation(Some("p"), response).unwrap());
        assert!(keeps(" plain\n").unwrap() && keeps("").unwrap());
        assert!(!keeps("Close it with </t> here.").unwrap());
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
            ("{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}", "a\n    b\n\n    c|  a\n  b"),
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
            assert_eq!(render(source, Some("hi <b>"), " yo ").unwrap(), expected, "{source}");
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
        let unknown = render("{{ 'a' | shout }}", Some("a"), "b").unwrap_err().to_string();
        assert!(unknown.contains("shout") && unknown.contains("unknown"), "{unknown}");
        for message in [refused, broken, transcript, unknown] {
            assert!(!message.contains('\n'), "{message}");
        }
    }

    /// Loops, texts that double, calls without end, wide formats: each ends soon, with an error that says why.
    #[test]
    fn a_template_without_end_is_stopped() {
        let grow = "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}";
        let nested = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x{% endfor %}\
                      {% endfor %}{% endfor %}";
        let again = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}";
        let cases = [
            (grow, "does not end"),
            (nested, "does not end"),
            (again, "recursion"),
            ("{% for a in range(9999) %}{{ 'a' * 9999 }}{% endfor %}", "does not end"),
            ("{{ 'a' * 9999999999 }}", ""),
            ("{{ '%9999999999s' % 'a' }}", ""),
            ("{{ 'ab' | replace('', 'c' * 99999) | replace('', 'c' * 99999) }}", "does not end"),
            ("{{ range(99999999999) | list }}", ""),
            (
                "{% set ns = namespace(l=[]) %}{% for i in range(90000) %}{% set ns.l = [ns.l] %}{% endfor %}",
                "does not end",
            ),
            ("{{ 'a' | indent(99999999) }}", "at most 1000 spaces"),
            ("{{ 'a' | indent(width=9999999999) }}", "at most 1000 spaces"),
        ];
        for (source, expected) in cases {
            let started = std::time::Instant::now();
            let error = render(source, Some("a"), "b").unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{source}: {error}");
            assert!(started.elapsed().as_secs() < 20, "{source}");
        }
    }

    /// As deep as the fuel reaches: on the small stack of a thread, it is rendered or refused.
    #[test]
    fn lists_in_lists_do_not_overflow_the_stack() {
        for depth in [1_000, 5_000, 10_000, 14_000, 20_000] {
            for shown in ["", "{{ ns.l | tojson }}"] {
                let source = format!(
                    "{{% set ns = namespace(l=[]) %}}{{% for i in range({depth}) %}}{{% set ns.l = [ns.l] %}}{{% endfor %}}{shown}"
                );
                let rendered = std::thread::spawn(move || render(&source, Some("a"), "b")).join().unwrap();
                assert!(rendered.is_ok() || depth >= 5_000 || !shown.is_empty(), "{depth} {shown}: {rendered:?}");
            }
        }
    }

    #[test]
    fn a_long_conversation_does_not_run_out_of_fuel() {
        let long = "word ".repeat(1_000_000);
        let text = render(CHATML, Some(&long), &long).unwrap();
        assert!(text.len() > 10_000_000);
        let turns: Vec<_> = (0..20_000).map(|turn| (if turn % 2 == 0 { "user" } else { "assistant" }, "a")).collect();
        assert!(parse(CHATML).unwrap().render(&of_turns(None, &turns)).is_ok());
    }

    #[test]
    fn a_judge_has_the_date_of_its_day() {
        let source = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}";
        let mut template = parse(source).unwrap();
        assert!(template.uses_date() && !parse(CHATML).unwrap().uses_date());
        let asked = conversation(Some("a"), "b").unwrap();
        for (day, expected) in [(Day::DEFAULT, "26 Jul 2024"), ("1999-12-31".parse().unwrap(), "31 Dec 1999")] {
            template.set_day(day);
            assert_eq!(template.render(&asked).unwrap(), expected);
        }
    }

    #[derive(serde::Deserialize)]
    struct Case {
        template: String,
        messages: Vec<Message>,
        /// What transformers renders; none where it raises an error.
        expected: Option<String>,
    }

    /// `golden/make_template_golden.py` has the cases from transformers.
    #[test]
    fn f12_templates_render_as_in_transformers() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/templates/cases.json");
        let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert!(cases.len() > 100);
        let mut wrong = Vec::new();
        for case in &cases {
            let template = ChatTemplate::parse(Path::new("dir"), &case.template, std::iter::empty());
            let rendered = template.and_then(|template| template.run(&case.messages, false));
            if rendered.as_ref().ok() != case.expected.as_ref() {
                let found = rendered.map_err(|error| error.to_string());
                wrong.push(format!("{}\n  found    {found:?}\n  expected {:?}", case.template, case.expected));
            }
        }
        assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    }
}
