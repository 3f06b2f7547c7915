mod arena;
mod exchange;
mod replica;
mod state;
mod step;

use std::rc::Rc;
use std::sync::Arc;

use super::clip::clip_grad_norm;
use super::{AdamW, NotFinite, Optimizer, Replica, Rule, Sgd, State};
use crate::context::Context;
use crate::device::{Device, Sink, cpu::Cpu};
use crate::dtype::DType;
use crate::error::{Code, Result};
use crate::kernels::elementwise::Function;
use crate::ops::binary::Binary;
use crate::ops::checks::{Array, TOLERANCE, compare, contexts, read};
use crate::ops::sum::Sum;
use crate::profile::Kind;
use crate::recording::CancelToken;
use crate::tape::{Tape, Tensor};

const SHAPES: [&[usize]; 6] = [&[1], &[63], &[64], &[65], &[257], &[5, 13]];

pub fn make_parameters(cx: &Rc<Context>) -> Vec<Tensor> {
    let of =
        |(i, shape): (usize, &&[usize])| Tensor::new(Array::random(&format!("p{i}"), shape).upload(cx), true);
    SHAPES.iter().enumerate().map(of).collect()
}

fn make_gradient(i: usize, step: u64) -> Array {
    Array::random(&format!("g{i} {step}"), SHAPES[i])
}

/// Sets the gradient of `step` for every parameter except `left_out`.
fn set_gradients(tensors: &[Tensor], step: u64, left_out: &[usize]) {
    for (i, t) in tensors.iter().enumerate() {
        let grad = (!left_out.contains(&i)).then(|| make_gradient(i, step).upload(t.value().context()));
        t.set_grad(grad);
    }
}

fn read_bits(tensors: &[Tensor]) -> Vec<Vec<u64>> {
    tensors.iter().map(|t| read(&t.value()).data.iter().map(|v| v.to_bits()).collect()).collect()
}

fn to_array(bits: &[u64]) -> Array {
    Array::new(&[bits.len()], bits.iter().map(|b| f64::from_bits(*b)).collect())
}

fn make_adamw(tensors: &[Tensor]) -> Optimizer<AdamW> {
    Optimizer::new(vec![(AdamW { lr: 0.01, ..AdamW::default() }, tensors.to_vec())]).unwrap()
}

fn read_item(value: &crate::context::Value) -> f64 {
    read(value).data[0]
}

/// Compares ten steps in two groups on every device: in some steps a parameter has no gradient, some are clipped, and
/// options change between steps.
pub fn compare_with_reference<R: Rule>(
    groups: [R; 2],
    plain: impl Fn(&R, u64, &mut [f64], &[f64], &mut [Vec<f64>]),
) {
    for cx in contexts() {
        let tensors = make_parameters(&cx);
        let group_of = |i: usize| (i >= 3) as usize;
        let mut optimizer = Optimizer::new(
            [0, 1]
                .map(|g| {
                    let own = tensors.iter().enumerate().filter(|(i, _)| group_of(*i) == g);
                    (groups[g].clone(), own.map(|(_, t)| t.clone()).collect())
                })
                .into(),
        )
        .unwrap();
        let mut values: Vec<Vec<f64>> = tensors.iter().map(|t| read(&t.value()).data).collect();
        let mut states: Vec<Vec<Vec<f64>>> =
            values.iter().map(|v| vec![vec![0.0; v.len()]; R::STATES.len()]).collect();
        let mut steps = vec![0; tensors.len()];
        for step in 1..=10 {
            let left_out: &[usize] = [&[][..], &[1], &[0, 4], &[]][step as usize % 4];
            set_gradients(&tensors, step, left_out);
            let clip = (step % 3 == 0).then_some(2.5f32);
            let norm = optimizer.step(clip, NotFinite::Latch).unwrap();
            let there: Vec<(usize, Vec<f64>)> = (0..tensors.len())
                .filter(|i| !left_out.contains(i))
                .map(|i| (i, make_gradient(i, step).data))
                .collect();
            let expected = there.iter().flat_map(|(_, g)| g).map(|v| v * v).sum::<f64>().sqrt();
            assert!((read_item(&norm) - expected).abs() <= 1e-6 * expected);
            let factor = clip.map_or(1.0, |max| (max as f64 / (expected + 1e-6)).min(1.0));
            for (i, g) in there {
                steps[i] += 1;
                let g: Vec<f64> = g.iter().map(|v| v * factor).collect();
                plain(&groups[group_of(i)], steps[i], &mut values[i], &g, &mut states[i]);
            }
        }
        let what = format!("{} on {}", R::NAME, cx.profile.label);
        for (i, t) in tensors.iter().enumerate() {
            // A step has about ten roundings, relative to at most the value's size: 10 · 10 · 6e-8.
            compare(&what, &read(&t.value()), &Array::new(SHAPES[i], values[i].clone()), TOLERANCE);
        }
        for (i, state) in optimizer.state().iter().enumerate() {
            if !groups[group_of(i)].keeps_state() {
                assert_eq!(state.step, 0);
                continue;
            }
            assert_eq!(state.step, steps[i]);
            for (got, expected) in state.values.iter().zip(&states[i]) {
                compare(&what, &read(got), &Array::new(SHAPES[i], expected.clone()), TOLERANCE);
            }
        }
    }
}

fn open_device_with(change: impl FnOnce(&mut crate::profile::Profile)) -> (Arc<Device>, Rc<Context>) {
    let device = Device::start(|| Cpu::open(0)).unwrap();
    let mut profile = device.profile.clone();
    change(&mut profile);
    let cx = Context::new(profile, Sink::Thread(device.clone()));
    (device, cx)
}
