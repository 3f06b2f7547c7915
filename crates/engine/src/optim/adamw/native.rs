//! The CPU implementation: chunks in parallel, in loops that vectorise.

use lowrank_cpu::simd::vectorised;
use lowrank_cpu::tasks::{GRAIN, Shared, each_chunk};

use super::Scalars;
use crate::kernel::native::NativeLaunch;

/// The effect of weight decay on an element's gradient g, after clipping.
pub trait Decay {
    fn gradient(g: f32, p: f32, decay: f32) -> f32;
}

/// AdamW's: the gradient stays unchanged.
pub struct Decoupled;

impl Decay for Decoupled {
    #[inline(always)]
    fn gradient(g: f32, _: f32, _: f32) -> f32 {
        g
    }
}

/// Adam's.
pub struct InGradient;

impl Decay for InGradient {
    #[inline(always)]
    fn gradient(g: f32, p: f32, decay: f32) -> f32 {
        g + decay * p
    }
}

pub fn adam<D: Decay>(l: &NativeLaunch) {
    let &[factor, stop, late, _] = l.read::<f32>(1) else { unreachable!("four values") };
    if stop > 0.0 {
        return;
    }
    let Scalars { keep, rate1, beta2, rate2, mut root, eps, mut step, count, log1, log2, lr, decay, .. } =
        l.scalars();
    if late > 0.0 {
        let [count, log1, log2, lr] = [count, log1, log2, lr].map(f64::from);
        let t = (count - late as f64).max(1.0);
        let correction = |log: f64| -(t * log).exp_m1();
        root = correction(log2).sqrt() as f32;
        step = (lr / correction(log1)) as f32;
    }
    let grad = l.read::<f32>(0);
    let (value, m, v) = (l.write::<f32>(2), l.write::<f32>(3), l.write::<f32>(4));
    let (m, v) = (Shared::new(m), Shared::new(v));
    let rule = Rule { factor, keep, rate1, beta2, rate2, root, eps, step, decay };
    each_chunk(value, GRAIN, |at, p| {
        // SAFETY: no two chunks overlap.
        let moments = unsafe { [m.slice(at, p.len()), v.slice(at, p.len())] };
        update::<D>(rule, &grad[at..at + p.len()], p, moments);
    });
}

#[derive(Clone, Copy)]
struct Rule {
    factor: f32,
    keep: f32,
    rate1: f32,
    beta2: f32,
    rate2: f32,
    root: f32,
    eps: f32,
    step: f32,
    decay: f32,
}

vectorised! {
    /// Without a fused product, so that every instruction set gives the same bits.
    fn update[D: Decay](rule: Rule, g: &[f32], p: &mut [f32], moments: [&mut [f32]; 2]) {
        let Rule { factor, keep, rate1, beta2, rate2, root, eps, step, decay } = rule;
        let [m, v] = moments;
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = D::gradient(g * factor, *p, decay);
            *m += rate1 * (g - *m);
            *v = beta2 * *v + rate2 * g * g;
            *p = keep * *p - step * (*m / (v.sqrt() / root + eps));
        }
    }
}
