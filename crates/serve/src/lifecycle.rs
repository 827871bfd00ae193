//! A server from its start to its end: judges are loaded, reloaded on SIGHUP, and on SIGTERM or Ctrl-C what was asked
//! is answered.
//!
//! The listener answers from the start: liveness at once, readiness when every judge has scored a text. On SIGTERM the
//! server says that it is not ready, takes no further work, answers what it has, and ends; a second signal ends it at
//! once.

use crate::ask::JudgeFacts;
use crate::guard::{Guard, Key};
use crate::judges::{self, JudgeLoadError, JudgeSource};
use crate::logs::{LogForm, Logs};
use crate::router::{App, router, routes};
use crate::service::{Judge, Service};
use crate::settings::Settings;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use web::Limits;

/// A server that is to be run.
#[derive(Debug)]
pub struct Server {
    /// Its limits.
    pub settings: Settings,
    /// Its judges; the first is the one that is asked without a name.
    pub judges: Vec<JudgeSource>,
    /// What lets in; `None` lets in who can reach the address.
    pub key: Option<Key>,
    /// How log lines look.
    pub log: LogForm,
}

/// Why a server ended, other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A judge cannot be served.
    #[error("cannot load the judge {name}")]
    Judge {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        cause: Box<JudgeLoadError>,
    },
    /// No threads, no signals or no listener.
    #[error("the server cannot run: {0}")]
    System(#[from] std::io::Error),
    /// A second signal.
    #[error("ended at once: {} not answered", requests(*.0))]
    Forced(usize),
    /// The time to end was over.
    #[error("the time to end was over: {} not answered", requests(*.0))]
    CutOff(usize),
}

/// So many requests, as the subject of a sentence.
fn requests(count: usize) -> String {
    if count == 1 { "1 request was".into() } else { format!("{count} requests were") }
}

/// At the end, time for connections to take their last answer.
const GRACE: Duration = Duration::from_secs(5);
/// Time for a connection as a whole; a client then opens a new one.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Serves until SIGTERM or Ctrl-C. `ready` is called once, when every judge has scored a text.
///
/// Call it on a thread that is not one of the pool's: it waits.
///
/// # Errors
/// [`ServeError`].
pub fn run(server: Server, listener: TcpListener, ready: impl FnOnce(&[Arc<JudgeFacts>])) -> Result<(), ServeError> {
    listener.set_nonblocking(true)?;
    let is_local = listener.local_addr()?.ip().is_loopback();
    let io = Builder::new_current_thread().enable_all().build()?;
    let heavy = Builder::new_multi_thread().worker_threads(1).thread_name("json").enable_all().build()?;
    let service = Service::new(server.settings.clone());
    let logs = Arc::new(Logs::start(server.log, service.metrics().clone(), std::io::stderr()));
    say_panics(&logs);
    let guard = Guard { key: server.key.clone(), is_local };
    let app = App::new(service, guard, logs.clone(), Some(heavy.handle().clone()));
    let ended = io.block_on(serve(&app, &server, listener, ready));
    logs.flush(Duration::from_secs(1));
    io.shutdown_background();
    heavy.shutdown_background();
    ended
}

async fn serve(
    app: &Arc<App>,
    server: &Server,
    listener: TcpListener,
    ready: impl FnOnce(&[Arc<JudgeFacts>]),
) -> Result<(), ServeError> {
    let mut signals = Signals::new()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let Settings { connections, header_time, drain, .. } = server.settings;
    let limits = Limits { connections, header_time, lifetime: LIFETIME, grace: GRACE.min(drain), ..Limits::default() };
    let mut ended = Ok(());
    let life = async { ended = live(app, server, &mut signals, ready).await };
    // Boxed: each connection holds a clone, and the future is large.
    let serving = Box::pin(web::serve(listener, router(app, routes()), limits, life));
    serving.await;
    if ended.is_ok() {
        app.logs.event("end", "ended; all that was asked is answered");
    }
    ended
}

/// All that happens until the connections are to be closed.
async fn live(
    app: &Arc<App>,
    server: &Server,
    signals: &mut Signals,
    ready: impl FnOnce(&[Arc<JudgeFacts>]),
) -> Result<(), ServeError> {
    let loading = load_all(server.judges.clone());
    let judges = tokio::select! {
        loaded = loading => loaded?,
        () = signals.end() => return Ok(()),
    };
    app.service.install_all(judges);
    ready(&app.service.judges());
    let reloading = tokio::spawn(reload_on_signal(app.clone(), server.judges.clone()));
    signals.end().await;
    reloading.abort();
    drain(app, server.settings.drain, signals).await
}

