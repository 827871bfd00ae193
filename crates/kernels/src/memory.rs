//! Large buffers of zeros that the system gives as they are touched.
//!
//! Who writes zeros first touches all pages on one thread, and then again to fill them. Here the threads that fill a
//! buffer are the first to touch it. Huge pages are not asked for: where files fill the memory, as after a few runs on
//! the same model, the system stops to make room for them, and loading 1.2 GB took .36 to 1.8 s instead of .32 to .38.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};

/// So many values, all zero.
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
    // SAFETY: the global allocator gave `len` values for this layout, and zeros are values of a plain type.
    unsafe { Vec::from_raw_parts(start.cast(), len, len) }
}

/// As [`zeroed`], with all pages touched by all threads. Memory that is read before it is written would else be mapped twice,
/// the second time with a halt of the other threads.
pub fn touched<T: bytemuck::Pod + Send>(len: usize) -> Vec<T> {
    use rayon::prelude::*;
    let mut values = zeroed(len);
    values.par_chunks_mut(1 << 16).for_each(|values: &mut [T]| values.fill(std::hint::black_box(T::zeroed())));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_any_size_are_zeros_that_can_be_written() {
        for len in [0, 1, 1000, 3_000_001] {
            let mut values: Vec<f32> = zeroed(len);
            assert!(values.len() == len && values.iter().all(|value| *value == 0.0));
            values.fill(1.5);
            values.push(2.5);
            assert!(values[..len].iter().all(|value| *value == 1.5) && values[len] == 2.5, "{len}");
        }
    }
}
