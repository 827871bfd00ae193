//! What a server is asked to do, with all defaults.

use std::time::Duration;

/// The settings of a server that are not its judges or its address.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tokens of one batch. A longer text is a batch of its own.
    pub max_batch_tokens: usize,
    /// Tokens that may wait in the queue of a judge. A larger request is taken when the queue is empty.
    pub queue_tokens: usize,
    /// Items that may wait in the queue of a judge; likewise.
    pub queue_items: usize,
    /// Items of one request.
    pub max_items: usize,
    /// Characters of one item, its prompt included.
    pub max_item_characters: usize,
    /// Characters of one request; a prompt counts once for each response.
    pub max_request_characters: usize,
    /// Bytes of one request's body.
    pub max_body: usize,
    /// Bytes of the bodies of all requests that are being answered.
    pub max_bodies: usize,
    /// Connections at once.
    pub connections: usize,
    /// Time for the headers of a request; also the time that a connection may be idle.
    pub header_time: Duration,
    /// Time for the body of a request.
    pub body_time: Duration,
    /// Time for tokenising one text.
    pub tokenise_time: Duration,
    /// Threads that tokenise.
    pub tokenisers: usize,
    /// Time for the requests in flight when the server is asked to end.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            max_batch_tokens: 2048,
            queue_tokens: 131_072,
            queue_items: 16_384,
            max_items: 16_384,
            max_item_characters: 262_144,
            max_request_characters: 16 << 20,
            max_body: 16 << 20,
            max_bodies: 128 << 20,
            connections: 512,
            header_time: Duration::from_secs(30),
            body_time: Duration::from_secs(60),
            tokenise_time: Duration::from_secs(2),
            tokenisers: 2,
            drain: Duration::from_secs(30),
        }
    }
}
