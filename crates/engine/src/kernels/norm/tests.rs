//! Compares every variant on the GPU with the CPU, which the operations' tests compare with the reference.

use super::KERNELS;
use crate::dtype::DType;
use crate::kernel::coverage::{self, every_variant};
use crate::kernel::shader::rows::RowConfig;
use crate::op::Op;
use crate::ops::added_norm::AddedNorm;
use crate::ops::checks::{Array, compare_on_gpus, gpu_contexts, run_with_gradients};
use crate::ops::layer_norm::LayerNorm;
use crate::ops::rms_norm::RmsNorm;

const RMS: RmsNorm = RmsNorm { eps: 1e-5 };

fn make_layer_norm(weight: bool, bias: bool) -> LayerNorm {
    LayerNorm { eps: 1e-5, weight, bias }
}

/// Compares `op` on `xs` operands with rows of n and `weights` operands stored in `dtype`.
fn compare_norm(op: &dyn Op, n: usize, [xs, weights]: [usize; 2], dtype: DType) {
    let xs = ["x", "r"].iter().take(xs).map(|name| Array::random(name, &[5, n]).map(|v| v + 0.2));
    let weights =
        ["w", "b"].iter().take(weights).map(|name| Array::random(name, &[n]).map(|v| v + 1.5).stored(dtype));
    let inputs: Vec<Array> = xs.chain(weights).collect();
    compare_on_gpus(&format!("{op:?} of {n}, {dtype:?}"), |cx| run_with_gradients(cx, op, &inputs));
}

/// Whether the device can run a variant: one with subgroups needs a device that has them.
fn is_supported((_, variant): &coverage::NamedVariant) -> bool {
    let wide = gpu_contexts().first().is_some_and(|gpu| gpu.profile.subgroup as usize >= 1);
    wide || !RowConfig::from_param(variant.params[0]).subgroups
}

every_variant! {
    KERNELS, if is_supported;
    fn every_variant_equals_the_cpu() {
        let stored = [(700, DType::F32), (701, DType::F32), (700, DType::F16), (701, DType::BF16)];
        for (n, dtype) in stored {
            compare_norm(&RMS, n, [1, 1], dtype);
            compare_norm(&make_layer_norm(true, true), n, [1, 2], dtype);
            compare_norm(&AddedNorm(RMS), n, [2, 1], dtype);
            compare_norm(&AddedNorm(make_layer_norm(true, true)), n, [2, 2], dtype);
        }
        for n in [4, 5, 700] {
            compare_norm(&RMS, n, [1, 0], DType::F32);
            for (weight, bias) in [(false, false), (true, false), (false, true)] {
                compare_norm(&make_layer_norm(weight, bias), n, [1, weight as usize + bias as usize], DType::F32);
            }
        }
    }
}
