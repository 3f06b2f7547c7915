//! Measures the peak rates of a device: matrix products, and sums of two vectors that exceed the caches.
//!
//! They are recorded and timed like any other operation, first in a trace.

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernels::elementwise::{Function, map};
use crate::kernels::gemm::{Gemm, Matrix, gemm};
use crate::trace::{MEMORY, PRODUCT, Pass};

/// Edge of the square product.
pub(crate) const EDGE: usize = 1024;
/// Elements of each vector: 32 MiB.
pub(crate) const LENGTH: usize = 8 << 20;
/// Rounds; the fastest counts.
const ROUNDS: usize = 5;

/// Appends the probe: about 150 ms of work, some seconds on a software GPU. Its buffers are freed. It has no effect
/// unless `cx` traces.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY`.
pub fn probe(cx: &Rc<Context>) -> Result<()> {
    measure_products(cx)?;
    measure_sums(cx)?;
    cx.restart_peak();
    cx.flush();
    Ok(())
}

fn measure_products(cx: &Rc<Context>) -> Result<()> {
    let [a, b, c] = make_operands(cx, PRODUCT, [EDGE, EDGE])?;
    for _ in 0..ROUNDS {
        let [a, b, c] = [&a, &b, &c].map(|v| Matrix::new(v, EDGE));
        cx.trace_operation(PRODUCT, Pass::Other, || gemm(cx, Gemm::new(EDGE, EDGE, EDGE), a, b, None, c))?;
    }
    Ok(())
}

fn measure_sums(cx: &Rc<Context>) -> Result<()> {
    let [a, b, c] = make_operands(cx, MEMORY, [1, LENGTH])?;
    for _ in 0..ROUNDS {
        cx.trace_operation(MEMORY, Pass::Other, || map(cx, Function::Add, &[&a, &b], &c))?;
    }
    Ok(())
}

/// Recorded under the probe's name, so that it does not count as the run's time.
fn make_operands(cx: &Rc<Context>, probe: &'static str, shape: [usize; 2]) -> Result<[Value; 3]> {
    let one = || {
        let value = cx.empty(shape, DType::F32)?;
        cx.trace_operation(probe, Pass::Other, || cx.zero(&value));
        Ok(value)
    };
    Ok([one()?, one()?, one()?])
}
