mod checkpoint;

use std::cell::RefCell;
use std::rc::Rc;

use super::{Mode, Tape, Tensor};
use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::{Code, Result};
use crate::fail;
use crate::kernels::elementwise::Function;
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::binary::Binary;
use crate::ops::checks::{Array, compare, contexts, read};
use crate::ops::dropout::Dropout;
use crate::ops::linear::Linear;
use crate::ops::lora_linear::{LoraLinear, Path};
use crate::ops::rms_norm::RmsNorm;
use crate::ops::sum::Sum;
use crate::ops::unary::Unary;
use crate::optim::{AdamW, Optimizer};

const N: usize = 300;

fn make_leaf(cx: &Rc<Context>, name: &str) -> Tensor {
    Tensor::new(Array::random(name, &[N]).upload(cx), true)
}

fn make_frozen(cx: &Rc<Context>, name: &str) -> Tensor {
    Tensor::new(Array::random(name, &[N]).upload(cx), false)
}

fn apply_binary(tape: &Tape, f: Function, a: &Tensor, b: &Tensor) -> Tensor {
    tape.apply1(Binary(f), &[a, b]).unwrap()
}

fn mul(tape: &Tape, a: &Tensor, b: &Tensor) -> Tensor {
    apply_binary(tape, Function::Mul, a, b)
}

fn tanh(tape: &Tape, x: &Tensor) -> Tensor {
    tape.apply1(Unary(Function::Tanh), &[x]).unwrap()
}

fn sum_all(tape: &Tape, x: &Tensor) -> Tensor {
    tape.apply1(Sum { dim: None }, &[x]).unwrap()
}

fn read_grad(t: &Tensor) -> Array {
    read(&t.grad().expect("a gradient"))
}

fn expect_grad(what: &str, t: &Tensor, f: impl Fn(usize) -> f64) {
    compare(what, &read_grad(t), &Array::from_fn(&[N], |i| f(i[0])), 1e-5);
}

/// Runs `f` inside a region.
fn checkpoint<T>(tape: &Tape, id: u32, f: impl FnOnce() -> T) -> T {
    let outer = tape.mode();
    tape.open_region(id);
    tape.set_mode(Mode { region: id, ..outer });
    let result = f();
    tape.set_mode(outer);
    tape.close_region(id);
    result
}

fn read_live_bytes(cx: &Rc<Context>) -> u64 {
    cx.memory().live
}

/// tanh that records its forward runs.
#[derive(Clone)]
struct CountingTanh(Rc<RefCell<Vec<&'static str>>>, &'static str, bool);

impl std::fmt::Debug for CountingTanh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.1)
    }
}

impl Op for CountingTanh {
    fn name(&self) -> &'static str {
        self.1
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        Ok(vec![inputs[0].clone()])
    }
    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        self.0.borrow_mut().push(self.1);
        Unary(Function::Tanh).forward(cx, inputs, outputs)
    }
    fn gradient(&self) -> Gradient {
        if self.2 { Unary(Function::Tanh).gradient() } else { Gradient::Missing }
    }
    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        if !self.2 {
            fail!(Internal, "called without a gradient");
        }
        Unary(Function::Tanh).backward(cx, pass)
    }
}

#[test]
fn a_gradient_passed_to_two_leaves_is_stored_separately() {
    for cx in contexts() {
        let tape = Tape::default();
        let (a, b, c) = (make_leaf(&cx, "a"), make_leaf(&cx, "b"), make_leaf(&cx, "c"));
        let scale = make_frozen(&cx, "scale");
        let s = read(&scale.value()).data;
        // add passes one d_out to both; c's comes later and is added to neither.
        let loss = |x: &Tensor, y: &Tensor| {
            sum_all(&tape, &mul(&tape, &apply_binary(&tape, Function::Add, x, y), &scale))
        };
        tape.backward(&loss(&a, &b), None).unwrap();
        assert_ne!(a.grad().unwrap().storage.buffer(), b.grad().unwrap().storage.buffer());
        tape.backward(&loss(&a, &c), None).unwrap();
        expect_grad("a", &a, |i| 2.0 * s[i]);
        expect_grad("b", &b, |i| s[i]);
        expect_grad("c", &c, |i| s[i]);
        // The same leaf as both operands.
        let d = make_leaf(&cx, "d");
        tape.backward(&loss(&d, &d), None).unwrap();
        expect_grad("d", &d, |i| 2.0 * s[i]);
    }
}

