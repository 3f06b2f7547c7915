use super::{AddedNorm, Norm, reference::compute_reference};
use crate::error::Code;
use crate::op::{Backward, Op, run};
use crate::ops::checks::{Array, TOLERANCE, check, check_non_finite, compare, contexts, read};
use crate::ops::layer_norm::LayerNorm;
use crate::ops::rms_norm::RmsNorm;

const RMS: RmsNorm = RmsNorm { eps: 1e-5 };
const LAYER: LayerNorm = LayerNorm { eps: 1e-5, weight: true, bias: true };

fn draw_inputs(rows: &[usize], n: usize, weights: usize) -> Vec<Array> {
    let shape = [rows, &[n]].concat();
    let mut inputs: Vec<_> = ["x", "r"].map(|name| Array::random(name, &shape).map(|v| v + 0.2)).into();
    inputs.extend(["w", "b"].iter().take(weights).map(|name| Array::random(name, &[n]).map(|v| v + 1.5)));
    inputs
}

#[test]
fn equals_the_reference() {
    // For rows of one or two elements the gradient of x is 0 except for the effect of ε.
    for n in [5, 63, 64, 65, 257] {
        for rows in [vec![1], vec![3], vec![2, 65]] {
            check(&AddedNorm(RMS), &draw_inputs(&rows, n, 0), &|x| compute_reference(x, false));
            check(&AddedNorm(RMS), &draw_inputs(&rows, n, 1), &|x| compute_reference(x, false));
            check(&AddedNorm(LAYER), &draw_inputs(&rows, n, 2), &|x| compute_reference(x, true));
        }
    }
}

#[test]
fn rows_of_one_element_equal_the_reference() {
    check_non_finite(&AddedNorm(RMS), &draw_inputs(&[3], 1, 1), &|x| compute_reference(x, false));
    check_non_finite(&AddedNorm(LAYER), &draw_inputs(&[3], 1, 2), &|x| compute_reference(x, true));
}

#[test]
fn non_finite_values_stay_in_their_rows() {
    let infinity = f64::INFINITY;
    let x = Array::new(&[4, 3], vec![f64::NAN, 1., 2., 1., 2., 3., 4., 1., -1., infinity, 1., 2.]);
    let r = Array::new(&[4, 3], vec![1., 1., 1., 1., f64::NAN, 2., infinity, 1., -1., -infinity, 1., 2.]);
    let [w, b] = ["w", "b"].map(|name| Array::random(name, &[3]));
    check_non_finite(&AddedNorm(RMS), &[x.clone(), r.clone(), w.clone()], &|x| compute_reference(x, false));
    check_non_finite(&AddedNorm(LAYER), &[x, r, w, b], &|x| compute_reference(x, true));
}

/// Checks that one launch gives the bits of a separate sum and norm, and of their gradients.
fn compare_with_separate_operations<N: Norm>(norm: N, weights: usize) {
    for cx in contexts() {
        for (rows, n) in [(1, 1), (3, 64), (65, 257)] {
            let inputs = draw_inputs(&[rows], n, weights);
            let values: Vec<_> = inputs.iter().map(|x| x.upload(&cx)).collect();
            let refs: Vec<_> = values.iter().collect();
            let fused = run(&cx, &AddedNorm(norm), &refs).unwrap();
            let add = crate::ops::binary::Binary(crate::kernels::elementwise::Function::Add);
            let sum = run(&cx, &add, &refs[..2]).unwrap().swap_remove(0);
            let norm_inputs: Vec<_> = [&sum].into_iter().chain(refs[2..].iter().copied()).collect();
            let separate = run(&cx, &norm, &norm_inputs).unwrap();
            let assert_same_bits = |what: &str, a: &Array, b: &Array| {
                assert_eq!(a.data, b.data, "{what} of {rows} × {n} on {}", cx.profile.label);
            };
            assert_same_bits("sum", &read(&fused[1]), &read(&sum));
            assert_same_bits("norm", &read(&fused[0]), &read(&separate[0]));

            let d = ["d", "d of the sum"].map(|name| Array::random(name, &[rows, n]));
            let backward = |d_outs| {
                let needs = vec![true; values.len()];
                AddedNorm(norm)
                    .backward(&cx, &Backward::after(&AddedNorm(norm), &values, &fused, &needs, d_outs))
            };
            let backward_of = |i: usize| {
                let mut d_outs = vec![None; 2];
                d_outs[i] = Some(d[i].upload(&cx));
                read(backward(d_outs).unwrap()[0].as_ref().unwrap())
            };
            assert_same_bits(
                "gradient of the sum alone",
                &backward_of(1),
                &d[1].stored(crate::dtype::DType::F32),
            );
            let mut expected = backward_of(0);
            expected.data.iter_mut().zip(&d[1].data).for_each(|(e, d)| *e += d);
            let d_outs = d.iter().map(|d| Some(d.upload(&cx))).collect::<Vec<_>>();
            let (d_range, shared_d) = (d_outs[1].as_ref().unwrap().range(), d_outs.clone());
            let separate = backward(shared_d).unwrap()[0].take().unwrap();
            assert_ne!(separate.range(), d_range, "the gradient is shared, so it must not be overwritten");
            compare("both", &read(&separate), &expected, TOLERANCE);
            let in_place = backward(d_outs).unwrap();
            assert_eq!([0, 1].map(|i| in_place[i].as_ref().unwrap().range()), [d_range; 2]);
            assert_same_bits("in place", &read(in_place[0].as_ref().unwrap()), &read(&separate));
        }
    }
}

#[test]
fn results_are_bit_identical_to_a_separate_sum_and_norm() {
    compare_with_separate_operations(RMS, 1);
    compare_with_separate_operations(LAYER, 2);
}

#[test]
fn summands_of_different_shapes_are_refused() {
    let cx = &contexts()[0];
    let [x, r] = [[2, 3], [3, 3]].map(|s| Array::random("x", &s).upload(cx));
    let error = run(cx, &AddedNorm(RMS), &[&x, &r]).unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (Code::ShapeMismatch, "added rmsNorm: f32[2, 3] and f32[3, 3] differ")
    );
}
