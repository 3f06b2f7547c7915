//! The operations, one room each.

pub mod binary;
pub mod concat;
pub mod permute;
pub mod reshape;
pub mod slice;
pub mod linear;
pub mod matmul;
pub mod sum;
pub mod unary;

#[cfg(test)]
pub(crate) mod checks;
