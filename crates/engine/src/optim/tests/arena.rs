use super::state::export_state;
use super::*;

#[test]
fn two_optimizers_may_share_a_parameter() {
    for cx in contexts() {
        let run_steps = |shared: bool| -> Result<Vec<Vec<u64>>> {
            let tensors = make_parameters(&cx);
            let mut first = make_adamw(&tensors);
            let mut second =
                Optimizer::new(vec![(Sgd { lr: 0.1, ..Sgd::default() }, tensors[1..4].to_vec())])?;
            for step in 1..=3 {
                set_gradients(&tensors, step, &[]);
                first.step(None, NotFinite::Latch)?;
                if shared {
                    second.step(None, NotFinite::Latch)?;
                    continue;
                }
                // The same arithmetic by hand.
                for (i, t) in tensors.iter().enumerate().take(4).skip(1) {
                    let (value, g) = (read(&t.value()), make_gradient(i, step));
                    let updated = value.data.iter().zip(&g.data).map(|(p, g)| p - (0.1f32 as f64) * g);
                    cx.write(&t.value(), Array::new(SHAPES[i], updated.collect()).bytes());
                }
            }
            Ok(read_bits(&tensors))
        };
        let (a, b) = (run_steps(true).unwrap(), run_steps(false).unwrap());
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            compare(&format!("parameter {i}"), &to_array(a), &to_array(b), TOLERANCE);
        }
    }
}

#[test]
fn an_arena_keeps_values_and_gradients_and_is_freed() {
    for cx in contexts() {
        let tape = Tape::default();
        let live = || cx.memory().live;
        let start = live();
        let tensors = make_parameters(&cx);
        let separate = live() - start;
        let before = read_bits(&tensors);
        set_gradients(&tensors, 7, &[1]);
        let optimizer = make_adamw(&tensors);
        assert_eq!(read_bits(&tensors), before);
        for (i, t) in tensors.iter().enumerate() {
            assert_eq!(t.grad().is_some(), i != 1);
            if let Some(grad) = t.grad() {
                assert_eq!(read(&grad).data, make_gradient(i, 7).data);
                assert!(Rc::ptr_eq(&grad.storage, &tensors[0].grad().unwrap().storage));
            }
        }
        // A later gradient is added in the arena, and a new one is created there.
        let twice = |t: &Tensor| {
            let sum = tape.apply1(Binary(Function::Add), &[t, t]).unwrap();
            tape.backward(&tape.apply1(Sum { dim: None }, &[&sum]).unwrap(), None).unwrap();
        };
        for i in [0, 1] {
            twice(&tensors[i]);
            let own = if i == 0 { make_gradient(0, 7).data[0] } else { 0.0 };
            let grad = tensors[i].grad().unwrap();
            assert!(Rc::ptr_eq(&grad.storage, &tensors[2].grad().unwrap().storage));
            assert!((read(&grad).data[0] - own - 2.0).abs() < 1e-6);
        }
        // The gradients' arena is freed with the optimizer; the values stay in theirs, padded.
        optimizer.zero_grad();
        drop(optimizer);
        let padded: usize = SHAPES.iter().map(|s| s.iter().product::<usize>().next_multiple_of(64) * 4).sum();
        assert_eq!(live() - start, padded as u64);
        assert!(separate <= padded as u64);
        assert_eq!(read_bits(&tensors), before);
        twice(&tensors[0]);
        assert_eq!(read(&tensors[0].grad().unwrap()).data, [2.0]);
        drop(tensors);
        assert_eq!(live(), start);
    }
}

#[test]
fn invalid_parameters_are_refused() {
    let cx = &contexts()[0];
    let tape = Tape::default();
    let good = || Tensor::new(Array::random("p", &[3]).upload(cx), true);
    let code = |tensors: Vec<Tensor>| {
        let error = Optimizer::new(vec![(AdamW::default(), tensors)]).err().unwrap();
        assert!(error.message.starts_with("AdamW: "), "{error}");
        error.code
    };
    assert_eq!(code(vec![]), Code::Option);
    let once = good();
    assert_eq!(code(vec![good(), once.clone(), once]), Code::Option);
    let half = Tensor::new(Array::random("p", &[4]).stored(DType::F16).upload(cx), false);
    assert_eq!(code(vec![good(), half]), Code::Dtype);
    let made = tape.apply1(Binary(Function::Add), &[&good(), &good()]).unwrap();
    assert_eq!(code(vec![made]), Code::NoGradient);
    let elsewhere = Context::new(cx.profile.clone(), Sink::Meta);
    let far = Tensor::new(elsewhere.empty([3], DType::F32).unwrap(), true);
    assert_eq!(code(vec![good(), far]), Code::DeviceMismatch);
}

#[test]
fn an_arena_larger_than_a_buffer_is_split() {
    let run = |limit: u64| {
        let (_device, cx) = open_device_with(|p| p.buffer_limit = limit);
        let tensors = make_parameters(&cx);
        let mut optimizer = make_adamw(&tensors);
        for step in 1..=3 {
            set_gradients(&tensors, step, &[]);
            optimizer.step(Some(1.0), NotFinite::Latch).unwrap();
        }
        (
            read_bits(&tensors),
            export_state(&optimizer).into_iter().map(|(_, v)| v[1].data.clone()).collect::<Vec<_>>(),
        )
    };
    // Two of the smaller parameters fit in one buffer; the largest needs a separate one.
    let (values, moments) = run(2048);
    let (expected, expected_moments) = run(1 << 30);
    for (a, b) in values.iter().zip(&expected) {
        compare("several", &to_array(a), &to_array(b), TOLERANCE);
    }
    for (a, b) in moments.iter().zip(expected_moments) {
        compare("several", &Array::new(&[a.len()], a.clone()), &Array::new(&[b.len()], b.clone()), TOLERANCE);
    }
}
