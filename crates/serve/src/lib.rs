//! Judges behind one address: our own API, and the dialects of other servers on the same port.
//!
//! A request goes through these files, in this order:
//!
//! | file | what it does |
//! |---|---|
//! | `lifecycle` | starts, loads the judges, reloads them on SIGHUP, drains on SIGTERM |
//! | `router`, `guard` | routes → handlers; what stands before every route: key, host, body |
//! | `api`, `dialects` | bytes → [`ask::Ask`]; [`ask::Answer`] or [`ask::Refusal`] → response |
//! | `service` | the way of one request through the judges |
//! | `admission` | whether there is room, and if not, when |
//! | `tokenise` | texts → ids, on threads of their own, with a limit on time |
//! | `batcher` | ids → batches, fair between requests; batches → results, whatever fails |
//! | `judges` | judge directories → encoders and scorers |
//! | `metrics`, `logs` | what is counted, and what is written down |
//!
//! This crate opens no outgoing connection.

mod admission;
pub mod api;
pub mod ask;
mod batcher;
mod body;
pub mod dialects;
mod gather;
pub mod guard;
mod judges;
mod lifecycle;
mod logs;
mod metrics;
mod queue;
pub mod route;
mod router;
pub mod service;
pub mod settings;
#[cfg(test)]
mod testing;
mod tokenise;

pub use judges::{JudgeLoadError, JudgeSource};
pub use lifecycle::{ServeError, Server, run};
pub use logs::LogForm;
pub use router::routes;
