use super::plain::{apply_reference, apply_reference_adam};
use super::{Adam, AdamW};
use crate::error::Code;
use crate::kernel::coverage::every_variant;
use crate::ops::checks::contexts;
use crate::optim::tests::{compare_with_reference, make_parameters};
use crate::optim::{NotFinite, Optimizer, Rule};

fn make_groups() -> [AdamW; 2] {
    let first = AdamW { lr: 1e-2, weight_decay: 0.1, ..AdamW::default() };
    [first, AdamW { lr: 3e-3, betas: [0.8, 0.95], eps: 1e-6, weight_decay: 0.0 }]
}

every_variant! {
    super::KERNELS;
    fn ten_steps_equal_the_reference() {
        compare_with_reference(make_groups(), |o, step, p, g, states| {
            let [m, v] = states else { unreachable!("two states") };
            apply_reference(o, step, p, g, m, v);
        });
        compare_with_reference(make_groups().map(Adam), |o, step, p, g, states| {
            let [m, v] = states else { unreachable!("two states") };
            apply_reference_adam(o, step, p, g, m, v);
        });
    }
}

/// Three steps of `torch.optim.Adam(lr=0.1, weight_decay=0.1)` on [1, -2], in f64.
#[test]
fn the_reference_of_adam_equals_pytorch() {
    let options = Adam(AdamW { lr: 0.1, weight_decay: 0.1, ..AdamW::default() });
    let (mut p, mut m, mut v) = ([1.0, -2.0], [0.0; 2], [0.0; 2]);
    for (step, g) in [[0.5, -1.0], [0.25, 2.0], [-1.0, 0.125]].iter().enumerate() {
        apply_reference_adam(&options, step as u64 + 1, &mut p, g, &mut m, &mut v);
    }
    for (got, expected) in p.iter().zip(ADAM) {
        assert!((got - expected).abs() < 1e-12, "{p:?}");
    }
}

const ADAM: [f64; 2] = [0.8120982607786772, -1.9423614580466217];

/// Three steps of `torch.optim.AdamW(lr=0.1, weight_decay=0.1)` on [1, -2], in f64.
#[test]
fn the_reference_equals_pytorch() {
    let options = AdamW { lr: 0.1, weight_decay: 0.1, ..AdamW::default() };
    let (mut p, mut m, mut v) = ([1.0, -2.0], [0.0; 2], [0.0; 2]);
    for (step, g) in [[0.5, -1.0], [0.25, 2.0], [-1.0, 0.125]].iter().enumerate() {
        apply_reference(&options, step as u64 + 1, &mut p, g, &mut m, &mut v);
    }
    for (got, expected) in p.iter().zip(PYTORCH) {
        assert!((got - expected).abs() < 1e-12, "{p:?}");
    }
}

const PYTORCH: [f64; 2] = [0.8006389224608368, -1.9106556343413195];

#[test]
fn options_out_of_range_are_named() {
    let fine = AdamW::default();
    for (bad, name) in [
        (AdamW { lr: -1.0, ..fine }, "lr"),
        (AdamW { lr: f64::NAN, ..fine }, "lr"),
        (AdamW { eps: -1e-8, ..fine }, "eps"),
        (AdamW { betas: [1.0, 0.9], ..fine }, "betas"),
        (AdamW { weight_decay: f64::INFINITY, ..fine }, "weightDecay"),
    ] {
        let error = bad.check().unwrap_err();
        assert_eq!(error.code, Code::Option);
        assert!(error.message.contains(name), "{error}");
    }
    // An invalid option set between steps is an error at the next step.
    let cx = &contexts()[0];
    let mut optimizer = Optimizer::new(vec![(fine, make_parameters(cx))]).unwrap();
    optimizer.group_mut(0).unwrap().lr = f64::NAN;
    assert_eq!(optimizer.step(None, NotFinite::Latch).unwrap_err().code, Code::Option);
}
