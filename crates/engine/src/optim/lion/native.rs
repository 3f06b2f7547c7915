//! The CPU implementation: chunks in parallel, in loops that vectorise.

use lowrank_cpu::simd::vectorised;
use lowrank_cpu::tasks::{GRAIN, Shared, each_chunk};

use super::Scalars;
use crate::kernel::native::NativeLaunch;

pub fn lion(l: &NativeLaunch) {
    let &[factor, stop, ..] = l.read::<f32>(1) else { unreachable!("four values") };
    if stop > 0.0 {
        return;
    }
    let rule = l.scalars::<Scalars>();
    let grad = l.read::<f32>(0);
    let (value, m) = (l.write::<f32>(2), Shared::new(l.write::<f32>(3)));
    each_chunk(value, GRAIN, |at, p| {
        // SAFETY: no two chunks overlap.
        let m = unsafe { m.slice(at, p.len()) };
        update(&rule, factor, &grad[at..at + p.len()], p, m);
    });
}

vectorised! {
    /// Without a fused product, so that every instruction set gives the same bits.
    fn update(rule: &Scalars, factor: f32, g: &[f32], p: &mut [f32], m: &mut [f32]) {
        let &Scalars { keep, lr, beta1, rate1, beta2, rate2, .. } = rule;
        for ((p, g), m) in p.iter_mut().zip(g).zip(m) {
            let g = g * factor;
            let c = beta1 * *m + rate1 * g;
            let sign = (c > 0.0) as u32 as f32 - (c < 0.0) as u32 as f32;
            *p = keep * *p - lr * sign;
            *m = beta2 * *m + rate2 * g;
        }
    }
}
