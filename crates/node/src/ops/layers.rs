//! Operations of model layers.

use lowrank_engine::error::{Code, fail_code};
use lowrank_engine::ops;
use lowrank_engine::ops::cross_entropy::Reduction;
use napi_derive::napi;

use crate::error::{Error, Result, to_js_error};
use crate::session::Session;

/// One low-rank path of `loraLinear`: scale · drop(x)[rows]·Aᵀ·Bᵀ.
#[napi(object)]
pub struct LowRankPath {
    pub lora_a: u32,
    pub lora_b: u32,
    pub scale: f64,
    pub p: f64,
    pub seed: f64,
    /// The dropout mask's random stream, over all rows.
    pub stream: f64,
    /// Triples of first row, number of rows and random stream; empty for all rows.
    pub runs: Vec<f64>,
    /// The first output of each window; empty for one window over all outputs.
    pub windows: Vec<f64>,
}

impl LowRankPath {
    fn to_path(&self) -> ops::lora_linear::Path {
        let run = |r: &[f64]| ops::lora_linear::RowRange {
            start: r[0] as usize,
            count: r[1] as usize,
            stream: r[2] as u64,
        };
        ops::lora_linear::Path {
            scale: self.scale as f32,
            dropout: ops::dropout::Dropout { p: self.p, seed: self.seed as u64, offset: self.stream as u64 },
            row_ranges: self.runs.chunks_exact(3).map(run).collect(),
            windows: self.windows.iter().map(|start| *start as usize).collect(),
        }
    }
}

/// Dropout of attention weights.
#[napi(object)]
pub struct DropoutOptions {
    pub p: f64,
    pub seed: f64,
    /// The mask's random stream.
    pub stream: f64,
}

#[napi]
impl Session {
    /// y = x·Wᵀ + b plus each path's product, added to its rows and outputs.
    #[napi(catch_unwind)]
    pub fn lora_linear(
        &self,
        x: u32,
        weight: u32,
        bias: Option<u32>,
        fan_in_fan_out: bool,
        paths: Vec<LowRankPath>,
    ) -> Result<u32> {
        let factors = paths.iter().flat_map(|path| [path.lora_a, path.lora_b]);
        let inputs: Vec<u32> = [x, weight].into_iter().chain(factors).chain(bias).collect();
        let paths = paths.iter().map(LowRankPath::to_path).collect();
        let precision = self.state.borrow().precision;
        let op = ops::lora_linear::LoraLinear { fan_in_fan_out, precision, paths };
        self.apply(op, &inputs)
    }

    #[napi(catch_unwind)]
    pub fn dropout(&self, x: u32, p: f64, seed: f64, stream: f64) -> Result<u32> {
        self.apply(ops::dropout::Dropout { p, seed: seed as u64, offset: stream as u64 }, &[x])
    }

    #[napi(catch_unwind)]
    pub fn embedding(
        &self,
        weight: u32,
        ids: u32,
        transposed: bool,
        padding_idx: Option<u32>,
    ) -> Result<u32> {
        self.apply(ops::embedding::Embedding { padding_idx, transposed }, &[weight, ids])
    }

    /// An embedding whose table has a low-rank update.
    #[napi(catch_unwind)]
    pub fn lora_embedding(
        &self,
        weight: u32,
        ids: u32,
        lora_a: u32,
        lora_b: u32,
        scale: f64,
        padding_idx: Option<u32>,
    ) -> Result<u32> {
        let op = ops::lora_embedding::LoraEmbedding { scale: scale as f32, padding_idx };
        self.apply(op, &[weight, ids, lora_a, lora_b])
    }

    #[napi(catch_unwind)]
    pub fn rms_norm(&self, x: u32, weight: u32, eps: f64) -> Result<u32> {
        self.apply(ops::rms_norm::RmsNorm { eps: eps as f32 }, &[x, weight])
    }

    #[napi(catch_unwind)]
    pub fn layer_norm(&self, x: u32, weight: Option<u32>, bias: Option<u32>, eps: f64) -> Result<u32> {
        let op =
            ops::layer_norm::LayerNorm { eps: eps as f32, weight: weight.is_some(), bias: bias.is_some() };
        let inputs: Vec<u32> = [x].into_iter().chain(weight).chain(bias).collect();
        self.apply(op, &inputs)
    }

    #[napi(catch_unwind)]
    pub fn silu_mul(&self, gate: u32, up: u32) -> Result<u32> {
        self.apply(ops::silu_mul::SiluMul, &[gate, up])
    }

    /// Computes x + r and its norm; returns [sum, norm].
    #[napi(catch_unwind)]
    pub fn added_rms_norm(&self, x: u32, r: u32, weight: u32, eps: f64) -> Result<Vec<u32>> {
        let op = ops::added_norm::AddedNorm(ops::rms_norm::RmsNorm { eps: eps as f32 });
        Ok(self.apply_all(op, &[x, r, weight], 2)?.into_iter().rev().collect())
    }

