//! Math on slices.
