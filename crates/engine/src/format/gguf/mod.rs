//! GGUF: named tensors, some of them in blocks, with typed metadata, in one file that is mapped.
//!
//! Of a header nothing is kept but where its keys and tensors stand, and what is asked for is read again where it lies:
//! so that a reader never takes more memory than the file has bytes, whatever the file says of itself.

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
