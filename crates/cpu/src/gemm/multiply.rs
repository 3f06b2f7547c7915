//! Products by storage type. They are compiled here and not in the crates that call them, so that the functions of a
//! product's loops can be inlined.

use half::{bf16, f16};

use super::product::Product;
use super::quantised::Blocks;
use super::table::KernelTable;

/// A product that can be computed.
pub trait Multiply: Sized {
    /// Computes the product on the threads of the current pool, at most `threads`.
    ///
    /// # Safety
    /// The operands cover the given sizes and strides, and nothing else writes C. The processor has the instructions of
    /// `table`.
    unsafe fn multiply(&self, table: &'static KernelTable, threads: usize);

    /// Products of one A, of at most `MAX_GEMV_ROWS` rows, by several weights that are contiguous along k. One parallel
    /// pass computes all of them, with the same results as separate products.
    ///
    /// # Safety
    /// As for `multiply`.
    unsafe fn multiply_together(products: &[Self], table: &'static KernelTable, threads: usize);
}

macro_rules! multiply {
    ($($storage:ty),*) => {$(
        impl Multiply for Product<$storage> {
            unsafe fn multiply(&self, table: &'static KernelTable, threads: usize) {
                // SAFETY: guaranteed by the caller.
                unsafe { self.run(table, threads) }
            }

            unsafe fn multiply_together(products: &[Self], table: &'static KernelTable, threads: usize) {
                // SAFETY: guaranteed by the caller.
                unsafe { Product::run_together(products, table, threads) }
            }
        }
    )*};
}
multiply!(f32, f16, bf16, Blocks);
