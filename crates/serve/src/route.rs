//! One route of the server, as a dialect registers it.
//!
//! The router does what is the same for all: the key, the host, the size, time and coding of the body, metrics, the
//! request id and the log. A handler gets the whole body, and answers.

use crate::ask::Refusal;
use crate::service::Service;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
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
    /// What stands behind the `?`; empty without.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The request's id, which the response carries as `x-request-id`.
    pub id: Arc<str>,
}
