//! Compares every variant on the GPU with the CPU, which the operation's tests compare with the reference.

use super::KERNELS;
use crate::kernel::coverage::{self, every_variant};
use crate::kernel::shader::rows::RowConfig;
use crate::ops::checks::{Array, compare_on_gpus, gpu_contexts, run_with_gradients};
use crate::ops::softmax::Softmax;

/// Whether the device can run a variant: one with subgroups needs a device that has them.
fn is_supported((_, variant): &coverage::NamedVariant) -> bool {
    let wide = gpu_contexts().first().is_some_and(|gpu| gpu.profile.subgroup as usize >= 1);
    wide || variant.params[0] == 1 || !RowConfig::from_param(variant.params[1]).subgroups
}

every_variant! {
    KERNELS, if is_supported;
    fn every_variant_equals_the_cpu() {
        for shape in [[3, 700, 1], [3, 701, 1], [2, 65, 3]] {
            for op in [Softmax::new(1), Softmax::log(1)] {
                let mut x = Array::random("x", &shape).map(|v| 9.0 * v);
                // A row with a −∞, and one with a NaN.
                x.data[5] = f64::NEG_INFINITY;
                *x.data.last_mut().unwrap() = f64::NAN;
                compare_on_gpus(&format!("{op:?} {shape:?}"), |cx| run_with_gradients(cx, &op, &[x.clone()]));
            }
        }
    }
}