    /// Computes x + r and its norm; returns [sum, norm].
    #[napi(catch_unwind)]
    pub fn added_layer_norm(
        &self,
        x: u32,
        r: u32,
        weight: Option<u32>,
        bias: Option<u32>,
        eps: f64,
    ) -> Result<Vec<u32>> {
        let norm =
            ops::layer_norm::LayerNorm { eps: eps as f32, weight: weight.is_some(), bias: bias.is_some() };
        let inputs: Vec<u32> = [x, r].into_iter().chain(weight).chain(bias).collect();
        Ok(self.apply_all(ops::added_norm::AddedNorm(norm), &inputs, 2)?.into_iter().rev().collect())
    }

    /// Applies rotary embeddings from position `offset`, or at `positions`, to one tensor, or to two in one launch.
    #[napi(catch_unwind)]
    pub fn rotary(
        &self,
        x: Vec<u32>,
        cos: u32,
        sin: u32,
        offset: u32,
        positions: Option<u32>,
        dims: Option<u32>,
    ) -> Result<Vec<u32>> {
        let op = ops::rotary::Rotary {
            offset: offset as usize,
            positions: positions.is_some(),
            dims: dims.map(|dims| dims as usize),
            two: x.len() == 2,
        };
        let inputs: Vec<u32> = x.iter().copied().chain([cos, sin]).chain(positions).collect();
        self.apply_all(op, &inputs, x.len())
    }

    /// Attention. `window` 0 disables the sliding window. `length` keys of k and v are read, from position 0. Positions
    /// attend only within equal `segments`. With `headsFirst`, q, k, v and the output are [B, H, T, D]; otherwise
    /// [B, T, H, D]. `dropout` drops weights with a mask from its seed and stream.
    #[napi(catch_unwind)]
    pub fn attention(
        &self,
        q: u32,
        k: u32,
        v: u32,
        mask: Option<u32>,
        causal: bool,
        window: u32,
        scale: f64,
        offset: u32,
        length: u32,
        segments: Option<u32>,
        heads_first: Option<bool>,
        dropout: Option<DropoutOptions>,
    ) -> Result<u32> {
        let op = ops::attention::Attention {
            causal,
            window: (window > 0).then_some(window as usize),
            scale: Some(scale as f32),
            offset: offset as usize,
            length: Some(length as usize),
            segments: segments.is_some(),
            mask: mask.is_some(),
            heads_first: heads_first.unwrap_or(false),
            dropout: dropout.map_or_else(Default::default, |d| ops::dropout::Dropout {
                p: d.p,
                seed: d.seed as u64,
                offset: d.stream as u64,
            }),
            precision: self.state.borrow().precision,
        };
        let inputs: Vec<u32> = [q, k, v].into_iter().chain(segments).chain(mask).collect();
        self.apply(op, &inputs)
    }

    /// Writes `rows` into `cache` from `position`, in place.
    #[napi(catch_unwind)]
    pub fn cache_write(&self, cache: u32, rows: u32, position: u32) -> Result<()> {
        self.with_state(|s| {
            let (cache, rows) = (s.tensor(cache)?.value(), s.tensor(rows)?.value());
            ops::cache_write::cache_write(cache.context(), &cache, &rows, position as usize)
        })
    }

    #[napi(catch_unwind)]
    pub fn cross_entropy(
        &self,
        logits: u32,
        targets: u32,
        ignore_index: i32,
        label_smoothing: f64,
        reduction: String,
    ) -> Result<u32> {
        let reduction = parse_reduction("crossEntropy", &reduction)?;
        let op = ops::cross_entropy::CrossEntropy {
            ignore_index,
            label_smoothing: label_smoothing as f32,
            reduction,
        };
        self.apply(op, &[logits, targets])
    }

    /// Cross-entropy of hidden·Wᵀ + b without ever storing all logits.
    #[napi(catch_unwind)]
    pub fn linear_cross_entropy(
        &self,
        hidden: u32,
        weight: u32,
        targets: u32,
        bias: Option<u32>,
        ignore_index: i32,
        label_smoothing: f64,
        reduction: String,
    ) -> Result<u32> {
        let recorded = !self.state.borrow().tape.mode().no_grad;
        let asks = |id| Ok::<bool, Error>(recorded && self.requires_grad(id)?);
        let wanted = ops::linear_cross_entropy::WantedGradients {
            hidden: asks(hidden)?,
            weight: asks(weight)?,
            bias: bias.map_or(Ok(false), asks)?,
        };
        let op = ops::linear_cross_entropy::LinearCrossEntropy {
            ignore_index,
            label_smoothing: label_smoothing as f32,
            reduction: parse_reduction("linearCrossEntropy", &reduction)?,
            wanted,
            precision: self.state.borrow().precision,
        };
        let inputs: Vec<u32> = [hidden, weight, targets].into_iter().chain(bias).collect();
        self.apply(op, &inputs)
    }
}

fn parse_reduction(operation: &str, name: &str) -> Result<Reduction> {
    match name {
        "mean" => Ok(Reduction::Mean),
        "sum" => Ok(Reduction::Sum),
        "none" => Ok(Reduction::None),
        other => {
            let message = format!("{operation}: reduction \"{other}\" is none of mean, sum, none");
            Err(to_js_error(fail_code(Code::Option, message)))
        }
    }
}
