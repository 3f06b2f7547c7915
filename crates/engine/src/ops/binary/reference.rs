//! The reference: a loop over the broadcast index space.

use crate::kernels::elementwise::Function;
use crate::ops::checks::Array;

pub fn compute_reference(function: Function, a: &Array, b: &Array) -> Array {
    let rank = a.shape.len().max(b.shape.len());
    let size_of = |x: &Array, d: usize| (d + x.shape.len()).checked_sub(rank).map_or(1, |i| x.shape[i]);
    let shape: Vec<usize> = (0..rank).map(|d| size_of(a, d).max(size_of(b, d))).collect();
    let at = |x: &Array, index: &[usize]| {
        let place = (0..rank).fold(0, |p, d| {
            let n = size_of(x, d);
            p * n + if n == 1 { 0 } else { index[d] }
        });
        x.data[place]
    };
    Array::from_fn(&shape, |index| {
        let (a, b) = (at(a, index), at(b, index));
        match function {
            Function::Add => a + b,
            Function::Sub => a - b,
            Function::Mul => a * b,
            Function::Div => a / b,
            Function::Pow => a.powf(b),
            Function::Maximum if a.is_nan() || b.is_nan() => f64::NAN,
            Function::Minimum if a.is_nan() || b.is_nan() => f64::NAN,
            Function::Maximum => a.max(b),
            Function::Minimum => a.min(b),
            Function::Eq => (a == b) as u32 as f64,
            Function::Lt => (a < b) as u32 as f64,
            Function::Gt => (a > b) as u32 as f64,
            Function::Ne => (a != b) as u32 as f64,
            Function::Le => (a <= b) as u32 as f64,
            Function::Ge => (a >= b) as u32 as f64,
            _ => unreachable!(),
        }
    })
}
