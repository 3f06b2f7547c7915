//! The native twin: rows of the innermost dimension, in parallel chunks.

use std::borrow::Cow;

use rayon::prelude::*;

use super::function::Native;
use super::{DIMS, Function};
use crate::device::cpu::{CpuLaunch, Shared};
use crate::dtype::DType;

/// Elements that one task takes: large enough that starting it costs nothing.
const GRAIN: usize = 16 * 1024;

pub fn map<const N: usize>(l: &CpuLaunch) {
    let function = Function::ALL[l.params[0] as usize];
    let inputs: [Cow<[f32]>; N] = std::array::from_fn(|k| operand(l, k));
    if function.makes_indices() {
        walk(l, &inputs, l.write::<i32>(N), function.native(), |v| v as i32);
    } else {
        walk(l, &inputs, l.write::<f32>(N), function.native(), |v| v);
    }
}

fn operand<'a>(l: &'a CpuLaunch, k: usize) -> Cow<'a, [f32]> {
    match l.dtype(k) {
        DType::I32 => l.read::<i32>(k).iter().map(|v| *v as f32).collect(),
        _ => l.read_f32(k),
    }
}

fn walk<const N: usize, T: Send>(
    l: &CpuLaunch,
    inputs: &[Cow<[f32]>; N],
    y: &mut [T],
    native: Native,
    convert: impl Fn(f32) -> T + Sync,
) {
    let dims = l.params[1] as usize;
    let at = |base: usize, d: usize| l.scalars[base + d] as usize;
    let inner = at(1, dims - 1);
    let strides: [usize; N] = std::array::from_fn(|k| at(1 + DIMS * (2 + k), dims - 1));
    let size = l.u32(0);
    let rows = size / inner;
    // Where a row starts, in y and in each operand.
    let start = |row: usize| {
        let mut rest = row;
        let mut starts = [0usize; 4];
        for d in (0..dims - 1).rev() {
            let n = at(1, d);
            let i = rest % n;
            rest /= n;
            starts[0] += i * at(1 + DIMS, d);
            for k in 0..N {
                starts[1 + k] += i * at(1 + DIMS * (2 + k), d);
            }
        }
        starts
    };
    let y = Shared::new(y);
    let per_task = (GRAIN / inner.max(1)).max(1);
    let pieces = inner.div_ceil(GRAIN);
    (0..rows.div_ceil(per_task) * pieces).into_par_iter().for_each(|task| {
        let (block, piece) = (task / pieces, task % pieces);
        let (from, to) = (piece * GRAIN.min(inner), ((piece + 1) * GRAIN).min(inner));
        for row in block * per_task..((block + 1) * per_task).min(rows) {
            let starts = start(row);
            let out = unsafe { y.slice(starts[0] + from, to - from) };
            let at = |k: usize| &inputs[k][starts[1 + k] + from * strides[k]..];
            match native {
                Native::F1(f) => fill(out, &convert, |i| f(at(0)[i * strides[0]])),
                Native::F2(f) => {
                    let (a, b) = (at(0), at(1));
                    match (strides[0], strides[1]) {
                        (1, 1) => {
                            out.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y = convert(f(*a, *b)))
                        }
                        (1, 0) => out.iter_mut().zip(a).for_each(|(y, a)| *y = convert(f(*a, b[0]))),
                        (sa, sb) => fill(out, &convert, |i| f(a[i * sa], b[i * sb])),
                    }
                }
                Native::F3(f) => {
                    let (a, b, c) = (at(0), at(1), at(2));
                    fill(out, &convert, |i| f(a[i * strides[0]], b[i * strides[1]], c[i * strides[2]]));
                }
            }
        }
    });
}

fn fill<T>(out: &mut [T], convert: impl Fn(f32) -> T, f: impl Fn(usize) -> f32) {
    for (i, y) in out.iter_mut().enumerate() {
        *y = convert(f(i));
    }
}

pub fn accumulate(l: &CpuLaunch) {
    let x = l.read::<f32>(0);
    let y = l.write::<f32>(1);
    y.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).for_each(|(y, x)| {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
    });
}
