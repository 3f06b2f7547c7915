//! The CPU implementation: passes a launch's operands to the products of `lowrank_cpu`, after checking their extents.

mod autotune;

pub use autotune::rounded_level;

use half::{bf16, f16};
use lowrank_cpu::gemm::{
    BlockPointer, Blocks, KernelTable, MAX_GEMV_ROWS, Multiply, Product, SecondSegment, Storage,
    current_table,
};
use lowrank_cpu::quant::BlockType;

use super::bindings::{Scalars, TwoSegmentScalars};
use crate::dtype::DType;
use crate::kernel::native::NativeLaunch;

/// A product, of two segments where `TWO`; C is binding `OUT`, the last.
pub fn gemm<const BIAS: bool, const TWO: bool, const OUT: usize>(l: &NativeLaunch) {
    let (table, threads) = (current_table(), l.threads);
    let (s, second) = match TWO {
        true => {
            let scalars: TwoSegmentScalars = l.scalars();
            (scalars.first, Some(bind_second::<OUT>(l, &scalars)))
        }
        false => (l.scalars::<Scalars>(), None),
    };
    match l.dtype(1) {
        // SAFETY: `bind_product` checks that each operand reaches as far as the launch says, and C is written by it
        // alone.
        DType::F32 => unsafe { bind_product::<f32, BIAS, OUT>(l, &s, second).multiply(table, threads) },
        // SAFETY: as above.
        DType::F16 => unsafe { bind_product::<f16, BIAS, OUT>(l, &s, second).multiply(table, threads) },
        // SAFETY: as above.
        DType::BF16 if s.rounded && s.m > MAX_GEMV_ROWS => unsafe {
            bind_product::<bf16, BIAS, OUT>(l, &s, second).run_rounded(autotune::rounded_table(), threads)
        },
        // SAFETY: as above.
        DType::BF16 => unsafe { bind_product::<bf16, BIAS, OUT>(l, &s, second).multiply(table, threads) },
        // SAFETY: as above.
        DType::Block(kind) => unsafe {
            let b = bind_blocks(l, 1, kind, table);
            bind_product_by::<Blocks, BIAS, OUT>(l, &s, b, second).multiply(table, threads)
        },
        DType::I32 => unreachable!("validated by the operation"),
    }
}

/// The first element of a binding in blocks, and how many there are.
fn bind_blocks(
    l: &NativeLaunch,
    binding: usize,
    kind: BlockType,
    table: &KernelTable,
) -> (BlockPointer, usize) {
    let blocks = l.read::<u8>(binding);
    (BlockPointer::new(kind, table.level, blocks.as_ptr()), kind.count_elements(blocks.len()))
}

/// The second segment, whose factors are bound before C and reach as far as the launch says.
fn bind_second<const OUT: usize>(l: &NativeLaunch, scalars: &TwoSegmentScalars) -> SecondSegment {
    let (Scalars { m, n, .. }, s) = (scalars.first, scalars.second);
    let (a, b) = (l.read::<f32>(OUT - 2), l.read::<f32>(OUT - 1));
    assert!((m - 1) * s.a2_row + (s.k2 - 1) * s.a2_column < a.len(), "gemm: the second A ends early");
    assert!((s.k2 - 1) * s.b2_row + (n - 1) * s.b2_column < b.len(), "gemm: the second B ends early");
    SecondSegment {
        k: s.k2,
        a: a.as_ptr(),
        a_row: s.a2_row,
        a_column: s.a2_column,
        b: b.as_ptr(),
        b_row: s.b2_row,
        b_column: s.b2_column,
        alpha: s.alpha2,
    }
}

