//! Large pages for what every product reads from end to end: there the processor looks up few addresses. All other memory is better off with small
//! ones, of which no more is held than is used.

use std::ops::Range;

/// What the system's large pages have on the processors that there are kernels for.
const PAGE_BYTES: usize = 2 << 20;
/// Less than this is not asked for: a large page would hold little of it.
const LEAST_BYTES: usize = PAGE_BYTES / 8;

/// A buffer with room for `len` items, in large pages where the system gives them to those who ask. It must not have been written to yet: memory gets
/// its pages when it is first touched.
pub(crate) fn with_capacity<T>(len: usize) -> Vec<T> {
    let buffer: Vec<T> = Vec::with_capacity(len);
    let (first, bytes): (*const u8, usize) = (buffer.as_ptr().cast(), len * size_of::<T>());
    if bytes >= LEAST_BYTES {
        let Range { start, end } = pages(first.addr(), bytes);
        ask(first.cast_mut().wrapping_sub(first.addr() - start), end - start);
    }
    buffer
}

/// The whole large pages in which some bytes lie: buffers that follow each other share them.
fn pages(address: usize, bytes: usize) -> Range<usize> {
    address / PAGE_BYTES * PAGE_BYTES..(address + bytes).next_multiple_of(PAGE_BYTES)
}

#[cfg(target_os = "linux")]
fn ask(start: *mut u8, bytes: usize) {
    // SAFETY: no byte changes and none is read: it says only in what pages the system keeps what is, or will be, in this stretch. Where it keeps
    // nothing there it refuses. That it does, or has no large pages, costs speed alone.
    let _ = unsafe { rustix::mm::madvise(start.cast(), bytes, rustix::mm::Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn ask(_: *mut u8, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_pages_hold_all_bytes_and_none_more_than_needed() {
        const PAGE: usize = PAGE_BYTES;
        for (address, bytes, first, last) in [(PAGE, PAGE, 1, 2), (PAGE + 1, PAGE, 1, 3), (3 * PAGE - 1, 1, 2, 3), (5, 9, 0, 1), (PAGE - 1, 2, 0, 2)]
        {
            assert_eq!(pages(address, bytes), first * PAGE..last * PAGE);
        }
    }

    #[test]
    fn a_buffer_is_as_long_as_asked_and_can_be_written() {
        for len in [0, 1, LEAST_BYTES - 1, LEAST_BYTES, 3 * PAGE_BYTES + 5] {
            let mut buffer = with_capacity::<u8>(len);
            assert!(buffer.is_empty() && buffer.capacity() >= len);
            buffer.resize(len, 7);
            assert!(buffer.iter().all(|byte| *byte == 7));
        }
    }
}
