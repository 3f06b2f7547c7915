//! A constant fill. Cost: one pass of writing; nothing is uploaded.

#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use lowrank_cpu::tasks::each_chunk;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Implementations, Kernel, Launch, Variant};
use crate::launch::{Bind, for_each_window};
use crate::scalars;
use crate::shape::Shape;

const THREADS: u32 = 128;

scalars! {
    struct Scalars { size: u32, word: u32 }
}

/// Writes words of four bytes; a word has two half-precision values.
static FILL: Kernel = Kernel {
    name: "fill",
    bindings: &[("y", Access::Write)],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |_| WGSL.into(),
        native: |l| {
            let Scalars { word, .. } = l.scalars();
            each_chunk(l.write::<u32>(0), 64 * 1024, |_, y| y.fill(word));
        },
    },
    variants: || vec![Variant { params: [0; 4], dtypes: vec![DType::I32], threads: THREADS }],
};

pub const KERNELS: &[&Kernel] = &[&FILL];

const WGSL: &str = "
fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if i < p.size { store_y(i, bitcast<i32>(p.word)); }
}
";

/// Creates a value filled with `value`, rounded to `dtype`.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY`.
pub fn full(cx: &Rc<Context>, shape: impl Into<Shape>, dtype: DType, value: f64) -> Result<Value> {
    let y = cx.empty(shape, dtype)?;
    fill(cx, &y, value)?;
    Ok(y)
}

/// Appends y = `value` everywhere, rounded to its dtype. y must be a whole storage.
///
/// # Errors
/// None on existing devices.
pub fn fill(cx: &Rc<Context>, y: &Value, value: f64) -> Result<()> {
    let pair = |half: u16| half as u32 | (half as u32) << 16;
    let word = match y.dtype {
        DType::F32 => (value as f32).to_bits(),
        DType::I32 => value as i32 as u32,
        DType::F16 => pair(half::f16::from_f64(value).to_bits()),
        DType::BF16 => pair(half::bf16::from_f64(value).to_bits()),
        DType::Block(_) => unreachable!("nothing makes blocks of a value"),
    };
    if word == 0 {
        cx.zero(y);
        return Ok(());
    }
    // A storage has a whole number of words.
    let words = Value { shape: [y.bytes().div_ceil(4)].into(), dtype: DType::I32, ..y.clone() };
    for_each_window(cx, "full", &[words.size()], &[], &[Bind::new(&words, &[1], 1)], |window| {
        let n = window.count[0] as u32;
        cx.launch(Launch {
            kernel: &FILL,
            params: [0; 4],
            bindings: window.ranges,
            scalars: Scalars { size: n, word }.words(),
            groups: n.div_ceil(THREADS),
            threads: THREADS,
            work: n as u64,
        });
    })
}
