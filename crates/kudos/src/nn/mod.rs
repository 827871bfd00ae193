//! The tape of fused ops, parameters and weight files.
