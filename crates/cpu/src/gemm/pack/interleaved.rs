//! Packing of B's panels, interleaved with the products of the panels before.

use crate::gemm::cache_line::{LINE_BYTES, prefetch};

/// Prefetch distance, in rows.
const AHEAD: usize = 16;
/// Elements per copy; the width of a panel is a multiple in every instruction set.
const COPY: usize = 8;

/// Packs whole panels of a row-major f32 B, a few rows between a tile's terms, with the load and store slots that
/// multiply-adds leave free. The elements of a row for all panels are read together, since adjacent lines are cheaper
/// to prefetch.
pub struct InterleavedPacking {
    /// The next row to prefetch.
    from: *const f32,
    /// The stride from row to row, in elements.
    row_step: usize,
    /// The destination of the next row, in the first panel.
    to: *mut f32,
    panel: usize,
    /// The stride from panel to panel, in elements.
    panel_step: usize,
    panels: usize,
    /// Rows left to prefetch, and to pack.
    to_prefetch: usize,
    to_pack: usize,
    /// Rows per step, in 256ths, and the remainder of earlier steps.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    share: usize,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    carry: usize,
}

impl InterleavedPacking {
    /// Packs `k` rows of `panels` panels of `panel` columns, distributed over `steps` steps. B's first element is at
    /// `from`, and its row stride is `row_step` elements.
    ///
    /// # Safety
    /// Until packing is finished, B covers the rows; `to` covers the panels (stride `panel_step` elements), and nothing
    /// else accesses them.
    pub unsafe fn new(
        from: *const f32,
        row_step: usize,
        k: usize,
        [panels, panel, panel_step]: [usize; 3],
        to: *mut f32,
        steps: usize,
    ) -> InterleavedPacking {
        debug_assert!(panel.is_multiple_of(COPY));
        let share = (256 * (k + AHEAD)).div_ceil(steps.max(1));
        InterleavedPacking {
            from,
            row_step,
            to,
            panel,
            panel_step,
            panels,
            to_prefetch: k,
            to_pack: k,
            share,
            carry: 0,
        }
    }

    /// Continues packing, for the share of `steps` steps.
    // Called by x86-64 microkernels only.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    #[inline(always)]
    pub fn advance(&mut self, steps: usize) {
        if self.to_pack == 0 {
            return;
        }
        self.carry += steps * self.share;
        let rows = self.carry / 256;
        self.carry %= 256;
        for _ in 0..rows {
            if self.to_pack > 0 {
                self.step();
            }
        }
    }

    /// Packs the remaining rows. Returns the number of panels.
    pub fn finish(mut self) -> usize {
        while self.to_pack > 0 {
            self.step();
        }
        self.panels
    }

    /// Prefetches a row, and packs the row that was prefetched `AHEAD` rows before.
    #[inline(always)]
    fn step(&mut self) {
        let behind = self.to_pack - self.to_prefetch;
        if self.to_prefetch == 0 || behind == AHEAD {
            let (mut from, mut to) = (self.from.wrapping_sub(behind * self.row_step), self.to);
            for _ in 0..self.panels {
                for at in (0..self.panel).step_by(COPY) {
                    // SAFETY: required by `new`.
                    unsafe {
                        to.add(at)
                            .cast::<[f32; COPY]>()
                            .write_unaligned(from.add(at).cast::<[f32; COPY]>().read_unaligned())
                    };
                }
                (from, to) = (from.wrapping_add(self.panel), to.wrapping_add(self.panel_step));
            }
            self.to = self.to.wrapping_add(self.panel);
            self.to_pack -= 1;
        }
        if self.to_prefetch > 0 {
            for at in (0..4 * self.panels * self.panel).step_by(LINE_BYTES) {
                prefetch(self.from.cast::<u8>().wrapping_add(at));
            }
            self.from = self.from.wrapping_add(self.row_step);
            self.to_prefetch -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_packed_some_at_a_time_lie_as_those_of_whole_panels() {
        let (row, panel) = (60, 16);
        for k in [1, 2, AHEAD, AHEAD + 1, 50] {
            let b: Vec<f32> = (0..k * row).map(|i| i as f32).collect();
            for panels in 1..4 {
                let panel_step = panel * k + 8;
                let mut expected = vec![f32::NAN; panels * panel_step];
                for (i, to) in expected.chunks_mut(panel_step).enumerate() {
                    for t in 0..k {
                        let from = &b[t * row + 3 + i * panel..];
                        to[t * panel..][..panel].copy_from_slice(&from[..panel]);
                    }
                }
                for (steps, taken) in [(1, 0), (1, 1), (7, 7), (40, 13), (40, 40), (1000, 999), (1000, 1000)]
                {
                    let mut to = vec![f32::NAN; panels * panel_step];
                    // SAFETY: both buffers cover the panels, and nothing else uses them.
                    let mut packing = unsafe {
                        InterleavedPacking::new(
                            b[3..].as_ptr(),
                            row,
                            k,
                            [panels, panel, panel_step],
                            to.as_mut_ptr(),
                            steps,
                        )
                    };
                    (0..taken).for_each(|_| packing.advance(1));
                    if taken == steps {
                        assert_eq!(packing.to_pack, 0, "{k} rows in {steps} steps");
                    }
                    assert_eq!(packing.finish(), panels);
                    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&to), bits(&expected), "{k} rows of {panels}, {taken} of {steps} steps");
                }
            }
        }
    }
}
