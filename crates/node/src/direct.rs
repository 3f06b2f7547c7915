//! The calls that every operation of a small model makes, implemented on Node-API directly. napi-rs records the borrows
//! of each call in a map behind a lock, which takes as long as recording an operation.

use std::cell::RefCell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::rc::{Rc, Weak};

use lowrank_engine::context::Context;
use lowrank_engine::dtype::DType;
use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_engine::kernels::elementwise::Function;
use lowrank_engine::op::Op;
use lowrank_engine::ops::{binary::Binary, unary::Unary};
use lowrank_engine::panic::describe;
use lowrank_engine::tape::Tensor;
use napi::bindgen_prelude::{Env, FromNapiValue, JsObjectValue, Object, Unknown};
use napi::{JsError, sys};
use napi_derive::napi;

use crate::error::{Result, to_js_error, wrap_napi_error};
use crate::session::{Session, State};

/// The most arguments of a call.
const MAX_ARGUMENTS: usize = 3;

/// The implementation of a call. A call may return a number.
type Call = fn(&RefCell<State>, &Arguments) -> engine::Result<Option<u32>>;

struct Direct {
    name: &'static str,
    call: Call,
    state: Weak<RefCell<State>>,
}

struct Arguments {
    env: sys::napi_env,
    values: [sys::napi_value; MAX_ARGUMENTS],
}

const CALLS: [(&str, Call); 6] = [
    ("unary", |state, arguments| {
        apply(state, Unary(find_function(arguments.read_number(0)?, 1)?), &[arguments.read_number(1)? as u32])
    }),
    ("binary", |state, arguments| {
        let inputs = [arguments.read_number(1)? as u32, arguments.read_number(2)? as u32];
        apply(state, Binary(find_function(arguments.read_number(0)?, 2)?), &inputs)
    }),
    // The second operand is a number.
    ("binaryNumber", |state, arguments| {
        let function = find_function(arguments.read_number(0)?, 2)?;
        let mut state = state.borrow_mut();
        let a = state.tensor(arguments.read_number(1)? as u32)?;
        let b = match arguments.read_number(2)? {
            // f32 does not hold every whole number that i32 does.
            whole if function.relation().is_some() && is_i32(&a) && whole == whole as i32 as f64 => {
                Tensor::new(find_context(&a).constant_i32(whole as i32), false)
            }
            number => make_constant(&a, number),
        };
        let tape = state.tape.clone();
        let made = tape.apply1(Binary(function), &[&a, &b])?;
        Ok(Some(state.insert(made)))
    }),
    // A number as an f32 constant on another tensor's device.
    ("number", |state, arguments| {
        let mut state = state.borrow_mut();
        let made = make_constant(&state.tensor(arguments.read_number(0)? as u32)?, arguments.read_number(1)?);
        Ok(Some(state.insert(made)))
    }),
    ("release", |state, arguments| {
        let handles = state.borrow().handles.clone();
        let tensor = handles.borrow_mut().remove(arguments.read_number(0)? as u32);
        drop(tensor);
        Ok(None)
    }),
    ("watch", |state, arguments| {
        let handles = state.borrow().handles.clone();
        let dead = {
            let mut handles = handles.borrow_mut();
            handles.track(arguments.read_number(0)? as u32, arguments.values[1]);
            handles.sweep()
        };
        drop(dead);
        Ok(None)
    }),
];

fn apply(state: &RefCell<State>, op: impl Op, inputs: &[u32]) -> engine::Result<Option<u32>> {
    Ok(Some(state.borrow_mut().apply(op, inputs, 1)?[0]))
}

fn make_constant(like: &Tensor, value: f64) -> Tensor {
    Tensor::new(find_context(like).constant(value as f32), false)
}

fn find_context(tensor: &Tensor) -> Rc<Context> {
    tensor.with_value(|value| value.context().clone())
}

