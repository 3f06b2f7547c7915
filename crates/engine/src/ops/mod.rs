//! The operations, one room each.

pub mod attention;
pub mod binary;
pub mod cache_write;
pub mod concat;
pub mod linear;
pub mod lora_linear;
pub mod matmul;
pub mod argmax;
pub mod binary;
pub mod concat;
pub mod max;
pub mod mean;
pub mod permute;
pub mod reshape;
pub mod rotary;
pub mod silu_mul;
pub mod slice;
pub mod sum;
pub mod unary;

#[cfg(test)]
pub(crate) mod checks;
