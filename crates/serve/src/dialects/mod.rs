//! The formats of other servers.

use crate::route::Route;

/// All routes of the dialects.
pub fn routes() -> Vec<Route> {
    Vec::new()
}
