//! The labelled rows, if the host knows the labels: other rows are left out of the products.

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernels::embedding::{TableLayout, look_up};
use crate::shape::Shape;

/// The most runs of rows that are copied one by one; more are gathered by index.
const MAX_RUNS: usize = 16;

/// The selected rows among N.
pub enum Selection {
    /// All: the host does not know the labels, or each row has one.
    All,
    /// Runs of rows (first row, number).
    Runs(Vec<(usize, usize)>),
    /// `indices` i32 [n]: the selected rows. `positions` i32 [N]: each row's position among them, or n.
    Scattered { indices: Value, positions: Value },
}

/// The selection of labelled rows.
pub struct LabelledRows {
    rows: Selection,
    /// The number of selected rows.
    pub count: usize,
    /// Their labels, i32 [count].
    pub targets: Value,
}

impl LabelledRows {
    /// Selects the rows whose target in `targets` i32 [..] is not `ignore`.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn select(cx: &Rc<Context>, targets: &Value, ignore: i32) -> Result<LabelledRows> {
        let row_count = targets.size();
        let select_all =
            || LabelledRows { rows: Selection::All, count: row_count, targets: targets.reshape([row_count]) };
        let Some(host) = targets.host() else { return Ok(select_all()) };
        let indices: Vec<i32> = (0..row_count).filter(|r| host[*r] != ignore).map(|r| r as i32).collect();
        let count = indices.len();
        if count == row_count {
            return Ok(select_all());
        }
        let labels: Vec<i32> = indices.iter().map(|r| host[*r as usize]).collect();
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for row in indices.iter().map(|r| *r as usize) {
            match runs.last_mut() {
                Some((first, n)) if *first + *n == row => *n += 1,
                _ => runs.push((row, 1)),
            }
        }
        let upload =
            |values: &[i32]| cx.upload([values.len()], DType::I32, bytemuck::cast_slice(values).to_vec());
        let rows = if runs.len() <= MAX_RUNS {
            Selection::Runs(runs)
        } else {
            let mut positions = vec![count as i32; row_count];
            indices.iter().enumerate().for_each(|(n, row)| positions[*row as usize] = n as i32);
            Selection::Scattered { indices: upload(&indices)?, positions: upload(&positions)? }
        };
        Ok(LabelledRows { rows, count, targets: upload(&labels)? })
    }

    pub fn is_all(&self) -> bool {
        matches!(self.rows, Selection::All)
    }

    /// Creates a value of [count, columns] for `spread`.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn allocate(&self, cx: &Rc<Context>, columns: usize) -> Result<Value> {
        // One more row, of zeros, for the rows that are not selected.
        let extra = matches!(self.rows, Selection::Scattered { .. }) as usize;
        let value = cx.empty([self.count + extra, columns], DType::F32)?;
        if extra == 1 {
            cx.zero(&value.sub_range(self.count * columns, [columns]));
        }
        Ok(value)
    }

    /// Returns the selected rows of x [N, C]: [count, C].
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn gather(&self, cx: &Rc<Context>, x: &Value, c: usize) -> Result<Value> {
        if self.is_all() {
            return Ok(x.clone());
        }
        let y = cx.empty([self.count, c], DType::F32)?;
        match &self.rows {
            Selection::Runs(runs) => for_each_run(runs, |first, at, n| {
                cx.copy(&x.sub_range(first * c, [n, c]), &y.sub_range(at * c, [n, c]));
            }),
            Selection::Scattered { indices, .. } => {
                look_up(cx, "linearCrossEntropy", x, make_layout(x.size() / c, c), indices, &y)?;
            }
            Selection::All => {}
        }
        Ok(y)
    }

    /// Appends y [N, C] = the rows of x (created by `empty`) at their positions, and zeros elsewhere.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn scatter(&self, cx: &Rc<Context>, x: &Value, y: &Value, c: usize) -> Result<()> {
        match &self.rows {
            Selection::All => cx.copy(x, y),
            Selection::Runs(runs) => {
                cx.zero(y);
                for_each_run(runs, |first, at, n| {
                    cx.copy(&x.sub_range(at * c, [n, c]), &y.sub_range(first * c, [n, c]));
                });
            }
            Selection::Scattered { positions, .. } => {
                look_up(cx, "linearCrossEntropy", x, make_layout(self.count + 1, c), positions, y)?;
            }
        }
        Ok(())
    }
}

fn make_layout(rows: usize, columns: usize) -> TableLayout {
    TableLayout::new(&Shape::new(&[rows, columns]), false)
}

/// Calls `f` with each run's first row, its position among the selected rows, and its length.
fn for_each_run(runs: &[(usize, usize)], mut f: impl FnMut(usize, usize, usize)) {
    let mut at = 0;
    for (first, n) in runs {
        f(*first, at, *n);
        at += n;
    }
}
