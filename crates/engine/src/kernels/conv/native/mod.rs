//! The CPU implementation: `gemm`'s tiles over panels that are gathered from x.
//!
//! A task computes some positions of some channels of y (or some taps of the weight's gradient), from gathered panels,
//! one block of terms at a time. At stride 1, a run of positions along the innermost dimension is contiguous in x and
//! is copied as one. docs/design/measurements.md compares it with oneDNN.

mod gather;

use half::{bf16, f16};
use lowrank_cpu::gemm::{
    CBlock, Epilogue, KernelTable, Left, Partition, Right, Source, Storage, TileProduct, blocking,
    choose_register_kc, current_table, with_workspace,
};
use lowrank_cpu::tasks::Shared;

use crate::dtype::DType;
use crate::kernel::native::NativeLaunch;
use gather::{View, gather};

/// Positions that are gathered together for the weight's gradient: with a panel's taps, 16 KiB.
const STRIP: usize = 128;

pub fn forward<const BIAS: bool>(l: &NativeLaunch) {
    match l.dtype(1) {
        DType::F32 => compute_output::<f32, BIAS>(l),
        DType::F16 => compute_output::<f16, BIAS>(l),
        DType::BF16 => compute_output::<bf16, BIAS>(l),
        DType::I32 | DType::Block(_) => unreachable!("validated by the operation"),
    }
}

/// Multiplies rows of a factor, with leading dimension `step`, by panels of `part` terms, and stores the sums to `c`.
///
/// # Safety
/// As `tile`: `a` covers the rows and terms, `c` the rows and the block's columns.
unsafe fn multiply(
    table: &KernelTable,
    block: &CBlock,
    rows: usize,
    part: usize,
    a: Left,
    panels: &[f32],
    c: Epilogue,
) {
    let panel = table.panel();
    for (j, panels) in (0..block.columns).step_by(panel).zip(panels.chunks(panel * part)) {
        let b = Right { at: panels.as_ptr(), k: panel };
        let width = panel.min(block.columns - j);
        // SAFETY: guaranteed by the caller for these columns.
        unsafe {
            let epilogue = Epilogue { c: c.c.add(j), ..c };
            table.run_tile(&TileProduct { rows, k: part, a, b, width, epilogue, second: None, kept: None });
        }
    }
}

fn make_epilogue(c: *mut f32, row: usize, accumulate: bool) -> Epilogue {
    Epilogue { c, row, alpha: 1.0, bias: std::ptr::null(), accumulate }
}

fn compute_output<T: Storage<Position = *const T> + bytemuck::Pod + Sync, const BIAS: bool>(
    l: &NativeLaunch,
) {
    let view = View::from_launch(l);
    let (x, w) = (l.read::<f32>(0), l.read::<T>(1));
    let bias = BIAS.then(|| l.read::<f32>(2));
    let y = Shared::new(l.write::<f32>(2 + BIAS as usize));
    let (table, k) = (current_table(), view.channels * view.taps());
    let panel = table.panel();
    let images = view.batch * view.groups;
    // With one channel or a few, a narrow task would end before it is worth starting.
    let widest = if view.rows <= table.tiles.rows() && images > l.threads { 32 } else { blocking().panels };
    let sizes = [images, view.rows, view.positions, k];
    let partition = Partition::new(&table.tiles, sizes, choose_register_kc(k), blocking(), widest, l.threads);
    partition.run(|block| {
        let (b, g) = (block.z / view.groups, block.z % view.groups);
        let origin = view.origin(b, g);
        // Other tasks' columns are between the rows of a task's columns.
        let offset_of = |row: usize| b * view.o_batch + g * view.o_group + row * view.o_row + block.column;
        if let Some(bias) = bias {
            for row in block.row..block.row + block.rows {
                // SAFETY: no two tasks share columns of a row.
                unsafe { y.slice(offset_of(row), block.columns) }.fill(bias[g * view.all_rows + row]);
            }
        }
        let columns = (0..block.columns).step_by(panel);
        let runs: Vec<_> =
            columns.map(|j| view.list_runs(block.column + j, panel.min(block.columns - j))).collect();
        let size = runs.len() * panel * block.kc;
        with_workspace(size + table.tiles.rows() * block.kc, |space| {
            let (panels, wide) = space.split_at_mut(size);
            for from in (0..k).step_by(block.kc) {
                let part = block.kc.min(k - from);
                for (panels, runs) in panels.chunks_mut(panel * part).zip(&runs) {
                    gather(x, origin, &view, from, part, runs, panel, panels);
                }
                let accumulate = view.accumulate || BIAS || from > 0;
                block.for_each_tile(&table.tiles, |row, rows| {
                    let at = (g * view.all_rows + row) * view.w_row + from;
                    let w = w[at..][..(rows - 1) * view.w_row + part].as_ptr();
                    let a = if T::IS_F32 {
                        Left { at: w.cast(), row: view.w_row, k: 1 }
                    } else {
                        let source = Source { at: w, row: view.w_row, column: 1 };
                        // SAFETY: w covers the rows and terms, and so does `wide`.
                        unsafe { (T::kernels(table).pack)(source, rows, part, part, wide.as_mut_ptr()) };
                        Left { at: wide.as_ptr(), row: part, k: 1 }
                    };
                    let y = y.at(offset_of(row), (rows - 1) * view.o_row + block.columns);
                    let c = make_epilogue(y, view.o_row, accumulate);
                    // SAFETY: A and the panels hold the block's terms; y covers the rows, and these columns belong to
                    // this task.
                    unsafe { multiply(table, &block, rows, part, a, panels, c) };
                });
            }
        });
    });
}

