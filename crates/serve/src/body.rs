//! The body of a request: in time, within its size, and within the memory that all bodies together may have.

use crate::ask::Refusal;
use crate::settings::Settings;
use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use web::origin;

/// What bodies are counted in.
const UNIT: usize = 1024;
/// Bytes of a refused body that are read and forgotten, so that the client reads its answer.
const FORGOTTEN: usize = 64 << 20;
/// Time for that.
const FORGETTING: Duration = Duration::from_secs(2);

/// Reads bodies.
pub(crate) struct Bodies {
    most: usize,
    time: Duration,
    memory: Arc<Semaphore>,
}

/// A body with the memory that it counts for.
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    /// Given back when it is dropped.
    pub(crate) memory: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    pub(crate) fn new(settings: &Settings) -> Self {
        let units = settings.max_bodies.max(settings.max_body).div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        Bodies { most: settings.max_body, time: settings.body_time, memory: Arc::new(Semaphore::new(units)) }
    }

    /// The whole body.
    pub(crate) async fn read(&self, headers: &HeaderMap, mut body: Body) -> Result<Held, Refusal> {
        let read = tokio::time::timeout(self.time, self.read_all(headers, &mut body)).await;
        let read = read.unwrap_or(Err(Refusal::TooSlow(self.time)));
        if matches!(read, Err(Refusal::TooLarge { .. } | Refusal::Overloaded { .. })) {
            forget(headers, body).await;
        }
        read
    }

    async fn read_all(&self, headers: &HeaderMap, body: &mut Body) -> Result<Held, Refusal> {
        let said = origin::text(headers, &CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok()).unwrap_or(0);
        if said > self.most as u64 {
            return Err(self.too_large(said));
        }
        let mut memory = self.reserve(said as usize)?;
        let (mut frames, mut len) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let broken = |_| Refusal::malformed("the body broke off before its end");
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            len += data.len();
            if len > self.most {
                return Err(self.too_large(len as u64));
            }
            let held = memory.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * UNIT;
            if len > held {
                // A body that does not say its length: room for as much again, up to the limit.
                let more = self.reserve((2 * len).min(self.most) - held)?;
                memory = merged(memory, more);
            }
            frames.push(data);
        }
        let bytes = if frames.len() == 1 { frames.remove(0) } else { frames.concat().into() };
        Ok(Held { bytes, memory })
    }

    /// Whether no body is held.
    #[cfg(test)]
    pub(crate) fn are_free(&self, settings: &Settings) -> bool {
        self.memory.available_permits() >= settings.max_bodies.div_ceil(UNIT)
    }

    fn reserve(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let units = bytes.div_ceil(UNIT) as u32;
        if units == 0 {
            return Ok(None);
        }
        let permit = self.memory.clone().try_acquire_many_owned(units);
        permit.map(Some).map_err(|_| Refusal::Overloaded { retry_after: Duration::from_secs(1) })
    }

    fn too_large(&self, found: u64) -> Refusal {
        Refusal::TooLarge { unit: "bytes", found, limit: self.most as u64 }
    }
}

fn merged(first: Option<OwnedSemaphorePermit>, second: Option<OwnedSemaphorePermit>) -> Option<OwnedSemaphorePermit> {
    match (first, second) {
        (Some(mut first), Some(second)) => {
            first.merge(second);
            Some(first)
        }
        (first, second) => first.or(second),
    }
}

/// Refuses a body that would have to be decompressed.
pub(crate) fn check_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(CONTENT_ENCODING) {
        None => Ok(()),
        Some(coding) if coding.as_bytes().eq_ignore_ascii_case(b"identity") => Ok(()),
        Some(_) => {
            Err(Refusal::MediaType { message: "the body has a Content-Encoding; send it without any".to_owned() })
        }
    }
}

/// Reads what the client is still sending: a connection that is closed before takes the answer with it. A client that
/// waits to be told to go on is sent nothing but the answer.
pub(crate) async fn forget(headers: &HeaderMap, mut body: Body) {
    if headers.contains_key(EXPECT) {
        return;
    }
    let reading = async {
        let mut len = 0;
        while let Some(Ok(frame)) = body.frame().await {
            len += frame.data_ref().map_or(0, Bytes::len);
            if len > FORGOTTEN {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(FORGETTING, reading).await;
}
