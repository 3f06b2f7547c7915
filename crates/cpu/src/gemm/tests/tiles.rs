//! Tiles with any number of rows and vectors, compiled or in assembly, sum in the same order.

use super::super::arguments::{Epilogue, Left, Right, Source, TileProduct};
use super::super::blocking::{Blocking, LARGE, USUAL, blocking};
use super::super::microkernel::prefetch::{Prefetch, StridedPrefetch};
use super::super::microkernel::tiles::Tiles;
use super::*;

/// Returns cases with more rows than one pass has, and with several sums per packed block of K: in one part and in
/// more, with fewer sums in the last.
fn list_deep_cases() -> impl Iterator<Item = Case> {
    let sizes = [[1, 150, 150, 2077], [2, 150, 100, 2048], [1, 131, 97, 7000]];
    sizes.into_iter().flat_map(|sizes| {
        [false, true].map(|trans_b| Case {
            sizes,
            trans_a: false,
            trans_b,
            alpha: -1.5,
            accumulate: trans_b,
            bias: true,
        })
    })
}

#[test]
fn tiles_of_three_vectors_give_the_bits_of_tiles_of_two() {
    for (table, wide) in
        table::available_tables().iter().filter_map(|table| Some((table, table.wide.as_ref()?)))
    {
        for case in list_cases().into_iter().chain(list_deep_cases()) {
            let [batch, m, n, _] = case.sizes;
            let (a2, b2) = (draw_values("a2", m * 16), draw_values("b2", n * 16));
            let run_tiles = |tiles: &'static Tiles| {
                let run = |p: &Product<f32>, table: &'static KernelTable, threads: usize| {
                    let p = Product { second: (batch == 1).then(|| make_second_segment(&a2, &b2)), ..*p };
                    // SAFETY: `run_with` creates operands that cover the case.
                    unsafe { p.run_blocked(table, &p.plan_with(table, tiles, blocking(), threads), None) }
                };
                run_with(table, 2, &case, &case.a(), |v| v, run)
            };
            assert!(run_tiles(wide) == run_tiles(&table.tiles), "{} {:?}", table.name, case.sizes);
        }
    }
}

/// Tests other block sizes, since a test machine has only one size of L2.
#[test]
fn the_blocking_does_not_change_the_bits() {
    for table in table::available_tables() {
        for case in list_cases().into_iter().chain(list_deep_cases()) {
            let [batch, m, n, k] = case.sizes;
            let (a2, b2) = (draw_values("a2", m * 16), draw_values("b2", n * 16));
            let run_blocked = |blocking: &'static Blocking, rows: Option<usize>| {
                let run = |p: &Product<f32>, table: &'static KernelTable, threads: usize| {
                    let p = Product { second: (batch == 1).then(|| make_second_segment(&a2, &b2)), ..*p };
                    // SAFETY: `run_with` creates operands that cover the case.
                    unsafe {
                        match rows {
                            Some(rows) => p.run_with_copied_a(table, blocking, rows, threads),
                            None => p.run_blocked(table, &p.plan(table, blocking, threads), None),
                        }
                    }
                };
                run_with(table, 2, &case, &case.a(), |v| v, run)
            };
            let expected = run_blocked(&USUAL, None);
            assert!(run_blocked(&LARGE, None) == expected, "{} {:?}", table.name, case.sizes);
            if batch == 1 && !case.trans_a && k > 0 {
                for blocking in [&USUAL, &LARGE] {
                    assert!(
                        run_blocked(blocking, Some(m)) == expected,
                        "{} {:?}, A copied",
                        table.name,
                        case.sizes
                    );
                }
            }
        }
    }
}

/// The largest tiles are in assembly: 8 terms per iteration, with a poll for the next panel every 64 terms, except for
/// tiles of one row.
#[test]
fn the_tile_height_does_not_change_the_bits_of_a_row() {
    for table in table::available_tables() {
        for tiles in [Some(&table.tiles), table.wide.as_ref()].into_iter().flatten() {
            let (most, width) = (tiles.rows(), tiles.panel());
            for k in [1, 3, 4, 7, 8, 9, 15, 63, 64, 65, 72, 127, 135, 200] {
                // NaN after the terms must not be summed.
                let row = k + 5;
                let (mut a, mut b) = (draw_values("a", most * row), draw_values("b", k * width));
                a.chunks_mut(row).for_each(|row| row[k..].fill(f32::NAN));
                b.extend([f32::NAN; 64]);
                let compute_rows = |rows: usize, from: usize| {
                    let mut c = vec![f32::NAN; rows * width];
                    let epilogue = Epilogue {
                        c: c.as_mut_ptr(),
                        row: width,
                        alpha: 1.0,
                        bias: std::ptr::null(),
                        accumulate: false,
                    };
                    let t = TileProduct {
                        rows,
                        k,
                        a: Left { at: a[from * row..].as_ptr(), row, k: 1 },
                        b: Right { at: b.as_ptr(), k: width },
                        width,
                        epilogue,
                        second: None,
                        kept: None,
                    };
                    let mut ahead = Prefetch::none();
                    ahead.panels = StridedPrefetch::for_panels(
                        Source { at: b.as_ptr(), row: width, column: 1 },
                        width,
                        k,
                    )
                    .distribute(3);
                    ahead.rows = StridedPrefetch::for_rows(t.a, rows, k).distribute(2);
                    // SAFETY: the operands cover the tile's rows, terms and columns.
                    unsafe { tiles.find(&t)(&t, &mut ahead) };
                    c
                };
                let single_rows: Vec<f32> = (0..most).flat_map(|row| compute_rows(1, row)).collect();
                assert!(single_rows.iter().all(|v| v.is_finite()), "{} × {width}, {k} terms", table.name);
                for rows in 2..=most {
                    let got = compute_rows(rows, 0);
                    assert!(got == single_rows[..rows * width], "{} {rows} × {width}, {k} terms", table.name);
                }
            }
        }
    }
}

/// Panels of a row-major B are packed while earlier ones are multiplied, in this part and for the next, which may be
/// one term shorter. A partial panel is packed separately, as are all panels of a column-major B. The bits are the
/// same.
#[test]
fn packing_during_the_products_does_not_change_the_bits() {
    for table in table::available_tables() {
        for sizes in [
            [1, 500, 250, 1501],
            [1, 200, 32, 1501],
            [1, 300, 64, 1031],
            [2, 300, 136, 1101],
            [1, 700, 400, 150],
        ] {
            let [_, _, n, k] = sizes;
            let case =
                Case { sizes, trans_a: false, trans_b: false, alpha: 1.5, accumulate: true, bias: true };
            let rows = draw_values("b", k * n);
            let columns: Vec<f32> = (0..n * k).map(|i| rows[i % k * n + i / k]).collect();
            let run_layout = |trans_b: bool, b: &[f32], threads: usize| {
                let case = Case { trans_b, ..case };
                // SAFETY: `run_on_weight` creates operands that cover the case.
                let run = |p: &Product<f32>, table, threads| unsafe { p.run(table, threads) };
                run_on_weight(table, threads, &case, &case.a(), b.as_ptr(), run)
            };
            let expected = run_layout(true, &columns, 1);
            for threads in [1, 2] {
                assert!(
                    run_layout(false, &rows, threads) == expected,
                    "{} {sizes:?} by {threads}",
                    table.name
                );
            }
        }
    }
}
