//! Compares every rule, on each device, with loops in f64.

use super::{KERNELS, Rule, recurrence};
use crate::dtype::DType;
use crate::kernel::coverage::every_variant;
use crate::ops::checks::{Array, TOLERANCE, compare, contexts, read};

fn compute_in_f64(rule: u32, a: &Array, b: &Array, [outer, n, inner]: [usize; 3]) -> Array {
    let mut y = a.clone();
    for line in 0..outer * inner {
        let mut c = if rule == 2 { 0.0 } else { 1.0 };
        for k in 0..n {
            let at = line / inner * n * inner + k * inner + line % inner;
            (y.data[at], c) = match rule {
                0 => (c * a.data[at], c * a.data[at]),
                1 => (c, c * a.data[at]),
                _ => (c + b.data[at], a.data[at] * (c + b.data[at])),
            };
        }
    }
    y
}

every_variant! {
    KERNELS;
    fn every_rule_equals_loops_in_f64() {
        for shape in [[1, 1, 1], [3, 300, 1], [2, 65, 3], [1, 63, 257], [2, 2000, 1]] {
            let [a, b] = ["a", "b"].map(|name| Array::random(name, &shape).map(|v| 1.0 + 0.2 * v));
            for cx in contexts() {
                let (a_there, b_there) = (a.upload(&cx), b.upload(&cx));
                for (i, rule) in [Rule::Product, Rule::Exclusive, Rule::Sum(&b_there)].into_iter().enumerate() {
                    let y = cx.empty(shape, DType::F32).unwrap();
                    recurrence(&cx, rule, &a_there, shape, &y).unwrap();
                    // A product of n factors is rounded n times.
                    let tolerance = TOLERANCE * (shape[1] as f64 / 50.0).max(1.0);
                    compare(&format!("{rule:?} {shape:?}"), &read(&y), &compute_in_f64(i as u32, &a, &b, shape), tolerance);
                }
            }
        }
    }
}
