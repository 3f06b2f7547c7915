//! In-place write of keys or values into a cache's buffer.
//!
//! cache[b, position + t] = rows[b, t]. Shapes: rows [B, T, Hkv, D]; cache [B, capacity, Hkv, D]. The only operation
//! that writes in place: it increments the version of the cache's storage, so that a tape which saved the cache refuses
//! to run backward through it. It has no gradient.

#[cfg(test)]
pub(in crate::ops) mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::copy::{Side, copy};

/// Returns rows `position..position + count` of a cache with one batch row, as [1, T, Hkv, D], to be written directly;
/// `None` with several batch rows or if the rows do not fit.
pub fn slice_rows(cache: &Value, position: usize, count: usize) -> Option<Value> {
    let &[1, capacity, heads, dim] = &cache.shape[..] else { return None };
    let fits = cache.dtype == DType::F32 && position + count <= capacity;
    fits.then(|| cache.sub_range(position * heads * dim, [1, count, heads, dim]))
}

/// Appends the write of `rows` at `position`.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` unless the rows fit the buffer and its remaining capacity; `ERR_DTYPE` unless both have the
/// same dtype of four bytes; `ERR_DEVICE_MISMATCH`.
pub fn cache_write(cx: &Rc<Context>, cache: &Value, rows: &Value, position: usize) -> Result<()> {
    if ![cache, rows].iter().all(|v| Rc::ptr_eq(v.context(), cx)) {
        let [cache, rows] = [cache, rows].map(|v| &v.context().profile.label);
        fail!(DeviceMismatch, "cache_write: the cache is on {cache} and the rows on {rows}");
    }
    if cache.dtype != rows.dtype || cache.dtype.bytes() != 4 {
        fail!(Dtype, "cache_write: a cache of {cache:?} does not take rows of {rows:?}");
    }
    let fits = cache.shape.rank() == 4
        && rows.shape.rank() == 4
        && cache.shape[0] == rows.shape[0]
        && cache.shape[2..] == rows.shape[2..];
    if !fits {
        fail!(
            ShapeMismatch,
            "cache_write: rows {} are not [B, T, Hkv, D] of the cache {}",
            rows.shape,
            cache.shape
        );
    }
    if position + rows.shape[1] > cache.shape[1] {
        fail!(
            ShapeMismatch,
            "cache_write: {} rows at position {position} pass the end of the cache {}",
            rows.shape[1],
            cache.shape
        );
    }
    let strides = cache.shape.strides();
    let to = Side { value: cache, start: position * strides[1], strides };
    copy(cx, "cache_write", &rows.shape, &Side::whole(rows), &to)?;
    cache.storage.record_write();
    Ok(())
}
