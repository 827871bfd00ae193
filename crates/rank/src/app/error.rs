//! What a request is answered when it cannot be done: a status and one sentence.

use crate::{BallotError, StoreError};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A refusal.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Refusal { status, message: message.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.message }))).into_response()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Refusal::new(status(&error), error.to_string())
    }
}

/// Which refusals may be tried again later, and which not: pages send a ballot again on 5xx alone.
fn status(error: &StoreError) -> StatusCode {
    match error {
        StoreError::Ballot(BallotError::UnknownVote(_)) => StatusCode::NOT_FOUND,
        StoreError::Ballot(
            BallotError::UnknownTask(_)
            | BallotError::ForeignTask(_)
            | BallotError::ForeignVote(_)
            | BallotError::Reused(_)
            | BallotError::AlreadyVoted { .. },
        ) => StatusCode::CONFLICT,
        StoreError::Ballot(_) | StoreError::Name(_) => StatusCode::BAD_REQUEST,
        StoreError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}
