//! The CPU implementations.

use lowrank_cpu::tasks::{GRAIN, Shared, each_chunk};

use super::{Momentum, Plain};
use crate::kernel::native::NativeLaunch;

pub fn sgd(l: &NativeLaunch) {
    let &[factor, stop, ..] = l.read::<f32>(1) else { unreachable!("four values") };
    if stop > 0.0 {
        return;
    }
    let Plain { lr, decay, .. } = l.scalars();
    let grad = l.read::<f32>(0);
    each_chunk(l.write::<f32>(2), GRAIN, |at, p| {
        for (p, g) in p.iter_mut().zip(&grad[at..]) {
            *p -= lr * (g * factor + decay * *p);
        }
    });
}

pub fn momentum(l: &NativeLaunch) {
    let &[factor, stop, late, _] = l.read::<f32>(1) else { unreachable!("four values") };
    if stop > 0.0 {
        return;
    }
    let Momentum { plain: Plain { lr, decay, .. }, momentum, mut rate, nesterov, count } = l.scalars();
    if late > 0.0 && count - late <= 1.0 {
        rate = 1.0;
    }
    let grad = l.read::<f32>(0);
    let (value, buffer) = (l.write::<f32>(2), l.write::<f32>(3));
    let buffer = Shared::new(buffer);
    each_chunk(value, GRAIN, |at, p| {
        // SAFETY: no two chunks overlap.
        let b = unsafe { buffer.slice(at, p.len()) };
        for ((p, g), b) in p.iter_mut().zip(&grad[at..]).zip(b) {
            let d = g * factor + decay * *p;
            *b = momentum * *b + rate * d;
            *p -= lr * if nesterov { d + momentum * *b } else { *b };
        }
    });
}
