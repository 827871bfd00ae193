//! Requests of each dialect: the first byte chooses the route, the rest is the body.
#![no_main]

#[path = "../../crates/serve/tests/rule/mod.rs"]
#[allow(dead_code, reason = "the target uses a part of what the tests share")]
mod rule;

use std::sync::LazyLock;

static SERVER: LazyLock<rule::Server> = LazyLock::new(rule::server);

libfuzzer_sys::fuzz_target!(|data: &[u8]| rule::any_bytes(&SERVER, data));
