use super::{LoraEmbedding, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::error::Code;
use crate::op::{Backward, Op, run};
use crate::ops::checks::{Array, check, check_non_finite, contexts, read};
use crate::ops::embedding::Embedding;

const OP: LoraEmbedding = LoraEmbedding { scale: 0.75, padding_idx: None };

fn draw_inputs(n: &[usize], [vocabulary, columns, rank]: [usize; 3], dtype: DType) -> Vec<Array> {
    vec![
        Array::random("weight", &[vocabulary, columns]).stored(dtype),
        Array::indices("ids", n, vocabulary),
        Array::random("a", &[rank, vocabulary]),
        Array::random("b", &[columns, rank]),
    ]
}

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        for sizes in [[1, 3, 1], [65, 8, 2], [257, 65, 16]] {
            check(&OP, &draw_inputs(&[n], sizes, DType::F32), &|x| compute_reference(&OP, x));
        }
    }
    check(&OP, &draw_inputs(&[2, 65], [7, 63, 5], DType::BF16), &|x| compute_reference(&OP, x));
}

#[test]
fn a_zero_factor_is_bit_identical_to_the_embedding() {
    for cx in contexts() {
        let mut x = draw_inputs(&[65], [33, 65, 3], DType::F32);
        x[2] = x[2].map(|_| 0.0);
        let x: Vec<_> = x.iter().map(|x| x.upload(&cx)).collect();
        let y = run(&cx, &OP, &x.iter().collect::<Vec<_>>()).unwrap();
        let base = run(&cx, &Embedding::default(), &[&x[0], &x[1]]).unwrap();
        assert_eq!(read(&y[0]).data, read(&base[0]).data, "{}", cx.profile.label);
    }
}

#[test]
fn the_padding_row_gets_no_gradient() {
    let op = LoraEmbedding { padding_idx: Some(3), ..OP };
    let mut x = draw_inputs(&[6], [7, 5, 2], DType::F32);
    x[1] = Array { dtype: DType::I32, ..Array::new(&[6], vec![3.0, 1.0, 3.0, 6.0, 1.0, 3.0]) };
    for cx in contexts() {
        let values: Vec<_> = x.iter().map(|x| x.upload(&cx)).collect();
        let y = run(&cx, &op, &values.iter().collect::<Vec<_>>()).unwrap();
        let needs = [true, false, true, true];
        let d = vec![Some(Array::random("d", &[6, 5]).upload(&cx)), None];
        let d_inputs = op.backward(&cx, &Backward::after(&op, &values, &y, &needs, d)).unwrap();
        let [d_w, d_a] = [0, 2].map(|i| read(d_inputs[i].as_ref().unwrap()).data);
        assert!(d_w[15..20].iter().chain([&d_a[3], &d_a[10]]).all(|v| *v == 0.0));
        assert!(d_w[5..10].iter().chain([&d_a[1], &d_a[8]]).all(|v| *v != 0.0));
    }
}

#[test]
fn a_frozen_table_needs_no_launch() {
    for cx in contexts() {
        let values: Vec<_> = draw_inputs(&[5], [7, 3, 2], DType::F32).iter().map(|x| x.upload(&cx)).collect();
        let y = run(&cx, &OP, &values.iter().collect::<Vec<_>>()).unwrap();
        let count_launches = |needs: [bool; 4]| {
            let d = vec![Some(y[0].clone()), None];
            let pass = Backward::after(&OP, &values, &y, &needs, d);
            let before = cx.launches();
            let d_inputs = OP.backward(&cx, &pass).unwrap();
            assert!(d_inputs.iter().zip(needs).all(|(d, need)| d.is_some() == need));
            cx.launches() - before
        };
        assert!(count_launches([false, false, true, true]) < count_launches([true, false, true, true]));
    }
}

#[test]
fn non_finite_values_stay_in_their_rows() {
    for operand in [0, 2, 3] {
        let mut x = draw_inputs(&[9], [7, 5, 2], DType::F32);
        x[operand].data[3] = f64::NAN;
        check_non_finite(&OP, &x, &|x| compute_reference(&OP, x));
    }
}

#[test]
fn wrong_shapes_and_dtypes_are_refused() {
    let ids = Spec { dtype: DType::I32, ..Spec::f32([3]) };
    let [w, a, b] = [Spec::f32([7, 5]), Spec::f32([2, 7]), Spec::f32([5, 2])];
    let half = Spec { dtype: DType::F16, ..a.clone() };
    for (a, b, code) in [
        (&Spec::f32([2, 5]), &b, Code::ShapeMismatch),
        (&a, &Spec::f32([5, 3]), Code::ShapeMismatch),
        (&Spec::f32([7]), &b, Code::ShapeMismatch),
        (&half, &b, Code::Dtype),
    ] {
        let error = OP.outputs(&[&w, &ids, a, b]).unwrap_err();
        assert!(error.code == code && error.message.starts_with("lora_embedding"), "{error}");
    }
}
