//! Autotuning on this adapter alongside recorded work. No time is asserted: the variant that must be the fastest does a
//! thousandth of the work.

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use super::*;
use crate::error::Result;
use crate::kernel::Params;
use crate::kernels::gemm::{Gemm, Matrix, gemm, tuned};
use crate::problem::{Problem, make_operand};
use crate::recording::CancelToken;
use crate::tune::{Class, Extent, Family, Tuner, Verdict, Words};

scalars! {
    struct Double { n: usize }
}

/// x[i] · 2, after `params[0]` rounds without effect. If `params[1]` is 1, every 77th element is off by one bit.
static DOUBLE: Kernel = Kernel {
    name: "test_double",
    bindings: &[("x", Access::Read), ("y", Access::Write)],
    scalars: Double::members,
    implementations: Implementations::Gpu(|[rounds, wrong, refused, _]| {
        let more = if refused == 1 { "no_such_function();" } else { "" };
        format!(
            "fn kernel(group: u32, lane: u32) {{
               let i = group * THREADS + lane;
               if i >= p.n {{ return; }}
               var v = load_x(i);
               for (var r = 0u; r < {rounds}u; r++) {{ v = fma(v, 0.5, f32(r)); }}
               // Never: rounds of finite numbers are finite.
               if is_nan(v) {{ store_y(i, v); return; }}
               var y = 2.0 * load_x(i);
               {more}
               if {wrong}u == 1u && i % 77u == 76u {{ y = bitcast<f32>(bitcast<u32>(y) ^ 1u); }}
               store_y(i, y);
             }}"
        )
    }),
    variants: Vec::new,
};

const SLOW: Params = [4000, 0, 0, 0];
const WRONG: Params = [1, 1, 0, 0];
const FAST: Params = [2, 0, 0, 0];
/// A shader that no compiler accepts.
const REFUSED: Params = [0, 0, 1, 0];

fn launch_double(x: &Value, y: &Value, params: Params) {
    let n = x.size();
    x.context().launch(Launch {
        kernel: &DOUBLE,
        params,
        bindings: [x.range(), y.range()].into_iter().collect(),
        scalars: Double { n }.words(),
        groups: (n as u32).div_ceil(64),
        threads: 64,
        work: 2000 * n as u64,
    });
}

fn make_problem(cx: &Rc<Context>, words: &Words, extent: Extent) -> Result<Problem> {
    let n = match extent {
        Extent::Odd => 1001,
        Extent::Within { work } => ((work / 2000) as usize).clamp(64, words[0] as usize),
    };
    let (x, y) = (make_operand(cx, [n], DType::F32, 1)?, make_operand(cx, [n], DType::F32, 2)?);
    let output = y.clone();
    let run = move |params: Params| {
        launch_double(&x, &y, params);
        Ok(())
    };
    Ok(Problem { run: Box::new(run), output, work: 2000 * n as u64 })
}

static DOUBLES: Family = Family {
    name: "double",
    class: |words| words[0].to_string(),
    describe: |params| format!("{} rounds", params[0]),
    trial: |profile, words, extent| Problem::make_trial(profile, |cx| make_problem(cx, words, extent)),
    usual: Vec::new,
};

fn make_class(n: usize) -> Class {
    Class { family: &DOUBLES, words: [n as u32, 0, 0, 0, 0, 0, 0, 0] }
}

/// Returns a device that autotunes recorded work, even on a software GPU.
fn open_tuned_device(folder: Option<&Path>) -> Option<Arc<Device>> {
    open_device(None)?;
    let folder = folder.map(Path::to_path_buf);
    let open = move || {
        let (profile, mut gpu, owner) = Gpu::open_untuned(None, Some(u64::MAX))?;
        gpu.enable_tuning(&profile, true, folder.map(|folder| Store::in_folder(&folder, owner)));
        // Next to other tests, a software GPU may compile for longer than a trial's usual limit.
        gpu.trials.as_mut().unwrap().tuner = Tuner::with_budget(Duration::from_secs(60));
        Ok((profile, gpu))
    };
    Some(Device::start(open).unwrap())
}

/// Collects the notices of a device's table from now on.
fn collect_notices(device: &Device) -> Arc<Mutex<Vec<String>>> {
    let notices = Arc::new(Mutex::new(Vec::new()));
    let into = notices.clone();
    let table = device.table.as_ref().unwrap();
    table.on_notice(CancelToken::default(), Arc::new(move |text| into.lock().unwrap().push(text.into())));
    notices
}

