//! The reference: one pair at a time.

use super::Rotary;
use crate::ops::checks::Array;

pub fn compute_reference(op: &Rotary, x: &Array, tables: &[Array]) -> Array {
    let dims = op.dims.unwrap_or(x.shape[3]);
    let (half, width) = (dims / 2, tables[0].shape[1]);
    Array::from_fn(&x.shape, |index| {
        let [b, t, h, d] = [0, 1, 2, 3].map(|i| index[i]);
        let at = |d: usize| x.data[((b * x.shape[1] + t) * x.shape[2] + h) * x.shape[3] + d];
        if d >= dims {
            return at(d);
        }
        let position = match op.positions {
            true => tables[2].data[b * x.shape[1] + t] as usize,
            false => op.offset + t,
        };
        let [cos, sin] = [0, 1].map(|k| tables[k].data[position * width + d % width]);
        if d < half { at(d) * cos - at(d + half) * sin } else { at(d) * cos + at(d - half) * sin }
    })
}
