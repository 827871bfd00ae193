//! The page where people rank, and the server behind it.
//!
//! It binds to this machine unless it is told otherwise, and asks for a token at any other address. Texts of models and of
//! people are hostile: the page shows them as text, and a strict policy keeps anything else from running. The store is
//! called on threads of its own, and a vote is acknowledged when it is on the disk.

mod assets;
mod error;
mod figures;
mod guard;
mod identity;
mod routes;
mod session;
mod train;

use crate::{QueueSettings, Store};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use session::Sessions;
use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use train::Training;
use web::Limits;

pub use identity::token_for;

/// Waits, in a `stop` of [`run`].
pub async fn sleep(time: std::time::Duration) {
    tokio::time::sleep(time).await;
}

/// Bytes of a request's body: a ballot of 16 responses with a long comment is far below.
const BODY: usize = 256 * 1024;

/// What is asked of the people, and of whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address that the server listens at.
    pub address: SocketAddr,
    /// Without it, nobody gets in; `None` lets in who can reach the address.
    pub token: Option<String>,
    /// How the next item is chosen.
    pub queue: QueueSettings,
    /// What each response may be rated in, from 1 to 5.
    pub attributes: Vec<String>,
    /// What a response may be flagged as.
    pub flags: Vec<String>,
    /// The name that is offered to the first who comes.
    pub suggested_name: Option<String>,
    /// What "train now" runs: the program, and the arguments that come first.
    pub program: Vec<OsString>,
}

impl Settings {
    /// Whether only programs of this machine can reach the server.
    pub fn is_local(&self) -> bool {
        self.address.ip().is_loopback()
    }
}

/// What all requests share.
struct App {
    store: Arc<Store>,
    settings: Settings,
    sessions: Sessions,
    training: Training,
    database: String,
    /// Whether further responses are still being written.
    more_to_come: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Serves the page until `stop` ends, then answers what was asked, and ends.
///
/// # Errors
/// If the runtime or the listener cannot be had, or the database cannot be written.
pub fn run(
    store: Arc<Store>,
    settings: Settings,
    listener: TcpListener,
    more_to_come: impl Fn() -> bool + Send + Sync + 'static,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let app = Arc::new(App::new(store, settings, Box::new(more_to_come))?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(16).build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        web::serve(listener, router(app.clone()), Limits::default(), stop).await;
        app.training.stop();
        Ok(())
    })
}

impl App {
    fn new(
        store: Arc<Store>,
        settings: Settings,
        more_to_come: Box<dyn Fn() -> bool + Send + Sync>,
    ) -> std::io::Result<App> {
        let database = identity::of(&store).map_err(std::io::Error::other)?;
        let training = Training::of(settings.program.clone(), store.path());
        Ok(App { store, settings, sessions: Sessions::default(), training, database, more_to_come })
    }
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(assets::ranking))
        .route("/results", get(assets::results))
        .route("/assets/{name}", get(assets::asset))
        .route("/api/about", get(routes::about))
        .route("/api/session", post(routes::open_session))
        .route("/api/task", get(routes::task))
        .route("/api/items/{item}", get(figures::item))
        .route("/api/votes", post(routes::submit))
        .route("/api/votes/{vote}", delete(routes::withdraw))
        .route("/api/progress", get(routes::progress))
        .route("/api/results", get(figures::results))
        .route("/api/train", get(figures::training).post(figures::start_training).delete(figures::stop_training))
        .layer(DefaultBodyLimit::max(BODY))
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}

#[cfg(test)]
mod tests;
