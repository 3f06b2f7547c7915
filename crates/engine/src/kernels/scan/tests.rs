//! Both forms on the GPU beside the processor, which is held to the plain form in the operation's tests.

use super::{KERNELS, scan};
use crate::dtype::DType;
use crate::kernel::forms::every_form;
use crate::ops::checks::{Array, equal_on_gpus, read};

every_form! {
    KERNELS;
    fn every_form_equals_the_processor() {
        for shape in [[3, 300, 1], [2, 65, 3]] {
            let x = Array::random("x", &shape);
            equal_on_gpus(&format!("{shape:?}"), |cx| {
                let (x, y) = (x.upload(cx), cx.empty(shape, DType::F32).unwrap());
                scan(cx, &x, shape, &y).unwrap();
                vec![read(&y)]
            });
        }
    }
}
