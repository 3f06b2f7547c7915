//! Values for trials.

use std::rc::Rc;

use crate::context::Context;
use crate::dtype::DType;
use crate::error::Result;
use crate::random::Stream;
use crate::shape::Shape;
use crate::value::Value;

/// Elements that are drawn; larger values repeat them.
const DRAWN: usize = 1 << 16;

/// A value of normally distributed numbers.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY`.
pub fn operand(cx: &Rc<Context>, shape: impl Into<Shape>, dtype: DType, seed: u64) -> Result<Value> {
    let value = cx.empty(shape, dtype)?;
    let size = value.size();
    let mut filled = size.min(DRAWN);
    cx.write(&value.sub_range(0, [filled]), drawn(filled, dtype, seed));
    while filled < size {
        let more = filled.min(size - filled);
        cx.copy(&value.sub_range(0, [more]), &value.sub_range(filled, [more]));
        filled += more;
    }
    Ok(value)
}

/// Bytes of `n` such numbers.
pub fn drawn(n: usize, dtype: DType, seed: u64) -> Vec<u8> {
    let numbers = Stream { seed, counter: 0 }.normal(n, 0.0, 1.0);
    match dtype {
        DType::F32 => bytemuck::cast_slice(&numbers).to_vec(),
        DType::F16 => numbers.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        DType::BF16 => numbers.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        DType::Block(_) => unreachable!("products by blocks have one form"),
        DType::I32 => numbers.iter().flat_map(|v| (*v as i32).to_le_bytes()).collect(),
    }
}