pub fn weight(l: &NativeLaunch) {
    let view = View::from_launch(l);
    let (x, d) = (l.read::<f32>(0), l.read::<f32>(1));
    let d_weight = Shared::new(l.write::<f32>(2));
    let table = current_table();
    let panel = table.panel();
    let sizes = [view.groups, view.rows, view.channels * view.taps(), view.positions];
    let part = choose_register_kc(view.positions);
    let blocking = blocking();
    Partition::new(&table.tiles, sizes, part, blocking, blocking.panels, l.threads).run(|block| {
        let g = block.z;
        let parts = (0..view.positions).step_by(block.kc);
        let terms = (0..view.batch).flat_map(|b| parts.clone().map(move |from| (b, from)));
        let size = block.columns.next_multiple_of(panel) * block.kc;
        with_workspace(size + panel * STRIP, |space| {
            let (panels, strip) = space.split_at_mut(size);
            for (b, from) in terms {
                let part = block.kc.min(view.positions - from);
                for at in (0..part).step_by(STRIP) {
                    let count = STRIP.min(part - at);
                    let runs = view.list_runs(from + at, count);
                    let columns = (0..block.columns).step_by(panel);
                    for (j, panels) in columns.zip(panels.chunks_mut(panel * part)) {
                        let width = panel.min(block.columns - j);
                        let tap = block.column + j;
                        gather(x, view.origin(b, g), &view, tap, width, &runs, STRIP, strip);
                        let to = panels[at * panel..][..count * panel].as_mut_ptr();
                        // The columns of a panel are taps here, so the strip is transposed.
                        let transposed = Source { at: strip.as_ptr(), row: 1, column: STRIP };
                        // SAFETY: a strip has a row of positions for each tap, and the panel has `count` rows.
                        unsafe { (table.f32.pack)(transposed, count, width, panel, to) };
                    }
                }
                let accumulate = view.accumulate || b > 0 || from > 0;
                block.for_each_tile(&table.tiles, |row, rows| {
                    let at = b * view.o_batch + g * view.o_group + row * view.o_row + from;
                    let d = &d[at..][..(rows - 1) * view.o_row + part];
                    let a = Left { at: d.as_ptr(), row: view.o_row, k: 1 };
                    let at = (g * view.all_rows + row) * view.w_row + block.column;
                    let c = d_weight.at(at, (rows - 1) * view.w_row + block.columns);
                    let c = make_epilogue(c, view.w_row, accumulate);
                    // SAFETY: A and the panels hold the block's terms; the gradient covers the rows, and these columns
                    // belong to this task.
                    unsafe { multiply(table, &block, rows, part, a, panels, c) };
                });
            }
        });
    });
}
