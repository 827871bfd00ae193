//! What an [`Encoder`] does with conversations: through the chat template to ids, within the limit.

use super::super::chat::{ChatTemplate, Conversation, roles};
use super::super::control::Masked;
use super::super::cut;
use super::super::dates::Day;
use super::{Encoded, Encoder, Rendering, TextError};
use crate::data::Content;

impl Encoder {
    /// A template that cannot render a question with its answer, or leaves the answer out, makes no judge. (One that
    /// refuses this conversation by its own words may take others.)
    pub(super) fn check_template(&self) -> Result<(), TextError> {
        let useless = |reason: String| TextError::UselessTemplate { dir: self.dir.clone(), reason };
        let ask = |answer: &str| {
            let text = |text: &str| Content::Text(text.to_owned());
            Conversation::of(Some(&text("a")), &text(answer))
        };
        let (template, asked) = (self.template()?, ask("b")?);
        let rendered = match (template.render(&asked), template.render(&ask("c")?)) {
            (Ok(rendered), Ok(other)) if rendered == other => {
                return Err(useless("it writes nothing of the answer".to_owned()));
            }
            (Ok(rendered), Ok(_)) => rendered,
            (Err(TextError::ChatTemplate { .. }), _) => return Ok(()),
            (Err(error), _) | (_, Err(error)) => return Err(useless(error.to_string())),
        };
        let (parts, max_length) = (template.parts(&asked, &rendered)?, self.settings.max_length);
        let tokens = self.tokenizer.encode(&rendered, None, true)?;
        match cut::of_template(tokens.get_offsets(), &parts) {
            template_tokens if max_length <= template_tokens => {
                Err(TextError::TemplateTooLong { max_length, template_tokens })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn template(&self) -> Result<&ChatTemplate, TextError> {
        self.template.as_ref().ok_or_else(|| TextError::NoChatTemplate { dir: self.dir.clone() })
    }

    /// The template has written its own special tokens; a tokenizer that adds some would double the first.
    pub(super) fn encode_chat(
        &self,
        conversation: &Conversation,
        masked: Option<&Masked>,
    ) -> Result<Encoded, TextError> {
        let (template, max_length) = (self.template()?, self.settings.max_length);
        let text = template.render(conversation)?;
        let ids = self.tokenizer.encode(&text, masked, false)?.get_ids().to_vec();
        if ids.is_empty() {
            return Err(TextError::RendersNothing { roles: roles(&conversation.messages) });
        }
        let total = ids.len();
        if total <= max_length {
            return self.encoded(ids, total);
        }
        let parts = template.parts(conversation, &text)?;
        let tokens = self.tokenizer.encode(&text, masked, true)?;
        let too_long = || {
            let template_tokens = cut::of_template(tokens.get_offsets(), &parts);
            TextError::TemplateTooLong { max_length, template_tokens }
        };
        let kept =
            cut::kept(tokens.get_offsets(), &parts, max_length, self.settings.truncation).ok_or_else(too_long)?;
        self.encoded(kept.into_iter().flat_map(|range| &tokens.get_ids()[range]).copied().collect(), total)
    }

    /// One sequence without segments.
    fn encoded(&self, ids: Vec<u32>, total: usize) -> Result<Encoded, TextError> {
        self.check_vocabulary(&ids)?;
        let (type_ids, truncated) = (vec![0; ids.len()], ids.len() < total);
        Ok(Encoded { ids, type_ids, truncated, tokens_before_truncation: total })
    }

    /// Whether the model reads the response's own words. A chat template may rewrite them, as Qwen 3's does, which
    /// splits a response at `</think>`.
    ///
    /// # Errors
    /// A template that refuses the messages.
    pub fn keeps_response(&self, prompt: Option<&Content>, response: &Content) -> Result<bool, TextError> {
        match self.settings.render {
            Rendering::Chat => self.template()?.keeps_response(&Conversation::of(prompt, response)?),
            Rendering::Pair | Rendering::Concat => Ok(true),
        }
    }

    /// Whether the template asks for the date and the settings do not say which.
    pub(super) fn needs_date(&self) -> bool {
        let asks = self.template.as_ref().is_some_and(ChatTemplate::uses_date);
        asks && self.settings.render == Rendering::Chat && self.settings.date.is_none()
    }

    /// What a user should know where the date of the template is nobody's choice: [`Day::DEFAULT`] stands in for it.
    pub fn date_note(&self) -> Option<String> {
        let (dir, day) = (self.dir.join("reward.json"), Day::DEFAULT);
        self.needs_date().then(|| {
            format!(
                "{}: no `date`, which the chat template writes into every text; it gets {day}. To fix another day, put \
                 \"date\": \"{day}\" there",
                dir.display()
            )
        })
    }
}
