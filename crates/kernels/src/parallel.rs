//! Threads: how work is cut into tasks, each of which owns what it writes.

use crate::gemm::amx::AtEnd;
use rayon::prelude::*;

/// Fixes the number of threads of the whole process. Call once, before any kernel runs.
///
/// # Errors
/// When the pool already exists with another size.
pub fn set_threads(threads: usize) -> Result<(), String> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|e| e.to_string())
}

/// Runs `work` on a thread of the pool: parallel loops inside start without waking and awaiting another thread.
pub fn inside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| work())
}

/// Number of threads that kernels called from here will use.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Runs `work` with its own pool of `threads` threads: how tests compare thread counts in one process.
pub fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.expect("a thread pool of a few threads can be built");
    #[cfg(test)]
    let work = {
        let tested = crate::simd::TESTED.get();
        move || {
            crate::simd::TESTED.set(tested);
            work()
        }
    };
    pool.install(work)
}

/// Rows handed to one task at a time: enough work to pay for the hand-over.
pub(crate) const ROWS: usize = 16;

/// Runs `task(i)` for `0..tasks`, in any order, in parallel. Tiles that a task configured are released at its end.
pub(crate) fn for_each(tasks: usize, task: impl Fn(usize) + Sync + Send) {
    let task = |index| {
        let _at_end = AtEnd;
        task(index);
    };
    if tasks <= 1 || threads() == 1 {
        return (0..tasks).for_each(task);
    }
    (0..tasks).into_par_iter().for_each(task);
}

/// Runs `task(first_row, block)` over blocks of [`ROWS`] rows of `width` values.
pub(crate) fn for_row_blocks<T: Send>(data: &mut [T], width: usize, task: impl Fn(usize, &mut [T]) + Sync + Send) {
    data.par_chunks_mut(ROWS * width).enumerate().for_each(|(block, rows)| task(block * ROWS, rows));
}

/// `rows · columns`: a shape that overflows must not pass for a small one.
pub(crate) fn area(rows: usize, columns: usize) -> usize {
    rows.checked_mul(columns).unwrap_or_else(|| panic!("{rows}×{columns} values do not fit into memory"))
}

/// A slice that several tasks write at once, each its own elements.
///
/// This is the one place where the borrow checker is overruled for strided outputs (a column block,
/// the columns of one attention head).
pub(crate) struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

// SAFETY: `Shared` is a borrowed `&mut [T]`; tasks promise disjoint elements in `slice`.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), lifetime: std::marker::PhantomData }
    }

    /// `len` elements from `start`.
    ///
    /// # Safety
    /// No two tasks may hold overlapping elements at once.
    #[allow(clippy::mut_from_ref)] // Disjointness is the caller's promise, above.
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "{len} values from {start} lie outside {}", self.len);
        // SAFETY: in bounds by the assertion, disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }

    /// Pointer to element `start`, for a strided kernel that stays inside the slice.
    pub(crate) fn pointer(&self, start: usize) -> *mut T {
        assert!(start <= self.len, "{start} lies outside {} values", self.len);
        self.data.wrapping_add(start)
    }
}
