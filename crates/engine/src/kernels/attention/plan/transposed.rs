//! Attention with heads first whose heads are too far from each other for one binding: runs on copies with heads last.

use std::rc::Rc;

use smallvec::SmallVec;

use super::{AttentionCall, BackwardInputs};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernels::copy::{Side, copy};

/// Copies [B, H, T, …] to `to` [B, T, H, …], or the reverse.
fn transpose(cx: &Rc<Context>, from: &Value, to: &Value) -> Result<()> {
    let [b, m, n] = [0, 1, 2].map(|d| from.shape[d]);
    let width = from.shape.get(3).copied().unwrap_or(1);
    let strides =
        |[m, n]: [usize; 2], size: usize| SmallVec::from_slice(&[size * width, m * width, n * width, 1]);
    let from = Side { value: from, start: 0, strides: strides([n, 1], m * n) };
    let to = Side { value: to, start: 0, strides: strides([1, m], m * n) };
    copy(cx, "attention", &[b, m, n, width], &from, &to)
}

/// An empty value of `like`'s shape with its second and third dimensions exchanged.
fn allocate_exchanged(cx: &Rc<Context>, like: &Value) -> Result<Value> {
    let mut shape = like.shape.to_vec();
    shape.swap(1, 2);
    cx.empty(&shape[..], DType::F32)
}

fn exchange_dims(cx: &Rc<Context>, from: &Value) -> Result<Value> {
    let to = allocate_exchanged(cx, from)?;
    transpose(cx, from, &to)?;
    Ok(to)
}

pub fn forward(cx: &Rc<Context>, a: &AttentionCall, o: &Value, lse: &Value) -> Result<()> {
    let [q, k, v] = [exchange_dims(cx, a.q)?, exchange_dims(cx, a.k)?, exchange_dims(cx, a.v)?];
    let own = [allocate_exchanged(cx, o)?, allocate_exchanged(cx, lse)?];
    let last = AttentionCall { q: &q, k: &k, v: &v, heads_first: false, ..*a };
    super::forward(cx, &last, &own[0], &own[1])?;
    transpose(cx, &own[0], o)?;
    transpose(cx, &own[1], lse)
}

pub fn backward(
    cx: &Rc<Context>,
    a: &AttentionCall,
    flow: &BackwardInputs,
    d_q: Option<&Value>,
    d_kv: Option<[&Value; 2]>,
) -> Result<()> {
    let [q, k, v] = [exchange_dims(cx, a.q)?, exchange_dims(cx, a.k)?, exchange_dims(cx, a.v)?];
    let [d_o, o, lse] =
        [exchange_dims(cx, flow.d_o)?, exchange_dims(cx, flow.o)?, exchange_dims(cx, flow.lse)?];
    let d_lse = flow.d_lse.map(|d_lse| exchange_dims(cx, d_lse)).transpose()?;
    let last = AttentionCall { q: &q, k: &k, v: &v, heads_first: false, ..*a };
    let own_q = d_q.map(|d_q| allocate_exchanged(cx, d_q)).transpose()?;
    let own_kv = match d_kv {
        Some([d_k, d_v]) => Some([allocate_exchanged(cx, d_k)?, allocate_exchanged(cx, d_v)?]),
        None => None,
    };
    let flow = BackwardInputs { d_o: &d_o, o: &o, lse: &lse, d_lse: d_lse.as_ref() };
    super::backward(cx, &last, &flow, own_q.as_ref(), own_kv.as_ref().map(|[d_k, d_v]| [d_k, d_v]))?;
    if let (Some(from), Some(to)) = (&own_q, d_q) {
        transpose(cx, from, to)?;
    }
    if let (Some(from), Some(to)) = (&own_kv, d_kv) {
        from.iter().zip(to).try_for_each(|(from, to)| transpose(cx, from, to))?;
    }
    Ok(())
}
