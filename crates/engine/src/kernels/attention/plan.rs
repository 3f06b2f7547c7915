//! Which kernels are launched over which windows.

use std::rc::Rc;

use smallvec::SmallVec;

use super::geometry::{CAUSAL, Geometry, MASK, SEGMENTS};
use super::shader::{ACROSS, Decode, Form, LARGE, SMALL, Tile};
use super::{
    BACKWARD, BACKWARD_KV, BACKWARD_Q, DECODE, DECODE_THREADS, DELTA, Delta, FORWARD, MERGE, Parts, ROWS,
    Rows, Split, THREADS,
};
use crate::context::Context;
use crate::device::Kind;
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::Kernel;
use crate::kernels::copy::{Side, copy};
use crate::kernels::elementwise::{Function, map, wide};
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

/// Workgroups below which the smaller tile is taken: a GPU has units that would have none.
const FEW: usize = 256;
/// Keys of a part in decoding at least, and workgroups from which on the keys are not cut further.
const LEAST_SPLIT: usize = 128;
const ENOUGH: usize = 256;

/// Appends o = attention and its log-sum-exp.
pub fn forward(cx: &Rc<Context>, a: &Attend, o: &Value, lse: &Value) -> Result<()> {
    if cx.profile.kind == Kind::Gpu && decodes(cx, a, o) {
        return decode(cx, a, o, lse);
    }
    let binds = Binds::of(a, Inner::Keys);
    launches(cx, a, &FORWARD, Inner::Keys, &binds.forward(o, lse), Tile::of_queries)
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
    if cx.profile.kind == Kind::Cpu {
        return backward_at_once(cx, a, flow, d_q, d_kv);
    }
    let rows = rows(cx, a, flow)?;
    let labels = labels(cx, a)?;
    if let Some(d_q) = d_q {
        let binds = Binds::of(a, Inner::Keys);
        let mut list = binds.backward(flow, &rows, labels.as_ref());
        list.push(binds.queries(d_q));
        launches(cx, a, &BACKWARD_Q, Inner::Keys, &list, Tile::of_queries)?;
    }
    if let Some([d_k, d_v]) = d_kv {
        let binds = Binds::of(a, Inner::Queries);
        let mut list = binds.backward(flow, &rows, labels.as_ref());
        list.extend([binds.keys(d_k), binds.keys(d_v)]);
        launches(cx, a, &BACKWARD_KV, Inner::Queries, &list, Tile::of_keys)?;
    }
    Ok(())
}

/// All three by one kernel.
fn backward_at_once(
    cx: &Rc<Context>,
    a: &Attend,
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
    let parts = cx.empty([a.geometry().parts()], DType::F32)?;
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
    launches(cx, a, &BACKWARD, Inner::Keys, &list, Tile::of_queries)
}

/// Whether there are few query rows, in what one launch can bind and read by vectors.
fn decodes(cx: &Rc<Context>, a: &Attend, o: &Value) -> bool {
    let g = a.geometry();
    let limit = cx.profile.binding_limit.saturating_sub(256);
    let reads = [Some(a.q), Some(a.k), Some(a.v), a.segments, a.mask];
    let fits = |v: &Value| (v.size() * v.dtype.bytes()) as u64 <= limit;
    let (_, splits) = splits(&g);
    g.rows() <= Decode::new(g.dim).rows()
        && g.dim.is_multiple_of(wide::ELEMENTS)
        && reads.into_iter().flatten().all(fits)
        && ((o.size() * splits * 4) as u64) <= limit
        && [a.q, a.k, a.v, o].iter().all(|v| wide::is_whole(&v.range()))
}

/// Keys of a part, and parts, by shape alone.
fn splits(g: &Geometry) -> (usize, usize) {
    let [from, to] = [g.visible(0)[0], g.visible(g.queries - 1)[1]];
    let keys = to.saturating_sub(from).max(1);
    let parts = ENOUGH.div_ceil(g.batch * g.kv_heads).min(keys.div_ceil(LEAST_SPLIT));
    let split = keys.div_ceil(parts);
    (split, keys.div_ceil(split))
}

