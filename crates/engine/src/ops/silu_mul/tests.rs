use super::{SiluMul, reference::compute_reference};
use crate::error::Code;
use crate::op::{Backward, Op, run1};
use crate::ops::checks::{Array, TOLERANCE, check, check_non_finite, compare, contexts, read};

#[test]
fn equals_the_reference() {
    for shape in [vec![1], vec![63], vec![64], vec![65, 3], vec![257, 65], vec![2, 3, 130]] {
        let x = [Array::random("gate", &shape).map(|v| v * 6.0), Array::random("up", &shape)];
        check(&SiluMul, &x, &compute_reference);
    }
}

#[test]
fn non_finite_values_equal_the_reference() {
    let special = [f64::NAN, f64::INFINITY, 0.0, 1.5, -3.0];
    let gate = Array::from_fn(&[5, 5], |i| special[i[0]]);
    let up = Array::from_fn(&[5, 5], |i| special[i[1]]);
    check_non_finite(&SiluMul, &[gate, up], &compute_reference);
}

/// Both gradients at once, in place if nothing else reads d, equal the gradients computed separately.
#[test]
fn fused_gradients_equal_separate_gradients() {
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, 1.5, -3.0, 90.0];
    let draw_ordinary = |name: &str, n: usize| Array::random(name, &[n]).map(|v| v * 6.0);
    let draw_special = |step: usize| Array::from_fn(&[7, 7, 7], |i| special[i[step]]);
    let mut cases = vec![[draw_special(0), draw_special(1), draw_special(2)]];
    cases.extend([1, 63, 64, 65, 257, 2100].map(|n| ["gate", "up", "d"].map(|name| draw_ordinary(name, n))));
    for cx in contexts() {
        for case in &cases {
            let [gate, up] = [0, 1].map(|i| case[i].upload(&cx));
            let backward = |needs: &[bool], d| {
                let pass = Backward::after(&SiluMul, &[gate.clone(), up.clone()], &[], needs, vec![Some(d)]);
                SiluMul.backward(&cx, &pass).unwrap()
            };
            let shared_d = case[2].upload(&cx);
            let separate =
                [backward(&[true, false], shared_d.clone()), backward(&[false, true], shared_d.clone())];
            let separate = [0, 1].map(|i| read(separate[i][i].as_ref().unwrap()));
            let copied = backward(&[true, true], shared_d.clone());
            let d = case[2].upload(&cx);
            let d_range = d.range();
            let in_place = backward(&[true, true], d);
            assert_eq!(in_place[0].as_ref().unwrap().range(), d_range);
            for (i, expected) in separate.iter().enumerate() {
                for fused in [&copied, &in_place].map(|d| read(d[i].as_ref().unwrap())) {
                    compare(&format!("{}: gradient {i}", cx.profile.label), &fused, expected, TOLERANCE);
                }
            }
            compare("a shared d", &read(&shared_d), &case[2], 1e-7);
        }
    }
}

#[test]
fn different_shapes_are_refused() {
    let cx = &contexts()[0];
    let [gate, up] = [[2, 3], [3, 2]].map(|s| Array::random("x", &s).upload(cx));
    let error = run1(cx, &SiluMul, &[&gate, &up]).unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (Code::ShapeMismatch, "silu_mul: gate [2, 3] and up [3, 2] differ")
    );
}
