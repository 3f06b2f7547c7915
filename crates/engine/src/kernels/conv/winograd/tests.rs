use half::{bf16, f16};
use lowrank_cpu::gemm::{KernelTable, Storage, available_tables};
use lowrank_cpu::threads::Threads;

use super::native::{correlate, weight_by};
use super::{PLACES, Scalars, TAPS, WeightScalars, suits};
use crate::dtype::DType;
use crate::kernels::conv::{self, Walk};
use crate::ops::checks::{Array, TOLERANCE, compare, contexts, read};
use crate::profile::Kind;

/// A correlation over [batch, groups · channels, *size] with zero padding before and after.
fn walk([batch, groups, rows, channels]: [usize; 4], size: [usize; 2], padding: [[usize; 2]; 2]) -> Walk {
    let out = [0, 1].map(|d| size[d] + padding[d][0] + padding[d][1] + 1 - TAPS);
    Walk {
        batch,
        groups,
        rows,
        channels,
        size: [1, size[0], size[1]],
        out: [1, out[0], out[1]],
        taps: [1, TAPS, TAPS],
        stride: [1; 3],
        first: [0, -(padding[0][0] as isize), -(padding[1][0] as isize)],
        step: [0, 1, 1],
    }
}

/// The same outputs with reversed taps along the given dimensions, as for the gradient of x.
fn turned(walk: Walk, turn: [bool; 2]) -> Walk {
    let mut walk = walk;
    for (d, _) in [1, 2].into_iter().zip(turn).filter(|(_, turn)| *turn) {
        walk.first[d] += TAPS as isize - 1;
        walk.step[d] = -1;
    }
    walk
}

/// The index in x's image that output q and tap t read.
fn met(walk: &Walk, q: [usize; 2], t: [usize; 2]) -> Option<usize> {
    let [h, w] = [1, 2].map(|d| {
        let at = q[d - 1] as isize + walk.first[d] + t[d - 1] as isize * walk.step[d];
        usize::try_from(at).ok().filter(|at| *at < walk.size[d])
    });
    Some(h? * walk.size[2] + w?)
}

/// The sum over taps, in the arithmetic of `add`.
fn by_taps<T: Copy>(
    walk: &Walk,
    [x, w, bias]: [&Array; 3],
    zero: T,
    add: impl Fn(T, f64, f64) -> T,
    end: impl Fn(T) -> f64,
) -> Array {
    let (rows, image, [_, height, width]) = (walk.rows, walk.image(), walk.out);
    Array::from_fn(&[walk.batch, walk.groups * rows, height, width], |i| {
        let [b, o, q] = [i[0], i[1], i[2] * width + i[3]];
        let mut sum = add(zero, bias.data[o], 1.0);
        for c in 0..walk.channels {
            let plane = (b * walk.groups + o / rows) * walk.channels + c;
            for t in 0..TAPS * TAPS {
                if let Some(at) = met(walk, [q / width, q % width], [t / TAPS, t % TAPS]) {
                    let w = w.data[(o * walk.channels + c) * TAPS * TAPS + t];
                    sum = add(sum, x.data[plane * image + at], w);
                }
            }
        }
        end(sum)
    })
}

fn plain(walk: &Walk, operands: [&Array; 3]) -> Array {
    by_taps(walk, operands, 0.0, |sum: f64, a, b| sum + a * b, |sum| sum)
}

fn operands(walk: &Walk) -> [Array; 3] {
    let o = walk.groups * walk.rows;
    let x = Array::random("x", &[walk.batch, walk.groups * walk.channels, walk.size[1], walk.size[2]]);
    [x, Array::random("w", &[o, walk.channels, TAPS, TAPS]), Array::random("bias", &[o])]
}

fn narrow<T>(a: &Array, narrow: impl Fn(f64) -> T) -> Vec<T> {
    a.data.iter().map(|v| narrow(*v)).collect()
}

