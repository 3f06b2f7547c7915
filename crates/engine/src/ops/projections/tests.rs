use std::rc::Rc;

use super::{Projections, plain::plain};
use crate::dtype::DType;
use crate::error::Code;
use crate::op::run;
use crate::ops::binary::Binary;
use crate::ops::checks::{Array, check, check_non_finite, contexts, read};
use crate::ops::dropout::Dropout;
use crate::ops::lora_linear::{LoraLinear, Path};
use crate::ops::sum::Sum;
use crate::tape::{Mode, Tape, Tensor};
use crate::tensor::Context;

fn inputs(rows: &[usize], features: usize, ranks: &[usize]) -> Vec<Array> {
    let factor = |(i, rank): (usize, &usize)| Array::random(&format!("a{i}"), &[*rank, features]);
    let x = Array::random("x", &[rows, &[features]].concat());
    [x].into_iter().chain(ranks.iter().enumerate().map(factor)).collect()
}

#[test]
fn equals_the_plain_form() {
    for ranks in [&[2][..], &[4, 4], &[16, 2, 8], &[18, 34, 20], &[16, 18, 4], &[3, 2], &[2, 4, 6, 8]] {
        for rows in [&[1][..], &[17], &[2, 9], &[64], &[65], &[3, 86]] {
            for features in [2, 33, 64, 130] {
                check(&Projections, &inputs(rows, features, ranks), &plain);
            }
        }
    }
}

#[test]
fn non_finite_values_keep_to_their_rows() {
    let mut x = inputs(&[34], 6, &[2, 4, 2]);
    (x[0].data[7], x[0].data[33], x[0].data[200]) = (f64::NAN, f64::INFINITY, f64::NEG_INFINITY);
    check_non_finite(&Projections, &x, &plain);
}

#[test]
fn what_does_not_fit_is_refused() {
    let cx = &contexts()[0];
    let [x, a] = [[3, 4], [2, 5]].map(|shape| Array::random("x", &shape).upload(cx));
    let error = run(cx, &Projections, &[&x, &a]).unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (
            Code::ShapeMismatch,
            "projections: a factor f32[2, 5] does not fit an input f32[3, 4]: A is [rank, inputs]"
        )
    );
}

/// How three layers of one input come by their h.
#[derive(Clone, Copy, PartialEq)]
enum Given {
    Own,
    Together,
    Checkpointed,
}

/// Outputs of three layers and all gradients.
fn layers(cx: &Rc<Context>, given: Given, rows: usize, features: usize, rank: usize) -> Vec<Array> {
    let tape = Tape::default();
    let leaf =
        |name: &str, shape: &[usize], asks: bool| Tensor::new(Array::random(name, shape).upload(cx), asks);
    let x = leaf("x", &[2, rows, features], true);
    let outs = [6, 4, 10];
    let each = |name: &str, shape: &dyn Fn(usize) -> [usize; 2], asks: bool| -> Vec<Tensor> {
        (0..3).map(|i| leaf(&format!("{name}{i}"), &shape(i), asks)).collect()
    };
    let weights = each("w", &|i| [outs[i], features], false);
    let a = each("a", &|_| [rank, features], true);
    let b = each("b", &|i| [outs[i], rank], true);
    let bias = leaf("bias", &[outs[1]], true);
    if given == Given::Checkpointed {
        tape.open_region(1);
        tape.set_mode(Mode { no_grad: false, region: 1 });
    }
    let op = LoraLinear {
        paths: vec![Path::whole(1.75, Dropout::default())],
        projected: given != Given::Own,
        ..LoraLinear::default()
    };
    let h = match given {
        Given::Own => Vec::new(),
        _ => tape.apply(Projections, &[&x, &a[0], &a[1], &a[2]]).unwrap(),
    };
    let y: Vec<Tensor> = (0..3)
        .map(|i| {
            let mut inputs = vec![&x, &weights[i], &a[i], &b[i]];
            inputs.extend(h.get(i));
            inputs.extend((i == 1).then_some(&bias));
            tape.apply(op.clone(), &inputs).unwrap().swap_remove(0)
        })
        .collect();
    drop(h);
    tape.set_mode(Mode::default());
    tape.close_region(1);
    let square = |y: &Tensor| {
        let square = tape.apply1(Binary(crate::kernels::elementwise::Function::Mul), &[y, y]).unwrap();
        tape.apply1(Sum { dim: None }, &[&square]).unwrap()
    };
    let outputs: Vec<Array> = y.iter().map(|y| read(&y.value())).collect();
    let losses: Vec<Tensor> = y.iter().map(square).collect();
    drop(y);
    let add = |a: Tensor, b: &Tensor| {
        tape.apply1(Binary(crate::kernels::elementwise::Function::Add), &[&a, b]).unwrap()
    };
    let loss = losses[1..].iter().fold(losses[0].clone(), add);
    tape.backward(&loss, None).unwrap();
    let asked = [&x, &bias].into_iter().chain(&a).chain(&b);
    outputs.into_iter().chain(asked.map(|t| read(&t.grad().unwrap()))).collect()
}

