use super::*;

/// Two groups: the second has the last three parameters.
fn grouped(tensors: &[Tensor]) -> Vec<(usize, Tensor)> {
    tensors.iter().enumerate().map(|(i, t)| (usize::from(i >= 3), t.clone())).collect()
}

fn of_two_groups(tensors: &[Tensor]) -> Optimizer<AdamW> {
    let rule = |lr| AdamW { lr, ..AdamW::default() };
    Optimizer::new(vec![(rule(0.01), tensors[..3].to_vec()), (rule(0.02), tensors[3..].to_vec())]).unwrap()
}

/// Each pair of devices.
fn pairs() -> Vec<(Rc<Context>, Rc<Context>)> {
    let all = contexts();
    all.iter().flat_map(|a| all.iter().map(move |b| (a.clone(), b.clone()))).collect()
}

#[test]
fn gradients_of_replicas_are_added_and_values_come_back() {
    for (cx, other) in pairs() {
        let (tensors, copies, summed) = (parameters(&cx), parameters(&other), parameters(&cx));
        let mut optimizer = of_two_groups(&tensors);
        let mut expected = of_two_groups(&summed);
        let replica = Replica::new(&grouped(&copies)).unwrap();
        for step in 1..=3 {
            // One parameter has a gradient on the replica only, one on the optimizer's device only, one on neither.
            set_gradients(&tensors, step, &[1, 4]);
            set_gradients(&copies, step + 10, &[2, 4]);
            for (i, t) in summed.iter().enumerate() {
                let (own, theirs) = (gradient(i, step).data, gradient(i, step + 10).data);
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
            assert_eq!(bits(&tensors), bits(&summed), "step {step}");
            assert_eq!(bits(&tensors), bits(&copies), "step {step}");
        }
    }
}

#[test]
fn a_replica_without_gradients_adds_nothing() {
    for (cx, other) in pairs() {
        let (tensors, copies) = (parameters(&cx), parameters(&other));
        let optimizer = of_two_groups(&tensors);
        let replica = Replica::new(&grouped(&copies)).unwrap();
        set_gradients(&tensors, 1, &[0]);
        optimizer.add_gradients(&replica).unwrap();
        for (i, t) in tensors.iter().enumerate() {
            assert_eq!(t.grad().map(|g| read(&g).data), (i != 0).then(|| gradient(i, 1).data));
        }
    }
}

#[test]
fn other_parameters_are_refused() {
    for (cx, other) in pairs() {
        let (tensors, copies) = (parameters(&cx), parameters(&other));
        let optimizer = of_two_groups(&tensors);
        let replica = Replica::new(&grouped(&copies[1..])).unwrap();
        let refused = [optimizer.add_gradients(&replica), optimizer.copy_values_to(&replica)];
        assert!(refused.iter().all(|one| one.as_ref().is_err_and(|e| e.code == Code::ShapeMismatch)));
    }
    assert!(Replica::new(&[]).is_err_and(|e| e.code == Code::Option));
}
