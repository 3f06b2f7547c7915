use std::rc::Rc;

use super::*;
use crate::format::safetensors::{Dtype, Reader, TensorData, write};
use crate::format::test_folder::TestFolder;
use crate::kernels::elementwise::Function;
use crate::ops::binary::Binary;
use crate::ops::checks::{Array, contexts, read};
use crate::ops::linear::Linear;
use crate::tape::{Mode, Tape, Tensor};

const BLOCKS: usize = 6;
const SIZE: usize = 64;
/// Bytes of a block: its weight is one size class.
const BYTES: u64 = (SIZE * SIZE * 4) as u64;

fn make_weight(block: usize) -> Array {
    Array::random(&format!("weight {block}"), &[SIZE, SIZE])
}

/// The weights of all blocks on `cx`, read from a file, or copied into host memory.
fn offload_weights(cx: &Rc<Context>, folder: &TestFolder, in_file: bool) -> (Rc<Offload>, Vec<Value>) {
    let offload = Rc::new(Offload::default());
    let host = &contexts()[0];
    let path = folder.join("weights");
    let all: Vec<(String, Vec<u8>)> =
        (0..BLOCKS).map(|block| (block.to_string(), make_weight(block).bytes())).collect();
    let entry = |(name, bytes)| TensorData { name, dtype: Dtype::F32, shape: &[SIZE, SIZE], bytes };
    write(&path, &all.iter().map(|(name, bytes)| entry((name, bytes))).collect::<Vec<_>>(), None).unwrap();
    let reader = Reader::open(&path).unwrap();
    let offload_block = |block: usize| {
        let from = match in_file {
            true => reader.value(host, &block.to_string(), None).unwrap(),
            false => make_weight(block).upload(host),
        };
        cx.offload(&from, &offload, block).unwrap()
    };
    let weights = (0..BLOCKS).map(offload_block).collect();
    let bytes = BLOCKS as u64 * BYTES;
    let (mapped, copied) = (offload.mapped_bytes(), offload.copied_bytes());
    assert_eq!((mapped, copied), if in_file { (bytes, 0) } else { (0, bytes) });
    (offload, weights)
}

/// Runs the blocks forward and backward, each as a region if `regions`; returns the output and the gradient of the
/// first block's added term.
fn train(cx: &Rc<Context>, weights: &[Value], regions: bool) -> [Vec<f64>; 2] {
    let tape = Tape::default();
    let added = Tensor::new(Array::random("added", &[3, SIZE]).upload(cx), true);
    let mut x = Tensor::new(Array::random("x", &[3, SIZE]).upload(cx), false);
    for (block, weight) in weights.iter().enumerate() {
        let weight = Tensor::new(weight.clone(), false);
        if regions {
            tape.open_region(block as u32 + 1);
            tape.set_mode(Mode { no_grad: false, region: block as u32 + 1 });
        }
        let sum = tape.apply1(Binary(Function::Add), &[&x, &added]).unwrap();
        let y = tape.apply1(Linear::default(), &[&sum, &weight]).unwrap();
        x = tape.apply1(Binary(Function::Mul), &[&y, &sum]).unwrap();
        tape.set_mode(Mode::default());
        tape.close_region(block as u32 + 1);
    }
    let d = Array::random("d", &[3, SIZE]).upload(cx);
    tape.backward(&x, Some(d)).unwrap();
    [read(&x.value()).data, read(&added.grad().unwrap()).data]
}

#[test]
fn offloaded_weights_give_the_values_and_gradients_of_resident_ones() {
    let folder = TestFolder::new();
    for cx in contexts() {
        let resident: Vec<Value> = (0..BLOCKS).map(|block| make_weight(block).upload(&cx)).collect();
        for (in_file, regions) in [(true, false), (true, true), (false, true)] {
            let expected = train(&cx, &resident, regions);
            let (_offload, weights) = offload_weights(&cx, &folder, in_file);
            // The second pass begins at the block where the first one ended.
            for _ in 0..2 {
                assert_eq!(train(&cx, &weights, regions), expected, "{in_file} {regions}");
            }
            // A jump, forward without backward.
            for block in [0, 4, 1, 5, 0] {
                assert_eq!(read(&weights[block]).data, make_weight(block).data);
            }
        }
    }
}

#[test]
fn two_blocks_are_resident_at_a_time() {
    let folder = TestFolder::new();
    for cx in contexts() {
        let before = cx.memory().live;
        let (offload, weights) = offload_weights(&cx, &folder, true);
        assert_eq!(cx.memory().live, before, "nothing is uploaded before it is used");
        let mut order: Vec<usize> = (0..BLOCKS).chain((0..BLOCKS).rev()).collect();
        order.extend([3, 0, 5]);
        for block in order {
            cx.load_offloaded([&weights[block]].into_iter()).unwrap();
            assert_eq!(cx.memory().live - before, 2 * BYTES);
            assert_eq!(offload.current.get(), Some(block));
        }
        // A reader of several blocks gets all of them.
        cx.load_offloaded(weights.iter()).unwrap();
        assert!(weights.iter().all(|weight| weight.range().bytes == BYTES));
        drop(weights);
        assert_eq!(cx.memory().live, before);
    }
}

#[test]
fn the_next_block_is_resident_before_its_use() {
    let folder = TestFolder::new();
    let cx = &contexts()[0];
    let (_offload, weights) = offload_weights(cx, &folder, true);
    let is_resident = |block: usize| {
        let Location::Offloaded(offloaded) = &weights[block].storage.location else { unreachable!() };
        offloaded.is_resident()
    };
    let order = (0..BLOCKS).chain((0..BLOCKS - 1).rev()).chain(1..3);
    let mut uses = order.peekable();
    while let Some(block) = uses.next() {
        cx.load_offloaded([&weights[block]].into_iter()).unwrap();
        if let Some(next) = uses.peek() {
            assert!(is_resident(*next), "{next} after {block}");
        }
    }
}

#[test]
fn writing_an_offloaded_weight_is_refused() {
    let folder = TestFolder::new();
    for cx in contexts() {
        let (_offload, weights) = offload_weights(&cx, &folder, true);
        let error = cx.receive(&make_weight(0).upload(&cx), &weights[0]).unwrap_err();
        assert!(error.message.contains("cannot be written"), "{error}");
        let tensor = Tensor::new(weights[0].clone(), false);
        assert_eq!(tensor.set_requires_grad(true).unwrap_err().code, Code::NoGradient);
        assert!(!weights.into_iter().next().unwrap().is_unshared());
    }
}
