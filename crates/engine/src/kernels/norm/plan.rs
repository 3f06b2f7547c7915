//! The launches: windows of rows, with weights whole.

use std::rc::Rc;

use smallvec::SmallVec;

use super::{
    ADDED_LAYER_NORM, ADDED_NORM, BACKWARD, CHUNK, LAYER_NORM, NORM, SUM_ROWS, THREADS, WIDE, is_absent,
    is_single,
};
use crate::context::Context;
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Kernel, Params};
use crate::kernels::elementwise::wide;
use crate::kernels::reduce::{Reduction, reduce};
use crate::launch::{Bind, Window, windows};
use crate::recording::{Launch, Range};
use crate::value::Value;

/// What y is multiplied by and what is added, [C] each.
#[derive(Clone, Copy, Default)]
pub struct Weights<'a> {
    pub weight: Option<&'a Value>,
    pub bias: Option<&'a Value>,
}

/// What forward leaves for backward, [rows] each: ρ, and μ where it is not 0.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub scale: &'a Value,
    pub mean: Option<&'a Value>,
}

/// Which sum over the rows: of d x̂, or of d.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    Weight,
    Bias,
}

/// What is added to x first, and the sum, of which the norm is then taken.
#[derive(Clone, Copy)]
pub struct Residual<'a> {
    pub added: &'a Value,
    pub sum: &'a Value,
}

/// Appends y = w x̂ + b and what backward reads, and a sum to take the norm of where one is asked for; C
/// is the last dimension of x.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` when a row is longer than a binding may be.
#[allow(clippy::too_many_arguments)]
pub fn normalise(
    cx: &Rc<Context>,
    x: &Value,
    residual: Option<Residual>,
    weights: Weights,
    eps: f32,
    y: &Value,
    rows: Rows,
) -> Result<()> {
    let n = x.shape.last();
    let row = |v| Bind::new(v, &[n], n);
    let one = |v| Bind::new(v, &[1], 1);
    let mut binds: SmallVec<[Bind; 8]> = SmallVec::from_iter([
        row(x),
        weights.weight.map_or(Bind::new(x, &[0], 1), Bind::whole),
        weights.bias.map_or(Bind::new(x, &[0], 1), Bind::whole),
        row(y),
        one(rows.scale),
    ]);
    binds.extend(rows.mean.map(one));
    binds.extend(residual.into_iter().flat_map(|r| [row(r.added), row(r.sum)]));
    let kernel = match (rows.mean.is_some(), residual.is_some()) {
        (false, false) => &NORM,
        (true, false) => &LAYER_NORM,
        (false, true) => &ADDED_NORM,
        (true, true) => &ADDED_LAYER_NORM,
    };
    let weights = [weights.weight.is_some(), weights.bias.is_some()];
    let params = [rows.mean.is_some(), weights[0], weights[1], residual.is_some()];
    by_rows(cx, kernel, params, n, x.shape.rows(), &binds, &[eps.to_bits()])
}

/// Appends d_x from the gradient d of y; d_x += that where it `adds`.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` when a row is longer than a binding may be.
pub fn normalise_backward(
    cx: &Rc<Context>,
    x: &Value,
    weight: Option<&Value>,
    rows: Rows,
    d: &Value,
    (d_x, adds): (&Value, bool),
) -> Result<()> {
    let n = x.shape.last();
    let row = |v| Bind::new(v, &[n], n);
    let one = |v| Bind::new(v, &[1], 1);
    let binds = [
        row(x),
        weight.map_or(Bind::new(x, &[0], 1), Bind::whole),
        one(rows.scale),
        one(rows.mean.unwrap_or(rows.scale)),
        row(d),
        row(d_x),
    ];
    let params = [rows.mean.is_some(), weight.is_some(), adds, false];
    by_rows(cx, &BACKWARD, params, n, x.shape.rows(), &binds, &[])
}

fn by_rows(
    cx: &Rc<Context>,
    kernel: &'static Kernel,
    params: [bool; 4],
    n: usize,
    rows: usize,
    binds: &[Bind],
    scalars: &[u32],
) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    windows(cx, kernel.name, &[rows], &[], binds, |w| {
        let rows = w.count[0];
        let mut params = params.map(u32::from);
        if rows_are_vectors(kernel, n, params, &w.ranges) {
            params[3] |= WIDE;
        }
        launch(cx, kernel, params, w, [&[n as u32], scalars].concat(), [rows, THREADS as usize], rows * n);
    })
}

/// Whether everything of a row's length lies in whole vectors of f32.
fn rows_are_vectors(kernel: &Kernel, n: usize, params: Params, ranges: &[Range]) -> bool {
    let whole = |name: &str| !is_single(name) && !is_absent(name, params);
    let read = kernel.bindings.iter().zip(ranges).filter(|((name, _), _)| whole(name));
    let mut ranges = read.map(|(_, range)| range);
    n.is_multiple_of(wide::ELEMENTS) && ranges.all(wide::is_whole)
}

fn launch(
    cx: &Rc<Context>,
    kernel: &'static Kernel,
    params: Params,
    w: Window,
    scalars: Vec<u32>,
    [groups, threads]: [usize; 2],
    elements: usize,
) {
    cx.launch(Launch {
        kernel,
        params,
        bindings: w.ranges,
        scalars: SmallVec::from_vec(scalars),
        groups: groups as u32,
        threads: threads as u32,
        work: elements as u64 * 8,
    });
}

/// Appends y[C] = the sum over the rows of d x̂ (d_weight), or of d (d_bias).
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` when a row is longer than a binding may be.
pub fn sum_rows(cx: &Rc<Context>, sums: Sums, x: &Value, rows: Rows, d: &Value, y: &Value) -> Result<()> {
    let (n, count) = (x.shape.last(), x.shape.rows());
    if n == 0 || count == 0 {
        cx.zero(y);
        return Ok(());
    }
    let fits = cx.profile.binding_limit.saturating_sub(256) / (4 * n as u64);
    let chunk = CHUNK.min(fits as usize).max(1);
    let chunks = count.div_ceil(chunk);
    let parts = cx.empty([chunks, n], DType::F32)?;
    let rowwise = |v| Bind::new(v, &[chunk * n], chunk * n);
    let single = |v| Bind::new(v, &[chunk], chunk);
    let binds = [
        rowwise(x),
        single(rows.scale),
        single(rows.mean.unwrap_or(rows.scale)),
        rowwise(d),
        Bind::new(&parts, &[n], n),
    ];
    windows(cx, "norm sums", &[chunks], &[], &binds, |w| {
        let (start, taken) = (w.start[0], w.count[0]);
        let here = (taken * chunk).min(count - start * chunk);
        let scalars = vec![n as u32, here as u32, chunk as u32];
        let params = [rows.mean.is_some(), sums == Sums::Weight, false, false].map(u32::from);
        let threads = THREADS as usize;
        launch(cx, &SUM_ROWS, params, w, scalars, [(taken * n).div_ceil(threads), threads], here * n);
    })?;
    reduce(cx, Reduction::Sum, &parts, [1, chunks, n], y)
}