#[test]
fn the_initial_gradient_is_not_modified() {
    for cx in contexts() {
        let tape = Tape::default();
        let a = make_leaf(&cx, "a");
        let start = make_frozen(&cx, "start").value();
        let before = read(&start);
        let root = apply_binary(&tape, Function::Add, &a, &a);
        tape.backward(&root, Some(start.clone())).unwrap();
        tape.backward(&a, Some(start.clone())).unwrap();
        expect_grad("a", &a, |i| 3.0 * before.data[i]);
        assert_eq!(read(&start).data, before.data);
        // Even if it is the gradient itself.
        tape.backward(&a, a.grad()).unwrap();
        expect_grad("a twice", &a, |i| 6.0 * before.data[i]);
    }
}

#[test]
fn gradients_of_a_reused_node_are_summed() {
    for cx in contexts() {
        let tape = Tape::default();
        let a = make_leaf(&cx, "a");
        let x = read(&a.value()).data;
        let h = tanh(&tape, &a);
        // h + h + h·h, where add passes the same gradient to both inputs.
        let twice = apply_binary(&tape, Function::Add, &h, &h);
        let y = apply_binary(&tape, Function::Add, &twice, &mul(&tape, &h, &h));
        tape.backward(&sum_all(&tape, &y), None).unwrap();
        expect_grad("a", &a, |i| (2.0 + 2.0 * x[i].tanh()) * (1.0 - x[i].tanh().powi(2)));
    }
}

#[test]
fn a_second_backward_is_refused() {
    for cx in contexts() {
        let tape = Tape::default();
        let a = make_leaf(&cx, "a");
        let loss = sum_all(&tape, &tanh(&tape, &a));
        tape.backward(&loss, None).unwrap();
        assert_eq!(tape.backward(&loss, None).unwrap_err().code, Code::NoGradient);
        // Also through a checkpoint.
        let inside = checkpoint(&tape, 1, || tanh(&tape, &tanh(&tape, &a)));
        let loss = sum_all(&tape, &inside);
        tape.backward(&loss, None).unwrap();
        assert_eq!(tape.backward(&loss, None).unwrap_err().code, Code::NoGradient);
    }
}

#[test]
fn backward_without_a_gradient_is_an_error() {
    for cx in contexts() {
        let tape = Tape::default();
        let (a, frozen) = (make_leaf(&cx, "a"), make_frozen(&cx, "b"));
        let code = |r: Result<()>| r.unwrap_err().code;
        assert_eq!(code(tape.backward(&frozen, None)), Code::NoGradient);
        assert_eq!(code(tape.backward(&tanh(&tape, &a), None)), Code::NoGradient);
        let short = cx.empty([N - 1], DType::F32).unwrap();
        assert_eq!(code(tape.backward(&tanh(&tape, &a), Some(short))), Code::ShapeMismatch);
        tape.set_mode(Mode { no_grad: true, region: 0 });
        let outside = tanh(&tape, &a);
        assert!(!outside.requires_grad());
        tape.set_mode(Mode::default());
        assert!(!tanh(&tape, &a.detach()).requires_grad());
        let missing = CountingTanh(Rc::default(), "opaque", false);
        let refused = tape.apply1(missing.clone(), &[&a]);
        assert_eq!(refused.err().unwrap().code, Code::NoGradient);
        assert!(tape.apply1(missing, &[&frozen]).is_ok());
        // A comparison stops the gradient, as in PyTorch.
        assert!(!apply_binary(&tape, Function::Lt, &a, &frozen).requires_grad());
    }
}

#[test]
fn modifying_a_saved_value_is_an_error() {
    for cx in contexts() {
        let tape = Tape::default();
        let (a, b, c) = (make_leaf(&cx, "a"), make_leaf(&cx, "b"), make_leaf(&cx, "c"));
        let expect_modified = |loss: &Tensor, written: &Tensor| {
            written.value().storage.record_write();
            let error = tape.backward(loss, None).unwrap_err();
            assert_eq!(error.code, Code::Modified, "{error}");
        };
        expect_modified(&sum_all(&tape, &mul(&tape, &a, &b)), &b);
        // The input of a checkpoint.
        let inside = checkpoint(&tape, 1, || mul(&tape, &tanh(&tape, &a), &b));
        expect_modified(&sum_all(&tape, &inside), &b);
        // A new forward is valid again.
        a.set_grad(None);
        tape.backward(&sum_all(&tape, &mul(&tape, &a, &b)), None).unwrap();
        let x = read(&b.value()).data;
        expect_grad("a", &a, |i| x[i]);
        // Values that backward does not read may change: add reads nothing, and neither does a checkpoint that ends
        // with add.
        let sum = apply_binary(&tape, Function::Add, &a, &c);
        let inside = checkpoint(&tape, 1, || apply_binary(&tape, Function::Add, &tanh(&tape, &sum), &c));
        c.value().storage.record_write();
        tape.backward(&sum_all(&tape, &inside), None).unwrap();
    }
}

