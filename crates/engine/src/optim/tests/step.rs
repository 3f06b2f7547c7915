use super::*;

#[test]
fn adjacent_gradients_share_a_launch_and_others_stay_unchanged() {
    for cx in contexts().into_iter().filter(|cx| cx.profile.binding_limit > 4096) {
        let tensors = make_parameters(&cx);
        let mut optimizer = make_adamw(&tensors);
        let adamw_launches = |optimizer: &mut Optimizer<AdamW>| {
            cx.count_launches(true);
            optimizer.step(Some(1.0), NotFinite::Latch).unwrap();
            cx.count_launches(false)["adamw"]
        };
        set_gradients(&tensors, 1, &[]);
        assert_eq!(adamw_launches(&mut optimizer), 1);
        // A parameter in the middle: one span on each side of it.
        set_gradients(&tensors, 2, &[2]);
        let before = read_bits(&tensors);
        let state = read(&optimizer.state()[2].values[0]).data;
        assert_eq!(adamw_launches(&mut optimizer), 2);
        let after = read_bits(&tensors);
        for i in 0..tensors.len() {
            assert_eq!(before[i] == after[i], i == 2, "parameter {i}");
        }
        assert_eq!(read(&optimizer.state()[2].values[0]).data, state);
        // Its step count now differs, so it needs a separate launch.
        set_gradients(&tensors, 3, &[]);
        assert_eq!(adamw_launches(&mut optimizer), 3);
        assert_eq!(optimizer.state().iter().map(|s| s.step).collect::<Vec<_>>(), [3, 3, 2, 3, 3, 3]);
        // Without any gradient nothing changes, and the norm is 0.
        optimizer.zero_grad();
        let before = read_bits(&tensors);
        assert_eq!(read_item(&optimizer.step(None, NotFinite::Latch).unwrap()), 0.0);
        assert_eq!(read_bits(&tensors), before);
    }
}

#[test]
fn clipping_in_the_step_equals_clipping_before_it() {
    for cx in contexts() {
        let run = |inside: bool| {
            let tensors = make_parameters(&cx);
            let mut optimizer = make_adamw(&tensors);
            for step in 1..=3 {
                set_gradients(&tensors, step, &[]);
                let norm = match inside {
                    true => optimizer.step(Some(0.5), NotFinite::Latch).unwrap(),
                    false => {
                        let norm = clip_grad_norm(&cx, &tensors, 0.5).unwrap();
                        optimizer.step(None, NotFinite::Latch).unwrap();
                        norm
                    }
                };
                assert!(read_item(&norm) > 0.5);
            }
            read_bits(&tensors)
        };
        let (inside, before) = (run(true), run(false));
        if cx.profile.kind == Kind::Cpu {
            assert_eq!(inside, before);
        }
        // A driver may fuse the product by the factor with the next operation.
        for (a, b) in inside.iter().zip(&before) {
            compare(&cx.profile.label, &to_array(a), &to_array(b), TOLERANCE);
        }
    }
}

#[test]
fn a_non_finite_norm_latches() {
    for cx in contexts() {
        let run = |bad: &[u64]| {
            let tensors = make_parameters(&cx);
            let mut optimizer = make_adamw(&tensors);
            let mut good = 0;
            for step in 0..6 {
                let first = bad.iter().any(|b| *b <= step && step < b + 2);
                if !first {
                    good += 1;
                }
                set_gradients(&tensors, good, &[]);
                let before = read_bits(&tensors);
                if bad.contains(&step) {
                    let mut odd = make_gradient(4, good);
                    odd.data[200] = [f64::NAN, f64::INFINITY][step as usize % 2];
                    tensors[4].set_grad(Some(odd.upload(&cx)));
                }
                let norm = read_item(&optimizer.step(None, NotFinite::Latch).unwrap());
                assert_eq!(norm.is_finite(), !bad.contains(&step));
                assert_eq!(read_bits(&tensors) == before, first, "step {step}");
                if bad.contains(&step) {
                    assert_eq!(read_item(&optimizer.undone()), 1.0);
                } else if first {
                    // The next step is also skipped, although its gradients are finite.
                    assert_eq!(read_item(&optimizer.undone()), 2.0);
                    optimizer.clear_latch(2);
                }
            }
            let state = optimizer.state();
            (good, read_bits(&tensors), state.iter().map(|s| s.step).collect::<Vec<_>>(), {
                state.iter().map(|s| read(&s.values[1]).data).collect::<Vec<_>>()
            })
        };
        // Steps 2 and 3 have no effect: the result equals four good steps.
        let (good, values, steps, moments) = run(&[2]);
        assert_eq!((good, &steps[..]), (4, &[4; 6][..]));
        let tensors = make_parameters(&cx);
        let mut optimizer = make_adamw(&tensors);
        for step in 1..=4 {
            set_gradients(&tensors, step, &[]);
            optimizer.step(None, NotFinite::Latch).unwrap();
        }
        assert_eq!(read_bits(&tensors), values);
        let expected: Vec<_> = optimizer.state().iter().map(|s| read(&s.values[1]).data).collect();
        assert_eq!(moments, expected);
        run(&[0, 3]);
    }
}

