//! The global norm of gradients, clipping by it, and the verdict that a step reads.
//!
//! Maths: norm = √Σ g², over every element of every gradient; factor = min(1, max / (norm + 1e-6)), as
//! `torch.nn.utils.clip_grad_norm_`. A NaN makes the norm NaN; an infinity, or a square that overflows f32, makes it
//! infinite.
//!
//! Layout: chunks of 512 elements from each range's start, one workgroup each; their sums are summed the same way until
//! one is left. The chunks do not depend on the binding limit, so the bits do not either. The CPU sums a chunk in f64.
//! WGSL does not define results for non-finite values, so they are excluded from the sums and carried as flags. Cost:
//! one read of the gradients.

mod native;
#[cfg(test)]
mod plain;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use smallvec::SmallVec;

use super::arena::{allocate_zeros, are_adjacent};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernel::{Access, Implementations, Kernel, Launch, Variant};
use crate::launch::{Bind, for_each_window};
use crate::scalars;
use crate::tape::Tensor;

const CHUNK: usize = 512;
const THREADS: u32 = 64;

scalars! {
    struct Sum { n: usize }
}

scalars! {
    pub(super) struct VerdictScalars { clips: bool, max: f32, latches: bool }
}

scalars! {
    pub(super) struct Counted { steps: f32 }
}

scalars! {
    pub(super) struct Clip { size: u32, max: f32 }
}

/// `params` = [1 if elements are squared, 1 if the root of the sum is taken].
static SUM: Kernel = Kernel {
    name: "gradient norm",
    bindings: &[("x", Access::Read), ("y", Access::Write)],
    scalars: Sum::members,
    implementations: Implementations::Both {
        wgsl: |[squares, root, ..]| {
            let term = if squares == 1 { "fma(v, v, sum)" } else { "sum + v" };
            let result = if root == 1 { "sqrt(part[0])" } else { "part[0]" };
            include_str!("norm.wgsl").replace("TERM", term).replace("RESULT", result)
        },
        native: native::norm,
    },
    variants: || {
        [[1, 0], [0, 0], [0, 1]]
            .map(|[squares, root]| Variant {
                params: [squares, root, 0, 0],
                dtypes: vec![DType::F32; 2],
                threads: THREADS,
            })
            .into()
    },
};

static VERDICT: Kernel = Kernel {
    name: "verdict",
    bindings: &[("norm", Access::Read), ("verdict", Access::ReadWrite)],
    scalars: VerdictScalars::members,
    implementations: Implementations::Both {
        wgsl: |_| include_str!("verdict.wgsl").into(),
        native: native::verdict,
    },
    variants: || vec![Variant { params: [0; 4], dtypes: vec![DType::F32; 2], threads: THREADS }],
};

static COUNTED: Kernel = Kernel {
    name: "counted steps",
    bindings: &[("verdict", Access::ReadWrite)],
    scalars: Counted::members,
    implementations: Implementations::Both {
        wgsl: |_| include_str!("counted.wgsl").into(),
        native: native::count_skipped,
    },
    variants: || vec![Variant { params: [0; 4], dtypes: vec![DType::F32], threads: THREADS }],
};

static CLIP: Kernel = Kernel {
    name: "clip",
    bindings: &[("norm", Access::Read), ("grad", Access::ReadWrite)],
    scalars: Clip::members,
    implementations: Implementations::Both {
        wgsl: |_| include_str!("clip.wgsl").into(),
        native: native::clip,
    },
    variants: || vec![Variant { params: [0; 4], dtypes: vec![DType::F32; 2], threads: THREADS }],
};

pub const KERNELS: &[&Kernel] = &[&SUM, &VERDICT, &COUNTED, &CLIP];

/// The norm of all gradients of `tensors` together, f32[]; tensors without a gradient are ignored.
///
/// # Errors
/// `ERR_DEVICE_MISMATCH` when a gradient is not on `cx`'s device.
pub fn norm(cx: &Rc<Context>, tensors: &[Tensor]) -> Result<Value> {
    append_norm(cx, &collect_gradients(cx, tensors)?)
}

/// Scales all gradients of `tensors` in place so that their joint norm is at most `max`; returns the norm before,
/// f32[].
///
/// # Errors
/// `ERR_OPTION` if `max` is negative or NaN; `ERR_DEVICE_MISMATCH` as `norm`.
pub fn clip_grad_norm(cx: &Rc<Context>, tensors: &[Tensor], max: f32) -> Result<Value> {
    check_max("clipGradNorm", Some(max))?;
    let gradients = collect_gradients(cx, tensors)?;
    let norm = append_norm(cx, &gradients)?;
    for grad in gradients.iter().filter(|_| max.is_finite()) {
        let binds = [Bind::new(&norm, &[0], 1), Bind::new(grad, &[1], 1)];
        for_each_window(cx, "clipGradNorm", &[grad.size()], &[], &binds, |w| {
            let size = w.count[0] as u32;
            cx.launch(Launch {
                kernel: &CLIP,
                params: [0; 4],
                bindings: w.ranges,
                scalars: Clip { size, max }.words(),
                groups: size.div_ceil(THREADS),
                threads: THREADS,
                work: size as u64,
            });
        })?;
        grad.storage.record_write();
    }
    Ok(norm)
}

