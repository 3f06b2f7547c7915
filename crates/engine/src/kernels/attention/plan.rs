//! Which kernels are launched over which windows.

use std::rc::Rc;

use smallvec::SmallVec;

use super::geometry::{CAUSAL, Geometry, MASK, SEGMENTS};
use super::{BACKWARD, BACKWARD_KV, BACKWARD_Q, CLASSES, DELTA, DELTA_THREADS, FORWARD, Tiles};
use crate::context::Context;
use crate::device::Kind;
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Kernel, Params};
use crate::kernels::elementwise::{Function, map};
use crate::kernels::gemm::Precision;
use crate::launch::{Bind, Window, row_windows, windows};
use crate::recording::Launch;
use crate::value::Value;

/// Stands for no window; its sum with any position is still a u32.
const NO_WINDOW: usize = 0x7fff_ffff;

/// What attends to what.
pub struct Attend<'a> {
    /// [B, T, H, D]
    pub q: &'a Value,
    /// [B, S, Hkv, D]
    pub k: &'a Value,
    pub v: &'a Value,
    /// i32 [B, ≥ offset + T and ≥ length]
    pub segments: Option<&'a Value>,
    /// i32 [B, ≥ length]
    pub mask: Option<&'a Value>,
    pub causal: bool,
    pub window: Option<usize>,
    pub scale: f32,
    /// Position of the first query.
    pub offset: usize,
    /// Keys that are read.
    pub length: usize,
    pub precision: Precision,
}

/// What backward reads besides.
pub struct Flow<'a> {
    pub d_o: &'a Value,
    pub o: &'a Value,
    pub lse: &'a Value,
    pub d_lse: Option<&'a Value>,
}

/// Which side the windows of a launch are cut along last, so that sums over it come in order.
#[derive(Clone, Copy, PartialEq)]
enum Inner {
    Keys,
    Queries,
}

/// Appends o = attention and its log-sum-exp.
pub fn forward(cx: &Rc<Context>, a: &Attend, o: &Value, lse: &Value) -> Result<()> {
    let binds = Binds::of(a, Inner::Keys);
    let mut list: List = SmallVec::from_iter([binds.queries(a.q), binds.keys(a.k), binds.keys(a.v)]);
    list.extend(binds.labels());
    list.extend([binds.queries(o), binds.rows(lse)]);
    launches(cx, a, &FORWARD, Tiles::forward, Inner::Keys, &list)
}

/// Appends the gradients: `d_q`, and `d_kv` = those of k and v.
pub fn backward(
    cx: &Rc<Context>,
    a: &Attend,
    flow: &Flow,
    d_q: Option<&Value>,
    d_kv: Option<[&Value; 2]>,
) -> Result<()> {
    if let Some(d_kv) = d_kv
        && (a.length < a.k.shape[1] || a.q.size() == 0)
    {
        // Keys past `length` were not read.
        d_kv.iter().for_each(|d| cx.zero(d));
    }
    if a.q.size() == 0 {
        return Ok(());
    }
    let delta = delta(cx, flow)?;
    if let (Kind::Cpu, Some([d_k, d_v])) = (cx.profile.kind, d_kv) {
        // One pass makes all three.
        let unasked = if d_q.is_none() { Some(cx.empty(a.q.shape.clone(), DType::F32)?) } else { None };
        let parts = cx.empty([a.geometry().parts()], DType::F32)?;
        let binds = Binds::of(a, Inner::Keys);
        let mut list = binds.inputs(flow, &delta);
        let d_q = d_q.or(unasked.as_ref()).expect("one of them");
        list.extend([binds.queries(d_q), binds.keys(d_k), binds.keys(d_v), Bind::whole(&parts)]);
        return launches(cx, a, &BACKWARD, Tiles::backward, Inner::Keys, &list);
    }
    if let Some(d_q) = d_q {
        let binds = Binds::of(a, Inner::Keys);
        let mut list = binds.inputs(flow, &delta);
        list.push(binds.queries(d_q));
        launches(cx, a, &BACKWARD_Q, Tiles::backward, Inner::Keys, &list)?;
    }
    if let Some([d_k, d_v]) = d_kv {
        let binds = Binds::of(a, Inner::Queries);
        let mut list = binds.inputs(flow, &delta);
        list.extend([binds.keys(d_k), binds.keys(d_v)]);
        launches(cx, a, &BACKWARD_KV, Tiles::backward, Inner::Queries, &list)?;
    }
    Ok(())
}

/// δ = Σ dO ∘ O, less the gradient of the log-sum-exp: dS = P ∘ (dO Vᵀ − δ).
fn delta(cx: &Rc<Context>, flow: &Flow) -> Result<Value> {
    let [b, t, h] = [0, 1, 2].map(|d| flow.o.shape[d]);
    let delta = cx.empty([b, t, h], DType::F32)?;
    let dim = flow.o.shape[3];
    row_windows(cx, DELTA.name, b * t, &[flow.d_o, flow.o, &delta], &[], |w| {
        let rows = (w.count[0] * h) as u32;
        cx.launch(Launch {
            kernel: &DELTA,
            params: [0; 4],
            bindings: w.ranges,
            scalars: SmallVec::from_slice(&[rows, dim as u32]),
            groups: rows.div_ceil(DELTA_THREADS),
            threads: DELTA_THREADS,
            work: rows as u64 * dim as u64 * 2,
        });
    })?;
    let Some(d_lse) = flow.d_lse else { return Ok(delta) };
    let less = cx.empty([b, t, h], DType::F32)?;
    map(cx, Function::Sub, &[&delta, d_lse], &less)?;
    Ok(less)
}

