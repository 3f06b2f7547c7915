use std::collections::HashMap;
use std::rc::Rc;

use super::{DecoderBlock, Dense, LowRank, Norm, reference::compute_reference};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Code;
use crate::kernels::gemm::Precision;
use crate::ops::checks::{Array, TOLERANCE, compare, contexts, read};

/// Number of query heads, number of key heads, head size.
const H: usize = 4;
const K: usize = 2;
const D: usize = 8;
/// The width of the residual stream, and of the MLP.
const C: usize = 24;
const F: usize = 40;
const CAPACITY: usize = 90;
const LAYERS: [(&str, usize, usize); 7] = [
    ("qq", C, H * D),
    ("kk", C, K * D),
    ("vv", C, K * D),
    ("output", H * D, C),
    ("gate", C, F),
    ("up", C, F),
    ("down", F, C),
];

/// Creates the tensors of a block. `biases` and `paths` name the layers with a bias and with a low-rank path.
fn create_arrays(batch: usize, dtype: DType, biases: &[&str], paths: &[&str]) -> HashMap<String, Array> {
    let mut arrays = HashMap::new();
    let mut draw = |name: &str, shape: &[usize]| {
        // Keeps sums of a few dozen terms near 1.
        arrays.insert(name.to_string(), Array::random(name, shape).map(|v| v / 3.0));
    };
    for (layer, features, out) in LAYERS {
        draw(&format!("{layer}.weight"), &[out, features]);
        if biases.contains(&layer) {
            draw(&format!("{layer}.bias"), &[out]);
        }
        if paths.contains(&layer) {
            draw(&format!("{layer}.a"), &[3, features]);
            draw(&format!("{layer}.b"), &[out, 3]);
        }
    }
    draw("norm0", &[C]);
    draw("norm1", &[C]);
    draw("cos", &[CAPACITY, D / 2]);
    draw("sin", &[CAPACITY, D / 2]);
    draw("k", &[batch, CAPACITY, K, D]);
    draw("v", &[batch, CAPACITY, K, D]);
    for (name, array) in &mut arrays {
        if name.ends_with("weight") {
            *array = array.stored(dtype);
        }
    }
    arrays
}

fn create_block(cx: &Rc<Context>, arrays: &HashMap<String, Array>) -> DecoderBlock {
    let upload = |name: &str| -> Value { arrays[name].upload(cx) };
    let upload_optional = |name: String| arrays.get(&name).map(|array| array.upload(cx));
    let create_dense = |i: usize| {
        let layer = LAYERS[i].0;
        let factors = (upload_optional(format!("{layer}.a")), upload_optional(format!("{layer}.b")));
        Dense {
            weight: upload(&format!("{layer}.weight")),
            bias: upload_optional(format!("{layer}.bias")),
            low_rank: match factors {
                (Some(a), Some(b)) => Some(LowRank { a, b, scale: 0.5 + i as f32 }),
                _ => None,
            },
        }
    };
    DecoderBlock {
        norms: [0, 1].map(|i| Norm { weight: upload(&format!("norm{i}")), eps: 1e-5 }),
        inputs: [0, 1, 2].map(create_dense),
        output: create_dense(3),
        gated: [4, 5].map(create_dense),
        down: create_dense(6),
        cos: upload("cos"),
        sin: upload("sin"),
        caches: ["k", "v"].map(upload),
        position: 0,
        window: None,
        scale: 0.3,
        precision: Precision::Exact,
    }
}

/// Decodes a prompt, then single tokens, over one cache.
fn check_decoding(batch: usize, dtype: DType, biases: &[&str], paths: &[&str], window: Option<usize>) {
    for cx in contexts() {
        let mut arrays = create_arrays(batch, dtype, biases, paths);
        let mut block = create_block(&cx, &arrays);
        block.window = window;
        for (position, time) in [(0, 7), (7, 1), (8, 1), (9, 70), (79, 1)] {
            block.position = position;
            let shape = [batch, time, C];
            let (x, r) = (Array::random("x", &shape), Array::random("r", &shape));
            let r = (position != 8).then_some(&r);
            let uploaded = r.map(|r| r.upload(&cx));
            let outputs = block.record(&cx, &x.upload(&cx), uploaded.as_ref()).unwrap();
            let expected = compute_reference(&block, &mut arrays, &x, r);
            let what = format!("{} at {position}, {dtype}, low-rank {paths:?}", cx.profile.label);
            for (y, expected) in outputs.iter().zip(&expected) {
                compare(&what, &read(y), expected, TOLERANCE);
            }
            for (cache, name) in block.caches.iter().zip(["k", "v"]) {
                compare(&what, &read(cache), &arrays[name], TOLERANCE);
            }
        }
    }
}

#[test]
fn equals_the_reference() {
    check_decoding(1, DType::F32, &[], &[], None);
    check_decoding(2, DType::BF16, &["qq", "kk", "down"], &[], Some(5));
}

#[test]
fn low_rank_paths_equal_the_reference() {
    check_decoding(1, DType::F32, &["qq"], &LAYERS.map(|(name, ..)| name), None);
    check_decoding(2, DType::F16, &[], &["vv", "down"], None);
    check_decoding(1, DType::BF16, &["vv"], &["qq", "vv", "up"], Some(64));
}

#[test]
fn positions_and_caches_that_do_not_fit_are_refused() {
    let cx = &contexts()[0];
    let arrays = create_arrays(1, DType::F32, &[], &[]);
    let mut block = create_block(cx, &arrays);
    let x = Array::random("x", &[1, 2, C]).upload(cx);
    block.position = CAPACITY - 1;
    assert_eq!(block.record(cx, &x, None).unwrap_err().code, Code::ShapeMismatch);
    block.position = 0;
    block.caches = [0, 1].map(|_| Array::random("cache", &[1, CAPACITY, K, D + 1]).upload(cx));
    let error = block.record(cx, &x, None).unwrap_err();
    assert_eq!(error.message, "decoder_block: f32[1, 2, 32] is not [B, T, C] of heads of 9");
}
