use super::plain;
use super::{clip_grad_norm, norm};
use crate::error::Code;
use crate::kernel::coverage::every_variant;
use crate::ops::checks::{Array, compare, contexts, read};
use crate::optim::{NotFinite, Optimizer, Sgd};
use crate::tape::Tensor;

/// Sizes around lanes and chunks, and enough chunks for a second level.
const SIZES: [&[usize]; 8] = [&[1], &[63], &[64], &[65], &[257], &[512], &[3, 171], &[40_001]];

fn make_gradients() -> Vec<Array> {
    SIZES.iter().enumerate().map(|(i, shape)| Array::random(&format!("g{i}"), shape)).collect()
}

/// A sum of 41,000 squares has about 30 roundings in sequence, 6e-8 each: lanes of 8, a tree of 6, chunks of 512, and
/// the chunks' sums.
const NORM_TOLERANCE: f64 = 2e-6;

fn expect_norm(what: &str, got: f64, expected: f64) {
    compare(what, &Array::new(&[], vec![got]), &Array::new(&[], vec![expected]), NORM_TOLERANCE);
}

#[test]
fn norms_equal_the_reference() {
    for cx in contexts() {
        let all = make_gradients();
        for count in 0..=all.len() {
            for part in [&all[..count], &all[count..]] {
                let tensors: Vec<Tensor> = part
                    .iter()
                    .map(|g| {
                        let t = Tensor::new(cx.empty(&g.shape[..], g.dtype).unwrap(), true);
                        t.set_grad(Some(g.upload(&cx)));
                        t
                    })
                    .collect();
                let got = read(&norm(&cx, &tensors).unwrap()).data[0];
                expect_norm(&cx.profile.label, got, plain::norm(part));
            }
        }
    }
}

#[test]
fn clipping_equals_the_reference() {
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    for cx in contexts() {
        // Below and above the norm; no limit; a limit of 0.
        for max in [1.0, 1e6, f32::INFINITY, 0.0] {
            for odd in [None, Some(special[0]), Some(special[1]), Some(special[2])] {
                let mut arrays = make_gradients();
                if let Some(odd) = odd {
                    arrays[3].data[64] = odd;
                }
                let tensors: Vec<Tensor> = arrays
                    .iter()
                    .map(|g| {
                        let t = Tensor::new(cx.empty(&g.shape[..], g.dtype).unwrap(), true);
                        t.set_grad(Some(g.upload(&cx)));
                        t
                    })
                    .collect();
                let before = plain::norm(&arrays);
                let got = clip_grad_norm(&cx, &tensors, max).unwrap();
                let what = format!("{} at {max} with {odd:?}", cx.profile.label);
                expect_norm(&what, read(&got).data[0], before);
                let factor = if max.is_finite() { plain::factor(before, max as f64) } else { 1.0 };
                for (t, g) in tensors.iter().zip(&arrays) {
                    compare(&what, &read(&t.grad().unwrap()), &g.map(|v| v * factor), NORM_TOLERANCE);
                }
            }
        }
    }
}

every_variant! {
    super::KERNELS;
    fn steps_are_clipped_or_skipped() {
        for cx in contexts() {
            // Enough chunks for a second level of chunks.
            let gradients = [Array::random("g", &[512 * 512 + 1]), Array::random("h", &[65])];
            let expected = plain::norm(&gradients);
            let tensors = gradients.clone().map(|g| Tensor::new(g.upload(&cx), true));
            let set_gradients = |odd: f64| {
                for (t, g) in tensors.iter().zip(&gradients) {
                    let mut g = g.clone();
                    g.data[64] *= odd;
                    t.set_grad(Some(g.upload(&cx)));
                }
            };
            set_gradients(1.0);
            expect_norm(&cx.profile.label, read(&clip_grad_norm(&cx, &tensors, 2.0).unwrap()).data[0], expected);
            let clipped = gradients[1].map(|v| v * plain::factor(expected, 2.0));
            compare(&cx.profile.label, &read(&tensors[1].grad().unwrap()), &clipped, NORM_TOLERANCE);

            let sgd = Sgd { lr: 1.0, ..Sgd::default() };
            let mut optimizer = Optimizer::new(vec![(sgd, tensors.to_vec())]).unwrap();
            let left_out = |optimizer: &Optimizer<Sgd>| read(&optimizer.uncounted_steps()).data[0];
            for (odd, count) in [(1.0, 0.0), (f64::NAN, 1.0)] {
                set_gradients(odd);
                optimizer.step(Some(2.0), NotFinite::Skip).unwrap();
                assert_eq!(left_out(&optimizer), count);
            }
            optimizer.uncount_steps(1);
            assert_eq!(left_out(&optimizer), 0.0);
            let updated = Array {
                data: gradients[1].data.iter().zip(&clipped.data).map(|(p, g)| p - g).collect(),
                ..clipped
            };
            compare(&cx.profile.label, &read(&tensors[1].value()), &updated, NORM_TOLERANCE);
        }
    }
}

#[test]
fn norms_of_non_finite_gradients_are_non_finite() {
    for cx in contexts() {
        let of = |at: usize, values: &[f64]| {
            let mut g = Array::random("g", &[2000]);
            g.data[at..at + values.len()].copy_from_slice(values);
            let t = Tensor::new(cx.empty([2000], g.dtype).unwrap(), true);
            t.set_grad(Some(g.upload(&cx)));
            read(&norm(&cx, &[t]).unwrap()).data[0]
        };
        for at in [0, 511, 512, 1990] {
            assert!(of(at, &[f64::NAN]).is_nan());
            assert_eq!(of(at, &[f64::NEG_INFINITY]), f64::INFINITY);
            assert!(of(at, &[f64::INFINITY, f64::NAN, f64::INFINITY]).is_nan());
            // The square exceeds f32.
            assert_eq!(of(at, &[1e20, -1e20]), f64::INFINITY);
        }
    }
}

#[test]
fn a_negative_maximum_and_another_device_are_refused() {
    let all = contexts();
    let cx = &all[0];
    assert_eq!(clip_grad_norm(cx, &[], f32::NAN).unwrap_err().code, Code::Option);
    assert_eq!(clip_grad_norm(cx, &[], -1.0).unwrap_err().code, Code::Option);
    let elsewhere = crate::context::Context::new(cx.profile.clone(), crate::device::Sink::Meta);
    let t = Tensor::new(cx.empty([3], crate::dtype::DType::F32).unwrap(), true);
    t.set_grad(Some(t.value()));
    assert_eq!(norm(&elsewhere, &[t]).unwrap_err().code, Code::DeviceMismatch);
}
