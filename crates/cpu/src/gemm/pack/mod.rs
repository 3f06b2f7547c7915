//! Packing of A and of B into the layouts that microkernels read.

pub mod a;
pub mod b;
#[cfg(target_arch = "x86_64")]
pub mod pairs;
