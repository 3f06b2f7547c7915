//! Splits launches into windows, so that no binding exceeds a device's limit.
//!
//! A plan describes its work as a box of indices, and each binding as an affine footprint over that box. The box is
//! halved until every footprint fits; windows come in ascending order of every index, so that a reduction may
//! accumulate over them.

use std::rc::Rc;

use smallvec::SmallVec;

use crate::context::{Context, Value};
use crate::error::Result;
use crate::fail;
use crate::kernel::Range;

pub type Indices = SmallVec<[usize; 6]>;

/// The elements of a binding as an affine function of the box's indices.
#[derive(Clone)]
pub struct Bind<'a> {
    value: &'a Value,
    /// Elements per step of each index; 0 if the binding does not depend on it.
    strides: Indices,
    /// Elements that are used at one point of the box.
    cell: usize,
    /// The first point's offset from the value's start, in elements.
    offset: isize,
}

impl<'a> Bind<'a> {
    pub fn new(value: &'a Value, strides: &[usize], cell: usize) -> Self {
        Bind { value, strides: SmallVec::from_slice(strides), cell, offset: 0 }
    }

    /// Moved by `offset` elements. Elements outside of the value are neither bound nor read.
    pub fn shift(self, offset: isize) -> Self {
        Bind { offset, ..self }
    }

    /// All of `value`, at every point of the box.
    pub fn whole(value: &'a Value) -> Self {
        Bind { value, strides: Indices::new(), cell: value.size(), offset: 0 }
    }

    fn extent(&self, count: &[usize]) -> usize {
        self.strides.iter().zip(count).map(|(s, n)| s * (n - 1)).sum::<usize>() + self.cell
    }

    fn bytes(&self, count: &[usize]) -> u64 {
        let (dtype, extent) = (self.value.dtype, self.extent(count));
        dtype.byte_size(extent.next_multiple_of(dtype.unit())) as u64
    }

    fn range(&self, start: &[usize], count: &[usize]) -> Range {
        let first: usize = self.strides.iter().zip(start).map(|(s, i)| s * i).sum();
        // A first window may start before the value does, and a last one end after it.
        let within = |at: usize| at.saturating_add_signed(self.offset).min(self.value.size());
        let (first, end) = (within(first), within(first + self.extent(count)));
        // A window entirely outside still binds one element.
        let first = first.min(self.value.size().saturating_sub(1));
        self.value.part(first, end.max(first + 1).min(self.value.size()) - first)
    }
}

/// One window of the box, with the ranges to bind.
pub struct Window {
    pub start: Indices,
    pub count: Indices,
    pub ranges: SmallVec<[Range; 6]>,
}

/// Calls `launch` for every window of the box `space`. Dimension d is split at multiples of `align[d]` (1 if it is
/// shorter).
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` if a binding does not fit at a single point of the box.
pub fn for_each_window(
    cx: &Rc<Context>,
    name: &str,
    space: &[usize],
    align: &[usize],
    binds: &[Bind],
    mut launch: impl FnMut(Window),
) -> Result<()> {
    split(cx, name, space, align, binds, &mut launch)
}

/// Not generic, so that it is compiled once and not for each kernel.
fn split(
    cx: &Rc<Context>,
    name: &str,
    space: &[usize],
    align: &[usize],
    binds: &[Bind],
    launch: &mut dyn FnMut(Window),
) -> Result<()> {
    if space.contains(&0) {
        return Ok(());
    }
    // The device aligns a range's start down, by less than this.
    let limit = cx.profile.binding_limit.saturating_sub(256).max(256);
    if binds.iter().all(|b| b.bytes(space) <= limit) {
        let (start, count) = (Indices::from_elem(0, space.len()), Indices::from_slice(space));
        let ranges = binds.iter().map(|b| b.range(&start, &count)).collect();
        launch(Window { start, count, ranges });
        return Ok(());
    }
    let mut todo: Vec<(Indices, Indices)> =
        vec![(SmallVec::from_elem(0, space.len()), SmallVec::from_slice(space))];
    while let Some((start, count)) = todo.pop() {
        let largest = binds.iter().map(|b| b.bytes(&count)).max().unwrap_or(0);
        if largest <= limit {
            let ranges = binds.iter().map(|b| b.range(&start, &count)).collect();
            launch(Window { start, count, ranges });
            continue;
        }
        let halved = (0..count.len())
            .filter_map(|d| {
                let align = align.get(d).copied().unwrap_or(1);
                // A dimension of units is split at their ends only, and some dimensions are not split at all.
                let of_d = binds.iter().filter(|b| b.strides.get(d) == Some(&1));
                let unit = of_d.map(|b| b.value.dtype.unit()).max().unwrap_or(1);
                let fixed =
                    |b: &Bind| b.strides.get(d).is_some_and(|s| *s > 0) && !b.value.dtype.is_divisible();
                let half = (count[d].div_ceil(2)).div_ceil(align) * align;
                let half = if half < count[d] { half } else { count[d] / 2 };
                let half = half / unit * unit;
                if half == 0 || binds.iter().any(fixed) {
                    return None;
                }
                let mut first = count.clone();
                first[d] = half;
                // Counts the bytes above the limit, so that a split that does not help is not chosen.
                let over: u64 = binds.iter().map(|b| b.bytes(&first).saturating_sub(limit)).sum();
                Some((over, d, half))
            })
            .min_by_key(|(over, d, _)| (*over, *d));
        let Some((_, d, half)) = halved else {
            fail!(
                OutOfMemory,
                "{name}: needs {largest} bytes in one binding, {} binds at most {}",
                cx.profile.name,
                cx.profile.binding_limit
            );
        };
        let (mut second_start, mut second_count, mut first_count) =
            (start.clone(), count.clone(), count.clone());
        second_start[d] += half;
        second_count[d] -= half;
        first_count[d] = half;
        todo.push((second_start, second_count));
        todo.push((start, first_count));
    }
    Ok(())
}

/// `for_each_window` for work over one outermost dimension of `rows`: each of `rowwise` is divided evenly among the rows,
/// each of `whole` is bound whole, in that order.
pub fn for_each_row_window(
    cx: &Rc<Context>,
    name: &str,
    rows: usize,
    rowwise: &[&Value],
    whole: &[&Value],
    launch: impl FnMut(Window),
) -> Result<()> {
    let binds: SmallVec<[Bind; 6]> = rowwise
        .iter()
        .map(|v| Bind::new(v, &[v.size() / rows.max(1)], v.size() / rows.max(1)))
        .chain(whole.iter().map(|v| Bind::whole(v)))
        .collect();
    for_each_window(cx, name, &[rows], &[1], &binds, launch)
}
