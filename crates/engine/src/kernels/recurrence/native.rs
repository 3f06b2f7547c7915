//! The CPU implementation: up to 64 neighbouring lines, in f64.

use lowrank_cpu::tasks::{Shared, each_row};

use super::Scalars;
use crate::kernel::native::NativeLaunch;

/// Neighbouring lines that a task computes together.
const WIDTH: usize = 64;

pub fn recurrence(l: &NativeLaunch) {
    match l.params[0] {
        0 => run_lines(l, 1.0, |c, a, _| (*c * a, *c * a)),
        1 => run_lines(l, 1.0, |c, a, _| (*c, *c * a)),
        _ => run_lines(l, 0.0, |c, a, b| (*c + b, a * (*c + b))),
    }
}

/// `step_of` returns y and the next c of a line.
fn run_lines(l: &NativeLaunch, start: f64, step_of: impl Fn(&f64, f64, f64) -> (f64, f64) + Sync) {
    let Scalars { rows, n, inner, outer_step, step, first } = l.scalars();
    let (a, b) = (l.read::<f32>(0), l.read::<f32>(1));
    let y = Shared::new(l.write::<f32>(2));
    let carry = Shared::new(l.write::<f32>(3));
    let pieces = inner.div_ceil(WIDTH);
    each_row(rows * pieces, 16 * 1024 / (n * WIDTH.min(inner)), |task| {
        let (row, from) = (task / pieces, task % pieces * WIDTH);
        let width = WIDTH.min(inner - from);
        // SAFETY: each line belongs to one task.
        let carry = unsafe { carry.slice(row * step + from, width) };
        let mut c = [start; WIDTH];
        if !first {
            c.iter_mut().zip(carry.iter()).for_each(|(c, carried)| *c = *carried as f64);
        }
        for k in 0..n {
            let at = row * outer_step + k * step + from;
            // SAFETY: each line belongs to one task.
            let y = unsafe { y.slice(at, width) };
            for (((y, a), b), c) in y.iter_mut().zip(&a[at..]).zip(&b[at..]).zip(&mut c) {
                let (value, next) = step_of(c, *a as f64, *b as f64);
                *y = value as f32;
                *c = next;
            }
        }
        carry.iter_mut().zip(c).for_each(|(carried, c)| *carried = c as f32);
    });
}