#[test]
fn the_cofactor_of_a_frozen_factor_is_not_saved() {
    for cx in contexts() {
        let tape = Tape::default();
        let (a, mask) = (make_leaf(&cx, "a"), make_frozen(&cx, "mask"));
        let h = apply_binary(&tape, Function::Add, &a, &a);
        let before = read_live_bytes(&cx);
        let y = mul(&tape, &h, &mask);
        drop(h);
        // y replaced it: the product with a frozen mask reads only the mask.
        assert_eq!(read_live_bytes(&cx), before);
        tape.backward(&sum_all(&tape, &y), None).unwrap();
        let m = read(&mask.value()).data;
        expect_grad("a", &a, |i| 2.0 * m[i]);
    }
}

#[test]
fn backward_frees_saved_values_as_it_proceeds() {
    for cx in contexts() {
        cx.restart_peak();
        let tape = Tape::default();
        let a = make_leaf(&cx, "a");
        let bytes = read_live_bytes(&cx);
        let class = crate::pool::size_class(bytes, u64::MAX);
        const DEPTH: u64 = 20;
        let y = (0..DEPTH).fold(a.clone(), |x, _| tanh(&tape, &x));
        let loss = sum_all(&tape, &y);
        drop(y);
        assert_eq!(read_live_bytes(&cx), bytes * (1 + DEPTH) + 4);
        tape.backward(&loss, None).unwrap();
        assert_eq!(read_live_bytes(&cx), 2 * bytes + 4);
        // At most every saved y, a, and the gradients into and out of one operation.
        let peak = cx.memory().peak;
        assert!(peak <= class * (1 + DEPTH + 2) + 3 * 256, "{peak}");
        drop(loss);
        a.set_grad(None);
        assert_eq!(read_live_bytes(&cx), bytes);
    }
}

#[test]
fn unused_saved_values_are_freed_with_the_last_output() {
    for cx in contexts() {
        let tape = Tape::default();
        let a = make_leaf(&cx, "a");
        let bytes = read_live_bytes(&cx);
        let y = (0..5).fold(a.clone(), |x, _| tanh(&tape, &x));
        let z = checkpoint(&tape, 1, || tanh(&tape, &tanh(&tape, &y)));
        drop(y);
        assert!(read_live_bytes(&cx) > 3 * bytes);
        drop(z);
        assert_eq!(read_live_bytes(&cx), bytes);
    }
}

#[test]
fn a_chain_of_100_000_operations_does_not_overflow_the_stack() {
    // One element on the cpu: this tests the depth.
    let cx = &contexts()[0];
    for backward in [false, true] {
        let tape = Tape::default();
        let a = Tensor::new(Array::new(&[1], vec![1.0]).upload(cx), true);
        let b = Tensor::new(Array::new(&[1], vec![1.0]).upload(cx), false);
        let y = (0..100_000).fold(a.clone(), |x, _| apply_binary(&tape, Function::Add, &x, &b));
        if backward {
            tape.backward(&y, None).unwrap();
            assert_eq!(read_grad(&a).data, [1.0]);
        }
    }
}

#[test]
fn repeated_steps_leak_no_memory() {
    for cx in contexts() {
        let tape = Tape::default();
        let (a, b) = (make_leaf(&cx, "a"), make_leaf(&cx, "b"));
        let step = || {
            let h = checkpoint(&tape, 1, || tanh(&tape, &mul(&tape, &a, &b)));
            let loss = sum_all(&tape, &apply_binary(&tape, Function::Add, &h, &mul(&tape, &h, &a)));
            tape.backward(&loss, None).unwrap();
            a.set_grad(None);
            b.set_grad(None);
            (read_live_bytes(&cx), cx.memory().reserved)
        };
        let first = {
            step();
            step()
        };
        for _ in 0..20 {
            assert_eq!(step(), first);
        }
    }
}

