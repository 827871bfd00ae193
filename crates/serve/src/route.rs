//! One route of the server, as a dialect registers it.
//!
//! The router does what is the same for all: the key, the host, the size, time and coding of the body, metrics, the
//! request id and the log. A handler gets the whole body, and answers.

use crate::ask::Refusal;
use crate::service::Service;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

/// A method at a path.
#[derive(Clone)]
pub struct Route {
    /// The method; GET answers HEAD too.
    pub method: Method,
    /// The path in axum's form: `/v2/models/{name}/infer`.
    pub path: &'static str,
    /// Whether a key is asked for, where the server has one. Only liveness and readiness go without.
    pub needs_key: bool,
    /// What answers.
    pub handler: Handler,
    /// How this dialect words a refusal: also for those that the router finds before the handler is called.
    pub refuse: fn(&Refusal) -> Response,
}

/// An answer to come.
pub type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// What answers a request.
pub type Handler = fn(Call) -> Answering;

/// A request that passed the router.
pub struct Call {
    /// The judges.
    pub service: Arc<Service>,
    /// The parameters of the path.
    pub parameters: HashMap<String, String>,
    /// The path, as it was asked for.
    pub path: String,
    /// What stands behind the `?`; empty without.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The request's id, which the response carries as `x-request-id`.
    pub id: Arc<str>,
}

/// The body of a response as JSON.
pub fn json(status: u16, body: &impl serde::Serialize) -> Response {
    let text = serde_json::to_vec(body).unwrap_or_default();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// Our own wording of a refusal: `{"error": SENTENCE, "error_type": NAME}`.
pub fn refuse(refusal: &Refusal) -> Response {
    let body = serde_json::json!({ "error": refusal.to_string(), "error_type": refusal.name() });
    with_retry_after(json(refusal.status(), &body), refusal)
}

/// The response with the header `Retry-After`, where a later try may succeed.
pub fn with_retry_after(mut response: Response, refusal: &Refusal) -> Response {
    if let Some(seconds) = refusal.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Reads a body as JSON.
///
/// # Errors
/// [`Refusal::Malformed`] for what is no JSON, or not of this form; for lists and objects more than 128 deep; and for
/// numbers that no number holds.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let said = error.to_string();
        Refusal::malformed(match said.contains("recursion limit exceeded") {
            true => "the body's lists and objects are more than 128 deep".to_owned(),
            false => format!("the body cannot be read: {said}"),
        })
    })
}
