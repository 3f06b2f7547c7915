use super::{Dropout, reference::compute_reference};
use crate::context::Spec;
use crate::error::Code;
use crate::kernel::coverage::every_variant;
use crate::kernels;
use crate::op::{Op, run1};
use crate::ops::checks::{Array, TOLERANCE, check, check_non_finite, compare, contexts, read};

every_variant! {
    kernels::dropout::KERNELS;
    fn every_variant_equals_the_reference() {
        let op = Dropout { p: 0.3, seed: 5, offset: 9 };
        let (x, before) = (Array::random("x", &[259]), Array::random("y", &[259]));
        let masked = compute_reference(&op, &x);
        for cx in contexts() {
            for accumulate in [false, true] {
                let y = before.upload(&cx);
                let x = x.upload(&cx);
                kernels::dropout::dropout(&cx, op.seed, op.offset, op.p, &x, &y, accumulate).unwrap();
                let sum = masked.data.iter().zip(&before.data).map(|(m, b)| if accumulate { m + b } else { *m });
                compare(&cx.profile.label, &read(&y), &Array::new(&[259], sum.collect()), TOLERANCE);
            }
        }
    }
}

#[test]
fn equals_the_reference() {
    for n in [1, 3, 63, 64, 65, 257, 5000] {
        for p in [0.0, 0.1, 0.5, 0.999, 1.0] {
            let op = Dropout { p, seed: 0x1234_5678_9abc_def0, offset: 0x1_0000_0002 };
            check(&op, &[Array::random("x", &[n])], &|x| vec![compute_reference(&op, &x[0])]);
        }
    }
}

#[test]
fn the_mask_is_the_same_on_every_device() {
    let op = Dropout { p: 0.3, seed: 7, offset: 11 };
    let x = Array::new(&[100_003], vec![1.0; 100_003]);
    let masks: Vec<Vec<f64>> =
        contexts().iter().map(|cx| read(&run1(cx, &op, &[&x.upload(cx)]).unwrap()).data).collect();
    for mask in &masks {
        assert_eq!(*mask, masks[0]);
    }
    let kept = masks[0].iter().filter(|v| **v != 0.0).count() as f64 / x.data.len() as f64;
    // Five standard deviations for 100,003 draws.
    assert!((kept - 0.7).abs() < 5.0 * (0.21f64 / 100_003.0).sqrt(), "{kept}");
}

#[test]
fn masks_depend_on_seed_and_offset() {
    let x = Array::new(&[257], vec![1.0; 257]);
    for cx in contexts() {
        let draw_mask = |seed, offset| {
            read(&run1(&cx, &Dropout { p: 0.5, seed, offset }, &[&x.upload(&cx)]).unwrap()).data
        };
        assert_eq!(draw_mask(1, 2), draw_mask(1, 2));
        assert_ne!(draw_mask(1, 2), draw_mask(2, 2));
        assert_ne!(draw_mask(1, 2), draw_mask(1, 3));
        assert_ne!(draw_mask(1, 2), draw_mask(1, 2 | 1 << 40));
    }
}

#[test]
fn accumulation_adds_to_the_output() {
    for cx in contexts() {
        for p in [0.0, 0.4, 1.0] {
            let op = Dropout { p, seed: 3, offset: 4 };
            let (x, start) = (Array::random("x", &[1500]), Array::random("y", &[1500]));
            let (dx, y) = (x.upload(&cx), start.upload(&cx));
            kernels::dropout::dropout(&cx, op.seed, op.offset, p, &dx, &y, true).unwrap();
            let masked = compute_reference(&op, &x);
            for (i, got) in read(&y).data.iter().enumerate() {
                assert!((got - start.data[i] - masked.data[i]).abs() < 1e-6, "{got} at {i}");
            }
        }
    }
}

#[test]
fn dropped_non_finite_values_give_nan() {
    let op = Dropout { p: 0.5, seed: 1, offset: 0 };
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0];
    let x = Array::from_fn(&[64], |i| special[i[0] % 4]);
    check_non_finite(&op, &[x], &|x| vec![compute_reference(&op, &x[0])]);
}

#[test]
fn p_outside_0_to_1_is_refused() {
    for p in [-0.1, 1.5, f64::NAN] {
        let error = Dropout { p, seed: 0, offset: 0 }.outputs(&[&Spec::f32([2])]).unwrap_err();
        assert!(error.code == Code::Option && error.message.starts_with("dropout"), "{error}");
    }
}