/// Products of one A, [m, k], by N weights of `n` columns each: bindings A, the weights, the products.
pub fn gemm_together<const N: usize>(l: &NativeLaunch, m: usize, k: usize, n: [usize; N]) {
    match l.dtype(1) {
        DType::F32 => run_together::<f32, N>(l, m, k, n),
        DType::F16 => run_together::<f16, N>(l, m, k, n),
        DType::BF16 => run_together::<bf16, N>(l, m, k, n),
        DType::Block(kind) => {
            run_together_by::<Blocks, N>(l, m, k, n, |i| bind_blocks(l, i, kind, current_table()))
        }
        DType::I32 => unreachable!("validated by the operation"),
    }
}

fn run_together<T: Storage<Position = *const T> + bytemuck::Pod, const N: usize>(
    l: &NativeLaunch,
    m: usize,
    k: usize,
    n: [usize; N],
) where
    Product<T>: Multiply,
{
    run_together_by::<T, N>(l, m, k, n, |i| bind_elements::<T>(l, i));
}

/// The first element of a binding, and how many there are.
fn bind_elements<T: bytemuck::Pod>(l: &NativeLaunch, binding: usize) -> (*const T, usize) {
    let elements = l.read::<T>(binding);
    (elements.as_ptr(), elements.len())
}

fn run_together_by<T: Storage, const N: usize>(
    l: &NativeLaunch,
    m: usize,
    k: usize,
    n: [usize; N],
    weight: impl Fn(usize) -> (T::Position, usize),
) where
    Product<T>: Multiply,
{
    let a = l.read::<f32>(0);
    assert!(m * k <= a.len(), "gemm: A ends early");
    let products: [Product<T>; N] = std::array::from_fn(|i| {
        let n = n[i];
        let ((b, size), c) = (weight(1 + i), l.write::<f32>(1 + N + i));
        assert!(n * k <= size, "gemm: B ends early");
        assert!(m * n <= c.len(), "gemm: C ends early");
        Product::row_major([m, n, k], a.as_ptr(), b, c.as_mut_ptr())
    });
    // SAFETY: the assertions above check each operand's extent, and the outputs are bound for writing.
    unsafe { Product::multiply_together(&products, current_table(), l.threads) };
}

/// The product over a launch's operands, which reach as far as it says.
fn bind_product<T: Storage<Position = *const T> + bytemuck::Pod, const BIAS: bool, const C: usize>(
    l: &NativeLaunch,
    s: &Scalars,
    second: Option<SecondSegment>,
) -> Product<T> {
    bind_product_by::<T, BIAS, C>(l, s, bind_elements::<T>(l, 1), second)
}

fn bind_product_by<T: Storage, const BIAS: bool, const C: usize>(
    l: &NativeLaunch,
    s: &Scalars,
    (b, size): (T::Position, usize),
    second: Option<SecondSegment>,
) -> Product<T> {
    let &Scalars {
        m, n, k, batch, a_batch, a_row, a_column, b_batch, b_row, b_column, c_batch, c_row, ..
    } = s;
    let (a, c) = (l.read::<f32>(0), l.write::<f32>(C));
    let last = |batch_step: usize, steps: [(usize, usize); 2]| {
        batch_step * (batch - 1) + steps.iter().map(|(n, step)| (n - 1) * step).sum::<usize>()
    };
    assert!(last(a_batch, [(m, a_row), (k, a_column)]) < a.len(), "gemm: A ends early");
    assert!(last(b_batch, [(k, b_row), (n, b_column)]) < size, "gemm: B ends early");
    assert!(last(c_batch, [(m, c_row), (n, 1)]) < c.len(), "gemm: C ends early");
    let bias = if BIAS { l.read::<f32>(2)[..n].as_ptr() } else { std::ptr::null() };
    Product {
        batch,
        m,
        n,
        k,
        a: a.as_ptr(),
        a_batch,
        a_row,
        a_column,
        b,
        b_batch,
        b_row,
        b_column,
        c: c.as_mut_ptr(),
        c_batch,
        c_row,
        alpha: s.alpha,
        accumulate: s.accumulate,
        bias,
        second,
    }
}
