//! Shapes of contiguous, row-major tensors.

use smallvec::SmallVec;
use std::fmt;
use std::ops::Deref;

use crate::error::Result;
use crate::fail;

/// The sizes of each dimension, outermost first. A scalar has none.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shape(SmallVec<[usize; 6]>);

impl Shape {
    pub fn new(dims: &[usize]) -> Self {
        Shape(SmallVec::from_slice(dims))
    }

    /// Number of elements; 1 for a scalar.
    pub fn size(&self) -> usize {
        self.0.iter().product()
    }

    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Size of the last dimension, 1 for a scalar.
    pub fn last(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }

    /// Elements before the last dimension: the number of rows.
    pub fn rows(&self) -> usize {
        self.0.split_last().map_or(1, |(_, outer)| outer.iter().product())
    }

    /// Element strides of the contiguous layout.
    pub fn strides(&self) -> SmallVec<[usize; 6]> {
        let mut strides: SmallVec<[usize; 6]> = SmallVec::from_elem(1, self.rank());
        for d in (0..self.rank().saturating_sub(1)).rev() {
            strides[d] = strides[d + 1] * self.0[d + 1];
        }
        strides
    }

    /// The common shape of two operands, NumPy's rule.
    ///
    /// # Errors
    /// `ERR_SHAPE_MISMATCH` naming `op` and both shapes.
    pub fn broadcast(op: &str, a: &Shape, b: &Shape) -> Result<Shape> {
        let rank = a.rank().max(b.rank());
        let mut dims: SmallVec<[usize; 6]> = SmallVec::from_elem(1, rank);
        for d in 0..rank {
            let of = |s: &Shape| (d + s.rank()).checked_sub(rank).map_or(1, |i| s.0[i]);
            dims[d] = match (of(a), of(b)) {
                (x, y) if x == y => x,
                (1, y) => y,
                (x, 1) => x,
                _ => fail!(ShapeMismatch, "{op}: shapes {a} and {b} do not broadcast"),
            };
        }
        Ok(Shape(dims))
    }
}

/// Extends a list of one to three entries to three, with `fill` in front.
pub fn pad_to_three<T: Copy>(list: &[T], fill: T) -> [T; 3] {
    std::array::from_fn(|d| (d + list.len()).checked_sub(3).map_or(fill, |i| list[i]))
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        Shape::new(dims)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Shape::new(&dims)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[")?;
        for (i, d) in self.0.iter().enumerate() {
            write!(f, "{}{d}", if i > 0 { ", " } else { "" })?;
        }
        write!(f, "]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
