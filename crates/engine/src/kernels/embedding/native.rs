//! The CPU implementation: rows in parallel.

use std::collections::HashMap;

use lowrank_cpu::quant::BlockType;
use lowrank_cpu::simd::level;
use lowrank_cpu::tasks::{GRAIN, Shared, each_row};

use super::{LinkScalars, LookUpScalars, ScatterScalars};
use crate::dtype::DType;
use crate::kernel::native::NativeLaunch;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

pub fn look_up(l: &NativeLaunch) {
    match l.dtype(0) {
        DType::F32 => look_up_rows(l, |x: &[f32], y| y.copy_from_slice(x), |v| v),
        DType::F16 => look_up_rows(l, |x: &[f16], y| x.convert_to_f32_slice(y), f16::to_f32),
        DType::BF16 => look_up_rows(l, |x: &[bf16], y| x.convert_to_f32_slice(y), bf16::to_f32),
        DType::Block(kind) => look_up_blocks(l, kind),
        DType::I32 => unreachable!("validated by the operation"),
    }
}

fn look_up_blocks(l: &NativeLaunch, kind: BlockType) {
    let (table, unpack) = (l.read::<u8>(0), kind.select_unpack(level()));
    let elements = kind.count_elements(table.len());
    let row = |at: usize, y: &mut [f32]| {
        assert!(at + y.len() <= elements, "take: the table ends early");
        // SAFETY: the processor has its level's instructions, and the table has that many elements.
        unsafe { unpack(table.as_ptr(), at, y.len(), y.as_mut_ptr()) };
    };
    for_each_row(l, row, |_, _| unreachable!("columns of blocks are not taken"));
}

fn look_up_rows<T: bytemuck::Pod + Sync>(
    l: &NativeLaunch,
    row: impl Fn(&[T], &mut [f32]) + Sync,
    convert: impl Fn(T) -> f32 + Sync,
) {
    let table = l.read::<T>(0);
    for_each_row(l, |at, y| row(&table[at..at + y.len()], y), |at, y| *y = convert(table[at]));
}

/// Calls `row` for contiguous elements from an offset of the table, `one` for single elements.
fn for_each_row(
    l: &NativeLaunch,
    row: impl Fn(usize, &mut [f32]) + Sync,
    one: impl Fn(usize, &mut f32) + Sync,
) {
    let ids = l.read::<i32>(1);
    let y = Shared::new(l.write::<f32>(2));
    let LookUpScalars { start, count, vocabulary, rows, columns, row_step, column_step, y_step, first } =
        l.scalars();
    each_row(rows, GRAIN / columns, |n| {
        // A negative index becomes a large one.
        let v = ids[n] as u32 as usize;
        // SAFETY: each row belongs to one task, which has one of these slices borrowed.
        let out = || unsafe { y.slice(n * y_step, columns) };
        if v >= vocabulary {
            if first {
                out().fill(f32::NAN);
            }
        } else if (start..start + count).contains(&v) {
            let at = (v - start) * row_step;
            if column_step == 1 {
                row(at, out());
            } else {
                for (c, y) in out().iter_mut().enumerate() {
                    one(at + c * column_step, y);
                }
            }
        }
    });
}

pub fn link_rows(l: &NativeLaunch) {
    let (ids, next, head) = (l.read::<i32>(0), l.write::<i32>(1), l.write::<i32>(2));
    let LinkScalars { vocabulary, padding, .. } = l.scalars();
    let mut last: HashMap<i32, usize> = HashMap::with_capacity(ids.len());
    next.fill(-1);
    head.fill(-1);
    for (n, id) in ids.iter().enumerate() {
        match last.insert(*id, n) {
            Some(before) => next[before] = n as i32,
            None if (*id as u32 as usize) < vocabulary && *id as u32 != padding => head[n] = *id,
            None => {}
        }
    }
}

pub fn scatter(l: &NativeLaunch) {
    let (next, head, d_y) = (l.read::<i32>(0), l.read::<i32>(1), l.read::<f32>(2));
    let d_table = Shared::new(l.write::<f32>(3));
    let ScatterScalars { start, count, rows, columns, row_step, column_step, d_step } = l.scalars();
    each_row(rows, GRAIN / columns, |n| {
        let Some(v) = (head[n] as usize).checked_sub(start).filter(|v| head[n] >= 0 && *v < count) else {
            return;
        };
        let at = v * row_step;
        let mut k = n as i32;
        while k >= 0 {
            let d = &d_y[k as usize * d_step..][..columns];
            // The head of a chain owns its row of the table.
            if column_step == 1 {
                // SAFETY: each row of the table has one head, which belongs to one task.
                let row = unsafe { d_table.slice(at, columns) };
                row.iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
            } else {
                for (c, d) in d.iter().enumerate() {
                    // SAFETY: as above.
                    let sum = unsafe { d_table.slice(at + c * column_step, 1) };
                    sum[0] += d;
                }
            }
            k = next[k as usize];
        }
    });
}
