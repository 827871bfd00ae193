//! Routes → handlers, and what is the same for all: who may ask, the body, the request id, metrics and the log.

use crate::ask::Refusal;
use crate::body::{self, Bodies, Held};
use crate::guard::Guard;
use crate::logs::{Entry, Logs};
use crate::route::{Answering, Call, Handler, Route, refuse};
use crate::service::Service;
use crate::{api, dialects};
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::runtime::Handle;

/// What all requests share.
pub(crate) struct App {
    pub(crate) service: Arc<Service>,
    pub(crate) guard: Guard,
    pub(crate) logs: Arc<Logs>,
    bodies: Bodies,
    /// Threads for requests whose JSON takes long to read and write; `None` does it where the request came in.
    heavy: Option<Handle>,
    ids: Ids,
}

/// Bytes of a body from which a request is heavy.
const HEAVY: usize = 64 * 1024;

impl App {
    pub(crate) fn new(service: Arc<Service>, guard: Guard, logs: Arc<Logs>, heavy: Option<Handle>) -> Arc<App> {
        let bodies = Bodies::new(service.settings());
        Arc::new(App { service, guard, logs, bodies, heavy, ids: Ids::default() })
    }
}

/// All routes of the server: what it does, in every dialect.
pub fn routes() -> Vec<Route> {
    let mut routes = vec![
        Route { method: Method::GET, path: "/health/live", needs_key: false, handler: live, refuse },
        Route { method: Method::GET, path: "/health/ready", needs_key: false, handler: ready, refuse },
        Route { method: Method::GET, path: "/metrics", needs_key: true, handler: metrics, refuse },
    ];
    routes.extend(api::routes());
    routes.extend(dialects::routes());
    routes
}

/// The router of these routes.
pub(crate) fn router(app: &Arc<App>, routes: Vec<Route>) -> Router {
    let mut paths: BTreeMap<&'static str, Vec<Route>> = BTreeMap::new();
    routes.into_iter().for_each(|route| paths.entry(route.path).or_default().push(route));
    let router =
        paths.into_iter().fold(Router::new(), |router, (path, routes)| router.route(path, methods(app, routes)));
    let unknown = Route { method: Method::GET, path: "(unknown)", needs_key: true, handler: no_such_path, refuse };
    let app = app.clone();
    router.fallback(move |request: Request| handle(app.clone(), unknown.clone(), request))
}

/// The methods of one path.
fn methods(app: &Arc<App>, routes: Vec<Route>) -> MethodRouter {
    let names: Vec<&str> = routes.iter().map(|route| route.method.as_str()).collect();
    let (allowed, first) = (names.join(", "), routes[0].clone());
    let router = routes.into_iter().fold(MethodRouter::new(), |router, route| {
        let filter = MethodFilter::try_from(route.method.clone()).expect("routes have ordinary methods");
        let app = app.clone();
        router.merge(on(filter, move |request: Request| handle(app.clone(), route.clone(), request)))
    });
    let app = app.clone();
    router.fallback(move |request: Request| {
        let route = Route { handler: other_method, needs_key: true, ..first.clone() };
        let (app, allowed) = (app.clone(), allowed.clone());
        async move {
            let mut response = handle(app, route, request).await;
            if let Ok(allowed) = HeaderValue::from_str(&allowed) {
                response.headers_mut().insert(header::ALLOW, allowed);
            }
            response
        }
    })
}

/// From a request to its response, whatever it is.
async fn handle(app: Arc<App>, route: Route, request: Request) -> Response {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let (id, method) = (app.ids.of(&parts.headers), parts.method.clone());
    let (answered, bytes_in) = answer(&app, &route, &mut parts, body, id.clone()).await;
    let mut response = answered.unwrap_or_else(|refusal| {
        app.service.metrics().refused(refusal.name());
        (route.refuse)(&refusal)
    });
    finish(&app, &id, &mut response);
    let status = response.status().as_u16();
    app.service.metrics().responded(route.path, status);
    let entry =
        Entry { id: &id, method: method.as_str(), route: route.path, status, time: started.elapsed(), bytes_in };
    app.logs.request(&entry);
    response
}

