//! The CPU implementation: whole rows of `inner` elements.

use lowrank_cpu::tasks::{GRAIN, Shared, each_row};

use super::{Mode, Scalars};
use crate::kernel::native::NativeLaunch;

struct Edges {
    mode: Mode,
    n: usize,
    inner: usize,
    before: usize,
    after: usize,
}

impl Edges {
    fn from_launch(l: &NativeLaunch) -> Edges {
        let mode = [Mode::Reflect, Mode::Replicate, Mode::Circular][l.params[0] as usize];
        let Scalars { n, inner, before, after, .. } = l.scalars();
        Edges { mode, n, inner, before, after }
    }

    fn total(&self) -> usize {
        self.before + self.n + self.after
    }

    /// The source row of row `j` of the padded tensor.
    fn find_source(&self, j: usize) -> usize {
        let (k, n) = (j as isize - self.before as isize, self.n as isize);
        let k = match self.mode {
            Mode::Reflect if k < 0 => -k,
            Mode::Reflect if k >= n => 2 * (n - 1) - k,
            Mode::Circular => k.rem_euclid(n),
            _ => k.clamp(0, n - 1),
        };
        k as usize
    }
}

pub fn pad(l: &NativeLaunch) {
    let e = Edges::from_launch(l);
    let (x, y) = (l.read::<f32>(0), l.write::<f32>(1));
    let grain = (GRAIN / e.inner).max(1);
    let (rows, y) = (y.len() / e.inner, Shared::new(y));
    each_row(rows, grain, |row| {
        // SAFETY: each row belongs to one task.
        let y = unsafe { y.slice(row * e.inner, e.inner) };
        let at = (row / e.total() * e.n + e.find_source(row % e.total())) * e.inner;
        y.copy_from_slice(&x[at..][..e.inner]);
    });
}

pub fn backward(l: &NativeLaunch) {
    let e = Edges::from_launch(l);
    let (d, d_x) = (l.read::<f32>(0), l.write::<f32>(1));
    let (block, padded) = (e.n * e.inner, e.total() * e.inner);
    let grain = (GRAIN / block).max(1);
    let (rows, d_x) = (d_x.len() / block, Shared::new(d_x));
    each_row(rows, grain, |row| {
        // SAFETY: each block belongs to one task.
        let (d, d_x) = (&d[row * padded..][..padded], unsafe { d_x.slice(row * block, block) });
        d_x.copy_from_slice(&d[e.before * e.inner..][..block]);
        for j in (0..e.before).chain(e.before + e.n..e.total()) {
            let to = &mut d_x[e.find_source(j) * e.inner..][..e.inner];
            for (to, d) in to.iter_mut().zip(&d[j * e.inner..]) {
                *to += d;
            }
        }
    });
}
