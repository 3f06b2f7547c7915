use super::*;

/// Returns the state as a checkpoint stores it.
pub fn export_state<R: Rule>(optimizer: &Optimizer<R>) -> Vec<(u64, Vec<Array>)> {
    optimizer.state().iter().map(|s| (s.step, s.values.iter().map(read).collect())).collect()
}

fn import_state(cx: &Rc<Context>, state: &[(u64, Vec<Array>)]) -> Vec<State> {
    let up = |(step, v): &(u64, Vec<Array>)| State {
        step: *step,
        values: v.iter().map(|a| a.upload(cx)).collect(),
    };
    state.iter().map(up).collect()
}

fn check_resuming<R: Rule>(rule: R) {
    for cx in contexts() {
        let new = |values: Option<Vec<Array>>| {
            let tensors = match values {
                Some(v) => v.iter().map(|a| Tensor::new(a.upload(&cx), true)).collect(),
                None => make_parameters(&cx),
            };
            let optimizer = Optimizer::new(vec![(rule.clone(), tensors.clone())]).unwrap();
            (tensors, optimizer)
        };
        let run = |tensors: &[Tensor], optimizer: &mut Optimizer<R>, steps: std::ops::Range<u64>| {
            for step in steps {
                set_gradients(tensors, step, if step == 3 { &[2] } else { &[] });
                optimizer.step(Some(3.0), NotFinite::Latch).unwrap();
            }
        };
        let (tensors, mut optimizer) = new(None);
        run(&tensors, &mut optimizer, 0..5);
        let values = tensors.iter().map(|t| read(&t.value())).collect();
        let state = export_state(&optimizer);
        run(&tensors, &mut optimizer, 5..10);

        let (again, mut resumed) = new(Some(values));
        resumed.load_state(&import_state(&cx, &state)).unwrap();
        run(&again, &mut resumed, 5..10);
        assert_eq!(read_bits(&again), read_bits(&tensors));
        let data = |s: Vec<(u64, Vec<Array>)>| {
            s.into_iter()
                .map(|(n, v)| (n, v.into_iter().map(|a| a.data).collect::<Vec<_>>()))
                .collect::<Vec<_>>()
        };
        assert_eq!(data(export_state(&resumed)), data(export_state(&optimizer)));
        // The optimizer's state, and the empty one.
        let own = optimizer.state();
        optimizer.load_state(&own).unwrap();
        assert_eq!(data(export_state(&resumed)), data(export_state(&optimizer)));
        let (_, fresh) = new(None);
        optimizer.load_state(&fresh.state()).unwrap();
        assert!(optimizer.state().iter().all(|s| s.step == 0));
        assert!(
            export_state(&optimizer).iter().all(|(_, v)| v.iter().all(|a| a.data.iter().all(|v| *v == 0.0)))
        );
    }
}

#[test]
fn a_loaded_state_resumes_bit_for_bit() {
    check_resuming(AdamW { lr: 0.01, ..AdamW::default() });
    check_resuming(Sgd { lr: 0.01, momentum: 0.9, dampening: 0.5, ..Sgd::default() });
}

#[test]
fn a_state_of_other_shapes_is_refused_and_changes_nothing() {
    let cx = &contexts()[0];
    let tensors = make_parameters(cx);
    let mut optimizer = make_adamw(&tensors);
    set_gradients(&tensors, 1, &[]);
    optimizer.step(None, NotFinite::Latch).unwrap();
    let before = export_state(&optimizer);
    let refused = |optimizer: &mut Optimizer<AdamW>, change: &dyn Fn(&mut Vec<State>)| {
        let mut state = import_state(cx, &before);
        change(&mut state);
        let error = optimizer.load_state(&state).unwrap_err();
        assert_eq!(error.code, Code::ShapeMismatch);
        error.message
    };
    refused(&mut optimizer, &|s| drop(s.pop()));
    refused(&mut optimizer, &|s| drop(s[5].values.pop()));
    let message = refused(&mut optimizer, &|s| s[5].values[1] = s[5].values[1].reshape([13, 5]));
    assert!(message.contains("exp_avg_sq of parameter 5"), "{message}");
    assert!(message.contains("[13, 5]") && message.contains("[5, 13]"), "{message}");
    let after = export_state(&optimizer);
    assert!(before.iter().zip(&after).all(|(a, b)| a.1[0].data == b.1[0].data && a.0 == b.0));
}
