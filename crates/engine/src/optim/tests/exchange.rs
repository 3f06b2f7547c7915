use std::cell::RefCell;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::context::{Spec, Value};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::recording::{Command, Reply};
use crate::tape::Mode;

type Bytes = std::result::Result<Vec<u8>, crate::error::Error>;

fn make_receivers(count: usize) -> (Vec<Reply>, Vec<Receiver<Bytes>>) {
    let made = (0..count).map(|_| {
        let (send, receive) = channel();
        let reply: Reply = Box::new(move |bytes| drop(send.send(bytes)));
        (reply, receive)
    });
    made.unzip()
}

fn double(bytes: &[u8]) -> Vec<u8> {
    let values: &[f32] = bytemuck::cast_slice(bytes);
    values.iter().flat_map(|x| (2.0 * x).to_le_bytes()).collect()
}

#[test]
fn answered_buckets_replace_the_gradients() {
    for cx in contexts() {
        for most in [1, 100, 1 << 20] {
            let (tensors, expected) = (make_parameters(&cx), make_parameters(&cx));
            let mut optimizer = make_adamw(&tensors);
            let mut other = make_adamw(&expected);
            // One parameter has no gradient: it gets one of zeros.
            set_gradients(&tensors, 1, &[2]);
            for (i, t) in expected.iter().enumerate() {
                let twice =
                    make_gradient(i, 1).data.iter().map(|x| if i == 2 { 0.0 } else { 2.0 * x }).collect();
                t.set_grad(Some(Array::new(SHAPES[i], twice).upload(&cx)));
            }
            let sizes = optimizer.bucket_sizes(most).unwrap();
            assert!(sizes.iter().all(|size| *size <= most) && (most > 1000) == (sizes.len() == 1));
            let (replies, read) = make_receivers(sizes.len());
            let (exchange, answers) = optimizer.begin_exchange(most, replies).unwrap();
            optimizer.finish_exchange(exchange).unwrap();
            // The next step is recorded while the device waits.
            optimizer.step(Some(0.5), NotFinite::Latch).unwrap();
            cx.flush();
            for (answer, bucket) in answers.into_iter().zip(read) {
                answer.send(Ok(double(&bucket.recv().unwrap().unwrap()))).unwrap();
            }
            other.step(Some(0.5), NotFinite::Latch).unwrap();
            assert_eq!(read_bits(&tensors), read_bits(&expected), "buckets of {most}");
        }
    }
}

#[test]
fn a_bucket_without_an_answer_fails_dependent_values() {
    for cx in contexts() {
        let tensors = make_parameters(&cx);
        let mut optimizer = make_adamw(&tensors);
        set_gradients(&tensors, 1, &[]);
        let (replies, _read) = make_receivers(1);
        let (exchange, answers) = optimizer.begin_exchange(1 << 20, replies).unwrap();
        optimizer.finish_exchange(exchange).unwrap();
        let norm = optimizer.step(None, NotFinite::Latch).unwrap();
        cx.flush();
        drop(answers);
        let (send, receive) = channel();
        cx.read(&norm, Box::new(move |bytes| drop(send.send(bytes))));
        assert!(receive.recv().unwrap().is_err());
    }
}

#[test]
fn empty_buckets_and_missing_receivers_are_refused() {
    for cx in contexts() {
        let optimizer = make_adamw(&make_parameters(&cx));
        assert!(optimizer.bucket_sizes(0).is_err_and(|e| e.code == Code::Option));
        assert!(optimizer.begin_exchange(1, Vec::new()).is_err_and(|e| e.code == Code::Internal));
    }
}

#[test]
fn buckets_begin_with_the_last_parameters_of_all_groups() {
    for cx in contexts() {
        let of = |sizes: [usize; 2]| {
            sizes.map(|n| Tensor::new(Array::random("p", &[n]).upload(&cx), true)).to_vec()
        };
        let groups = [[1, 2], [3, 4]].map(|sizes| (Sgd::default(), of(sizes)));
        let optimizer = Optimizer::new(groups.to_vec()).unwrap();
        assert_eq!(optimizer.bucket_sizes(64).unwrap(), [4, 2, 3, 1]);
        // A bucket of two parameters includes the padding between them.
        assert_eq!(optimizer.bucket_sizes(128).unwrap(), [68, 66]);
        assert_eq!(optimizer.bucket_sizes(3).unwrap(), [3, 1, 2, 3, 1]);
    }
}

/// The identity, in whose backward the device waits for the test.
struct Gate(RefCell<Option<Receiver<Bytes>>>);

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

impl Op for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        Ok(vec![inputs[0].clone()])
    }
    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        cx.copy(inputs[0], &outputs[0]);
        Ok(())
    }
    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }
    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = cx.empty(pass.input_specs[0].shape.clone(), DType::F32)?;
        if let Some(from) = self.0.take() {
            cx.push(Command::Receive { to: d.range(), from });
        }
        Ok(vec![Some(d)])
    }
}

fn apply(tape: &Tape, op: impl Op, inputs: &[&Tensor]) -> Tensor {
    tape.apply1(op, inputs).unwrap()
}

