use super::*;

/// Two groups: the second has the last three parameters.
fn assign_groups(tensors: &[Tensor]) -> Vec<(usize, Tensor)> {
    tensors.iter().enumerate().map(|(i, t)| (usize::from(i >= 3), t.clone())).collect()
}

fn make_optimizer(tensors: &[Tensor]) -> Optimizer<AdamW> {
    let rule = |lr| AdamW { lr, ..AdamW::default() };
    Optimizer::new(vec![(rule(0.01), tensors[..3].to_vec()), (rule(0.02), tensors[3..].to_vec())]).unwrap()
}

/// Each pair of devices.
fn list_device_pairs() -> Vec<(Rc<Context>, Rc<Context>)> {
    let all = contexts();
    all.iter().flat_map(|a| all.iter().map(move |b| (a.clone(), b.clone()))).collect()
}

#[test]
fn replica_gradients_are_added_and_values_are_copied_back() {
    for (cx, other) in list_device_pairs() {
        let (tensors, copies, summed) = (make_parameters(&cx), make_parameters(&other), make_parameters(&cx));
        let mut optimizer = make_optimizer(&tensors);
        let mut expected = make_optimizer(&summed);
        let replica = Replica::new(&assign_groups(&copies)).unwrap();
        for step in 1..=3 {
            // One parameter has a gradient on the replica only, one on the optimizer's device only, one on neither.
            set_gradients(&tensors, step, &[1, 4]);
            set_gradients(&copies, step + 10, &[2, 4]);
            for (i, t) in summed.iter().enumerate() {
                let (own, theirs) = (make_gradient(i, step).data, make_gradient(i, step + 10).data);
                let sum = match i {
                    1 => theirs,
                    2 => own,
                    4 => continue,
                    _ => own.iter().zip(&theirs).map(|(a, b)| ((*a as f32) + (*b as f32)) as f64).collect(),
                };
                t.set_grad(Some(Array::new(SHAPES[i], sum).upload(&cx)));
            }
            optimizer.add_gradients(&replica).unwrap();
            optimizer.step(Some(0.5), NotFinite::Latch).unwrap();
            optimizer.copy_values_to(&replica).unwrap();
            optimizer.zero_grad();
            replica.zero_grad();
            expected.step(Some(0.5), NotFinite::Latch).unwrap();
            expected.zero_grad();
            assert!(tensors.iter().chain(&copies).all(|t| t.grad().is_none()));
            assert_eq!(read_bits(&tensors), read_bits(&summed), "step {step}");
            assert_eq!(read_bits(&tensors), read_bits(&copies), "step {step}");
        }
    }
}

#[test]
fn a_replica_without_gradients_adds_nothing() {
    for (cx, other) in list_device_pairs() {
        let (tensors, copies) = (make_parameters(&cx), make_parameters(&other));
        let optimizer = make_optimizer(&tensors);
        let replica = Replica::new(&assign_groups(&copies)).unwrap();
        set_gradients(&tensors, 1, &[0]);
        optimizer.add_gradients(&replica).unwrap();
        for (i, t) in tensors.iter().enumerate() {
            assert_eq!(t.grad().map(|g| read(&g).data), (i != 0).then(|| make_gradient(i, 1).data));
        }
    }
}

#[test]
fn a_replica_of_other_parameters_is_refused() {
    for (cx, other) in list_device_pairs() {
        let (tensors, copies) = (make_parameters(&cx), make_parameters(&other));
        let optimizer = make_optimizer(&tensors);
        let replica = Replica::new(&assign_groups(&copies[1..])).unwrap();
        let refused = [optimizer.add_gradients(&replica), optimizer.copy_values_to(&replica)];
        assert!(refused.iter().all(|one| one.as_ref().is_err_and(|e| e.code == Code::ShapeMismatch)));
    }
    assert!(Replica::new(&[]).is_err_and(|e| e.code == Code::Option));
}
