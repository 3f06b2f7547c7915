use super::{Reshape, reference::compute_reference};
use crate::context::Spec;
use crate::error::Code;
use crate::kernels::elementwise::{Function, accumulate};
use crate::op::Op;
use crate::ops::binary::Binary;
use crate::ops::checks::{Array, check, contexts, read};
use crate::ops::sum::Sum;
use crate::ops::unary::Unary;
use crate::tape::{Mode, Tape, Tensor};

fn reshape(dims: &[usize]) -> Reshape {
    Reshape { shape: dims.into() }
}

#[test]
fn equals_the_reference() {
    let cases: [(&[usize], &[usize]); 4] =
        [(&[6], &[2, 3]), (&[1], &[]), (&[2, 3, 4], &[4, 6]), (&[0, 3], &[3, 0])];
    for (from, to) in cases {
        check(&reshape(to), &[Array::random("x", from)], &|x| vec![compute_reference(&x[0], to)]);
    }
}

#[test]
fn a_reshape_launches_and_allocates_nothing() {
    for cx in contexts() {
        let x = Tensor::new(Array::random("x", &[4, 6]).upload(&cx), true);
        let (launches, live) = (cx.launches(), cx.memory().live);
        let y = Tape::default().apply1(reshape(&[24]), &[&x]).unwrap();
        assert_eq!((cx.launches(), cx.memory().live), (launches, live));
        assert_eq!(y.value().storage.buffer(), x.value().storage.buffer());
    }
}

#[test]
fn gradients_pass_through_a_checkpoint() {
    for cx in contexts() {
        let tape = Tape::default();
        let x = Tensor::new(Array::random("x", &[4, 6]).upload(&cx), true);
        tape.open_region(1);
        tape.set_mode(Mode { no_grad: false, region: 1 });
        let square = tape.apply1(Unary(Function::Square), &[&x]).unwrap();
        let flat = tape.apply1(reshape(&[24]), &[&square]).unwrap();
        let y = tape.apply1(Unary(Function::Square), &[&flat]).unwrap();
        tape.set_mode(Mode::default());
        tape.close_region(1);
        drop((square, flat));
        let loss = tape.apply1(Sum { dim: None }, &[&y]).unwrap();
        tape.backward(&loss, None).unwrap();
        let grad = read(&x.grad().unwrap());
        assert_eq!(grad.shape, [4, 6]);
        for (g, x) in grad.data.iter().zip(&read(&x.value()).data) {
            assert!((g - 4.0 * x.powi(3)).abs() < 1e-5, "{g} for {}", 4.0 * x.powi(3));
        }
    }
}

#[test]
fn backward_refuses_a_write_through_another_shape() {
    for cx in contexts() {
        let tape = Tape::default();
        let x = Tensor::new(Array::random("x", &[6]).upload(&cx), true);
        let y = tape.apply1(reshape(&[2, 3]), &[&x]).unwrap();
        let product = tape.apply1(Binary(Function::Mul), &[&y, &y]).unwrap();
        let loss = tape.apply1(Sum { dim: None }, &[&product]).unwrap();
        let ones = Array::new(&[6], vec![1.0; 6]).upload(&cx);
        accumulate(&cx, &x.value(), &ones).unwrap();
        x.value().storage.record_write();
        assert_eq!(tape.backward(&loss, None).unwrap_err().code, Code::Modified);
    }
}

#[test]
fn different_sizes_are_refused() {
    let error = reshape(&[4, 2]).outputs(&[&Spec::f32([2, 3])]).unwrap_err();
    assert_eq!(error.message, "reshape: [2, 3] has not as many elements as [4, 2]");
}
