//! The CPU kernels of lowrank, on slices and raw pointers: no devices, no tensors, no JavaScript.
//!
//! - `attention`: attention and its gradients, tile by tile
//! - `gemm`: matrix products
//! - `simd`: functions compiled for each instruction set, and dispatch to the processor's
//! - `quant`: weights in quantised blocks, and their unpacking and packing
//! - `threads`, `tasks`: the threads of a launch, and how they share its tasks
//! - `random`: Philox, the counter-based generator

pub mod attention;
pub mod gemm;
pub mod quant;
pub mod random;
pub mod simd;
pub mod tasks;
pub mod testing;
pub mod threads;
