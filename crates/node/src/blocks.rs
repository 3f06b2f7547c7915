//! Packing of values into quantised blocks, for files that store them so.

use lowrank_cpu::quant::pack::{FILE_TYPES, pack_for_file};
use lowrank_engine::dtype::DType;
use lowrank_engine::error::{Code, fail_code};
use napi::Env;
use napi::bindgen_prelude::Uint8ArraySlice;
use napi_derive::napi;

use crate::error::{Result, to_js_error, wrap_napi_error};

/// Packs `values` into blocks of `kind`; their number must be a multiple of the block size. Returns null if a value
/// is not finite or exceeds the range of a block's scale.
#[napi(catch_unwind)]
pub fn blocks_of<'env>(
    env: &'env Env,
    values: &[f32],
    kind: String,
) -> Result<Option<Uint8ArraySlice<'env>>> {
    let made = FILE_TYPES.into_iter().find(|made| made.as_str() == kind);
    let Some(kind) = made.filter(|kind| DType::Block(*kind).divides(&[values.len()].into())) else {
        let what = format!("blocksOf: {} values make no blocks of {kind}", values.len());
        return Err(to_js_error(fail_code(Code::Internal, what)));
    };
    let read = |at: usize, out: &mut [f32]| out.copy_from_slice(&values[at..at + out.len()]);
    let packed = pack_for_file(kind, values.len(), &read).ok();
    packed.map(|blocks| Uint8ArraySlice::copy_from(env, &blocks[..]).map_err(wrap_napi_error)).transpose()
}
