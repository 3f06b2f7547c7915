//! Tests on this machine's adapter. Without one they fail, unless LOWRANK_NO_GPU=1 states that none is expected.

mod bounds;
mod canary;
mod tuning;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Duration;

use half::{bf16, f16};

use super::*;
use crate::context::{Context, Value};
use crate::device::{Device, Sink};
use crate::dtype::DType;
use crate::kernel::{Access, Implementations, Kernel, Launch, Range};
use crate::scalars;

scalars! {
    struct ScaleAdd { n: usize, scale: f32 }
}

scalars! {
    pub(super) struct Busy { n: usize, rounds: u32 }
}

/// out[i] = a[i] · scale + b[i]
static SCALE_ADD: Kernel = Kernel {
    name: "test_scale_add",
    bindings: &[("a", Access::Read), ("b", Access::Read), ("result", Access::Write)],
    scalars: ScaleAdd::members,
    implementations: Implementations::Gpu(|_| {
        "fn kernel(group: u32, lane: u32) {
           let i = group * THREADS + lane;
           if i < p.n { store_result(i, fma(load_a(i), p.scale, load_b(i))); }
         }"
        .into()
    }),
    variants: Vec::new,
};

/// x[i] += 1, `rounds` times.
static BUSY: Kernel = Kernel {
    name: "test_busy",
    bindings: &[("x", Access::ReadWrite)],
    scalars: Busy::members,
    implementations: Implementations::Gpu(|_| {
        "fn kernel(group: u32, lane: u32) {
           let i = group * THREADS + lane;
           if i >= p.n { return; }
           var v = load_x(i);
           for (var r = 0u; r < p.rounds; r++) { v = fma(v, 0.999, 1.0); }
           store_x(i, v);
         }"
        .into()
    }),
    variants: Vec::new,
};

static BROKEN: Kernel = Kernel {
    name: "test_broken",
    bindings: &[("x", Access::ReadWrite)],
    scalars: Vec::new,
    implementations: Implementations::Gpu(|_| {
        "fn kernel(group: u32, lane: u32) { store_x(group, no_such_function()); }".into()
    }),
    variants: Vec::new,
};

fn open_device(binding_limit: Option<u64>) -> Option<Arc<Device>> {
    // An explicit limit overrides the environment's.
    let limit = binding_limit.unwrap_or(u64::MAX);
    match Device::start(move || Gpu::open_with(None, Some(limit))) {
        Ok(device) => Some(device),
        Err(error) if std::env::var("LOWRANK_NO_GPU").is_ok_and(|v| v == "1") => {
            println!("not run: no GPU adapter ({error})");
            None
        }
        Err(error) => panic!("no GPU to test on (LOWRANK_NO_GPU=1 skips these tests): {error}"),
    }
}

fn make_context(device: &Arc<Device>) -> Rc<Context> {
    Context::new(device.profile.clone(), Sink::Thread(device.clone()))
}

fn read(value: &Value) -> Result<Vec<u8>> {
    let (sender, receiver) = channel();
    value.context().read(value, Box::new(move |bytes| drop(sender.send(bytes))));
    receiver.recv_timeout(Duration::from_secs(60)).expect("an answer within a minute")
}

fn read_f32(value: &Value) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(&read(value).unwrap())
}

fn fence(context: &Context) -> Result<Vec<u8>> {
    let (sender, receiver) = channel();
    context.fence(Box::new(move |bytes| drop(sender.send(bytes))));
    receiver.recv_timeout(Duration::from_secs(60)).expect("an answer within a minute")
}

fn upload_f32(context: &Rc<Context>, values: &[f32]) -> Value {
    context.upload([values.len()], DType::F32, bytemuck::cast_slice(values).to_vec()).unwrap()
}

fn make_ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i % 1000) as f32).collect()
}

