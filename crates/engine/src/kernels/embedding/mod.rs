//! Rows of a table by index, and the gradient of the table.
//!
//! Maths: y[n, c] = T[id[n], c], and d_T[v, c] += Σ d_y[n, c] over the n with id[n] = v, n ascending. A table is [V,
//! C], or transposed [C, V]. An index outside 0..V gives a row of NaN and takes no gradient. Layout: row-major; one
//! invocation per element of y or d_y.
//! Cost: forward one pass over y. Backward one pass over d_y: `link_rows` chains the rows with equal index (at worst N²
//! comparisons on a GPU, a hash table natively); then the first row of each chain sums it and owns its row of d_T. So
//! no two invocations write one location, and sums are in ascending order of n.
//!
//! Rejected on paper: a scan of all indices for every row of the table (V · N, for V ≫ N); sorting on the host (it must
//! know the indices, and a second path would be needed).

mod native;

use std::rc::Rc;

use lowrank_cpu::quant::BlockType;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernel::{Access, Implementations, Kernel, Launch, Variant};
use crate::launch::{Bind, for_each_window};
use crate::scalars;

const THREADS: u32 = 64;

scalars! {
    pub(super) struct LookUpScalars {
        /// The start and size of the window of the table's rows.
        start: usize,
        count: usize,
        vocabulary: usize,
        /// The size of y.
        rows: usize,
        columns: usize,
        /// The strides of the table.
        row_step: usize,
        column_step: usize,
        y_step: usize,
        /// Whether this launch writes NaN for indices out of range.
        first: bool,
    }
}

scalars! {
    pub(super) struct LinkScalars { rows: usize, vocabulary: usize, padding: u32 }
}

scalars! {
    pub(super) struct ScatterScalars {
        /// The window of the table's rows.
        start: usize,
        count: usize,
        /// The size of d_y.
        rows: usize,
        columns: usize,
        /// The strides of the table.
        row_step: usize,
        column_step: usize,
        d_step: usize,
    }
}

static LOOK_UP: Kernel = Kernel {
    name: "take",
    bindings: &[("table", Access::Read), ("ids", Access::Read), ("y", Access::ReadWrite)],
    scalars: LookUpScalars::members,
    implementations: Implementations::Both {
        wgsl: |_| include_str!("take.wgsl").into(),
        native: native::look_up,
    },
    variants: || {
        let variant =
            |table| Variant { params: [0; 4], dtypes: vec![table, DType::I32, DType::F32], threads: THREADS };
        let plain = [DType::F32, DType::F16, DType::BF16].into_iter();
        plain.chain(BlockType::EVERY.map(DType::Block)).map(variant).collect()
    },
};

/// next[n]: the next row of the block with n's index, or −1. head[n]: the index of n if n is the first row of the block
/// with it, otherwise (and for rows without a gradient) −1.
static LINKS: Kernel = Kernel {
    name: "links",
    bindings: &[("ids", Access::Read), ("next", Access::Write), ("head", Access::Write)],
    scalars: LinkScalars::members,
    implementations: Implementations::Both {
        wgsl: |_| include_str!("links.wgsl").into(),
        native: native::link_rows,
    },
    variants: || vec![Variant { params: [0; 4], dtypes: vec![DType::I32; 3], threads: THREADS }],
};

static SCATTER: Kernel = Kernel {
    name: "scatter",
    bindings: &[
        ("next", Access::Read),
        ("head", Access::Read),
        ("d_y", Access::Read),
        ("d_table", Access::ReadWrite),
    ],
    scalars: ScatterScalars::members,
    implementations: Implementations::Both {
        wgsl: |_| include_str!("scatter.wgsl").into(),
        native: native::scatter,
    },
    variants: || {
        let dtypes = vec![DType::I32, DType::I32, DType::F32, DType::F32];
        vec![Variant { params: [0; 4], dtypes, threads: THREADS }]
    },
};

pub const KERNELS: &[&Kernel] = &[&LOOK_UP, &LINKS, &SCATTER];

/// The layout of a table of two dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLayout {
    /// The number of rows that can be indexed.
    pub vocabulary: usize,
    pub columns: usize,
    row_step: usize,
    column_step: usize,
}

impl TableLayout {
    /// `shape` is [V, C], or [C, V] if `transposed`.
    pub fn new(shape: &[usize], transposed: bool) -> TableLayout {
        let [a, b] = *shape else { unreachable!("a table has two dimensions") };
        if transposed {
            TableLayout { vocabulary: b, columns: a, row_step: 1, column_step: b }
        } else {
            TableLayout { vocabulary: a, columns: b, row_step: b, column_step: 1 }
        }
    }
}

