//! Compares every variant with its CPU implementation, which the operations' tests compare with their references.

use super::{Function, KERNELS, accumulate, map, silu_mul_backward};
use crate::dtype::DType;
use crate::kernel::Variant;
use crate::kernel::coverage::every_variant;
use crate::ops::checks::{Array, TOLERANCE, compare, contexts, read};

/// Sizes that are and are not multiples of four.
const SIZES: [usize; 2] = [260, 259];

/// A shape that uses the variant.
fn choose_shape(config: &Variant) -> Vec<usize> {
    let [_, dims, wide, _] = config.params.map(|p| p as usize);
    if dims == 1 { vec![SIZES[1 - wide]] } else { [2, 3, 2, 3, 2][..dims].to_vec() }
}

fn draw_operands(function: Function, config: &Variant) -> Vec<Array> {
    let shape = choose_shape(config);
    // Every second dimension of the first operand is broadcast, so that no two merge.
    let first: Vec<usize> = shape.iter().enumerate().map(|(d, n)| if d % 2 == 1 { 1 } else { *n }).collect();
    let draw = |(i, dtype): (usize, &DType)| {
        let x = Array::random(&format!("{function:?} {i}"), if i == 0 { &first } else { &shape });
        let x = match function {
            // Logarithms and roots.
            Function::Log | Function::Sqrt | Function::Rsqrt => x.map(|v| v.abs() + 0.25),
            Function::Log1p => x.map(|v| v.abs()),
            Function::Pow | Function::PowBackwardA | Function::PowBackwardB => x.map(|v| v.abs() + 0.25),
            _ => x,
        };
        match dtype {
            DType::I32 => x.map(|v| (v * 2.0).round()).stored(DType::I32),
            dtype => x.stored(*dtype),
        }
    };
    config.dtypes[..function.operands()].iter().enumerate().map(draw).collect()
}

every_variant! {
    KERNELS;
    fn every_variant_equals_the_cpu() {
        let contexts = contexts();
        for config in KERNELS[..3].iter().flat_map(|kernel| (kernel.variants)()) {
            let function = Function::ALL[config.params[0] as usize];
            let x = draw_operands(function, &config);
            let shape = choose_shape(&config);
            let results = contexts.iter().map(|cx| {
                let x: Vec<_> = x.iter().map(|x| x.upload(cx)).collect();
                let y = cx.empty(&shape[..], *config.dtypes.last().unwrap()).unwrap();
                map(cx, function, &x.iter().collect::<Vec<_>>(), &y).unwrap();
                read(&y)
            });
            let results: Vec<Array> = results.collect();
            for y in &results[1..] {
                compare(&format!("{function:?} {config:?}"), y, &results[0], TOLERANCE);
            }
        }
        for n in SIZES {
            let results = contexts.iter().map(|cx| {
                let [x, y, d] = ["x", "y", "d"].map(|name| Array::random(name, &[n]).upload(cx));
                let d_up = cx.empty([n], DType::F32).unwrap();
                silu_mul_backward(cx, &x, &y, &d, &d_up).unwrap();
                accumulate(cx, &y, &x).unwrap();
                [y, d, d_up].map(|v| read(&v))
            });
            let results: Vec<_> = results.collect();
            for others in &results[1..] {
                for (a, b) in others.iter().zip(&results[0]) {
                    compare("a gradient", a, b, TOLERANCE);
                }
            }
        }
    }
}
