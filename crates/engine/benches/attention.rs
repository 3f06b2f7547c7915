//! Attention on the processor at a model's shapes: milliseconds per call, and GFLOP/s.
//!
//! `cargo bench --bench attention`

use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Instant;

use lowrank_engine::context::{Context, Value};
use lowrank_engine::device::{Device, Sink, cpu::Cpu};
use lowrank_engine::dtype::DType;
use lowrank_engine::kernels::gemm::Precision;
use lowrank_engine::op::{Backward, Op, run};
use lowrank_engine::ops::attention::Attention;

fn make_values(cx: &Rc<Context>, shape: &[usize]) -> Value {
    let n: usize = shape.iter().product();
    let bytes = (0..n).flat_map(|i| (((i * 7919) % 1009) as f32 / 500.0 - 1.0).to_le_bytes()).collect();
    cx.upload(shape, DType::F32, bytes).unwrap()
}

fn wait(cx: &Context) {
    let (send, receive) = channel();
    cx.fence(Box::new(move |r| send.send(r).unwrap()));
    receive.recv().unwrap().unwrap();
}

/// Seconds per call: the best of ten runs of five.
fn measure(cx: &Context, f: impl Fn()) -> f64 {
    f();
    wait(cx);
    let run = || {
        let start = Instant::now();
        (0..5).for_each(|_| f());
        wait(cx);
        start.elapsed().as_secs_f64() / 5.0
    };
    (0..10).map(|_| run()).fold(f64::INFINITY, f64::min)
}

fn main() {
    let device = Device::start(|| Cpu::open(0)).unwrap();
    let cx = Context::new(device.profile.clone(), Sink::Thread(device));
    for (name, [b, t, s, heads, kv_heads, dim]) in [
        ("SmolLM2-135M, 512 tokens", [1, 512, 512, 9, 3, 64]),
        ("SmolLM2-135M, 2048 tokens", [1, 2048, 2048, 9, 3, 64]),
        ("Llama-3.2-1B, 512 tokens", [1, 512, 512, 32, 8, 64]),
        ("SmolLM2-135M, decoding at 512", [1, 1, 512, 9, 3, 64]),
        ("SmolLM2-135M, decoding at 4096", [1, 1, 4096, 9, 3, 64]),
    ] {
        for precision in [Precision::Exact, Precision::Bf16] {
            let op = Attention { causal: true, offset: s - t, precision, ..Default::default() };
            let name = format!("{name}, {precision:?}");
            let q = make_values(&cx, &[b, t, heads, dim]);
            let [k, v] = [0, 1].map(|_| make_values(&cx, &[b, s, kv_heads, dim]));
            let inputs = [&q, &k, &v];
            let seconds = measure(&cx, || drop(run(&cx, &op, &inputs).unwrap()));
            let flops = (b * heads * dim * 4 * if t == 1 { s } else { t * (s + 1) / 2 }) as f64;
            println!("{name:40} forward  {:8.3} ms {:6.1} GFLOP/s", seconds * 1e3, flops / seconds / 1e9);
            if t == 1 {
                continue;
            }
            let outputs = run(&cx, &op, &inputs).unwrap();
            let d = vec![Some(make_values(&cx, &q.shape)), None];
            let pass = Backward::after(&op, &inputs.map(Value::clone), &outputs, &[true; 3], d);
            let seconds = measure(&cx, || drop(op.backward(&cx, &pass).unwrap()));
            println!(
                "{name:40} backward {:8.3} ms {:6.1} GFLOP/s",
                seconds * 1e3,
                2.5 * flops / seconds / 1e9
            );
        }
    }
}
