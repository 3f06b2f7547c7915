//! A block of SmolLM2-135M with adapters on its seven linear layers, built from burn's tensors.

use burn::tensor::activation::{silu, softmax};
use burn::tensor::{Bool, Device, Distribution, Tensor};

pub const TOKENS: usize = 512;
pub const WIDTH: usize = 576;
const INNER: usize = 1536;
const HEADS: usize = 9;
const KEYS: usize = 3;
const HEAD: usize = 64;
const R: usize = 16;
const SCALING: f32 = 2.0;

pub fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(-0.05, 0.05), device)
}

pub struct LoraLinear {
    weight: Tensor<2>,
    a: Tensor<2>,
    b: Tensor<2>,
}

impl LoraLinear {
    pub fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        LoraLinear {
            weight: random([inputs, outputs], device),
            a: random([inputs, R], device).require_grad(),
            b: random([R, outputs], device).require_grad(),
        }
    }

    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let low = x.clone().matmul(self.a.clone()).matmul(self.b.clone());
        x.matmul(self.weight.clone()) + low * SCALING
    }

    pub fn adapter(&self) -> impl Iterator<Item = &Tensor<2>> {
        [&self.a, &self.b].into_iter()
    }
}

pub struct Block {
    norms: [Tensor<2>; 2],
    cos: Tensor<4>,
    sin: Tensor<4>,
    future: Tensor<4, Bool>,
    q: LoraLinear,
    k: LoraLinear,
    v: LoraLinear,
    o: LoraLinear,
    gate: LoraLinear,
    up: LoraLinear,
    down: LoraLinear,
}

impl Block {
    pub fn new(device: &Device) -> Self {
        let linear = |inputs, outputs| LoraLinear::new(inputs, outputs, device);
        let angles = |f: fn(f32) -> f32| {
            let values: Vec<f32> = (0..TOKENS * HEAD)
                .map(|i| {
                    let (position, j) = (i / HEAD, i % HEAD % (HEAD / 2));
                    f(position as f32 * 100_000f32.powf(-2.0 * j as f32 / HEAD as f32))
                })
                .collect();
            Tensor::<1>::from_floats(&values[..], device).reshape([1, 1, TOKENS, HEAD])
        };
        let future = Tensor::<2, Bool>::tril_mask([TOKENS, TOKENS], 0, device);
        Block {
            norms: [random([1, WIDTH], device), random([1, WIDTH], device)],
            cos: angles(f32::cos),
            sin: angles(f32::sin),
            future: future.reshape([1, 1, TOKENS, TOKENS]),
            q: linear(WIDTH, HEADS * HEAD),
            k: linear(WIDTH, KEYS * HEAD),
            v: linear(WIDTH, KEYS * HEAD),
            o: linear(HEADS * HEAD, WIDTH),
            gate: linear(WIDTH, INNER),
            up: linear(WIDTH, INNER),
            down: linear(INNER, WIDTH),
        }
    }

    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let h = rms_norm(x.clone(), &self.norms[0]);
        let q = self.rotated(heads(self.q.forward(h.clone()), HEADS));
        let k = grouped(self.rotated(heads(self.k.forward(h.clone()), KEYS)));
        let v = grouped(heads(self.v.forward(h), KEYS));
        let scores = q.matmul(k.swap_dims(2, 3)) / (HEAD as f32).sqrt();
        let scores = scores.mask_fill(self.future.clone(), f32::NEG_INFINITY);
        let seen = softmax(scores, 3).matmul(v).swap_dims(1, 2).reshape([TOKENS, WIDTH]);
        let x = x + self.o.forward(seen);
        let h = rms_norm(x.clone(), &self.norms[1]);
        let inner = silu(self.gate.forward(h.clone())) * self.up.forward(h);
        x + self.down.forward(inner)
    }

    pub fn adapters(&self) -> impl Iterator<Item = &Tensor<2>> {
        [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down]
            .into_iter()
            .flat_map(LoraLinear::adapter)
    }

    fn rotated(&self, x: Tensor<4>) -> Tensor<4> {
        let half = HEAD / 2;
        let (first, second) = (x.clone().narrow(3, 0, half), x.clone().narrow(3, half, half));
        x * self.cos.clone() + Tensor::cat(vec![-second, first], 3) * self.sin.clone()
    }
}

fn heads(x: Tensor<2>, count: usize) -> Tensor<4> {
    x.reshape([1, TOKENS, count, HEAD]).swap_dims(1, 2)
}

/// Repeats each head of keys or values for the queries that share it.
fn grouped(x: Tensor<4>) -> Tensor<4> {
    x.unsqueeze_dim::<5>(2).repeat_dim(2, HEADS / KEYS).reshape([1, HEADS, TOKENS, HEAD])
}

fn rms_norm(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    let scale = (x.clone().powf_scalar(2.0).mean_dim(1) + 1e-5).sqrt();
    x / scale * weight.clone()
}
