use std::rc::Rc;

use super::*;
use crate::context::Context;
use crate::ops::checks::{Array, contexts};
use crate::ops::linear::Linear;
use crate::ops::sum::Sum;
use crate::optim::{AdamW, NotFinite, Optimizer};
use crate::probe::{EDGE, LENGTH, probe};
use crate::staged_file::StagedFile;
use crate::tape::{Mode, Tape, Tensor};

/// Forward, backward and an update of y = x·Wᵀ, twice, the second time in a region.
fn train(cx: &Rc<Context>) {
    let tape = Tape::default();
    let weight = Tensor::new(Array::random("weight", &[64, 65]).upload(cx), true);
    let x = Tensor::new(Array::random("x", &[63, 65]).upload(cx), false);
    let mut optimizer = Optimizer::new(vec![(AdamW::default(), vec![weight.clone()])]).unwrap();
    for region in [0, 1] {
        tape.open_region(1);
        tape.set_mode(Mode { region, ..Mode::default() });
        let y = tape.apply1(Linear::default(), &[&x, &weight]).unwrap();
        let y = tape
            .apply1(crate::ops::unary::Unary(crate::kernels::elementwise::Function::Tanh), &[&y])
            .unwrap();
        tape.set_mode(Mode::default());
        tape.close_region(1);
        let loss = tape.apply1(Sum { dim: None }, &[&y]).unwrap();
        tape.backward(&loss, None).unwrap();
        optimizer.step(Some(1.0), NotFinite::Latch).unwrap();
        optimizer.zero_grad();
    }
}

fn wait(cx: &Rc<Context>) {
    let (send, receive) = std::sync::mpsc::channel();
    cx.fence(Box::new(move |done| send.send(done).unwrap()));
    receive.recv().unwrap().unwrap();
}

fn trace_training(cx: &Rc<Context>, limit: usize) -> Arc<Trace> {
    let trace = Arc::new(Trace::with_limit(limit));
    cx.set_trace(Some(trace.clone()));
    train(cx);
    cx.set_trace(None);
    wait(cx);
    trace
}

fn find_total(trace: &Trace, operation: &str, pass: Pass) -> Total {
    let totals = trace.totals();
    let found = totals.iter().find(|(mark, _)| mark.operation == operation && mark.pass == pass);
    found.unwrap_or_else(|| panic!("nothing of {operation} {}: {totals:?}", pass.as_str())).1
}

#[test]
fn every_operation_is_traced_with_its_pass_bytes_and_flops() {
    for cx in contexts() {
        let trace = trace_training(&cx, 1 << 20);
        let label = &cx.profile.label;
        assert_eq!(find_total(&trace, "linear", Pass::Forward).calls, 2, "{label}");
        assert_eq!(find_total(&trace, "linear", Pass::Backward).calls, 2, "{label}");
        // Only tanh's backward reads an output, and it reads its own.
        assert_eq!(find_total(&trace, "tanh", Pass::Replay).calls, 1, "{label}");
        assert_eq!(find_total(&trace, "adamw", Pass::Update).calls, 2, "{label}");
        let linear = find_total(&trace, "linear", Pass::Forward);
        assert_eq!(linear.cost.flops, 2 * 2 * 63 * 64 * 65, "{label}");
        assert!(linear.cost.read >= 2 * 4 * (63 * 65 + 64 * 65), "{label}");
        assert!(linear.cost.written >= 2 * 4 * 63 * 64, "{label}");
        assert!(linear.device > Duration::ZERO, "{label}");
        assert_eq!(linear.attainable, 0.0, "{label}: nothing was probed");
        let events = trace.events();
        let device: Vec<_> = events.iter().filter(|e| e.track == Track::Device).collect();
        for pair in device.windows(2) {
            let end = pair[0].start + pair[0].took;
            assert!(pair[1].start >= end, "{label}: {pair:?}");
        }
    }
}

#[test]
fn operations_outside_the_trace_are_not_recorded() {
    for cx in contexts() {
        train(&cx);
        let trace = trace_training(&cx, 1 << 20);
        let count = trace.events().len();
        train(&cx);
        wait(&cx);
        assert_eq!(trace.events().len(), count, "{}", cx.profile.label);
    }
}

#[test]
fn only_totals_continue_past_the_event_limit() {
    for cx in contexts() {
        let (short, long) = (trace_training(&cx, 5), trace_training(&cx, 1 << 20));
        assert_eq!(short.events().len(), 5);
        assert!(short.dropped_events() > 0);
        assert_eq!(long.dropped_events(), 0);
        for (mark, expected) in long.totals() {
            assert_eq!(find_total(&short, mark.operation, mark.pass).calls, expected.calls);
        }
    }
}

#[test]
fn a_trace_file_is_json_with_two_tracks() {
    let cx = &contexts()[0];
    let path = std::env::temp_dir().join(format!("lowrank-trace-{}.json", std::process::id()));
    let trace = trace_training(cx, 1 << 20);
    trace.write(StagedFile::create(&path).unwrap()).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let events = json["traceEvents"].as_array().unwrap();
    assert_eq!(events.len(), trace.events().len() + 2);
    for (track, name) in [(1, "host"), (2, "device")] {
        let of_track = |e: &&serde_json::Value| e["tid"] == track;
        let named = events.iter().filter(of_track).find(|e| e["ph"] == "M").unwrap();
        assert_eq!(named["args"]["name"], name);
        assert!(events.iter().filter(of_track).any(|e| e["ph"] == "X" && e["name"] == "linear"));
    }
    assert_eq!(json["otherData"]["eventsLeftOut"], 0);
}

#[test]
fn a_probe_measures_rates_and_frees_its_memory() {
    // With bindings of 4 KiB the products would take minutes.
    for cx in contexts().into_iter().filter(|cx| cx.profile.binding_limit > 1 << 20) {
        let (before, label) = (cx.memory().live, &cx.profile.label);
        let trace = Arc::new(Trace::default());
        cx.set_trace(Some(trace.clone()));
        let since = std::time::Instant::now();
        probe(&cx).unwrap();
        assert_eq!(cx.memory().live, before, "{label}");
        assert_eq!(cx.memory().reserved, cx.memory().live, "{label}");
        train(&cx);
        cx.set_trace(None);
        wait(&cx);
        let (roof, took) = (trace.roof(), since.elapsed().as_secs_f64());
        // One product and one sum took no longer than everything.
        let least = [2 * EDGE.pow(3), 3 * LENGTH * size_of::<f32>()].map(|amount| amount as f64 / took);
        for (rate, least) in [roof.flops, roof.bytes].into_iter().zip(least) {
            assert!(rate.is_finite() && rate >= least, "{label}: {roof:?}, where {least} is the least");
        }
        let linear = find_total(&trace, "linear", Pass::Forward);
        assert!(linear.attainable >= linear.cost.flops as f64 / roof.flops, "{label}");
        assert!(!trace.totals().iter().any(|(mark, _)| mark.operation.starts_with("probe")), "{label}");
        // The initialisation of its operands belongs to the probe, too.
        let totals = trace.totals();
        let outside = totals.iter().filter(|(mark, _)| *mark == OUTSIDE).map(|(_, total)| total.cost.written);
        assert!(outside.sum::<u64>() < (EDGE * EDGE) as u64, "{label}");
    }
}
