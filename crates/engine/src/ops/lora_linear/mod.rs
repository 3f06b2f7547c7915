//! y = x·Wᵀ + b, and y[rows, outs] += s·drop(x)[rows]·Aᵀ·Bᵀ for each low-rank path.
//!
//! Shapes: x [.., I], W [O, I] ([I, O] with `fan_in_fan_out`), b [O]; y [.., O]. A path has A [G·R, I] and B [G·V, R]
//! for its G windows of V outputs (by default one window of all O) and uses the rows of its row_ranges (by default
//! all). It also outputs h = drop(x)[rows]·Aᵀ [rows, G·R] for backward. Its product for window g is h[:, g]·B[g]ᵀ, so
//! that a merged layer (loralib's MergedLinear) needs one product by A and never stores B·A. W may be in a half type.
//! Backward, with Z = s·d·B: d_x = d·W + Σ drop'(Z·A), d_A = Zᵀ·drop(x), d_B = s·dᵀ·h; d_W = dᵀ·x only if W trains.
//! Saved: h, and the inputs that the wanted gradients read; drop(x) is recomputed.
//!
//! The low-rank product is added to the finished dense one, so that B = 0 gives the bits of `linear`. For the first
//! path over all rows and outputs both are one launch: a product whose sum has two segments, with the bits of two
//! products (in backward only without dropout). Cost of a path in addition to `linear`: 2·T·R·(I + O) forward, twice
//! that backward (LoRAFusion, arXiv 2510.00206).
//!
//! Tried on the processor, for a step of SmolLM2 with 512 tokens, R = 16, two cores of a Xeon (Granite Rapids): Z, d_A
//! and d_B in one pass over d, which loads each element once. With AVX2 the three took 62 to 68 ms instead of 83, but
//! d·W took as much longer, since less of d was left in a cache. The step was 0 to 2% slower with AVX2, 0 to 1% faster
//! with AVX-512, and 2 to 3% faster in bf16 with AMX. With d_A and d_B in one pass after d·W: 1.5% slower with AVX2,
//! equal with AVX-512, 1% faster with AMX.

mod path;
#[cfg(test)]
pub(in crate::ops) mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

pub use path::{Path, RowRange};

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::dropout::check_probability;
use crate::kernels::gemm::Precision;
use crate::op::{Backward, BackwardReads, Gradient, Gradients, Op};
use crate::ops::linear::{Linear, append_d_bias, append_d_weight, append_d_x, append_dense, infer_shape};
use path::SizedPath;

/// A dense layer and its low-rank paths, over [x, weight, A0, B0, A1, B1, ..] and optionally a bias.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoraLinear {
    /// W is stored as [I, O].
    pub fan_in_fan_out: bool,
    /// The precision of the products by W; low-rank products are exact.
    pub precision: Precision,
    pub paths: Vec<Path>,
}

/// The most paths that backward's bit masks have room for.
pub const MOST_PATHS: usize = 14;

const X: usize = 0;
const WEIGHT: usize = 1;

/// The indices of A and B of path `i` among the inputs.
const fn a_index(i: usize) -> usize {
    2 + 2 * i
}
const fn b_index(i: usize) -> usize {
    3 + 2 * i
}

