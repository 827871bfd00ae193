//! Connections: how many, how long, how large their headers; and the end, which lets each finish its request.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// What a server allows its clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; further ones wait to be accepted.
    pub connections: usize,
    /// Time for the headers of a request, the wait for a further one included.
    pub header_time: Duration,
    /// Time for a connection as a whole; clients then open a new one.
    pub lifetime: Duration,
    /// Bytes of a request's headers.
    pub header_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// At the end, time for the requests that are being answered.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 256,
            header_time: Duration::from_secs(20),
            lifetime: Duration::from_secs(600),
            header_bytes: 32 * 1024,
            headers: 64,
            grace: Duration::from_secs(5),
        }
    }
}

/// Serves until `stop` ends, and then until all that was asked is answered.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let (closing, closed) = watch::channel(false);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            (stream, slot) = accept(&listener, &slots) => {
                tokio::spawn(connection(stream, router.clone(), limits, closed.clone(), slot));
            }
        }
    }
    drop(listener);
    closing.send_replace(true);
    let _ = tokio::time::timeout(limits.grace, slots.acquire_many(limits.connections as u32)).await;
}

/// The next connection, once there is a slot for it.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let slot = slots.clone().acquire_owned().await.expect("the slots are never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            // Out of file descriptors, or a client that left at once: others may do better.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    mut closed: watch::Receiver<bool>,
    slot: OwnedSemaphorePermit,
) {
    let _slot = slot;
    let _ = stream.set_nodelay(true);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.header_time);
    server.max_buf_size(limits.header_bytes).max_headers(limits.headers);
    let serving = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(serving);
    let end = tokio::time::sleep(limits.lifetime);
    tokio::pin!(end);
    // An error is the client's: it broke off, or it sent what is no request.
    tokio::select! {
        _ = serving.as_mut() => return,
        _ = closed.wait_for(|closed| *closed) => {}
        () = &mut end => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(limits.grace, serving).await;
}