fn mul(tape: &Tape, a: &Tensor, b: &Tensor) -> Tensor {
    apply(tape, Binary(Function::Mul), &[a, b])
}

fn sum_all(tape: &Tape, x: &Tensor) -> Tensor {
    apply(tape, Sum { dim: None }, &[x])
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_bucket_is_read_before_backward_ends() {
    const N: usize = 64;
    for cx in contexts() {
        let tape = Tape::default();
        let [first, last] = ["first", "last"].map(|n| Tensor::new(Array::random(n, &[N]).upload(&cx), true));
        let optimizer = Optimizer::new(vec![(Sgd::default(), vec![first.clone(), last.clone()])]).unwrap();
        let (open, gate) = channel();
        let x = apply(&tape, Gate(RefCell::new(Some(gate))), &[&first]);
        let loss = sum_all(&tape, &mul(&tape, &x, &last));
        // The gradient of `last`; the value is read before the device waits.
        let forward: Vec<u8> =
            self::read(&x.value()).data.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect();
        let (replies, mut read) = make_receivers(2);
        let (mut exchange, answers) = optimizer.begin_exchange(N, replies).unwrap();
        exchange.backward(&tape, &loss).unwrap();
        optimizer.finish_exchange(exchange).unwrap();
        let early = read.remove(0).recv_timeout(LONG).expect("the read does not wait for the gate").unwrap();
        assert_eq!(early, forward);
        assert!(read[0].try_recv().is_err());
        let ones: Vec<u8> = (0..N).flat_map(|_| 1f32.to_le_bytes()).collect();
        open.send(Ok(ones.clone())).unwrap();
        assert_eq!(read[0].recv_timeout(LONG).unwrap().unwrap(), ones);
        answers.iter().for_each(|answer| answer.send(Ok(double(&ones))).unwrap());
        for t in [first, last] {
            assert_eq!(self::read(&t.grad().unwrap()).data, [2.0; N]);
        }
    }
}

/// Records the losses of two micro-batches: a tied parameter that is used first and last, a region that is recomputed, a
/// parameter of the first micro-batch alone, and one that is never used.
fn record_losses(tape: &Tape, p: &[Tensor], region: u32, mut backward: impl FnMut(&Tensor, bool)) {
    for last in [false, true] {
        let mut x = mul(tape, &p[0], &p[1]);
        if !last {
            x = mul(tape, &x, &p[2]);
        }
        let id = region + last as u32;
        tape.open_region(id);
        tape.set_mode(Mode { region: id, ..Mode::default() });
        let inside = mul(tape, &mul(tape, &x, &p[3]), &p[3]);
        tape.set_mode(Mode::default());
        tape.close_region(id);
        let outside = mul(tape, &mul(tape, &inside, &p[4]), &p[0]);
        backward(&sum_all(tape, &outside), last);
    }
}

#[test]
fn buckets_that_backward_reads_are_complete() {
    const N: usize = 100;
    for cx in contexts() {
        for most in [7, 100, 256, 1 << 20] {
            let tape = Tape::default();
            let make = || -> Vec<Tensor> {
                let named = |i| Tensor::new(Array::random(&format!("p{i}"), &[N]).upload(&cx), true);
                (0..6).map(named).collect()
            };
            let (tensors, expected) = (make(), make());
            let (mut optimizer, mut other) = (make_adamw(&tensors), make_adamw(&expected));
            for step in 0..3 {
                record_losses(&tape, &expected, 1 + 4 * step, |loss, _| tape.backward(loss, None).unwrap());
                for t in &expected {
                    let twice = |g| read(&g).data.iter().map(|x| 2.0 * x).collect();
                    let data = t.grad().map_or_else(|| vec![0.0; N], twice);
                    t.set_grad(Some(Array::new(&[N], data).upload(&cx)));
                }
                let (replies, read) = make_receivers(optimizer.bucket_sizes(most).unwrap().len());
                let mut begun = None;
                let mut replies = Some(replies);
                record_losses(&tape, &tensors, 3 + 4 * step, |loss, last| {
                    if !last {
                        return tape.backward(loss, None).unwrap();
                    }
                    let made = optimizer.begin_exchange(most, replies.take().unwrap()).unwrap();
                    begun.insert(made).0.backward(&tape, loss).unwrap();
                });
                let (exchange, answers) = begun.unwrap();
                optimizer.finish_exchange(exchange).unwrap();
                for (answer, bucket) in answers.into_iter().zip(read) {
                    answer.send(Ok(double(&bucket.recv().unwrap().unwrap()))).unwrap();
                }
                for o in [&mut optimizer, &mut other] {
                    o.step(Some(0.5), NotFinite::Latch).unwrap();
                    o.zero_grad();
                }
                assert_eq!(read_bits(&tensors), read_bits(&expected), "buckets of {most}, step {step}");
            }
        }
    }
}

#[test]
fn a_dropped_exchange_fails_every_read() {
    for cx in contexts() {
        let optimizer = make_adamw(&make_parameters(&cx));
        let (replies, read) = make_receivers(1);
        drop(optimizer.begin_exchange(1 << 20, replies).unwrap());
        assert!(read[0].recv_timeout(LONG).unwrap().is_err_and(|e| e.code == Code::Aborted));
    }
}
