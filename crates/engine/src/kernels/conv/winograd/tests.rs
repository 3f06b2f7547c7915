use half::{bf16, f16};
use lowrank_cpu::gemm::{KernelTable, Storage, available_tables};
use lowrank_cpu::threads::Threads;

use super::native::{correlate, transform_weight};
use super::{ELEMENTS, Scalars, TAPS, WeightScalars, is_suitable};
use crate::dtype::DType;
use crate::kernels::conv::{self, ConvGeometry};
use crate::ops::checks::{Array, TOLERANCE, compare, contexts, read};
use crate::profile::Kind;

/// A correlation over [batch, groups · channels, *size] with zero padding before and after.
fn make_geometry(
    [batch, groups, rows, channels]: [usize; 4],
    size: [usize; 2],
    padding: [[usize; 2]; 2],
) -> ConvGeometry {
    let out = [0, 1].map(|d| size[d] + padding[d][0] + padding[d][1] + 1 - TAPS);
    ConvGeometry {
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
fn reverse_taps(geometry: ConvGeometry, reverse: [bool; 2]) -> ConvGeometry {
    let mut geometry = geometry;
    for (d, _) in [1, 2].into_iter().zip(reverse).filter(|(_, reverse)| *reverse) {
        geometry.first[d] += TAPS as isize - 1;
        geometry.step[d] = -1;
    }
    geometry
}

/// The index in x's image that output q and tap t read.
fn find_input(geometry: &ConvGeometry, q: [usize; 2], t: [usize; 2]) -> Option<usize> {
    let [h, w] = [1, 2].map(|d| {
        let at = q[d - 1] as isize + geometry.first[d] + t[d - 1] as isize * geometry.step[d];
        usize::try_from(at).ok().filter(|at| *at < geometry.size[d])
    });
    Some(h? * geometry.size[2] + w?)
}

/// The sum over taps, in the arithmetic of `add`.
fn sum_over_taps<T: Copy>(
    geometry: &ConvGeometry,
    [x, w, bias]: [&Array; 3],
    zero: T,
    add: impl Fn(T, f64, f64) -> T,
    end: impl Fn(T) -> f64,
) -> Array {
    let (rows, image, [_, height, width]) = (geometry.rows, geometry.image(), geometry.out);
    Array::from_fn(&[geometry.batch, geometry.groups * rows, height, width], |i| {
        let [b, o, q] = [i[0], i[1], i[2] * width + i[3]];
        let mut sum = add(zero, bias.data[o], 1.0);
        for c in 0..geometry.channels {
            let plane = (b * geometry.groups + o / rows) * geometry.channels + c;
            for t in 0..TAPS * TAPS {
                if let Some(at) = find_input(geometry, [q / width, q % width], [t / TAPS, t % TAPS]) {
                    let w = w.data[(o * geometry.channels + c) * TAPS * TAPS + t];
                    sum = add(sum, x.data[plane * image + at], w);
                }
            }
        }
        end(sum)
    })
}

fn sum_in_f64(geometry: &ConvGeometry, operands: [&Array; 3]) -> Array {
    sum_over_taps(geometry, operands, 0.0, |sum: f64, a, b| sum + a * b, |sum| sum)
}

fn draw_operands(geometry: &ConvGeometry) -> [Array; 3] {
    let o = geometry.groups * geometry.rows;
    let x = Array::random(
        "x",
        &[geometry.batch, geometry.groups * geometry.channels, geometry.size[1], geometry.size[2]],
    );
    [x, Array::random("w", &[o, geometry.channels, TAPS, TAPS]), Array::random("bias", &[o])]
}

fn narrow<T>(a: &Array, narrow: impl Fn(f64) -> T) -> Vec<T> {
    a.data.iter().map(|v| narrow(*v)).collect()
}

/// Computes y with the kernels of a level on several threads. Elements that are not written stay NaN.
fn run<T: Storage<Position = *const T> + Sync>(
    table: &'static KernelTable,
    threads: usize,
    geometry: &ConvGeometry,
    [x, bias]: [&Array; 2],
    w: &[T],
    biased: bool,
) -> Array {
    let ConvGeometry { batch, groups, rows, channels, .. } = *geometry;
    let reverse = [1, 2].map(|d| geometry.step[d] < 0);
    let first = |d: usize| (geometry.first[d] - 2 * reverse[d - 1] as isize) as i32;
    let of_w = WeightScalars { groups, rows, channels, turn_h: reverse[0], turn_w: reverse[1] };
    let s = Scalars {
        batch,
        groups,
        rows,
        channels,
        size: [geometry.size[1], geometry.size[2]],
        out: [geometry.out[1], geometry.out[2]],
        first_h: first(1),
        first_w: first(2),
    };
    let (x, bias) = (narrow(x, |v| v as f32), narrow(bias, |v| v as f32));
    let mut u = vec![f32::NAN; ELEMENTS * groups * rows * channels];
    let mut y = vec![f32::NAN; batch * groups * rows * geometry.positions()];
    Threads::new(threads).unwrap().install(|| {
        transform_weight::<T>(table, threads, &of_w, w, &mut u);
        correlate(table, threads, &s, &x, &u, biased.then_some(&bias[..]), &mut y);
    });
    let shape = [batch, groups * rows, geometry.out[1], geometry.out[2]];
    Array::new(&shape, y.into_iter().map(f64::from).collect())
}

fn list_geometries() -> Vec<ConvGeometry> {
    let pad = |n: usize| [[n; 2]; 2];
    vec![
        // One output, and tiles that extend past the end in one direction or both.
        make_geometry([1, 1, 1, 1], [3, 3], pad(0)),
        make_geometry([1, 1, 13, 5], [1, 1], pad(1)),
        make_geometry([2, 1, 7, 3], [4, 5], pad(0)),
        make_geometry([3, 2, 25, 9], [5, 4], pad(1)),
        make_geometry([2, 3, 12, 4], [6, 7], pad(2)),
        make_geometry([1, 1, 6, 2], [2, 2], pad(2)),
        // Unequal padding, and more padding than taps.
        make_geometry([2, 2, 5, 3], [6, 3], [[0, 2], [3, 1]]),
        make_geometry([1, 1, 4, 2], [2, 3], [[4, 5], [0, 6]]),
        // Runs that are split over panels, longer than a panel, or of one tile.
        make_geometry([2, 1, 37, 33], [9, 70], pad(1)),
        make_geometry([1, 1, 3, 4], [3, 150], pad(1)),
        make_geometry([5, 1, 33, 8], [21, 2], pad(1)),
        // Several blocks of channels, the last one shorter.
        make_geometry([3, 1, 26, 515], [7, 6], pad(1)),
        // Enough rows and panels to be split into tasks.
        make_geometry([1, 1, 130, 34], [17, 15], pad(1)),
        make_geometry([4, 2, 33, 40], [16, 16], pad(1)),
    ]
}

#[test]
fn every_instruction_set_equals_the_reference() {
    for (i, geometry) in list_geometries().into_iter().enumerate() {
        let geometry = reverse_taps(geometry, [i % 2 == 1, i % 3 == 1]);
        let [x, w, bias] = draw_operands(&geometry);
        let biased = i % 2 == 1;
        let none = bias.map(|_| 0.0);
        let with = if biased { &bias } else { &none };
        let [halves, brains] = [DType::F16, DType::BF16].map(|dtype| w.stored(dtype));
        let expected = [&w, &halves, &brains].map(|w| sum_in_f64(&geometry, [&x, w, with]));
        for table in available_tables() {
            let what = |of: &str| format!("{of} by {} {geometry:?}", table.name);
            let operands = [&x, &bias];
            let got = run(table, 1, &geometry, operands, &narrow(&w, |v| v as f32), biased);
            compare(&what("f32"), &got, &expected[0], TOLERANCE);
            let again = run(table, 3, &geometry, operands, &narrow(&w, |v| v as f32), biased);
            assert!(got.data == again.data, "{} on three threads", what("f32"));
            let got = run(table, 2, &geometry, operands, &narrow(&w, f16::from_f64), biased);
            compare(&what("f16"), &got, &expected[1], TOLERANCE);
            let got = run(table, 2, &geometry, operands, &narrow(&w, bf16::from_f64), biased);
            compare(&what("bf16"), &got, &expected[2], TOLERANCE);
        }
    }
}

/// Checks the error bound of the module's header against the sum over taps in f32.
#[test]
fn the_rounding_error_stays_below_that_of_the_sum_over_taps() {
    let geometry = make_geometry([1, 1, 12, 256], [16, 16], [[1; 2]; 2]);
    let [x, w, bias] = draw_operands(&geometry);
    let exact = sum_in_f64(&geometry, [&x, &w, &bias]);
    let rms_error = |y: &Array| {
        let squares = y.data.iter().zip(&exact.data).map(|(a, b)| (a - b).powi(2));
        (squares.sum::<f64>() / exact.data.len() as f64).sqrt()
    };
    let fused = |sum: f32, a: f64, b: f64| (a as f32).mul_add(b as f32, sum);
    let taps = rms_error(&sum_over_taps(&geometry, [&x, &w, &bias], 0f32, fused, f64::from));
    for table in available_tables() {
        let by_tiles = rms_error(&run(table, 2, &geometry, [&x, &bias], &narrow(&w, |v| v as f32), true));
        println!("{}: {by_tiles:.2e}, {:.2} of the sum over taps'", table.name, by_tiles / taps);
        assert!(by_tiles < taps, "{}: {by_tiles:e} for {taps:e}", table.name);
    }
}

/// Through launches, on every device: suitable correlations use the transforms and equal the reference.
#[test]
fn suitable_shapes_equal_the_reference_on_every_device() {
    let padding = [[1; 2]; 2];
    for reverse in [[false; 2], [true; 2]] {
        let geometry = reverse_taps(make_geometry([2, 2, 33, 34], [13, 12], padding), reverse);
        let [x, w, bias] = draw_operands(&geometry);
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let w = w.stored(dtype);
            let expected = sum_in_f64(&geometry, [&x, &w, &bias]);
            for cx in contexts() {
                assert_eq!(is_suitable(&cx, &geometry), cx.profile.kind == Kind::Cpu);
                let [x, w, bias] = [&x, &w, &bias].map(|a| a.upload(&cx));
                let y = cx.empty(&expected.shape[..], DType::F32).unwrap();
                let c = conv::Correlation { geometry: &geometry, x: &x, w: &w, bias: Some(&bias), y: &y };
                conv::correlate(&cx, c).unwrap();
                compare(&format!("{dtype} on {}", cx.profile.label), &read(&y), &expected, TOLERANCE);
            }
        }
    }
}

#[test]
fn the_shape_decides_whether_transforms_are_used() {
    let cx = contexts().remove(0);
    let padding = [[1; 2]; 2];
    let is_suitable = |geometry: ConvGeometry| is_suitable(&cx, &geometry);
    // Shapes of the operations' tests.
    assert!(
        is_suitable(make_geometry([4, 1, 34, 33], [8, 7], padding))
            && is_suitable(make_geometry([4, 1, 33, 34], [8, 7], padding))
    );
    let suitable = make_geometry([1, 1, 32, 32], [16, 16], padding);
    assert!(
        is_suitable(suitable)
            && is_suitable(reverse_taps(suitable, [true, false]))
            && is_suitable(make_geometry([4, 2, 64, 32], [7, 7], padding))
    );
    // Too few channels, rows or tiles; tiles that extend too far past the end.
    assert!(
        !is_suitable(make_geometry([1, 1, 32, 31], [16, 16], padding))
            && !is_suitable(make_geometry([1, 1, 31, 32], [16, 16], padding))
    );
    assert!(
        !is_suitable(make_geometry([1, 1, 32, 32], [16, 14], padding))
            && !is_suitable(make_geometry([64, 1, 32, 32], [1, 33], padding))
    );
    // Another stride, dilation or kernel, and three dimensions.
    let [_, height, width] = suitable.out;
    assert!(
        !is_suitable(ConvGeometry { stride: [1, 2, 2], ..suitable })
            && !is_suitable(ConvGeometry { step: [0, 1, 2], ..suitable })
    );
    assert!(
        !is_suitable(ConvGeometry { taps: [1, 3, 1], ..suitable })
            && !is_suitable(ConvGeometry { taps: [3, 3, 3], ..suitable })
    );
    assert!(!is_suitable(ConvGeometry { size: [2, 16, 16], out: [2, height, width], ..suitable }));
    assert!(!is_suitable(ConvGeometry { first: [-1, -1, -1], ..suitable }));
}
