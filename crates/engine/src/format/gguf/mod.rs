//! GGUF: named tensors, some of them in blocks, with typed metadata, in one file that is mapped.

mod cursor;
mod header;
mod metadata;
mod read;
#[cfg(test)]
mod tests;

pub use header::{Entry, TensorType};
pub use metadata::MetaValue;
pub use read::{Reader, RowOrder};
