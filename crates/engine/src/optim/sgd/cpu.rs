//! The native twins.

use rayon::prelude::*;

use crate::device::cpu::CpuLaunch;

/// Elements that one task takes.
const GRAIN: usize = 16 * 1024;

pub fn sgd(l: &CpuLaunch) {
    let &[factor, stop, ..] = l.read::<f32>(1) else { unreachable!("four values") };
    if stop > 0.0 {
        return;
    }
    let (lr, decay) = (l.f32(1), l.f32(2));
    let grad = l.read::<f32>(0);
    l.write::<f32>(2).par_chunks_mut(GRAIN).zip(grad.par_chunks(GRAIN)).for_each(|(p, g)| {
        for (p, g) in p.iter_mut().zip(g) {
            *p -= lr * (g * factor + decay * *p);
        }
    });
}

pub fn momentum(l: &CpuLaunch) {
    let &[factor, stop, late, _] = l.read::<f32>(1) else { unreachable!("four values") };
    if stop > 0.0 {
        return;
    }
    let [lr, decay, momentum, mut rate] = std::array::from_fn(|i| l.f32(1 + i));
    if late > 0.0 && l.f32(6) - late <= 1.0 {
        rate = 1.0;
    }
    let nesterov = l.u32(5) == 1;
    let grad = l.read::<f32>(0);
    let (value, buffer) = (l.write::<f32>(2), l.write::<f32>(3));
    let buffers = buffer.par_chunks_mut(GRAIN);
    value.par_chunks_mut(GRAIN).zip(grad.par_chunks(GRAIN)).zip(buffers).for_each(|((p, g), b)| {
        for ((p, g), b) in p.iter_mut().zip(g).zip(b) {
            let d = g * factor + decay * *p;
            *b = momentum * *b + rate * d;
            *p -= lr * if nesterov { d + momentum * *b } else { *b };
        }
    });
}
