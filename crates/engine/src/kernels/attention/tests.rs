//! Every form on the GPU beside the processor, which is held to the plain form in the operation's tests.

use super::KERNELS;
use super::shader::ACROSS;
use crate::kernel::Variant;
use crate::kernel::forms::every_form;
use crate::op::{Backward, Op, run};
use crate::ops::attention::Attention;
use crate::ops::checks::{Array, compare, contexts, gpu_contexts, read};
use crate::value::Value;

const CAUSAL: Attention = Attention {
    causal: true,
    window: None,
    scale: None,
    offset: 0,
    length: None,
    segments: false,
    mask: false,
    precision: crate::kernels::gemm::Precision::Exact,
};

/// What forward and backward give, on a processor and on each GPU.
fn equal(op: &Attention, [batch, queries, keys, group, dim]: [usize; 5]) {
    let of = |name, rows, heads| Array::random(name, &[batch, rows, heads, dim]);
    let mut inputs = vec![of("q", queries, group), of("k", keys, 1), of("v", keys, 1)];
    let labels = |f: fn(usize) -> bool| {
        let array = Array::from_fn(&[batch, keys], |i| f(i[1]) as usize as f64);
        Array { dtype: crate::dtype::DType::I32, ..array }
    };
    if op.segments {
        inputs.push(labels(|at| at < 5));
    }
    if op.mask {
        inputs.push(labels(|at| at % 7 != 3));
    }
    let all = |cx: &std::rc::Rc<crate::context::Context>| -> Vec<Array> {
        let values: Vec<Value> = inputs.iter().map(|x| x.upload(cx)).collect();
        let outputs = run(cx, op, &values.iter().collect::<Vec<_>>()).unwrap();
        let d = outputs.iter().map(|y| Some(Array::random("d", &y.shape).upload(cx))).collect();
        let needs: Vec<bool> = (0..inputs.len()).map(|i| i < 3).collect();
        let d_inputs = op.backward(cx, &Backward::after(op, &values, &outputs, &needs, d)).unwrap();
        outputs.iter().chain(d_inputs.iter().flatten()).map(read).collect()
    };
    let expected = all(&contexts()[0]);
    for cx in gpu_contexts() {
        for (i, (got, expected)) in all(&cx).iter().zip(&expected).enumerate() {
            let what = format!("{op:?}, {keys} keys of {dim}, subgroups of {}: {i}", cx.profile.subgroup);
            compare(&what, got, expected, 1e-5);
        }
    }
}

/// Narrow subgroups are not given the forms by them.
fn is_given(variant: &Variant) -> bool {
    let wide = gpu_contexts().first().is_some_and(|gpu| gpu.profile.subgroup as usize >= ACROSS);
    wide || variant.params[3] == 0
}

every_form! {
    KERNELS, if is_given;
    fn every_form_equals_the_processor() {
        let labelled = Attention { segments: true, mask: true, ..CAUSAL };
        for [vectors, single] in [[8, 7], [36, 35], [80, 79], [132, 131]] {
            // The smaller tile, two of them and more.
            equal(&labelled, [2, 70, 70, 1, vectors]);
            equal(&CAUSAL, [1, 19, 70, 2, single]);
            // The larger one, of which a GPU is given many.
            equal(&CAUSAL, [256, 5, 9, 2, vectors]);
            // A part of the keys, and several.
            equal(&CAUSAL, [2, 1, 9, 3, vectors]);
            equal(&Attention { offset: 300, ..labelled }, [2, 2, 302, 2, vectors]);
        }
    }
}
