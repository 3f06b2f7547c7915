use super::plan::Config;
use super::{ConvGeometry, Correlation, KERNELS, correlate_as, correlate_weight_as, list_candidates};
use crate::dtype::DType;
use crate::kernel::coverage::every_variant;
use crate::kernels::gemm::stage::Read;
use crate::ops::checks::{Array, TOLERANCE, compare, contexts, gpu_contexts, read};
use crate::profile::Kind;

/// Equivalent variants at sizes around the ends of blocks, whole and in windows; sums are added to previous values.
#[test]
fn interchangeable_variants_equal_the_reference() {
    for (rows, channels, size) in [(1, 3, 70), (9, 2, 33), (17, 5, 66), (130, 1, 129)] {
        let geometry = ConvGeometry {
            batch: 2,
            groups: 2,
            rows,
            channels,
            size: [1, 1, size],
            out: [1, 1, size - 1],
            taps: [1, 1, 3],
            stride: [1; 3],
            first: [0, 0, -1],
            step: [0, 0, 1],
        };
        let (n, o, c) = (size - 1, 2 * rows, 2 * channels);
        let x = Array::random("x", &[2, c, size]);
        let w = Array::random("w", &[o, channels, 3]);
        let (bias, d) = (Array::random("bias", &[o]), Array::random("d", &[2, o, n]));
        let read_padded = |b: usize, channel: usize, q: usize, t: usize| {
            let at = (q + t).checked_sub(1).filter(|at| *at < size);
            at.map_or(0.0, |at| x.data[(b * c + channel) * size + at])
        };
        let y = Array::from_fn(&[2, o, n], |i| {
            let terms = (0..channels).flat_map(|c| [0, 1, 2].map(|t| (c, t)));
            let sum: f64 = terms
                .map(|(k, t)| {
                    read_padded(i[0], i[1] / rows * channels + k, i[2], t)
                        * w.data[(i[1] * channels + k) * 3 + t]
                })
                .sum();
            sum + bias.data[i[1]]
        });
        let d_w = Array::from_fn(&[o, channels, 3], |i| {
            let terms = (0..2).flat_map(|b| (0..n).map(move |q| (b, q)));
            let sum: f64 = terms
                .map(|(b, q)| {
                    read_padded(b, i[0] / rows * channels + i[1], q, i[2]) * d.data[(b * o + i[0]) * n + q]
                })
                .sum();
            sum + w.data[(i[0] * channels + i[1]) * 3 + i[2]]
        });
        for cx in contexts() {
            let (x, bias, d) = (x.upload(&cx), bias.upload(&cx), d.upload(&cx));
            let mut all = list_candidates(4, rows, n);
            all.truncate(if cx.profile.kind == Kind::Gpu { all.len() } else { 1 });
            for config in &all {
                let what = format!("{config:?} at {rows}, {channels}, {size} on {}", cx.profile.label);
                let (out, weight) = (cx.empty([2, o, n], x.dtype).unwrap(), w.upload(&cx));
                let c = Correlation { geometry: &geometry, x: &x, w: &weight, bias: Some(&bias), y: &out };
                correlate_as(&cx, *config, c).unwrap();
                compare(&what, &read(&out), &y, TOLERANCE);
                correlate_weight_as(&cx, *config, &geometry, &x, &d, true, &weight).unwrap();
                compare(&what, &read(&weight), &d_w, TOLERANCE);
            }
        }
    }
}

/// A correlation in three dimensions, with strides and steps; its terms and positions are whole vectors if `whole`.
fn make_geometry(whole: bool) -> ConvGeometry {
    ConvGeometry {
        batch: 2,
        groups: 2,
        rows: 130,
        channels: if whole { 4 } else { 3 },
        size: [3, 6, if whole { 20 } else { 17 }],
        out: [2, 5, if whole { 12 } else { 9 }],
        taps: [2, 1, 3],
        stride: [1, 1, 1],
        first: [0, 0, -2],
        step: [1, 2, 3],
    }
}

