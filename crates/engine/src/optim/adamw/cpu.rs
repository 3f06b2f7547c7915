//! The native twin: chunks in parallel, in loops that vectorise.

use rayon::prelude::*;

use crate::device::cpu::CpuLaunch;

/// Elements that one task takes.
const GRAIN: usize = 16 * 1024;

pub fn adamw(l: &CpuLaunch) {
    let &[factor, undone] = l.read::<f32>(1) else { unreachable!("two values") };
    if undone > 0.0 {
        return;
    }
    let [keep, rate1, beta2, rate2, root, eps, step] = std::array::from_fn(|i| l.f32(1 + i));
    let grad = l.read::<f32>(0);
    let (value, m, v) = (l.write::<f32>(2), l.write::<f32>(3), l.write::<f32>(4));
    let moments = m.par_chunks_mut(GRAIN).zip(v.par_chunks_mut(GRAIN));
    value.par_chunks_mut(GRAIN).zip(grad.par_chunks(GRAIN)).zip(moments).for_each(|((p, g), (m, v))| {
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * factor;
            *m += rate1 * (g - *m);
            *v = beta2 * *v + rate2 * g * g;
            *p = keep * *p - step * (*m / (v.sqrt() / root + eps));
        }
    });
}
