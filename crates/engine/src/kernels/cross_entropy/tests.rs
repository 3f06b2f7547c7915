//! Compares every variant on the GPU with the CPU, which the operations' tests compare with the reference.

use super::{IN_PLACE, KERNELS, Labels, append_row_losses_in_place};
use crate::dtype::DType;
use crate::kernel::coverage::{self, every_variant};
use crate::kernel::shader::rows::RowConfig;
use crate::ops::checks::{Array, compare_on_gpus, gpu_contexts, read, run_with_gradients};
use crate::ops::cross_entropy::{CrossEntropy, Reduction};

/// Whether the device can run a variant: one with subgroups needs a device that has them.
fn is_supported((_, variant): &coverage::NamedVariant) -> bool {
    let wide = gpu_contexts().first().is_some_and(|gpu| gpu.profile.subgroup as usize >= 1);
    wide || !RowConfig::from_param(variant.params[0]).subgroups
}

every_variant! {
    KERNELS, if is_supported;
    fn every_variant_equals_the_cpu() {
        for n in [700, 701] {
            let x = Array::random("x", &[7, n]).map(|v| 9.0 * v);
            let mut targets = Array::indices("targets", &[7], n);
            targets.data[1] = -100.0;
            for (reduction, label_smoothing) in
                [(Reduction::Mean, 0.0), (Reduction::Sum, 0.1), (Reduction::None, 0.1)]
            {
                let op = CrossEntropy { reduction, label_smoothing, ..Default::default() };
                compare_on_gpus(&format!("{op:?} of {n}"), |cx| {
                    run_with_gradients(cx, &op, &[x.clone(), targets.clone()])
                });
            }
            // Rows with a gap after them, with and without vectors; one has a target that is not a column.
            targets.data[4] = n as f64;
            for stride in [n, n + 3, n + 4] {
                let x = Array::random("x", &[7, stride]).map(|v| 9.0 * v);
                compare_on_gpus(&format!("{IN_PLACE:?}, {n} of {stride}"), |cx| {
                    let (x, targets) = (x.upload(cx), targets.upload(cx));
                    let loss = cx.empty([7], DType::F32).unwrap();
                    let labels = Labels { targets: &targets, ignore: -100, smoothing: 0.1 };
                    append_row_losses_in_place(cx, &x, n, labels, &loss).unwrap();
                    vec![read(&x), read(&loss)]
                });
            }
        }
    }
}
