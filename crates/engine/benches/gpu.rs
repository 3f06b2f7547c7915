//! The GPU compared with its peak arithmetic: products and loops of multiply-adds, an adapted and a frozen layer, and a
//! block of a Llama and its products alone. Medians of fifteen rounds; also a block's launches by kernel.
//!
//! `cargo bench --bench gpu`

use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Instant;

use lowrank_engine::context::{Context, Value};
use lowrank_engine::device::{Device, Sink, gpu::Gpu};
use lowrank_engine::dtype::DType;
use lowrank_engine::kernel::{Access, Implementations, Kernel, Launch};
use lowrank_engine::kernels::elementwise::Function;
use lowrank_engine::kernels::gemm::{Gemm, Matrix, gemm};
use lowrank_engine::ops::added_norm::AddedNorm;
use lowrank_engine::ops::attention::Attention;
use lowrank_engine::ops::binary::Binary;
use lowrank_engine::ops::dropout::Dropout;
use lowrank_engine::ops::linear::Linear;
use lowrank_engine::ops::lora_linear::{LoraLinear, Path};
use lowrank_engine::ops::reshape::Reshape;
use lowrank_engine::ops::rms_norm::RmsNorm;
use lowrank_engine::ops::rotary::Rotary;
use lowrank_engine::ops::silu_mul::SiluMul;
use lowrank_engine::recording::Command;
use lowrank_engine::tape::{Tape, Tensor};

lowrank_engine::scalars! {
    struct Chains { rounds: u32, y: f32 }
}

/// `params[0]` chains of multiply-adds, `params[1]` of each per iteration.
static CHAINS: Kernel = Kernel {
    name: "bench_chains",
    bindings: &[("x", Access::ReadWrite)],
    scalars: Chains::members,
    implementations: Implementations::Gpu(|[chains, unrolled, ..]| {
        let each = |line: &dyn Fn(u32) -> String| (0..chains).map(line).collect::<String>();
        format!(
            "fn kernel(group: u32, lane: u32) {{
  let at = group * THREADS + lane;
  let y = p.y;
  let rounds = p.rounds;
{}  for (var r = 0u; r < rounds; r++) {{
{}  }}
  store_x(at, {});
}}
",
            each(&|i| format!("  var v{i} = load_x(at) + {i}.0;\n")),
            each(&|i| format!("    v{i} = fma(v{i}, y, 0.001);\n")).repeat(unrolled as usize),
            (0..chains).map(|i| format!("v{i}")).collect::<Vec<_>>().join(" + "),
        )
    }),
    variants: Vec::new,
};

fn make_values(cx: &Rc<Context>, shape: &[usize]) -> Value {
    let n: usize = shape.iter().product();
    let bytes = (0..n).flat_map(|i| (((i * 7919) % 1009) as f32 / 5000.0 - 0.1).to_le_bytes()).collect();
    cx.upload(shape, DType::F32, bytes).unwrap()
}

fn wait(cx: &Context) {
    let (send, receive) = channel();
    cx.fence(Box::new(move |r| send.send(r).unwrap()));
    receive.recv().unwrap().unwrap();
}

/// Seconds per run for each of `runs`: medians of fifteen rounds over all. With five rounds, the ratio of two runs of
/// 25 ms varies by a tenth.
fn measure(cx: &Context, runs: &[&dyn Fn()]) -> Vec<f64> {
    let mut took = vec![Vec::new(); runs.len()];
    for round in 0..16 {
        for (run, took) in runs.iter().zip(&mut took) {
            wait(cx);
            let start = Instant::now();
            run();
            wait(cx);
            if round > 0 {
                took.push(start.elapsed().as_secs_f64());
            }
        }
    }
    took.iter_mut().for_each(|t| t.sort_by(f64::total_cmp));
    took.iter().map(|t| t[t.len() / 2]).collect()
}

/// GFLOP/s of multiply-adds alone: 16 chains in a plain loop, and 8 chains unrolled by 8.
fn measure_chains(cx: &Rc<Context>) -> [f64; 2] {
    const GROUPS: u32 = 256;
    const THREADS: u32 = 64;
    let x = make_values(cx, &[(GROUPS * THREADS) as usize]);
    let kinds: [([u32; 2], u32); 2] = [([16, 1], 4000), ([8, 8], 2000)];
    let launch = |i: usize| {
        let ([chains, unrolled], rounds) = kinds[i];
        cx.push(Command::Launch(Launch {
            kernel: &CHAINS,
            params: [chains, unrolled, 0, 0],
            bindings: [x.range()].into_iter().collect(),
            scalars: Chains { rounds, y: 0.999 }.words(),
            groups: GROUPS,
            threads: THREADS,
            work: 1,
        }));
    };
    let took = measure(cx, &[&|| launch(0), &|| launch(1)]);
    [0, 1].map(|i| {
        let ([chains, unrolled], rounds) = kinds[i];
        2.0 * f64::from(chains * unrolled) * f64::from(rounds) * f64::from(GROUPS * THREADS) / took[i] / 1e9
    })
}