fn make_scale_add(a: Range, b: Range, result: Range, n: usize, scale: f32, threads: u32) -> Launch {
    Launch {
        kernel: &SCALE_ADD,
        params: [0; 4],
        bindings: [a, b, result].into_iter().collect(),
        scalars: ScaleAdd { n, scale }.words(),
        groups: (n as u32).div_ceil(threads),
        threads,
        work: 2 * n as u64,
    }
}

fn make_busy(x: &Value, rounds: u32) -> Launch {
    Launch {
        kernel: &BUSY,
        params: [0; 4],
        bindings: [x.range()].into_iter().collect(),
        scalars: Busy { n: x.size(), rounds }.words(),
        groups: (x.size() as u32).div_ceil(64),
        threads: 64,
        work: 2 * x.size() as u64 * u64::from(rounds),
    }
}

#[test]
fn a_binding_may_start_at_any_element() {
    let Some(device) = open_device(None) else { return };
    let context = make_context(&device);
    let values = make_ramp(1000);
    let (a, b) = (upload_f32(&context, &values), upload_f32(&context, &values));
    for (from, n) in [(0, 1), (1, 63), (7, 257), (8, 64), (935, 65)] {
        let result = upload_f32(&context, &[-1.0; 1000]);
        context.launch(make_scale_add(a.part(from, n), b.part(3, n), result.part(2, n), n, 2.0, 64));
        let got = read_f32(&result);
        for i in 0..1000 {
            let inside = (2..2 + n).contains(&i);
            let want = if inside { values[from + i - 2] * 2.0 + values[3 + i - 2] } else { -1.0 };
            assert_eq!(got[i], want, "element {i} of {n} from {from}");
        }
    }
}

#[test]
fn half_storage_is_read_from_odd_elements() {
    let Some(device) = open_device(None) else { return };
    let context = make_context(&device);
    let values = make_ramp(300);
    let halves: Vec<u16> = values.iter().map(|v| f16::from_f32(*v).to_bits()).collect();
    let shorts: Vec<u16> = (0..300).map(|i| bf16::from_f32(i as f32 * 0.5).to_bits()).collect();
    // f16 if the driver converts it; every device reads bf16.
    for dtype in [DType::F16, DType::BF16].into_iter().filter(|d| *d != DType::F16 || device.profile.f16) {
        let of = |i: usize| if dtype == DType::F16 { values[i] } else { bf16::from_bits(shorts[i]).to_f32() };
        let of_a = if dtype == DType::F16 { &halves } else { &shorts };
        let a = context.upload([300], dtype, bytemuck::cast_slice(of_a).to_vec()).unwrap();
        let b = context.upload([300], DType::BF16, bytemuck::cast_slice(&shorts).to_vec()).unwrap();
        for (from, n) in [(0, 5), (1, 65), (31, 64), (299, 1)] {
            let result = upload_f32(&context, &make_ramp(300));
            context.launch(make_scale_add(a.part(from, n), b.part(from, n), result.part(0, n), n, 1.0, 64));
            let got = read_f32(&result);
            for i in 0..n {
                let want = of(from + i) + bf16::from_bits(shorts[from + i]).to_f32();
                assert_eq!(got[i], want, "element {i} of {n} from {from}, {dtype}");
            }
        }
        assert_eq!(read(&a.sub_range(3, [5])).unwrap(), bytemuck::cast_slice::<_, u8>(&of_a[3..8]));
    }
}

#[test]
fn a_launch_may_exceed_the_groups_of_one_dimension() {
    let Some(device) = open_device(None) else { return };
    let context = make_context(&device);
    let n = 3 * 65_535 + 17;
    let a = upload_f32(&context, &make_ramp(n));
    let result = context.empty([n], DType::F32).unwrap();
    context.launch(make_scale_add(a.range(), a.range(), result.range(), n, 1.0, 1));
    context.launch(Launch { groups: 0, ..make_scale_add(a.range(), a.range(), result.range(), n, 9.0, 1) });
    let want: Vec<f32> = make_ramp(n).iter().map(|v| v * 2.0).collect();
    assert!(read_f32(&result) == want);
}

