//! Compares every variant on the GPU with the processor, which the operations' tests compare with the plain form.

use super::KERNELS;
use crate::dtype::DType;
use crate::kernel::coverage::{self, every_variant};
use crate::kernel::shader::rows::RowConfig;
use crate::op::Op;
use crate::ops::added_norm::AddedNorm;
use crate::ops::checks::{Array, equal_on_gpus, gpu_contexts, outputs_and_gradients};
use crate::ops::layer_norm::LayerNorm;
use crate::ops::rms_norm::RmsNorm;

const RMS: RmsNorm = RmsNorm { eps: 1e-5 };

fn layer(weight: bool, bias: bool) -> LayerNorm {
    LayerNorm { eps: 1e-5, weight, bias }
}

/// Compares `op` on `xs` operands with rows of n and `weights` operands stored in `dtype`.
fn equal(op: &dyn Op, n: usize, [xs, weights]: [usize; 2], dtype: DType) {
    let xs = ["x", "r"].iter().take(xs).map(|name| Array::random(name, &[5, n]).map(|v| v + 0.2));
    let weights =
        ["w", "b"].iter().take(weights).map(|name| Array::random(name, &[n]).map(|v| v + 1.5).stored(dtype));
    let inputs: Vec<Array> = xs.chain(weights).collect();
    equal_on_gpus(&format!("{op:?} of {n}, {dtype:?}"), |cx| outputs_and_gradients(cx, op, &inputs));
}

/// Whether the device can run a variant: one with subgroups needs a device that has them.
fn is_given((_, variant): &coverage::NamedVariant) -> bool {
    let wide = gpu_contexts().first().is_some_and(|gpu| gpu.profile.subgroup as usize >= 1);
    wide || !RowConfig::of(variant.params[0]).subgroups
}

every_variant! {
    KERNELS, if is_given;
    fn every_form_equals_the_processor() {
        let stored = [(700, DType::F32), (701, DType::F32), (700, DType::F16), (701, DType::BF16)];
        for (n, dtype) in stored {
            equal(&RMS, n, [1, 1], dtype);
            equal(&layer(true, true), n, [1, 2], dtype);
            equal(&AddedNorm(RMS), n, [2, 1], dtype);
            equal(&AddedNorm(layer(true, true)), n, [2, 2], dtype);
        }
        for n in [4, 5, 700] {
            equal(&RMS, n, [1, 0], DType::F32);
            for (weight, bias) in [(false, false), (true, false), (false, true)] {
                equal(&layer(weight, bias), n, [1, weight as usize + bias as usize], DType::F32);
            }
        }
    }
}
