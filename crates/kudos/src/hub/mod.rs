//! Fetching checkpoints by name.
