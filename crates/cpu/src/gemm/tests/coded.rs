//! One row times packed blocks, in f32 and in bytes, with every instruction set. Instruction sets without byte products
//! use single ones.

use super::super::arguments::{COLUMNS, DotProducts, Left, MAX_GEMV_ROWS, Sums};
use super::super::quantised::dot_packed;
use super::*;
use crate::quant::coded::{Coded, InBytes, InF32, Row, count_chunk_floats, of_coded};
use crate::simd::{Isa, compiled, level};

/// Computes the products of a row and the rows of a weight.
///
/// # Safety
/// As for `dot_packed`.
#[inline(always)]
unsafe fn multiply_rows<S: Isa, R: Row<S>, B: Coded>(row: &[f32], pointer: BlockPointer, sums: &mut Sums) {
    let (k, chunks) = (row.len(), row.len().div_ceil(B::ELEMENTS));
    // NaN shows elements that were not written.
    let mut arranged = vec![f32::NAN; R::HEAD + chunks * count_chunk_floats::<S, R, B>()];
    // SAFETY: guaranteed by the caller; there is room for as many chunks as blocks.
    unsafe {
        R::arrange::<B>(k, row.as_ptr(), arranged.as_mut_ptr());
        let a = Left { at: arranged.as_ptr(), row: 0, k: 1 };
        dot_packed::<S, R, B>(DotProducts { k, a, w: pointer, step: k, columns: N }, sums);
    }
}

compiled! {
    paired fn multiply_in_f32[B: Coded](row: &[f32], pointer: BlockPointer, sums: &mut Sums) {
        // SAFETY: guaranteed by the caller.
        unsafe { multiply_rows::<S, InF32, B>(row, pointer, sums) }
    }

    fn multiply_in_bytes[B: Coded](row: &[f32], pointer: BlockPointer, sums: &mut Sums) {
        // SAFETY: guaranteed by the caller.
        unsafe { multiply_rows::<S, InBytes, B>(row, pointer, sums) }
    }
}

const N: usize = 5;
/// The block types whose codes are multiplied as bytes.
const KINDS: [BlockType; 5] =
    [BlockType::Q4_0, BlockType::Q4_1, BlockType::Q4K, BlockType::Q5K, BlockType::Q6K];

/// Computes a row times `N` rows of a weight with both methods of each level.
fn run_each_method(kind: BlockType, row: &[f32], blocks: &[u8], mut check: impl FnMut(&str, &[f32])) {
    for level in level::usable_levels() {
        for (way, product) in [
            ("in f32", of_coded!(kind, multiply_in_f32(level)).unwrap()),
            ("in bytes", of_coded!(kind, multiply_in_bytes(level)).unwrap()),
        ] {
            let mut sums = [[f32::NAN; COLUMNS]; MAX_GEMV_ROWS];
            // SAFETY: the processor supports the level; the weight has `N` rows of the row's length.
            unsafe { product(row, BlockPointer::new(kind, level, blocks.as_ptr()), &mut sums) };
            check(&format!("{kind} {way} by {}, {} elements", level.name(), row.len()), &sums[0][..N]);
        }
    }
}

/// In bytes each element of a row has an error of 1.01 · 2⁻²³ of the row's largest. Scales multiply sums of codes, with
/// terms up to about four times the block's largest element and a few roundings per block.
#[test]
fn products_of_packed_blocks_stay_within_the_rounding_error() {
    let draw_row = |k: usize| draw_values("row", k);
    type Change = fn(usize, f32) -> f32;
    let rows: [(&str, Change); 7] = [
        ("unchanged", |_, x| x),
        ("one large element", |i, x| if i == 40 { 3e3 } else { x }),
        (
            "the largest values of three bytes",
            |i, x| if i % 2 == 0 { -1.984_374 } else { 1.984_374 * x.signum() },
        ),
        ("just below a power of two", |i, x| if i % 3 == 0 { 1.999_999_9 * x.signum() } else { x }),
        ("small", |_, x| x * 1e-30),
        ("near the smallest", |_, x| x * 1e-36),
        ("large", |_, x| x * 1e30),
    ];
    for kind in KINDS {
        for blocks_per_row in [1, 2, 3, 5, 18] {
            let k = blocks_per_row * kind.elements();
            let blocks = draw_blocks(kind, N * k, 17);
            let weight = unpack_all(kind, &blocks);
            for (what, change) in rows {
                let row: Vec<f32> = draw_row(k).into_iter().enumerate().map(|(i, x)| change(i, x)).collect();
                let most = row.iter().fold(0f64, |most, x| most.max(x.abs() as f64));
                run_each_method(kind, &row, &blocks, |way, got| {
                    // Below 2⁻¹⁰⁴ the unit of bytes does not decrease, and f32 partial sums are subnormal.
                    let least = 2f64.powi(-104);
                    let unit = if way.contains("bytes") { most.max(least) } else { least };
                    for (column, got) in weight.chunks(k).zip(got) {
                        let (mut expected, mut of_row, mut of_sums) = (0f64, 0f64, 0f64);
                        for (row, column) in row.chunks(kind.elements()).zip(column.chunks(kind.elements())) {
                            let largest = column.iter().fold(0f64, |most, w| most.max(w.abs() as f64));
                            for (x, w) in row.iter().zip(column) {
                                expected += *x as f64 * *w as f64;
                                of_row += unit * w.abs() as f64;
                                of_sums += 4.0 * largest * x.abs() as f64;
                            }
                        }
                        let of_row = of_row * 1.01 * 2f64.powi(-23);
                        let tolerance = of_row + of_sums * (8 + blocks_per_row) as f64 * 2f64.powi(-24);
                        let error = (*got as f64 - expected).abs();
                        assert!(
                            error <= tolerance,
                            "{way}, {what}: {got:e} for {expected:e}, {error:e} of {tolerance:e}"
                        );
                    }
                });
            }
        }
    }
}

#[test]
fn zero_or_tiny_rows_give_zero_or_tiny_products() {
    for kind in KINDS {
        let k = 3 * kind.elements();
        let blocks = draw_blocks(kind, N * k, 19);
        for x in [0.0, -0.0, 1e-42, -f32::MIN_POSITIVE] {
            run_each_method(kind, &vec![x; k], &blocks, |way, got| {
                // No weight exceeds 1,000.
                let most = x.abs() * 1e3 * k as f32 + 1e-35;
                assert!(got.iter().all(|sum| sum.abs() <= most), "{way}, {x:e}: {got:?}");
            });
        }
    }
}

#[test]
fn non_finite_row_elements_give_non_finite_products() {
    for kind in KINDS {
        let k = 2 * kind.elements();
        let blocks = draw_blocks(kind, N * k, 23);
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 17, k - 1] {
                let mut row = draw_values("row", k);
                row[at] = bad;
                run_each_method(kind, &row, &blocks, |way, got| {
                    let in_bytes = way.contains("bytes");
                    // In f32 the infinities of a code and of a minimum may have opposite signs and give NaN.
                    let propagates = |sum: &f32| if in_bytes { sum.is_nan() } else { !sum.is_finite() };
                    assert!(got.iter().all(propagates), "{way}, {bad} at {at}: {got:?}");
                });
            }
        }
    }
}
