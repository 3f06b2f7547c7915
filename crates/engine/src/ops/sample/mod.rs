//! Sampling of a token from each row of logits, with transformers' logits processors in their order.
//!
//! Shapes: logits [n, V], options and a word of 64 random bits for each row; outputs token i32 [n] and bad i32 [n]: the
//! position of a logit that is NaN, V if every logit is −∞, otherwise −1. `seen` i32 [n, V], which the repetition
//! penalty needs, is 1 for tokens that were seen; the sampled token is marked in place. It has no gradient.
//!
//! Source: Keskar et al. 2019 (repetition penalty), Fan et al. 2018 (top-k), Holtzman et al. 2020 (top-p), Nguyen et
//! al. 2024 (min-p); transformers' `logits_process.py`. All tokens that are as likely as the last kept one are kept:
//! transformers does so for top-k and does not specify it for top-p.

#[cfg(test)]
mod reference;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::sample::{FARTHEST, Sampling, WORDS, sample};

/// The sampling options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The divisor of logits; 0 takes the first of the most likely tokens, regardless of the random word.
    pub temperature: f64,
    /// Keeps the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest most likely tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f64,
    /// Keeps tokens with at least this share of the highest probability; 0 keeps all.
    pub min_p: f64,
    /// For tokens that were seen: divides positive logits and multiplies negative ones.
    pub repetition_penalty: f64,
}

/// Appends the sampling of a token from each row of logits, with the row's options and random word.
///
/// # Errors
/// `ERR_OPTION` for a value outside its range, or a penalty without `seen`; `ERR_DTYPE`; `ERR_SHAPE_MISMATCH`;
/// `ERR_OUT_OF_MEMORY` if V elements exceed the binding limit.
pub fn record(logits: &Value, seen: Option<&Value>, rows: &[(Sample, u64)]) -> Result<[Value; 2]> {
    let cx: &Rc<Context> = logits.context();
    let &[count, n] = &logits.shape[..] else {
        fail!(ShapeMismatch, "sample: logits {} are not [n, V]", logits.shape);
    };
    if n == 0 || rows.len() != count {
        fail!(ShapeMismatch, "sample: options of {} rows for logits {}", rows.len(), logits.shape);
    }
    if logits.dtype != DType::F32 {
        fail!(Dtype, "sample: takes logits of f32, not {}", logits.dtype);
    }
    if let Some(seen) = seen
        && (seen.dtype != DType::I32 || seen.shape != logits.shape || !Rc::ptr_eq(seen.context(), cx))
    {
        fail!(ShapeMismatch, "sample: seen {} does not fit logits {}", seen.spec(), logits.spec());
    }
    if seen.is_none() && rows.iter().any(|(sample, _)| sample.repetition_penalty != 1.0) {
        fail!(Option, "sample: a repetition penalty needs the tokens that were seen");
    }
    let mut bytes = Vec::new();
    for (sample, random) in rows {
        // At temperature 0 only the most likely tokens are left; the word 0 selects the first of them.
        let random = if sample.temperature == 0.0 { 0 } else { *random };
        bytes.extend(sample.to_sampling()?.to_words(random).into_iter().flat_map(u32::to_le_bytes));
    }
    let options = cx.upload([count, WORDS], DType::I32, bytes)?;
    let [token, bad] = [cx.empty([count], DType::I32)?, cx.empty([count], DType::I32)?];
    sample(cx, [logits, &options], seen, [&token, &bad])?;
    Ok([token, bad])
}

impl Sample {
    fn to_sampling(self) -> Result<Sampling> {
        let Sample { temperature, top_k, top_p, min_p, repetition_penalty } = self;
        let is_valid = temperature >= 0.0
            && temperature.is_finite()
            && top_p > 0.0
            && top_p <= 1.0
            && (0.0..=1.0).contains(&min_p)
            && repetition_penalty > 0.0
            && repetition_penalty.is_finite();
        if !is_valid {
            fail!(Option, "sample: {self:?} is out of range");
        }
        let unit = (1u64 << 24) as f64;
        Ok(Sampling {
            // Finite, but so large that the smallest difference in f32 exceeds every distance.
            steps: (unit / temperature).min(1e30) as f32,
            penalty: [repetition_penalty as f32, (1.0 / repetition_penalty) as f32],
            top_k: top_k.min(u32::MAX as usize) as u32,
            top_p: if top_p == 1.0 { 0 } else { (top_p * (1u64 << 32) as f64).round().max(1.0) as u32 },
            farthest: if temperature == 0.0 {
                0
            } else if min_p == 0.0 {
                FARTHEST
            } else {
                (-min_p.ln() * unit) as u32
            },
        })
    }
}
