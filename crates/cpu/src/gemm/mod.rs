//! Matrix products: C = (C) + α·A·B + (bias), with B in f32, f16, bf16 or quantised blocks, and sums in f32.
//!
//! A blocked GEMM with packed panels of B (Van Zee and van de Geijn, "BLIS: a framework for rapidly instantiating BLAS
//! functionality", 2015), and a single pass over B where A has few rows. From the outer loops inwards:
//!
//! - `arguments`: views of factors, and the types of kernels; imports no other file of this folder
//! - `product`: a product over raw operands; `multiply`, `driver` and `rounded` run it
//! - `driver`: chooses kernels and blocking (`blocking`), and divides C into tasks (`partition`)
//! - `task`: the loops over blocks of K, panels of B, groups of rows and tiles
//! - `pack`: packs rows of A and columns of B into the layout that microkernels read
//! - `microkernel`: a tile of C in registers, in one form per instruction set; `table` lists them
//! - `gemv`: few rows; `quantised`: B in blocks
//! - `measure`: the fastest form of rounded products on this processor
//!
//! docs/design/measurements.md has the rates and the variants that were tried.

mod arguments;
mod blocking;
mod cache_line;
mod driver;
mod gemv;
pub mod measure;
mod microkernel;
mod multiply;
mod pack;
mod partition;
mod product;
mod quantised;
mod rounded;
mod table;
mod task;
#[cfg(test)]
mod tests;
mod workspace;

pub use arguments::MAX_GEMV_ROWS;
// Used by attention and convolutions, which multiply tile by tile.
pub use arguments::{Epilogue, Left, Right, Source, TileProduct};
pub use blocking::{blocking, choose_register_kc};
pub use cache_line::{ALIASING_STRIDE, LINE};
pub use multiply::Multiply;
pub use partition::{CBlock, Partition};
pub use product::{Product, SecondSegment};
pub use quantised::{BlockPointer, Blocks};
pub use table::{KernelTable, Storage, available_tables, current_table};
pub use workspace::with_workspace;
