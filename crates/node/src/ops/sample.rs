//! Sampling of the next token of each sequence of a batch.

use lowrank_engine::fail;
use lowrank_engine::ops::sample::{Sample, record};
use lowrank_engine::tape::Tensor;
use napi_derive::napi;

use crate::error::Result;
use crate::random::make_stream;
use crate::session::Session;

/// Parameters of a row: seed, draw, temperature, top k, top p, min p, repetition penalty.
const NUMBERS: usize = 7;

#[napi]
impl Session {
    /// Samples a token from each row of logits [n, V] and marks it in `seen` [n, V]. Returns the tokens [n], and an [n]
    /// tensor with the index of a row's first NaN, V if all its logits are −∞, or else −1. `rows` has 7 numbers for
    /// each row: seed, number of the draw, temperature, top k, top p, min p and repetition penalty; see the engine's
    /// `Sample`.
    #[napi(catch_unwind)]
    pub fn sample(&self, logits: u32, seen: Option<u32>, rows: &[f64]) -> Result<Vec<u32>> {
        self.with_state(|state| {
            let logits = state.tensor(logits)?.value();
            let seen = seen.map(|seen| Ok(state.tensor(seen)?.value())).transpose()?;
            let (rows, rest) = rows.as_chunks::<NUMBERS>();
            if !rest.is_empty() {
                fail!(ShapeMismatch, "sample: options are not {NUMBERS} numbers a row");
            }
            let of = |row: &[f64; NUMBERS]| {
                let [seed, draw, temperature, top_k, top_p, min_p, repetition_penalty] = *row;
                let top_k = top_k as usize;
                let sample = Sample { temperature, top_k, top_p, min_p, repetition_penalty };
                (sample, make_stream(seed, draw).word())
            };
            let rows: Vec<(Sample, u64)> = rows.iter().map(of).collect();
            let made = record(&logits, seen.as_ref(), &rows)?;
            Ok(made.into_iter().map(|value| state.insert(Tensor::new(value, false))).collect())
        })
    }
}
