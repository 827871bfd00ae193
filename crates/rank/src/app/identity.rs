//! What is the database's own: its identity, and the secret from which its tokens are made.
//!
//! Browsers keep rankings for a database, and must not send them to another at the same address. Links stay the same over
//! restarts, since rankings may still be waiting in browsers that know the link.

use crate::{Store, StoreError};
use sha2::{Digest, Sha256};

/// The identity of a database, which is made the first time that it is asked for.
pub fn of(store: &Store) -> Result<String, StoreError> {
    fact(store, "id")
}

/// The token of a person's own link, or (`None`) the server's. The person's is stored with the person.
///
/// # Errors
/// If the database cannot be written, or the name cannot be a person's.
pub fn token_for(store: &Store, person: Option<&str>) -> Result<String, StoreError> {
    let secret = fact(store, "secret")?;
    let Some(name) = person else { return Ok(token(&secret, "the server")) };
    let (annotator, token) = (store.annotator(name)?, token(&secret, &format!("person {}", name.trim())));
    store.set_token(annotator, Some(&token))?;
    Ok(token)
}

/// A random value under a name, which is made the first time that it is asked for.
fn fact(store: &Store, name: &str) -> Result<String, StoreError> {
    store.write(|change, _, _| {
        change.execute("INSERT OR IGNORE INTO fact (name, value) VALUES (?1, ?2)", (name, super::session::secret()))?;
        Ok(change.query_row("SELECT value FROM fact WHERE name = ?1", [name], |row| row.get(0))?)
    })
}

fn token(secret: &str, whose: &str) -> String {
    let hash = Sha256::digest(format!("{secret} {whose}"));
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
