//! safetensors: named tensors in one file, mapped and used in place.

mod header;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use header::Entry;
pub use read::Reader;
pub use safetensors::Dtype;
pub use write::{TensorData, TensorSpec, Writer, write};

use crate::dtype::DType;
use crate::error::Result;
use crate::fail;

/// The format's name for one of our element types.
///
/// # Errors
/// `ERR_DTYPE` for blocks, which the format lacks.
pub fn to_file_type(dtype: DType) -> Result<Dtype> {
    Ok(match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I32 => Dtype::I32,
        DType::Block(kind) => {
            fail!(Dtype, "safetensors files hold no blocks of {kind}; convert the tensor with to(\"f32\")")
        }
    })
}

/// The element type for computing with a stored type, if there is one.
pub fn to_compute_type(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I32 | Dtype::I64 => DType::I32,
        _ => return None,
    })
}
