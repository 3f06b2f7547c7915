//! The CPU implementation: rows of [H, D] in parallel chunks; a position's table row serves all heads.

use lowrank_cpu::simd::vectorised;
use lowrank_cpu::tasks::{GRAIN, Shared, each_row};

use super::{INVERSE, POSITIONS, Rotary, RotaryTwo};
use crate::kernel::native::NativeLaunch;

/// A tensor of a launch: [heads, batch stride, position stride], x and y.
type Tensor<'a> = ([usize; 3], &'a [f32], Shared<f32>);

pub fn rotary(l: &NativeLaunch) {
    let s: Rotary = l.scalars();
    rotate_rows(l, &s, &[bind_first(l, &s)]);
}

pub fn rotary_two(l: &NativeLaunch) {
    let RotaryTwo { one, heads2, x2_batch, x2_row } = l.scalars();
    let second = ([heads2, x2_batch, x2_row], l.read::<f32>(5), Shared::new(l.write::<f32>(6)));
    rotate_rows(l, &one, &[bind_first(l, &one), second]);
}

fn bind_first<'a>(l: &'a NativeLaunch, s: &Rotary) -> Tensor<'a> {
    ([s.heads, s.x_batch, s.x_row], l.read::<f32>(0), Shared::new(l.write::<f32>(4)))
}

fn rotate_rows(l: &NativeLaunch, s: &Rotary, tensors: &[Tensor]) {
    let Rotary { batch, time, dim, half, width, rows, position_batch, .. } = *s;
    let (cos, sin, positions) = (l.read::<f32>(1), l.read::<f32>(2), l.read::<i32>(3));
    let elements: usize = tensors.iter().map(|([heads, ..], ..)| heads * dim).sum();
    let per_task = (GRAIN / elements).max(1);
    each_row(batch * time, per_task, |row| {
        let (b, t) = (row / time, row % time);
        let position = match l.params[0] & POSITIONS {
            0 => Some(t),
            _ => usize::try_from(positions[b * position_batch + t]).ok().filter(|p| *p < rows),
        };
        for ([heads, to_batch, to_row], x, y) in tensors {
            let at = b * to_batch + t * to_row;
            // SAFETY: each (b, t) belongs to one task.
            let (x, y) = (&x[at..at + heads * dim], unsafe { y.slice(at, heads * dim) });
            let Some(position) = position else {
                for (x, y) in x.chunks_exact(dim).zip(y.chunks_exact_mut(dim)) {
                    y[..2 * half].fill(f32::NAN);
                    y[2 * half..].copy_from_slice(&x[2 * half..]);
                }
                continue;
            };
            let tables = [cos, sin].map(|table| {
                let row = &table[position * width..(position + 1) * width];
                [&row[..half], &row[width - half..]]
            });
            rotate_row(x, y, dim, tables, l.params[0] & INVERSE != 0);
        }
    });
}

vectorised! {
    fn rotate_row(x: &[f32], y: &mut [f32], dim: usize, tables: [[&[f32]; 2]; 2], inverse: bool) -> () {
        let [[c0, c1], [s0, s1]] = tables;
        let half = c0.len();
        for (x, y) in x.chunks_exact(dim).zip(y.chunks_exact_mut(dim)) {
            let (x, kept) = x.split_at(2 * half);
            let (y, copied) = y.split_at_mut(2 * half);
            copied.copy_from_slice(kept);
            let (x0, x1) = x.split_at(half);
            let (y0, y1) = y.split_at_mut(half);
            if inverse {
                rotate_half::<S>([x0, x1, c0, s1], 1.0, y0);
                rotate_half::<S>([x1, x0, c1, s0], -1.0, y1);
            } else {
                rotate_half::<S>([x0, x1, c0, s0], -1.0, y0);
                rotate_half::<S>([x1, x0, c1, s1], 1.0, y1);
            }
        }
    }
}

/// y = a · c + sign · b · s.
#[inline(always)]
fn rotate_half<S: lowrank_cpu::simd::Fma>([a, b, c, s]: [&[f32]; 4], sign: f32, y: &mut [f32]) {
    for ((y, (a, b)), (c, s)) in y.iter_mut().zip(a.iter().zip(b)).zip(c.iter().zip(s)) {
        *y = S::fma(sign * b, *s, a * c);
    }
}
