//! Memory of a task, one per thread: it grows and is never given back, so that a warm step allocates nothing.

use std::cell::RefCell;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` with scratch slices of these lengths, of unspecified content. `work` must not call this again.
pub(crate) fn with_scratch<const N: usize>(lengths: [usize; N], work: impl FnOnce([&mut [f32]; N])) {
    SCRATCH.with_borrow_mut(|scratch| {
        let total = lengths.iter().sum();
        if scratch.len() < total {
            scratch.resize(total, 0.0);
        }
        let mut rest = scratch.as_mut_slice();
        work(lengths.map(|len| {
            let (own, after) = std::mem::take(&mut rest).split_at_mut(len);
            rest = after;
            own
        }));
    });
}
