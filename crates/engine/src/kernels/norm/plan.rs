//! The launches: windows of rows; weights are bound whole.

use std::rc::Rc;

use smallvec::SmallVec;

use super::{
    ADDED_LAYER_NORM, ADDED_NORM, BACKWARD, Backward, CHUNK, Chunks, Forward, LAYER_NORM, NORM, SUM_ROWS,
    THREADS, is_single,
};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::scalars::Words;
use crate::kernel::shader::rows::{ELEMENTS, RowConfig};
use crate::kernel::{Kernel, Launch};
use crate::kernels::reduce::{Reduction, reduce};
use crate::launch::{Bind, Window, for_each_window};

/// The factors and the summands of y, [C] each.
#[derive(Clone, Copy, Default)]
pub struct Weights<'a> {
    pub weight: Option<&'a Value>,
    pub bias: Option<&'a Value>,
}

/// Results of forward that backward reads, [rows] each: ρ, and μ for layer normalisation.
#[derive(Clone, Copy)]
pub struct RowStatistics<'a> {
    pub scale: &'a Value,
    pub mean: Option<&'a Value>,
}

/// The summand over the rows: d x̂ or d.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowSum {
    Weight,
    Bias,
}

/// A summand of x, and the sum, which is then normalised.
#[derive(Clone, Copy)]
pub struct Residual<'a> {
    pub added: &'a Value,
    pub sum: &'a Value,
}

/// Appends y = w x̂ + b and the inputs of backward, with a residual also the sum that is normalised; C is the last
/// dimension of x.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` if a row exceeds the binding limit.
pub fn normalise(
    cx: &Rc<Context>,
    x: &Value,
    residual: Option<Residual>,
    weights: Weights,
    eps: f32,
    y: &Value,
    rows: RowStatistics,
) -> Result<()> {
    let n = x.shape.last();
    let row = |v| Bind::new(v, &[n], n);
    let one = |v| Bind::new(v, &[1], 1);
    let mut binds: SmallVec<[Bind; 8]> = SmallVec::from_iter([
        row(x),
        bind_weight(weights.weight.or(weights.bias), x),
        bind_weight(weights.bias.or(weights.weight), x),
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
    let scalars = Forward {
        n,
        eps,
        centred: rows.mean.is_some(),
        weighted: weights.weight.is_some(),
        biased: weights.bias.is_some(),
        added: residual.is_some(),
    };
    launch_rows(cx, kernel, n, x.shape.rows(), &binds, scalars.words())
}

/// Binds a weight, or if absent the first cell of x, which is not read.
fn bind_weight<'a>(weight: Option<&'a Value>, x: &'a Value) -> Bind<'a> {
    weight.map_or(Bind::new(x, &[0], ELEMENTS.min(x.shape.last())), Bind::whole)
}

/// Appends d_x from the gradient d of y, or d_x += that if it `adds`.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` if a row exceeds the binding limit.
pub fn normalise_backward(
    cx: &Rc<Context>,
    x: &Value,
    weight: Option<&Value>,
    rows: RowStatistics,
    d: &Value,
    (d_x, adds): (&Value, bool),
) -> Result<()> {
    let n = x.shape.last();
    let row = |v| Bind::new(v, &[n], n);
    let one = |v| Bind::new(v, &[1], 1);
    let binds = [
        row(x),
        bind_weight(weight, x),
        one(rows.scale),
        one(rows.mean.unwrap_or(rows.scale)),
        row(d),
        row(d_x),
    ];
    let scalars = Backward { n, centred: rows.mean.is_some(), weighted: weight.is_some(), adds };
    launch_rows(cx, &BACKWARD, n, x.shape.rows(), &binds, scalars.words())
}

fn launch_rows(
    cx: &Rc<Context>,
    kernel: &'static Kernel,
    n: usize,
    rows: usize,
    binds: &[Bind],
    scalars: Words,
) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    for_each_window(cx, kernel.name, &[rows], &[], binds, |w| {
        let rows = w.count[0];
        let whole = kernel.bindings.iter().zip(&w.ranges).filter(|((name, _), _)| !is_single(name));
        let config = RowConfig::new(&cx.profile, n, whole.map(|(_, range)| range));
        launch(cx, kernel, config.param(), w, scalars.clone(), rows, rows * n);
    })
}

fn launch(
    cx: &Rc<Context>,
    kernel: &'static Kernel,
    config: u32,
    w: Window,
    scalars: Words,
    groups: usize,
    elements: usize,
) {
    cx.launch(Launch {
        kernel,
        params: [config, 0, 0, 0],
        bindings: w.ranges,
        scalars,
        groups: groups as u32,
        threads: THREADS,
        work: elements as u64 * 8,
    });
}

/// Appends y[C] = the sum over the rows of d x̂ (d_weight), or of d (d_bias).
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` if a row exceeds the binding limit.
pub fn sum_rows(
    cx: &Rc<Context>,
    sums: RowSum,
    x: &Value,
    rows: RowStatistics,
    d: &Value,
    y: &Value,
) -> Result<()> {
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
    for_each_window(cx, "norm sums", &[chunks], &[], &binds, |w| {
        let (start, chunk_count) = (w.start[0], w.count[0]);
        let row_count = (chunk_count * chunk).min(count - start * chunk);
        let scalars = Chunks {
            n,
            rows: row_count,
            chunk,
            centred: rows.mean.is_some(),
            weighted: sums == RowSum::Weight,
        };
        let groups = (chunk_count * n).div_ceil(THREADS as usize);
        launch(cx, &SUM_ROWS, 0, w, scalars.words(), groups, row_count * n);
    })?;
    reduce(cx, Reduction::Sum, &parts, [1, chunks, n], y)
}
