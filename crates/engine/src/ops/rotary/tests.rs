use std::rc::Rc;

use super::{Rotary, reference::compute_reference};
use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::{Code, Result};
use crate::kernel::coverage::every_variant;
use crate::kernels;
use crate::op::{Backward, Gradient, Gradients, Op, run, run1};
use crate::ops::checks::{Array, check, check_non_finite, contexts};

/// Rotary with fixed tables, which need no gradient.
#[derive(Debug)]
struct Fixed(Rotary, Vec<Array>);

impl Fixed {
    fn upload_tables(&self, cx: &Rc<Context>) -> Vec<Value> {
        self.1.iter().map(|t| t.upload(cx)).collect()
    }
}

impl Op for Fixed {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let tables: Vec<Spec> = self.1.iter().map(Array::spec).collect();
        self.0.outputs(&inputs.iter().copied().chain(&tables).collect::<Vec<_>>())
    }
    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let tables = self.upload_tables(cx);
        self.0.forward(cx, &inputs.iter().copied().chain(&tables).collect::<Vec<_>>(), outputs)
    }
    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }
    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let tables = self.upload_tables(cx);
        let count = pass.needs.len();
        let pass = Backward {
            needs: pass.needs.iter().copied().chain(tables.iter().map(|_| false)).collect(),
            inputs: pass.needs.iter().map(|_| None).chain(tables.into_iter().map(Some)).collect(),
            d_outs: pass.d_outs.clone(),
            ..Backward::default()
        };
        let mut d_inputs = self.0.backward(cx, &pass)?;
        d_inputs.truncate(count);
        Ok(d_inputs)
    }
}

/// Returns cos and sin of position · 100^(−i/h), rounded to f32 like a caller's.
fn compute_tables(rows: usize, half: usize, width: usize) -> Vec<Array> {
    let angle = |i: &[usize]| i[0] as f64 * 100f64.powf(-((i[1] % half) as f64) / half as f64);
    let table = |f: fn(f64) -> f64| Array::from_fn(&[rows, width], |i| f(angle(i))).stored(DType::F32);
    vec![table(f64::cos), table(f64::sin)]
}

#[test]
fn equals_the_reference() {
    for (t, heads, dim) in [(1, 1, 2), (63, 2, 8), (64, 1, 64), (65, 3, 24), (257, 1, 16)] {
        for (offset, width) in [(0, dim / 2), (3, dim)] {
            let op =
                Fixed(Rotary { offset, ..Default::default() }, compute_tables(offset + t, dim / 2, width));
            let x = Array::random("x", &[2, t, heads, dim]);
            check(&op, &[x], &|x| vec![compute_reference(&op.0, &x[0], &op.1)]);
        }
    }
}

every_variant! {
    kernels::rotary::KERNELS;
    fn every_variant_equals_the_reference() {
        for (two, positions) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut tables = compute_tables(15, 4, 4);
            tables.extend(positions.then(|| Array::indices("positions", &[2, 9], 15)));
            let op = Fixed(Rotary { positions, two, ..Default::default() }, tables);
            let x: Vec<_> = (1..=1 + two as usize).map(|h| Array::random("x", &[2, 9, h, 8])).collect();
            check(&op, &x, &|x| x.iter().map(|x| compute_reference(&op.0, x, &op.1)).collect());
        }
    }
}

#[test]
fn two_tensors_equal_the_reference() {
    for (t, heads, dim) in [(1, [1, 1], 2), (63, [2, 1], 8), (65, [3, 9], 24), (257, [9, 3], 16)] {
        for positions in [false, true] {
            let rows = if positions { 15 } else { 3 + t };
            let mut tables = compute_tables(rows, dim / 2, dim / 2);
            tables.extend(positions.then(|| Array::indices("positions", &[2, t], rows)));
            let op = Fixed(Rotary { offset: 3, positions, two: true, ..Default::default() }, tables);
            let x = heads.map(|h| Array::random(&format!("x of {h}"), &[2, t, h, dim]));
            check(&op, &x, &|x| x.iter().map(|x| compute_reference(&op.0, x, &op.1)).collect());
        }
    }
    let op = Fixed(Rotary { dims: Some(8), two: true, ..Default::default() }, compute_tables(65, 4, 8));
    let x = [2, 1].map(|h| Array::random("x", &[1, 65, h, 20]));
    check(&op, &x, &|x| x.iter().map(|x| compute_reference(&op.0, x, &op.1)).collect());
}

