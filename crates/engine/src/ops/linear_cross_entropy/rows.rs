//! The labelled rows, if the host knows the labels: other rows are left out of the products.

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernels::embedding::{Table, take};
use crate::shape::Shape;

/// The most runs of rows that are copied one by one; more are gathered by index.
const RUNS: usize = 16;

/// The selected rows among N.
pub enum Selection {
    /// All: the host does not know the labels, or each row has one.
    All,
    /// Runs of rows (first row, number).
    Runs(Vec<(usize, usize)>),
    /// `indices` i32 [n]: the selected rows. `places` i32 [N]: each row's position among them, or n.
    Scattered { indices: Value, places: Value },
}

/// The selection of labelled rows.
pub struct Labelled {
    rows: Selection,
    /// The number of selected rows.
    pub count: usize,
    /// Their labels, i32 [count].
    pub targets: Value,
}

impl Labelled {
    /// Selects the rows whose target in `targets` i32 [..] is not `ignore`.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn of(cx: &Rc<Context>, targets: &Value, ignore: i32) -> Result<Labelled> {
        let all = targets.size();
        let whole = || Labelled { rows: Selection::All, count: all, targets: targets.reshape([all]) };
        let Some(host) = targets.host() else { return Ok(whole()) };
        let indices: Vec<i32> = (0..all).filter(|r| host[*r] != ignore).map(|r| r as i32).collect();
        let count = indices.len();
        if count == all {
            return Ok(whole());
        }
        let kept: Vec<i32> = indices.iter().map(|r| host[*r as usize]).collect();
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for row in indices.iter().map(|r| *r as usize) {
            match runs.last_mut() {
                Some((first, n)) if *first + *n == row => *n += 1,
                _ => runs.push((row, 1)),
            }
        }
        let upload =
            |values: &[i32]| cx.upload([values.len()], DType::I32, bytemuck::cast_slice(values).to_vec());
        let rows = if runs.len() <= RUNS {
            Selection::Runs(runs)
        } else {
            let mut places = vec![count as i32; all];
            indices.iter().enumerate().for_each(|(n, row)| places[*row as usize] = n as i32);
            Selection::Scattered { indices: upload(&indices)?, places: upload(&places)? }
        };
        Ok(Labelled { rows, count, targets: upload(&kept)? })
    }

    pub fn is_all(&self) -> bool {
        matches!(self.rows, Selection::All)
    }

    /// Creates a value of [count, columns] for `spread`.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn empty(&self, cx: &Rc<Context>, columns: usize) -> Result<Value> {
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
            Selection::Runs(runs) => each_run(runs, |first, at, n| {
                cx.copy(&x.sub_range(first * c, [n, c]), &y.sub_range(at * c, [n, c]));
            }),
            Selection::Scattered { indices, .. } => {
                take(cx, "linearCrossEntropy", x, table(x.size() / c, c), indices, &y)?;
            }
            Selection::All => {}
        }
        Ok(y)
    }

    /// Appends y [N, C] = the rows of x (created by `empty`) at their positions, and zeros elsewhere.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn spread(&self, cx: &Rc<Context>, x: &Value, y: &Value, c: usize) -> Result<()> {
        match &self.rows {
            Selection::All => cx.copy(x, y),
            Selection::Runs(runs) => {
                cx.zero(y);
                each_run(runs, |first, at, n| {
                    cx.copy(&x.sub_range(at * c, [n, c]), &y.sub_range(first * c, [n, c]));
                });
            }
            Selection::Scattered { places, .. } => {
                take(cx, "linearCrossEntropy", x, table(self.count + 1, c), places, y)?;
            }
        }
        Ok(())
    }
}

fn table(rows: usize, columns: usize) -> Table {
    Table::new(&Shape::new(&[rows, columns]), false)
}

/// Calls `f` with each run's first row, its position among the selected rows, and its length.
fn each_run(runs: &[(usize, usize)], mut f: impl FnMut(usize, usize, usize)) {
    let mut at = 0;
    for (first, n) in runs {
        f(*first, at, *n);
        at += n;
    }
}
