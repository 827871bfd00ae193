//! Files of human judgement → [`Group`]s: a prompt, its responses, and who beat whom.
//!
//! This module knows files and rankings; it must not know tokens or models.

mod group;
mod record;

pub use group::{Comparison, Group, Response};
pub use record::{Content, Location, Message};
