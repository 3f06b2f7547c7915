use super::{Lion, plain::apply_reference};
use crate::error::Code;
use crate::kernel::coverage::every_variant;
use crate::ops::checks::{Array, contexts, read};
use crate::optim::tests::compare_with_reference;
use crate::optim::{NotFinite, Optimizer, Rule};
use crate::tape::Tensor;

every_variant! {
    super::KERNELS;
    fn ten_steps_equal_the_reference() {
        let groups =
            [Lion { lr: 1e-2, weight_decay: 0.1, ..Lion::default() }, Lion { betas: [0.8, 0.95], ..Lion::default() }];
        compare_with_reference(groups, |o, _, p, g, states| apply_reference(o, p, g, &mut states[0]));
    }
}

/// By hand: c₁ = 0.1·g₁ has the gradient's sign; c₂ = 0.9·0.01·g₁ + 0.1·g₂.
#[test]
fn two_steps_equal_the_result_by_hand() {
    for cx in contexts() {
        let p = Tensor::new(Array::new(&[3], vec![1.0, -2.0, 0.5]).upload(&cx), true);
        let rule = Lion { lr: 0.25, weight_decay: 0.5, ..Lion::default() };
        let mut optimizer = Optimizer::new(vec![(rule, vec![p.clone()])]).unwrap();
        for g in [[4.0, -1.0, 0.0], [-0.25, 2.0, 0.0]] {
            p.set_grad(Some(Array::new(&[3], g.to_vec()).upload(&cx)));
            optimizer.step(None, NotFinite::Latch).unwrap();
        }
        // 0.875·p − 0.25·sign(c), twice: c₂ is 0.036 − 0.025 > 0, −0.009 + 0.2 > 0, and 0.
        let expected = [(0.875 - 0.25) * 0.875 - 0.25, (-1.75 + 0.25) * 0.875 - 0.25, 0.5 * 0.875 * 0.875];
        for (got, expected) in read(&p.value()).data.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-6, "{got}, not {expected}, on {}", cx.profile.label);
        }
    }
}

#[test]
fn options_out_of_range_are_named() {
    let fine = Lion::default();
    for (bad, name) in [
        (Lion { lr: -1.0, ..fine }, "lr"),
        (Lion { betas: [0.9, 1.0], ..fine }, "betas"),
        (Lion { weight_decay: f64::NAN, ..fine }, "weightDecay"),
    ] {
        let error = bad.check().unwrap_err();
        assert_eq!(error.code, Code::Option);
        assert!(error.message.starts_with("Lion: ") && error.message.contains(name), "{error}");
    }
}
