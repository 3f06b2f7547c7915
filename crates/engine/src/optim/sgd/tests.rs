use super::{Sgd, plain::apply_reference};
use crate::error::Code;
use crate::kernel::coverage::every_variant;
use crate::optim::Rule;
use crate::optim::tests::compare_with_reference;

every_variant! {
    super::KERNELS;
    fn ten_steps_equal_the_reference() {
        let plainest = Sgd { lr: 0.05, ..Sgd::default() };
        let momentum = Sgd { momentum: 0.9, dampening: 0.3, weight_decay: 0.1, ..plainest };
        let nesterov = Sgd { momentum: 0.8, nesterov: true, ..plainest };
        let decay = Sgd { weight_decay: 0.2, ..plainest };
        for groups in [[plainest, momentum], [nesterov, momentum], [decay, plainest]] {
            compare_with_reference(groups, |o, step, p, g, states| {
                apply_reference(o, step, p, g, &mut states[0]);
            });
        }
    }
}

/// Three steps of `torch.optim.SGD(lr=0.1, momentum=0.9, weight_decay=0.1, …)` on [1, -2], in f64.
#[test]
fn the_reference_equals_pytorch() {
    let options = Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.1, ..Sgd::default() };
    for (options, expected) in
        [(Sgd { dampening: 0.5, ..options }, DAMPENED), (Sgd { nesterov: true, ..options }, NESTEROV)]
    {
        let (mut p, mut buffer) = ([1.0, -2.0], [0.0; 2]);
        for (step, g) in [[0.5, -1.0], [0.25, 2.0], [-1.0, 0.125]].iter().enumerate() {
            apply_reference(&options, step as u64 + 1, &mut p, g, &mut buffer);
        }
        for (got, expected) in p.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12, "{p:?}");
        }
    }
}

const DAMPENED: [f64; 2] = [0.850376, -1.843877];
const NESTEROV: [f64; 2] = [0.877211146, -2.066647292];

#[test]
fn options_out_of_range_are_named() {
    let fine = Sgd::default();
    for (bad, name) in [
        (Sgd { lr: -1.0, ..fine }, "lr"),
        (Sgd { momentum: f64::NAN, ..fine }, "momentum"),
        (Sgd { dampening: f64::INFINITY, ..fine }, "dampening"),
        (Sgd { weight_decay: -0.1, ..fine }, "weightDecay"),
        (Sgd { nesterov: true, ..fine }, "nesterov"),
        (Sgd { nesterov: true, momentum: 0.9, dampening: 0.1, ..fine }, "nesterov"),
    ] {
        let error = bad.check().unwrap_err();
        assert_eq!(error.code, Code::Option);
        assert!(error.message.contains(name), "{error}");
    }
}