every_variant! {
    KERNELS;
    /// Compares every listed variant with the reference, and with one another to the bit.
    fn every_listed_variant_equals_the_reference() {
        let Some(cx) = gpu_contexts().into_iter().next() else { return };
        let cx = &cx;
        for whole in [true, false] {
            let geometry = make_geometry(whole);
            let (o, c) = (geometry.groups * geometry.rows, geometry.groups * geometry.channels);
            let (positions, taps, image) = (geometry.positions(), geometry.taps(), geometry.image());
            let x = Array::random("x", &[2, c, image]);
            let (bias, d) = (Array::random("bias", &[o]), Array::random("d", &[2, o, positions]));
            let split_index = |k: usize, [_, h, w]: [usize; 3]| [k / (h * w), k / w % h, k % w];
            let read_padded = |b: usize, channel: usize, q: usize, t: usize| {
                let (q, t) = (split_index(q, geometry.out), split_index(t, geometry.taps));
                let at: [Option<usize>; 3] = std::array::from_fn(|i| {
                    let at =
                        (q[i] * geometry.stride[i]) as isize + geometry.first[i] + t[i] as isize * geometry.step[i];
                    usize::try_from(at).ok().filter(|at| *at < geometry.size[i])
                });
                let [Some(z), Some(y), Some(i)] = at else { return 0.0 };
                let [_, height, width] = geometry.size;
                x.data[(b * c + channel) * image + (z * height + y) * width + i]
            };
            let configs: Vec<Config> = Config::list()
                .into_iter()
                .filter(|config| match config {
                    Config::Lanes => true,
                    Config::Tile(_, read) => (*read == Read::Terms) == whole,
                })
                .collect();
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let w = Array::random("w", &[o, geometry.channels, taps]).stored(dtype);
                let y = Array::from_fn(&[2, o, positions], |i| {
                    let terms = (0..geometry.channels).flat_map(|k| (0..taps).map(move |t| (k, t)));
                    let read_x =
                        |k: usize, t: usize| read_padded(i[0], i[1] / geometry.rows * geometry.channels + k, i[2], t);
                    terms.map(|(k, t)| read_x(k, t) * w.data[(i[1] * geometry.channels + k) * taps + t]).sum()
                });
                let with_bias = Array::from_fn(&[2, o, positions], |i| {
                    y.data[(i[0] * o + i[1]) * positions + i[2]] + bias.data[i[1]]
                });
                let (x, w, bias) = (x.upload(cx), w.upload(cx), bias.upload(cx));
                for (bias, expected) in [(None, &y), (Some(&bias), &with_bias)] {
                    let mut first = None;
                    for config in &configs {
                        let out = cx.empty([2, o, positions], DType::F32).unwrap();
                        let c = Correlation { geometry: &geometry, x: &x, w: &w, bias, y: &out };
                        correlate_as(cx, *config, c).unwrap();
                        let (what, got) = (format!("{config:?} by {dtype}, {whole}"), read(&out));
                        compare(&what, &got, expected, TOLERANCE);
                        assert_eq!(first.get_or_insert(got.clone()).data, got.data, "{what}");
                    }
                }
            }
            let before = Array::random("d_w", &[o, geometry.channels, taps]);
            let d_w = Array::from_fn(&[o, geometry.channels, taps], |i| {
                let terms = (0..2).flat_map(|b| (0..positions).map(move |q| (b, q)));
                let read_x = |b: usize, q: usize| read_padded(b, i[0] / geometry.rows * geometry.channels + i[1], q, i[2]);
                let sum: f64 =
                    terms.map(|(b, q)| read_x(b, q) * d.data[(b * o + i[0]) * positions + q]).sum();
                sum + before.data[(i[0] * geometry.channels + i[1]) * taps + i[2]]
            });
            let (x, d) = (x.upload(cx), d.upload(cx));
            let mut first = None;
            for config in &configs {
                let weight = before.upload(cx);
                correlate_weight_as(cx, *config, &geometry, &x, &d, true, &weight).unwrap();
                let (what, got) = (format!("{config:?} of the weight, {whole}"), read(&weight));
                compare(&what, &got, &d_w, TOLERANCE);
                assert_eq!(first.get_or_insert(got.clone()).data, got.data, "{what}");
            }
        }
    }
}
