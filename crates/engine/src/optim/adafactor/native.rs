//! The CPU implementation.

use lowrank_cpu::tasks::{GRAIN, each_chunk};

use crate::kernel::native::NativeLaunch;

pub fn commit(l: &NativeLaunch) {
    let &[_, stop, ..] = l.read::<f32>(1) else { unreachable!("four values") };
    if stop > 0.0 {
        return;
    }
    let new = l.read::<f32>(0);
    each_chunk(l.write::<f32>(2), GRAIN, |at, value| value.copy_from_slice(&new[at..at + value.len()]));
}
