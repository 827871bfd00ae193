//! Who is asking: sessions, which are secrets in a header, and the tokens that open them.
//!
//! A browser sends no header of this name for another site, so a session is at once the proof that our own page asks.

use crate::AnnotatorId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The header that carries a session.
pub const HEADER: &str = "x-kudos-session";
/// Sessions that are remembered; the oldest is forgotten first, and its page opens a new one.
const MOST: usize = 10_000;

/// One person's session.
#[derive(Clone, Debug)]
pub struct Session {
    /// The person; `None` looks at results alone.
    pub annotator: Option<AnnotatorId>,
}

/// The open sessions.
#[derive(Default)]
pub struct Sessions {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_secret: HashMap<String, (u64, Session)>,
    opened: u64,
}

impl Sessions {
    /// Opens a session; its secret.
    pub fn open(&self, session: Session) -> String {
        let secret = secret();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.opened += 1;
        let number = known.opened;
        if known.by_secret.len() >= MOST {
            let oldest =
                known.by_secret.iter().min_by_key(|(_, (number, _))| *number).map(|(secret, _)| secret.clone());
            oldest.map(|secret| known.by_secret.remove(&secret));
        }
        known.by_secret.insert(secret.clone(), (number, session));
        secret
    }

    /// The session of a secret.
    pub fn find(&self, secret: &str) -> Option<Session> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_secret.get(secret).map(|(_, session)| session.clone())
    }
}

/// 128 random bits, in hexadecimal.
///
/// # Panics
/// If the system has no random numbers.
pub fn secret() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_found_by_their_secret_alone_and_bounded() {
        let sessions = Sessions::default();
        let first = sessions.open(Session { annotator: None });
        assert!(sessions.find(&first).is_some() && sessions.find("").is_none() && sessions.find(&secret()).is_none());
        let last = (0..MOST).map(|_| sessions.open(Session { annotator: None })).last().unwrap();
        assert!(sessions.find(&first).is_none() && sessions.find(&last).is_some(), "the oldest is forgotten");
        assert_eq!(sessions.known.lock().unwrap().by_secret.len(), MOST);
    }

    #[test]
    fn secrets() {
        assert_eq!(secret().len(), 32);
        assert_ne!(secret(), secret());
    }
}