#[test]
fn positions_select_table_rows() {
    for t in [1, 63, 65] {
        let mut tables = compute_tables(15, 4, 4);
        tables.push(Array::indices("positions", &[2, t], 15));
        let op = Fixed(Rotary { positions: true, ..Default::default() }, tables);
        check(&op, &[Array::random("x", &[2, t, 3, 8])], &|x| vec![compute_reference(&op.0, &x[0], &op.1)]);
    }
}

#[test]
fn dimensions_past_the_rotated_ones_are_copied() {
    let op = Fixed(Rotary { dims: Some(8), ..Default::default() }, compute_tables(65, 4, 8));
    check(&op, &[Array::random("x", &[1, 65, 2, 20])], &|x| vec![compute_reference(&op.0, &x[0], &op.1)]);
}

/// With different tables for the two halves the gradient is the transpose, not the rotation by −θ.
#[test]
fn tables_need_not_describe_a_rotation() {
    let draw_table = |name: &str| Array::random(name, &[9, 8]).stored(DType::F32);
    let op = Fixed(Rotary::default(), vec![draw_table("cos"), draw_table("sin")]);
    check(&op, &[Array::random("x", &[1, 9, 2, 8])], &|x| vec![compute_reference(&op.0, &x[0], &op.1)]);
}

#[test]
fn non_finite_values_stay_in_their_pair() {
    let op = Fixed(Rotary::default(), compute_tables(5, 4, 4));
    let mut x = Array::random("x", &[1, 5, 1, 8]);
    (x.data[9], x.data[20], x.data[39]) = (f64::NAN, f64::INFINITY, f64::NEG_INFINITY);
    check_non_finite(&op, &[x.clone()], &|x| vec![compute_reference(&op.0, &x[0], &op.1)]);
    let op = Fixed(Rotary { two: true, ..op.0 }, op.1);
    let other = Array::random("other", &[1, 5, 2, 8]).map(|v| if v > 0.9 { f64::NAN } else { v });
    check_non_finite(&op, &[x, other], &|x| x.iter().map(|x| compute_reference(&op.0, x, &op.1)).collect());
}

#[test]
fn positions_and_shapes_that_do_not_fit_are_refused() {
    let cx = &contexts()[0];
    let x = Array::random("x", &[1, 5, 1, 8]).upload(cx);
    let [cos, sin] = [0, 1].map(|i| compute_tables(4, 4, 4)[i].upload(cx));
    let error = run1(cx, &Rotary::default(), &[&x, &cos, &sin]).unwrap_err();
    assert_eq!(error.message, "rotary: positions 0 to 5 are past the tables [4, 4]");
    let op = Rotary { positions: true, ..Default::default() };
    let positions =
        Array { dtype: DType::I32, ..Array::new(&[1, 5], vec![0.0, 1.0, 2.0, 3.0, 4.0]) }.upload(cx);
    let error = run1(cx, &op, &[&x, &cos, &sin, &positions]).unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (Code::Index, "rotary: position 4 is not within the tables [4, 4]")
    );
    let short = Array::random("x", &[1, 4, 1, 8]).upload(cx);
    let op = Rotary { two: true, ..Default::default() };
    let error =
        run(cx, &op, &[&short, &Array::random("x", &[1, 3, 1, 8]).upload(cx), &cos, &sin]).unwrap_err();
    assert_eq!(error.message, "rotary: [1, 4, 1, 8] and [1, 3, 1, 8] differ in more than their heads");
    let op = Rotary { dims: Some(10), ..Default::default() };
    assert_eq!(run1(cx, &op, &[&x, &cos, &sin]).unwrap_err().code, Code::ShapeMismatch);
}