#[test]
fn an_operation_may_accumulate_into_a_parameter_gradient() {
    for cx in contexts() {
        let tape = Tape::default();
        let (i, o, rows) = (33, 20, 7);
        let new =
            |name: &str, shape: &[usize], asks| Tensor::new(Array::random(name, shape).upload(&cx), asks);
        let x = new("x", &[rows, i], false);
        let (weight, a, b) = (new("w", &[o, i], true), new("a", &[4, i], true), new("b", &[o, 4], true));
        let dropout = Dropout { p: 0.1, seed: 1, offset: 2 };
        let lora = LoraLinear { paths: vec![Path::whole(1.5, dropout)], ..LoraLinear::default() };
        let loss = |weight: &Tensor| {
            let y = tape.apply(lora.clone(), &[&x, weight, &a, &b]).unwrap().swap_remove(0);
            let z = tape.apply1(Linear::default(), &[&x, weight]).unwrap();
            sum_all(&tape, &mul(&tape, &y, &z))
        };
        let parameters = [&weight, &a, &b];
        let grads = || parameters.map(read_grad);
        tape.backward(&loss(&weight), None).unwrap();
        let once = grads();
        tape.backward(&loss(&weight), None).unwrap();
        let twice = grads();
        for (one, two) in once.iter().zip(&twice) {
            compare("twice", two, &one.map(|v| 2.0 * v), 1e-5);
        }
        // In an arena no gradient is added in a separate pass, although both read the weight.
        let optimizer =
            Optimizer::new(vec![(AdamW::default(), parameters.map(Tensor::clone).to_vec())]).unwrap();
        optimizer.zero_grad();
        cx.count_launches(true);
        tape.backward(&loss(&weight), None).unwrap();
        assert!(!cx.count_launches(false).contains_key("accumulate"));
        for (got, expected) in grads().iter().zip(&once) {
            compare("arena", got, expected, 1e-5);
        }
        tape.backward(&loss(&weight), None).unwrap();
        for (got, expected) in grads().iter().zip(&twice) {
            compare("arena twice", got, expected, 1e-5);
        }
        // One parameter as both factors: written once, added once.
        let square = new("square", &[20, 20], true);
        let y = tape.apply1(Linear::default(), &[&square, &square]).unwrap();
        tape.backward(&sum_all(&tape, &y), None).unwrap();
        let alone = read_grad(&square);
        let _second = Optimizer::new(vec![(AdamW::default(), vec![square.clone()])]).unwrap();
        square.set_grad(None);
        let y = tape.apply1(Linear::default(), &[&square, &square]).unwrap();
        tape.backward(&sum_all(&tape, &y), None).unwrap();
        compare("both factors", &read_grad(&square), &alone, 1e-5);
    }
}

#[test]
fn gradients_of_several_readers_accumulate_in_place() {
    for cx in contexts() {
        let (rows, width) = (6, 40);
        let x = Tensor::new(Array::random("x", &[rows, width]).upload(&cx), true);
        let run = |separate: bool| {
            let tape = Tape::default();
            x.set_grad(None);
            let inner = tanh(&tape, &x);
            // A reader of a separate copy, which nothing else reads, has a separate gradient.
            let copy = |t: &Tensor| {
                if separate { tape.apply1(Unary(Function::Copy), &[t]).unwrap() } else { t.clone() }
            };
            let norm = |t: &Tensor| tape.apply(RmsNorm { eps: 1e-5 }, &[t]).unwrap().swap_remove(0);
            let [a, b, c] = [(); 3].map(|()| norm(&copy(&inner)));
            let sum = apply_binary(
                &tape,
                Function::Add,
                &apply_binary(&tape, Function::Mul, &a, &b),
                &mul(&tape, &c, &inner),
            );
            let loss = sum_all(&tape, &sum);
            cx.count_launches(true);
            tape.backward(&loss, None).unwrap();
            let adds = cx.count_launches(false).get("accumulate").copied().unwrap_or(0);
            (read_grad(&x).data, adds > 0)
        };
        let ((together, adds), (separate, adds_separately)) = (run(false), run(true));
        assert_eq!(together, separate);
        assert!(!adds && adds_separately);
    }
}
