use super::{Unary, plain::plain};
use crate::kernels::elementwise::Function::{self, *};
use crate::ops::checks::{Array, check, check_non_finite};

const ALL: [Function; 17] = [
    Copy, Neg, Exp, Log, Sqrt, Rsqrt, Sin, Cos, Abs, Square, Relu, Sigmoid, Tanh, Silu, Gelu, GeluTanh,
    IsFinite,
];

#[test]
fn equals_the_plain_form() {
    for f in ALL {
        for shape in [vec![1], vec![63], vec![64], vec![65], vec![257], vec![257, 65]] {
            // Log and sqrt take positive values; the kinks at 0 are far from any sample.
            let x = Array::random("x", &shape).map(|v| match f {
                Log | Sqrt | Rsqrt => v.abs() + 0.3,
                _ => 3.0 * v + 0.01 * v.signum(),
            });
            check(&Unary(f), &[x], &|x| vec![plain(f, &x[0])]);
        }
    }
}

#[test]
fn non_finite_values_stay_where_they_are() {
    for f in ALL {
        let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.5, 30.0, -30.0];
        check_non_finite(&Unary(f), &[Array::new(&[7], special.to_vec())], &|x| {
            let y = plain(f, &x[0]);
            vec![y]
        });
    }
}

#[test]
fn sines_of_large_numbers() {
    let [v, scale] = ["value", "scale"].map(|name| Array::random(name, &[4099]));
    let x =
        Array::from_fn(&[4099], |i| (v.data[i[0]] * (60.0 + 60.0 * scale.data[i[0]]).exp2()) as f32 as f64);
    for f in [Sin, Cos] {
        check_non_finite(&Unary(f), std::slice::from_ref(&x), &|x| vec![plain(f, &x[0])]);
    }
}
