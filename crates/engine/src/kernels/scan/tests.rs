//! Compares both variants on the GPU with the CPU, which the operation's tests compare with the reference.

use super::{KERNELS, scan};
use crate::dtype::DType;
use crate::kernel::coverage::every_variant;
use crate::ops::checks::{Array, compare_on_gpus, read};

every_variant! {
    KERNELS;
    fn every_variant_equals_the_cpu() {
        for shape in [[3, 300, 1], [2, 65, 3]] {
            let x = Array::random("x", &shape);
            compare_on_gpus(&format!("{shape:?}"), |cx| {
                let (x, y) = (x.upload(cx), cx.empty(shape, DType::F32).unwrap());
                scan(cx, &x, shape, &y).unwrap();
                vec![read(&y)]
            });
        }
    }
}
