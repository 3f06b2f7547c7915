//! Products by a quantised weight. The weight is unpacked where a product reads it, some hundred elements at a time,
//! for the f32 kernels, so the results are bit-identical to the same weight in f32. For one row, as in decoding,
//! most block types are multiplied without unpacking (`quant::coded`), which changes the order of the sums.

use std::mem::MaybeUninit;

use super::arguments::{ArrangedRow, DotKernel, DotProducts, Left, Position, Source, Strip, Sums};
use super::cache_line::{LINE, LINE_BYTES, prefetch};
use super::gemv::dot::{self, ONE_ROW_CHAINS};
use super::pack::b;
use crate::quant::coded::{
    Arrangement, Coded, InBytes, InF32, Row, count_chunk_blocks, count_chunk_floats, make_arrangement,
    of_coded, uses_bytes,
};
use crate::quant::{BlockType, Layout, PART, Unpack, of_layout};
use crate::simd::{Isa, Lanes, Level, compiled};

/// The storage of a weight in blocks of any type.
#[derive(Clone, Copy)]
pub struct Blocks;

/// An element of a matrix in blocks; each row is a whole number of blocks.
#[derive(Clone, Copy)]
pub struct BlockPointer {
    kind: BlockType,
    unpack: Unpack,
    /// `dots` for one row of A.
    one: DotKernel<BlockPointer>,
    /// `dots` for one arranged row of A, if the blocks can be multiplied without unpacking.
    coded: Option<(Arrangement, DotKernel<BlockPointer>)>,
    /// The matrix's first block.
    blocks: *const u8,
    element: usize,
}

impl BlockPointer {
    /// The first element of `blocks`, with kernels of `level`.
    pub fn new(kind: BlockType, level: Level, blocks: *const u8) -> BlockPointer {
        let one = of_layout!(kind, dot_layout_blocks(level));
        let coded = of_coded!(kind, make_arrangement(level)).zip(of_coded!(kind, dot_coded_blocks(level)));
        BlockPointer { kind, unpack: kind.select_unpack(level), one, coded, blocks, element: 0 }
    }

    /// The arrangement of a row of `k` elements for columns with a stride of `step`, if these are whole blocks that can
    /// be multiplied without unpacking.
    pub(super) fn find_arrangement(self, k: usize, step: usize) -> Option<ArrangedRow<BlockPointer>> {
        let (arrangement, dots) = self.coded?;
        let whole = [k, step, self.element].iter().all(|n| n.is_multiple_of(arrangement.elements));
        whole.then_some(ArrangedRow { arrangement, dots })
    }

    /// Unpacks `count` elements from this one on to `to`.
    ///
    /// # Safety
    /// The processor has the instructions of `unpack`, and the matrix has `count` elements from here on.
    #[inline(always)]
    pub unsafe fn unpack(self, count: usize, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { (self.unpack)(self.blocks, self.element, count, to) };
    }
}

impl Position for BlockPointer {
    #[inline(always)]
    fn plus(self, elements: usize) -> BlockPointer {
        BlockPointer { element: self.element + elements, ..self }
    }

    fn address(self) -> *const u8 {
        self.blocks.wrapping_add(self.bytes(self.element))
    }

    fn bytes(self, elements: usize) -> usize {
        elements / self.kind.elements() * self.kind.bytes()
    }
}

/// Terms of a panel that are unpacked together: with the panel's columns, half of a usual L1.
const TERMS: usize = 128;
/// Leading dimension of unpacked columns: padded by a cache line, so that columns do not alias in L1.
const UNPACKED_LD: usize = TERMS + LINE;
/// Columns of the widest panel of tiles of two vectors; blocks use no others.
const MAX_PANEL: usize = 32;

/// As for `pack::b::pack`.
///
/// # Safety
/// As for `pack::b::pack`; `b` is contiguous along rows or along columns.
#[inline(always)]
pub unsafe fn pack<L: Lanes>(b: Source<BlockPointer>, k: usize, width: usize, panel: usize, to: *mut f32) {
    let Source { at, row, column } = b;
    assert!(panel <= MAX_PANEL && (row == 1 || column == 1), "a panel of blocks is too wide");
    // SAFETY: guaranteed by the caller.
    unsafe {
        if column == 1 {
            for t in 0..k {
                let to = to.add(t * panel);
                at.plus(t * row).unpack(width, to);
                std::slice::from_raw_parts_mut(to, panel)[width..].fill(0.0);
            }
            return;
        }
        let mut space = [MaybeUninit::<f32>::uninit(); MAX_PANEL * UNPACKED_LD];
        let unpacked = space.as_mut_ptr().cast::<f32>();
        for from in (0..k).step_by(TERMS) {
            let terms = TERMS.min(k - from);
            for j in 0..width {
                at.plus(from + j * column).unpack(terms, unpacked.add(j * UNPACKED_LD));
            }
            let source = Source { at: unpacked.cast_const(), row: 1, column: UNPACKED_LD };
            b::pack::<L, f32>(source, terms, width, panel, to.add(from * panel));
        }
    }
}

