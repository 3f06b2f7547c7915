//! Inputs with heads first: [B, H, T, D].

use super::{Attention, CAUSAL, ROUNDED, check_attention, make_labels};
use crate::context::Value;
use crate::op::{Backward, Op, run};
use crate::ops::checks::{Array, contexts, read};

/// Returns q, k, v with heads first and sizes [B, T, S, Hkv, group, D].
pub(super) fn draw_inputs([b, t, s, kv_heads, group, dim]: [usize; 6]) -> Vec<Array> {
    let kv = [b, kv_heads, s, dim];
    vec![Array::random("q", &[b, kv_heads * group, t, dim]), Array::random("k", &kv), Array::random("v", &kv)]
}

#[test]
fn equals_the_reference() {
    let first = Attention { heads_first: true, ..CAUSAL };
    for sizes in [[2, 70, 70, 2, 3, 8], [1, 1, 9, 2, 4, 8], [1, 130, 130, 1, 2, 24], [1, 19, 19, 2, 2, 1]] {
        check_attention(first, &draw_inputs(sizes));
        check_attention(Attention { causal: false, ..first }, &draw_inputs(sizes));
    }
    let op = Attention { window: Some(50), offset: 120, length: Some(140), ..first };
    check_attention(op, &draw_inputs([1, 20, 150, 2, 2, 8]));
    let mut x = draw_inputs([2, 66, 66, 2, 2, 8]);
    // The first key is always visible: a query that sees none has no finite difference of the log-sum-exp.
    x.push(make_labels(&[2, 66], |i| (i[1] == 0 || i[1] >= 7 * i[0]) as usize));
    check_attention(Attention { mask: true, ..first }, &x);
}

/// Both layouts give equal bits: the order of every sum is the same.
#[test]
fn results_are_bit_identical_to_heads_last() {
    let exchange = |x: &Array| {
        let [m, n] = [1, 2].map(|d| x.shape[d]);
        let width = x.shape.get(3).copied().unwrap_or(1);
        let at = |i: &[usize]| ((i[0] * m + i[2]) * n + i[1]) * width + i.get(3).copied().unwrap_or(0);
        let mut shape = x.shape.clone();
        shape.swap(1, 2);
        Array::from_fn(&shape, |i| x.data[at(i)])
    };
    for sizes in [[2, 70, 70, 2, 3, 8], [1, 200, 200, 2, 2, 64], [1, 2, 90, 2, 3, 16]] {
        for op in [CAUSAL, ROUNDED, Attention { causal: false, ..CAUSAL }] {
            let x = draw_inputs(sizes);
            let last: Vec<Array> = x.iter().map(exchange).collect();
            // A small binding limit splits the keys elsewhere, which changes the order of the sums.
            for cx in contexts().into_iter().filter(|cx| cx.profile.binding_limit > 1 << 20) {
                let run_op = |op: &Attention, x: &[Array], exchanged: bool| -> Vec<Array> {
                    let values: Vec<Value> = x.iter().map(|x| x.upload(&cx)).collect();
                    let outputs = run(&cx, op, &values.iter().collect::<Vec<_>>()).unwrap();
                    // The same output gradient.
                    let d_o = Array::random("d", &x[0].shape);
                    let d_o = if exchanged {
                        exchange(&Array::random("d", &draw_inputs(sizes)[0].shape))
                    } else {
                        d_o
                    };
                    let pass =
                        Backward::after(op, &values, &outputs, &[true; 3], vec![Some(d_o.upload(&cx)), None]);
                    let d_inputs = op.backward(&cx, &pass).unwrap();
                    outputs.iter().chain(d_inputs.iter().flatten()).map(read).collect()
                };
                let expected = run_op(&op, &last, true);
                let got = run_op(&Attention { heads_first: true, ..op }, &x, false);
                for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    assert_eq!(
                        exchange(got).data,
                        expected.data,
                        "{op:?} {sizes:?}: {i} on {}",
                        cx.profile.label
                    );
                }
            }
        }
    }
}