/// Computes y with the kernels of a level on several threads. Elements that are not written stay NaN.
fn run<T: Storage<Position = *const T> + Sync>(
    table: &'static KernelTable,
    threads: usize,
    walk: &Walk,
    [x, bias]: [&Array; 2],
    w: &[T],
    biased: bool,
) -> Array {
    let Walk { batch, groups, rows, channels, .. } = *walk;
    let turn = [1, 2].map(|d| walk.step[d] < 0);
    let first = |d: usize| (walk.first[d] - 2 * turn[d - 1] as isize) as i32;
    let of_w = WeightScalars { groups, rows, channels, turn_h: turn[0], turn_w: turn[1] };
    let s = Scalars {
        batch,
        groups,
        rows,
        channels,
        size: [walk.size[1], walk.size[2]],
        out: [walk.out[1], walk.out[2]],
        first_h: first(1),
        first_w: first(2),
    };
    let (x, bias) = (narrow(x, |v| v as f32), narrow(bias, |v| v as f32));
    let mut u = vec![f32::NAN; PLACES * groups * rows * channels];
    let mut y = vec![f32::NAN; batch * groups * rows * walk.positions()];
    Threads::new(threads).unwrap().install(|| {
        weight_by::<T>(table, threads, &of_w, w, &mut u);
        correlate(table, threads, &s, &x, &u, biased.then_some(&bias[..]), &mut y);
    });
    let shape = [batch, groups * rows, walk.out[1], walk.out[2]];
    Array::new(&shape, y.into_iter().map(f64::from).collect())
}

fn walks() -> Vec<Walk> {
    let pad = |n: usize| [[n; 2]; 2];
    vec![
        // One output, and tiles that extend past the end in one direction or both.
        walk([1, 1, 1, 1], [3, 3], pad(0)),
        walk([1, 1, 13, 5], [1, 1], pad(1)),
        walk([2, 1, 7, 3], [4, 5], pad(0)),
        walk([3, 2, 25, 9], [5, 4], pad(1)),
        walk([2, 3, 12, 4], [6, 7], pad(2)),
        walk([1, 1, 6, 2], [2, 2], pad(2)),
        // Unequal padding, and more padding than taps.
        walk([2, 2, 5, 3], [6, 3], [[0, 2], [3, 1]]),
        walk([1, 1, 4, 2], [2, 3], [[4, 5], [0, 6]]),
        // Runs that are split over panels, longer than a panel, or of one tile.
        walk([2, 1, 37, 33], [9, 70], pad(1)),
        walk([1, 1, 3, 4], [3, 150], pad(1)),
        walk([5, 1, 33, 8], [21, 2], pad(1)),
        // Several blocks of channels, the last one shorter.
        walk([3, 1, 26, 515], [7, 6], pad(1)),
        // Enough rows and panels to be split into tasks.
        walk([1, 1, 130, 34], [17, 15], pad(1)),
        walk([4, 2, 33, 40], [16, 16], pad(1)),
    ]
}

#[test]
fn every_instruction_set_equals_the_plain_form() {
    for (i, walk) in walks().into_iter().enumerate() {
        let walk = turned(walk, [i % 2 == 1, i % 3 == 1]);
        let [x, w, bias] = operands(&walk);
        let biased = i % 2 == 1;
        let none = bias.map(|_| 0.0);
        let with = if biased { &bias } else { &none };
        let [halves, brains] = [DType::F16, DType::BF16].map(|dtype| w.stored(dtype));
        let expected = [&w, &halves, &brains].map(|w| plain(&walk, [&x, w, with]));
        for table in available_tables() {
            let what = |of: &str| format!("{of} by {} {walk:?}", table.name);
            let operands = [&x, &bias];
            let got = run(table, 1, &walk, operands, &narrow(&w, |v| v as f32), biased);
            compare(&what("f32"), &got, &expected[0], TOLERANCE);
            let again = run(table, 3, &walk, operands, &narrow(&w, |v| v as f32), biased);
            assert!(got.data == again.data, "{} on three threads", what("f32"));
            let got = run(table, 2, &walk, operands, &narrow(&w, f16::from_f64), biased);
            compare(&what("f16"), &got, &expected[1], TOLERANCE);
            let got = run(table, 2, &walk, operands, &narrow(&w, bf16::from_f64), biased);
            compare(&what("bf16"), &got, &expected[2], TOLERANCE);
        }
    }
}

