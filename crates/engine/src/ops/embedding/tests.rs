use lowrank_cpu::quant::BlockType;

use super::{Embedding, reference::compute_reference};
use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Code;
use crate::kernel::coverage::every_variant;
use crate::kernels;
use crate::op::{Backward, Op, run1};
use crate::ops::checks::{Array, check, compare, contexts, read, upload_quantised};
use std::rc::Rc;

const BOTH: [Embedding; 2] =
    [Embedding { padding_idx: None, transposed: false }, Embedding { padding_idx: None, transposed: true }];

fn draw_weight(op: &Embedding, vocabulary: usize, columns: usize) -> Array {
    Array::random("weight", &if op.transposed { [columns, vocabulary] } else { [vocabulary, columns] })
}

#[test]
fn equals_the_reference() {
    for op in BOTH {
        for n in [1, 63, 64, 65, 257] {
            for (vocabulary, columns) in [(1, 3), (65, 8), (257, 65), (7, 1)] {
                let ids = Array::indices("ids", &[n], vocabulary);
                check(&op, &[draw_weight(&op, vocabulary, columns), ids], &|x| {
                    vec![compute_reference(&op, &x[0], &x[1])]
                });
            }
        }
        // Rows longer than the smallest binding.
        let ids = Array::indices("ids", &[3, 3], 5);
        check(&op, &[draw_weight(&op, 5, 1200), ids], &|x| vec![compute_reference(&op, &x[0], &x[1])]);
    }
}

fn check_quantised_rows() {
    let ids = Array::indices("ids", &[2, 9], 13);
    for cx in contexts() {
        for kind in BlockType::EVERY {
            let [stored, wide] = upload_quantised(&cx, kind, &[13, 256]);
            let ids = ids.upload(&cx);
            let look_up = |table| read(&run1(&cx, &Embedding::default(), &[table, &ids]).unwrap());
            assert!(look_up(&stored).data == look_up(&wide).data, "{kind} on {}", cx.profile.label);
            let error = run1(&cx, &BOTH[1], &[&stored, &ids]).unwrap_err();
            assert_eq!(error.code, Code::Dtype, "columns of blocks are not supported");
        }
    }
}

every_variant! {
    kernels::embedding::KERNELS;
    fn every_variant_equals_the_reference() {
        check_quantised_rows();
        for op in BOTH {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let inputs = [draw_weight(&op, 65, 33).stored(dtype), Array::indices("ids", &[2, 9], 65)];
                check(&op, &inputs, &|x| vec![compute_reference(&op, &x[0], &x[1])]);
            }
        }
    }
}

/// Ids computed on the device, so that the host does not know them.
fn upload_unknown(cx: &Rc<Context>, ids: &Array) -> Value {
    let value = ids.upload(cx);
    value.storage.record_write();
    assert!(value.host().is_none());
    value
}

#[test]
fn ids_out_of_range_are_refused_or_give_nan() {
    for op in BOTH {
        for cx in contexts() {
            let table = draw_weight(&op, 65, 33);
            for bad in [-1.0, 65.0, i32::MAX as f64, i32::MIN as f64] {
                let ids = Array { dtype: DType::I32, ..Array::new(&[4], vec![0.0, 64.0, bad, 1.0]) };
                let (dw, known) = (table.upload(&cx), ids.upload(&cx));
                let error = run1(&cx, &op, &[&dw, &known]).unwrap_err();
                assert_eq!(error.code, Code::Index);
                assert_eq!(error.message, format!("embedding: index {bad} at position 2 is outside 0..65"));
                let unknown = upload_unknown(&cx, &ids);
                let y = read(&run1(&cx, &op, &[&dw, &unknown]).unwrap());
                compare("out of range", &y, &compute_reference(&op, &table, &ids), 0.0);
                // Indices out of range take no gradient.
                let d_weight =
                    compute_gradient(&cx, &op, &dw, &unknown, &Array::new(&[4, 33], vec![1.0; 132]));
                assert_eq!(read(&d_weight).data.iter().sum::<f64>(), 3.0 * 33.0);
            }
        }
    }
}

fn compute_gradient(cx: &Rc<Context>, op: &Embedding, weight: &Value, ids: &Value, d: &Array) -> Value {
    let (inputs, d) = ([weight.clone(), ids.clone()], vec![Some(d.upload(cx))]);
    let d_inputs = op.backward(cx, &Backward::after(op, &inputs, &[], &[true, false], d)).unwrap();
    d_inputs.into_iter().next().flatten().unwrap()
}

#[test]
fn the_padding_row_gets_no_gradient() {
    for transposed in [false, true] {
        let op = Embedding { padding_idx: Some(3), transposed };
        let table = draw_weight(&op, 7, 5);
        let ids = Array { dtype: DType::I32, ..Array::new(&[6], vec![3.0, 1.0, 3.0, 6.0, 1.0, 3.0]) };
        let d = Array::random("d", &[6, 5]);
        for cx in contexts() {
            let (w, known) = (table.upload(&cx), ids.upload(&cx));
            let y = read(&run1(&cx, &op, &[&w, &known]).unwrap());
            compare("padding", &y, &compute_reference(&op, &table, &ids), 0.0);
            let d_weight = read(&compute_gradient(&cx, &op, &w, &known, &d));
            for v in 0..7 {
                for c in 0..5 {
                    let expected: f64 = (0..6)
                        .filter(|n| ids.data[*n] as usize == v && v != 3)
                        .map(|n| d.data[n * 5 + c])
                        .sum();
                    let got = d_weight.data[if transposed { c * 7 + v } else { v * 5 + c }];
                    assert!((got - expected).abs() < 1e-6, "row {v}, column {c}: {got} for {expected}");
                }
            }
        }
    }
}

#[test]
fn gradients_are_equal_whether_or_not_the_host_knows_the_ids() {
    let op = Embedding::default();
    let ids = Array::indices("ids", &[500], 17);
    let d = Array::random("d", &[500, 33]);
    for cx in contexts() {
        let w = draw_weight(&op, 17, 33).upload(&cx);
        let known = read(&compute_gradient(&cx, &op, &w, &ids.upload(&cx), &d));
        let unknown = read(&compute_gradient(&cx, &op, &w, &upload_unknown(&cx, &ids), &d));
        assert_eq!(known.data, unknown.data);
    }
}

#[test]
fn wrong_shapes_and_dtypes_are_refused() {
    let ids = Spec { dtype: DType::I32, ..Spec::f32([3]) };
    let op = Embedding::default();
    for (weight, ids) in [
        (Spec::f32([3]), ids.clone()),
        (Spec::f32([7, 3]), Spec::f32([3])),
        (Spec::f32([0, 3]), ids.clone()),
        (Spec { dtype: DType::I32, ..Spec::f32([7, 3]) }, ids.clone()),
    ] {
        let error = op.outputs(&[&weight, &ids]).unwrap_err();
        assert!(error.message.starts_with("embedding"), "{error}");
    }
    let padded = Embedding { padding_idx: Some(7), ..op };
    assert_eq!(padded.outputs(&[&Spec::f32([7, 3]), &ids]).unwrap_err().code, Code::Index);
}
