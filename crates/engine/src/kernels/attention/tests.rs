//! Compares every variant on the GPU with the CPU, which the operation's tests compare with the reference.

use super::KERNELS;
use super::tile::ACROSS;
use crate::dtype::DType;
use crate::kernel::coverage::{self, every_variant};
use crate::ops::attention::Attention;
use crate::ops::attention::tests::{CAUSAL, DROPOUT};
use crate::ops::checks::{Array, compare_on_gpus, gpu_contexts, run_with_gradients};

/// Compares attention with `group` query heads per key/value head.
fn compare_attention(op: &Attention, [batch, queries, keys, group, dim]: [usize; 5]) {
    let draw = |name, rows, heads| Array::random(name, &[batch, rows, heads, dim]);
    let mut inputs = vec![draw("q", queries, group), draw("k", keys, 1), draw("v", keys, 1)];
    let make_labels = |f: fn(usize) -> bool| {
        let array = Array::from_fn(&[batch, keys], |i| f(i[1]) as usize as f64);
        Array { dtype: DType::I32, ..array }
    };
    if op.segments {
        inputs.push(make_labels(|at| at < 5));
    }
    if op.mask {
        inputs.push(make_labels(|at| at % 7 != 3));
    }
    let what = format!("{op:?}, {queries} queries, {keys} keys of {dim}");
    compare_on_gpus(&what, |cx| run_with_gradients(cx, op, &inputs));
}

/// Whether the device can run a variant: one with subgroups needs them to be wide enough.
fn is_supported((_, variant): &coverage::NamedVariant) -> bool {
    let wide = gpu_contexts().first().is_some_and(|gpu| gpu.profile.subgroup as usize >= ACROSS);
    wide || variant.params[3] % 2 == 0
}

every_variant! {
    KERNELS, if is_supported;
    fn every_variant_equals_the_cpu() {
        let labelled = Attention { segments: true, mask: true, ..CAUSAL };
        for dim in [8, 36, 80, 132] {
            // The smaller tile: several tiles of queries and of keys, and several passing tiles.
            compare_attention(&labelled, [2, 70, 70, 1, dim]);
            // Few queries: one part of the keys, and several.
            compare_attention(&CAUSAL, [2, 1, 9, 3, dim]);
            compare_attention(&Attention { offset: 300, ..labelled }, [2, 2, 302, 2, dim]);
        }
        // The larger tile, with enough work for a GPU to use it.
        for dim in [36, 80] {
            compare_attention(&CAUSAL, [16, 5, 9, 2, dim]);
        }
        // With dropout: both tiles, and windows of keys that begin at each of four positions.
        let dropped = Attention { dropout: DROPOUT, ..labelled };
        for dim in [8, 36, 80, 132, 79] {
            compare_attention(&dropped, [2, 70, 70, 2, dim]);
            compare_attention(&Attention { window: Some(30), ..dropped }, [1, 40, 40, 1, dim]);
        }
        for dim in [36, 80] {
            compare_attention(&Attention { dropout: DROPOUT, ..CAUSAL }, [16, 5, 9, 2, dim]);
        }
        // Reads of single elements.
        compare_attention(&CAUSAL, [1, 19, 70, 2, 79]);
    }
}
