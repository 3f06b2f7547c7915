//! Both gradients of silu(gate) · up in one pass.
//!
//! Maths: d_up = d · silu(gate), and d_gate = d · up · silu'(gate), which overwrites d. Layout: all contiguous and of
//! equal size; one invocation per element or per four (wide.rs). Cost: three reads and two writes, bound by memory, and
//! one exponential instead of two in separate passes. Both are bit-identical to the results of `map`.

use std::rc::Rc;

use lowrank_cpu::simd::{sigmoid, vectorised};
use lowrank_cpu::tasks::{GRAIN, Shared, each_chunk};

use super::function::PRELUDE;
use super::{THREADS, wide};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::native::NativeLaunch;
use crate::kernel::{Access, Implementations, Kernel, Launch, Variant};
use crate::launch::{Bind, for_each_window};
use crate::scalars;

scalars! {
    struct Gated { size: u32 }
}

pub static BACKWARD: Kernel = Kernel {
    name: "silu_mul backward",
    bindings: &[
        ("gate", Access::Read),
        ("up", Access::Read),
        ("d", Access::ReadWrite),
        ("d_up", Access::Write),
    ],
    scalars: Gated::members,
    implementations: Implementations::Both {
        wgsl: |params| match params[2] {
            1 => {
                let names = ["gate", "up", "d", "d_up"].into_iter().enumerate();
                let bound: String = names.map(|(i, name)| wide::emit_vectors(name, i, i > 1)).collect();
                PRELUDE.to_string() + GRADIENTS + &bound + WIDE_WGSL
            }
            _ => PRELUDE.to_string() + GRADIENTS + WGSL,
        },
        native: run_native,
    },
    variants: || {
        let plain = Variant { params: [0; 4], dtypes: vec![DType::F32; 4], threads: THREADS };
        vec![plain, wide::make_variant([0; 4], 4)]
    },
};

/// Computes d_gate and d_up of an element.
const GRADIENTS: &str = "
fn gradients(gate: f32, up: f32, d: f32) -> vec2<f32> {
  if is_nan(gate) || is_nan(d) { return vec2<f32>(nan()); }
  let s = sigmoid(gate);
  let d_gate = d * up * s * (1.0 + gate * (1.0 - s));
  return vec2<f32>(select(d_gate, nan(), is_nan(up)), gate * s * d);
}
";

const WGSL: &str = "
fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if i >= p.size { return; }
  let both = gradients(load_gate(i), load_up(i), load_d(i));
  store_d(i, both.x);
  store_d_up(i, both.y);
}
";

const WIDE_WGSL: &str = "
fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if i >= p.size / 4u { return; }
  let gate = load4_gate(i);
  let up = load4_up(i);
  let d = load4_d(i);
  let x = gradients(gate.x, up.x, d.x);
  let y = gradients(gate.y, up.y, d.y);
  let z = gradients(gate.z, up.z, d.z);
  let w = gradients(gate.w, up.w, d.w);
  store4_d(i, vec4<f32>(x.x, y.x, z.x, w.x));
  store4_d_up(i, vec4<f32>(x.y, y.y, z.y, w.y));
}
";

fn run_native(l: &NativeLaunch) {
    let (gate, up) = (l.read::<f32>(0), l.read::<f32>(1));
    let (d, d_up) = (l.write::<f32>(2), l.write::<f32>(3));
    let d_up = Shared::new(d_up);
    each_chunk(d, GRAIN, |at, d| {
        let end = at + d.len();
        // SAFETY: chunks do not overlap.
        compute_chunk(&gate[at..end], &up[at..end], d, unsafe { d_up.slice(at, d.len()) });
    });
}

vectorised! {
    fn compute_chunk(gate: &[f32], up: &[f32], d: &mut [f32], d_up: &mut [f32]) {
        for ((d, d_up), (gate, up)) in d.iter_mut().zip(d_up).zip(gate.iter().zip(up)) {
            let s = sigmoid::<S>(*gate);
            *d_up = gate * s * *d;
            *d = *d * up * s * S::fma(*gate, 1.0 - s, 1.0);
        }
    }
}

/// Appends d_up, and d_gate, which overwrites d.
pub fn silu_mul_backward(cx: &Rc<Context>, gate: &Value, up: &Value, d: &Value, d_up: &Value) -> Result<()> {
    let binds = [gate, up, d, d_up].map(|v| Bind::new(v, &[1], 1));
    for_each_window(cx, BACKWARD.name, &[d.size()], &[wide::ELEMENTS], &binds, |window| {
        let size = window.count[0] as u32;
        let wide = wide::fits(window.count[0], &window.ranges);
        cx.launch(Launch {
            kernel: &BACKWARD,
            params: [0, 0, wide as u32, 0],
            bindings: window.ranges,
            scalars: Gated { size }.words(),
            groups: if wide { wide::count_groups(size as usize) } else { size.div_ceil(THREADS) },
            threads: THREADS,
            work: size as u64 * 8,
        });
    })
}
