//! Cache lines: their size, prefetching, and leading dimensions that avoid aliasing.

/// Bytes of a cache line.
pub const LINE_BYTES: usize = 64;

/// Elements per cache line.
pub const LINE: usize = LINE_BYTES / size_of::<f32>();

/// Row stride, in elements, at which rows alias in L1 (4 KiB per way).
pub const ALIASING_STRIDE: usize = 1024;
/// Leading dimension of a copy whose rows have `elements` elements: whole cache lines plus one line, or plus two, since
/// rows with a stride of a multiple of 4 KiB alias in L1.
pub fn choose_leading_dimension(elements: usize) -> usize {
    let row = elements.next_multiple_of(LINE) + LINE;
    if row.is_multiple_of(ALIASING_STRIDE) { row + LINE } else { row }
}

/// Prefetches a line into L2; any address is allowed.
#[inline(always)]
pub fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch does not access memory architecturally, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Prefetches a line for writing into L1; any address is allowed. Used for C when a tile begins.
#[inline(always)]
pub fn prefetch_for_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a prefetch does not access memory architecturally, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
