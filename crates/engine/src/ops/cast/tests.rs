use std::sync::mpsc::channel;

use half::{bf16, f16};
use lowrank_cpu::quant::BlockType;

use super::{Cast, reference::compute_reference};
use crate::context::Value;
use crate::dtype::DType::*;
use crate::error::Code;
use crate::kernel::coverage::every_variant;
use crate::kernels;
use crate::kernels::elementwise::Function;
use crate::op::{Op, run1};
use crate::ops::checks::{Array, check, contexts, read, upload_quantised};
use crate::ops::sum::Sum;
use crate::ops::unary::Unary;
use crate::tape::{Tape, Tensor};

/// Ties in both directions, the ends of each range, f16 subnormals, values that overflow.
fn list_edge_values() -> Vec<f64> {
    let one = |e: i32| 2f64.powi(e);
    let mut values = vec![
        0.0,
        -0.0,
        1.0,
        -1.5,
        1.0 + one(-11),
        1.0 + 3.0 * one(-11),
        1.0 + one(-8),
        1.0 + 3.0 * one(-8),
        1.0 + one(-11) + one(-20),
        1.0 + one(-8) + one(-20),
        65504.0,
        65519.0,
        65520.0,
        -65536.0,
        1e30,
        3e38,
        one(-14),
        one(-14) - one(-25),
        one(-24),
        one(-25),
        1.5 * one(-25),
        one(-26),
        2147483520.0,
        -2147483648.0,
        3e9,
        -3e9,
        2.9,
        -2.9,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ];
    values.extend(Array::random("x", &[257]).data.iter().map(|v| v * 1e4));
    values.iter().map(|v| *v as f32 as f64).collect()
}

fn check_unpacked_blocks() {
    for cx in contexts() {
        for kind in BlockType::EVERY {
            // Values that are never split must fit the smallest binding.
            let rows = if kind.is_divisible() { 37 } else { 3 };
            let [stored, wide] = upload_quantised(&cx, kind, &[rows, 256]);
            for to in [F32, F16, BF16] {
                let [got, expected] =
                    [&stored, &wide].map(|x| read(&run1(&cx, &Cast { dtype: to }, &[x]).unwrap()));
                assert_eq!(got.dtype, to);
                assert!(got.data == expected.data, "{kind} to {to} on {}", cx.profile.label);
            }
            let error = run1(&cx, &Cast { dtype: I32 }, &[&stored]).unwrap_err();
            assert_eq!(error.code, Code::Dtype);
            let error = run1(&cx, &Cast { dtype: Block(kind) }, &[&wide]).unwrap_err();
            assert_eq!(error.code, Code::Dtype);
        }
    }
}

every_variant! {
    kernels::cast::KERNELS;
    fn every_variant_equals_the_reference() {
        check_unpacked_blocks();
        for from in [F32, F16, BF16, I32] {
            for to in [F32, F16, BF16, I32] {
                for n in [1, 63, 64, 65, 257, 288] {
                    let x = Array { dtype: from, ..Array::new(&[n], list_edge_values()[..n].to_vec()) };
                    for cx in contexts() {
                        let y = read(&run1(&cx, &Cast { dtype: to }, &[&x.upload(&cx)]).unwrap());
                        assert_eq!(y.dtype, to);
                        for (v, got) in x.data.iter().zip(&y.data) {
                            let e = compute_reference(*v, from, to);
                            assert!(
                                e == *got || (e.is_nan() && got.is_nan()),
                                "{v} from {from} to {to} on {}: {got} for {e}",
                                cx.profile.label
                            );
                        }
                    }
                }
            }
        }
    }
}

fn read_bytes(value: &Value) -> Vec<u8> {
    let (send, receive) = channel();
    value.context().read(value, Box::new(move |bytes| send.send(bytes).unwrap()));
    receive.recv().unwrap().unwrap()
}

#[test]
fn halves_round_trip_through_f32() {
    for dtype in [F16, BF16] {
        // Every bit pattern except NaN.
        let nan = |b: u16| match dtype {
            F16 => f16::from_bits(b).is_nan(),
            _ => bf16::from_bits(b).is_nan(),
        };
        let bits: Vec<u16> = (0..=u16::MAX).filter(|b| !nan(*b)).collect();
        for cx in contexts() {
            let x = cx.upload([bits.len()], dtype, bytemuck::cast_slice(&bits).to_vec()).unwrap();
            let wide = run1(&cx, &Cast { dtype: F32 }, &[&x]).unwrap();
            let back = run1(&cx, &Cast { dtype }, &[&wide]).unwrap();
            assert!(
                read_bytes(&back) == bytemuck::cast_slice::<u16, u8>(&bits),
                "{dtype} on {}",
                cx.profile.label
            );
        }
    }
}

#[test]
fn gradients_pass_through_float_casts_only() {
    check(&Cast { dtype: F32 }, &[Array::random("x", &[65])], &|x| x.to_vec());
    for cx in contexts() {
        for dtype in [F16, BF16] {
            let tape = Tape::default();
            let x = Tensor::new(Array::random("x", &[65]).upload(&cx), true);
            let half = tape.apply1(Cast { dtype }, &[&x]).unwrap();
            let square = tape.apply1(Unary(Function::Square), &[&half]).unwrap();
            let loss = tape.apply1(Sum { dim: None }, &[&square]).unwrap();
            tape.backward(&loss, None).unwrap();
            let (grad, stored) = (read(&x.grad().unwrap()), read(&half.value()));
            for (g, v) in grad.data.iter().zip(&stored.data) {
                assert_eq!(*g, 2.0 * v);
            }
        }
        let x = Tensor::new(Array::random("x", &[65]).upload(&cx), true);
        let whole = Tape::default().apply1(Cast { dtype: I32 }, &[&x]).unwrap();
        assert!(!whole.requires_grad());
    }
    assert_eq!(Cast { dtype: I32 }.gradient(), crate::op::Gradient::Constant);
}
