//! The CPU implementation: up to 64 neighbouring columns, in f64.

use lowrank_cpu::tasks::{Shared, each_row};

use super::Scalars;
use crate::kernel::native::NativeLaunch;

/// Neighbouring columns that a task sums together.
const WIDTH: usize = 64;

pub fn scan(l: &NativeLaunch) {
    let Scalars { rows, n, inner, outer_step, step, first } = l.scalars();
    let x = l.read::<f32>(0);
    let y = Shared::new(l.write::<f32>(1));
    let carry = Shared::new(l.write::<f32>(2));
    let pieces = inner.div_ceil(WIDTH);
    each_row(rows * pieces, 16 * 1024 / (n * WIDTH.min(inner)), |task| {
        let (row, from) = (task / pieces, task % pieces * WIDTH);
        let width = WIDTH.min(inner - from);
        // SAFETY: each column belongs to one task.
        let carry = unsafe { carry.slice(row * step + from, width) };
        let mut sums = [0f64; WIDTH];
        if !first {
            sums.iter_mut().zip(carry.iter()).for_each(|(s, c)| *s = *c as f64);
        }
        for k in 0..n {
            let at = row * outer_step + k * step + from;
            // SAFETY: each column belongs to one task.
            let y = unsafe { y.slice(at, width) };
            for ((y, x), s) in y.iter_mut().zip(&x[at..]).zip(&mut sums) {
                *s += *x as f64;
                *y = *s as f32;
            }
        }
        carry.iter_mut().zip(sums).for_each(|(c, s)| *c = s as f32);
    });
}
