//! The pass over chunks of rows: logits, losses, and at the same time the wanted gradients.

use std::rc::Rc;

use super::LinearCrossEntropy;
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernels::cross_entropy::{Labels, append_row_losses, append_row_losses_in_place};
use crate::kernels::elementwise::accumulate;
use crate::kernels::gemm::{Gemm, Matrix, gemm, row_stride};
use crate::kernels::reduce::{Reduction, reduce};
use crate::profile::Kind;

/// The usual size of a chunk's logits in bytes, and the largest size, which is used to reach `AMORTISED` rows. On a cpu
/// each chunk packs the weight twice. With chunks of 18 MiB, SmolLM2's head over 512 rows took 6 chunks of 86 rows
/// instead of 2 of 256, and its step was 5% slower with AVX2 and 3% in bf16 with AMX; at Llama 3.2 1B's shape 8 chunks
/// of 64 rows and 17%.
fn get_logit_bytes(kind: Kind) -> [usize; 2] {
    match kind {
        Kind::Cpu => [48 << 20, 128 << 20],
        Kind::Gpu => [32 << 20, 32 << 20],
    }
}
/// The number of rows from which packing the weight is cheap compared with its products.
const AMORTISED: usize = 256;
/// The bounds of a chunk's rows; products of fewer rows are slow.
const ROWS: std::ops::RangeInclusive<usize> = 64..=1024;
/// A multiple of the tile heights of AVX2 and AVX-512.
const TILE: usize = 12;

/// The inputs of a pass: hidden [N, C], W [V, C], b [V] and the labels [N].
pub struct PassInputs<'a> {
    pub hidden: &'a Value,
    pub weight: &'a Value,
    pub bias: Option<&'a Value>,
    pub targets: &'a Value,
}

/// The outputs of a pass: the losses [N], and the gradients of their sum, with the inputs' shapes.
pub struct PassOutputs<'a> {
    pub losses: &'a Value,
    pub d_hidden: Option<&'a Value>,
    pub d_weight: Option<&'a Value>,
    pub d_bias: Option<&'a Value>,
}

impl LinearCrossEntropy {
    /// Processes N > 0 rows.
    pub(super) fn run_pass(
        &self,
        cx: &Rc<Context>,
        inputs: &PassInputs,
        outputs: &PassOutputs,
    ) -> Result<()> {
        let PassInputs { hidden, weight, bias, targets } = *inputs;
        let (rows, c, v) = (targets.size(), weight.shape[1], weight.shape[0]);
        let [few, many] = get_logit_bytes(cx.profile.kind).map(|bytes| bytes / (4 * v));
        let max_rows = few.max(many.min(AMORTISED)).clamp(*ROWS.start(), *ROWS.end());
        // Chunks of equal size, rounded up to whole tiles if that needs no more chunks.
        let chunk = rows.div_ceil(rows.div_ceil(max_rows)).next_multiple_of(TILE).min(max_rows);
        let stride = if self.wanted.any() { row_stride(v) } else { v };
        let logits = cx.empty([chunk, stride], DType::F32)?;
        let log_sums = cx.empty([chunk], DType::F32)?;
        for from in (0..rows).step_by(chunk) {
            let n = chunk.min(rows - from);
            let h = hidden.sub_range(from * c, [n, c]);
            let logits = logits.sub_range(0, [n, stride]);
            let targets = targets.sub_range(from, [n]);
            let losses = outputs.losses.sub_range(from, [n]);
            let labels =
                Labels { targets: &targets, ignore: self.ignore_index, smoothing: self.label_smoothing };
            gemm(
                cx,
                Gemm::new(n, v, c).precision(self.precision),
                Matrix::new(&h, c),
                Matrix::new(weight, c).t(),
                bias,
                Matrix::new(&logits, stride),
            )?;
            if !self.wanted.any() {
                append_row_losses(cx, &logits, labels, &losses, &log_sums.sub_range(0, [n]))?;
                continue;
            }
            append_row_losses_in_place(cx, &logits, v, labels, &losses)?;
            let d_logits = Matrix::new(&logits, stride);
            if let Some(d_hidden) = outputs.d_hidden {
                gemm(
                    cx,
                    Gemm::new(n, c, v).precision(self.precision),
                    d_logits,
                    Matrix::new(weight, c),
                    None,
                    Matrix::new(&d_hidden.sub_range(from * c, [n, c]), c),
                )?;
            }
            if let Some(d_weight) = outputs.d_weight {
                let product = Gemm::new(v, c, n).accumulate_if(from > 0);
                gemm(cx, product, d_logits.t(), Matrix::new(&h, c), None, Matrix::new(d_weight, c))?;
            }
            if let Some(d_bias) = outputs.d_bias {
                // The gaps between rows are summed, too, into columns that are dropped.
                let sums = cx.empty([stride], DType::F32)?;
                reduce(cx, Reduction::Sum, &logits, [1, n, stride], &sums)?;
                let sums = sums.sub_range(0, [v]);
                if from > 0 { accumulate(cx, d_bias, &sums)? } else { cx.copy(&sums, d_bias) }
            }
        }
        Ok(())
    }
}
