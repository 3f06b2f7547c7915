//! What a device reaches at most: matrix products, and sums of two vectors that fit no cache.
//!
//! They are recorded like anything else, first in a trace, and timed like anything else.

use std::rc::Rc;

use super::{Event, Pass, Roof};
use crate::context::Context;
use crate::dtype::DType;
use crate::error::Result;
use crate::kernels::elementwise::{Function, map};
use crate::kernels::gemm::{Gemm, Matrix, gemm};
use crate::value::Value;

const PRODUCT: &str = "probe of products";
const MEMORY: &str = "probe of memory";
/// Edge of the square product.
const EDGE: usize = 1024;
/// Elements of each vector: 32 MiB.
const LENGTH: usize = 8 << 20;
/// The fastest of so many counts.
const ROUNDS: usize = 5;

/// Appends the probe: some 150 ms of work; on a GPU in software some seconds. What it uses is given
/// back. Nothing is learnt where `cx` does not trace.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY`.
pub fn probe(cx: &Rc<Context>) -> Result<()> {
    products(cx)?;
    sums(cx)?;
    cx.restart_peak();
    cx.flush();
    Ok(())
}

fn products(cx: &Rc<Context>) -> Result<()> {
    let [a, b, c] = make(cx, [EDGE, EDGE])?;
    for _ in 0..ROUNDS {
        let [a, b, c] = [&a, &b, &c].map(|v| Matrix::new(v, EDGE));
        cx.operation(PRODUCT, Pass::Other, || gemm(cx, Gemm::new(EDGE, EDGE, EDGE), a, b, None, c))?;
    }
    Ok(())
}

fn sums(cx: &Rc<Context>) -> Result<()> {
    let [a, b, c] = make(cx, [1, LENGTH])?;
    for _ in 0..ROUNDS {
        cx.operation(MEMORY, Pass::Other, || map(cx, Function::Add, &[&a, &b], &c))?;
    }
    Ok(())
}

fn make(cx: &Rc<Context>, shape: [usize; 2]) -> Result<[Value; 3]> {
    let one = || {
        let value = cx.empty(shape, DType::F32)?;
        cx.zero(&value);
        Ok(value)
    };
    Ok([one()?, one()?, one()?])
}

impl Roof {
    /// Whether the event is a probe's; where it is the device's, it may raise the roof.
    pub(super) fn learn(&mut self, event: &Event) -> bool {
        let seconds = event.took.as_secs_f64();
        match event.mark.operation {
            PRODUCT if event.cost.flops > 0 => self.flops = self.flops.max(event.cost.flops as f64 / seconds),
            MEMORY if event.kernel != "zero" => {
                let moved = event.cost.read + event.cost.written;
                self.bytes = self.bytes.max(moved as f64 / seconds);
            }
            operation => return operation == PRODUCT || operation == MEMORY,
        }
        true
    }
}
