//! The CPU implementation: one line at a time, as words of key and position.

use lowrank_cpu::tasks::{Shared, each_range};

use super::Scalars;
use crate::dtype::DType;
use crate::kernel::native::NativeLaunch;

pub fn sort(l: &NativeLaunch) {
    match l.dtype(0) {
        DType::I32 => sort_lines(l, |v: i32| v as u32 ^ 0x8000_0000),
        _ => sort_lines(l, compute_key),
    }
}

/// A key that compares like the number; see the module's header.
fn compute_key(v: f32) -> u32 {
    let bits = v.to_bits();
    if v.is_nan() {
        u32::MAX
    } else if v == 0.0 {
        0x8000_0000
    } else if v < 0.0 {
        !bits
    } else {
        bits ^ 0x8000_0000
    }
}

fn sort_lines<T: bytemuck::Pod + Send + Sync>(l: &NativeLaunch, key: impl Fn(T) -> u32 + Sync) {
    let Scalars { outer, n, inner, count, descending, x_step, y_step, step } = l.scalars();
    let x = l.read::<T>(0);
    let values = Shared::new(l.write::<T>(1));
    let indices = Shared::new(l.write::<i32>(2));
    let complement = if descending { u32::MAX } else { 0 };
    each_range(outer * inner, 1024 / n, |lines| {
        let mut words = Vec::with_capacity(n);
        for line in lines {
            let (o, i) = (line / inner, line % inner);
            let at = |k: usize| x[o * x_step + k * step + i];
            words.clear();
            words.extend((0..n).map(|k| ((key(at(k)) ^ complement) as u64) << 32 | k as u64));
            if count < n {
                words.select_nth_unstable(count - 1);
                words.truncate(count);
            }
            words.sort_unstable();
            for (k, word) in words.iter().enumerate() {
                let (from, to) = (*word as u32, o * y_step + k * step + i);
                // SAFETY: each (o, i) with all its k belongs to one task.
                unsafe { values.slice(to, 1)[0] = at(from as usize) };
                // SAFETY: likewise.
                unsafe { indices.slice(to, 1)[0] = from as i32 };
            }
        }
    });
}
