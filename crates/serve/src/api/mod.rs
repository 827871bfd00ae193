//! Our own format.

use crate::route::Route;

/// All routes of our own API.
pub fn routes() -> Vec<Route> {
    Vec::new()
}
