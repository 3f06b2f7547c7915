//! Chooses the kernels and splits them into windows.

mod binds;
mod decode;
mod rows;
mod transposed;

use std::rc::Rc;

use lowrank_cpu::attention::{FIRST, Geometry};
use smallvec::SmallVec;

use self::binds::{BindList, Binds, InnerSide};
use self::decode::{can_decode, decode};
use self::rows::{append_delta, append_row_values, fold_labels};
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
use crate::launch::{Bind, Window, for_each_window};
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
pub struct BackwardInputs<'a> {
    pub d_o: &'a Value,
    pub o: &'a Value,
    pub lse: &'a Value,
    pub d_lse: Option<&'a Value>,
}

/// With fewer workgroups than this, the smaller tile is used, since some of a GPU's units would be idle. Tests, which
/// run on software GPUs, have few workgroups.
const MIN_LARGE_TILE_GROUPS: usize = if cfg!(test) { 16 } else { 256 };

/// Appends o = attention and its log-sum-exp.
pub fn forward(cx: &Rc<Context>, a: &AttentionCall, o: &Value, lse: &Value) -> Result<()> {
    if !a.fits(cx) {
        return transposed::forward(cx, a, o, lse);
    }
    if cx.profile.kind == Kind::Gpu && a.dropout.is_none() && can_decode(cx, a, o) {
        return decode(cx, a, o, lse);
    }
    let binds = Binds::new(a, InnerSide::Keys);
    let kernel = if a.dropout.is_some() { &FORWARD_DROPPED } else { &FORWARD };
    append_launches(cx, a, (kernel, 2), InnerSide::Keys, &binds.bind_forward(o, lse), Tile::for_queries)
}

/// Appends the gradients: `d_q`, and `d_kv` for k and v.
pub fn backward(
    cx: &Rc<Context>,
    a: &AttentionCall,
    flow: &BackwardInputs,
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
        return append_fused_backward(cx, a, flow, d_q, d_kv);
    }
    let rows = append_row_values(cx, a, flow)?;
    let labels = fold_labels(cx, a)?;
    if let Some(d_q) = d_q {
        let binds = Binds::new(a, InnerSide::Keys);
        let mut list = binds.bind_backward(flow, &rows, labels.as_ref());
        list.push(binds.bind_queries(d_q));
        let kernel = if a.dropout.is_some() { &BACKWARD_Q_DROPPED } else { &BACKWARD_Q };
        append_launches(cx, a, (kernel, 3), InnerSide::Keys, &list, Tile::for_queries)?;
    }
    if let Some([d_k, d_v]) = d_kv {
        let binds = Binds::new(a, InnerSide::Queries);
        let mut list = binds.bind_backward(flow, &rows, labels.as_ref());
        list.extend([binds.bind_keys(d_k), binds.bind_keys(d_v)]);
        let kernel = if a.dropout.is_some() { &BACKWARD_KV_DROPPED } else { &BACKWARD_KV };
        append_launches(cx, a, (kernel, 4), InnerSide::Queries, &list, Tile::for_keys)?;
    }
    Ok(())
}

/// Appends one kernel for all three gradients.
fn append_fused_backward(
    cx: &Rc<Context>,
    a: &AttentionCall,
    flow: &BackwardInputs,
    d_q: Option<&Value>,
    d_kv: Option<[&Value; 2]>,
) -> Result<()> {
    let delta = append_delta(cx, flow)?;
    let allocate_unless = |is_given: bool, like: &Value| match is_given {
        true => Ok(None),
        false => cx.empty(like.shape.clone(), DType::F32).map(Some),
    };
    let scratch = [
        allocate_unless(d_q.is_some(), a.q)?,
        allocate_unless(d_kv.is_some(), a.k)?,
        allocate_unless(d_kv.is_some(), a.v)?,
    ];
    let d_q = d_q.or(scratch[0].as_ref()).expect("one of them");
    let [d_k, d_v] = [0, 1].map(|i| d_kv.map(|d| d[i]).or(scratch[1 + i].as_ref()).expect("one of them"));
    let parts = cx.empty([a.geometry().count_partials()], DType::F32)?;
    let binds = Binds::new(a, InnerSide::Keys);
    let mut list: BindList = SmallVec::from_iter([
        binds.bind_queries(a.q),
        binds.bind_keys(a.k),
        binds.bind_keys(a.v),
        binds.bind_queries(flow.d_o),
        binds.bind_rows(flow.lse, 1),
        binds.bind_rows(&delta, 1),
    ]);
    list.extend(binds.bind_labels());
    list.extend([binds.bind_queries(d_q), binds.bind_keys(d_k), binds.bind_keys(d_v), Bind::whole(&parts)]);
    let kernel = if a.dropout.is_some() { &BACKWARD_DROPPED } else { &BACKWARD };
    append_launches(cx, a, (kernel, 5), InnerSide::Keys, &list, Tile::for_queries)
}

/// Appends the launches of a kernel that has `products` matrix products over queries and keys.
fn append_launches(
    cx: &Rc<Context>,
    a: &AttentionCall,
    (kernel, products): (&'static Kernel, usize),
    inner: InnerSide,
    binds: &[Bind],
    tile: fn(Config) -> Tile,
) -> Result<()> {
    let mut whole = a.geometry();
    if kernel.bindings.iter().any(|(name, _)| *name == "labels") && a.segments.is_some() && a.mask.is_some() {
        (whole.segment_batch, whole.mask_batch) = (2 * a.length, 2 * a.length);
    }
    let (t, s) = if inner == InnerSide::Keys { (2, 3) } else { (3, 2) };
    let mut space = [whole.batch, whole.kv_heads, 0, 0];
    (space[t], space[s]) = (whole.queries, whole.keys);
    for_each_window(cx, kernel.name, &space, &[1, 1, 16, 16], binds, |w: Window| {
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
        let rows = if inner == InnerSide::Keys { g.rows() } else { g.keys };
        let vectors = g.dim.is_multiple_of(wide::ELEMENTS)
            && kernel.bindings.iter().zip(&w.ranges).all(|((name, _), range)| {
                !["q", "k", "v", "o", "d_o", "d_q", "d_k", "d_v"].contains(name) || wide::is_whole(range)
            });
        let subgroups = kernel.name == FORWARD.name && cx.profile.subgroup as usize >= ACROSS;
        let choose = |threads| {
            let dropped = a.dropout.is_some();
            let config = Config { dropped, ..Config::new(g.dim, threads, vectors, subgroups) };
            (config, g.batch * g.kv_heads * rows.div_ceil(tile(config).own_rows()))
        };
        let (config, groups) = Some(choose(LARGE))
            .filter(|(_, groups)| *groups >= MIN_LARGE_TILE_GROUPS)
            .unwrap_or_else(|| choose(SMALL));
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
