//! Large buffers: zeros that the system gives as they are touched, in huge pages where it has them.
//!
//! Loading a model touches gigabytes for the first time. In pages of 4 kB the system is asked a quarter of a million times
//! for each, which takes longer than reading the file.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};

/// Buffers of so many bytes ask for huge pages.
const LARGE: usize = 8 << 20;

/// So many values, all zero. No memory is taken before it is touched, so threads may share the work of that.
///
/// # Panics
/// When no address space could hold them.
pub fn zeroed<T: bytemuck::Pod>(len: usize) -> Vec<T> {
    let layout = Layout::array::<T>(len).expect("a buffer within the address space");
    if layout.size() == 0 {
        return Vec::new();
    }
    // SAFETY: the layout has a size.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        handle_alloc_error(layout);
    }
    if layout.size() >= LARGE {
        ask_for_huge_pages(start, layout.size());
    }
    // SAFETY: the global allocator gave `len` values for this layout, and zeros are values of a plain type.
    unsafe { Vec::from_raw_parts(start.cast(), len, len) }
}

/// Asks for huge pages inside a buffer. It is advice: where there are none, nothing changes.
#[cfg(all(target_os = "linux", not(miri)))]
fn ask_for_huge_pages(start: *mut u8, bytes: usize) {
    use std::ffi::{c_int, c_void};
    unsafe extern "C" {
        fn madvise(start: *mut c_void, bytes: usize, advice: c_int) -> c_int;
    }
    const HUGE: usize = 2 << 20;
    const MADV_HUGEPAGE: c_int = 14;
    let before = start.align_offset(HUGE);
    let inside = bytes.saturating_sub(before) / HUGE * HUGE;
    if inside > 0 {
        // SAFETY: the range lies inside the buffer, and the advice does not change what is in memory.
        unsafe { madvise(start.add(before).cast(), inside, MADV_HUGEPAGE) };
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn ask_for_huge_pages(_: *mut u8, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_any_size_are_zeros_that_can_be_written() {
        for len in [0, 1, 1000, LARGE / 4, LARGE / 4 + 3_000_001] {
            let mut values: Vec<f32> = zeroed(len);
            assert!(values.len() == len && values.iter().all(|value| *value == 0.0));
            values.fill(1.5);
            values.push(2.5);
            assert!(values[..len].iter().all(|value| *value == 1.5) && values[len] == 2.5, "{len}");
        }
    }
}