fn bench_products(cx: &Rc<Context>, [plain, unrolled]: [f64; 2]) {
    for [m, n, k] in [[1024, 1024, 1024], [512, 1536, 576], [512, 576, 1536], [512, 16, 576], [512, 576, 16]]
    {
        let (a, b, c) = (make_values(cx, &[m, k]), make_values(cx, &[n, k]), make_values(cx, &[m, n]));
        let product = |trans_a: bool, trans_b: bool| {
            let a = Matrix::new(&a, if trans_a { m } else { k }).transposed_if(trans_a);
            let b = Matrix::new(&b, if trans_b { k } else { n }).transposed_if(trans_b);
            gemm(cx, Gemm::new(m, n, k), a, b, None, Matrix::new(&c, n)).unwrap();
        };
        let took =
            measure(cx, &[&|| product(false, true), &|| product(false, false), &|| product(true, false)]);
        let rates: Vec<f64> = took.iter().map(|t| 2.0 * (m * n * k) as f64 / t / 1e9).collect();
        println!(
            "{m:5} x {n:5} x {k:5}: x·Wᵀ {:5.1}, x·W {:5.1}, xᵀ·W {:5.1} GFLOP/s; x·Wᵀ is {:3.0}% of a loop of multiply-adds, {:3.0}% of it unrolled",
            rates[0],
            rates[1],
            rates[2],
            100.0 * rates[0] / plain,
            100.0 * rates[0] / unrolled,
        );
    }
}

fn make_tensor(cx: &Rc<Context>, shape: &[usize], trains: bool) -> Tensor {
    Tensor::new(make_values(cx, shape), trains)
}

/// A frozen layer with an adapter of rank `rank`.
struct Layer {
    weight: Tensor,
    a: Tensor,
    b: Tensor,
}

impl Layer {
    fn new(cx: &Rc<Context>, features: usize, out: usize, rank: usize) -> Layer {
        Layer {
            weight: make_tensor(cx, &[out, features], false),
            a: make_tensor(cx, &[rank, features], true),
            b: make_tensor(cx, &[out, rank], true),
        }
    }

    fn forward(&self, tape: &Tape, x: &Tensor) -> Tensor {
        let paths = vec![Path::whole(2.0, Dropout::default())];
        let op = LoraLinear { paths, ..LoraLinear::default() };
        tape.apply(op, &[x, &self.weight, &self.a, &self.b]).unwrap().swap_remove(0)
    }

    fn clear_grads(&self) {
        self.a.set_grad(None);
        self.b.set_grad(None);
    }
}

fn bench_layers(cx: &Rc<Context>) {
    for [t, features, out] in [[512, 576, 1536], [512, 2048, 2048]] {
        let layer = Layer::new(cx, features, out, 16);
        let (x, d) = (make_tensor(cx, &[t, features], true), make_values(cx, &[t, out]));
        let frozen = || {
            let tape = Tape::default();
            let y = tape.apply1(Linear::default(), &[&x, &layer.weight]).unwrap();
            tape.backward(&y, Some(d.clone())).unwrap();
            x.set_grad(None);
        };
        let adapted = || {
            let tape = Tape::default();
            let y = layer.forward(&tape, &x);
            tape.backward(&y, Some(d.clone())).unwrap();
            x.set_grad(None);
            layer.clear_grads();
        };
        let took = measure(cx, &[&frozen, &adapted]);
        println!(
            "{features} → {out}, {t} tokens, rank 16, forward and backward: frozen {:.1} ms, adapted {:.1} ms, {:.2} times",
            took[0] * 1e3,
            took[1] * 1e3,
            took[1] / took[0],
        );
    }
}

/// A block of SmolLM2-135M: [T, C], heads of 64, MLP of F.
struct Block {
    norms: [Tensor; 2],
    layers: Vec<Layer>,
    tables: [Tensor; 2],
}

const T: usize = 512;
const C: usize = 576;
const KV: usize = 192;
const F: usize = 1536;
const R: usize = 16;