impl Op for LoraLinear {
    fn name(&self) -> &'static str {
        "lora_linear"
    }

    fn in_blocks(&self) -> u32 {
        1 << WEIGHT
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        if self.paths.len() > MOST_PATHS {
            fail!(Option, "lora_linear: {} paths are more than {MOST_PATHS}", self.paths.len());
        }
        let (x, weight) = (inputs[X], inputs[WEIGHT]);
        let y = infer_shape(self.name(), self.fan_in_fan_out, x, weight, inputs.get(self.bias()).copied())?;
        let mut outputs = vec![Spec::f32(y.clone())];
        for (i, path) in self.paths.iter().enumerate() {
            check_probability(self.name(), path.dropout.p)?;
            outputs.push(path.infer_h_spec(x, inputs[a_index(i)], inputs[b_index(i)], &y)?);
        }
        Ok(outputs)
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let (x, y, h) = (inputs[X], &outputs[0], &outputs[1..]);
        for ((i, sized), h) in self.size_paths(x.shape.rows()).zip(h) {
            sized.project(cx, x, inputs[a_index(i)], h)?;
        }
        let first = self.paths.first().and_then(|path| path.expansion_segment(&h[0], inputs[b_index(0)]));
        let bias = inputs.get(self.bias()).copied();
        append_dense(cx, self.base(), x, inputs[WEIGHT], bias, first, y)?;
        for (i, sized) in self.size_paths(x.shape.rows()).skip(first.is_some() as usize) {
            sized.expand(cx, &h[i], inputs[b_index(i)], y)?;
        }
        Ok(())
    }

    /// Recomputes only h: the dense product is the expensive part.
    fn forward_rest(&self, cx: &Rc<Context>, inputs: &[&Value]) -> Option<Result<Vec<Value>>> {
        let x = inputs[X];
        let project = |(i, sized): (usize, SizedPath)| {
            let h = cx.empty([sized.rows(), inputs[a_index(i)].shape[0]], DType::F32)?;
            sized.project(cx, x, inputs[a_index(i)], &h)?;
            Ok(h)
        };
        Some(self.size_paths(x.shape.rows()).map(project).collect())
    }

    fn gradient(&self) -> Gradient {
        let paths = self.paths.len();
        Gradient::reads((1 << a_index(paths)) - 1, ((1 << paths) - 1) << 1)
    }

    fn reads(&self, needs: &[bool]) -> BackwardReads {
        let paths = 0..self.paths.len();
        let any_a = paths.clone().any(|i| needs[a_index(i)]);
        let mut inputs = (needs[WEIGHT] || any_a) as u32 | (needs[X] as u32) << WEIGHT;
        let mut outputs = 0;
        for i in paths {
            inputs |=
                (needs[X] as u32) << a_index(i) | ((needs[X] || needs[a_index(i)]) as u32) << b_index(i);
            outputs |= (needs[b_index(i)] as u32) << (1 + i);
        }
        BackwardReads { inputs, outputs }
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let (needs, into) = (&pass.needs, &pass.into);
        let mut d_inputs = vec![None; needs.len()];
        let d = &pass.d_out_or_zeros(cx)?;
        let shape = |input: usize| pass.input_specs[input].shape.clone();
        let sized: Vec<(usize, SizedPath)> = self.size_paths(d.shape.rows()).collect();
        let mut zs = vec![None; sized.len()];
        for (i, sized) in &sized {
            if needs[X] || needs[a_index(*i)] {
                let d_h = pass.d_outs.get(1 + i).unwrap_or(&None);
                zs[*i] =
                    Some(sized.append_d_h(cx, d, pass.input(b_index(*i)), &pass.output_specs[1 + i], d_h)?);
            }
        }
        if needs[X] {
            let z = zs.first().and_then(Option::as_ref);
            let first = z.and_then(|z| self.paths[0].contraction_segment(z, pass.input(a_index(0))));
            let d_x = append_d_x(cx, self.base(), d, pass.input(WEIGHT), first, into)?;
            for (i, sized) in sized.iter().skip(first.is_some() as usize) {
                sized.add_d_x(cx, zs[*i].as_ref().expect("made above"), pass.input(a_index(*i)), &d_x)?;
            }
            d_inputs[X] = Some(d_x);
        }
        for (i, sized) in &sized {
            if needs[a_index(*i)] {
                let (d_a, adds) = into.choose_destination(cx, a_index(*i), shape(a_index(*i)))?;
                sized.append_d_a(cx, zs[*i].as_ref().expect("made above"), pass.input(X), &d_a, adds)?;
                d_inputs[a_index(*i)] = Some(d_a);
            }
            if needs[b_index(*i)] {
                let (d_b, adds) = into.choose_destination(cx, b_index(*i), shape(b_index(*i)))?;
                sized.append_d_b(cx, d, pass.output(1 + i), &d_b, adds)?;
                d_inputs[b_index(*i)] = Some(d_b);
            }
        }
        if needs[WEIGHT] {
            d_inputs[WEIGHT] = Some(append_d_weight(cx, self.fan_in_fan_out, d, pass.input(X), into)?);
        }
        if needs.get(self.bias()) == Some(&true) {
            d_inputs[self.bias()] = Some(append_d_bias(cx, d)?);
        }
        Ok(d_inputs)
    }
}

impl LoraLinear {
    fn base(&self) -> Linear {
        Linear { fan_in_fan_out: self.fan_in_fan_out, precision: self.precision }
    }

    /// The index of the bias among the inputs, if there is one.
    fn bias(&self) -> usize {
        a_index(self.paths.len())
    }

    fn size_paths(&self, rows: usize) -> impl Iterator<Item = (usize, SizedPath<'_>)> {
        self.paths.iter().enumerate().map(move |(i, path)| (i, SizedPath::new(path, rows)))
    }
}
