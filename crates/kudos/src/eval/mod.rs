//! Metrics of a judge.