/// Outputs and gradients are to the bit those of layers that make their own h, replayed or not.
#[test]
fn layers_that_are_given_them_are_those_that_make_their_own() {
    for cx in contexts() {
        for (rows, features, rank) in [(1, 5, 2), (17, 66, 6), (32, 64, 16), (3, 33, 3), (65, 20, 18)] {
            let own = layers(&cx, Given::Own, rows, features, rank);
            for given in [Given::Together, Given::Checkpointed] {
                for (i, (a, b)) in layers(&cx, given, rows, features, rank).iter().zip(&own).enumerate() {
                    assert_eq!(a.data, b.data, "{i} of {rows} {features} {rank} on {}", cx.profile.label);
                }
            }
        }
    }
}

#[test]
fn an_h_that_does_not_fit_is_refused() {
    let cx = &contexts()[0];
    let shapes = [&[3, 4][..], &[5, 4], &[2, 4], &[5, 2], &[3, 3]];
    let values: Vec<_> = shapes.iter().map(|shape| Array::random("v", shape).upload(cx)).collect();
    let refs: Vec<_> = values.iter().collect();
    let op = |dropout| LoraLinear {
        paths: vec![Path::whole(1.0, dropout)],
        projected: true,
        ..LoraLinear::default()
    };
    let error = run(cx, &op(Dropout::default()), &refs).unwrap_err();
    assert_eq!(error.message, "lora_linear: h is f32[3, 3], the path asks for f32[3, 2]");
    let dropped = Dropout { p: 0.5, ..Dropout::default() };
    assert_eq!(run(cx, &op(dropped), &refs).unwrap_err().code, Code::Option);
    assert_eq!(values[0].dtype, DType::F32);
}

/// Three ranks of one kind on a GPU in software: one launch. More layers, or few rows, take one each.
#[test]
fn launches() {
    for cx in contexts() {
        let whole = cx.profile.software && cx.profile.binding_limit > 4096;
        for (rows, ranks, together) in [
            (34, &[16, 8, 4][..], 1),
            (34, &[18, 64], 1),
            (34, &[4; 4], 4),
            (34, &[3, 2], 2),
            (12, &[4, 4], 2),
        ] {
            let values: Vec<_> = inputs(&[rows], 32, ranks).iter().map(|x| x.upload(&cx)).collect();
            let before = cx.launches();
            run(&cx, &Projections, &values.iter().collect::<Vec<_>>()).unwrap();
            let made = cx.launches() - before;
            let expected = if whole { together } else { ranks.len() as u64 };
            // A short binding may cut a product.
            assert!(
                made == expected || (made > expected && cx.profile.binding_limit <= 4096),
                "{ranks:?}: {made}"
            );
        }
    }
}
