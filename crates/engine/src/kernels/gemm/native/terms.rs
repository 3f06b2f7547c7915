//! How many terms of K a product sums in registers, and packs, at a time.

/// Most terms that are summed in registers before they are added to C. 512 of AVX2, whose panel then stays in
/// L1: products of what is in a cache 5 to 8% faster, a step of SmolLM2 2% slower. Parts of 1024 of K of which
/// all tiles of a group take 288 terms before the next, so that those stay there: 1 to 2% slower by AVX2, 3 to 4% by AVX-512.
pub const SUMMED: usize = 1024;
/// As many at most of a narrow product of gradients: Aᵀ·B of two factors that have a row to each term, where C has few rows
/// or columns, as low-rank factors have. A part of what is read lies in few pages then, and is read once, in order. Products
/// of 512 terms, ms on two cores of a Xeon (Emerald Rapids), lower quartiles of 100 steps of a layer, 20 of the largest:
///
/// | m × n     | AVX2, 512 at a time | 64   | AVX-512, 512 | 64   |
/// |-----------|---------------------|------|--------------|------|
/// | 16 × 576  | 0.23                | 0.18 | 0.14         | 0.11 |
/// | 1536 × 16 | 0.53                | 0.41 | 0.42         | 0.31 |
/// | 16 × 4096 | 2.7                 | 0.9  | 1.2          | 0.6  |
/// | 4096 × 16 | 2.5                 | 0.8  | 1.7          | 0.7  |
///
/// 32 at a time took as long, 128 up to twice.
const SUMMED_NARROW: usize = 64;
/// Threads whose tasks are deep: an estimate of how many get their rows from the caches that they share, measured with two.
const DEEP_THREADS: usize = 8;

/// Terms of K that are summed in registers at a time: as few times as there can be, as many each time.
pub fn summed_of(k: usize) -> usize {
    even(k, SUMMED)
}

/// As `summed_of`, of a narrow product of gradients.
pub fn summed_of_narrow(k: usize) -> usize {
    even(k, SUMMED_NARROW)
}

/// Terms that are packed at a time by tiles of three vectors: several times those that are `summed` in registers, as many
/// as one panel of the workspace has `room` for, in as few parts as there can be. A tile then adds its sums one after another
/// to elements of C that L1 holds, and not a part later, when each of its rows comes from a page of its own.
/// Times by turns in one process, those of parts of one sum being 1, two cores of a Xeon (Emerald Rapids):
///
/// | m × n × k          | x·Wᵀ         | x·W          | two panels of half as many terms, x·Wᵀ |
/// |--------------------|--------------|--------------|----------------------------------------|
/// | 512 × 4096 × 4096  | 0.94 to 0.96 | 0.97 to 1.01 | 0.96 to 0.99                           |
/// | 2048 × 4096 × 4096 | 0.94 to 0.96 | 0.94         | 0.97 to 0.99                           |
/// | 512 × 576 × 1536   | 0.95 to 0.97 | 0.99         | 0.96                                   |
///
/// A passes each panel by itself then, which is 7 GB/s for each thread: up to `DEEP_THREADS`. By AVX2 it is 0.98 to 1.03.
pub fn deep_part(k: usize, summed: usize, room: usize, threads: usize) -> usize {
    if threads > DEEP_THREADS {
        return summed;
    }
    summed * even(k.div_ceil(summed), (room / summed).max(1))
}

fn even(k: usize, most: usize) -> usize {
    k.div_ceil(k.div_ceil(most))
}
