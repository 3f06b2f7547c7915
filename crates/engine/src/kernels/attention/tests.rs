//! Compares every variant on the GPU with the processor, which the operation's tests compare with the plain form.

use super::KERNELS;
use super::tile::ACROSS;
use crate::dtype::DType;
use crate::kernel::coverage::{self, every_variant};
use crate::ops::attention::Attention;
use crate::ops::attention::tests::{CAUSAL, DROPOUT};
use crate::ops::checks::{Array, equal_on_gpus, gpu_contexts, outputs_and_gradients};

/// Compares attention with `group` query heads per key/value head.
fn equal(op: &Attention, [batch, queries, keys, group, dim]: [usize; 5]) {
    let of = |name, rows, heads| Array::random(name, &[batch, rows, heads, dim]);
    let mut inputs = vec![of("q", queries, group), of("k", keys, 1), of("v", keys, 1)];
    let labels = |f: fn(usize) -> bool| {
        let array = Array::from_fn(&[batch, keys], |i| f(i[1]) as usize as f64);
        Array { dtype: DType::I32, ..array }
    };
    if op.segments {
        inputs.push(labels(|at| at < 5));
    }
    if op.mask {
        inputs.push(labels(|at| at % 7 != 3));
    }
    let what = format!("{op:?}, {queries} queries, {keys} keys of {dim}");
    equal_on_gpus(&what, |cx| outputs_and_gradients(cx, op, &inputs));
}

/// Whether the device can run a variant: one with subgroups needs them to be wide enough.
fn is_given((_, variant): &coverage::NamedVariant) -> bool {
    let wide = gpu_contexts().first().is_some_and(|gpu| gpu.profile.subgroup as usize >= ACROSS);
    wide || variant.params[3] % 2 == 0
}

every_variant! {
    KERNELS, if is_given;
    fn every_form_equals_the_processor() {
        let labelled = Attention { segments: true, mask: true, ..CAUSAL };
        for dim in [8, 36, 80, 132] {
            // The smaller tile: several tiles of queries and of keys, and several passing tiles.
            equal(&labelled, [2, 70, 70, 1, dim]);
            // Few queries: one part of the keys, and several.
            equal(&CAUSAL, [2, 1, 9, 3, dim]);
            equal(&Attention { offset: 300, ..labelled }, [2, 2, 302, 2, dim]);
        }
        // The larger tile, with enough work for a GPU to use it.
        for dim in [36, 80] {
            equal(&CAUSAL, [16, 5, 9, 2, dim]);
        }
        // With dropout: both tiles, and windows of keys that begin at each of four positions.
        let dropped = Attention { dropout: DROPOUT, ..labelled };
        for dim in [8, 36, 80, 132, 79] {
            equal(&dropped, [2, 70, 70, 2, dim]);
            equal(&Attention { window: Some(30), ..dropped }, [1, 40, 40, 1, dim]);
        }
        for dim in [36, 80] {
            equal(&Attention { dropout: DROPOUT, ..CAUSAL }, [16, 5, 9, 2, dim]);
        }
        // Reads of single elements.
        equal(&CAUSAL, [1, 19, 70, 2, 79]);
    }
}
