//! Elementwise and row kernels on the processor: seconds per call and bytes moved per second.
//!
//! `cargo bench --bench rows [name]`

use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Instant;

use lowrank_engine::context::{Context, Value};
use lowrank_engine::device::{Device, Sink, cpu::Cpu};
use lowrank_engine::dtype::DType;
use lowrank_engine::kernels::elementwise::{Function, map};
use lowrank_engine::kernels::gemm::Precision;
use lowrank_engine::kernels::reduce::{Reduction, argmax, reduce};
use lowrank_engine::op::{Backward, Op, run};
use lowrank_engine::ops::cross_entropy::{self, CrossEntropy};
use lowrank_engine::ops::layer_norm::LayerNorm;
use lowrank_engine::ops::linear_cross_entropy::{LinearCrossEntropy, WantedGradients};
use lowrank_engine::ops::rms_norm::RmsNorm;
use lowrank_engine::ops::softmax::Softmax;

fn make_values(cx: &Rc<Context>, shape: &[usize]) -> Value {
    let n: usize = shape.iter().product();
    let bytes = (0..n).flat_map(|i| (((i * 7919) % 1000) as f32 / 250.0 - 2.0).to_le_bytes()).collect();
    cx.upload(shape, DType::F32, bytes).unwrap()
}

fn make_indices(cx: &Rc<Context>, n: usize, below: usize) -> Value {
    let bytes = (0..n).flat_map(|i| ((i * 7919 % below) as i32).to_le_bytes()).collect();
    cx.upload([n], DType::I32, bytes).unwrap()
}

/// Forward and backward of an operation; `bytes` is the size of x and y.
fn measure_operation(cx: &Rc<Context>, name: &str, op: &dyn Op, inputs: &[&Value], bytes: usize) {
    measure(cx, name, bytes, || drop(run(cx, op, inputs).unwrap()));
    let outputs = run(cx, op, inputs).unwrap();
    let mut d_outs = vec![None; outputs.len()];
    d_outs[0] = Some(make_values(cx, &outputs[0].shape));
    let needs: Vec<bool> = (0..inputs.len()).map(|i| i == 0).collect();
    let inputs: Vec<Value> = inputs.iter().map(|v| (*v).clone()).collect();
    let pass = Backward::after(op, &inputs, &outputs, &needs, d_outs);
    measure(cx, &format!("{name} backward"), bytes + bytes / 2, || {
        drop(op.backward(cx, &pass).unwrap());
    });
}

fn wait(cx: &Context) {
    let (send, receive) = channel();
    cx.fence(Box::new(move |r| send.send(r).unwrap()));
    receive.recv().unwrap().unwrap();
}

