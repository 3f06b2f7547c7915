use super::{Adafactor, plain::apply_reference};
use crate::context::Context;
use crate::error::Code;
use crate::kernel::coverage::every_variant;
use crate::ops::checks::{Array, TOLERANCE, compare, contexts, read};
use crate::optim::{NotFinite, Optimizer, Rule, State};
use crate::shape::Shape;
use crate::tape::Tensor;
use std::rc::Rc;

const SHAPES: [&[usize]; 7] = [&[], &[1], &[65], &[63, 64], &[1, 257], &[2, 5, 13], &[2, 1, 3, 7]];

/// Returns [batch, rows, columns], with a vector as one row.
fn to_matrices(shape: &[usize]) -> [usize; 3] {
    match shape {
        [batch @ .., rows, columns] => [batch.iter().product(), *rows, *columns],
        vector => [1, 1, vector.iter().product()],
    }
}

fn make_parameters(cx: &Rc<Context>) -> Vec<Tensor> {
    let of = |(i, shape): (usize, &&[usize])| {
        Tensor::new(Array::random(&format!("p{i}"), shape).map(|v| 0.5 * v).upload(cx), true)
    };
    SHAPES.iter().enumerate().map(of).collect()
}

fn make_gradient(i: usize, step: u64) -> Array {
    Array::random(&format!("g{i} {step}"), SHAPES[i])
}

fn set_gradients(tensors: &[Tensor], step: u64) {
    for (i, t) in tensors.iter().enumerate() {
        t.set_grad(Some(make_gradient(i, step).upload(t.value().context())));
    }
}

fn read_values(tensors: &[Tensor]) -> Vec<Array> {
    tensors.iter().map(|t| read(&t.value())).collect()
}

every_variant! {
    super::KERNELS;
    fn ten_steps_equal_the_reference() {
        let slow = Adafactor { lr: 0.05, weight_decay: 0.1, ..Adafactor::default() };
        let quick = Adafactor { lr: 0.6, beta2_decay: -0.5, eps: [1e-3, 0.1], d: 1.5, weight_decay: 0.0 };
        for cx in contexts() {
            let tensors = make_parameters(&cx);
            let rule = |i: usize| if i < 4 { slow } else { quick };
            let groups = vec![(slow, tensors[..4].to_vec()), (quick, tensors[4..].to_vec())];
            let mut optimizer = Optimizer::new(groups).unwrap();
            let mut expected: Vec<Vec<f64>> = read_values(&tensors).into_iter().map(|a| a.data).collect();
            let shapes = |i: usize| Adafactor::states(&Shape::new(SHAPES[i]));
            let mut states: Vec<Vec<Vec<f64>>> = (0..SHAPES.len())
                .map(|i| shapes(i).iter().map(|(_, shape)| vec![0.0; shape.size()]).collect())
                .collect();
            for step in 1..=10 {
                set_gradients(&tensors, step);
                optimizer.step(None, NotFinite::Latch).unwrap();
                for i in 0..SHAPES.len() {
                    let g = make_gradient(i, step).data;
                    let space = to_matrices(SHAPES[i]);
                    apply_reference(&rule(i), step, space, &mut expected[i], &g, &mut states[i]);
                }
            }
            let kept = optimizer.state();
            for (i, (t, expected)) in tensors.iter().zip(expected).enumerate() {
                let what = format!("{i} on {}", cx.profile.label);
                compare(&what, &read(&t.value()), &Array::new(SHAPES[i], expected), TOLERANCE);
                assert_eq!(kept[i].step, 10);
                for ((got, expected), (_, shape)) in kept[i].values.iter().zip(&states[i]).zip(shapes(i)) {
                    compare(&what, &read(got), &Array::new(&shape, expected.clone()), TOLERANCE);
                }
            }
        }
    }
}

/// Three steps of `torch.optim.Adafactor(lr=0.1, weight_decay=0.1, eps=(1e-7, 1e-3))`, in f64.
#[test]
fn the_reference_equals_pytorch() {
    let options = Adafactor { lr: 0.1, weight_decay: 0.1, eps: [1e-7, 1e-3], ..Adafactor::default() };
    let mut matrix = [1.0, -2.0, 0.5, 0.25, 3.0, -1.0];
    let mut vector = [1.0, -2.0];
    let (mut moments, mut variance) = ([vec![0.0; 2], vec![0.0; 3]], [vec![0.0; 2]]);
    let steps = [(1.0, [0.5, -1.0]), (-0.5, [0.25, 2.0]), (2.0, [-1.0, 0.125])];
    for (step, (factor, g)) in (1..).zip(steps) {
        let of_matrix = [0.5, -1.0, 0.25, 2.0, -1.0, 0.125].map(|v| v * factor);
        apply_reference(&options, step, [1, 2, 3], &mut matrix, &of_matrix, &mut moments);
        apply_reference(&options, step, [1, 1, 2], &mut vector, &g, &mut variance);
    }
    for (got, expected) in matrix.iter().chain(&vector).zip(PYTORCH) {
        // PyTorch keeps the moments in f32.
        assert!((got - expected).abs() < 1e-6, "{matrix:?} {vector:?}");
    }
}

