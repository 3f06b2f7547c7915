//! The GPU version: keys and positions of each line, merged run by run; see the module's header.

use std::rc::Rc;

use smallvec::SmallVec;

use super::emit_key;
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::scalars::Words;
use crate::kernel::{Access, Implementations, Kernel, Launch, Range, Variant};
use crate::kernels::copy::{Side, copy};
use crate::kernels::gather::gather;
use crate::launch::{Bind, for_each_window};
use crate::scalars;

const THREADS: u32 = 64;

fn list_variants(configs: &[([u32; 4], &[DType])]) -> Vec<Variant> {
    configs
        .iter()
        .map(|(params, dtypes)| Variant { params: *params, dtypes: dtypes.to_vec(), threads: THREADS })
        .collect()
}

scalars! {
    struct KeyScalars {
        size: usize,
        n: usize,
        inner: usize,
        x_outer: usize,
        x_step: usize,
        y_outer: usize,
        y_inner: usize,
        /// The start of the window of n.
        begin: usize,
    }
}

scalars! {
    struct RankScalars {
        size: usize,
        n: usize,
        /// The stride of lines, in elements.
        line: usize,
        /// Elements per run.
        run: usize,
        begin: usize,
        /// The start of the window of the line in `others`.
        other: usize,
        other_count: usize,
    }
}

scalars! {
    struct MoveScalars {
        size: usize,
        n: usize,
        line: usize,
        /// The start of the window of the line to write.
        to: usize,
        to_count: usize,
    }
}

scalars! {
    struct ValueScalars { size: usize }
}

/// Creates lines of keys and positions from [outer, n, inner]. `params` = [1 for i32, 1 for descending order].
pub(super) static KEYS: Kernel = Kernel {
    name: "sort keys",
    bindings: &[("x", Access::Read), ("keys", Access::ReadWrite), ("places", Access::ReadWrite)],
    scalars: KeyScalars::members,
    implementations: Implementations::Gpu(|params| {
        let dtype = if params[0] == 1 { DType::I32 } else { DType::F32 };
        let turn = if params[1] == 1 { "~" } else { "" };
        format!(
            "{}fn kernel(group: u32, lane: u32) {{
  let id = group * THREADS + lane;
  if id >= p.size {{ return; }}
  let i = id % p.inner;
  let k = id / p.inner % p.n;
  let o = id / p.inner / p.n;
  let at = o * p.y_outer + i * p.y_inner + k;
  store_keys(at, bitcast<i32>({turn}key(load_x(o * p.x_outer + k * p.x_step + i))));
  store_places(at, i32(p.begin + k));
}}
",
            emit_key(dtype)
        )
    }),
    variants: || {
        let (f32, i32) = ([DType::F32, DType::I32, DType::I32], [DType::I32; 3]);
        list_variants(&[([0; 4], &f32), ([0, 1, 0, 0], &f32), ([1, 0, 0, 0], &i32), ([1, 1, 0, 0], &i32)])
    },
};

/// Adds to an element's position in the merged run: the number of elements of the neighbouring run that precede it, in
/// the window of the line in `others`.
pub(super) static RANK: Kernel = Kernel {
    name: "sort rank",
    bindings: &[("keys", Access::Read), ("others", Access::Read), ("ranks", Access::ReadWrite)],
    scalars: RankScalars::members,
    implementations: Implementations::Gpu(|_| RANK_WGSL.into()),
    variants: || list_variants(&[([0; 4], &[DType::I32; 3])]),
};

const RANK_WGSL: &str = "
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.size { return; }
  let row = id / p.n * p.line;
  let at = row + id % p.n;
  let k = p.begin + id % p.n;
  let key = bitcast<u32>(load_keys(at));
  let run = k / p.run;
  let after = (run & 1u) == 0u;
  // The neighbouring run, as far as it is bound.
  let start = (run ^ 1u) * p.run;
  var low = min(max(start, p.other), p.other + p.other_count) - p.other;
  var high = min(max(start + p.run, p.other), p.other + p.other_count) - p.other;
  let first = low;
  while low < high {
    let middle = (low + high) / 2u;
    let other = bitcast<u32>(load_others(row + middle));
    // Of equal keys, the first run's come first.
    if other < key || (!after && other == key) { low = middle + 1u; } else { high = middle; }
  }
  var rank = low - first;
  if p.other == 0u { rank += (run & ~1u) * p.run + k - run * p.run; } else { rank += u32(load_ranks(at)); }
  store_ranks(at, i32(rank));
}
";

/// Moves each key and position to its rank, if the bound window of the line contains it.
pub(super) static MOVE: Kernel = Kernel {
    name: "sort move",
    bindings: &[
        ("ranks", Access::Read),
        ("keys", Access::Read),
        ("places", Access::Read),
        ("new_keys", Access::ReadWrite),
        ("new_places", Access::ReadWrite),
    ],
    scalars: MoveScalars::members,
    implementations: Implementations::Gpu(|_| MOVE_WGSL.into()),
    variants: || list_variants(&[([0; 4], &[DType::I32; 5])]),
};

const MOVE_WGSL: &str = "
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.size { return; }
  let row = id / p.n * p.line;
  let at = row + id % p.n;
  let rank = u32(load_ranks(at));
  if rank < p.to || rank - p.to >= p.to_count { return; }
  store_new_keys(row + rank - p.to, load_keys(at));
  store_new_places(row + rank - p.to, load_places(at));
}
";

