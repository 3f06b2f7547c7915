//! Convolutions, padding and pooling.

use lowrank_engine::error::{Code, fail_code};
use lowrank_engine::ops;
use lowrank_engine::ops::conv::Conv;
use lowrank_engine::ops::max_pool::Window;
use lowrank_engine::ops::pad::Mode;
use napi_derive::napi;

use super::to_usizes;
use crate::error::{Result, to_js_error};
use crate::session::Session;

/// Groups a flat list into one [before, after] pair per dimension.
fn group_pairs(list: &[u32]) -> Vec<[usize; 2]> {
    list.chunks_exact(2).map(|pair| [pair[0] as usize, pair[1] as usize]).collect()
}

fn make_window(kernel: &[u32], stride: &[u32], padding: &[u32], ceil: bool) -> Window {
    Window { kernel: to_usizes(kernel), stride: to_usizes(stride), padding: to_usizes(padding), ceil }
}

fn make_conv(stride: &[u32], padding: &[u32], dilation: &[u32], groups: u32) -> Conv {
    Conv {
        stride: to_usizes(stride),
        padding: group_pairs(padding),
        dilation: to_usizes(dilation),
        groups: groups as usize,
    }
}

#[napi]
impl Session {
    /// `padding` holds two numbers for each dimension: before and after.
    #[napi(catch_unwind)]
    pub fn conv(
        &self,
        x: u32,
        weight: u32,
        bias: Option<u32>,
        stride: Vec<u32>,
        padding: Vec<u32>,
        dilation: Vec<u32>,
        groups: u32,
    ) -> Result<u32> {
        let op = make_conv(&stride, &padding, &dilation, groups);
        let inputs: Vec<u32> = [x, weight].into_iter().chain(bias).collect();
        self.apply(op, &inputs)
    }

    /// Transposed convolution without bias: the gradient of `conv` with respect to its input.
    #[napi(catch_unwind)]
    pub fn conv_transpose(
        &self,
        x: u32,
        weight: u32,
        stride: Vec<u32>,
        padding: Vec<u32>,
        output_padding: Vec<u32>,
        dilation: Vec<u32>,
        groups: u32,
    ) -> Result<u32> {
        let conv = make_conv(&stride, &padding, &dilation, groups);
        let op = ops::conv_transpose::ConvTranspose { conv, output_padding: to_usizes(&output_padding) };
        self.apply(op, &[x, weight])
    }

    /// Pads the last dimensions; two numbers for each: before and after.
    #[napi(catch_unwind)]
    pub fn pad(&self, x: u32, padding: Vec<u32>, mode: String) -> Result<u32> {
        let Some(mode) = Mode::parse(&mode) else {
            let message = format!("pad: mode \"{mode}\" is none of reflect, replicate, circular");
            return Err(to_js_error(fail_code(Code::Option, message)));
        };
        self.apply(ops::pad::Pad { mode, padding: group_pairs(&padding) }, &[x])
    }

    /// Maximum over windows of the last dimensions; the parameters have one entry for each.
    #[napi(catch_unwind)]
    pub fn max_pool(
        &self,
        x: u32,
        kernel: Vec<u32>,
        stride: Vec<u32>,
        padding: Vec<u32>,
        ceil: bool,
    ) -> Result<u32> {
        self.apply(ops::max_pool::MaxPool(make_window(&kernel, &stride, &padding, ceil)), &[x])
    }

    /// Mean over windows of the last dimensions; the parameters have one entry for each.
    #[napi(catch_unwind)]
    pub fn avg_pool(
        &self,
        x: u32,
        kernel: Vec<u32>,
        stride: Vec<u32>,
        padding: Vec<u32>,
        ceil: bool,
        count_padding: bool,
    ) -> Result<u32> {
        let window = make_window(&kernel, &stride, &padding, ceil);
        self.apply(ops::avg_pool::AvgPool { window, count_padding }, &[x])
    }

    /// Adaptive mean pooling to the output size `out`, one entry for each dimension.
    #[napi(catch_unwind)]
    pub fn adaptive_avg_pool(&self, x: u32, out: Vec<u32>) -> Result<u32> {
        self.apply(ops::adaptive_avg_pool::AdaptiveAvgPool { out: to_usizes(&out) }, &[x])
    }
}