/// Prefetch distance, in bytes: see `dot`.
const AHEAD: usize = 4096;
/// Elements of a row that are unpacked together: a multiple of the step of every `dots` kernel.
const UNPACKED: usize = 256;

/// As for `dot::compute_dots`, in the same order.
///
/// # Safety
/// As for `dot::compute_dots`.
#[inline(always)]
pub unsafe fn compute_dots<L: Lanes, const ROWS: usize, const CHAINS: usize>(
    d: DotProducts<BlockPointer>,
    sums: &mut Sums,
) {
    let DotProducts { k, a, w, step, columns } = d;
    let mut space = [MaybeUninit::<f32>::uninit(); UNPACKED];
    let piece = space.as_mut_ptr().cast::<f32>();
    let whole = k / (CHAINS * L::LANES) * (CHAINS * L::LANES);
    if ROWS == 1 && w.element.is_multiple_of(PART) && step.is_multiple_of(PART) {
        // SAFETY: guaranteed by the caller; the blocks have the layout of `w`'s type.
        return unsafe { (w.one)(d, sums) };
    }
    // SAFETY: guaranteed by the caller.
    unsafe {
        for j in 0..columns {
            let w = w.plus(j * step);
            let mut chains = [[L::splat(0.0); CHAINS]; ROWS];
            for from in (0..whole).step_by(UNPACKED) {
                let terms = UNPACKED.min(whole - from);
                w.plus(from).unpack(terms, piece);
                let here = w.plus(from);
                for byte in (0..here.bytes(UNPACKED)).step_by(LINE_BYTES) {
                    prefetch(here.address().wrapping_add(AHEAD + byte));
                }
                let a = Left { at: a.at.add(from), ..a };
                dot::add_to_chains(terms, a, piece.cast_const(), &mut chains, |_| {});
            }
            w.plus(whole).unpack(k - whole, piece);
            for (i, (sums, chains)) in sums.iter_mut().zip(&chains).enumerate() {
                let a = a.at.add(i * a.row + whole);
                sums[j] = dot::finish_row(chains, k - whole, a, piece.cast_const());
            }
        }
    }
}

/// As for `compute_dots`, for one row of A. Elements are multiplied as they are unpacked, without a buffer between,
/// whose stores and loads would take as long as both.
///
/// # Safety
/// As for `dot::compute_dots`; the weight's blocks have layout B.
#[inline(always)]
pub unsafe fn dot_one_row<S: Isa, B: Layout>(d: DotProducts<BlockPointer>, sums: &mut Sums) {
    /// Columns per step: they share A and hide each other's latency.
    const TWO: usize = 2;
    let DotProducts { k, a, w, step, columns } = d;
    // SAFETY: guaranteed by the caller.
    unsafe {
        let place = |j: usize| w.plus(j * step);
        let (pairs, odd) = sums[0][..columns].as_chunks_mut::<TWO>();
        for (j, sums) in (0..).step_by(TWO).zip(pairs) {
            *sums = dot_columns_of_one_row::<S, B, TWO>(k, a, [place(j), place(j + 1)]);
        }
        for sum in odd {
            [*sum] = dot_columns_of_one_row::<S, B, 1>(k, a, [place(columns - 1)]);
        }
    }
}

/// `dot_one_row` of `COUNT` columns.
///
/// # Safety
/// As for `dot_one_row`.
#[inline(always)]
unsafe fn dot_columns_of_one_row<S: Isa, B: Layout, const COUNT: usize>(
    k: usize,
    a: Left,
    columns: [BlockPointer; COUNT],
) -> [f32; COUNT] {
    /// Elements per step: the same number of whole vectors and parts for each chain.
    const fn count_step_elements<S: Isa>() -> usize {
        if ONE_ROW_CHAINS * S::WIDTH > PART { ONE_ROW_CHAINS * S::WIDTH } else { PART }
    }
    let step_elements = const { count_step_elements::<S>() };
    let whole = k / step_elements * step_elements;
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut chains = [[S::zero(); ONE_ROW_CHAINS]; COUNT];
        for t in (0..whole).step_by(step_elements) {
            for c in 0..COUNT {
                let column = columns[c];
                let element = column.element + t;
                let ahead = column.blocks.wrapping_add(element / B::ELEMENTS * B::BYTES + AHEAD);
                for byte in (0..step_elements * B::BYTES / B::ELEMENTS).step_by(LINE_BYTES) {
                    prefetch(ahead.wrapping_add(byte));
                }
                for p in 0..step_elements / PART {
                    let part = B::load_part::<S>(column.blocks, element / PART + p);
                    for (v, right) in part.iter().enumerate().take(PART / S::WIDTH) {
                        let at = p * PART + v * S::WIDTH;
                        let chain = &mut chains[c][at / S::WIDTH % ONE_ROW_CHAINS];
                        *chain = S::V::load(a.at.add(t + at)).fma(*right, *chain);
                    }
                }
            }
        }
        let mut sums = [0.0; COUNT];
        for c in 0..COUNT {
            sums[c] = dot::reduce_chains(&chains[c]);
        }
        if k > whole {
            let mut rest = [0.0; ONE_ROW_CHAINS * PART];
            for c in 0..COUNT {
                columns[c].plus(whole).unpack(k - whole, rest.as_mut_ptr());
                sums[c] = dot::add_tail(sums[c], k - whole, a.at.add(whole), rest.as_ptr());
            }
        }
        sums
    }
}