/// Seconds of CPU time of this process's threads, if the system reports it: on a busy machine it is more reliable than
/// the wall clock.
fn read_core_seconds() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|t| {
        let stat = std::fs::read_to_string(t.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e9
}

/// The best of five runs of ten calls: wall time and bytes per second; CPU time and bytes per second of one core.
fn measure(cx: &Context, name: &str, bytes: usize, f: impl Fn()) {
    if std::env::args().nth(1).is_some_and(|only| !only.starts_with('-') && !name.contains(&only)) {
        return;
    }
    f();
    wait(cx);
    let best = (0..5).fold([f64::INFINITY; 2], |best, _| {
        let (start, core) = (Instant::now(), read_core_seconds());
        (0..10).for_each(|_| f());
        wait(cx);
        let took = [start.elapsed().as_secs_f64() / 10.0, (read_core_seconds() - core) / 10.0];
        [best[0].min(took[0]), best[1].min(took[1])]
    });
    let [wall, core] = best.map(|t| format!("{:9.1} µs {:6.1} GB/s", t * 1e6, bytes as f64 / t / 1e9));
    println!("{name:28} {wall}   core {core}");
}

fn main() {
    let device = Device::start(|| Cpu::open(0)).unwrap();
    let cx = Context::new(device.profile.clone(), Sink::Thread(device));
    let n = 1 << 20;
    let (a, b, c, y) =
        (make_values(&cx, &[n]), make_values(&cx, &[n]), make_values(&cx, &[n]), make_values(&cx, &[n]));
    use Function::*;
    for f in [Copy, Exp, Sigmoid, Tanh, Silu, Gelu, GeluTanh, Square] {
        measure(&cx, f.name(), 8 * n, || map(&cx, f, &[&a], &y).unwrap());
    }
    for f in [Add, Sub, Mul, Div, SiluBackward, GeluBackward, GeluTanhBackward, SiluMul] {
        measure(&cx, f.name(), 12 * n, || map(&cx, f, &[&a, &b], &y).unwrap());
    }
    for f in [SiluMulBackward, Where, Clamp] {
        measure(&cx, f.name(), 16 * n, || map(&cx, f, &[&a, &b, &c], &y).unwrap());
    }
    let (x, row, column) =
        (make_values(&cx, &[1024, 1024]), make_values(&cx, &[1024]), make_values(&cx, &[1024, 1]));
    let y = make_values(&cx, &[1024, 1024]);
    measure(&cx, "add a row", 8 * n, || map(&cx, Add, &[&x, &row], &y).unwrap());
    measure(&cx, "mul a column", 8 * n, || map(&cx, Mul, &[&x, &column], &y).unwrap());

    let y = make_values(&cx, &[1]);
    measure(&cx, "sum of all", 4 * n, || reduce(&cx, Reduction::Sum, &a, [1, n, 1], &y).unwrap());
    let y = make_values(&cx, &[1024]);
    for (name, reduction) in [("sum", Reduction::Sum), ("max", Reduction::Max)] {
        for (over, space) in [("rows", [1024, 1024, 1]), ("columns", [1, 1024, 1024])] {
            measure(&cx, &format!("{name} of {over}"), 4 * n, || {
                reduce(&cx, reduction, &x, space, &y).unwrap()
            });
        }
    }
    let y = make_indices(&cx, 1024, 1);
    measure(&cx, "argmax of rows", 4 * n, || argmax(&cx, &x, [1024, 1024, 1], &y).unwrap());

    // A step of SmolLM2-135M: 512 tokens, width 576, a vocabulary of 49,152.
    let (t, c, v) = (512, 576, 49_152);
    let (x, w) = (make_values(&cx, &[t, c]), make_values(&cx, &[c]));
    measure_operation(&cx, "rms norm", &RmsNorm { eps: 1e-5 }, &[&x, &w], 8 * t * c);
    let layer = LayerNorm { eps: 1e-5, weight: true, bias: true };
    measure_operation(&cx, "layer norm", &layer, &[&x, &w, &w], 8 * t * c);
    let scores = make_values(&cx, &[9, t, t]);
    measure_operation(&cx, "softmax", &Softmax::new(2), &[&scores], 8 * 9 * t * t);
    measure_operation(&cx, "log softmax", &Softmax::log(2), &[&scores], 8 * 9 * t * t);
    measure_operation(&cx, "softmax over columns", &Softmax::new(1), &[&scores], 8 * 9 * t * t);
    let (logits, targets) = (make_values(&cx, &[t, v]), make_indices(&cx, t, v));
    measure_operation(&cx, "cross entropy", &CrossEntropy::default(), &[&logits, &targets], 4 * t * v);
    let head = make_values(&cx, &[v, c]);
    let op = LinearCrossEntropy {
        ignore_index: -100,
        label_smoothing: 0.0,
        reduction: cross_entropy::Reduction::Mean,
        wanted: WantedGradients { hidden: true, ..WantedGradients::default() },
        precision: Precision::Exact,
    };
    measure_operation(&cx, "linear cross entropy", &op, &[&x, &head, &targets], 4 * v * c);
    let op = LinearCrossEntropy { wanted: WantedGradients::default(), ..op };
    measure(&cx, "linear cross entropy without gradient", 4 * v * c, || {
        drop(run(&cx, &op, &[&x, &head, &targets]).unwrap());
    });
}
