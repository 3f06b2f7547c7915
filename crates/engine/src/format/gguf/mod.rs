//! GGUF: named tensors, some of them in blocks, with typed metadata, in one mapped file.
//!
//! Only the offsets of keys and tensors are kept in memory, and everything else is read from the file on demand. So a
//! reader never takes more memory than the file has bytes, whatever its header claims.

mod cursor;
mod header;
mod metadata;
mod names;
mod read;
mod tensors;
#[cfg(test)]
mod tests;

pub use metadata::{List, MetaValue, Numbers, Texts, Values};
pub use read::{Reader, RowOrder};
pub use tensors::{Entry, TensorType};
