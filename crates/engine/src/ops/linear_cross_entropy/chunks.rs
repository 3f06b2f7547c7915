//! The pass over rows by chunks: logits, losses, and at once the gradients that are wanted.

use std::rc::Rc;

use super::LinearCrossEntropy;
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernels::cross_entropy::{Labels, row_losses, row_losses_in_place};
use crate::kernels::elementwise::accumulate;
use crate::kernels::gemm::{Gemm, Matrix, gemm, row_stride};
use crate::kernels::reduce::{Reduction, reduce};
use crate::profile::Kind;

/// Bytes of logits that exist at a time, and up to which there are more if chunks have fewer rows than `AMORTISED`. On a
/// cpu each chunk packs the weight twice. Until that was weighed, a chunk was of 18 MiB: SmolLM2's head of 512 rows took 6
/// of 86, not 2 of 256, and its step 5% longer by AVX2 and 3% in bf16 by AMX; at Llama 3.2 1B's shape 8 of 64, and 17%.
fn logit_bytes(kind: Kind) -> [usize; 2] {
    match kind {
        Kind::Cpu => [48 << 20, 128 << 20],
        Kind::Gpu => [32 << 20, 32 << 20],
    }
}
/// Rows from which on packing the weight is little beside what it is multiplied by.
const AMORTISED: usize = 256;
/// The bounds of a chunk's rows: below, products run slowly.
const ROWS: std::ops::RangeInclusive<usize> = 64..=1024;
/// A multiple of the rows that the tiles of AVX2 and AVX-512 have.
const TILE: usize = 12;

/// What a pass reads: hidden [N, C], W [V, C], b [V] and the labels [N].
pub struct Given<'a> {
    pub hidden: &'a Value,
    pub weight: &'a Value,
    pub bias: Option<&'a Value>,
    pub targets: &'a Value,
}

/// What a pass writes: the losses [N], and the gradients of their sum, as the inputs are shaped.
pub struct Made<'a> {
    pub losses: &'a Value,
    pub d_hidden: Option<&'a Value>,
    pub d_weight: Option<&'a Value>,
    pub d_bias: Option<&'a Value>,
}

impl LinearCrossEntropy {
    /// Goes through N > 0 rows.
    pub(super) fn pass(&self, cx: &Rc<Context>, given: &Given, made: &Made) -> Result<()> {
        let Given { hidden, weight, bias, targets } = *given;
        let (rows, c, v) = (targets.size(), weight.shape[1], weight.shape[0]);
        let [few, many] = logit_bytes(cx.profile.kind).map(|bytes| bytes / (4 * v));
        let most = few.max(many.min(AMORTISED)).clamp(*ROWS.start(), *ROWS.end());
        // Of a size, of whole tiles where that takes no more chunks.
        let chunk = rows.div_ceil(rows.div_ceil(most)).next_multiple_of(TILE).min(most);
        let stride = if self.wanted.any() { row_stride(v) } else { v };
        let logits = cx.empty([chunk, stride], DType::F32)?;
        let log_sums = cx.empty([chunk], DType::F32)?;
        for from in (0..rows).step_by(chunk) {
            let n = chunk.min(rows - from);
            let h = hidden.sub_range(from * c, [n, c]);
            let logits = logits.sub_range(0, [n, stride]);
            let targets = targets.sub_range(from, [n]);
            let losses = made.losses.sub_range(from, [n]);
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
                row_losses(cx, &logits, labels, &losses, &log_sums.sub_range(0, [n]))?;
                continue;
            }
            row_losses_in_place(cx, &logits, v, labels, &losses)?;
            let d_logits = Matrix::new(&logits, stride);
            if let Some(d_hidden) = made.d_hidden {
                gemm(
                    cx,
                    Gemm::new(n, c, v).precision(self.precision),
                    d_logits,
                    Matrix::new(weight, c),
                    None,
                    Matrix::new(&d_hidden.sub_range(from * c, [n, c]), c),
                )?;
            }
            if let Some(d_weight) = made.d_weight {
                let product = Gemm::new(v, c, n).accumulate_if(from > 0);
                gemm(cx, product, d_logits.t(), Matrix::new(&h, c), None, Matrix::new(d_weight, c))?;
            }
            if let Some(d_bias) = made.d_bias {
                // What lies between the rows is summed, too, into columns of its own.
                let sums = cx.empty([stride], DType::F32)?;
                reduce(cx, Reduction::Sum, &logits, [1, n, stride], &sums)?;
                let sums = sums.sub_range(0, [v]);
                if from > 0 { accumulate(cx, d_bias, &sums)? } else { cx.copy(&sums, d_bias) }
            }
        }
        Ok(())
    }
}
