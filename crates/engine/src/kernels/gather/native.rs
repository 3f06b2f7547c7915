//! The CPU implementation: lines of the outer dimension in parallel.

use lowrank_cpu::tasks::{GRAIN, Shared, each_row};

use super::Scalars;
use crate::dtype::DType;
use crate::kernel::native::NativeLaunch;
use half::{bf16, f16};

impl Scalars {
    /// Rows of `inner` elements per task.
    fn grain(&self) -> usize {
        (GRAIN / self.inner).max(1)
    }
}

pub fn gather(l: &NativeLaunch) {
    match l.dtype(0) {
        DType::F32 => pick(l, f32::NAN, |v: f32| v),
        DType::F16 => pick(l, f32::NAN, f16::to_f32),
        DType::BF16 => pick(l, f32::NAN, bf16::to_f32),
        DType::I32 => pick(l, 0, |v: i32| v),
        DType::Block(_) => unreachable!("validated by the operation"),
    }
}

fn pick<T: bytemuck::Pod + Sync, Y: bytemuck::Pod + Send + Sync>(
    l: &NativeLaunch,
    missing: Y,
    convert: impl Fn(T) -> Y + Sync,
) {
    let w: Scalars = l.scalars();
    let (x, index) = (l.read::<T>(0), l.read::<i32>(1));
    let y = Shared::new(l.write::<Y>(2));
    each_row(w.outer * w.picks, w.grain(), |row| {
        let o = row / w.picks;
        let at = o * w.outer_step + row % w.picks * w.pick_step;
        // SAFETY: each row belongs to one task.
        let y = unsafe { y.slice(at, w.inner) };
        for (i, (y, index)) in y.iter_mut().zip(&index[at..]).enumerate() {
            // A negative index becomes a large one.
            let j = *index as u32 as usize;
            if j >= w.size {
                if w.first {
                    *y = missing;
                }
            } else if (w.start..w.start + w.count).contains(&j) {
                *y = convert(x[o * w.x_outer_step + (j - w.start) * w.x_step + i]);
            }
        }
    });
}

/// A task owns all locations of an outer index and a run of inner ones, so that it can add in the order of k.
pub fn backward(l: &NativeLaunch) {
    const WIDTH: usize = 256;
    let w: Scalars = l.scalars();
    let d_x = Shared::new(l.write::<f32>(0));
    let (index, d_y) = (l.read::<i32>(1), l.read::<f32>(2));
    let pieces = w.inner.div_ceil(WIDTH);
    each_row(w.outer * pieces, w.grain() / w.picks, |task| {
        let (o, first) = (task / pieces, task % pieces * WIDTH);
        for k in 0..w.picks {
            let at = o * w.outer_step + k * w.pick_step;
            for i in first..(first + WIDTH).min(w.inner) {
                let j = index[at + i] as u32 as usize;
                if j < w.size && (w.start..w.start + w.count).contains(&j) {
                    let place = o * w.x_outer_step + (j - w.start) * w.x_step + i;
                    // SAFETY: columns do not overlap between tasks.
                    let sum = unsafe { d_x.slice(place, 1) };
                    sum[0] += d_y[at + i];
                }
            }
        }
    });
}
