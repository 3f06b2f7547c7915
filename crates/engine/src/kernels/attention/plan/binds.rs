//! The bindings of a launch, as footprints over its index space.

use lowrank_cpu::attention::{CAUSAL, FIRST, Geometry, MASK, ROUNDED, SEGMENTS};
use smallvec::SmallVec;

use super::{AttentionCall, Flow};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::kernels::attention::geometry::Sizes;
use crate::kernels::gemm::Precision;
use crate::launch::Bind;

/// The window size that stands for no window; added to any position it still fits a u32.
const NO_WINDOW: usize = 0x7fff_ffff;

/// The side along which windows advance first, so that sums over it have a fixed order.
#[derive(Clone, Copy, PartialEq)]
pub enum Inner {
    Keys,
    Queries,
}

pub type List<'a> = SmallVec<[Bind<'a>; 12]>;

/// Footprints over the index space [B, Hkv, T, S], or [B, Hkv, S, T] if queries are the inner side.
pub struct Binds<'a> {
    a: &'a AttentionCall<'a>,
    inner: Inner,
    geometry: Geometry,
    /// Bound but not read if there are no labels.
    pub nothing: Value,
    pub query_segments: Option<Value>,
}

impl<'a> Binds<'a> {
    pub fn of(a: &'a AttentionCall<'a>, inner: Inner) -> Self {
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

    /// The bindings of forward, in the kernel's order.
    pub fn forward<'v>(&'v self, o: &'v Value, lse: &'v Value) -> List<'v> {
        let a = self.a;
        let mut list: List = SmallVec::from_iter([self.queries(a.q), self.keys(a.k), self.keys(a.v)]);
        list.extend(self.labels());
        list.extend([self.queries(o), self.rows(lse, 1)]);
        list
    }

    /// The read bindings of a GPU's backward, in the kernel's order.
    pub fn backward<'v>(&'v self, flow: &Flow<'v>, rows: &'v Value, labels: Option<&'v Value>) -> List<'v> {
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

    /// The number of labels per key in the folded binding.
    fn label_step(&self) -> usize {
        1 + (self.a.segments.is_some() && self.a.mask.is_some()) as usize
    }

    /// Binds a value with the layout of q.
    pub fn queries<'v>(&self, value: &'v Value) -> Bind<'v> {
        let g = &self.geometry;
        self.bind(value, [g.q_batch, g.group * g.q_head, g.q_row, 0], (g.group - 1) * g.q_head + g.dim)
    }

    /// Binds a value with the layout of k.
    pub fn keys<'v>(&self, value: &'v Value) -> Bind<'v> {
        let g = &self.geometry;
        self.bind(value, [g.kv_batch, g.kv_head, 0, g.kv_row], g.dim)
    }

    /// Binds a value with `n` numbers per query row.
    pub fn rows<'v>(&self, value: &'v Value, n: usize) -> Bind<'v> {
        let g = &self.geometry;
        let [batch, row, head] = [g.q_batch, g.q_row, g.q_head].map(|stride| stride / g.dim * n);
        self.bind(value, [batch, g.group * head, row, 0], (g.group - 1) * head + n)
    }

    /// Binds the segments of queries and of keys, and the mask.
    pub fn labels(&self) -> [Bind<'_>; 3] {
        let nothing = || self.bind(&self.nothing, [0; 4], 1);
        let batch = self.geometry.segment_batch;
        [
            self.query_segments.as_ref().map_or_else(nothing, |s| self.bind(s, [batch, 0, 1, 0], 1)),
            self.a.segments.map_or_else(nothing, |s| self.bind(s, [batch, 0, 0, 1], 1)),
            self.a.mask.map_or_else(nothing, |m| self.bind(m, [self.geometry.mask_batch, 0, 0, 1], 1)),
        ]
    }
}

impl AttentionCall<'_> {
    pub fn sizes(&self) -> Sizes {
        Sizes::of(&self.q.shape, &self.k.shape, self.heads_first)
    }

    /// Whether a binding can span the query heads of one key/value head, which are far from each other with heads
    /// first.
    pub fn fits(&self, cx: &Context) -> bool {
        let g = self.geometry();
        let span = ((g.group - 1) * g.q_head + g.dim) * DType::F32.bytes();
        !self.heads_first || span as u64 <= cx.profile.binding_limit.saturating_sub(256)
    }

    /// The geometry of one window over everything.
    pub fn geometry(&self) -> Geometry {
        let Sizes { batch, queries, heads, capacity, kv_heads, dim } = self.sizes();
        let strides = |rows: usize, heads: usize| if self.heads_first { [1, rows] } else { [heads, 1] };
        let ([row, head], [kv_row, kv_head]) = (strides(queries, heads), strides(capacity, kv_heads));
        let row_of = |labels: Option<&Value>| labels.map_or(0, |l| l.shape[1]);
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        Geometry {
            flags: bit(self.causal, CAUSAL)
                | bit(self.segments.is_some(), SEGMENTS)
                | bit(self.mask.is_some(), MASK)
                | bit(self.precision == Precision::Bf16, ROUNDED)
                | FIRST,
            batch,
            kv_heads,
            queries,
            keys: self.length,
            group: heads / kv_heads,
            dim,
            q_batch: queries * heads * dim,
            q_row: row * dim,
            q_head: head * dim,
            kv_batch: capacity * kv_heads * dim,
            kv_row: kv_row * dim,
            kv_head: kv_head * dim,
            segment_batch: row_of(self.segments),
            mask_batch: row_of(self.mask),
            query_at: self.offset,
            key_at: 0,
            window: self.window.unwrap_or(NO_WINDOW),
            scale: self.scale,
        }
    }
}
