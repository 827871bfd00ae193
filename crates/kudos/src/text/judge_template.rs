//! The chat template of a judge whose score is a model's answer to a question about each response.
//!
//! Such a judge is asked through its template, like any judge with [`super::Rendering::Chat`]: the conversation goes in,
//! and what comes out ends where the model would write `Yes` or `No`. So [`super::Encoder`] encodes it as it encodes all
//! judges, and transformers' `apply_chat_template` gives the same ids. A template that asks in words of the user's own
//! puts them into a turn of the model's own chat template, whose source it holds.

use super::tokenizer_config::{TokenizerConfig, malformed, read_object};
use super::{TOKENIZER_CONFIG, TextError};
use serde_json::Value;
use std::path::Path;

/// The file of a template, which transformers reads before the key of `tokenizer_config.json`.
pub const TEMPLATE_FILE: &str = "chat_template.jinja";

/// What a judge asks unless it is told otherwise.
pub const QUESTION: &str = "\
Here is a prompt, and a response to it.

Prompt:
{{ prompt }}

Response:
{{ response }}

Is it a good response to the prompt? Answer Yes or No.";

/// Gives a template `prompt` and `response`: the last message, and those before it. With several, each has its role
/// before it.
const VARIABLES: &str = "\
{%- set response = messages[-1]['content'] -%}
{%- set prompt -%}
{%- for message in messages[:-1] -%}
{{- ('' if loop.first else '\\n\\n') ~ (message['role'] ~ ': ' if messages | length > 2 else '') ~ message['content'] -}}
{%- endfor -%}
{%- endset %}
";

/// Qwen 3 would think first, and other models that can.
const TURN: &str = "\
{%- set messages = [{'role': 'user', 'content': question}] -%}
{%- set add_generation_prompt = true -%}
{%- set enable_thinking = false %}
";

