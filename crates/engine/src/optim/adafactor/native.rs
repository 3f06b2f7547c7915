//! The CPU twin.

use crate::kernel::native::{GRAIN, NativeLaunch, each_chunk};

pub fn commit(l: &NativeLaunch) {
    let &[_, stop, ..] = l.read::<f32>(1) else { unreachable!("four values") };
    if stop > 0.0 {
        return;
    }
    let new = l.read::<f32>(0);
    each_chunk(l.write::<f32>(2), GRAIN, |at, value| value.copy_from_slice(&new[at..at + value.len()]));
}