fn decode(cx: &Rc<Context>, a: &Attend, o: &Value, lse: &Value) -> Result<()> {
    let geometry = a.geometry();
    let (split, parts) = splits(&geometry);
    let several = match parts {
        1 => None,
        _ => Some([cx.empty([parts, o.size()], DType::F32)?, cx.empty([parts, lse.size()], DType::F32)?]),
    };
    let [os, lses] = several.as_ref().map_or([o, lse], |[os, lses]| [os, lses]);
    let binds = Binds::of(a, Inner::Keys);
    let mut list = binds.forward(os, lses);
    let at = list.len() - 2;
    (list[at], list[at + 1]) = (Bind::whole(os), Bind::whole(lses));
    let space = [geometry.batch, geometry.kv_heads, geometry.queries, geometry.keys];
    windows(cx, DECODE.name, &space, &[], &list, |w: Window| {
        debug_assert_eq!(w.count[..], space, "what is decoded fits a launch");
        cx.launch(Launch {
            kernel: &DECODE,
            params: Decode::new(geometry.dim).params(),
            bindings: w.ranges,
            scalars: Split { geometry, split }.words(),
            groups: (geometry.batch * geometry.kv_heads * parts) as u32,
            threads: DECODE_THREADS as u32,
            work: 8 * (a.q.size() * split * parts) as u64,
        });
    })?;
    let Some([os, lses]) = &several else { return Ok(()) };
    let dim = geometry.dim;
    cx.launch(Launch {
        kernel: &MERGE,
        params: [0; 4],
        bindings: SmallVec::from_iter([os.range(), lses.range(), o.range(), lse.range()]),
        scalars: Parts { rows: lse.size(), dim, parts }.words(),
        groups: o.size().div_ceil(THREADS) as u32,
        threads: THREADS as u32,
        work: 8 * os.size() as u64,
    });
    Ok(())
}

/// What backward reads of each query row: its log-sum-exp, δ = Σ dO ∘ O less the gradient of the log-sum-exp, and its
/// segment.
fn rows(cx: &Rc<Context>, a: &Attend, flow: &Flow) -> Result<Value> {
    let g = a.geometry();
    let heads = g.kv_heads * g.group;
    let rows = cx.empty([g.batch, g.queries, heads, 3], DType::I32)?;
    let per_row = |v, n: usize| Bind::new(v, &[g.queries * n, n], n);
    let binds = Binds::of(a, Inner::Keys);
    let segments = match &binds.query_segments {
        Some(s) => Bind::new(s, &[g.segment_batch, 1], 1),
        None => Bind::new(&binds.nothing, &[0, 0], 1),
    };
    let list = [
        per_row(flow.d_o, g.q_row),
        per_row(flow.o, g.q_row),
        per_row(flow.lse, heads),
        per_row(flow.d_lse.unwrap_or(flow.lse), heads),
        segments,
        per_row(&rows, heads * 3),
    ];
    windows(cx, ROWS.name, &[g.batch, g.queries], &[], &list, |w| {
        let count = w.count[0] * w.count[1] * heads;
        let scalars = Rows {
            rows: count,
            dim: g.dim,
            heads,
            queries: w.count[1],
            segment_batch: g.segment_batch,
            has_segments: a.segments.is_some(),
            has_d_lse: flow.d_lse.is_some(),
        };
        // A window of several batch rows holds all of their queries.
        debug_assert!(w.count[0] == 1 || w.count[1] == g.queries);
        cx.launch(Launch {
            kernel: &ROWS,
            params: [0; 4],
            bindings: w.ranges,
            scalars: scalars.words(),
            groups: (count * EACH).div_ceil(THREADS) as u32,
            threads: THREADS as u32,
            work: (count * g.dim * 2) as u64,
        });
    })?;
    Ok(rows)
}

/// Invocations of a row in rows.wgsl.
const EACH: usize = 8;

/// The labels of keys in one binding: those there are, or both, one after the other.
fn labels(cx: &Rc<Context>, a: &Attend) -> Result<Option<Value>> {
    let (Some(segments), Some(mask)) = (a.segments, a.mask) else {
        return Ok(a.segments.or(a.mask).cloned());
    };
    let both = cx.empty([a.q.shape[0], a.length, 2], DType::I32)?;
    for (at, labels) in [segments, mask].into_iter().enumerate() {
        let from = Side { value: labels, start: 0, strides: SmallVec::from_slice(&[labels.shape[1], 1]) };
        let to = Side { value: &both, start: at, strides: SmallVec::from_slice(&[2 * a.length, 2]) };
        copy(cx, "attention", &[a.q.shape[0], a.length], &from, &to)?;
    }
    Ok(Some(both))
}

