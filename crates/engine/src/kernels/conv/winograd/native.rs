//! The tasks: panels of tiles by slivers of rows.

use half::{bf16, f16};
use lowrank_cpu::gemm::{
    Epilogue, KernelTable, LINE, Left, Right, Source, Storage, TileProduct, current_table, with_workspace,
};
use lowrank_cpu::tasks::{Shared, each_task};

use super::tiles::{Run, count_line_buffer, transform_input, transform_output};
use super::weight::{WeightLayout, transform};
use super::{ELEMENTS, OUT, Scalars, TAPS, WeightScalars};
use crate::dtype::DType;
use crate::kernel::native::NativeLaunch;

/// Elements of V in a task's workspace, approximately: half of a usual L2 of 1 MiB. A single panel may have more.
const MAX_V_ELEMENTS: usize = 128 * 1024;
/// Tasks per thread over which panels are distributed.
const TASKS: usize = 4;
/// Fewest slivers per task where rows are split: each split computes V again.
const SLIVERS: usize = 4;
/// Channels whose taps are widened together.
const WIDENED: usize = 64;

pub fn run_transform_weight(l: &NativeLaunch) {
    match l.dtype(0) {
        DType::F32 => {
            transform_weight::<f32>(current_table(), l.threads, &l.scalars(), l.read(0), l.write(1))
        }
        DType::F16 => {
            transform_weight::<f16>(current_table(), l.threads, &l.scalars(), l.read(0), l.write(1))
        }
        DType::BF16 => {
            transform_weight::<bf16>(current_table(), l.threads, &l.scalars(), l.read(0), l.write(1))
        }
        DType::I32 | DType::Block(_) => unreachable!("validated by the operation"),
    }
}

pub fn forward<const BIAS: bool>(l: &NativeLaunch) {
    let bias = BIAS.then(|| l.read(2));
    correlate(
        current_table(),
        l.threads,
        &l.scalars(),
        l.read(0),
        l.read(1),
        bias,
        l.write(2 + BIAS as usize),
    );
}

/// Computes U of the weight [groups · rows, channels, 3, 3].
pub fn transform_weight<T: Storage<Position = *const T> + Sync>(
    table: &'static KernelTable,
    threads: usize,
    s: &WeightScalars,
    w: &[T],
    u: &mut [f32],
) {
    let &WeightScalars { groups, rows, channels, turn_h, turn_w } = s;
    let w_row = channels * TAPS * TAPS;
    assert!(groups * rows * w_row <= w.len() && ELEMENTS * groups * rows * channels <= u.len());
    let (layout, u) = (WeightLayout::new(table, rows, channels), Shared::new(u));
    let transform = transform(table.exact);
    each_task(threads, groups * layout.slivers, |task| {
        let (group, (row, rows)) = (task / layout.slivers, layout.sliver_rows(task % layout.slivers));
        with_workspace(rows * WIDENED * TAPS * TAPS, |wide| {
            for (from, len) in layout.blocks() {
                let start = layout.offset(group, from, len, row);
                let step = len * rows;
                for at in (0..len).step_by(WIDENED) {
                    let count = WIDENED.min(len - at);
                    let w = w[(group * layout.rows + row) * w_row + (from + at) * TAPS * TAPS..].as_ptr();
                    let terms = count * TAPS * TAPS;
                    let source = Source { at: w, row: w_row, column: 1 };
                    // SAFETY: w covers the rows and terms, and so does `wide`.
                    unsafe { (T::kernels(table).pack)(source, rows, terms, terms, wide.as_mut_ptr()) };
                    let to = u.at(start, ELEMENTS * step).wrapping_add(at * rows);
                    // SAFETY: as above; each sliver of U belongs to one task, and the processor has the kernels'
                    // instructions.
                    unsafe { transform(wide.as_ptr(), terms, rows, count, [turn_h, turn_w], to, step) };
                }
            }
        });
    });
}

/// The partition into tasks; no element's sum depends on it.
struct TaskPartition {
    /// Panels and slivers per task.
    panels: usize,
    slivers: usize,
    /// Tasks per group.
    column_tasks: usize,
    row_tasks: usize,
}

impl TaskPartition {
    fn new(table: &KernelTable, threads: usize, s: &Scalars, layout: &WeightLayout) -> TaskPartition {
        let panel = table.panel();
        let all = s.count_all_tiles().div_ceil(panel);
        let max = (MAX_V_ELEMENTS / (ELEMENTS * layout.part * panel)).max(1);
        // Narrower tasks if threads would have few.
        let panels = max.min((s.groups * all).div_ceil(TASKS * threads)).min(all);
        let column_tasks = all.div_ceil(panels);
        let outer = s.groups * column_tasks;
        let is_balanced =
            |cuts: &usize| outer * cuts >= 2 * TASKS * threads || (outer * cuts).is_multiple_of(threads);
        let max = (layout.slivers / SLIVERS).max(1);
        let cuts = (1..=max).find(is_balanced).unwrap_or(max);
        let slivers = layout.slivers.div_ceil(cuts);
        TaskPartition { panels, slivers, column_tasks, row_tasks: layout.slivers.div_ceil(slivers) }
    }
}