impl Block {
    fn new(cx: &Rc<Context>) -> Block {
        let sizes = [(C, C), (C, KV), (C, KV), (C, C), (C, F), (C, F), (F, C)];
        Block {
            norms: [0, 1].map(|_| make_tensor(cx, &[C], false)),
            layers: sizes.iter().map(|(i, o)| Layer::new(cx, *i, *o, R)).collect(),
            tables: [0, 1].map(|_| make_tensor(cx, &[T, 32], false)),
        }
    }

    /// Like the model's forward, but computes the last sum, too.
    fn forward(&self, tape: &Tape, x: &Tensor) -> Tensor {
        let norm = RmsNorm { eps: 1e-5 };
        let layer = |i: usize, x: &Tensor| self.layers[i].forward(tape, x);
        let in_heads = |x: Tensor| {
            let heads = x.value().shape.last() / 64;
            tape.apply1(Reshape { shape: [1, T, heads, 64].into() }, &[&x]).unwrap()
        };
        let normed = tape.apply(norm, &[x, &self.norms[0]]).unwrap().swap_remove(0);
        let qkv = [0, 1, 2].map(|i| in_heads(layer(i, &normed)));
        let rotary = Rotary { two: true, ..Default::default() };
        let turned = tape.apply(rotary, &[&qkv[0], &qkv[1], &self.tables[0], &self.tables[1]]).unwrap();
        let attention = Attention { causal: true, ..Default::default() };
        let o = tape.apply(attention, &[&turned[0], &turned[1], &qkv[2]]).unwrap().swap_remove(0);
        let o = tape.apply1(Reshape { shape: [T, C].into() }, &[&o]).unwrap();
        drop((normed, qkv, turned));
        let sum = tape.apply(AddedNorm(norm), &[x, &layer(3, &o), &self.norms[1]]).unwrap();
        drop(o);
        let [normed, x] = [&sum[0], &sum[1]];
        let gated = [4, 5].map(|i| layer(i, normed));
        let product = tape.apply1(SiluMul, &[&gated[0], &gated[1]]).unwrap();
        tape.apply1(Binary(Function::Add), &[x, &layer(6, &product)]).unwrap()
    }
}

fn bench_block(cx: &Rc<Context>) {
    let block = Block::new(cx);
    let (x, d) = (make_tensor(cx, &[T, C], true), make_values(cx, &[T, C]));
    let step = || {
        let tape = Tape::default();
        let y = block.forward(&tape, &x);
        tape.backward(&y, Some(d.clone())).unwrap();
        x.set_grad(None);
        block.layers.iter().for_each(Layer::clear_grads);
    };
    step();
    cx.count_launches(true);
    step();
    let mut launches: Vec<_> = cx.count_launches(false).into_iter().collect();
    launches.sort_by_key(|(name, n)| (std::cmp::Reverse(*n), *name));
    let all: u64 = launches.iter().map(|(_, n)| n).sum();
    const SQUARE: usize = 1024;
    let [a, b, c] = [0, 1, 2].map(|_| make_values(cx, &[SQUARE, SQUARE]));
    let product = || {
        let [a, b, c] = [&a, &b, &c].map(|v| Matrix::new(v, SQUARE));
        gemm(cx, Gemm::new(SQUARE, SQUARE, SQUARE), a, b.t(), None, c).unwrap();
    };
    let took = measure(cx, &[&step, &product]);
    let (seconds, rate) = (took[0], 2.0 * SQUARE.pow(3) as f64 / took[1] / 1e9);
    let sizes: Vec<(usize, usize)> =
        block.layers.iter().map(|l| (l.weight.value().shape[1], l.weight.value().shape[0])).collect();
    let dense: usize = sizes.iter().map(|(i, o)| 4 * T * i * o).sum();
    let low: usize = sizes.iter().map(|(i, o)| 6 * T * R * (i + o)).sum();
    // Causal: half of the scores; backward has five products to forward's two.
    let attention = C * T * T * 2 * 7 / 2;
    let flops = (dense + low + attention) as f64;
    println!(
        "a block, {T} tokens, forward and backward: {:.1} ms; its {:.2} GFLOP at the rate of 1024³ take {:.1} ms: {:.2} times",
        seconds * 1e3,
        flops / 1e9,
        flops / rate / 1e6,
        seconds * rate * 1e9 / flops,
    );
    println!("{all} launches: {launches:?}");
}

fn main() {
    let device = Device::start(|| Gpu::open_with(None, None)).unwrap();
    println!("{}", device.profile.name);
    let cx = Context::new(device.profile.clone(), Sink::Thread(device));
    let rates = measure_chains(&cx);
    println!("multiply-adds: 16 chains {:.1} GFLOP/s, 8 chains unrolled by 8 {:.1}", rates[0], rates[1]);
    bench_products(&cx, rates);
    bench_layers(&cx);
    bench_block(&cx);
}
