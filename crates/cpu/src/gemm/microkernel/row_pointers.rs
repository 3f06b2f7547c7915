//! Pointers to the rows of A in a tile, and the step of a microkernel along K.

use crate::gemm::arguments::Left;

/// Terms per step. Compiled microkernels prefetch once per step.
pub const STRIDE: usize = 16;
/// Terms between prefetches of assembly microkernels.
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub const LONG_STRIDE: usize = 4 * STRIDE;
/// Pointers to a term of A's rows. Every third row has a pointer; the next two rows are addressed by the stride and
/// twice the stride. With one pointer, compilers derive each row's address from the row before, a chain of additions
/// that takes longer than the multiply-adds.
#[derive(Clone, Copy)]
pub struct RowPointers {
    // Separate fields, since an array would stay in memory.
    pub at: *const f32,
    pub at_3: *const f32,
    pub at_6: *const f32,
    pub at_9: *const f32,
    pub step: usize,
}

impl RowPointers {
    #[inline(always)]
    pub fn new(a: Left) -> RowPointers {
        let at = |row: usize| a.at.wrapping_add(row * a.row);
        RowPointers { at: at(0), at_3: at(3), at_6: at(6), at_9: at(9), step: a.row }
    }

    #[inline(always)]
    pub fn row(self, row: usize) -> *const f32 {
        let at = match row / 3 {
            0 => self.at,
            1 => self.at_3,
            2 => self.at_6,
            _ => self.at_9,
        };
        at.wrapping_add(row % 3 * self.step)
    }

    /// Advances by `elements`.
    #[inline(always)]
    pub fn advance(self, elements: usize) -> RowPointers {
        let on = |at: *const f32| hide_value(at.wrapping_add(elements));
        RowPointers { at: on(self.at), at_3: on(self.at_3), at_6: on(self.at_6), at_9: on(self.at_9), ..self }
    }
}

/// Hides the pointer's origin from the compiler, without an instruction, so that it does not derive one pointer from
/// another.
#[inline(always)]
// The address is passed through; its target is neither read nor written.
#[allow(clippy::pointers_in_nomem_asm_block)]
fn hide_value(at: *const f32) -> *const f32 {
    #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
    let at = {
        let mut at = at;
        // SAFETY: the assembly is empty.
        unsafe { std::arch::asm!("/* {} */", inout(reg) at, options(pure, nomem, nostack, preserves_flags)) };
        at
    };
    at
}