/// Single skipped steps: the result is as if they had never been requested, whether the host knows of them (after step
/// `reported_at`) or not.
#[test]
fn only_the_non_finite_step_is_skipped() {
    fn run<R: Rule>(cx: &Rc<Context>, rule: R, bad: &[u64], reported_at: u64) -> Vec<Array> {
        let tensors = make_parameters(cx);
        let mut optimizer = Optimizer::new(vec![(rule, tensors.clone())]).unwrap();
        let mut good = 0;
        let mut reported = 0;
        for step in 0..8 {
            let odd = bad.contains(&step);
            good += !odd as u64;
            set_gradients(&tensors, good, &[]);
            if odd {
                let mut gradient = make_gradient(4, good);
                gradient.data[200] = [f64::NAN, f64::INFINITY][step as usize % 2];
                tensors[4].set_grad(Some(gradient.upload(cx)));
            }
            let before = read_bits(&tensors);
            optimizer.step(Some(1.0), NotFinite::Skip).unwrap();
            assert_eq!(read_bits(&tensors) == before, odd, "step {step}");
            if step == reported_at {
                reported = read_item(&optimizer.uncounted_steps()) as u64;
                assert_eq!(reported, bad.iter().filter(|b| **b <= reported_at).count() as u64);
                optimizer.uncount_steps(reported);
                assert_eq!(read_item(&optimizer.uncounted_steps()), 0.0);
            }
        }
        let late = bad.len() as u64 - reported;
        assert_eq!(read_item(&optimizer.uncounted_steps()), late as f64);
        if optimizer.groups()[0].keeps_state() {
            assert!(optimizer.state().iter().all(|s| s.step == good + late));
        }
        read_bits(&tensors).iter().map(|one| to_array(one)).collect()
    }
    fn check_rule<R: Rule>(cx: &Rc<Context>, rule: R) {
        for bad in [&[0, 1][..], &[3], &[0, 4, 5]] {
            // The same number of good steps alone.
            let tensors = make_parameters(cx);
            let mut optimizer = Optimizer::new(vec![(rule.clone(), tensors.clone())]).unwrap();
            for good in 1..=8 - bad.len() as u64 {
                set_gradients(&tensors, good, &[]);
                optimizer.step(Some(1.0), NotFinite::Skip).unwrap();
            }
            let expected: Vec<Array> = read_bits(&tensors).iter().map(|one| to_array(one)).collect();
            for reported_at in [0, 3, 4, 100] {
                let got = run(cx, rule.clone(), bad, reported_at);
                for (got, expected) in got.into_iter().zip(&expected) {
                    // 1 − βᵗ is computed differently, with a few more roundings.
                    compare(&cx.profile.label, &got, expected, TOLERANCE);
                }
            }
        }
    }
    for cx in contexts() {
        check_rule(&cx, AdamW { lr: 1e-2, weight_decay: 0.1, ..AdamW::default() });
        check_rule(&cx, Sgd { lr: 0.1, momentum: 0.9, dampening: 0.3, ..Sgd::default() });
        check_rule(&cx, Sgd { lr: 0.1, ..Sgd::default() });
    }
}

#[test]
fn undone_steps_are_uncounted_for_the_updated_parameters() {
    let cx = &contexts()[0];
    let tensors = make_parameters(cx);
    let mut optimizer = make_adamw(&tensors);
    for left_out in [&[][..], &[], &[1], &[1], &[1, 2]] {
        set_gradients(&tensors, 1, left_out);
        optimizer.step(None, NotFinite::Latch).unwrap();
    }
    let counts = |o: &Optimizer<AdamW>| o.state().iter().map(|s| s.step).collect::<Vec<_>>();
    assert_eq!(counts(&optimizer), [5, 2, 4, 5, 5, 5]);
    optimizer.undo_steps(2);
    assert_eq!(counts(&optimizer), [3, 2, 3, 3, 3, 3]);
    optimizer.undo_steps(2);
    assert_eq!(counts(&optimizer), [1; 6]);
    optimizer.undo_steps(9);
    assert_eq!(counts(&optimizer), [0; 6]);
}

