//! The reference: a loop over every element of every window.

use super::Window;
use crate::ops::checks::Array;

/// The range of a window in one dimension, [low, high), and its length with padding.
pub type Bounds = (usize, usize, usize);

pub fn list_bounds(window: &Window, d: usize, size: usize) -> Vec<Bounds> {
    let (kernel, stride, padding) = (window.kernel[d], window.stride[d], window.padding[d]);
    let padded = size + 2 * padding;
    let starts = (0..).map(|o| o * stride).take_while(|start| match window.ceil {
        false => start + kernel <= padded,
        // A partial last window, unless only the trailing padding is left.
        true => start + kernel < padded + stride && *start < size + padding,
    });
    let inside = |at: usize| at.saturating_sub(padding).min(size);
    starts
        .map(|start| {
            let end = (start + kernel).min(padded);
            (inside(start), inside(end), end - start)
        })
        .collect()
}

/// Computes y by `reduce` from each window's elements and its volume with padding.
pub fn pool(x: &Array, bounds: &[Vec<Bounds>], reduce: impl Fn(&[f64], usize) -> f64) -> Array {
    let first = x.shape.len() - bounds.len();
    let outs: Vec<usize> = bounds.iter().map(Vec::len).collect();
    Array::from_fn(&[&x.shape[..first], &outs].concat(), |o| {
        let mut offsets = vec![o[..first].iter().zip(&x.shape).fold(0, |at, (i, n)| at * n + i)];
        let mut volume = 1;
        for (d, bounds) in bounds.iter().enumerate() {
            let (low, high, length) = bounds[o[first + d]];
            let n = x.shape[first + d];
            offsets = offsets.iter().flat_map(|at| (low..high).map(move |i| at * n + i)).collect();
            volume *= length;
        }
        let values: Vec<f64> = offsets.iter().map(|at| x.data[*at]).collect();
        reduce(&values, volume)
    })
}

/// Returns the bounds over the last dimensions of x.
pub fn list_all_bounds(window: &Window, x: &Array) -> Vec<Vec<Bounds>> {
    let first = x.shape.len() - window.kernel.len();
    (0..window.kernel.len()).map(|d| list_bounds(window, d, x.shape[first + d])).collect()
}

pub fn compute_reference(window: &Window, x: &Array) -> Array {
    let larger = |a: f64, b: &f64| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(*b) };
    pool(x, &list_all_bounds(window, x), |values, _| values.iter().fold(f64::NEG_INFINITY, larger))
}