/// δ = Σ dO ∘ O, less the gradient of the log-sum-exp: dS = P ∘ (dO Vᵀ − δ).
fn delta(cx: &Rc<Context>, flow: &Flow) -> Result<Value> {
    let [b, t, h] = [0, 1, 2].map(|d| flow.o.shape[d]);
    let delta = cx.empty([b, t, h], DType::F32)?;
    let dim = flow.o.shape[3];
    row_windows(cx, DELTA.name, b * t, &[flow.d_o, flow.o, &delta], &[], |w| {
        let rows = w.count[0] * h;
        cx.launch(Launch {
            kernel: &DELTA,
            params: [0; 4],
            bindings: w.ranges,
            scalars: Delta { rows, dim }.words(),
            groups: 1,
            threads: 1,
            work: (rows * dim * 2) as u64,
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

    /// The bindings of forward, in order.
    fn forward<'v>(&'v self, o: &'v Value, lse: &'v Value) -> List<'v> {
        let a = self.a;
        let mut list: List = SmallVec::from_iter([self.queries(a.q), self.keys(a.k), self.keys(a.v)]);
        list.extend(self.labels());
        list.extend([self.queries(o), self.rows(lse, 1)]);
        list
    }

    /// What a GPU's backward reads, in order.
    fn backward<'v>(&'v self, flow: &Flow<'v>, rows: &'v Value, labels: Option<&'v Value>) -> List<'v> {
        let a = self.a;
        let step = self.label_step();
        let labels = match labels {
            Some(labels) => {
                let batch = labels.size() / self.geometry.batch;
                self.bind(labels, [batch, 0, 0, step], step)
            }
            None => self.bind(&self.nothing, [0; 4], 1),
        };
        SmallVec::from_iter([
            self.queries(a.q),
            self.keys(a.k),
            self.keys(a.v),
            self.queries(flow.d_o),
            self.rows(rows, 3),
            labels,
        ])
    }

    /// Labels of a key, where they are folded.
    fn label_step(&self) -> usize {
        1 + (self.a.segments.is_some() && self.a.mask.is_some()) as usize
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

    /// `n` numbers a query row.
    fn rows<'v>(&self, value: &'v Value, n: usize) -> Bind<'v> {
        let g = &self.geometry;
        self.bind(value, [g.lse_batch * n, g.group * n, g.lse_row * n, 0], g.group * n)
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
    inner: Inner,
    binds: &[Bind],
    tile: fn(Form) -> Tile,
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
            first: w.start[3] == 0,
            ..whole
        };
        let [from, to] = [g.visible(0)[0], g.visible(g.queries - 1)[1]];
        if !g.first && from >= to {
            return;
        }
        let rows = if inner == Inner::Keys { g.rows() } else { g.keys };
        let vectors = g.dim.is_multiple_of(wide::ELEMENTS)
            && kernel.bindings.iter().zip(&w.ranges).all(|((name, _), range)| {
                !["q", "k", "v", "o", "d_o", "d_q", "d_k", "d_v"].contains(name) || wide::is_whole(range)
            });
        let subgroups = kernel.name == FORWARD.name && cx.profile.subgroup as usize >= ACROSS;
        let of = |threads| {
            let form = Form::new(g.dim, threads, vectors, subgroups);
            (form, g.batch * g.kv_heads * rows.div_ceil(tile(form).own()))
        };
        let (form, groups) =
            Some(of(LARGE)).filter(|(_, groups)| *groups >= FEW).unwrap_or_else(|| of(SMALL));
        let pairs = g.rows() * to.saturating_sub(from) / (1 + a.causal as usize);
        cx.launch(Launch {
            kernel,
            params: form.params(),
            bindings: w.ranges,
            scalars: g.words(),
            groups: groups as u32,
            threads: form.threads as u32,
            work: 8 * (g.batch * g.kv_heads * pairs * g.dim) as u64,
        });
    })
}
