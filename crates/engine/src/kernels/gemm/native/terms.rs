//! Blocking along K: the number of terms that are summed in registers, and that are packed together.

/// Most terms that are summed in registers before they are added to C.
pub const SUMMED: usize = 1024;
/// Most terms for a narrow gradient product: Aᵀ·B of two row-major factors where C has few rows or columns, as for
/// low-rank factors. The part of a factor that is read then spans few pages and is read once, sequentially.
const SUMMED_NARROW: usize = 64;
/// Most threads for deep blocks of K: an estimate, measured with two threads, of how many a shared cache can feed.
const DEEP_THREADS: usize = 8;

/// Terms of K that are summed in registers: equal parts, as few as possible.
pub fn summed_of(k: usize) -> usize {
    even(k, SUMMED)
}

/// As for `summed_of`, for a narrow gradient product.
pub fn summed_of_narrow(k: usize) -> usize {
    even(k, SUMMED_NARROW)
}

/// Terms per block of K for tiles of three vectors: a multiple of `summed`, at most `room`, in as few equal blocks as
/// possible. A tile then adds its partial sums to elements of C that are still in L1. A streams past each panel once
/// per block, at 7 GB/s per thread, so deep blocks are used for up to `DEEP_THREADS` threads.
pub fn deep_part(k: usize, summed: usize, room: usize, threads: usize) -> usize {
    if threads > DEEP_THREADS {
        return summed;
    }
    summed * even(k.div_ceil(summed), (room / summed).max(1))
}

fn even(k: usize, most: usize) -> usize {
    k.div_ceil(k.div_ceil(most))
}
