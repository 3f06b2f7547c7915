//! Elementwise and row kernels on the processor: seconds a call and bytes moved a second.
//!
//! `cargo bench --bench rows [name]`

use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Instant;

use lowrank_engine::device::{Device, Sink, cpu::Cpu};
use lowrank_engine::dtype::DType;
use lowrank_engine::kernels::elementwise::{Function, map};
use lowrank_engine::tensor::{Context, Value};

fn values(cx: &Rc<Context>, shape: &[usize]) -> Value {
    let n: usize = shape.iter().product();
    let bytes = (0..n).flat_map(|i| (((i * 7919) % 1000) as f32 / 250.0 - 2.0).to_le_bytes()).collect();
    cx.upload(shape, DType::F32, bytes).unwrap()
}

fn wait(cx: &Context) {
    let (send, receive) = channel();
    cx.fence(Box::new(move |r| send.send(r).unwrap()));
    receive.recv().unwrap().unwrap();
}

/// The best of five runs of 20 calls.
fn time(cx: &Context, name: &str, bytes: usize, f: impl Fn()) {
    if std::env::args().nth(1).is_some_and(|only| !only.starts_with('-') && !name.contains(&only)) {
        return;
    }
    f();
    wait(cx);
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            (0..20).for_each(|_| f());
            wait(cx);
            start.elapsed().as_secs_f64() / 20.0
        })
        .fold(f64::INFINITY, f64::min);
    println!("{name:32} {:9.1} µs {:7.1} GB/s", best * 1e6, bytes as f64 / best / 1e9);
}

fn main() {
    let device = Device::start(|| Cpu::open(0)).unwrap();
    let cx = Context::new(device.profile.clone(), Sink::Thread(device));
    let n = 1 << 20;
    let (a, b, c, y) = (values(&cx, &[n]), values(&cx, &[n]), values(&cx, &[n]), values(&cx, &[n]));
    use Function::*;
    for f in [Copy, Exp, Sigmoid, Tanh, Silu, Gelu, GeluTanh, Square] {
        time(&cx, f.name(), 8 * n, || map(&cx, f, &[&a], &y).unwrap());
    }
    for f in [Add, Sub, Mul, Div, SiluBackward, GeluBackward, GeluTanhBackward, SiluMul] {
        time(&cx, f.name(), 12 * n, || map(&cx, f, &[&a, &b], &y).unwrap());
    }
    for f in [SiluMulBackward, Where, Clamp] {
        time(&cx, f.name(), 16 * n, || map(&cx, f, &[&a, &b, &c], &y).unwrap());
    }
    let (x, row, column) = (values(&cx, &[1024, 1024]), values(&cx, &[1024]), values(&cx, &[1024, 1]));
    let y = values(&cx, &[1024, 1024]);
    time(&cx, "add a row", 8 * n, || map(&cx, Add, &[&x, &row], &y).unwrap());
    time(&cx, "mul a column", 8 * n, || map(&cx, Mul, &[&x, &column], &y).unwrap());
}