#[test]
fn a_cancelled_step_runs_completely_or_not_at_all() {
    // A separate thread that waits until the token is cancelled.
    let device = Device::start(|| Cpu::open(1)).unwrap();
    let cx = Context::new(device.profile.clone(), Sink::Thread(device.clone()));
    let tensors = make_parameters(&cx);
    let mut optimizer = make_adamw(&tensors);
    let before = read_bits(&tensors);
    let token = CancelToken::default();
    cx.set_cancel_token(Some(token.clone()));
    set_gradients(&tensors, 1, &[]);
    token.cancel();
    optimizer.step(None, NotFinite::Latch).unwrap();
    cx.set_cancel_token(None);
    assert_eq!(read_bits(&tensors), before);
    optimizer.undo_steps(1);
    // The uploads of its gradients have the same token.
    assert_eq!(optimizer.state()[0].step, 0);
    // A step that begins before the cancellation is completed: launches under `once` do not check again.
    let token = CancelToken::default();
    set_gradients(&tensors, 1, &[]);
    cx.set_cancel_token(Some(token.clone()));
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let inner = token.clone();
    cx.run_atomically(|| {
        let value = tensors[0].value();
        cx.push(crate::recording::Command::Read {
            from: value.range(),
            reply: Box::new(move |_| {
                wait.recv().ok();
                inner.cancel();
            }),
        });
        optimizer.step(None, NotFinite::Latch).map(drop)
    })
    .unwrap();
    cx.flush();
    go.send(()).unwrap();
    cx.set_cancel_token(None);
    assert!(read_bits(&tensors).iter().zip(&before).all(|(a, b)| a != b));
    drop(device);
}

fn compute_loss(tape: &Tape, w: &[Tensor], x: &Tensor, y: &Tensor) -> Tensor {
    let op = |f, a: &Tensor, b: &Tensor| tape.apply1(Binary(f), &[a, b]).unwrap();
    // y ≈ x·w + b, elementwise.
    let error = op(Function::Sub, &op(Function::Add, &op(Function::Mul, x, &w[0]), &w[1]), y);
    tape.apply1(Sum { dim: None }, &[&op(Function::Mul, &error, &error)]).unwrap()
}

fn fit_least_squares(cx: &Rc<Context>) -> (Vec<f64>, Vec<Vec<u64>>) {
    let tape = Tape::default();
    let new = |name: &str, shape: &[usize], asks| Tensor::new(Array::random(name, shape).upload(cx), asks);
    let (x, y) = (new("x", &[64, 65], false), new("y", &[64, 65], false));
    let w = vec![new("w", &[65], true), new("b", &[64, 1], true)];
    let mut optimizer = Optimizer::new(vec![(AdamW { lr: 0.05, ..AdamW::default() }, w.clone())]).unwrap();
    let mut losses = Vec::new();
    let mut baseline = None;
    for _ in 0..25 {
        let loss = compute_loss(&tape, &w, &x, &y);
        tape.backward(&loss, None).unwrap();
        optimizer.step(Some(100.0), NotFinite::Latch).unwrap();
        optimizer.zero_grad();
        losses.push(read_item(&loss.value()));
        drop(loss);
        let live = cx.memory().live;
        assert_eq!(*baseline.get_or_insert(live), live);
    }
    (losses, read_bits(&w))
}

#[test]
fn least_squares_converge_with_reproducible_bits() {
    for cx in contexts() {
        let first = fit_least_squares(&cx);
        assert!(first.0[24] < 0.9 * first.0[0], "{:?}", first.0);
        assert!(first.0.windows(2).take(10).all(|w| w[1] < w[0]), "{:?}", first.0);
        assert_eq!(fit_least_squares(&cx), first);
    }
    // The result does not depend on the number of threads.
    let [one, two] = [1, 2].map(|threads| {
        let device = Device::start(move || Cpu::open(threads)).unwrap();
        fit_least_squares(&Context::new(device.profile.clone(), Sink::Thread(device)))
    });
    assert_eq!(one, two);
}

#[test]
fn a_step_between_forward_and_backward_is_refused() {
    for cx in contexts() {
        let tape = Tape::default();
        let new =
            |name: &str, shape: &[usize], asks| Tensor::new(Array::random(name, shape).upload(&cx), asks);
        let (x, y) = (new("x", &[8, 9], true), new("y", &[8, 9], false));
        let w = vec![new("w", &[9], true), new("b", &[8, 1], true)];
        let mut optimizer = Optimizer::new(vec![(Sgd { lr: 0.1, ..Sgd::default() }, w.clone())]).unwrap();
        tape.backward(&compute_loss(&tape, &w, &x, &y), None).unwrap();
        let stale = compute_loss(&tape, &w, &x, &y);
        optimizer.step(None, NotFinite::Latch).unwrap();
        assert_eq!(tape.backward(&stale, None).unwrap_err().code, Code::Modified);
        optimizer.zero_grad();
        tape.backward(&compute_loss(&tape, &w, &x, &y), None).unwrap();
        optimizer.step(None, NotFinite::Latch).unwrap();
    }
}

#[test]
fn a_step_on_a_meta_device_predicts_the_memory() {
    for cx in contexts() {
        let meta = Context::new(cx.profile.clone(), Sink::Meta);
        let memory = |cx: &Rc<Context>| {
            cx.restart_peak();
            let tensors = make_parameters(cx);
            let mut optimizer = make_adamw(&tensors);
            set_gradients(&tensors, 1, &[3]);
            optimizer.step(Some(1.0), NotFinite::Latch).unwrap();
            cx.memory()
        };
        assert_eq!(memory(&meta), memory(&cx));
    }
}