/// As for `compute_dots`, for one arranged row of A: blocks are multiplied without unpacking. The order of the sums
/// differs from `compute_dots`.
///
/// # Safety
/// As for `dot::compute_dots`; the weight's blocks have layout B, columns are whole blocks, and `a` is arranged for
/// them.
#[inline(always)]
pub unsafe fn dot_packed<S: Isa, R: Row<S>, B: Coded>(d: DotProducts<BlockPointer>, sums: &mut Sums) {
    let DotProducts { k, a, w, step, columns } = d;
    let bytes = |elements: usize| elements / B::ELEMENTS * size_of::<B>();
    let (first, step) = (w.blocks.wrapping_add(bytes(w.element)), bytes(step));
    // SAFETY: guaranteed by the caller.
    unsafe {
        for (j, sum) in sums[0][..columns].iter_mut().enumerate() {
            let sum_of = dot_packed_column::<S, R, B>(k, a.at.add(R::HEAD), first.add(j * step));
            *sum = R::finish(sum_of, a.at);
        }
    }
}

/// `dot_packed` of one column.
///
/// # Safety
/// As for `dot_packed`.
#[inline(always)]
unsafe fn dot_packed_column<S: Isa, R: Row<S>, B: Coded>(k: usize, a: *const f32, column: *const u8) -> f32 {
    /// Most blocks that fill a vector step.
    const ALL: usize = 4;
    let (chunk, floats) = const { (count_chunk_blocks::<S, B>(), count_chunk_floats::<S, R, B>()) };
    let (blocks, bytes) = (k / B::ELEMENTS, chunk * size_of::<B>());
    let whole = blocks / chunk;
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut sums = [S::zero(); 2];
        for t in 0..whole {
            let at = column.add(t * bytes);
            for line in (0..bytes).step_by(LINE_BYTES) {
                prefetch(at.wrapping_add(AHEAD + line));
            }
            B::add_chunk::<S, R, ALL>(at, a.add(t * floats), &mut sums);
        }
        let (at, a) = (column.add(whole * bytes), a.add(whole * floats));
        match blocks % chunk {
            0 => {}
            1 => B::add_chunk::<S, R, 1>(at, a, &mut sums),
            2 => B::add_chunk::<S, R, 2>(at, a, &mut sums),
            _ => B::add_chunk::<S, R, 3>(at, a, &mut sums),
        }
        sums[0].add(sums[1]).sum()
    }
}

/// As for `dot::multiply_strip`, in the same order.
///
/// # Safety
/// As for `dot::multiply_strip`.
#[inline(always)]
pub unsafe fn multiply_strip<L: Lanes>(s: Strip<BlockPointer>) {
    let Strip { rows, k, a, b, b_row, width, sums } = s;
    /// Rows of B per step.
    const ROWS: usize = 4;
    let mut unpacked = Vec::<f32>::with_capacity(ROWS * width);
    let unpacked = unpacked.as_mut_ptr();
    // SAFETY: guaranteed by the caller.
    unsafe {
        for t in (0..k).step_by(ROWS) {
            let terms = ROWS.min(k - t);
            for u in 0..terms {
                b.plus((t + u) * b_row).unpack(width, unpacked.add(u * width));
            }
            let a = Left { at: a.at.add(t * a.k), ..a };
            let b = unpacked.cast_const();
            dot::multiply_strip::<L, f32>(Strip { rows, k: terms, a, b, b_row: width, width, sums });
        }
    }
}

compiled! {
    paired fn dot_coded_blocks[B: Coded](d: DotProducts<BlockPointer>, sums: &mut Sums) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            if uses_bytes::<S, B>() {
                dot_packed::<S, InBytes, B>(d, sums)
            } else {
                dot_packed::<S, InF32, B>(d, sums)
            }
        }
    }
}

compiled! {
    exact fn dot_layout_blocks[B: Layout](d: DotProducts<BlockPointer>, sums: &mut Sums) {
        // SAFETY: guaranteed by the caller.
        unsafe { dot_one_row::<S, B>(d, sums) }
    }
}
