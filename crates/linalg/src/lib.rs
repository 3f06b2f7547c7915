//! Matrix factorisations for adapters that start from a weight or from data: singular values, orthogonal bases, and
//! principal components of a stream. All are in f64, on matrices stored by rows.
//!
//! faer computes the factorisations on one thread, so that a result does not depend on the number of threads; callers
//! process layers in parallel.

mod pca;
#[cfg(test)]
mod tests;

use std::fmt;

use faer::{Mat, MatRef};

pub use pca::IncrementalPca;

/// The reason why a factorisation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The matrix holds NaN or infinity.
    NotFinite,
    /// The iteration for singular values did not converge.
    NoConvergence,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::NotFinite => "the matrix holds NaN or infinity",
            Error::NoConvergence => "the singular values did not settle",
        })
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

/// A = U · diag(s) · Vᵀ. The singular values decrease; in each row of Vᵀ the entry of largest magnitude is positive.
pub struct Svd {
    pub u: Mat<f64>,
    pub s: Vec<f64>,
    pub vt: Mat<f64>,
}

/// Converts values stored by rows to a matrix with `columns` columns. Returns an error if one is not finite.
pub fn matrix_from_rows(rows: usize, columns: usize, values: &[f32]) -> Result<Mat<f64>> {
    assert_eq!(values.len(), rows * columns, "a matrix of {rows}×{columns}");
    if !values.iter().all(|v| v.is_finite()) {
        return Err(Error::NotFinite);
    }
    Ok(Mat::from_fn(rows, columns, |i, j| f64::from(values[i * columns + j])))
}

/// Returns the entries of a matrix by rows.
pub fn to_row_major(a: MatRef<'_, f64>) -> Vec<f64> {
    (0..a.nrows()).flat_map(|i| (0..a.ncols()).map(move |j| a[(i, j)])).collect()
}

/// Returns the decomposition with the `rank` largest singular values, or as many as there are.
/// Cost: O(m·n·min(m, n)).
pub fn svd(a: MatRef<'_, f64>, rank: usize) -> Result<Svd> {
    let whole = a.thin_svd().map_err(|_| Error::NoConvergence)?;
    let rank = rank.min(a.nrows().min(a.ncols()));
    let s: Vec<f64> = whole.S().column_vector().iter().take(rank).copied().collect();
    let u = whole.U().subcols(0, rank).to_owned();
    Ok(fix_signs(u, s, whole.V().subcols(0, rank).transpose().to_owned()))
}

/// Fixes the sign of each pair of singular vectors.
fn fix_signs(mut u: Mat<f64>, s: Vec<f64>, mut vt: Mat<f64>) -> Svd {
    for k in 0..s.len() {
        let largest = vt.row(k).iter().fold(0.0f64, |best, v| if v.abs() > best.abs() { *v } else { best });
        if largest < 0.0 {
            vt.row_mut(k).iter_mut().for_each(|v| *v = -*v);
            u.col_mut(k).iter_mut().for_each(|v| *v = -*v);
        }
    }
    Svd { u, s, vt }
}

/// Returns the decomposition on a random subspace, truncated to `rank`: `iterations` rounds of A·Aᵀ, starting from
/// `width` random vectors. `draw` returns the given number of values of N(0, 1). Cost: O(m·n·width) per round.
/// Source: Halko, Martinsson, Tropp 2011, algorithms 4.4 and 5.1; torch.svd_lowrank.
pub fn svd_low_rank(
    a: MatRef<'_, f64>,
    rank: usize,
    width: usize,
    iterations: usize,
    draw: impl FnOnce(usize) -> Vec<f32>,
) -> Result<Svd> {
    let tall = a.nrows() >= a.ncols();
    let a = if tall { a } else { a.transpose() };
    let width = width.min(a.ncols());
    let omega = matrix_from_rows(a.ncols(), width, &draw(a.ncols() * width))?;
    let mut basis = orthonormalize((a * &omega).as_ref());
    for _ in 0..iterations {
        let other = orthonormalize((a.transpose() * &basis).as_ref());
        basis = orthonormalize((a * &other).as_ref());
    }
    let Svd { u, s, vt } = svd((basis.transpose() * a).as_ref(), rank)?;
    let u = basis * u;
    Ok(if tall {
        Svd { u, s, vt }
    } else {
        fix_signs(vt.transpose().to_owned(), s, u.transpose().to_owned())
    })
}

/// Returns an orthonormal basis of the columns of A [m, n], with min(m, n) vectors.
pub fn orthonormalize(a: MatRef<'_, f64>) -> Mat<f64> {
    a.qr().compute_thin_Q()
}

/// Returns the first `rank` columns of Q and rows of R in A = Q·R. The columns of Q depend only on the first `rank`
/// columns of A, and R = Qᵀ·A. Cost: O(m·n·rank).
pub fn qr(a: MatRef<'_, f64>, rank: usize) -> (Mat<f64>, Mat<f64>) {
    let q = orthonormalize(a.subcols(0, rank.min(a.ncols())));
    let r = q.transpose() * a;
    (q, r)
}
