//! The native twin: chunks in parallel, in loops that vectorise.

use rayon::prelude::*;

use crate::device::cpu::CpuLaunch;

/// Elements that one task takes.
const GRAIN: usize = 16 * 1024;

pub fn adamw(l: &CpuLaunch) {
    let &[factor, stop, late, _] = l.read::<f32>(1) else { unreachable!("four values") };
    if stop > 0.0 {
        return;
    }
    let [keep, rate1, beta2, rate2, mut root, eps, mut step] = std::array::from_fn(|i| l.f32(1 + i));
    if late > 0.0 {
        let [count, log1, log2, lr] = std::array::from_fn(|i| l.f32(8 + i) as f64);
        let t = (count - late as f64).max(1.0);
        let correction = |log: f64| -(t * log).exp_m1();
        root = correction(log2).sqrt() as f32;
        step = (lr / correction(log1)) as f32;
    }
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
