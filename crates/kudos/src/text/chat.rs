//! Chat templates, rendered as transformers renders them.
//!
//! A template is a Jinja program that a model brings along. transformers runs it in Jinja2 with
//! `trim_blocks`, `lstrip_blocks`, loop controls, its own `tojson`, `raise_exception` and `strftime_now`,
//! and a `generation` tag that marks the assistant's tokens; this file gives minijinja the same surroundings. Beside
//! it: `python` (methods and filters), `percent` (`'%s' % x`), `tojson` and `dates`.
//! It knows messages and strings. It must not know tokenizers.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

use super::{TextError, dates, percent, python, tojson};
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
        environment.add_template_owned(NAME, percent::as_filter(&without_generation_tags(source))).map_err(bad)?;
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
    environment.set_unknown_method_callback(python::method);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.add_test("iterable", is_iterable);
    environment.add_filter("tojson", tojson::tojson);
    environment.add_filter("trim", python::trim);
    environment.add_filter("wordcount", python::word_count);
    environment.add_filter(percent::FILTER, python::percent);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", |format: &str| dates::strftime_now(format).map_err(refused));
    Ok(environment)
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(refused(message))
}

fn refused(message: String) -> Error {
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