/// What a judge's template is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// The whole text, up to the answer. It may use `prompt`, `response` and `messages`.
    Whole(&'a str),
    /// A question, which becomes a turn of the model's own chat template; without one, a text that ends in `Answer:`.
    Question(&'a str),
}

/// The source of a judge's chat template. `own` is the model's; `opening` is the special token that its tokenizer puts
/// before a text, if any.
pub fn judge_template(asked: Asked, own: Option<&str>, opening: Option<&str>) -> String {
    match (asked, own) {
        (Asked::Whole(template), _) => format!("{VARIABLES}{template}"),
        (Asked::Question(question), Some(own)) => format!("{VARIABLES}{}{TURN}{own}", captured(question)),
        (Asked::Question(question), None) => {
            let opening = opening.map_or(String::new(), |token| format!("{{{{- {} -}}}}\n", Value::from(token)));
            format!("{VARIABLES}{}{opening}{{{{- question }}}}\n\nAnswer:", captured(question))
        }
    }
}

/// A question as the variable `question`, without white space around it.
fn captured(question: &str) -> String {
    format!("{{%- set question -%}}\n{}\n{{%- endset -%}}\n", question.trim())
}

/// The source of a model directory's chat template.
///
/// # Errors
/// Files that cannot be read.
pub fn template_of(dir: &Path) -> Result<Option<String>, TextError> {
    Ok(TokenizerConfig::read(dir)?.chat_template)
}

/// Gives a directory this chat template and no other.
///
/// # Errors
/// Files that cannot be read or written.
pub fn set_template(dir: &Path, source: &str) -> Result<(), TextError> {
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        crate::files::write(&path, bytes).map_err(|source| TextError::Unwritable { path, source })
    };
    let path = dir.join(TOKENIZER_CONFIG);
    let mut config = read_object(&path)?;
    if config.remove("chat_template").is_some() {
        let text = serde_json::to_vec_pretty(&config).map_err(|error| malformed(&path, "a JSON object", &error))?;
        write(TOKENIZER_CONFIG, &text)?;
    }
    write(TEMPLATE_FILE, source.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::chat::{ChatTemplate, Conversation};
    use super::*;
    use crate::data::{Content, Message};

    const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                          {% if add_generation_prompt %}<|im_start|>assistant\n{{ '' }}{% endif %}";

    fn render(source: &str, prompt: Option<Content>, response: &str) -> String {
        let template = ChatTemplate::parse(Path::new("dir"), source, std::iter::empty()).unwrap();
        let response = match prompt {
            Some(_) => Content::Text(response.into()),
            None => Content::Messages(vec![message("assistant", response)]),
        };
        template.render(&Conversation::of(prompt.as_ref(), &response).unwrap()).unwrap()
    }

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into() }
    }

    fn text(text: &str) -> Option<Content> {
        Some(Content::Text(text.into()))
    }

    #[test]
    fn a_question_is_a_turn_of_the_models_own_template() {
        let source = judge_template(Asked::Question(" To {{ prompt }}: {{ response }}?\n"), Some(CHATML), None);
        let opened = "<|im_end|>\n<|im_start|>assistant\n";
        let cases = [
            (text(" p\n"), " r ", "To  p\n:  r ?"),
            (text(""), "", "To : ?"),
            (None, "r", "To : r?"),
            (
                Some(Content::Messages(vec![message("system", "s"), message("user", "u")])),
                "r",
                "To system: s\n\nuser: u: r?",
            ),
        ];
        for (prompt, response, expected) in cases {
            assert_eq!(render(&source, prompt, response), format!("<|im_start|>user\n{expected}{opened}"));
        }
    }

    #[test]
    fn the_models_own_template_begins_where_it_began() {
        for own in [
            "\n x{{ messages[0].content }}",
            "  {% if true %}y{% endif %}",
            "{{- ' z' }}",
            " \n {%- if true %} a{% endif %}",
        ] {
            let alone = ChatTemplate::parse(Path::new("dir"), own, std::iter::empty()).unwrap();
            let turn = Conversation::of(text("q").as_ref(), &Content::Messages(Vec::new())).unwrap();
            let asked = judge_template(Asked::Question("q"), Some(own), None);
            assert_eq!(render(&asked, text("p"), "r"), alone.render(&turn).unwrap(), "{own:?}");
        }
    }

    #[test]
    fn a_model_without_a_template_reads_a_plain_text() {
        let plain = |opening| {
            render(&judge_template(Asked::Question("{{ prompt }}-{{ response }}?"), None, opening), text("p"), "r")
        };
        assert_eq!(plain(None), "p-r?\n\nAnswer:");
        assert_eq!(plain(Some("<\"s\">")), "<\"s\">p-r?\n\nAnswer:");
    }

    #[test]
    fn a_whole_template_is_taken_as_it_is() {
        let source =
            judge_template(Asked::Whole("\n {{ response }}|{{ prompt }}|{{ messages | length }}"), Some(CHATML), None);
        assert_eq!(render(&source, text("p"), "r"), "\n r|p|2");
    }

    /// Turns of a conversation are put together in time that grows with their number.
    #[test]
    fn a_long_conversation_is_rendered() {
        let turns =
            (0..3_000).map(|i| message(if i % 2 == 0 { "user" } else { "assistant" }, "some words here")).collect();
        let source = judge_template(Asked::Question(QUESTION), Some(CHATML), None);
        assert!(render(&source, Some(Content::Messages(turns)), "r").len() > 60_000);
    }

    #[test]
    fn the_template_of_a_directory_is_replaced_wherever_it_stood() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join(TOKENIZER_CONFIG);
        std::fs::write(&config, r#"{"eos_token": "</s>", "chat_template": "old"}"#).unwrap();
        assert_eq!(template_of(dir.path()).unwrap().as_deref(), Some("old"));
        set_template(dir.path(), "new").unwrap();
        assert_eq!(template_of(dir.path()).unwrap().as_deref(), Some("new"));
        let kept = std::fs::read_to_string(&config).unwrap();
        assert!(kept.contains("</s>") && !kept.contains("old"), "{kept}");
    }
}
