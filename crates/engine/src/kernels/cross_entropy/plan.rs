//! The launches: windows of rows.

use std::rc::Rc;

use smallvec::SmallVec;

use super::{BACKWARD, IN_PLACE, ROWS, SETTLE, THREADS};
use crate::context::Context;
use crate::error::Result;
use crate::kernel::Kernel;
use crate::launch::{Bind, Window, windows};
use crate::recording::Launch;
use crate::value::Value;

/// The targets of N rows, i32, and how they are read.
#[derive(Clone, Copy)]
pub struct Labels<'a> {
    pub targets: &'a Value,
    /// The target that leaves a row out.
    pub ignore: i32,
    /// What share of a target goes to all columns evenly.
    pub smoothing: f32,
}

/// What a row's gradient is multiplied by.
#[derive(Clone, Copy)]
pub enum Scale<'a> {
    /// d[row].
    Row(&'a Value),
    /// One d.
    All(&'a Value),
    /// One d, divided by a count.
    Mean(&'a Value, &'a Value),
}

/// Launches `kernel` over a window of rows of n logits, `stride` elements apart where the kernel is told;
/// `cost` is the work of an element.
fn launch(
    cx: &Rc<Context>,
    kernel: &'static Kernel,
    form: u32,
    n: usize,
    labels: Labels,
    stride: Option<usize>,
    cost: usize,
) -> impl FnMut(Window) {
    let mut scalars = SmallVec::from_slice(&[n as u32, labels.ignore as u32, labels.smoothing.to_bits()]);
    scalars.extend(stride.map(|stride| stride as u32));
    move |w| {
        cx.launch(Launch {
            kernel,
            params: [form, 0, 0, 0],
            scalars: scalars.clone(),
            groups: w.count[0] as u32,
            threads: THREADS,
            work: (w.count[0] * n * cost) as u64,
            bindings: w.ranges,
        });
    }
}

/// Appends the loss and the log-sum-exp of every row of logits x [N, V].
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` when a row is longer than a binding may be.
pub fn row_losses(cx: &Rc<Context>, x: &Value, labels: Labels, loss: &Value, log_sum: &Value) -> Result<()> {
    let [rows, n] = [x.shape.rows(), x.shape.last()];
    let one = |v| Bind::new(v, &[1], 1);
    let binds = [Bind::new(x, &[n], n), one(labels.targets), one(loss), one(log_sum)];
    windows(cx, "crossEntropy", &[rows], &[], &binds, launch(cx, &ROWS, 0, n, labels, None, 16))
}

/// Appends the loss of every row of logits, the first `n` elements of x's rows, and overwrites them with the
/// gradient of their sum.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` when a row is longer than a binding may be.
pub fn row_losses_in_place(
    cx: &Rc<Context>,
    x: &Value,
    n: usize,
    labels: Labels,
    loss: &Value,
) -> Result<()> {
    let [rows, stride] = [x.shape.rows(), x.shape.last()];
    let one = |v| Bind::new(v, &[1], 1);
    let binds = [Bind::new(x, &[stride], n), one(labels.targets), one(loss)];
    windows(cx, "crossEntropy", &[rows], &[], &binds, launch(cx, &IN_PLACE, 0, n, labels, Some(stride), 24))
}

/// Appends y = Σ losses, over the number of trained rows with `mean`, and count = that number.
pub fn settle(
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
    windows(cx, "crossEntropy", &[rows], &[], &binds, |w| {
        let [first, last] = [w.start[0] == 0, w.start[0] + w.count[0] == rows];
        cx.launch(Launch {
            kernel: &SETTLE,
            params: [mean as u32, 0, 0, 0],
            scalars: SmallVec::from_slice(&[
                w.count[0] as u32,
                labels.ignore as u32,
                first as u32,
                last as u32,
            ]),
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
/// `ERR_OUT_OF_MEMORY` when a row is longer than a binding may be.
pub fn row_losses_backward(
    cx: &Rc<Context>,
    x: &Value,
    labels: Labels,
    log_sum: &Value,
    scale: Scale,
    d_x: &Value,
) -> Result<()> {
    let [rows, n] = [x.shape.rows(), x.shape.last()];
    let one = |v| Bind::new(v, &[1], 1);
    let (form, d, count) = match scale {
        Scale::Row(d) => (0, one(d), one(log_sum)),
        Scale::All(d) => (1, Bind::whole(d), one(log_sum)),
        Scale::Mean(d, count) => (2, Bind::whole(d), Bind::whole(count)),
    };
    let row = |v| Bind::new(v, &[n], n);
    let binds = [row(x), one(labels.targets), one(log_sum), d, count, row(d_x)];
    windows(
        cx,
        "crossEntropy backward",
        &[rows],
        &[],
        &binds,
        launch(cx, &BACKWARD, form, n, labels, None, 8),
    )
}