/// Checks the norm to clip to.
///
/// # Errors
/// `ERR_OPTION` when the norm to clip to is negative or NaN.
pub(super) fn check_max(name: &str, max: Option<f32>) -> Result<()> {
    match max {
        Some(max) if max.is_nan() || max < 0.0 => {
            fail!(Option, "{name}: gradients are clipped to a norm of 0 or more, not {max}")
        }
        _ => Ok(()),
    }
}

fn collect_gradients(cx: &Rc<Context>, tensors: &[Tensor]) -> Result<Vec<Value>> {
    let gradients: Vec<Value> = tensors.iter().filter_map(Tensor::grad).collect();
    if let Some(other) = gradients.iter().find(|g| !Rc::ptr_eq(g.context(), cx)) {
        fail!(
            DeviceMismatch,
            "norm: a gradient is on {}, and others are on {}",
            other.context().profile.label,
            cx.profile.label
        );
    }
    Ok(gradients)
}

/// Appends the joint norm of the values, f32[]. Adjacent values of an arena are read together with the zeros between
/// them.
pub(super) fn append_norm(cx: &Rc<Context>, values: &[Value]) -> Result<Value> {
    let mut ranges: Vec<Value> = Vec::new();
    for value in values.iter().filter(|v| v.size() > 0) {
        match ranges.last_mut() {
            Some(last) if are_adjacent(last, value) => {
                let count = value.offset + value.size() - last.offset;
                *last = last.sub_range(0, [count]);
            }
            _ => ranges.push(value.reshape([value.size()])),
        }
    }
    let chunks = |x: &Value| x.size().div_ceil(CHUNK);
    let mut sums = cx.empty([ranges.iter().map(chunks).sum::<usize>()], DType::F32)?;
    let mut at = 0;
    for x in &ranges {
        launch(cx, [1, 0], x, &sums.sub_range(at, [chunks(x)]))?;
        at += chunks(x);
    }
    while sums.size() > CHUNK {
        let y = cx.empty([chunks(&sums)], DType::F32)?;
        launch(cx, [0, 0], &sums, &y)?;
        sums = y;
    }
    let norm = cx.empty([], DType::F32)?;
    match sums.size() {
        0 => cx.zero(&norm),
        _ => launch(cx, [0, 1], &sums, &norm)?,
    }
    Ok(norm)
}

/// Appends one level: y[i] from the i-th chunk of x.
fn launch(cx: &Rc<Context>, [squares, root]: [u32; 2], x: &Value, y: &Value) -> Result<()> {
    let binds = [Bind::new(x, &[CHUNK], CHUNK), Bind::new(y, &[1], 1)];
    for_each_window(cx, "norm", &[y.size()], &[], &binds, |w| {
        let n = (x.size() - w.start[0] * CHUNK).min(w.count[0] * CHUNK);
        cx.launch(Launch {
            kernel: &SUM,
            params: [squares, root, 0, 0],
            bindings: w.ranges,
            scalars: Sum { n }.words(),
            groups: w.count[0] as u32,
            threads: THREADS,
            work: 2 * n as u64,
        });
    })
}

/// The treatment of a step whose gradients are not all finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NotFinite {
    /// Only this step is skipped.
    Skip,
    /// This step and all later ones are skipped until `clear_latch`.
    Latch,
}

/// The verdict on a step, f32[4]:
///
/// - the factor for gradients;
/// - whether the step is skipped: 0 or 1;
/// - the number of single steps that were skipped and that the host still counts;
/// - the number of steps that were skipped since the latch was set.
pub(super) struct Verdict(Value);

/// Elements of a verdict.
pub(super) const VERDICT_SIZE: usize = 4;

impl Verdict {
    pub fn new(cx: &Rc<Context>) -> Result<Verdict> {
        Ok(Verdict(allocate_zeros(cx, VERDICT_SIZE)?))
    }

    /// Appends the verdict on `norm`.
    pub fn record(
        &self,
        cx: &Rc<Context>,
        norm: &Value,
        clip: Option<f32>,
        not_finite: NotFinite,
    ) -> Result<()> {
        let max = clip.filter(|max| max.is_finite());
        let scalars = VerdictScalars {
            clips: max.is_some(),
            max: max.unwrap_or(0.0),
            latches: not_finite == NotFinite::Latch,
        };
        cx.launch(Launch {
            kernel: &VERDICT,
            params: [0; 4],
            bindings: SmallVec::from_slice(&[norm.range(), self.0.range()]),
            scalars: scalars.words(),
            groups: 1,
            threads: THREADS,
            work: 1,
        });
        Ok(())
    }

    pub fn value(&self) -> &Value {
        &self.0
    }

    pub fn undone(&self) -> Value {
        self.0.sub_range(3, [])
    }

    pub fn skipped_count(&self) -> Value {
        self.0.sub_range(2, [])
    }

    /// Clears the latch.
    pub fn clear(&self, cx: &Rc<Context>) {
        cx.zero(&self.undone());
    }

    /// Appends that the host no longer counts `steps` skipped steps.
    pub fn count_skipped(&self, cx: &Rc<Context>, steps: u64) {
        cx.launch(Launch {
            kernel: &COUNTED,
            params: [0; 4],
            bindings: SmallVec::from_slice(&[self.0.range()]),
            scalars: Counted { steps: steps as f32 }.words(),
            groups: 1,
            threads: THREADS,
            work: 1,
        });
    }

    /// Resets the counts of skipped steps.
    pub fn reset_counts(&self, cx: &Rc<Context>) {
        cx.zero(&self.skipped_count());
    }
}
