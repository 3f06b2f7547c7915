//! Compares every variant on the GPU with the CPU, which the operations' tests compare with the reference.

use super::{Config, Extreme, KERNELS, REDUCE, REDUCTIONS, arg_extremum, place_at_index, reduce};
use crate::dtype::DType;
use crate::kernel::coverage::{self, every_variant};
use crate::ops::checks::{Array, compare_on_gpus, gpu_contexts, read};

/// Whether the device can run a variant: one with subgroups needs a device that has them.
fn is_supported((name, variant): &coverage::NamedVariant) -> bool {
    let wide = gpu_contexts().first().is_some_and(|gpu| gpu.profile.subgroup as usize >= 1);
    wide || *name != REDUCE.name
        || !matches!(Config::from_params(variant.params), Config::Rows(_, config) if config.subgroups)
}

every_variant! {
    KERNELS, if is_supported;
    fn every_variant_equals_the_cpu() {
        // The last is split into chunks, with and without whole vectors.
        for [outer, n, inner] in [[3, 700, 1], [3, 701, 1], [2, 65, 3], [1, 40_002, 1]] {
            let shape = [outer, n, inner];
            let mut x = Array::random("x", &shape);
            for reduction in REDUCTIONS {
                compare_on_gpus(&format!("{reduction:?} {shape:?}"), |cx| {
                    let (x, y) = (x.upload(cx), cx.empty([outer, inner], DType::F32).unwrap());
                    reduce(cx, reduction, &x, shape, &y).unwrap();
                    vec![read(&y)]
                });
            }
            // A NaN in the first row, an infinity in the last.
            x.data[n * inner / 2] = f64::NAN;
            *x.data.last_mut().unwrap() = f64::INFINITY;
            let whole = Array::indices("x", &shape, 1 << 12);
            for (x, dtype) in [(&x, DType::F32), (&whole, DType::I32)] {
                for reduction in REDUCTIONS {
                    compare_on_gpus(&format!("{reduction:?} {shape:?} {dtype:?}"), |cx| {
                        let (x, y) = (x.upload(cx), cx.empty([outer, inner], dtype).unwrap());
                        reduce(cx, reduction, &x, shape, &y).unwrap();
                        vec![read(&y)]
                    });
                }
                for extreme in [Extreme::Max, Extreme::Min] {
                    compare_on_gpus(&format!("{extreme:?} {shape:?} {dtype:?}"), |cx| {
                        let (x, y) = (x.upload(cx), cx.empty([outer, inner], DType::I32).unwrap());
                        arg_extremum(cx, extreme, &x, shape, &y).unwrap();
                        let d = Array::random("d", &[outer, inner]).upload(cx);
                        let d_x = cx.empty(shape, DType::F32).unwrap();
                        place_at_index(cx, &y, &d, shape, &d_x).unwrap();
                        vec![read(&y), read(&d_x)]
                    });
                }
            }
        }
    }
}
