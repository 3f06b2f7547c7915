//! What reading memory costs: a plain sum by every core, and the products of decoding, whose weights are
//! read once each: gigabytes of weights a second, and the share of the sum's.
//!
//! `cargo bench --bench bandwidth`; `LOWRANK_THREADS=1` for one core.

use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Instant;

use lowrank_engine::context::Context;
use lowrank_engine::device::{Device, Sink, cpu::Cpu};
use lowrank_engine::dtype::DType;
use lowrank_engine::kernels::gemm::{Gemm, Matrix, gemm};
use lowrank_engine::quant::BlockType;
use lowrank_engine::value::Value;
use memmap2::MmapMut;

/// Bytes that no cache holds.
const PAST_CACHES: usize = 640 << 20;
const ROUNDS: usize = 9;
/// n, k of SmolLM2-135M's products; the last is its head.
const SHAPES: [(usize, usize); 5] = [(576, 576), (192, 576), (1536, 576), (576, 1536), (49152, 576)];

fn threads() -> usize {
    let asked = std::env::var("LOWRANK_THREADS").ok().and_then(|v| v.parse().ok());
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
}

fn median(mut list: Vec<f64>) -> f64 {
    list.sort_by(f64::total_cmp);
    list[list.len() / 2]
}

/// Gigabytes a second of summing what lies in memory.
fn plain_sum(threads: usize) -> f64 {
    let mut memory = MmapMut::map_anon(PAST_CACHES).unwrap();
    #[cfg(target_os = "linux")]
    memory.advise(memmap2::Advice::HugePage).ok();
    memory.fill(1);
    let words: &[u64] = bytemuck::cast_slice(&memory);
    let sum = |words: &[u64]| {
        let mut sums = [0u64; 32];
        for line in words.as_chunks::<32>().0 {
            for (sum, word) in sums.iter_mut().zip(line) {
                *sum ^= word;
            }
        }
        sums.iter().fold(0, |all, sum| all ^ sum)
    };
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(words.len().div_ceil(threads)) {
                scope.spawn(move || std::hint::black_box(sum(part)));
            }
        });
        PAST_CACHES as f64 / start.elapsed().as_secs_f64() / 1e9
    });
    median(rounds.collect())
}

fn wait(cx: &Context) {
    let (send, receive) = channel();
    cx.fence(Box::new(move |r| send.send(r).unwrap()));
    receive.recv().unwrap().unwrap();
}

/// Gigabytes a second of one row against one weight after another, each `skip` elements past a page's
/// start, as those of a mapped file may lie.
fn product(cx: &Rc<Context>, (n, k): (usize, usize), dtype: DType, skip: usize) -> f64 {
    let bytes = dtype.bytes_of(n * k);
    let weights: Vec<Value> = (0..PAST_CACHES.div_ceil(bytes))
        .map(|_| {
            let whole = cx.empty([skip + n * k], dtype).unwrap();
            cx.zero(&whole);
            whole.sub_range(skip, [n, k])
        })
        .collect();
    let a = cx.upload([1, k], DType::F32, vec![0; 4 * k]).unwrap();
    let c = cx.empty([1, n], DType::F32).unwrap();
    wait(cx);
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        for weight in &weights {
            let b = Matrix::new(weight, k).t();
            gemm(cx, Gemm::new(1, n, k), Matrix::new(&a, k), b, None, Matrix::new(&c, n)).unwrap();
        }
        wait(cx);
        (weights.len() * bytes) as f64 / start.elapsed().as_secs_f64() / 1e9
    });
    median(rounds.collect())
}

fn main() {
    let threads = threads();
    let peak = plain_sum(threads);
    println!("plain sum, {threads} threads: {peak:.1} GB/s");
    let device = Device::start(move || Cpu::open(threads)).unwrap();
    let plain = [DType::F32, DType::BF16, DType::F16].into_iter();
    for dtype in plain.chain(BlockType::EVERY.map(DType::Block)) {
        for (n, k) in SHAPES.into_iter().filter(|(n, k)| dtype.divides(&[*n, *k].into())) {
            let cx = Context::new(device.profile.clone(), Sink::Thread(device.clone()));
            let share = |rate: f64| 100.0 * rate / peak;
            let name = format!("1 x {n} x {k} {}", dtype.as_str());
            if dtype.is_block() {
                let rate = product(&cx, (n, k), dtype, 0);
                println!("{name}: {rate:.1} GB/s, {:.0}%", share(rate));
                continue;
            }
            let [rate, apart] = [0, 6].map(|skip| product(&cx, (n, k), dtype, skip));
            let share = share(rate);
            println!("{name}: {rate:.1} GB/s, {share:.0}%; off a line's start {apart:.1} GB/s");
        }
    }
}
