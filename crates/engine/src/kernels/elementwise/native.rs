//! The CPU implementation: rows of the innermost dimension, in parallel chunks.
//!
//! Each function has a loop over contiguous f32 operands. An operand that is broadcast, strided or of another dtype is
//! first copied in blocks, which fit L1.

use lowrank_cpu::tasks::{GRAIN, Shared, each_chunk, each_task};

use super::function::Loop;
use super::{Function, OperandStrides, OutputLayout};
use crate::dtype::DType;
use crate::kernel::native::NativeLaunch;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Elements in one copied block.
const BLOCK: usize = 512;

enum Operand<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    BF16(&'a [bf16]),
    I32(&'a [i32]),
}

impl Operand<'_> {
    fn from_launch<'a>(l: &'a NativeLaunch, k: usize) -> Operand<'a> {
        match l.dtype(k) {
            DType::F32 => Operand::F32(l.read(k)),
            DType::F16 => Operand::F16(l.read(k)),
            DType::BF16 => Operand::BF16(l.read(k)),
            DType::I32 => Operand::I32(l.read(k)),
            DType::Block(_) => unreachable!("validated by the operation"),
        }
    }

    /// Writes the elements from `at` on, with a stride of `stride`.
    fn copy_strided(&self, out: &mut [f32], at: usize, stride: usize) {
        let n = out.len();
        match (self, stride) {
            (Operand::F32(x), 0) => out.fill(x[at]),
            (Operand::F32(x), _) => gather(out, &x[at..], stride, |v| v),
            (Operand::F16(x), 1) => x[at..at + n].convert_to_f32_slice(out),
            (Operand::F16(x), _) => gather(out, &x[at..], stride, f16::to_f32),
            (Operand::BF16(x), _) => gather(out, &x[at..], stride, bf16::to_f32),
            (Operand::I32(x), _) => gather(out, &x[at..], stride, |v| v as f32),
        }
    }
}

fn gather<T: Copy>(out: &mut [f32], x: &[T], stride: usize, convert: impl Fn(T) -> f32) {
    match stride {
        1 => out.iter_mut().zip(x).for_each(|(y, x)| *y = convert(*x)),
        _ => out.iter_mut().enumerate().for_each(|(i, y)| *y = convert(x[i * stride])),
    }
}

pub fn map<const N: usize>(l: &NativeLaunch) {
    let function = Function::ALL[l.params[0] as usize];
    let operands: [Operand; N] = std::array::from_fn(|k| Operand::from_launch(l, k));
    if let (true, [Operand::I32(a), Operand::I32(b), ..]) = (l.params[3] == 1, &operands[..]) {
        return for_each_piece(l, &operands, l.write::<i32>(N), &|y, at| {
            let [(a_at, a_step), (b_at, b_step), ..] = at[..] else { unreachable!("two operands") };
            for (i, y) in y.iter_mut().enumerate() {
                *y = function.compare(a[a_at + i * a_step].cmp(&b[b_at + i * b_step])) as i32;
            }
        });
    }
    let run = function.native();
    if function.returns_i32() {
        // The loop gives f32, whose integers are converted to i32 block by block.
        for_each_piece(l, &operands, l.write::<i32>(N), &|y, at| {
            let mut block = [0f32; BLOCK];
            for (from, y) in (0..).step_by(BLOCK).zip(y.chunks_mut(BLOCK)) {
                let block = &mut block[..y.len()];
                apply(run, block, &operands, &at, from);
                y.iter_mut().zip(block).for_each(|(y, v)| *y = *v as i32);
            }
        });
    } else {
        for_each_piece(l, &operands, l.write::<f32>(N), &|y, at| apply(run, y, &operands, &at, 0));
    }
}

/// The offset of a piece of a row in each operand, and its stride there.
type PieceLayout<const N: usize> = [(usize, usize); N];

/// Calls `row` for every piece of a row of y.
fn for_each_piece<const N: usize, T: Send>(
    l: &NativeLaunch,
    _: &[Operand; N],
    y: &mut [T],
    row: &(dyn Fn(&mut [T], PieceLayout<N>) + Sync),
) {
    let dims = l.params[1] as usize;
    let (w, OperandStrides::<N>(strides)) = l.scalars::<(OutputLayout, OperandStrides<N>)>();
    let inner = w.d[dims - 1];
    let rows = w.size / inner;
    let y = Shared::new(y);
    let per_task = (GRAIN / inner).max(1);
    let pieces = inner.div_ceil(GRAIN);
    each_task(l.threads, rows.div_ceil(per_task) * pieces, |task| {
        let (block, piece) = (task / pieces, task % pieces);
        let (from, to) = (piece * GRAIN.min(inner), ((piece + 1) * GRAIN).min(inner));
        for r in block * per_task..((block + 1) * per_task).min(rows) {
            let mut rest = r;
            let mut y_start = from;
            let mut layouts: PieceLayout<N> = std::array::from_fn(|k| {
                let stride = strides[k][dims - 1];
                (from * stride, stride)
            });
            for d in (0..dims - 1).rev() {
                let n = w.d[d];
                let i = rest % n;
                rest /= n;
                y_start += i * w.y[d];
                for (k, layout) in layouts.iter_mut().enumerate() {
                    layout.0 += i * strides[k][d];
                }
            }
            // SAFETY: each row of the output belongs to one task.
            row(unsafe { y.slice(y_start, to - from) }, layouts);
        }
    });
}

/// Computes y = f(operands), starting `from` elements after their offsets.
fn apply<const N: usize>(
    run: Loop,
    y: &mut [f32],
    operands: &[Operand; N],
    layouts: &PieceLayout<N>,
    from: usize,
) {
    let n = y.len();
    let direct = |k: usize, from: usize, n: usize| match (&operands[k], layouts[k].1) {
        (Operand::F32(x), 1) => Some(&x[layouts[k].0 + from..][..n]),
        _ => None,
    };
    if (0..N).all(|k| direct(k, 0, 0).is_some()) {
        return run(y, std::array::from_fn(|k| direct(k.min(N - 1), from, n).expect("just seen")));
    }
    let mut buffers = [[0f32; BLOCK]; N];
    for (k, buffer) in buffers.iter_mut().enumerate() {
        // A broadcast operand is the same in every block.
        if layouts[k].1 == 0 {
            operands[k].copy_strided(&mut buffer[..BLOCK.min(n)], layouts[k].0, 0);
        }
    }
    for (start, y) in (0..).step_by(BLOCK).zip(y.chunks_mut(BLOCK)) {
        let m = y.len();
        for (k, buffer) in buffers.iter_mut().enumerate() {
            if layouts[k].1 != 0 && direct(k, 0, 0).is_none() {
                operands[k].copy_strided(
                    &mut buffer[..m],
                    layouts[k].0 + (from + start) * layouts[k].1,
                    layouts[k].1,
                );
            }
        }
        let select = |k: usize| direct(k, from + start, m).unwrap_or(&buffers[k][..m]);
        run(y, std::array::from_fn(|k| select(k.min(N - 1))));
    }
}

pub fn accumulate(l: &NativeLaunch) {
    let x = l.read::<f32>(0);
    let y = l.write::<f32>(1);
    each_chunk(y, GRAIN, |at, y| y.iter_mut().zip(&x[at..]).for_each(|(y, x)| *y += x));
}
