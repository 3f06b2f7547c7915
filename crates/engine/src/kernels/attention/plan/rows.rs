//! The inputs of backward in addition to q, k, v and their gradients.

use std::rc::Rc;

use smallvec::SmallVec;

use super::binds::{Binds, InnerSide};
use super::{AttentionCall, BackwardInputs};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::Launch;
use crate::kernels::attention::{DELTA, Delta, ROWS, Rows, THREADS};
use crate::kernels::copy::{Side, copy};
use crate::kernels::elementwise::{Function, map};
use crate::launch::{Bind, for_each_row_window, for_each_window};

/// Appends the values of each query row that backward reads: its log-sum-exp, δ = Σ dO ∘ O less the gradient of the
/// log-sum-exp, and its segment.
pub fn append_row_values(cx: &Rc<Context>, a: &AttentionCall, flow: &BackwardInputs) -> Result<Value> {
    let g = a.geometry();
    // Rows are visited in memory order. With heads first they count as further batch rows; then there are no segments.
    let (batch, heads) = match (a.heads_first, g.kv_heads * g.group) {
        (true, heads) => (g.batch * heads, 1),
        (false, heads) => (g.batch, heads),
    };
    let rows = cx.empty([batch, g.queries, heads, 3], DType::I32)?;
    let per_row = |v, n: usize| Bind::new(v, &[g.queries * n, n], n);
    let binds = Binds::new(a, InnerSide::Keys);
    let segments = match &binds.query_segments {
        Some(s) => Bind::new(s, &[g.segment_batch, 1], 1),
        None => Bind::new(&binds.placeholder, &[0, 0], 1),
    };
    let list = [
        per_row(flow.d_o, heads * g.dim),
        per_row(flow.o, heads * g.dim),
        per_row(flow.lse, heads),
        per_row(flow.d_lse.unwrap_or(flow.lse), heads),
        segments,
        per_row(&rows, heads * 3),
    ];
    for_each_window(cx, ROWS.name, &[batch, g.queries], &[], &list, |w| {
        let count = w.count[0] * w.count[1] * heads;
        let scalars = Rows {
            rows: count,
            dim: g.dim,
            heads,
            queries: w.count[1],
            segment_batch: g.segment_batch,
            has_segments: a.segments.is_some(),
            has_d_lse: flow.d_lse.is_some(),
        };
        // A window of several batch rows contains all of their queries.
        debug_assert!(w.count[0] == 1 || w.count[1] == g.queries);
        cx.launch(Launch {
            kernel: &ROWS,
            params: [0; 4],
            bindings: w.ranges,
            scalars: scalars.words(),
            groups: (count * INVOCATIONS_PER_ROW).div_ceil(THREADS) as u32,
            threads: THREADS as u32,
            work: (count * g.dim * 2) as u64,
        });
    })?;
    Ok(rows)
}

/// Invocations per row in rows.wgsl.
const INVOCATIONS_PER_ROW: usize = 8;

/// Returns the labels of keys in one binding: segments, mask, or both interleaved.
pub fn fold_labels(cx: &Rc<Context>, a: &AttentionCall) -> Result<Option<Value>> {
    let (Some(segments), Some(mask)) = (a.segments, a.mask) else {
        return Ok(a.segments.or(a.mask).cloned());
    };
    let both = cx.empty([a.q.shape[0], a.length, 2], DType::I32)?;
    for (at, labels) in [segments, mask].into_iter().enumerate() {
        let from = Side { value: labels, start: 0, strides: SmallVec::from_slice(&[labels.shape[1], 1]) };
        let to = Side { value: &both, start: at, strides: SmallVec::from_slice(&[2 * a.length, 2]) };
        copy(cx, "attention", &[a.q.shape[0], a.length], &from, &to)?;
    }
    Ok(Some(both))
}

/// Appends δ = Σ dO ∘ O, less the gradient of the log-sum-exp: dS = P ∘ (dO Vᵀ − δ).
pub fn append_delta(cx: &Rc<Context>, flow: &BackwardInputs) -> Result<Value> {
    let [b, t, h] = [0, 1, 2].map(|d| flow.o.shape[d]);
    let delta = cx.empty([b, t, h], DType::F32)?;
    let dim = flow.o.shape[3];
    for_each_row_window(cx, DELTA.name, b * t, &[flow.d_o, flow.o, &delta], &[], |w| {
        let rows = w.count[0] * h;
        cx.launch(Launch {
            kernel: &DELTA,
            params: [0; 4],
            bindings: w.ranges,
            scalars: Delta { rows, dim }.words(),
            groups: 1,
            threads: 1,
            work: (rows * dim * 2) as u64,
        });
    })?;
    let Some(d_lse) = flow.d_lse else { return Ok(delta) };
    let adjusted = cx.empty([b, t, h], DType::F32)?;
    map(cx, Function::Sub, &[&delta, d_lse], &adjusted)?;
    Ok(adjusted)
}
