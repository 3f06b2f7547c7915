//! What will be read next, asked for while something else is multiplied: memory is far slower than the
//! tiles, and a product of a hundred rows would wait for each panel of B as it packs it.

use super::microkernel::Left;
use super::pack::{At, Source};
use super::packing::Packing;

/// Bytes of a cache line.
pub const LINE_BYTES: usize = 64;

/// What a tile asks for as it goes: the panels of B that are packed next, and the rows of A that are read next.
/// Both a few lines at a time: rows asked for between two tiles, a hundred lines at once, are more misses than the
/// processor keeps, and it waits: 414 to 434 GFLOP/s where it is 463 to 468 (512 × 1536 × 576 and 512 × 576 × 1536
/// on two cores of a Zen 5 that reach 530). Tried: asking for the next task's first panel and rows, too, nothing.
pub struct Prefetch {
    pub panels: Stretches,
    pub rows: Stretches,
    /// What is packed meanwhile. Loops that do not go on with it leave it as it is.
    pub packing: Option<Packing>,
}

impl Prefetch {
    pub fn nothing() -> Prefetch {
        Prefetch { panels: Stretches::nothing(), rows: Stretches::nothing(), packing: None }
    }

    /// Asks for what the next `steps` call for.
    #[inline(always)]
    pub fn fetch(&mut self, steps: usize) {
        self.panels.fetch(steps);
        self.rows.fetch(steps);
    }

    /// Finishes what is being packed, and returns the number of its panels, those packed before included.
    pub fn finish_packing(&mut self) -> usize {
        self.packing.take().map_or(0, Packing::finish)
    }
}

/// `count` stretches of `bytes`, `step` bytes from one to the next, and how far they have been asked for.
pub struct Stretches {
    start: *const u8,
    step: usize,
    bytes: usize,
    count: usize,
    /// The next line of the first stretch that is left.
    at: *const u8,
    /// Lines to a step.
    lines: usize,
}

impl Stretches {
    pub fn nothing() -> Stretches {
        Stretches::new(std::ptr::null(), 0, 0, 0)
    }

    /// Rows of A, `terms` of each, whichever of the two lie side by side.
    pub fn rows(a: Left, rows: usize, terms: usize) -> Stretches {
        match a.k {
            1 => Stretches::new(a.at.cast(), 4 * a.row, 4 * terms, rows),
            _ if rows == 0 => Stretches::nothing(),
            _ => Stretches::new(a.at.cast(), 4 * a.k, 4 * rows, terms),
        }
    }

    /// Panels of B side by side.
    pub fn panels<P: At>(b: Source<P>, columns: usize, terms: usize) -> Stretches {
        let (at, bytes) = (b.at.address(), |elements| b.at.bytes(elements));
        match b.row {
            _ if columns == 0 => Stretches::nothing(),
            1 if b.column == terms => Stretches::new(at, 0, bytes(terms * columns), 1),
            1 => Stretches::new(at, bytes(b.column), bytes(terms), columns),
            _ => Stretches::new(at, bytes(b.row), bytes(columns), terms),
        }
    }

    fn new(start: *const u8, step: usize, bytes: usize, count: usize) -> Stretches {
        Stretches { start, step, bytes, count, at: start, lines: 0 }
    }

    /// To be asked for in so many `steps`.
    pub fn over(self, steps: usize) -> Stretches {
        // A stretch may begin and end within a line.
        let lines = self.count * (self.bytes / LINE_BYTES + 2);
        Stretches { lines: lines.div_ceil(steps.max(1)), ..self }
    }

    /// Asks for what the next `steps` call for, for L2; any address will do. Its additions and compares
    /// share ports with multiply-adds: few instructions a line.
    #[inline(always)]
    pub fn fetch(&mut self, steps: usize) {
        let mut lines = steps * self.lines;
        while lines > 0 && self.count > 0 {
            let end = self.start.addr().wrapping_add(self.bytes);
            let left = end.saturating_sub(self.at.addr()).div_ceil(LINE_BYTES);
            let some = lines.min(left);
            for _ in 0..some {
                prefetch(self.at);
                self.at = self.at.wrapping_add(LINE_BYTES);
            }
            lines -= some;
            if some == left {
                self.count -= 1;
                self.start = self.start.wrapping_add(self.step);
                self.at = self.start;
            }
        }
    }
}

/// Asks for a line for L2; any address will do.
#[inline(always)]
pub fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: asking reads nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks for a line that will be written, for L1; any address will do. C's, as a tile begins: 1% of a
/// step of SmolLM2.
#[inline(always)]
pub fn to_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: asking reads nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_at_once_is_what_is_asked_for_one_after_another() {
        for bytes in [0, 1, 64, 65, 2304] {
            for count in [0, 1, 7, 16] {
                for steps in [1, 5, 36, 288] {
                    let new = || Stretches::new(std::ptr::null(), 6144, bytes, count).over(steps);
                    let at = |s: &Stretches| (s.start.addr(), s.at.addr(), s.count);
                    let (mut one, mut some) = (new(), new());
                    for _ in 0..steps.div_ceil(4) {
                        (0..4).for_each(|_| one.fetch(1));
                        some.fetch(4);
                        assert_eq!(at(&one), at(&some), "{count} of {bytes} bytes in {steps} steps");
                    }
                    assert_eq!(
                        (some.start.addr(), some.count),
                        (count * 6144, 0),
                        "{count} of {bytes} bytes"
                    );
                }
            }
        }
    }

    #[test]
    fn an_address_at_the_end_of_all_ends_the_asking() {
        let mut last = Stretches::new(std::ptr::without_provenance(usize::MAX - 100), 4, 300, 3).over(2);
        (0..2).for_each(|_| last.fetch(1));
        assert_eq!(last.count, 0);
    }
}