/// A launch with more work than a submission may have is divided into several dispatches.
#[test]
fn a_large_launch_is_divided_and_each_group_runs_once() {
    let Some(device) = open_device(None) else { return };
    let context = make_context(&device);
    for (n, threads) in [(64 * 1000 + 3, 64), (3 * 65_535 + 17, 1), (64 * 128, 64)] {
        let (x, values) = (upload_f32(&context, &make_ramp(n)), make_ramp(n));
        read(&x).unwrap();
        let before = device.submissions.load(Ordering::Relaxed);
        // Declares a hundred times the work of any budget.
        let add = Launch {
            groups: (n as u32).div_ceil(threads),
            threads,
            work: 1_000_000_000_000_000,
            ..make_busy(&x, 1)
        };
        context.launch(add);
        let got = read_f32(&x);
        let submissions = device.submissions.load(Ordering::Relaxed) - before;
        for i in 0..n {
            // Running an element twice would be off by at least one.
            assert!((got[i] - (values[i] * 0.999 + 1.0)).abs() < 1e-3, "element {i} of {n}: {}", got[i]);
        }
        // A submission does less than twice the budget, and a budget is at most 1e13.
        let groups = (n as u64).div_ceil(u64::from(threads));
        assert!(submissions >= groups.div_ceil(128).min(50), "{submissions} submissions of {groups} groups");
    }
}

/// Compares copies, uploads and zeroing of two-byte elements at any offset with a model on the host.
#[test]
fn copies_leave_neighbouring_elements_unchanged() {
    for limit in [None, Some(256)] {
        let Some(device) = open_device(limit) else { return };
        let context = make_context(&device);
        let mut model: Vec<u16> = (0..700).map(|i| i * 3 + 1).collect();
        let other: Vec<u16> = (0..700).map(|i| 40_000 + i).collect();
        // As in the test of half storage.
        let dtype = if device.profile.f16 { DType::F16 } else { DType::BF16 };
        let x = context.upload([700], dtype, bytemuck::cast_slice(&model).to_vec()).unwrap();
        let y = context.upload([700], dtype, bytemuck::cast_slice(&other).to_vec()).unwrap();
        for (from, to, n) in
            [(0, 0, 700), (1, 1, 5), (1, 2, 1), (2, 5, 64), (3, 3, 2), (7, 100, 555), (0, 699, 1)]
        {
            context.copy(&y.sub_range(from, [n]), &x.sub_range(to, [n]));
            model[to..to + n].copy_from_slice(&other[from..from + n]);
            context.copy(&x.sub_range(from, [n]), &x.sub_range(to, [n]));
            model.copy_within(from..from + n, to);
            context.write(&x.sub_range(to, [1]), 7u16.to_le_bytes().to_vec());
            model[to] = 7;
            let n = n.min(9);
            let part = x.sub_range(from, [n]);
            context.write(&part, bytemuck::cast_slice(&other[..n]).to_vec());
            model[from..from + n].copy_from_slice(&other[..n]);
            context.zero(&x.sub_range(to, [n.min(700 - to)]));
            model[to..(to + n).min(700)].fill(0);
            assert_eq!(bytemuck::pod_collect_to_vec::<u8, u16>(&read(&x).unwrap()), model, "{from} {to} {n}");
        }
    }
}

#[test]
fn long_copies_within_one_buffer_may_overlap() {
    let Some(device) = open_device(None) else { return };
    let context = make_context(&device);
    let n = 9 << 20;
    let mut model: Vec<u32> = (0..n as u32).collect();
    let x = context.upload([n], DType::I32, bytemuck::cast_slice(&model).to_vec()).unwrap();
    for (from, to) in [(0, 1000), (1000, 3)] {
        let count = n - 1000;
        context.copy(&x.sub_range(from, [count]), &x.sub_range(to, [count]));
        model.copy_within(from..from + count, to);
    }
    assert!(bytemuck::pod_collect_to_vec::<u8, u32>(&read(&x).unwrap()) == model);
}