/// Checks that indices are in 0..`size` if the host knows them; otherwise they give NaN.
///
/// # Errors
/// `ERR_INDEX` with the index, its position and `size`.
pub fn check_indices(name: &str, ids: &Value, size: usize) -> Result<()> {
    let Some(host) = ids.host() else { return Ok(()) };
    match host.iter().position(|id| usize::try_from(*id).map_or(true, |id| id >= size)) {
        Some(at) => fail!(Index, "{name}: index {} at position {at} is outside 0..{size}", host[at]),
        None => Ok(()),
    }
}

/// Appends y[n, :] = row id[n] of `table`; y is f32 of N × C elements.
///
/// # Errors
/// `ERR_INDEX`, see `check_indices`.
pub fn look_up(
    cx: &Rc<Context>,
    name: &str,
    table: &Value,
    layout: TableLayout,
    ids: &Value,
    y: &Value,
) -> Result<()> {
    check_indices(name, ids, layout.vocabulary)?;
    let TableLayout { vocabulary, columns, row_step, column_step } = layout;
    let binds = [
        Bind::new(table, &[row_step, 0, column_step], 1),
        Bind::new(ids, &[0, 1, 0], 1),
        Bind::new(y, &[0, columns, 1], 1),
    ];
    for_each_window(cx, name, &[vocabulary, ids.size(), columns], &[], &binds, |w| {
        let cells = w.count[1] * w.count[2];
        let look_up = LookUpScalars {
            start: w.start[0],
            count: w.count[0],
            vocabulary,
            rows: w.count[1],
            columns: w.count[2],
            row_step,
            column_step,
            y_step: columns,
            first: w.start[0] == 0,
        };
        cx.launch(Launch {
            kernel: &LOOK_UP,
            params: [0; 4],
            bindings: w.ranges,
            scalars: look_up.words(),
            groups: cells.div_ceil(THREADS as usize) as u32,
            threads: THREADS,
            work: cells as u64 * 2,
        });
    })
}

/// Appends d_table: each row is the sum of the rows of `d_y` with its index. Rows without an index, and row `padding`,
/// are 0. `d_y` is f32 of N × C elements.
pub fn scatter(
    cx: &Rc<Context>,
    name: &str,
    d_y: &Value,
    ids: &Value,
    padding: Option<u32>,
    d_table: &Value,
    layout: TableLayout,
) -> Result<()> {
    cx.zero(d_table);
    let TableLayout { vocabulary, columns, row_step, column_step } = layout;
    let n = ids.size();
    if n == 0 || columns == 0 {
        return Ok(());
    }
    // A chain stays in one block of rows, so that all its rows of d_y are in one binding.
    let bindable = (cx.profile.binding_limit.saturating_sub(256) / 4) as usize;
    let block = (bindable / columns).clamp(1, n);
    let next = cx.empty([n], DType::I32)?;
    let head = cx.empty([n], DType::I32)?;
    for start in (0..n).step_by(block) {
        let rows = block.min(n - start);
        let bindings = [ids, &next, &head].iter().map(|v| v.part(start, rows)).collect();
        cx.launch(Launch {
            kernel: &LINKS,
            params: [0; 4],
            bindings,
            scalars: LinkScalars { rows, vocabulary, padding: padding.unwrap_or(u32::MAX) }.words(),
            groups: (rows as u32).div_ceil(THREADS),
            threads: THREADS,
            work: (rows * rows) as u64,
        });
        let next = next.sub_range(start, [rows]);
        let head = head.sub_range(start, [rows]);
        let d_y = d_y.sub_range(start * columns, [rows, columns]);
        let binds = [
            Bind::new(&next, &[0, 0], rows),
            Bind::new(&head, &[0, 0], rows),
            Bind::new(&d_y, &[0, 1], (rows - 1) * columns + 1),
            Bind::new(d_table, &[row_step, column_step], 1),
        ];
        for_each_window(cx, name, &[vocabulary, columns], &[], &binds, |w| {
            let cells = rows * w.count[1];
            let scatter = ScatterScalars {
                start: w.start[0],
                count: w.count[0],
                rows,
                columns: w.count[1],
                row_step,
                column_step,
                d_step: columns,
            };
            cx.launch(Launch {
                kernel: &SCATTER,
                params: [0; 4],
                bindings: w.ranges,
                scalars: scatter.words(),
                groups: cells.div_ceil(THREADS as usize) as u32,
                threads: THREADS,
                work: cells as u64 * 4,
            });
        })?;
    }
    Ok(())
}
