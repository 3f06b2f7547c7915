//! Software prefetching during the products: without it, a product of a hundred rows waits for memory as it packs each
//! panel of B.

use crate::gemm::arguments::{Left, Position, Source};
use crate::gemm::cache_line::{LINE_BYTES, prefetch};

/// A microkernel's prefetches: the panels of B that are packed next, and the rows of A that are read next. Both are
/// prefetched a few lines at a time, since a burst of a hundred lines exceeds the processor's outstanding misses and
/// stalls.
pub struct Prefetch {
    pub panels: StridedPrefetch,
    pub rows: StridedPrefetch,
}

impl Prefetch {
    #[inline]
    pub fn none() -> Prefetch {
        Prefetch { panels: StridedPrefetch::none(), rows: StridedPrefetch::none() }
    }

    /// Prefetches the share of `steps` steps.
    #[inline(always)]
    pub fn fetch(&mut self, steps: usize) {
        self.panels.fetch(steps);
        self.rows.fetch(steps);
    }
}

/// A strided region to prefetch: `count` ranges of `bytes` bytes, `step` bytes from one to the next; and the progress.
pub struct StridedPrefetch {
    start: *const u8,
    step: usize,
    bytes: usize,
    count: usize,
    /// The next line to prefetch in the current range.
    at: *const u8,
    /// Lines per step.
    lines: usize,
}

impl StridedPrefetch {
    #[inline]
    pub fn none() -> StridedPrefetch {
        StridedPrefetch::new(std::ptr::null(), 0, 0, 0)
    }

    /// `rows` rows of A of `terms` terms, in whichever order is contiguous.
    pub fn for_rows(a: Left, rows: usize, terms: usize) -> StridedPrefetch {
        match a.k {
            1 => StridedPrefetch::new(a.at.cast(), 4 * a.row, 4 * terms, rows),
            _ if rows == 0 => StridedPrefetch::none(),
            _ => StridedPrefetch::new(a.at.cast(), 4 * a.k, 4 * rows, terms),
        }
    }

    /// Adjacent panels of B.
    pub fn for_panels<P: Position>(b: Source<P>, columns: usize, terms: usize) -> StridedPrefetch {
        let (at, bytes) = (b.at.address(), |elements| b.at.bytes(elements));
        match b.row {
            _ if columns == 0 => StridedPrefetch::none(),
            1 if b.column == terms => StridedPrefetch::new(at, 0, bytes(terms * columns), 1),
            1 => StridedPrefetch::new(at, bytes(b.column), bytes(terms), columns),
            _ => StridedPrefetch::new(at, bytes(b.row), bytes(columns), terms),
        }
    }

    fn new(start: *const u8, step: usize, bytes: usize, count: usize) -> StridedPrefetch {
        StridedPrefetch { start, step, bytes, count, at: start, lines: 0 }
    }

    /// Distributes the region over `steps` steps.
    pub fn distribute(self, steps: usize) -> StridedPrefetch {
        // A range may begin and end within a line.
        let lines = self.count * (self.bytes / LINE_BYTES + 2);
        StridedPrefetch { lines: lines.div_ceil(steps.max(1)), ..self }
    }

    /// Prefetches the share of `steps` steps into L2; any address is allowed. Address arithmetic shares ports with
    /// multiply-adds, so the loop has few instructions per line.
    #[inline(always)]
    pub fn fetch(&mut self, steps: usize) {
        let mut lines = steps * self.lines;
        while lines > 0 && self.count > 0 {
            let end = self.start.addr().wrapping_add(self.bytes);
            let left = end.saturating_sub(self.at.addr()).div_ceil(LINE_BYTES);
            let batch = lines.min(left);
            for _ in 0..batch {
                prefetch(self.at);
                self.at = self.at.wrapping_add(LINE_BYTES);
            }
            lines -= batch;
            if batch == left {
                self.count -= 1;
                self.start = self.start.wrapping_add(self.step);
                self.at = self.start;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetching_several_steps_equals_fetching_single_steps() {
        for bytes in [0, 1, 64, 65, 2304] {
            for count in [0, 1, 7, 16] {
                for steps in [1, 5, 36, 288] {
                    let new = || StridedPrefetch::new(std::ptr::null(), 6144, bytes, count).distribute(steps);
                    let at = |s: &StridedPrefetch| (s.start.addr(), s.at.addr(), s.count);
                    let (mut single, mut batched) = (new(), new());
                    for _ in 0..steps.div_ceil(4) {
                        (0..4).for_each(|_| single.fetch(1));
                        batched.fetch(4);
                        assert_eq!(at(&single), at(&batched), "{count} of {bytes} bytes in {steps} steps");
                    }
                    assert_eq!(
                        (batched.start.addr(), batched.count),
                        (count * 6144, 0),
                        "{count} of {bytes} bytes"
                    );
                }
            }
        }
    }

    #[test]
    fn fetching_stops_at_the_end_of_the_address_space() {
        let mut last =
            StridedPrefetch::new(std::ptr::without_provenance(usize::MAX - 100), 4, 300, 3).distribute(2);
        (0..2).for_each(|_| last.fetch(1));
        assert_eq!(last.count, 0);
    }
}
