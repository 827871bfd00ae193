//! The way of one request through the judges.

use crate::ask::{Answer, Ask, JudgeFacts, Refusal, Scorer, Tokeniser};
use crate::settings::Settings;
use std::sync::Arc;

/// The judges of a server, with what stands before them.
pub struct Service {
    settings: Settings,
}

impl Service {
    /// A service without judges: not ready until one is added.
    pub fn new(settings: Settings) -> Arc<Service> {
        Arc::new(Service { settings })
    }

    /// Adds a judge, or puts another in the place of the one of that name. Requests that the old one has begun are
    /// finished by it.
    pub fn install(&self, facts: JudgeFacts, tokeniser: Arc<dyn Tokeniser>, scorer: Box<dyn Scorer>) {
        let _ = (facts, tokeniser, scorer);
    }

    /// Scores all items of a request, or refuses it as a whole.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was computed then.
    pub async fn score(&self, ask: Ask) -> Result<Answer, Refusal> {
        let _ = ask;
        Err(Refusal::NotReady)
    }

    /// The judges, the one that is asked without a name first.
    pub fn judges(&self) -> Vec<Arc<JudgeFacts>> {
        Vec::new()
    }

    /// The judge of a name; without one, the first.
    ///
    /// # Errors
    /// [`Refusal::NoSuchJudge`], [`Refusal::NotReady`].
    pub fn judge(&self, name: Option<&str>) -> Result<Arc<JudgeFacts>, Refusal> {
        let _ = name;
        Err(Refusal::NotReady)
    }

    /// Whether every judge is loaded and has scored a text, and the server is not about to end.
    pub fn is_ready(&self) -> bool {
        false
    }

    /// The limits.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}
