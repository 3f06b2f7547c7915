//! Chooses the kernels and splits them into windows.

mod binds;
mod decode;
mod rows;
mod transposed;

use std::rc::Rc;

use lowrank_cpu::attention::{FIRST, Geometry};
use smallvec::SmallVec;

use self::binds::{Binds, Inner, List};
use self::decode::{decode, decodes};
use self::rows::{delta, labels, rows};
use super::config::{Config, LARGE, SMALL};
use super::geometry::{Dropped, Sizes};
use super::tile::{ACROSS, Tile};
use super::{
    BACKWARD, BACKWARD_DROPPED, BACKWARD_KV, BACKWARD_KV_DROPPED, BACKWARD_Q, BACKWARD_Q_DROPPED, FORWARD,
    FORWARD_DROPPED,
};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::scalars::words;
use crate::kernel::{Kernel, Launch};
use crate::kernels::elementwise::wide;
use crate::kernels::gemm::Precision;
use crate::launch::{Bind, Window, windows};
use crate::profile::Kind;

/// The operands and options of attention.
#[derive(Clone, Copy)]
pub struct AttentionCall<'a> {
    /// [B, T, H, D], or [B, H, T, D] with heads first.
    pub q: &'a Value,
    /// [B, S, Hkv, D], or [B, Hkv, S, D] with heads first.
    pub k: &'a Value,
    pub v: &'a Value,
    /// Whether heads are the second dimension of q, k, v, the output and the log-sum-exp. Not with segments.
    pub heads_first: bool,
    /// i32 [B, ≥ offset + T and ≥ length]
    pub segments: Option<&'a Value>,
    /// i32 [B, ≥ length]
    pub mask: Option<&'a Value>,
    pub causal: bool,
    pub window: Option<usize>,
    pub scale: f32,
    /// The first query's position.
    pub offset: usize,
    /// The number of keys to read.
    pub length: usize,
    pub precision: Precision,
    pub dropout: Option<Dropout>,
}

/// The parameters of dropout.
#[derive(Clone, Copy)]
pub struct Dropout {
    /// The key of this call's random words.
    pub key: [u32; 2],
    /// The probability, in units of 2⁻³².
    pub threshold: u32,
}

/// The additional inputs of backward.
pub struct Flow<'a> {
    pub d_o: &'a Value,
    pub o: &'a Value,
    pub lse: &'a Value,
    pub d_lse: Option<&'a Value>,
}

/// With fewer workgroups than this, the smaller tile is used, since some of a GPU's units would be idle. Tests, which
/// run on software GPUs, have few workgroups.
const FEW: usize = if cfg!(test) { 16 } else { 256 };

/// Appends o = attention and its log-sum-exp.
pub fn forward(cx: &Rc<Context>, a: &AttentionCall, o: &Value, lse: &Value) -> Result<()> {
    if !a.fits(cx) {
        return transposed::forward(cx, a, o, lse);
    }
    if cx.profile.kind == Kind::Gpu && a.dropout.is_none() && decodes(cx, a, o) {
        return decode(cx, a, o, lse);
    }
    let binds = Binds::of(a, Inner::Keys);
    let kernel = if a.dropout.is_some() { &FORWARD_DROPPED } else { &FORWARD };
    launches(cx, a, (kernel, 2), Inner::Keys, &binds.forward(o, lse), Tile::of_queries)
}

/// Appends the gradients: `d_q`, and `d_kv` for k and v.
pub fn backward(
    cx: &Rc<Context>,
    a: &AttentionCall,
    flow: &Flow,
    d_q: Option<&Value>,
    d_kv: Option<[&Value; 2]>,
) -> Result<()> {
    if !a.fits(cx) {
        return transposed::backward(cx, a, flow, d_q, d_kv);
    }
    let Sizes { capacity, .. } = a.sizes();
    if let Some(d_kv) = d_kv
        && (a.length < capacity || a.q.size() == 0)
    {
        // Forward did not read keys past `length`.
        d_kv.iter().for_each(|d| cx.zero(d));
    }
    if a.q.size() == 0 {
        return Ok(());
    }
    if cx.profile.kind == Kind::Cpu {
        return backward_at_once(cx, a, flow, d_q, d_kv);
    }
    let rows = rows(cx, a, flow)?;
    let labels = labels(cx, a)?;
    if let Some(d_q) = d_q {
        let binds = Binds::of(a, Inner::Keys);
        let mut list = binds.backward(flow, &rows, labels.as_ref());
        list.push(binds.queries(d_q));
        let kernel = if a.dropout.is_some() { &BACKWARD_Q_DROPPED } else { &BACKWARD_Q };
        launches(cx, a, (kernel, 3), Inner::Keys, &list, Tile::of_queries)?;
    }
    if let Some([d_k, d_v]) = d_kv {
        let binds = Binds::of(a, Inner::Queries);
        let mut list = binds.backward(flow, &rows, labels.as_ref());
        list.extend([binds.keys(d_k), binds.keys(d_v)]);
        let kernel = if a.dropout.is_some() { &BACKWARD_KV_DROPPED } else { &BACKWARD_KV };
        launches(cx, a, (kernel, 4), Inner::Queries, &list, Tile::of_keys)?;
    }
    Ok(())
}

