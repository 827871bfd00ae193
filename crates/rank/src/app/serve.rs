//! Connections: how many, how long, how large their headers; and the end, which lets each finish its request.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Connections at once; further ones wait to be accepted.
const CONNECTIONS: usize = 256;
/// Time for the headers of a request, the wait for a further one included.
const HEADER_TIME: Duration = Duration::from_secs(20);
/// Time for a connection as a whole; pages then open a new one.
const LIFETIME: Duration = Duration::from_secs(600);
const HEADER_BYTES: usize = 32 * 1024;
const HEADERS: usize = 64;
/// At the end, time for the requests that are being answered.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until `stop` ends, and then until all that was asked is answered.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let (closing, closed) = watch::channel(false);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            (stream, slot) = accept(&listener, &slots) => {
                tokio::spawn(connection(stream, router.clone(), closed.clone(), slot));
            }
        }
    }
    drop(listener);
    closing.send_replace(true);
    let _ = tokio::time::timeout(GRACE, slots.acquire_many(CONNECTIONS as u32)).await;
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

async fn connection(stream: TcpStream, router: Router, mut closed: watch::Receiver<bool>, slot: OwnedSemaphorePermit) {
    let _slot = slot;
    let _ = stream.set_nodelay(true);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEADER_BYTES).max_headers(HEADERS);
    let serving = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(serving);
    let end = tokio::time::sleep(LIFETIME);
    tokio::pin!(end);
    // An error is the client's: it broke off, or it sent what is no request.
    tokio::select! {
        _ = serving.as_mut() => return,
        _ = closed.wait_for(|closed| *closed) => {}
        () = &mut end => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(GRACE, serving).await;
}
