use faer::{Mat, MatRef};

use crate::{
    Error, IncrementalPca, Svd, matrix_from_rows, orthonormalize, qr, svd, svd_low_rank, to_row_major,
};

/// Returns a pseudo-random matrix with values between -1 and 1.
fn draw_matrix(rows: usize, columns: usize, seed: u64) -> Mat<f64> {
    let mut state = seed;
    Mat::from_fn(rows, columns, |_, _| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as f64 / f64::from(1u32 << 30) - 1.0
    })
}

fn draw_with_seed(seed: u64) -> impl FnOnce(usize) -> Vec<f32> {
    move |count| to_row_major(draw_matrix(1, count, seed).as_ref()).iter().map(|v| *v as f32).collect()
}

/// Returns the largest difference between two matrices of equal shape.
fn max_difference(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> f64 {
    assert_eq!((a.nrows(), a.ncols()), (b.nrows(), b.ncols()));
    to_row_major(a).iter().zip(to_row_major(b)).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

fn multiply_factors(Svd { u, s, vt }: &Svd) -> Mat<f64> {
    let scaled = Mat::from_fn(u.nrows(), s.len(), |i, k| u[(i, k)] * s[k]);
    scaled * vt
}

const SHAPES: [(usize, usize); 7] = [(1, 1), (1, 5), (5, 1), (9, 9), (40, 17), (17, 40), (65, 64)];

#[test]
fn svd_reconstructs_the_matrix_from_orthonormal_vectors() {
    for (m, n) in SHAPES {
        let a = draw_matrix(m, n, 1);
        let found = svd(a.as_ref(), usize::MAX).unwrap();
        assert!(max_difference(multiply_factors(&found).as_ref(), a.as_ref()) < 1e-12, "{m}×{n}");
        let k = m.min(n);
        assert!(
            max_difference((found.u.transpose() * &found.u).as_ref(), Mat::<f64>::identity(k, k).as_ref())
                < 1e-12
        );
        assert!(found.s.windows(2).all(|s| s[0] >= s[1]), "{m}×{n}");
        for row in 0..k {
            let largest =
                found.vt.row(row).iter().fold(0.0f64, |b, v| if v.abs() > b.abs() { *v } else { b });
            assert!(largest > 0.0);
        }
    }
}

#[test]
fn the_truncated_svd_is_the_best_approximation_of_its_rank() {
    let a = draw_matrix(30, 20, 2);
    let full = svd(a.as_ref(), usize::MAX).unwrap();
    let truncated = svd(a.as_ref(), 6).unwrap();
    let left: f64 = to_row_major((&a - multiply_factors(&truncated)).as_ref()).iter().map(|v| v * v).sum();
    let rest: f64 = full.s[6..].iter().map(|s| s * s).sum();
    assert!((left - rest).abs() < 1e-10 * rest, "Eckart and Young: {left} against {rest}");
}

#[test]
fn the_randomized_svd_recovers_a_matrix_of_its_rank() {
    for (m, n) in [(40, 17), (17, 40), (25, 25)] {
        let a = draw_matrix(m, 4, 3) * draw_matrix(4, n, 4);
        let found = svd_low_rank(a.as_ref(), 4, 5, 2, draw_with_seed(5)).unwrap();
        assert_eq!(found.s.len(), 4);
        assert!(max_difference(multiply_factors(&found).as_ref(), a.as_ref()) < 1e-11, "{m}×{n}");
        let exact = svd(a.as_ref(), 4).unwrap();
        assert!(max_difference(found.vt.as_ref(), exact.vt.as_ref()) < 1e-9, "{m}×{n}");
    }
}

#[test]
fn the_truncated_qr_is_the_start_of_the_full_qr() {
    for (m, n) in [(12, 7), (7, 12), (9, 9)] {
        let a = draw_matrix(m, n, 6);
        let k = m.min(n);
        let (q, r) = qr(a.as_ref(), k);
        assert!(max_difference((&q * &r).as_ref(), a.as_ref()) < 1e-12, "{m}×{n}");
        let (q3, r3) = qr(a.as_ref(), 3);
        assert!(max_difference(q3.as_ref(), q.subcols(0, 3)) < 1e-12);
        assert!(max_difference(r3.as_ref(), r.subrows(0, 3)) < 1e-12);
        assert!((1..3).all(|i| (0..i).all(|j| r3[(i, j)].abs() < 1e-12)), "R is triangular");
    }
    let basis = orthonormalize(draw_matrix(8, 3, 7).as_ref());
    assert_eq!((basis.nrows(), basis.ncols()), (8, 3));
}

/// Computes the principal components of all rows at once.
fn decompose_all_rows(rows: MatRef<'_, f64>, components: usize) -> (Svd, f64) {
    let count = rows.nrows() as f64;
    let mean: Vec<f64> = (0..rows.ncols()).map(|j| rows.col(j).iter().sum::<f64>() / count).collect();
    let centred = Mat::from_fn(rows.nrows(), rows.ncols(), |i, j| rows[(i, j)] - mean[j]);
    let full = to_row_major(centred.as_ref()).iter().map(|v| v * v).sum();
    (svd(centred.as_ref(), components).unwrap(), full)
}

#[test]
fn components_of_batches_equal_the_components_of_all_rows() {
    // With as many components as features, no information is lost between batches.
    let rows = draw_matrix(60, 6, 8) * draw_matrix(6, 6, 9);
    let rows = Mat::from_fn(60, 6, |i, j| rows[(i, j)] + j as f64);
    let mut pca = IncrementalPca::new(6, 6);
    for start in [0, 20, 40] {
        assert!(pca.fit(rows.subrows(start, 20), draw_with_seed(10)).unwrap());
    }
    let (exact, full) = decompose_all_rows(rows.as_ref(), 6);
    assert!(max_difference(pca.components().unwrap(), exact.vt.as_ref()) < 1e-9);
    for (ours, exact) in pca.singular_values().iter().zip(&exact.s) {
        assert!((ours - exact).abs() < 1e-10 * exact);
    }
    let share: f64 = pca.ratios().iter().sum();
    assert!((share - 1.0).abs() < 1e-12);
    assert!((pca.ratios()[0] - exact.s[0] * exact.s[0] / full).abs() < 1e-12);
}

#[test]
fn repeated_rows_keep_the_components_and_short_batches_are_ignored() {
    let rows = draw_matrix(40, 3, 11) * draw_matrix(3, 9, 12);
    let mut pca = IncrementalPca::new(3, 9);
    assert!(!pca.fit(rows.subrows(0, 2), draw_with_seed(1)).unwrap());
    assert!(pca.components().is_none());
    pca.fit(rows.as_ref(), draw_with_seed(1)).unwrap();
    assert!(pca.similarity().is_empty());
    pca.fit(rows.as_ref(), draw_with_seed(1)).unwrap();
    assert!(pca.similarity().iter().all(|c| *c > 0.999_999), "the same rows again change nothing");
}

#[test]
fn a_large_batch_uses_the_randomized_svd() {
    let rows = draw_matrix(900, 5, 13) * draw_matrix(5, 800, 14);
    let mut pca = IncrementalPca::new(5, 800);
    pca.fit(rows.as_ref(), draw_with_seed(15)).unwrap();
    let (exact, _) = decompose_all_rows(rows.as_ref(), 5);
    for (ours, exact) in pca.singular_values().iter().zip(&exact.s) {
        assert!((ours - exact).abs() < 1e-9 * exact, "{ours} against {exact}");
    }
}

#[test]
fn non_finite_values_are_refused() {
    for bad in [f32::NAN, f32::INFINITY] {
        assert_eq!(matrix_from_rows(1, 2, &[1.0, bad]).err(), Some(Error::NotFinite));
    }
}