/// The answer, or why there is none; and the bytes of the body.
async fn answer(
    app: &Arc<App>,
    route: &Route,
    parts: &mut Parts,
    body: Body,
    id: Arc<str>,
) -> (Result<Response, Refusal>, usize) {
    let checked = app.guard.check(&parts.headers, route.needs_key).and_then(|()| body::check_coding(&parts.headers));
    if let Err(refusal) = checked {
        body::forget(&parts.headers, body).await;
        return (Err(refusal), 0);
    }
    let Held { bytes, memory } = match app.bodies.read(&parts.headers, body).await {
        Ok(held) => held,
        Err(refusal) => return (Err(refusal), 0),
    };
    let bytes_in = bytes.len();
    // A full queue is found out before the body's JSON is read, which takes longer than all the rest.
    if parts.method == Method::POST
        && let Some(refusal) = app.service.is_full(bytes_in)
    {
        return (Err(refusal), bytes_in);
    }
    let parameters = RawPathParams::from_request_parts(parts, &()).await;
    let pairs =
        |params: RawPathParams| params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let call = Call {
        service: app.service.clone(),
        parameters: parameters.map(pairs).unwrap_or_default(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: std::mem::take(&mut parts.headers),
        body: bytes,
        id,
    };
    let response = run(app, route.handler, call).await;
    drop(memory);
    (response, bytes_in)
}

/// Calls the handler: here, or where it can take its time.
async fn run(app: &Arc<App>, handler: Handler, call: Call) -> Result<Response, Refusal> {
    let is_heavy = call.body.len() > HEAVY;
    let answering = Contained(Box::pin(async move { handler(call).await }));
    match app.heavy.as_ref().filter(|_| is_heavy) {
        None => answering.await,
        Some(heavy) => Spawned(heavy.spawn(answering)).await.unwrap_or(Err(Refusal::Failed)),
    }
}

/// What every response carries.
fn finish(app: &App, id: &str, response: &mut Response) {
    let is_unauthorised = response.status() == 401;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(X_REQUEST_ID, id);
    }
    if is_unauthorised {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if app.service.is_draining() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers of every response that does not say otherwise: it is no page, and no page may hold it.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// A handler whose panic is a refusal.
struct Contained(Answering);

impl Future for Contained {
    type Output = Result<Response, Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context)));
        polled.map_or(Poll::Ready(Err(Refusal::Failed)), |polled| polled.map(Ok))
    }
}

/// A task that ends with who waits for it.
struct Spawned<T>(tokio::task::JoinHandle<T>);

impl<T> Future for Spawned<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for Spawned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Ids of requests: those that clients give, or else our own.
struct Ids {
    /// Tells this start of the server from others.
    start: String,
    next: AtomicU64,
}

/// Characters of an id at most.
const ID: usize = 128;

impl Default for Ids {
    fn default() -> Self {
        let mut bytes = [0; 4];
        // Without random numbers, ids of two starts may be the same.
        let _ = getrandom::fill(&mut bytes);
        Ids { start: bytes.iter().map(|byte| format!("{byte:02x}")).collect(), next: AtomicU64::new(1) }
    }
}

impl Ids {
    fn of(&self, headers: &HeaderMap) -> Arc<str> {
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.:/+=".contains(&c);
        let given = web::origin::text(headers, &X_REQUEST_ID);
        let given = given.filter(|id| (1..=ID).contains(&id.len()) && id.bytes().all(is_plain));
        let own = || format!("{}-{}", self.start, self.next.fetch_add(1, Ordering::Relaxed));
        given.map_or_else(|| own().into(), Into::into)
    }
}

fn live(_: Call) -> Answering {
    Box::pin(async { "live\n".into_response() })
}

fn ready(call: Call) -> Answering {
    Box::pin(async move {
        let service = &call.service;
        match service.is_ready() {
            true => "ready\n".into_response(),
            false if service.is_draining() => refuse(&Refusal::Draining),
            false => refuse(&Refusal::NotReady),
        }
    })
}

fn metrics(call: Call) -> Answering {
    Box::pin(async move {
        let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        (kind, call.service.metrics_page()).into_response()
    })
}

fn no_such_path(call: Call) -> Answering {
    let path: String = call.path.chars().take(100).collect();
    Box::pin(async move { refuse(&Refusal::NoSuchPath(path)) })
}

fn other_method(_: Call) -> Answering {
    Box::pin(async { refuse(&Refusal::Method("other methods; the header Allow names them".into())) })
}

#[cfg(test)]
mod tests;