/// Waits until what was asked is answered.
async fn drain(app: &Arc<App>, time: Duration, signals: &mut Signals) -> Result<(), ServeError> {
    let service = &app.service;
    service.drain();
    let in_flight = service.in_flight();
    app.logs
        .event("drain", &format!("asked to end: {} not answered yet, no further ones are taken", requests(in_flight)));
    let until = Instant::now() + time;
    let answered = async {
        while service.in_flight() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = answered => {}
        () = signals.end() => return Err(ServeError::Forced(service.in_flight())),
    }
    match service.in_flight() {
        0 => Ok(()),
        left => Err(ServeError::CutOff(left)),
    }
}

async fn load_all(sources: Vec<JudgeSource>) -> Result<Vec<Judge>, ServeError> {
    let mut judges = Vec::new();
    for source in sources {
        let name = source.name.clone();
        judges.push(load_one(source).await.map_err(|cause| ServeError::Judge { name, cause: Box::new(cause) })?);
    }
    Ok(judges)
}

/// Loads a judge where it may take its time.
async fn load_one(source: JudgeSource) -> Result<Judge, JudgeLoadError> {
    let loaded = tokio::task::spawn_blocking(move || judges::load(&source)).await;
    loaded.unwrap_or(Err(JudgeLoadError::Failed))
}

/// Loads each judge anew whenever it is asked to. One that cannot be loaded stays as it was.
async fn reload_on_signal(app: Arc<App>, sources: Vec<JudgeSource>) {
    let Ok(mut asked) = Reloads::new() else { return };
    while asked.next().await {
        for source in &sources {
            reload(&app, source).await;
        }
    }
}

async fn reload(app: &App, source: &JudgeSource) {
    let name = &source.name;
    let metrics = app.service.metrics().judge(name);
    match load_one(source.clone()).await {
        Ok(judge) => {
            let hash = judge.facts.sha256.clone();
            app.service.install_all(vec![judge]);
            metrics.reloaded(true);
            app.logs.event("reload", &format!("judge {name}: loaded anew, weights {hash}"));
        }
        Err(error) => {
            metrics.reloaded(false);
            app.logs
                .event("reload_failed", &format!("judge {name}: cannot be loaded anew, the old one stays: {error}"));
        }
    }
}

/// Where a panic was, and nothing that it says: that may be a text of a request.
fn say_panics(logs: &Arc<Logs>) {
    let logs = logs.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or_else(|| "an unknown place".into(), ToString::to_string);
        logs.event(
            "panic",
            &format!("a fault of the program at {place}; the item or the request that met it gets an error"),
        );
    }));
}

#[cfg(unix)]
mod signals {
    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// What asks the server to end.
    pub(super) struct Signals {
        terminate: Signal,
        interrupt: Signal,
    }

    impl Signals {
        pub(super) fn new() -> std::io::Result<Self> {
            // From now on, SIGHUP ends nothing.
            drop(signal(SignalKind::hangup())?);
            Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
        }

        /// Waits for the next one.
        pub(super) async fn end(&mut self) {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
        }
    }

    /// What asks the server to load its judges anew.
    pub(super) struct Reloads(Signal);

    impl Reloads {
        pub(super) fn new() -> std::io::Result<Self> {
            signal(SignalKind::hangup()).map(Reloads)
        }

        /// Waits for the next one; false when there will be none.
        pub(super) async fn next(&mut self) -> bool {
            self.0.recv().await.is_some()
        }
    }
}

#[cfg(not(unix))]
mod signals {
    /// What asks the server to end: Ctrl-C.
    pub(super) struct Signals;

    impl Signals {
        pub(super) fn new() -> std::io::Result<Self> {
            Ok(Signals)
        }

        /// Waits for the next one.
        pub(super) async fn end(&mut self) {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Judges are not loaded anew here: there is no SIGHUP.
    pub(super) struct Reloads;

    impl Reloads {
        pub(super) fn new() -> std::io::Result<Self> {
            Ok(Reloads)
        }

        pub(super) async fn next(&mut self) -> bool {
            false
        }
    }
}

use signals::{Reloads, Signals};
