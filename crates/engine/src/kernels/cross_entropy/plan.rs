//! The launches: windows of rows.

use std::rc::Rc;

use super::{BACKWARD, IN_PLACE, LossScalars, ROWS, Row, SINGLE, SUM_LOSSES, ScaledRow, StridedRow, THREADS};
use crate::context::{Context, Value};
use crate::error::Result;
use crate::kernel::scalars::Words;
use crate::kernel::shader::rows::{ELEMENTS, RowConfig};
use crate::kernel::{Kernel, Launch};
use crate::launch::{Bind, Window, for_each_window};

/// The targets of N rows, i32, and their options.
#[derive(Clone, Copy)]
pub struct Labels<'a> {
    pub targets: &'a Value,
    /// The target of rows to skip.
    pub ignore: i32,
    /// The share of the target distribution that is spread evenly over all columns.
    pub smoothing: f32,
}

/// The factor of a row's gradient.
#[derive(Clone, Copy)]
pub enum Scale<'a> {
    /// d[row].
    Row(&'a Value),
    /// One d for all rows.
    All(&'a Value),
    /// One d, divided by a count.
    Mean(&'a Value, &'a Value),
}

impl Labels<'_> {
    /// The scalars for rows of n logits.
    fn row_scalars(&self, n: usize) -> Row {
        Row { n, ignore: self.ignore, smoothing: self.smoothing }
    }
}

/// Launches `kernel` over a window of rows of n logits; `cost` is the work per element.
fn launch(
    cx: &Rc<Context>,
    kernel: &'static Kernel,
    config: RowConfig,
    n: usize,
    scalars: Words,
    cost: usize,
    w: Window,
) {
    cx.launch(Launch {
        kernel,
        params: [config.param(), 0, 0, 0],
        scalars,
        groups: w.count[0] as u32,
        threads: THREADS,
        work: (w.count[0] * n * cost) as u64,
        bindings: w.ranges,
    });
}

/// Appends the loss and the log-sum-exp of every row of logits x [N, V].
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` if a row exceeds the binding limit.
pub fn append_row_losses(
    cx: &Rc<Context>,
    x: &Value,
    labels: Labels,
    loss: &Value,
    log_sum: &Value,
) -> Result<()> {
    let [rows, n] = [x.shape.rows(), x.shape.last()];
    let one = |v| Bind::new(v, &[1], 1);
    let binds = [Bind::new(x, &[n], n), one(labels.targets), one(loss), one(log_sum)];
    for_each_window(cx, "crossEntropy", &[rows], &[], &binds, |w| {
        let config = RowConfig::new(&cx.profile, n, w.ranges[..1].iter());
        launch(cx, &ROWS, config, n, labels.row_scalars(n).words(), 16, w);
    })
}

/// Appends the loss of every row of logits (the first `n` elements of x's rows) and overwrites them with the gradient
/// of the losses' sum.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` if a row exceeds the binding limit.
pub fn append_row_losses_in_place(
    cx: &Rc<Context>,
    x: &Value,
    n: usize,
    labels: Labels,
    loss: &Value,
) -> Result<()> {
    let [rows, stride] = [x.shape.rows(), x.shape.last()];
    let one = |v| Bind::new(v, &[1], 1);
    let binds = [Bind::new(x, &[stride], n), one(labels.targets), one(loss)];
    for_each_window(cx, "crossEntropy", &[rows], &[], &binds, |w| {
        let mut config = RowConfig::new(&cx.profile, n, w.ranges[..1].iter());
        config.vectors &= stride.is_multiple_of(ELEMENTS);
        launch(cx, &IN_PLACE, config, n, StridedRow { row: labels.row_scalars(n), stride }.words(), 24, w);
    })
}

/// Appends y = Σ losses, divided by the number of trained rows with `mean`, and count = that number.
pub fn append_loss_sum(
    cx: &Rc<Context>,
    losses: &Value,
    labels: Labels,
    mean: bool,
    y: &Value,
    count: &Value,
) -> Result<()> {
    let rows = losses.size();
    if rows == 0 {
        cx.zero(count);
        let empty = if mean { f32::NAN } else { 0.0 };
        cx.write(y, empty.to_le_bytes().to_vec());
        return Ok(());
    }
    let one = |v| Bind::new(v, &[1], 1);
    let binds = [one(losses), one(labels.targets), Bind::whole(y), Bind::whole(count)];
    for_each_window(cx, "crossEntropy", &[rows], &[], &binds, |w| {
        let [first, last] = [w.start[0] == 0, w.start[0] + w.count[0] == rows];
        cx.launch(Launch {
            kernel: &SUM_LOSSES,
            params: [SINGLE.param(), 0, 0, 0],
            scalars: LossScalars { rows: w.count[0], ignore: labels.ignore, first, last, mean }.words(),
            groups: 1,
            threads: THREADS,
            work: w.count[0] as u64 * 2,
            bindings: w.ranges,
        });
    })
}

/// Appends d_x [N, V] from the logits and their log-sum-exp.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` if a row exceeds the binding limit.
pub fn append_row_losses_backward(
    cx: &Rc<Context>,
    x: &Value,
    labels: Labels,
    log_sum: &Value,
    scale: Scale,
    d_x: &Value,
) -> Result<()> {
    let [rows, n] = [x.shape.rows(), x.shape.last()];
    let one = |v| Bind::new(v, &[1], 1);
    let (scaling, d, count) = match scale {
        Scale::Row(d) => (0, one(d), one(log_sum)),
        Scale::All(d) => (1, Bind::whole(d), one(log_sum)),
        Scale::Mean(d, count) => (2, Bind::whole(d), Bind::whole(count)),
    };
    let row = |v| Bind::new(v, &[n], n);
    let binds = [row(x), one(labels.targets), one(log_sum), d, count, row(d_x)];
    for_each_window(cx, "crossEntropy backward", &[rows], &[], &binds, |w| {
        let vectors = RowConfig::new(&cx.profile, n, [&w.ranges[0], &w.ranges[5]].into_iter()).vectors;
        let scalars = ScaledRow { row: labels.row_scalars(n), scaling }.words();
        launch(cx, &BACKWARD, RowConfig { vectors, subgroups: false }, n, scalars, 8, w);
    })
}