const PYTORCH: [f64; 8] = [
    0.8859922622082932,
    -1.694803733762611,
    0.17424161315201017,
    0.07006668532026339,
    3.0366327783275504,
    -1.0498212885778193,
    0.9324842139849361,
    -1.9702205057281894,
];

/// Steps with gradients that are not finite change nothing and are not counted, whether the host knows of them or not.
#[test]
fn non_finite_steps_are_skipped() {
    for cx in contexts() {
        let run = |odd: bool| {
            let tensors = make_parameters(&cx);
            let mut optimizer = Optimizer::new(vec![(Adafactor::default(), tensors.clone())]).unwrap();
            for step in 1..=3 {
                if odd && step < 3 {
                    set_gradients(&tensors, step);
                    let mut bad = make_gradient(3, step);
                    bad.data[70] = [f64::NAN, f64::INFINITY][step as usize % 2];
                    tensors[3].set_grad(Some(bad.upload(&cx)));
                    let before: Vec<_> = read_values(&tensors).into_iter().map(|a| a.data).collect();
                    optimizer.step(Some(1.0), NotFinite::Skip).unwrap();
                    let after: Vec<_> = read_values(&tensors).into_iter().map(|a| a.data).collect();
                    assert_eq!(after, before);
                }
                set_gradients(&tensors, step);
                optimizer.step(Some(1.0), NotFinite::Skip).unwrap();
            }
            read_values(&tensors)
        };
        for (got, expected) in run(true).iter().zip(&run(false)) {
            compare(&cx.profile.label, got, expected, TOLERANCE);
        }
    }
}

#[test]
fn a_loaded_state_resumes_bit_for_bit() {
    for cx in contexts() {
        let (tensors, again) = (make_parameters(&cx), make_parameters(&cx));
        let new = |t: &[Tensor]| Optimizer::new(vec![(Adafactor::default(), t.to_vec())]).unwrap();
        let (mut whole, mut first) = (new(&tensors), new(&again));
        for step in 1..=6 {
            set_gradients(&tensors, step);
            whole.step(None, NotFinite::Latch).unwrap();
        }
        for step in 1..=3 {
            set_gradients(&again, step);
            first.step(None, NotFinite::Latch).unwrap();
        }
        let state: Vec<State> = first
            .state()
            .iter()
            .map(|s| State { step: s.step, values: s.values.iter().map(|v| read(v).upload(&cx)).collect() })
            .collect();
        drop(first);
        let mut resumed = new(&again);
        resumed.load_state(&state).unwrap();
        for step in 4..=6 {
            set_gradients(&again, step);
            resumed.step(None, NotFinite::Latch).unwrap();
        }
        for (a, b) in read_values(&again).iter().zip(&read_values(&tensors)) {
            assert_eq!(a.data, b.data);
        }
        // A state of the parameter's shape, as other rules keep, is an error.
        let mut wrong = resumed.state();
        wrong[3].values[0] = tensors[3].value();
        let error = resumed.load_state(&wrong).unwrap_err();
        assert_eq!(error.code, Code::ShapeMismatch);
        assert!(error.message.contains("row_var of parameter 3"), "{error}");
    }
}

#[test]
fn options_out_of_range_are_named() {
    let fine = Adafactor::default();
    for (bad, name) in [
        (Adafactor { lr: -1.0, ..fine }, "lr"),
        (Adafactor { beta2_decay: 0.5, ..fine }, "beta2Decay"),
        (Adafactor { eps: [-1.0, 0.0], ..fine }, "eps"),
        (Adafactor { eps: [0.0, f64::NAN], ..fine }, "eps"),
        (Adafactor { d: 0.5, ..fine }, "d is"),
        (Adafactor { weight_decay: -0.1, ..fine }, "weightDecay"),
    ] {
        let error = bad.check().unwrap_err();
        assert_eq!(error.code, Code::Option);
        assert!(error.message.contains(name), "{error}");
    }
}
