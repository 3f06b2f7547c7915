//! Few rows against a weight whose rows lie along k, as in decoding: W is read once.
//!
//! An output is the dot product of a row of x and a row of W: one accumulator of lanes, summed in
//! ascending k, then across the lanes; the order depends on K alone.

use super::lanes::Lanes;
use super::pack::Element;

/// Rows of x, of `k` elements, `row` apart.
#[derive(Clone, Copy)]
pub struct Rows {
    pub at: *const f32,
    pub row: usize,
}

/// sums[i][j] = x[i] · w[j], over `ROWS` rows of x and `COLUMNS` rows of W that are `step` apart.
///
/// # Safety
/// The processor has L's instructions and the pointers reach that far.
#[inline(always)]
pub unsafe fn dot<L: Lanes, T: Element, const ROWS: usize, const COLUMNS: usize>(
    k: usize,
    x: Rows,
    w: *const T,
    step: usize,
) -> [[f32; COLUMNS]; ROWS] {
    unsafe {
        let mut sums = [[L::splat(0.0); COLUMNS]; ROWS];
        let whole = k / L::LANES * L::LANES;
        let mut t = 0;
        while t < whole {
            let mut right = [L::splat(0.0); COLUMNS];
            for (j, v) in right.iter_mut().enumerate() {
                *v = T::load(w.add(j * step + t));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = L::load(x.at.add(i * x.row + t));
                for (sum, v) in sums.iter_mut().zip(right) {
                    *sum = left.fma(v, *sum);
                }
            }
            t += L::LANES;
        }
        let mut out = [[0.0; COLUMNS]; ROWS];
        for i in 0..ROWS {
            for j in 0..COLUMNS {
                let mut sum = sums[i][j].sum();
                for t in whole..k {
                    sum += *x.at.add(i * x.row + t) * (*w.add(j * step + t)).widen();
                }
                out[i][j] = sum;
            }
        }
        out
    }
}
