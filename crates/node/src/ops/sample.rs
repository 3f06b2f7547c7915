//! The choice of the next token of each text of a batch.

use lowrank_engine::ops::sample::Sample;
use lowrank_engine::tape::Tensor;
use napi_derive::napi;

use crate::error::Result;
use crate::random::stream;
use crate::session::Session;

/// How tokens are chosen; `Sample` of the engine says what each is.
#[napi(object)]
pub struct SampleOptions {
    pub temperature: f64,
    pub top_k: f64,
    pub top_p: f64,
    pub min_p: f64,
    pub repetition_penalty: f64,
}

#[napi]
impl Session {
    /// Draws number `draw` of each seed from a row of logits [n, V], marking it in `seen` [n, V]; gives the tokens
    /// [n] and, [n], −1 or where a row's logits are no numbers.
    #[napi(catch_unwind)]
    pub fn sample(
        &self,
        logits: u32,
        seen: Option<u32>,
        seeds: &[f64],
        draw: f64,
        options: SampleOptions,
    ) -> Result<Vec<u32>> {
        self.with(|state| {
            let logits = state.tensor(logits)?.value();
            let seen = seen.map(|seen| Ok(state.tensor(seen)?.value())).transpose()?;
            let SampleOptions { temperature, top_k, top_p, min_p, repetition_penalty } = options;
            let sample = Sample { temperature, top_k: top_k as usize, top_p, min_p, repetition_penalty };
            let words: Vec<u64> = seeds.iter().map(|seed| stream(*seed, draw).word()).collect();
            let made = sample.record(&logits, seen.as_ref(), &words)?;
            Ok(made.into_iter().map(|value| state.insert(Tensor::new(value, false))).collect())
        })
    }
}
