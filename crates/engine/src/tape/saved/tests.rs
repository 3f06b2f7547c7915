use std::rc::Rc;

use crate::context::Context;
use crate::dtype::DType;
use crate::error::Code;
use crate::kernels::elementwise::Function;
use crate::ops::added_norm::AddedNorm;
use crate::ops::binary::Binary;
use crate::ops::checks::{Array, contexts, read};
use crate::ops::layer_norm::LayerNorm;
use crate::ops::linear::Linear;
use crate::ops::reshape::Reshape;
use crate::ops::rms_norm::RmsNorm;
use crate::ops::sum::Sum;
use crate::ops::unary::Unary;
use crate::tape::{Tape, Tensor};

const ROWS: usize = 48;
const WIDTH: usize = 160;
const BYTES: u64 = (4 * ROWS * WIDTH) as u64;

fn make_leaf(cx: &Rc<Context>, name: &str, shape: &[usize]) -> Tensor {
    Tensor::new(Array::random(name, shape).upload(cx), true)
}

/// x, and two weights that multiply its norm.
struct Layers {
    tape: Tape,
    x: Tensor,
    weights: [Tensor; 2],
}

impl Layers {
    fn new(cx: &Rc<Context>) -> Layers {
        let weights = ["u", "v"].map(|name| make_leaf(cx, name, &[8, WIDTH]));
        Layers { tape: Tape::default(), x: make_leaf(cx, "x", &[ROWS, WIDTH]), weights }
    }

    /// The norm of tanh x: its input is the output of an operation, as in a network.
    fn compute_norm(&self) -> Tensor {
        let inner = self.tape.apply1(Unary(Function::Tanh), &[&self.x]).unwrap();
        self.tape.apply(RmsNorm { eps: 1e-5 }, &[&inner]).unwrap().swap_remove(0)
    }

    /// Σ (norm·Uᵀ) · (norm·Vᵀ): two products read the norm.
    fn compute_loss(&self, norm: &Tensor) -> Tensor {
        let [u, v] = [0, 1].map(|i| self.tape.apply1(Linear::default(), &[norm, &self.weights[i]]).unwrap());
        let product = self.tape.apply1(Binary(Function::Mul), &[&u, &v]).unwrap();
        self.tape.apply1(Sum { dim: None }, &[&product]).unwrap()
    }

    fn read_gradients(&self) -> Vec<Array> {
        [&self.x, &self.weights[0], &self.weights[1]].map(|t| read(&t.grad().unwrap())).into()
    }
}

/// Returns the number of launches of a kernel since the last call.
fn count_new_launches(cx: &Rc<Context>, kernel: &str) -> u64 {
    cx.count_launches(true).get(kernel).copied().unwrap_or(0)
}

#[test]
fn recomputed_values_are_not_kept_and_have_the_same_bits() {
    for cx in contexts() {
        let layers = Layers::new(&cx);
        // A live handle keeps the value, which is then read directly.
        let norm = layers.compute_norm();
        let loss = layers.compute_loss(&norm);
        count_new_launches(&cx, "");
        layers.tape.backward(&loss, None).unwrap();
        assert_eq!(count_new_launches(&cx, "norm"), 0);
        let expected = layers.read_gradients();
        drop((norm, loss));
        for t in [&layers.x, &layers.weights[0], &layers.weights[1]] {
            t.set_grad(None);
        }

        count_new_launches(&cx, "");
        let norm = layers.compute_norm();
        let once = count_new_launches(&cx, "norm");
        let loss = layers.compute_loss(&norm);
        let with_handle = cx.memory().live;
        drop(norm);
        assert_eq!(with_handle - cx.memory().live, BYTES, "the norm is not kept");
        count_new_launches(&cx, "");
        layers.tape.backward(&loss, None).unwrap();
        // Recomputed once for both products, and freed afterwards.
        assert_eq!(count_new_launches(&cx, "norm"), once);
        assert!(layers.read_gradients().iter().zip(&expected).all(|(a, b)| a.data == b.data));
        drop(loss);
        let gradients = layers.read_gradients().iter().map(|g| 4 * g.data.len() as u64).sum::<u64>();
        let held = cx.memory().live;
        for t in [&layers.x, &layers.weights[0], &layers.weights[1]] {
            t.set_grad(None);
        }
        assert_eq!(held - cx.memory().live, gradients);
    }
}

