//! The CPU implementation: `memcpy` for rows, tiles for transpositions, single elements otherwise.

use lowrank_cpu::tasks::{GRAIN, Shared, each_row, each_task};

use super::{TILE, Walk};
use crate::kernel::native::NativeLaunch;

pub fn copy(l: &NativeLaunch) {
    match l.dtype(0).bytes() {
        4 => walk::<u32>(l),
        _ => walk::<u16>(l),
    }
}

impl Walk {
    /// Returns the offsets in x and y of combination `index` of the outermost `outer` dimensions.
    fn start(&self, index: usize, outer: usize) -> (usize, usize) {
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

fn walk<T: bytemuck::Pod + Send + Sync>(l: &NativeLaunch) {
    let (walk, dims): (Walk, _) = (l.scalars(), l.params[0] as usize);
    let x = l.read::<T>(0);
    let y = Shared::new(l.write::<T>(1));
    if l.params[1] == 1 {
        return transpose(&walk, dims, x, &y);
    }
    let inner = dims - 1;
    let (n, x_step, y_step) = (walk.n[inner], walk.x[inner], walk.y[inner]);
    let rows = walk.size / n;
    let pieces = n.div_ceil(GRAIN);
    let per_task = (GRAIN / n).max(1);
    each_task(l.threads, rows.div_ceil(per_task) * pieces, |task| {
        let (block, piece) = (task / pieces, task % pieces);
        let from = piece * GRAIN;
        let count = GRAIN.min(n - from);
        for row in block * per_task..((block + 1) * per_task).min(rows) {
            let (x_at, y_at) = walk.start(row, inner);
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
fn transpose<T: bytemuck::Pod + Send + Sync>(walk: &Walk, dims: usize, x: &[T], y: &Shared<T>) {
    let (a, b) = (dims - 2, dims - 1);
    let outer: usize = walk.n[..a].iter().product();
    let bands = walk.n[a].div_ceil(TILE);
    each_row(outer * bands, GRAIN / (TILE * walk.n[b]), |task| {
        let (x_at, y_at) = walk.start(task / bands, a);
        let a0 = task % bands * TILE;
        let high = TILE.min(walk.n[a] - a0);
        for b0 in (0..walk.n[b]).step_by(TILE) {
            let wide = TILE.min(walk.n[b] - b0);
            let mut tile = [[T::zeroed(); TILE]; TILE];
            for (k, row) in tile[..wide].iter_mut().enumerate() {
                let at = x_at + (b0 + k) * walk.x[b] + a0;
                row[..high].copy_from_slice(&x[at..at + high]);
            }
            for k in 0..high {
                let at = y_at + (a0 + k) * walk.y[a] + b0;
                // SAFETY: each tile belongs to one task.
                let out = unsafe { y.slice(at, wide) };
                for (v, row) in out.iter_mut().zip(&tile) {
                    *v = row[k];
                }
            }
        }
    });
}