/// Converts keys back to i32 values. `params` = [0, 1 for descending order].
pub(super) static VALUES: Kernel = Kernel {
    name: "sort values",
    bindings: &[("keys", Access::Read), ("y", Access::Write)],
    scalars: ValueScalars::members,
    implementations: Implementations::Gpu(|params| {
        let turn = if params[1] == 1 { "~" } else { "" };
        format!(
            "fn kernel(group: u32, lane: u32) {{
  let i = group * THREADS + lane;
  if i < p.size {{ store_y(i, bitcast<i32>(({turn}bitcast<u32>(load_keys(i))) ^ 0x80000000u)); }}
}}
"
        )
    }),
    variants: || list_variants(&[([0; 4], &[DType::I32; 2]), ([0, 1, 0, 0], &[DType::I32; 2])]),
};

fn launch(
    cx: &Rc<Context>,
    kernel: &'static Kernel,
    params: [u32; 4],
    bindings: SmallVec<[Range; 6]>,
    size: usize,
    scalars: Words,
) {
    cx.launch(Launch {
        kernel,
        params,
        bindings,
        scalars,
        groups: size.div_ceil(THREADS as usize) as u32,
        threads: THREADS,
        work: size as u64 * 16,
    });
}

/// Keys and positions of all lines, both [lines, N] and i32.
type Lines = [Value; 2];

pub(super) fn sort(
    cx: &Rc<Context>,
    x: &Value,
    [outer, n, inner]: [usize; 3],
    descending: bool,
    count: usize,
    values: &Value,
    indices: &Value,
) -> Result<()> {
    let lines = write_keys(cx, x, [outer, n, inner], descending)?;
    let [keys, places] = merge_runs(cx, lines, [outer * inner, n])?;
    let first = |lines: &Value, y: &Value| {
        let from = Side { value: lines, start: 0, strides: SmallVec::from_slice(&[inner * n, 1, n]) };
        let y = y.reshape([outer, count, inner]);
        copy(cx, "sort", &[outer, count, inner], &from, &Side::whole(&y))
    };
    first(&places, indices)?;
    if x.dtype == DType::F32 {
        // Not from the keys, which do not distinguish −0.
        return gather(cx, x, indices, values, [outer, n, count, inner]);
    }
    let sorted = cx.empty([outer, count, inner], DType::I32)?;
    first(&keys, &sorted)?;
    let binds = [Bind::new(&sorted, &[1], 1), Bind::new(values, &[1], 1)];
    for_each_window(cx, "sort", &[values.size()], &[], &binds, |w| {
        let size = w.count[0];
        launch(cx, &VALUES, [0, descending as u32, 0, 0], w.ranges, size, ValueScalars { size }.words());
    })
}

/// Creates the keys and positions of the lines of x, [outer, N, inner].
fn write_keys(cx: &Rc<Context>, x: &Value, [outer, n, inner]: [usize; 3], descending: bool) -> Result<Lines> {
    let empty = || cx.empty([outer * inner, n], DType::I32);
    let (keys, places) = (empty()?, empty()?);
    let params = [(x.dtype == DType::I32) as u32, descending as u32, 0, 0];
    let by_line = [inner * n, 1, n];
    let binds = [
        Bind::new(x, &[n * inner, inner, 1], 1),
        Bind::new(&keys, &by_line, 1),
        Bind::new(&places, &by_line, 1),
    ];
    for_each_window(cx, "sort", &[outer, n, inner], &[], &binds, |w| {
        let size = w.count.iter().product();
        let keys = KeyScalars {
            size,
            n: w.count[1],
            inner: w.count[2],
            x_outer: n * inner,
            x_step: inner,
            y_outer: inner * n,
            y_inner: n,
            begin: w.start[1],
        };
        launch(cx, &KEYS, params, w.ranges, size, keys.words());
    })?;
    Ok([keys, places])
}

/// Merges runs of 1, 2, 4, … elements until each line is one sorted run.
fn merge_runs(cx: &Rc<Context>, [mut keys, mut places]: Lines, [lines, n]: [usize; 2]) -> Result<Lines> {
    let empty = || cx.empty([lines, n], DType::I32);
    let ranks = empty()?;
    let (mut new_keys, mut new_places) = (empty()?, empty()?);
    let (from, to) = ([n, 1, 0], [n, 0, 1]);
    let mut run = 1;
    while run < n {
        let binds = [Bind::new(&keys, &from, 1), Bind::new(&keys, &to, 1), Bind::new(&ranks, &from, 1)];
        for_each_window(cx, "sort", &[lines, n, n], &[], &binds, |w| {
            let size = w.count[0] * w.count[1];
            let rank = RankScalars {
                size,
                n: w.count[1],
                line: n,
                run,
                begin: w.start[1],
                other: w.start[2],
                other_count: w.count[2],
            };
            launch(cx, &RANK, [0; 4], w.ranges, size, rank.words());
        })?;
        let binds = [
            Bind::new(&ranks, &from, 1),
            Bind::new(&keys, &from, 1),
            Bind::new(&places, &from, 1),
            Bind::new(&new_keys, &to, 1),
            Bind::new(&new_places, &to, 1),
        ];
        for_each_window(cx, "sort", &[lines, n, n], &[], &binds, |w| {
            let size = w.count[0] * w.count[1];
            let scalars = MoveScalars { size, n: w.count[1], line: n, to: w.start[2], to_count: w.count[2] };
            launch(cx, &MOVE, [0; 4], w.ranges, size, scalars.words());
        })?;
        std::mem::swap(&mut keys, &mut new_keys);
        std::mem::swap(&mut places, &mut new_places);
        run *= 2;
    }
    Ok([keys, places])
}
