//! Regions that are replayed.

use super::*;

#[test]
fn a_checkpoint_gives_the_same_bits_with_minimal_recomputation() {
    for cx in contexts() {
        let (a, b) = (make_leaf(&cx, "a"), make_leaf(&cx, "b"));
        let counts = Rc::new(RefCell::new(Vec::new()));
        let block = |tape: &Tape| {
            let first = tape.apply1(CountingTanh(counts.clone(), "first", true), &[&a]).unwrap();
            let second = tape.apply1(CountingTanh(counts.clone(), "second", true), &[&first]).unwrap();
            // Backward does not read its output: add reads nothing.
            mul(tape, &second, &b)
        };
        let run = |inside: bool| {
            let tape = Tape::default();
            a.set_grad(None);
            b.set_grad(None);
            let y = if inside { checkpoint(&tape, 7, || block(&tape)) } else { block(&tape) };
            let y = apply_binary(&tape, Function::Add, &y, &a);
            tape.backward(&sum_all(&tape, &y), None).unwrap();
            (read_grad(&a).data, read_grad(&b).data)
        };
        let plain = run(false);
        assert_eq!(counts.take(), ["first", "second"]);
        let launches = cx.count_launches(true);
        assert!(launches.is_empty());
        assert_eq!(run(true), plain);
        assert_eq!(counts.take(), ["first", "second", "first", "second"]);
        // mul's forward runs once: nothing reads the block's product. Its backward has two launches.
        assert_eq!(cx.count_launches(false)["map2"] / count_windows(&cx), 1 + 2 + 2 + 1);
    }
}

/// Launches of one elementwise pass over N elements.
fn count_windows(cx: &Rc<Context>) -> u64 {
    if cx.profile.binding_limit < 2048 { 2 } else { 1 }
}

#[test]
fn a_checkpoint_keeps_only_its_inputs_and_frees_replayed_values() {
    for cx in contexts() {
        let tape = Tape::default();
        let a = make_leaf(&cx, "a");
        let bytes = read_live_bytes(&cx);
        let h = apply_binary(&tape, Function::Add, &a, &a);
        let y = checkpoint(&tape, 1, || (0..5).fold(h.clone(), |x, _| tanh(&tape, &x)));
        drop(h);
        // a, the region's input h and its output y.
        assert_eq!(read_live_bytes(&cx), 3 * bytes);
        let loss = sum_all(&tape, &y);
        drop(y);
        assert_eq!(read_live_bytes(&cx), 2 * bytes + 4);
        tape.backward(&loss, None).unwrap();
        // a, its gradient and the loss: the loss keeps the tape, which keeps no values.
        assert_eq!(read_live_bytes(&cx), 2 * bytes + 4);
        drop(loss);
        a.set_grad(None);
        assert_eq!(read_live_bytes(&cx), bytes);
    }
}

#[test]
fn a_checkpoint_may_have_several_outputs_and_a_dropped_one() {
    for cx in contexts() {
        let tape = Tape::default();
        let a = make_leaf(&cx, "a");
        let x = read(&a.value()).data;
        let (y, z, unused) = checkpoint(&tape, 1, || {
            let h = tanh(&tape, &a);
            (mul(&tape, &h, &h), apply_binary(&tape, Function::Add, &a, &h), tanh(&tape, &h))
        });
        drop(unused);
        let loss = sum_all(&tape, &apply_binary(&tape, Function::Add, &y, &z));
        drop((y, z));
        tape.backward(&loss, None).unwrap();
        expect_grad("a", &a, |i| 1.0 + (1.0 + 2.0 * x[i].tanh()) * (1.0 - x[i].tanh().powi(2)));
    }
}

#[test]
fn checkpoints_may_interleave_nest_and_overlap_backward() {
    for cx in contexts() {
        let a = make_leaf(&cx, "a");
        let tape = Tape::default();
        let plain = {
            let y = (0..4).fold(a.clone(), |x, _| tanh(&tape, &x));
            tape.backward(&sum_all(&tape, &y), None).unwrap();
            read_grad(&a).data
        };
        a.set_grad(None);
        // Two regions open at the same time, alternating like two async calls.
        tape.open_region(1);
        tape.open_region(2);
        let y = [1, 2, 1, 2].into_iter().fold(a.clone(), |x, region| {
            tape.set_mode(Mode { no_grad: false, region });
            tanh(&tape, &x)
        });
        tape.close_region(1);
        tape.close_region(2);
        tape.set_mode(Mode::default());
        tape.backward(&sum_all(&tape, &y), None).unwrap();
        assert_eq!(read_grad(&a).data, plain);
        a.set_grad(None);
        let y = checkpoint(&tape, 1, || {
            let h = tanh(&tape, &a);
            let h = checkpoint(&tape, 2, || tanh(&tape, &tanh(&tape, &h)));
            tanh(&tape, &h)
        });
        tape.backward(&sum_all(&tape, &y), None).unwrap();
        assert_eq!(read_grad(&a).data, plain);
        a.set_grad(None);
        // Backward before the region is closed, then more operations in the region.
        tape.open_region(3);
        tape.set_mode(Mode { no_grad: false, region: 3 });
        let h = tanh(&tape, &a);
        tape.backward(&sum_all(&tape, &tanh(&tape, &a)), None).unwrap();
        a.set_grad(None);
        let y = sum_all(&tape, &(0..3).fold(h, |x, _| tanh(&tape, &x)));
        tape.set_mode(Mode::default());
        tape.close_region(3);
        tape.backward(&y, None).unwrap();
        assert_eq!(read_grad(&a).data, plain);
    }
}

#[test]
fn replaying_an_unread_lora_layer_recomputes_only_h() {
    for cx in contexts() {
        let [x, weight, a, b] = [("x", [5, 6]), ("w", [7, 6]), ("a", [2, 6]), ("b", [7, 2])]
            .map(|(name, shape)| Tensor::new(Array::random(name, &shape).upload(&cx), true));
        weight.set_requires_grad(false).unwrap();
        let run = |inside: bool| {
            let tape = Tape::default();
            for t in [&x, &a, &b] {
                t.set_grad(None);
            }
            let layer = || {
                let h = tanh(&tape, &x);
                let op =
                    LoraLinear { paths: vec![Path::whole(0.5, Dropout::default())], ..Default::default() };
                tape.apply(op, &[&h, &weight, &a, &b]).unwrap().swap_remove(0)
            };
            let y = if inside { checkpoint(&tape, 3, layer) } else { layer() };
            let loss = sum_all(&tape, &y);
            cx.count_launches(true);
            tape.backward(&loss, None).unwrap();
            let gemms: u64 = cx
                .count_launches(false)
                .iter()
                .filter(|(name, _)| name.starts_with("gemm"))
                .map(|(_, n)| n)
                .sum();
            ([&x, &a, &b].map(|t| read_grad(t).data), gemms)
        };
        let ((plain, without), (replayed, with)) = (run(false), run(true));
        assert_eq!(plain, replayed);
        assert_eq!(with, without + 1);
    }
}
