//! The bindings of a launch, as footprints over its index space.

use lowrank_cpu::attention::{CAUSAL, FIRST, Geometry, MASK, ROUNDED, SEGMENTS};
use smallvec::SmallVec;

use super::{AttentionCall, BackwardInputs};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::kernels::attention::geometry::Sizes;
use crate::kernels::gemm::Precision;
use crate::launch::Bind;

/// The window size that stands for no window; added to any position it still fits a u32.
const NO_WINDOW: usize = 0x7fff_ffff;

/// The side along which windows advance first, so that sums over it have a fixed order.
#[derive(Clone, Copy, PartialEq)]
pub enum InnerSide {
    Keys,
    Queries,
}

pub type BindList<'a> = SmallVec<[Bind<'a>; 12]>;

/// Footprints over the index space [B, Hkv, T, S], or [B, Hkv, S, T] if queries are the inner side.
pub struct Binds<'a> {
    a: &'a AttentionCall<'a>,
    inner: InnerSide,
    geometry: Geometry,
    /// Bound but not read if there are no labels.
    pub placeholder: Value,
    pub query_segments: Option<Value>,
}

impl<'a> Binds<'a> {
    pub fn new(a: &'a AttentionCall<'a>, inner: InnerSide) -> Self {
        let placeholder = Value { dtype: DType::I32, ..a.q.sub_range(0, [1]) };
        let query_segments = a.segments.map(|s| s.sub_range(a.offset, [s.size() - a.offset]));
        Binds { a, inner, geometry: a.geometry(), placeholder, query_segments }
    }

    fn bind<'v>(&self, value: &'v Value, [batch, head, query, key]: [usize; 4], cell: usize) -> Bind<'v> {
        match self.inner {
            InnerSide::Keys => Bind::new(value, &[batch, head, query, key], cell),
            InnerSide::Queries => Bind::new(value, &[batch, head, key, query], cell),
        }
    }

    /// The bindings of forward, in the kernel's order.
    pub fn bind_forward<'v>(&'v self, o: &'v Value, lse: &'v Value) -> BindList<'v> {
        let a = self.a;
        let mut list: BindList =
            SmallVec::from_iter([self.bind_queries(a.q), self.bind_keys(a.k), self.bind_keys(a.v)]);
        list.extend(self.bind_labels());
        list.extend([self.bind_queries(o), self.bind_rows(lse, 1)]);
        list
    }

    /// The read bindings of a GPU's backward, in the kernel's order.
    pub fn bind_backward<'v>(
        &'v self,
        flow: &BackwardInputs<'v>,
        rows: &'v Value,
        labels: Option<&'v Value>,
    ) -> BindList<'v> {
        let a = self.a;
        let step = self.label_step();
        let labels = match labels {
            Some(labels) => {
                let batch = labels.size() / self.geometry.batch;
                self.bind(labels, [batch, 0, 0, step], step)
            }
            None => self.bind(&self.placeholder, [0; 4], 1),
        };
        SmallVec::from_iter([
            self.bind_queries(a.q),
            self.bind_keys(a.k),
            self.bind_keys(a.v),
            self.bind_queries(flow.d_o),
            self.bind_rows(rows, 3),
            labels,
        ])
    }

    /// The number of labels per key in the folded binding.
    fn label_step(&self) -> usize {
        1 + (self.a.segments.is_some() && self.a.mask.is_some()) as usize
    }

    /// Binds a value with the layout of q.
    pub fn bind_queries<'v>(&self, value: &'v Value) -> Bind<'v> {
        let g = &self.geometry;
        self.bind(value, [g.q_batch, g.group * g.q_head, g.q_row, 0], (g.group - 1) * g.q_head + g.dim)
    }

    /// Binds a value with the layout of k.
    pub fn bind_keys<'v>(&self, value: &'v Value) -> Bind<'v> {
        let g = &self.geometry;
        self.bind(value, [g.kv_batch, g.kv_head, 0, g.kv_row], g.dim)
    }

    /// Binds a value with `n` numbers per query row.
    pub fn bind_rows<'v>(&self, value: &'v Value, n: usize) -> Bind<'v> {
        let g = &self.geometry;
        let [batch, row, head] = [g.q_batch, g.q_row, g.q_head].map(|stride| stride / g.dim * n);
        self.bind(value, [batch, g.group * head, row, 0], (g.group - 1) * head + n)
    }

    /// Binds the segments of queries and of keys, and the mask.
    pub fn bind_labels(&self) -> [Bind<'_>; 3] {
        let bind_placeholder = || self.bind(&self.placeholder, [0; 4], 1);
        let batch = self.geometry.segment_batch;
        [
            self.query_segments.as_ref().map_or_else(bind_placeholder, |s| self.bind(s, [batch, 0, 1, 0], 1)),
            self.a.segments.map_or_else(bind_placeholder, |s| self.bind(s, [batch, 0, 0, 1], 1)),
            self.a
                .mask
                .map_or_else(bind_placeholder, |m| self.bind(m, [self.geometry.mask_batch, 0, 0, 1], 1)),
        ]
    }
}

impl AttentionCall<'_> {
    pub fn sizes(&self) -> Sizes {
        Sizes::new(&self.q.shape, &self.k.shape, self.heads_first)
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
        let row_length = |labels: Option<&Value>| labels.map_or(0, |l| l.shape[1]);
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
            segment_batch: row_length(self.segments),
            mask_batch: row_length(self.mask),
            query_at: self.offset,
            key_at: 0,
            window: self.window.unwrap_or(NO_WINDOW),
            scale: self.scale,
        }
    }
}
