//! y[i_order(0), i_order(1), …] = x[i_0, i_1, …]: the dimensions in another order.
//!
//! Shapes: y's dimension d is x's dimension order[d]. Backward: the inverse order on d_out. Saved: nothing. A
//! transposition swaps two dimensions.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::error::Result;
use crate::fail;
use crate::kernels::copy::{Side, copy, with_f32_copies};
use crate::launch::Indices;
use crate::op::{Backward, Gradient, Gradients, Op, run1};
use crate::shape::Shape;

/// Dimensions in the order `order`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permute {
    pub order: Indices,
}

impl Permute {
    pub fn new(order: &[usize]) -> Permute {
        Permute { order: Indices::from_slice(order) }
    }

    /// Swaps dimensions `a` and `b`, which must be below `rank`.
    pub fn transpose(rank: usize, a: usize, b: usize) -> Permute {
        let mut order: Indices = (0..rank).collect();
        order.swap(a, b);
        Permute { order }
    }

    fn inverse(&self) -> Permute {
        let mut order = self.order.clone();
        for (d, from) in self.order.iter().enumerate() {
            order[*from] = d;
        }
        Permute { order }
    }

    /// Whether only dimensions of size 1 move, so that the elements keep their order.
    fn keeps_order(&self, shape: &Shape) -> bool {
        self.order.iter().filter(|d| shape[**d] != 1).is_sorted()
    }

    fn shape(&self, x: &Shape) -> Shape {
        Shape::new(&self.order.iter().map(|d| x[*d]).collect::<Indices>())
    }
}

impl Op for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let x = inputs[0];
        let mut seen = self.order.clone();
        seen.sort_unstable();
        if !seen.iter().copied().eq(0..x.shape.rank()) {
            fail!(
                ShapeMismatch,
                "permute: {:?} does not order the dimensions of {}",
                &self.order[..],
                x.shape
            );
        }
        Ok(vec![Spec { shape: self.shape(&x.shape), dtype: x.dtype }])
    }

    fn alias(&self, inputs: &[&Value]) -> Option<Vec<Value>> {
        let x = inputs[0];
        self.keeps_order(&x.shape).then(|| vec![x.reshape(self.shape(&x.shape))])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        with_f32_copies(cx, inputs, &outputs[0], |inputs, y| {
            let strides = inputs[0].shape.strides();
            let strides = self.order.iter().map(|d| strides[*d]).collect();
            let x = Side { value: inputs[0], start: 0, strides };
            copy(cx, self.name(), &y.shape, &x, &Side::whole(y))
        })
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        Ok(vec![Some(run1(cx, &self.inverse(), &[d])?)])
    }
}