#[test]
fn one_launch_reads_and_writes_ranges_of_one_buffer() {
    let Some(device) = open_device(None) else { return };
    let context = make_context(&device);
    let values = make_ramp(256);
    let x = upload_f32(&context, &values);
    context.launch(make_scale_add(x.part(0, 64), x.part(3, 64), x.part(130, 64), 64, 2.0, 64));
    let got = read_f32(&x);
    for i in 0..256 {
        let want = if (130..194).contains(&i) { values[i - 130] * 2.0 + values[i - 127] } else { values[i] };
        assert_eq!(got[i], want);
    }
}

#[test]
fn many_small_commands_keep_their_order() {
    let Some(device) = open_device(None) else { return };
    let context = make_context(&device);
    let x = upload_f32(&context, &[0.0; 64]);
    let mut answers = Vec::new();
    for i in 0..500 {
        context.write(&x.sub_range(i % 64, [1]), (i as f32).to_le_bytes().to_vec());
        let y = context.empty([64], DType::F32).unwrap();
        context.launch(make_scale_add(x.range(), x.range(), y.range(), 64, 1.0, 64));
        let (sender, receiver) = channel();
        context.read(&y, Box::new(move |bytes| drop(sender.send(bytes))));
        answers.push(receiver);
    }
    let mut model = [0f32; 64];
    for (i, answer) in answers.into_iter().enumerate() {
        model[i % 64] = i as f32;
        let got: Vec<f32> = bytemuck::pod_collect_to_vec(&answer.recv().unwrap().unwrap());
        assert_eq!(got, model.map(|v| v * 2.0));
    }
}

#[test]
fn several_devices_run_concurrently() {
    let (Some(first), Some(second)) = (open_device(None), open_device(None)) else { return };
    std::thread::scope(|scope| {
        for (device, scale) in [(&first, 1.0), (&first, 2.0), (&second, 3.0)] {
            scope.spawn(move || {
                let context = make_context(device);
                let mut x = upload_f32(&context, &make_ramp(4096));
                for _ in 0..100 {
                    let y = context.empty([4096], DType::F32).unwrap();
                    context.launch(make_scale_add(x.range(), x.range(), y.range(), 4096, scale - 1.0, 64));
                    let z = context.empty([4096], DType::F32).unwrap();
                    context.launch(make_scale_add(
                        y.range(),
                        y.range(),
                        z.range(),
                        4096,
                        1.0 / scale - 1.0,
                        64,
                    ));
                    x = z;
                }
                let error =
                    read_f32(&x).iter().zip(make_ramp(4096)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(error < 0.1, "{error}");
            });
        }
    });
}

#[test]
fn cancelled_work_is_skipped() {
    let Some(device) = open_device(None) else { return };
    let context = make_context(&device);
    let x = upload_f32(&context, &[1.0; 64]);
    let token = crate::recording::CancelToken::default();
    token.cancel();
    context.set_cancel_token(Some(token));
    context.launch(make_busy(&x, 1));
    context.zero(&x);
    assert_eq!(read(&x).unwrap_err().code, Code::Aborted);
    context.set_cancel_token(None);
    assert_eq!(read_f32(&x), [1.0; 64]);
}

#[test]
fn an_unknown_adapter_number_lists_the_existing_adapters() {
    let error = Gpu::open(Some(1000)).err().expect("no thousand GPUs");
    assert_eq!(error.code, Code::NoGpu);
    for adapter in list_adapters() {
        assert!(error.message.contains(&adapter.name), "{error}");
    }
}

#[test]
fn the_meta_profile_equals_the_profile_of_the_device() {
    let Some(device) = open_device(Some(4096)) else { return };
    let profile = read_profile(None, Some(4096)).unwrap();
    assert_eq!(format!("{profile:?}"), format!("{:?}", device.profile));
    assert_eq!(profile.binding_limit, 4096);
}
