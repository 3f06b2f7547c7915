//! The reference: the `half` crate's rounding, and Rust's conversion to integers.

use half::{bf16, f16};

use crate::dtype::DType::{self, *};

pub fn compute_reference(v: f64, from: DType, to: DType) -> f64 {
    let stored = match from {
        F32 => v as f32,
        F16 => f16::from_f32(v as f32).to_f32(),
        BF16 => bf16::from_f32(v as f32).to_f32(),
        I32 => v as i32 as f32,
        Block(_) => unreachable!("its values are those of its blocks"),
    };
    match to {
        I32 if from == I32 => v as i32 as f64,
        I32 => stored as i32 as f64,
        F32 => stored as f64,
        F16 => f16::from_f32(stored).to_f64(),
        BF16 => bf16::from_f32(stored).to_f64(),
        Block(_) => unreachable!("nothing is cast to blocks"),
    }
}
