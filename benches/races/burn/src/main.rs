//! burn's native backend (flex, the successor of ndarray) in a race: the counterpart of `own-block.ts`.
//!
//!     race-burn product|linear|block
//!
//! Takes a warm-up turn, prints a line {"ready": true}, then takes a turn for each line on stdin.

mod block;

use std::io::BufRead;
use std::time::Instant;

use block::{Block, LoraLinear, random};
use burn::tensor::{Device, Tensor};

/// Passes per turn; a pass takes a few milliseconds.
const PASSES: usize = 10;

fn main() {
    let device = Device::flex();
    let what = std::env::args().nth(1).unwrap_or_default();
    let mut turn: Box<dyn FnMut()> = match what.as_str() {
        "product" => {
            let (a, b) = (random::<2>([1024, 1024], &device), random::<2>([1024, 1024], &device));
            Box::new(move || force(a.clone().matmul(b.clone())))
        }
        "linear" => {
            let device = device.autodiff();
            let layer = LoraLinear::new(1024, 1024, &device);
            let x = random::<2>([1024, 1024], &device).require_grad();
            Box::new(move || {
                let gradients = layer.forward(x.clone()).backward();
                force(x.grad(&gradients).expect("it asks for one"));
                layer.adapter().for_each(|p| force(p.grad(&gradients).expect("it asks for one")));
            })
        }
        "block" => {
            let device = device.autodiff();
            let block = Block::new(&device);
            let x = random::<2>([block::TOKENS, block::WIDTH], &device).require_grad();
            Box::new(move || {
                let gradients = block.forward(x.clone()).backward();
                force(x.grad(&gradients).expect("it asks for one"));
                block.adapters().for_each(|p| force(p.grad(&gradients).expect("it asks for one")));
            })
        }
        _ => panic!("usage: race-burn product|linear|block"),
    };
    turn();
    println!("{{\"ready\": true}}");
    for line in std::io::stdin().lock().lines() {
        line.expect("a line");
        let start = Instant::now();
        (0..PASSES).for_each(|_| turn());
        let ms = start.elapsed().as_secs_f64() * 1e3;
        println!("{{\"ms\": {ms}, \"passes\": {PASSES}, \"peakMiB\": {}}}", peak_mib());
    }
}

/// Does nothing, since this backend computes synchronously.
fn force<const D: usize>(value: Tensor<D>) {
    std::hint::black_box(value);
}

/// The peak of the resident set so far.
fn peak_mib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.map_or("null".into(), |kib| (kib / 1024.0).to_string())
}