#[test]
fn a_reshaped_value_is_recomputed_too() {
    for cx in contexts() {
        let layers = Layers::new(&cx);
        let run = |reshaped: bool| {
            let mut norm = layers.compute_norm();
            if reshaped {
                let shape = [2, ROWS / 2, WIDTH];
                norm = layers.tape.apply1(Reshape { shape: shape.into() }, &[&norm]).unwrap();
            }
            let loss = layers.compute_loss(&norm);
            let with_handle = cx.memory().live;
            drop(norm);
            assert_eq!(with_handle - cx.memory().live, BYTES);
            layers.tape.backward(&loss, None).unwrap();
            let gradients = layers.read_gradients();
            for t in [&layers.x, &layers.weights[0], &layers.weights[1]] {
                t.set_grad(None);
            }
            gradients
        };
        let (plain, reshaped) = (run(false), run(true));
        assert!(plain.iter().zip(&reshaped).all(|(a, b)| a.data == b.data));
    }
}

/// Another operation recomputes it: the norm alone, from the sum that the same launch computed.
#[test]
fn the_norm_of_a_sum_is_recomputed_from_the_sum() {
    let layer = LayerNorm { eps: 1e-5, weight: true, bias: true };
    for cx in contexts() {
        let layers = Layers::new(&cx);
        let r = make_leaf(&cx, "r", &[ROWS, WIDTH]);
        let [w, b] = ["w", "b"].map(|name| make_leaf(&cx, name, &[WIDTH]));
        let run = |held: bool| {
            let inner = layers.tape.apply1(Unary(Function::Tanh), &[&layers.x]).unwrap();
            let outputs = layers.tape.apply(AddedNorm(layer), &[&inner, &r, &w, &b]).unwrap();
            drop(inner);
            let loss = layers.compute_loss(&outputs[0]);
            let with_handles = cx.memory().live;
            let kept = Some(outputs).filter(|_| held);
            // tanh's backward keeps tanh x, and the norm's keeps the sum.
            let freed = if held { 0 } else { BYTES };
            assert_eq!(with_handles - cx.memory().live, freed);
            count_new_launches(&cx, "");
            layers.tape.backward(&loss, None).unwrap();
            assert_eq!(count_new_launches(&cx, "layer norm") > 0, !held);
            drop(kept);
            let all = [&layers.x, &r, &w, &b, &layers.weights[0], &layers.weights[1]];
            let gradients = all.map(|t| read(&t.grad().unwrap()));
            all.iter().for_each(|t| t.set_grad(None));
            gradients
        };
        let (held, again) = (run(true), run(false));
        assert!(held.iter().zip(&again).all(|(a, b)| a.data == b.data));
    }
}

#[test]
fn modifying_the_source_of_a_recomputed_value_is_an_error() {
    for cx in contexts() {
        let layers = Layers::new(&cx);
        let x = Tensor::new(Array::random("x", &[ROWS, WIDTH]).upload(&cx), true);
        let norm = layers.tape.apply(RmsNorm { eps: 1e-5 }, &[&x]).unwrap().swap_remove(0);
        let loss = layers.compute_loss(&norm);
        drop(norm);
        x.value().storage.record_write();
        assert_eq!(layers.tape.backward(&loss, None).unwrap_err().code, Code::Modified);

        let norm = layers.compute_norm();
        let loss = layers.compute_loss(&norm);
        norm.value().storage.record_write();
        assert_eq!(layers.tape.backward(&loss, None).unwrap_err().code, Code::Modified);
        assert_eq!(norm.spec().dtype, DType::F32);
    }
}
