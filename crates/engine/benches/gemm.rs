//! Products on the processor compared with the `gemm` crate; elements per second are floating-point operations per
//! second.
//!
//! `cargo bench --bench gemm [name]`; `LOWRANK_THREADS=1` for one core, `LOWRANK_BENCH_DEVICE=gpu` for the GPU (without
//! the peer).

use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lowrank_engine::context::{Context, Value};
use lowrank_engine::device::{Device, Sink, cpu::Cpu, gpu::Gpu};
use lowrank_engine::dtype::DType;
use lowrank_engine::kernels::gemm::{Gemm, Matrix, Precision, gemm};

/// m, n, k; whether B is stored transposed, as weights are.
const SHAPES: [(usize, usize, usize, bool); 13] = [
    (512, 576, 1536, true),
    (512, 1536, 576, true),
    (512, 576, 1536, false),
    (512, 1536, 576, false),
    (344, 576, 49152, false),
    (512, 192, 576, true),
    (512, 49152, 576, true),
    (512, 2048, 2048, true),
    (512, 16, 576, true),
    (512, 576, 16, true),
    (16, 576, 512, false),
    (1, 576, 1536, true),
    (8, 576, 1536, true),
];

fn make_values(cx: &Rc<Context>, shape: [usize; 2], dtype: DType) -> Value {
    let value = |i: usize| (i.wrapping_mul(7919) % 1000) as f32 / 500.0 - 1.0;
    let size = shape[0] * shape[1];
    let bytes = match dtype {
        DType::BF16 => (0..size).flat_map(|i| half::bf16::from_f32(value(i)).to_le_bytes()).collect(),
        _ => (0..size).flat_map(|i| value(i).to_le_bytes()).collect(),
    };
    cx.upload(shape, dtype, bytes).unwrap()
}

fn wait(cx: &Context) {
    let (send, receive) = channel();
    cx.fence(Box::new(move |r| send.send(r).unwrap()));
    receive.recv().unwrap().unwrap();
}

fn count_threads() -> usize {
    std::env::var("LOWRANK_THREADS").ok().and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn bench_products(criterion: &mut Criterion) {
    let on_gpu = std::env::var("LOWRANK_BENCH_DEVICE").is_ok_and(|v| v == "gpu");
    let device = match on_gpu {
        true => Device::start(|| Gpu::open_with(None, None)),
        false => Device::start(|| Cpu::open(count_threads())),
    };
    let device = device.unwrap();
    let cx = Context::new(device.profile.clone(), Sink::Thread(device));
    for (m, n, k, transposed) in SHAPES {
        let (a, c) = (make_values(&cx, [m, k], DType::F32), make_values(&cx, [m, n], DType::F32));
        let shape = if transposed { [n, k] } else { [k, n] };
        let letter = if transposed { "Wᵀ" } else { "W" };
        let mut group = criterion.benchmark_group(format!("{m}x{n}x{k} x·{letter}"));
        group.throughput(Throughput::Elements(2 * (m * n * k) as u64));
        group.sample_size(10).warm_up_time(Duration::from_millis(300));
        group.measurement_time(Duration::from_secs(2));
        let forms = [
            ("f32", DType::F32, Precision::Exact),
            ("bf16", DType::BF16, Precision::Exact),
            ("bf16, rounded", DType::BF16, Precision::Bf16),
        ];
        for (name, dtype, precision) in forms {
            let b = make_values(&cx, shape, dtype);
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let b = Matrix::new(&b, shape[1]).transposed_if(transposed);
                    let g = Gemm::new(m, n, k).precision(precision);
                    gemm(&cx, g, Matrix::new(&a, k), b, None, Matrix::new(&c, n)).unwrap();
                    wait(&cx);
                });
            });
        }
        if !on_gpu {
            let (a, b, mut c) = (vec![0.5f32; m * k], vec![0.25f32; k * n], vec![0f32; m * n]);
            let (row, column) = if transposed { (1, k as isize) } else { (n as isize, 1) };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(count_threads()).build().unwrap();
            let parallel = gemm::Parallelism::Rayon(pool.current_num_threads());
            group.bench_function("gemm crate", |bencher| {
                pool.install(|| {
                    // SAFETY: the slices hold m x k, k x n and m x n elements at these strides.
                    bencher.iter(|| unsafe {
                        let (c, a, b) = (c.as_mut_ptr(), a.as_ptr(), b.as_ptr());
                        let (n_stride, k_stride) = (n as isize, k as isize);
                        gemm::gemm(
                            m, n, k, c, 1, n_stride, false, a, 1, k_stride, b, column, row, 0.0, 1.0, false,
                            false, false, parallel,
                        );
                    })
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench_products);
criterion_main!(benches);
