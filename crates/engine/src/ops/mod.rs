//! The operations, one room each.

pub mod binary;
pub mod sum;
pub mod unary;

#[cfg(test)]
pub(crate) mod checks;
