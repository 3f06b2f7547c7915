use super::{Unary, reference::compute_reference};
use crate::kernels::elementwise::Function::{self, *};
use crate::op::run1;
use crate::ops::checks::{Array, check, check_non_finite, contexts, read};

const ALL: [Function; 27] = [
    Copy, Neg, Exp, Log, Sqrt, Rsqrt, Sin, Cos, Abs, Square, Relu, Sigmoid, Tanh, Silu, Gelu, GeluTanh,
    IsFinite, Erf, Log1p, Expm1, Softplus, LogSigmoid, Round, Floor, Ceil, Trunc, Sign,
];

#[test]
fn equals_the_reference() {
    for f in ALL {
        for shape in [vec![1], vec![63], vec![64], vec![65], vec![257], vec![257, 65]] {
            // Positive values for log and sqrt; no sample is near the kinks at 0.
            let x = Array::random("x", &shape).map(|v| match f {
                Log | Sqrt | Rsqrt => v.abs() + 0.3,
                Log1p => 0.9 * v,
                // Halfway between two steps of both kinds.
                Round | Floor | Ceil | Trunc | Sign => (3.0 * v).floor() + 0.25,
                _ => 3.0 * v + 0.01 * v.signum(),
            });
            check(&Unary(f), &[x], &|x| vec![compute_reference(f, &x[0])]);
        }
    }
}

#[test]
fn non_finite_values_equal_the_reference() {
    for f in ALL {
        let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.5, 30.0, -30.0];
        check_non_finite(&Unary(f), &[Array::new(&[7], special.to_vec())], &|x| {
            let y = compute_reference(f, &x[0]);
            vec![y]
        });
    }
}

/// Inputs for which 1 + x or eˣ − 1 would lose the digits of x, or eˣ overflows; the error is relative.
#[test]
fn small_and_large_numbers_keep_their_relative_accuracy() {
    let magnitudes = (0..240).map(|i| 10f64.powf(i as f64 / 6.0 - 38.0));
    let small: Vec<f64> = magnitudes.flat_map(|v| [v as f32 as f64, -v as f32 as f64]).collect();
    for f in [Erf, Log1p, Expm1, Softplus, LogSigmoid] {
        let x: Vec<f64> = match f {
            Log1p => small.iter().copied().filter(|v| *v > -1.0).chain([-0.75, 3e38]).collect(),
            Softplus | LogSigmoid => (-300..=300).map(|i| i as f64 / 4.0).collect(),
            Erf => small.iter().copied().filter(|v| v.abs() < 1.0).collect(),
            _ => small.iter().copied().filter(|v| v.abs() < 80.0).collect(),
        };
        let x = Array::new(&[x.len()], x);
        let expected = compute_reference(f, &x);
        for cx in contexts() {
            let y = read(&run1(&cx, &Unary(f), &[&x.upload(&cx)]).unwrap());
            for ((got, expected), x) in y.data.iter().zip(&expected.data).zip(&x.data) {
                // A device may flush smaller numbers to 0.
                let tolerance = f32::MIN_POSITIVE as f64;
                let error = (got - expected).abs() - tolerance;
                // WGSL guarantees exp within 3 + 2|x| ulp; the rest has about ten roundings.
                let exponent = if matches!(f, Erf | Log1p) { 0.0 } else { x.abs() };
                let ulps = 16.0 + 2.0 * exponent;
                assert!(
                    error <= ulps * f32::EPSILON as f64 * expected.abs(),
                    "{f:?}({x}) is {got}, not {expected}, on {}",
                    cx.profile.label
                );
            }
        }
    }
}

#[test]
fn halves_round_to_even_and_steps_have_zero_gradient() {
    let x = Array::new(&[9], vec![-2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5, 8388609.0, -3e9]);
    for f in [Round, Floor, Ceil, Trunc, Sign] {
        // Finite differences use steps of a thousandth of a percent of x, so x must be small.
        check(&Unary(f), &[x.map(|v| v.clamp(-3.0, 3.0) + 0.25)], &|x| vec![compute_reference(f, &x[0])]);
        check_non_finite(&Unary(f), std::slice::from_ref(&x), &|x| vec![compute_reference(f, &x[0])]);
    }
}

#[test]
fn sine_and_cosine_of_large_numbers_equal_the_reference() {
    let [v, scale] = ["value", "scale"].map(|name| Array::random(name, &[4099]));
    let x =
        Array::from_fn(&[4099], |i| (v.data[i[0]] * (60.0 + 60.0 * scale.data[i[0]]).exp2()) as f32 as f64);
    for f in [Sin, Cos] {
        check_non_finite(&Unary(f), std::slice::from_ref(&x), &|x| vec![compute_reference(f, &x[0])]);
    }
}
