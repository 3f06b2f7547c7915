use super::{Form, Walk, correlate_as, weight_as};
use crate::ops::checks::{Array, TOLERANCE, compare, contexts, read};

/// Every form, whichever a plan would choose, at sizes around the ends of its blocks; sums are added
/// to what is there.
#[test]
fn every_form_equals_the_plain_one() {
    for (rows, channels, size) in [(1, 3, 70), (9, 2, 33), (17, 5, 66), (130, 1, 129)] {
        let walk = Walk {
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
        let take = |b: usize, channel: usize, q: usize, t: usize| {
            let at = (q + t).checked_sub(1).filter(|at| *at < size);
            at.map_or(0.0, |at| x.data[(b * c + channel) * size + at])
        };
        let y = Array::from_fn(&[2, o, n], |i| {
            let terms = (0..channels).flat_map(|c| [0, 1, 2].map(|t| (c, t)));
            let sum: f64 = terms
                .map(|(k, t)| {
                    take(i[0], i[1] / rows * channels + k, i[2], t) * w.data[(i[1] * channels + k) * 3 + t]
                })
                .sum();
            sum + bias.data[i[1]]
        });
        let d_w = Array::from_fn(&[o, channels, 3], |i| {
            let terms = (0..2).flat_map(|b| (0..n).map(move |q| (b, q)));
            let sum: f64 = terms
                .map(|(b, q)| {
                    take(b, i[0] / rows * channels + i[1], q, i[2]) * d.data[(b * o + i[0]) * n + q]
                })
                .sum();
            sum + w.data[(i[0] * channels + i[1]) * 3 + i[2]]
        });
        for cx in contexts() {
            let (x, bias, d) = (x.upload(&cx), bias.upload(&cx), d.upload(&cx));
            for form in Form::ALL {
                let what = format!("{form:?} at {rows}, {channels}, {size} on {}", cx.profile.label);
                let (out, weight) = (cx.empty([2, o, n], x.dtype).unwrap(), w.upload(&cx));
                correlate_as(&cx, *form, &walk, &x, &weight, Some(&bias), &out).unwrap();
                compare(&what, &read(&out), &y, TOLERANCE);
                weight_as(&cx, *form, &walk, &x, &d, true, &weight).unwrap();
                compare(&what, &read(&weight), &d_w, TOLERANCE);
            }
        }
    }
}
