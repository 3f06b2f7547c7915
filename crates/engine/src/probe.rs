//! What a device reaches at most: matrix products, and sums of two vectors that fit no cache.
//!
//! They are recorded like anything else, first in a trace, and timed like anything else.

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
    let [a, b, c] = make(cx, PRODUCT, [EDGE, EDGE])?;
    for _ in 0..ROUNDS {
        let [a, b, c] = [&a, &b, &c].map(|v| Matrix::new(v, EDGE));
        cx.operation(PRODUCT, Pass::Other, || gemm(cx, Gemm::new(EDGE, EDGE, EDGE), a, b, None, c))?;
    }
    Ok(())
}

fn sums(cx: &Rc<Context>) -> Result<()> {
    let [a, b, c] = make(cx, MEMORY, [1, LENGTH])?;
    for _ in 0..ROUNDS {
        cx.operation(MEMORY, Pass::Other, || map(cx, Function::Add, &[&a, &b], &c))?;
    }
    Ok(())
}

/// Under the probe's name, so that a run's time has no part of it.
fn make(cx: &Rc<Context>, probe: &'static str, shape: [usize; 2]) -> Result<[Value; 3]> {
    let one = || {
        let value = cx.empty(shape, DType::F32)?;
        cx.operation(probe, Pass::Other, || cx.zero(&value));
        Ok(value)
    };
    Ok([one()?, one()?, one()?])
}