/// Computes y = W ⋆ x + bias from the U of `transform_weight`.
pub fn correlate(
    table: &'static KernelTable,
    threads: usize,
    s: &Scalars,
    x: &[f32],
    u: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let layout = WeightLayout::new(table, s.rows, s.channels);
    let partition = TaskPartition::new(table, threads, s, &layout);
    let y = Shared::new(y);
    let tasks = s.groups * partition.column_tasks * partition.row_tasks;
    each_task(threads, tasks, |task| {
        let (outer, part) = (task / partition.row_tasks, task % partition.row_tasks * partition.slivers);
        let (group, column) =
            (outer / partition.column_tasks, outer % partition.column_tasks * partition.panels);
        let slivers = part..(part + partition.slivers).min(layout.slivers);
        Task { table, s, layout, group, x, u, bias, y: &y }.run(column, partition.panels, slivers);
    });
}

struct Task<'a> {
    table: &'static KernelTable,
    s: &'a Scalars,
    layout: WeightLayout,
    group: usize,
    x: &'a [f32],
    u: &'a [f32],
    bias: Option<&'a [f32]>,
    y: &'a Shared<f32>,
}

impl Task<'_> {
    /// Computes `panels` panels from the `first` on, for some slivers.
    fn run(&self, first: usize, panels: usize, slivers: std::ops::Range<usize>) {
        let Task { table, s, layout, group, .. } = *self;
        let panel = table.panel();
        let tiles = s.count_all_tiles();
        let starts = (first..first + panels).map(|p| p * panel).filter(|start| *start < tiles);
        let panels: Vec<Vec<Run>> =
            starts.map(|start| s.list_runs(start, panel.min(tiles - start))).collect();
        // Padded by a cache line, since a stride of a power of two between elements of the transform would alias in L1.
        let step = layout.part * panel + LINE;
        let sums_size = ELEMENTS * table.tiles.rows() * panel;
        let longest = panels.iter().map(|runs| count_line_buffer(runs, table.lanes)).max().unwrap_or(0);
        let lines_size = longest.max(table.tiles.rows() * OUT * OUT * panel).next_multiple_of(LINE);
        let (transform_input, transform_output) =
            (transform_input(table.exact), transform_output(table.exact));
        with_workspace(lines_size + sums_size + panels.len() * ELEMENTS * step, |space| {
            let (lines, space) = space.split_at_mut(lines_size);
            let (sums, v) = space.split_at_mut(sums_size);
            let lines = lines.as_mut_ptr();
            for (from, len) in layout.blocks() {
                for (runs, v) in panels.iter().zip(v.chunks_mut(ELEMENTS * step)) {
                    // SAFETY: the processor has the kernels' instructions; the workspace has the computed size.
                    unsafe {
                        transform_input(
                            s,
                            self.x,
                            group,
                            (from, len),
                            runs,
                            panel,
                            lines,
                            v.as_mut_ptr(),
                            step,
                        )
                    };
                }
                for (row, rows) in slivers.clone().map(|sliver| layout.sliver_rows(sliver)) {
                    let u = &self.u[layout.offset(group, from, len, row)..][..ELEMENTS * len * rows];
                    let bias = match self.bias.filter(|_| from == 0) {
                        Some(bias) => bias[group * s.rows + row..][..rows].as_ptr(),
                        None => std::ptr::null(),
                    };
                    for (runs, v) in panels.iter().zip(v.chunks(ELEMENTS * step)) {
                        let width = runs.iter().map(|run| run.count).sum();
                        let elements = u.chunks(len * rows).zip(v.chunks(step));
                        for ((u, v), c) in elements.zip(sums.chunks_mut(rows * panel)) {
                            let a = Left { at: u.as_ptr(), row: 1, k: rows };
                            let b = Right { at: v.as_ptr(), k: panel };
                            let c = c.as_mut_ptr();
                            let epilogue = Epilogue {
                                c,
                                row: panel,
                                alpha: 1.0,
                                bias: std::ptr::null(),
                                accumulate: false,
                            };
                            let tile =
                                TileProduct { rows, k: len, a, b, width, epilogue, second: None, kept: None };
                            // SAFETY: U and V hold the block's channels of the rows and tiles.
                            unsafe { table.run_tile(&tile) };
                        }
                        let sums = sums.as_ptr();
                        // SAFETY: as above; these tiles of these rows of y belong to this task.
                        unsafe {
                            transform_output(
                                s,
                                sums,
                                group,
                                (row, rows),
                                runs,
                                panel,
                                bias,
                                from > 0,
                                lines,
                                self.y,
                            );
                        }
                    }
                }
            }
        });
    }
}
