//! The CPU implementation: `memcpy` for rows, tiles for transpositions, single elements otherwise.

use lowrank_cpu::tasks::{GRAIN, Shared, each_row, each_task};

use super::{StridedBox, TILE};
use crate::kernel::native::NativeLaunch;

pub fn copy(l: &NativeLaunch) {
    match l.dtype(0).bytes() {
        4 => copy_rows::<u32>(l),
        _ => copy_rows::<u16>(l),
    }
}

impl StridedBox {
    /// Returns the offsets in x and y of combination `index` of the outermost `outer` dimensions.
    fn offsets(&self, index: usize, outer: usize) -> (usize, usize) {
        let (mut rest, mut x, mut y) = (index, 0, 0);
        for d in (0..outer).rev() {
            let k = rest % self.n[d];
            rest /= self.n[d];
            x += k * self.x[d];
            y += k * self.y[d];
        }
        (x, y)
    }
}

fn copy_rows<T: bytemuck::Pod + Send + Sync>(l: &NativeLaunch) {
    let (strided_box, dims): (StridedBox, _) = (l.scalars(), l.params[0] as usize);
    let x = l.read::<T>(0);
    let y = Shared::new(l.write::<T>(1));
    if l.params[1] == 1 {
        return transpose(&strided_box, dims, x, &y);
    }
    let inner = dims - 1;
    let (n, x_step, y_step) = (strided_box.n[inner], strided_box.x[inner], strided_box.y[inner]);
    let rows = strided_box.size / n;
    let pieces = n.div_ceil(GRAIN);
    let per_task = (GRAIN / n).max(1);
    each_task(l.threads, rows.div_ceil(per_task) * pieces, |task| {
        let (block, piece) = (task / pieces, task % pieces);
        let from = piece * GRAIN;
        let count = GRAIN.min(n - from);
        for row in block * per_task..((block + 1) * per_task).min(rows) {
            let (x_at, y_at) = strided_box.offsets(row, inner);
            let (x_at, y_at) = (x_at + from * x_step, y_at + from * y_step);
            if x_step == 1 && y_step == 1 {
                // SAFETY: each piece of a row belongs to one task.
                unsafe { y.slice(y_at, count) }.copy_from_slice(&x[x_at..x_at + count]);
            } else {
                for i in 0..count {
                    // SAFETY: each piece of a row belongs to one task, which has one element borrowed.
                    let out = unsafe { y.slice(y_at + i * y_step, 1) };
                    out[0] = x[x_at + i * x_step];
                }
            }
        }
    });
}

/// Copies a box with the last dimension contiguous in y and the one before it in x.
fn transpose<T: bytemuck::Pod + Send + Sync>(strided_box: &StridedBox, dims: usize, x: &[T], y: &Shared<T>) {
    let (a, b) = (dims - 2, dims - 1);
    let outer: usize = strided_box.n[..a].iter().product();
    let bands = strided_box.n[a].div_ceil(TILE);
    each_row(outer * bands, GRAIN / (TILE * strided_box.n[b]), |task| {
        let (x_at, y_at) = strided_box.offsets(task / bands, a);
        let a0 = task % bands * TILE;
        let high = TILE.min(strided_box.n[a] - a0);
        for b0 in (0..strided_box.n[b]).step_by(TILE) {
            let wide = TILE.min(strided_box.n[b] - b0);
            let mut tile = [[T::zeroed(); TILE]; TILE];
            for (k, row) in tile[..wide].iter_mut().enumerate() {
                let at = x_at + (b0 + k) * strided_box.x[b] + a0;
                row[..high].copy_from_slice(&x[at..at + high]);
            }
            for k in 0..high {
                let at = y_at + (a0 + k) * strided_box.y[a] + b0;
                // SAFETY: each tile belongs to one task.
                let out = unsafe { y.slice(at, wide) };
                for (v, row) in out.iter_mut().zip(&tile) {
                    *v = row[k];
                }
            }
        }
    });
}
