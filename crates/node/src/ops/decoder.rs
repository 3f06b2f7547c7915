//! One decoder block over its KV cache, in one call.

use lowrank_engine::context::Value;
use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_engine::ops::decoder_block::{DecoderBlock, Dense, LowRank, Norm};
use lowrank_engine::tape::Tensor;
use napi_derive::napi;

use crate::error::Result;
use crate::session::{Session, State};

/// The handle that stands for an absent tensor.
const NONE: u32 = u32::MAX;
/// Norms, rotary tables and caches, two of each.
const PAIRS: usize = 6;
/// q, k, v, output, gate, up and down; each a weight, a bias, A and B.
const LAYERS: usize = 7;
const PARTS: usize = 4;
/// The norms' eps and attention's scale, then each layer's scale.
const NUMBERS: usize = 3;

#[napi]
impl Session {
    /// Records a block over x + r (or x) at `position`, without a gradient. Returns its output as [a, m]; the caller
    /// computes a + m. `tensors`: both norms' weights, cos and sin, the caches of keys and values, then weight, bias, A
    /// and B of each layer. `numbers`: both norms' eps, attention's scale, then each layer's scale. `window` 0 disables
    /// the sliding window.
    #[napi(catch_unwind)]
    pub fn decoder_block(
        &self,
        x: u32,
        r: Option<u32>,
        tensors: &[u32],
        numbers: &[f64],
        position: u32,
        window: u32,
    ) -> Result<Vec<u32>> {
        self.with_state(|state| {
            if tensors.len() != PAIRS + PARTS * LAYERS || numbers.len() != NUMBERS + LAYERS {
                return Err(fail_code(Code::Internal, "decoder_block: not as many parts as a block has"));
            }
            let block = read_block(state, tensors, numbers, position, window)?;
            let x = state.tensor(x)?.value();
            let r = r.map(|r| Ok(state.tensor(r)?.value())).transpose()?;
            let made = block.record(x.context(), &x, r.as_ref())?;
            Ok(made.into_iter().map(|value| state.insert(Tensor::new(value, false))).collect())
        })
    }
}

fn read_block(
    state: &State,
    tensors: &[u32],
    numbers: &[f64],
    position: u32,
    window: u32,
) -> engine::Result<DecoderBlock> {
    let value = |i: usize| -> engine::Result<Value> { Ok(state.tensor(tensors[i])?.value()) };
    let maybe = |i: usize| if tensors[i] == NONE { Ok(None) } else { value(i).map(Some) };
    let norm = |i: usize| -> engine::Result<Norm> { Ok(Norm { weight: value(i)?, eps: numbers[i] as f32 }) };
    let dense = |layer: usize| -> engine::Result<Dense> {
        let at = PAIRS + PARTS * layer;
        let scale = numbers[NUMBERS + layer] as f32;
        let low_rank = match (maybe(at + 2)?, maybe(at + 3)?) {
            (Some(a), Some(b)) => Some(LowRank { a, b, scale }),
            _ => None,
        };
        Ok(Dense { weight: value(at)?, bias: maybe(at + 1)?, low_rank })
    };
    Ok(DecoderBlock {
        norms: [norm(0)?, norm(1)?],
        inputs: [dense(0)?, dense(1)?, dense(2)?],
        output: dense(3)?,
        gated: [dense(4)?, dense(5)?],
        down: dense(6)?,
        cos: value(2)?,
        sin: value(3)?,
        caches: [value(4)?, value(5)?],
        position: position as usize,
        window: (window > 0).then_some(window as usize),
        scale: numbers[2] as f32,
        precision: state.precision,
    })
}