/// Appends one kernel for all three gradients.
fn backward_at_once(
    cx: &Rc<Context>,
    a: &AttentionCall,
    flow: &Flow,
    d_q: Option<&Value>,
    d_kv: Option<[&Value; 2]>,
) -> Result<()> {
    let delta = delta(cx, flow)?;
    let unasked = |asked: bool, like: &Value| match asked {
        true => Ok(None),
        false => cx.empty(like.shape.clone(), DType::F32).map(Some),
    };
    let unasked =
        [unasked(d_q.is_some(), a.q)?, unasked(d_kv.is_some(), a.k)?, unasked(d_kv.is_some(), a.v)?];
    let d_q = d_q.or(unasked[0].as_ref()).expect("one of them");
    let [d_k, d_v] = [0, 1].map(|i| d_kv.map(|d| d[i]).or(unasked[1 + i].as_ref()).expect("one of them"));
    let parts = cx.empty([a.geometry().count_partials()], DType::F32)?;
    let binds = Binds::of(a, Inner::Keys);
    let mut list: List = SmallVec::from_iter([
        binds.queries(a.q),
        binds.keys(a.k),
        binds.keys(a.v),
        binds.queries(flow.d_o),
        binds.rows(flow.lse, 1),
        binds.rows(&delta, 1),
    ]);
    list.extend(binds.labels());
    list.extend([binds.queries(d_q), binds.keys(d_k), binds.keys(d_v), Bind::whole(&parts)]);
    let kernel = if a.dropout.is_some() { &BACKWARD_DROPPED } else { &BACKWARD };
    launches(cx, a, (kernel, 5), Inner::Keys, &list, Tile::of_queries)
}

/// Appends the launches of a kernel that has `products` matrix products over queries and keys.
fn launches(
    cx: &Rc<Context>,
    a: &AttentionCall,
    (kernel, products): (&'static Kernel, usize),
    inner: Inner,
    binds: &[Bind],
    tile: fn(Config) -> Tile,
) -> Result<()> {
    let mut whole = a.geometry();
    if kernel.bindings.iter().any(|(name, _)| *name == "labels") && a.segments.is_some() && a.mask.is_some() {
        (whole.segment_batch, whole.mask_batch) = (2 * a.length, 2 * a.length);
    }
    let (t, s) = if inner == Inner::Keys { (2, 3) } else { (3, 2) };
    let mut space = [whole.batch, whole.kv_heads, 0, 0];
    (space[t], space[s]) = (whole.queries, whole.keys);
    windows(cx, kernel.name, &space, &[1, 1, 16, 16], binds, |w: Window| {
        let g = Geometry {
            batch: w.count[0],
            kv_heads: w.count[1],
            queries: w.count[t],
            keys: w.count[s],
            query_at: whole.query_at + w.start[t],
            key_at: w.start[s],
            flags: if w.start[3] == 0 { whole.flags } else { whole.flags & !FIRST },
            ..whole
        };
        let [from, to] = [g.visible(0)[0], g.visible(g.queries - 1)[1]];
        if !g.is_first() && from >= to {
            return;
        }
        let rows = if inner == Inner::Keys { g.rows() } else { g.keys };
        let vectors = g.dim.is_multiple_of(wide::ELEMENTS)
            && kernel.bindings.iter().zip(&w.ranges).all(|((name, _), range)| {
                !["q", "k", "v", "o", "d_o", "d_q", "d_k", "d_v"].contains(name) || wide::is_whole(range)
            });
        let subgroups = kernel.name == FORWARD.name && cx.profile.subgroup as usize >= ACROSS;
        let of = |threads| {
            let dropped = a.dropout.is_some();
            let config = Config { dropped, ..Config::new(g.dim, threads, vectors, subgroups) };
            (config, g.batch * g.kv_heads * rows.div_ceil(tile(config).own()))
        };
        let (config, groups) =
            Some(of(LARGE)).filter(|(_, groups)| *groups >= FEW).unwrap_or_else(|| of(SMALL));
        let seen = |query| {
            let [from, to] = g.visible(query);
            to.saturating_sub(from)
        };
        let pairs = g.group * (0..g.queries).map(seen).sum::<usize>();
        cx.launch(Launch {
            kernel,
            params: config.params(),
            bindings: w.ranges,
            scalars: match a.dropout {
                None => words(g),
                Some(Dropout { key, threshold }) => {
                    // Element i of q has its log-sum-exp at i / D.
                    let at = w.start[0] * g.q_batch + w.start[1] * g.group * g.q_head + w.start[t] * g.q_row;
                    Dropped { geometry: g, key, threshold, row_base: (at / g.dim) as u32 }.words()
                }
            },
            groups: groups as u32,
            threads: config.threads as u32,
            work: (2 * products * g.batch * g.kv_heads * pairs * g.dim) as u64,
        });
    })
}
