//! One method for each operation: arithmetic, indexing and reductions here, model layers in `layers`, a decoder block
//! in `decoder`, token sampling in `sample`, convolutions in `convolution`, sorting and layout in `layout`.

mod convolution;
mod decoder;
mod layers;
mod layout;
mod sample;

use lowrank_engine::error::{Code, fail_code};
use lowrank_engine::kernels::elementwise::Function;
use lowrank_engine::kernels::fill::full;
use lowrank_engine::ops;
use lowrank_engine::ops::extremum::Extreme;
use lowrank_engine::tape::Tensor;
use napi_derive::napi;

use crate::error::{Result, to_js_error};
use crate::session::{Session, parse_dtype, parse_shape};

fn find_function(name: &str, operands: usize) -> Result<Function> {
    let found = Function::ALL.iter().find(|f| f.name() == name && f.operands() == operands);
    found
        .copied()
        .ok_or_else(|| to_js_error(fail_code(Code::Internal, format!("there is no function {name}"))))
}

fn choose_extreme(smallest: bool) -> Extreme {
    if smallest { Extreme::Min } else { Extreme::Max }
}

fn to_usizes(list: &[u32]) -> Vec<usize> {
    list.iter().map(|d| *d as usize).collect()
}

#[napi]
impl Session {
    #[napi(catch_unwind)]
    pub fn unary(&self, name: String, x: u32) -> Result<u32> {
        self.apply(ops::unary::Unary(find_function(&name, 1)?), &[x])
    }

    #[napi(catch_unwind)]
    pub fn binary(&self, name: String, a: u32, b: u32) -> Result<u32> {
        self.apply(ops::binary::Binary(find_function(&name, 2)?), &[a, b])
    }

    #[napi(catch_unwind)]
    pub fn matmul(&self, a: u32, b: u32, trans_a: bool, trans_b: bool) -> Result<u32> {
        self.apply(ops::matmul::Matmul { trans_a, trans_b }, &[a, b])
    }

    #[napi(catch_unwind)]
    pub fn linear(&self, x: u32, weight: u32, bias: Option<u32>, fan_in_fan_out: bool) -> Result<u32> {
        let inputs: Vec<u32> = [x, weight].into_iter().chain(bias).collect();
        let precision = self.state.borrow().precision;
        self.apply(ops::linear::Linear { fan_in_fan_out, precision }, &inputs)
    }

    #[napi(catch_unwind)]
    pub fn reshape(&self, x: u32, shape: Vec<f64>) -> Result<u32> {
        let shape = parse_shape(&shape).map_err(to_js_error)?[..].into();
        self.apply(ops::reshape::Reshape { shape }, &[x])
    }

    #[napi(catch_unwind)]
    pub fn permute(&self, x: u32, order: Vec<u32>) -> Result<u32> {
        self.apply(ops::permute::Permute::new(&to_usizes(&order)), &[x])
    }

    #[napi(catch_unwind)]
    pub fn slice(&self, x: u32, dim: u32, start: f64, end: f64) -> Result<u32> {
        self.apply(ops::slice::Slice { dim: dim as usize, start: start as usize, end: end as usize }, &[x])
    }

    #[napi(catch_unwind)]
    pub fn concat(&self, inputs: Vec<u32>, dim: u32) -> Result<u32> {
        self.apply(ops::concat::Concat { dim: dim as usize }, &inputs)
    }

    #[napi(catch_unwind)]
    pub fn sum(&self, x: u32, dim: Option<u32>) -> Result<u32> {
        self.apply(ops::sum::Sum { dim: dim.map(|d| d as usize) }, &[x])
    }

    #[napi(catch_unwind)]
    pub fn mean(&self, x: u32, dim: Option<u32>) -> Result<u32> {
        self.apply(ops::mean::Mean { dim: dim.map(|d| d as usize) }, &[x])
    }

    #[napi(catch_unwind)]
    pub fn extremum(&self, smallest: bool, x: u32, dim: Option<u32>, shared: bool) -> Result<u32> {
        let dim = dim.map(|d| d as usize);
        self.apply(ops::extremum::Extremum { extreme: choose_extreme(smallest), dim, shared }, &[x])
    }

    #[napi(catch_unwind)]
    pub fn arg_extremum(&self, smallest: bool, x: u32, dim: Option<u32>) -> Result<u32> {
        let dim = dim.map(|d| d as usize);
        self.apply(ops::arg_extremum::ArgExtremum { extreme: choose_extreme(smallest), dim }, &[x])
    }

    #[napi(catch_unwind)]
    pub fn softmax(&self, x: u32, dim: u32) -> Result<u32> {
        self.apply(ops::softmax::Softmax::new(dim as usize), &[x])
    }

    #[napi(catch_unwind)]
    pub fn log_softmax(&self, x: u32, dim: u32) -> Result<u32> {
        self.apply(ops::softmax::Softmax::log(dim as usize), &[x])
    }

    #[napi(catch_unwind)]
    pub fn clamp(&self, x: u32, low: f64, high: f64) -> Result<u32> {
        self.apply(ops::clamp::Clamp { low, high }, &[x])
    }

    #[napi(catch_unwind, js_name = "where")]
    pub fn where_(&self, condition: u32, a: u32, b: u32) -> Result<u32> {
        self.apply(ops::r#where::Where, &[condition, a, b])
    }

    #[napi(catch_unwind)]
    pub fn gather(&self, x: u32, dim: u32, index: u32) -> Result<u32> {
        self.apply(ops::gather::Gather { dim: dim as usize }, &[x, index])
    }

    #[napi(catch_unwind)]
    pub fn cast(&self, x: u32, to: String) -> Result<u32> {
        self.apply(ops::cast::Cast { dtype: parse_dtype(&to).map_err(to_js_error)? }, &[x])
    }

    /// Creates a constant tensor on the device.
    #[napi(catch_unwind)]
    pub fn full(&self, device: String, shape: Vec<f64>, dtype_name: String, value: f64) -> Result<u32> {
        self.with_state(|state| {
            let (shape, dtype) = (parse_shape(&shape)?, parse_dtype(&dtype_name)?);
            let value = full(&state.context(&device)?, &shape[..], dtype, value)?;
            Ok(state.insert(Tensor::new(value, false)))
        })
    }
}
