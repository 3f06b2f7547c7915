//! The operations, one room each.

pub mod adaptive_avg_pool;
pub mod added_norm;
pub mod argmax;
pub mod attention;
pub mod avg_pool;
pub mod binary;
pub mod cache_write;
pub mod cast;
pub mod clamp;
pub mod concat;
pub mod conv;
pub mod conv_transpose;
pub mod cross_entropy;
pub mod decoder_block;
pub mod dropout;
pub mod embedding;
pub mod gather;
pub mod layer_norm;
pub mod linear;
pub mod linear_cross_entropy;
pub mod lora_embedding;
pub mod lora_linear;
pub mod matmul;
pub mod max;
pub mod max_pool;
pub mod mean;
pub mod pad;
pub mod permute;
pub mod projections;
pub mod reshape;
pub mod rms_norm;
pub mod rotary;
pub mod sample;
pub mod silu_mul;
pub mod slice;
pub mod softmax;
pub mod sum;
pub mod unary;
pub mod r#where;

#[cfg(test)]
pub(crate) mod checks;
