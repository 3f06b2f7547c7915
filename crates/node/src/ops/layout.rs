//! Operations that copy, sort or accumulate elements along a dimension.

use lowrank_engine::ops;
use napi_derive::napi;

use super::to_usizes;
use crate::error::{Result, to_js_error};
use crate::session::{Session, parse_shape, parse_sizes};

#[napi]
impl Session {
    #[napi(catch_unwind)]
    pub fn expand(&self, x: u32, shape: Vec<f64>) -> Result<u32> {
        let shape = parse_shape(&shape).map_err(to_js_error)?[..].into();
        self.apply(ops::expand::Expand { shape }, &[x])
    }

    #[napi(catch_unwind)]
    pub fn flip(&self, x: u32, dims: Vec<u32>) -> Result<u32> {
        self.apply(ops::flip::Flip { dims: to_usizes(&dims) }, &[x])
    }

    /// Splits one dimension into pieces of the given sizes, which must add up to its size.
    #[napi(catch_unwind)]
    pub fn split(&self, x: u32, dim: u32, sizes: Vec<f64>) -> Result<Vec<u32>> {
        let sizes = parse_sizes(&sizes).map_err(to_js_error)?;
        let count = sizes.len();
        self.apply_all(ops::split::Split { dim: dim as usize, sizes }, &[x], count)
    }

    /// Pads the last dimensions with `value`; two numbers for each: before and after.
    #[napi(catch_unwind)]
    pub fn constant_pad(&self, x: u32, padding: Vec<f64>, value: f64) -> Result<u32> {
        let padding = parse_sizes(&padding).map_err(to_js_error)?;
        let padding = padding.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
        self.apply(ops::constant_pad::ConstantPad { padding, value }, &[x])
    }

    #[napi(catch_unwind)]
    pub fn cumsum(&self, x: u32, dim: u32) -> Result<u32> {
        self.apply(ops::cumsum::Cumsum { dim: dim as usize }, &[x])
    }

    #[napi(catch_unwind)]
    pub fn cumprod(&self, x: u32, dim: u32) -> Result<u32> {
        self.apply(ops::cumprod::Cumprod { dim: dim as usize }, &[x])
    }

    /// Returns the values and indices of the first `count` elements after sorting.
    #[napi(catch_unwind)]
    pub fn sort(&self, x: u32, dim: u32, descending: bool, count: f64, topk: bool) -> Result<Vec<u32>> {
        let (dim, count, name) = (dim as usize, count as usize, if topk { "topk" } else { "sort" });
        self.apply_all(ops::sort::Sort { dim, descending, count, name }, &[x], 2)
    }

    #[napi(catch_unwind)]
    pub fn scatter_add(&self, x: u32, dim: u32, index: u32, src: u32) -> Result<u32> {
        self.apply(ops::scatter_add::ScatterAdd { dim: dim as usize }, &[x, index, src])
    }

    #[napi(catch_unwind)]
    pub fn one_hot(&self, index: u32, classes: f64) -> Result<u32> {
        self.apply(ops::one_hot::OneHot { classes: classes as usize }, &[index])
    }
}