fn is_i32(tensor: &Tensor) -> bool {
    tensor.with_value(|value| value.dtype == DType::I32)
}

/// Returns the function at that index of `functions()`.
fn find_function(number: f64, operands: usize) -> engine::Result<Function> {
    let found = Function::ALL.get(number as usize).filter(|f| f.operands() == operands);
    found.copied().ok_or_else(|| fail_code(Code::Internal, format!("there is no function {number}")))
}

impl Arguments {
    fn read_number(&self, i: usize) -> engine::Result<f64> {
        let mut number = 0.0;
        // SAFETY: the values are the arguments of the call in progress.
        match unsafe { sys::napi_get_value_double(self.env, self.values[i], &mut number) } {
            sys::Status::napi_ok => Ok(number),
            _ => Err(fail_code(Code::Option, format!("argument {} is not a number", i + 1))),
        }
    }
}

unsafe extern "C" fn handle_call(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    let mut arguments = Arguments { env, values: [null_mut(); MAX_ARGUMENTS] };
    let (mut count, mut data) = (MAX_ARGUMENTS, null_mut());
    // SAFETY: `env` and `info` are valid during this call; `values` has room for `count` values.
    unsafe {
        let values = arguments.values.as_mut_ptr();
        sys::napi_get_cb_info(env, info, &mut count, values, null_mut(), &mut data);
    }
    // SAFETY: the data was leaked for this function, and nothing writes it.
    let direct = unsafe { &*data.cast::<Direct>() };
    let run = || match direct.state.upgrade() {
        Some(state) => (direct.call)(&state, &arguments),
        None => Err(fail_code(Code::Disposed, "the engine of this environment has been closed")),
    };
    let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        Err(fail_code(Code::Internal, format!("{}: {}", direct.name, describe(&*panic))))
    });
    let mut value = null_mut();
    match result {
        // SAFETY: the environment is the call's.
        Ok(Some(number)) => unsafe { sys::napi_create_uint32(env, number, &mut value) },
        Ok(None) => return null_mut(),
        Err(error) => {
            // SAFETY: the environment is the call's, and no exception is pending.
            unsafe { JsError::from(to_js_error(error)).throw_into(env) };
            return null_mut();
        }
    };
    value
}

#[napi]
impl Session {
    /// Returns the functions in `CALLS` by name.
    #[napi(
        catch_unwind,
        ts_return_type = "{ unary(f: number, x: number): number; binary(f: number, a: number, b: number): number; binaryNumber(f: number, a: number, b: number): number; number(beside: number, value: number): number; release(id: number): void; watch(id: number, object: object): void }"
    )]
    pub fn direct<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        let mut calls = Object::new(env).map_err(wrap_napi_error)?;
        for (name, call) in CALLS {
            // Leaked, since the function lives as long as its environment.
            let direct = Box::leak(Box::new(Direct { name, call, state: Rc::downgrade(&self.state) }));
            let mut function = null_mut();
            let data: *mut Direct = direct;
            // SAFETY: `name` is valid during this call, and `direct` as long as the function.
            let status = unsafe {
                sys::napi_create_function(
                    env.raw(),
                    name.as_ptr().cast(),
                    name.len() as isize,
                    Some(handle_call),
                    data.cast::<c_void>(),
                    &mut function,
                )
            };
            if status != sys::Status::napi_ok {
                return Err(to_js_error(fail_code(Code::Internal, format!("{name}: no function was made"))));
            }
            // SAFETY: `function` was created in this environment just now.
            let function =
                unsafe { Unknown::from_napi_value(env.raw(), function) }.map_err(wrap_napi_error)?;
            calls.set_named_property(name, function).map_err(wrap_napi_error)?;
        }
        Ok(calls)
    }
}

/// Lists the elementwise functions; direct calls refer to them by index.
#[napi(catch_unwind)]
pub fn functions() -> Vec<&'static str> {
    Function::ALL.iter().map(|f| f.name()).collect()
}
