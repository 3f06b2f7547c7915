//! The bindings and scalars of products, which the shaders, the CPU implementation and the f16 kernels share.

use super::operands::Segment;
use crate::kernel::Access;
use crate::scalars;

scalars! {
    pub struct Scalars {
        m: usize,
        n: usize,
        k: usize,
        batch: usize,
        a_batch: usize,
        a_row: usize,
        a_column: usize,
        b_batch: usize,
        b_row: usize,
        b_column: usize,
        c_batch: usize,
        c_row: usize,
        alpha: f32,
        accumulate: bool,
        row_blocks: usize,
        column_blocks: usize,
        /// Lanes per subgroup, for the variants that use subgroups.
        subgroup: u32,
        /// Whether A is rounded to bf16 where B is bf16; read by the CPU implementation only.
        rounded: bool,
    }
}

scalars! {
    pub struct SegmentScalars {
        k2: usize,
        a2_row: usize,
        a2_column: usize,
        b2_row: usize,
        b2_column: usize,
        alpha2: f32,
    }
}

impl SegmentScalars {
    pub fn new(s: &Segment) -> SegmentScalars {
        SegmentScalars {
            k2: s.k,
            a2_row: s.a.row,
            a2_column: s.a.column,
            b2_row: s.b.row,
            b2_column: s.b.column,
            alpha2: s.alpha,
        }
    }
}

scalars! {
    /// Scalars of a product of two segments.
    pub struct TwoSegmentScalars { first: Scalars, second: SegmentScalars }
}

pub type Binding = (&'static str, Access);
pub const A: Binding = ("a", Access::Read);
pub const B: Binding = ("b", Access::Read);
pub const BIAS: Binding = ("bias", Access::Read);
pub const A2: Binding = ("a2", Access::Read);
pub const B2: Binding = ("b2", Access::Read);
pub const C: Binding = ("c", Access::ReadWrite);