#[test]
fn the_fastest_correct_variant_is_found_during_a_run() {
    let folder = std::env::temp_dir().join(format!("lowrank-tuned-{}", std::process::id()));
    // A failed process with this id may have left a folder.
    std::fs::remove_dir_all(&folder).ok();
    let Some(device) = open_tuned_device(Some(&folder)) else { return };
    let notices = collect_notices(&device);
    let cx = make_context(&device);
    let n = 1 << 14;
    let (x, want) =
        (upload_f32(&cx, &make_ramp(n)), make_ramp(n).iter().map(|v| v * 2.0).collect::<Vec<_>>());
    let variants = [SLOW, WRONG, FAST, REFUSED];
    let mut used = Vec::new();
    let mut n_class = n;
    let since = Instant::now();
    while used.last() != Some(&FAST) {
        // Other tests may delay every run of a variant: then another class is tried.
        if used.len() > 1 && device.table.as_ref().unwrap().is_done() {
            n_class +=
                usize::from(cx.choose_tuned(|| make_class(n_class), &variants, |variant| *variant) == SLOW);
        }
        let variant = cx.choose_tuned(|| make_class(n_class), &variants, |variant| *variant);
        assert!(variant == SLOW || variant == FAST, "{variant:?}");
        used.push(variant);
        let y = cx.empty([n], DType::F32).unwrap();
        launch_double(&x, &y, variant);
        // Recorded work runs correctly during the trials.
        assert!(read_f32(&y) == want);
        assert!(since.elapsed() < Duration::from_secs(60), "{} steps and no choice", used.len());
    }
    assert_eq!(used[0], SLOW, "nothing was known at first");
    let notices = notices.lock().unwrap();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].contains("1 rounds of double"), "{notices:?}");
    // The next process reads the result and tries nothing.
    let next = make_context(&open_tuned_device(Some(&folder)).unwrap());
    assert_eq!(next.choose_tuned(|| make_class(n_class), &variants, |variant| *variant), FAST);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_trial_frees_the_buffers_of_its_class() {
    let Some(mut gpu) = bounds::open_gpu() else { return };
    let profile = read_profile(None, Some(u64::MAX)).unwrap();
    gpu.enable_tuning(&profile, false, None);
    gpu.trials.as_mut().unwrap().tuner = Tuner::with_budget(Duration::from_secs(60));
    let table = gpu.table().unwrap();
    let count_buffers = |gpu: &Gpu| gpu.buffers.len() - gpu.scratch.iter().flatten().count();
    let before = count_buffers(&gpu);
    table.request([
        (make_class(1 << 12), vec![SLOW, WRONG, FAST, REFUSED]),
        (make_class(77), vec![SLOW, FAST]),
    ]);
    let mut most = 0;
    while gpu.tune().unwrap() {
        most = most.max(count_buffers(&gpu) - before);
    }
    assert_eq!((most, count_buffers(&gpu)), (2, before), "two operands, and no buffer at the end");
    let (outcomes, failures) = table.wait(Duration::ZERO);
    assert!(failures.is_empty(), "{failures:?}");
    let verdicts: Vec<_> = outcomes[0].variants.iter().map(|tried| &tried.verdict).collect();
    assert!(matches!(verdicts[..], [Verdict::Sound, Verdict::Wrong, _, Verdict::Refused(_)]), "{verdicts:?}");
    assert!(outcomes.iter().all(|outcome| [SLOW, FAST].contains(&outcome.chosen)), "{outcomes:?}");
    // A rejected shader leaves the GPU usable.
    let x = bounds::create_buffer(&mut gpu, 64);
    gpu.run(Command::Zero { to: x }).unwrap();
    bounds::wait_until_idle(&mut gpu);
}

#[test]
fn recorded_work_does_not_wait_for_all_trials() {
    let Some(device) = open_tuned_device(None) else { return };
    let cx = make_context(&device);
    let table = device.table.as_ref().unwrap();
    let x = upload_f32(&cx, &make_ramp(64));
    table.request((1..40).map(|i| (make_class(i << 10), vec![SLOW, FAST])));
    (0..3).for_each(|_| assert_eq!(read_f32(&x), make_ramp(64)));
    let meanwhile = table.wait(Duration::ZERO).0.len();
    let after = table.wait(Duration::from_secs(60)).0.len();
    assert_eq!(meanwhile + after, 39);
    assert!(after > 20, "three reads waited for {meanwhile} of 39 classes");
}

/// Compares the products of a device before and after autotuning.
#[test]
fn products_keep_their_bits_after_autotuning() {
    let (Some(untuned), Some(device)) = (open_device(None), open_tuned_device(None)) else { return };
    let notices = collect_notices(&device);
    let shapes =
        [([130, 132, 64], true), ([260, 70, 36], false), ([6, 140, 72], true), ([40, 24, 520], false)];
    let product = |cx: &Rc<Context>, ([m, n, k], trans_b): ([usize; 3], bool)| {
        let a = make_operand(cx, [m * k], DType::F32, 1).unwrap();
        let b = make_operand(cx, [n * k], DType::F32, 2).unwrap();
        let c = cx.empty([m * n], DType::F32).unwrap();
        let right = Matrix::new(&b, if trans_b { k } else { n }).transposed_if(trans_b);
        gemm(cx, Gemm::new(m, n, k), Matrix::new(&a, k), right, None, Matrix::new(&c, n)).unwrap();
        read(&c).unwrap()
    };
    let (untuned, tuned) = (make_context(&untuned), make_context(&device));
    let want: Vec<_> = shapes.iter().map(|shape| product(&untuned, *shape)).collect();
    let before: Vec<_> = shapes.iter().map(|shape| product(&tuned, *shape)).collect();
    assert!(before == want);
    let (outcomes, failures) = device.table.as_ref().unwrap().wait(Duration::from_secs(60));
    assert!(failures.is_empty(), "{failures:?}");
    assert!(!outcomes.is_empty(), "no class of a product was tried");
    for outcome in &outcomes {
        assert_eq!(outcome.class.family.name, tuned::FAMILY.name);
        let sound = outcome.variants.iter().all(|tried| tried.verdict != Verdict::Wrong);
        assert!(sound, "{outcome:?}");
        println!("{}: {}", outcome.class, (tuned::FAMILY.describe)(outcome.chosen));
    }
    let after: Vec<_> = shapes.iter().map(|shape| product(&tuned, *shape)).collect();
    assert!(after == want, "a choice changed bits");
    assert!(notices.lock().unwrap().is_empty());
}
