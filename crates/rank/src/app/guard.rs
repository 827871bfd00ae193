//! What stands before every route: the host that was asked for, the site that asks, and the headers of every answer.

use super::App;
use super::error::Refusal;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Duration;
use web::origin;

/// Time for a whole request: to read its body, and to do what it asks.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Nothing but this server's own files, no inline script or style, no parsing of text as HTML, in no other page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (HeaderName::from_static("x-content-type-options"), "nosniff"),
    (HeaderName::from_static("referrer-policy"), "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// Lets through what our own page asks, in time.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = match check(&app, &request) {
        Err(refusal) => refusal.into_response(),
        Ok(()) => match tokio::time::timeout(TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request took too long; send it again").into_response()
            }
        },
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn check(app: &App, request: &Request) -> Result<(), Refusal> {
    let headers = request.headers();
    let host = origin::host(headers);
    if app.settings.is_local() && !origin::is_loopback(host) {
        return Err(forbidden(format!(
            "the host is `{host}`, expected localhost; a page elsewhere may be pretending to be this one"
        )));
    }
    if !request.uri().path().starts_with("/api/") {
        return Ok(());
    }
    if origin::is_foreign(headers) {
        return Err(forbidden("the request comes from another site".to_owned()));
    }
    let is_json = origin::text(headers, &CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
    match *request.method() == Method::POST && !is_json {
        true => Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type is not application/json")),
        false => Ok(()),
    }
}

fn forbidden(message: String) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, message)
}