type List<'a> = SmallVec<[Bind<'a>; 12]>;

/// Footprints over the box [B, Hkv, T, S], or [B, Hkv, S, T] where queries are the inner side.
struct Binds<'a> {
    a: &'a Attend<'a>,
    inner: Inner,
    geometry: Geometry,
    /// Bound where there are no labels, and not read.
    nothing: Value,
    query_segments: Option<Value>,
}

impl<'a> Binds<'a> {
    fn of(a: &'a Attend<'a>, inner: Inner) -> Self {
        let nothing = Value { dtype: DType::I32, ..a.q.sub_range(0, [1]) };
        let query_segments = a.segments.map(|s| s.sub_range(a.offset, [s.size() - a.offset]));
        Binds { a, inner, geometry: a.geometry(), nothing, query_segments }
    }

    fn bind<'v>(&self, value: &'v Value, [batch, head, query, key]: [usize; 4], cell: usize) -> Bind<'v> {
        match self.inner {
            Inner::Keys => Bind::new(value, &[batch, head, query, key], cell),
            Inner::Queries => Bind::new(value, &[batch, head, key, query], cell),
        }
    }

    /// What backward reads, in the order of its kernels.
    fn inputs<'v>(&'v self, flow: &Flow<'v>, delta: &'v Value) -> List<'v> {
        let a = self.a;
        let mut list: List = SmallVec::from_iter([
            self.queries(a.q),
            self.keys(a.k),
            self.keys(a.v),
            self.queries(flow.d_o),
            self.rows(flow.lse),
            self.rows(delta),
        ]);
        list.extend(self.labels());
        list
    }

    /// What is laid out as q.
    fn queries<'v>(&self, value: &'v Value) -> Bind<'v> {
        let g = &self.geometry;
        self.bind(value, [g.q_batch, g.group * g.dim, g.q_row, 0], g.group * g.dim)
    }

    /// What is laid out as k.
    fn keys<'v>(&self, value: &'v Value) -> Bind<'v> {
        let g = &self.geometry;
        self.bind(value, [g.kv_batch, g.dim, 0, g.kv_row], g.dim)
    }

    /// One number a query row.
    fn rows<'v>(&self, value: &'v Value) -> Bind<'v> {
        let g = &self.geometry;
        self.bind(value, [g.lse_batch, g.group, g.lse_row, 0], g.group)
    }

    /// The segments of queries and of keys, and the mask.
    fn labels(&self) -> [Bind<'_>; 3] {
        let nothing = || self.bind(&self.nothing, [0; 4], 1);
        let batch = self.geometry.segment_batch;
        [
            self.query_segments.as_ref().map_or_else(nothing, |s| self.bind(s, [batch, 0, 1, 0], 1)),
            self.a.segments.map_or_else(nothing, |s| self.bind(s, [batch, 0, 0, 1], 1)),
            self.a.mask.map_or_else(nothing, |m| self.bind(m, [self.geometry.mask_batch, 0, 0, 1], 1)),
        ]
    }
}

impl Attend<'_> {
    /// The whole of it, as one window.
    fn geometry(&self) -> Geometry {
        let [batch, queries, heads, dim] = [0, 1, 2, 3].map(|d| self.q.shape[d]);
        let kv_heads = self.k.shape[2];
        let row_of = |labels: Option<&Value>| labels.map_or(0, |l| l.shape[1]);
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        Geometry {
            flags: bit(self.causal, CAUSAL)
                | bit(self.segments.is_some(), SEGMENTS)
                | bit(self.mask.is_some(), MASK),
            batch,
            kv_heads,
            queries,
            keys: self.length,
            group: heads / kv_heads,
            dim,
            q_batch: queries * heads * dim,
            q_row: heads * dim,
            kv_batch: self.k.shape[1] * kv_heads * dim,
            kv_row: kv_heads * dim,
            lse_batch: queries * heads,
            lse_row: heads,
            segment_batch: row_of(self.segments),
            mask_batch: row_of(self.mask),
            query_at: self.offset,
            key_at: 0,
            window: self.window.unwrap_or(NO_WINDOW),
            scale: self.scale,
            first: true,
            rounded: self.precision == Precision::Bf16,
        }
    }
}

fn launches(
    cx: &Rc<Context>,
    a: &Attend,
    kernel: &'static Kernel,
    tiles: fn(Params) -> Tiles,
    inner: Inner,
    binds: &[Bind],
) -> Result<()> {
    let whole = a.geometry();
    let class = CLASSES.iter().position(|c| whole.dim <= *c as usize).expect("validated by the operation");
    let params = [whole.flags, class as u32, 0, 0];
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
            first: w.start[3] == 0,
            ..whole
        };
        let [from, to] = [g.visible(0)[0], g.visible(g.queries - 1)[1]];
        if !g.first && from >= to {
            return;
        }
        let tiles = tiles(params);
        let rows = if inner == Inner::Keys { g.rows() } else { g.keys };
        let groups = rows.div_ceil(tiles.rows as usize);
        let pairs = g.rows() * to.saturating_sub(from) / (1 + a.causal as usize);
        cx.launch(Launch {
            kernel,
            params,
            bindings: w.ranges,
            scalars: g.scalars(),
            groups: (g.batch * g.kv_heads * groups) as u32,
            threads: tiles.threads,
            work: 8 * (g.batch * g.kv_heads * pairs * g.dim) as u64,
        });
    })
}