/// Checks the error bound of the module's header against the sum over taps in f32.
#[test]
fn it_rounds_about_as_the_sum_over_taps_does() {
    let walk = walk([1, 1, 12, 256], [16, 16], [[1; 2]; 2]);
    let [x, w, bias] = operands(&walk);
    let exact = plain(&walk, [&x, &w, &bias]);
    let off = |y: &Array| {
        let squares = y.data.iter().zip(&exact.data).map(|(a, b)| (a - b).powi(2));
        (squares.sum::<f64>() / exact.data.len() as f64).sqrt()
    };
    let fused = |sum: f32, a: f64, b: f64| (a as f32).mul_add(b as f32, sum);
    let taps = off(&by_taps(&walk, [&x, &w, &bias], 0f32, fused, f64::from));
    for table in available_tables() {
        let by_tiles = off(&run(table, 2, &walk, [&x, &bias], &narrow(&w, |v| v as f32), true));
        println!("{}: {by_tiles:.2e}, {:.2} of the sum over taps'", table.name, by_tiles / taps);
        assert!(by_tiles < taps, "{}: {by_tiles:e} for {taps:e}", table.name);
    }
}

/// Through launches, on every device: suitable correlations use the transforms and equal the plain form.
#[test]
fn what_suits_equals_the_plain_form_on_every_device() {
    let around = [[1; 2]; 2];
    for turn in [[false; 2], [true; 2]] {
        let walk = turned(walk([2, 2, 33, 34], [13, 12], around), turn);
        let [x, w, bias] = operands(&walk);
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let w = w.stored(dtype);
            let expected = plain(&walk, [&x, &w, &bias]);
            for cx in contexts() {
                assert_eq!(suits(&cx, &walk), cx.profile.kind == Kind::Cpu);
                let [x, w, bias] = [&x, &w, &bias].map(|a| a.upload(&cx));
                let y = cx.empty(&expected.shape[..], DType::F32).unwrap();
                let c = conv::Correlation { walk: &walk, x: &x, w: &w, bias: Some(&bias), y: &y };
                conv::correlate(&cx, c).unwrap();
                compare(&format!("{dtype} on {}", cx.profile.label), &read(&y), &expected, TOLERANCE);
            }
        }
    }
}

#[test]
fn its_shape_decides() {
    let cx = contexts().remove(0);
    let around = [[1; 2]; 2];
    let of = |walk: Walk| suits(&cx, &walk);
    // Shapes of the operations' tests.
    assert!(of(walk([4, 1, 34, 33], [8, 7], around)) && of(walk([4, 1, 33, 34], [8, 7], around)));
    let fits = walk([1, 1, 32, 32], [16, 16], around);
    assert!(of(fits) && of(turned(fits, [true, false])) && of(walk([4, 2, 64, 32], [7, 7], around)));
    // Too few channels, rows or tiles; tiles that extend too far past the end.
    assert!(!of(walk([1, 1, 32, 31], [16, 16], around)) && !of(walk([1, 1, 31, 32], [16, 16], around)));
    assert!(!of(walk([1, 1, 32, 32], [16, 14], around)) && !of(walk([64, 1, 32, 32], [1, 33], around)));
    // Another stride, dilation or kernel, and three dimensions.
    let [_, height, width] = fits.out;
    assert!(!of(Walk { stride: [1, 2, 2], ..fits }) && !of(Walk { step: [0, 1, 2], ..fits }));
    assert!(!of(Walk { taps: [1, 3, 1], ..fits }) && !of(Walk { taps: [3, 3, 3], ..fits }));
    assert!(!of(Walk { size: [2, 16, 16], out: [2, height, width], ..fits }));
    assert!(!of(Walk { first: [-1, -1, -1], ..fits }));
}
