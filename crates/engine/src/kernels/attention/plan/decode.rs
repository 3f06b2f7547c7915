//! Few query rows: the keys are split into parts, and the parts are merged.

use std::rc::Rc;

use lowrank_cpu::attention::Geometry;
use smallvec::SmallVec;

use super::AttentionCall;
use super::binds::{Binds, InnerSide};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::Launch;
use crate::kernels::attention::config::Decode;
use crate::kernels::attention::{DECODE, DECODE_THREADS, MERGE, Parts, Split, THREADS};
use crate::kernels::elementwise::wide;
use crate::launch::{Bind, Window, for_each_window};

/// The fewest keys per part in decoding, and the number of workgroups above which the keys are not split further.
const MIN_SPLIT: usize = 128;
const MAX_GROUPS: usize = 256;

/// Whether there are few query rows, and one launch can bind everything and read it in vectors.
pub fn can_decode(cx: &Rc<Context>, a: &AttentionCall, o: &Value) -> bool {
    let g = a.geometry();
    let limit = cx.profile.binding_limit.saturating_sub(256);
    let reads = [Some(a.q), Some(a.k), Some(a.v), a.segments, a.mask];
    let fits = |v: &Value| (v.size() * v.dtype.bytes()) as u64 <= limit;
    let (_, parts) = split_keys(&g);
    g.rows() <= Decode::new(g.dim).rows()
        && g.dim.is_multiple_of(wide::ELEMENTS)
        && reads.into_iter().flatten().all(fits)
        && ((o.size() * parts * 4) as u64) <= limit
        && [a.q, a.k, a.v, o].iter().all(|v| wide::is_whole(&v.range()))
}

/// The number of keys per part, and of parts; depends only on the shape.
fn split_keys(g: &Geometry) -> (usize, usize) {
    let [from, to] = [g.visible(0)[0], g.visible(g.queries - 1)[1]];
    let keys = to.saturating_sub(from).max(1);
    let parts = MAX_GROUPS.div_ceil(g.batch * g.kv_heads).min(keys.div_ceil(MIN_SPLIT));
    let split = keys.div_ceil(parts);
    (split, keys.div_ceil(split))
}

pub fn decode(cx: &Rc<Context>, a: &AttentionCall, o: &Value, lse: &Value) -> Result<()> {
    let geometry = a.geometry();
    let (split, parts) = split_keys(&geometry);
    let scratch = match parts {
        1 => None,
        _ => Some([cx.empty([parts, o.size()], DType::F32)?, cx.empty([parts, lse.size()], DType::F32)?]),
    };
    let [os, lses] = scratch.as_ref().map_or([o, lse], |[os, lses]| [os, lses]);
    let binds = Binds::new(a, InnerSide::Keys);
    let mut list = binds.bind_forward(os, lses);
    let at = list.len() - 2;
    (list[at], list[at + 1]) = (Bind::whole(os), Bind::whole(lses));
    let space = [geometry.batch, geometry.kv_heads, geometry.queries, geometry.keys];
    for_each_window(cx, DECODE.name, &space, &[], &list, |w: Window| {
        debug_assert_eq!(w.count[..], space, "what is decoded fits a launch");
        cx.launch(Launch {
            kernel: &DECODE,
            params: Decode::new(geometry.dim).params(),
            bindings: w.ranges,
            scalars: Split { geometry, split }.words(),
            groups: (geometry.batch * geometry.kv_heads * parts) as u32,
            threads: DECODE_THREADS as u32,
            work: 4 * (a.q.size() * split * parts) as u64,
        });
    })?;
    let Some([os, lses]) = &scratch else { return Ok(()) };
    let dim = geometry.dim;
    cx.launch(Launch {
        kernel: &MERGE,
        params: [0; 4],
        bindings: SmallVec::from_iter([os.range(), lses.range(), o.range(), lse.range()]),
        scalars: Parts { rows: lse.size(), dim, parts }.words(),
        groups: o.size().div_ceil(THREADS) as u32,
        threads: THREADS as u32,
        work: 2 * os.size() as u64,
    });
    Ok(())
}
