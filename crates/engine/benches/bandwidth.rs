//! The cost of reading memory: a plain sum on every core and, alternating with it, the products of decoding, which read
//! each weight once. Reports gigabytes of weights per second, and the share of the sum's rate. All data is in a mapped
//! file with small pages, like weights; with huge pages the same cores may read half as much again.
//!
//! `cargo bench --bench bandwidth -- [TYPE…]`; `LOWRANK_THREADS=1` for one core.

use std::fs::File;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use lowrank_cpu::quant::BlockType;
use lowrank_engine::context::{Context, Value};
use lowrank_engine::device::{Device, Sink, cpu::Cpu};
use lowrank_engine::dtype::DType;
use lowrank_engine::kernels::gemm::{Gemm, Matrix, gemm};
use lowrank_engine::mapped_file::MappedFile;

/// More bytes than any cache has.
const PAST_CACHES: usize = 640 << 20;
const ROUNDS: usize = 9;
/// n, k of SmolLM2-135M's products, up to its head, and of the gated MLP in a model of a billion parameters.
const SHAPES: [(usize, usize); 7] =
    [(576, 576), (192, 576), (1536, 576), (576, 1536), (49152, 576), (8192, 2048), (2048, 8192)];

fn count_threads() -> usize {
    let asked = std::env::var("LOWRANK_THREADS").ok().and_then(|v| v.parse().ok());
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
}

fn median(mut list: Vec<f64>) -> f64 {
    list.sort_by(f64::total_cmp);
    list[list.len() / 2]
}

/// Returns a file of `PAST_CACHES` bytes with all pages in the page cache.
fn create_file() -> Arc<MappedFile> {
    let path = std::env::temp_dir().join(format!("lowrank-bandwidth-{}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let piece = vec![1; 1 << 20];
    (0..PAST_CACHES / piece.len()).for_each(|_| file.write_all(&piece).unwrap());
    let mapped = MappedFile::new(&path, &file).unwrap();
    // The mapping outlives the name; Windows keeps the name until the file is unmapped.
    std::fs::remove_file(&path).ok();
    mapped
}

/// Gigabytes per second of a plain sum.
fn measure_sum(file: &MappedFile, threads: usize) -> f64 {
    let sum = |bytes: &[u8]| {
        let mut sums = [0u64; 32];
        for line in bytes.as_chunks::<256>().0 {
            for (sum, word) in sums.iter_mut().zip(line.as_chunks::<8>().0) {
                *sum ^= u64::from_le_bytes(*word);
            }
        }
        sums.iter().fold(0, |all, sum| all ^ sum)
    };
    let start = Instant::now();
    let read = |bytes: &[u8]| {
        std::thread::scope(|scope| {
            for part in bytes.chunks(bytes.len().div_ceil(threads)) {
                scope.spawn(move || std::hint::black_box(sum(part)));
            }
        });
    };
    file.read(read).unwrap();
    PAST_CACHES as f64 / start.elapsed().as_secs_f64() / 1e9
}

fn wait(cx: &Context) {
    let (send, receive) = channel();
    cx.fence(Box::new(move |r| send.send(r).unwrap()));
    receive.recv().unwrap().unwrap();
}

/// Gigabytes per second of products of one row with one weight after another, where weights start `skip` elements past
/// a cache line, as in a mapped file; the plain sum's rate, and the ratio of both.
fn measure_products(
    cx: &Rc<Context>,
    file: &Arc<MappedFile>,
    threads: usize,
    (n, k): (usize, usize),
    dtype: DType,
    skip: usize,
) -> [f64; 3] {
    let bytes = dtype.byte_size(n * k);
    let stride = (dtype.byte_size(skip) + bytes).next_multiple_of(64);
    let weights: Vec<Value> = (0..PAST_CACHES / stride)
        .map(|i| cx.map([n, k], dtype, file, (i * stride + dtype.byte_size(skip)) as u64).unwrap())
        .collect();
    let a = cx.upload([1, k], DType::F32, vec![0; 4 * k]).unwrap();
    let c = cx.empty([1, n], DType::F32).unwrap();
    wait(cx);
    let rounds = (0..ROUNDS).map(|_| {
        let read = measure_sum(file, threads);
        let start = Instant::now();
        for weight in &weights {
            let b = Matrix::new(weight, k).t();
            gemm(cx, Gemm::new(1, n, k), Matrix::new(&a, k), b, None, Matrix::new(&c, n)).unwrap();
        }
        wait(cx);
        let rate = (weights.len() * bytes) as f64 / start.elapsed().as_secs_f64() / 1e9;
        [rate, read, rate / read]
    });
    let rounds: Vec<_> = rounds.collect();
    std::array::from_fn(|i| median(rounds.iter().map(|round| round[i]).collect()))
}

fn main() {
    let threads = count_threads();
    let file = create_file();
    measure_sum(&file, threads);
    println!("{threads} threads");
    let device = Device::start(move || Cpu::open(threads)).unwrap();
    let all = [DType::F32, DType::BF16, DType::F16].into_iter().chain(BlockType::EVERY.map(DType::Block));
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for dtype in all.filter(|one| asked.is_empty() || asked.iter().any(|name| name == one.as_str())) {
        for (n, k) in SHAPES.into_iter().filter(|(n, k)| dtype.divides(&[*n, *k].into())) {
            let cx = Context::new(device.profile.clone(), Sink::Thread(device.clone()));
            let [rate, read, share] = measure_products(&cx, &file, threads, (n, k), dtype, 0);
            let share = 100.0 * share;
            print!("1 x {n} x {k} {}: {rate:.1} of {read:.1} GB/s, {share:.0}%", dtype.as_str());
            if dtype.is_block() {
                println!();
                continue;
            }
            let [unaligned, ..] = measure_products(&cx, &file, threads, (n, k), dtype, 6);
            println!("; off a line's start {unaligned:.1} GB/s");
        }
    }
}
