//! Errors are reported, and memory and waiting times are bounded.

use std::time::Instant;

use super::*;

#[test]
fn a_huge_buffer_is_an_error_instead_of_a_panic() {
    let Some(device) = open_device(None) else { return };
    let context = make_context(&device);
    let x = upload_f32(&context, &[1.0]);
    assert_eq!(read_f32(&x), [1.0]);
    context.push(Command::Create { buffer: BufferId::next(), bytes: 1 << 50 });
    // Independent values are unchanged; the next fence reports the error once.
    assert_eq!(read_f32(&x), [1.0]);
    assert_eq!(fence(&context).unwrap_err().code, Code::OutOfMemory);
    fence(&context).unwrap();
}

#[test]
fn a_compile_error_names_the_kernel() {
    let Some(device) = open_device(None) else { return };
    let context = make_context(&device);
    let x = upload_f32(&context, &[1.0]);
    let broken = Launch { kernel: &BROKEN, scalars: Default::default(), ..make_busy(&x, 1) };
    context.push(Command::Launch(broken));
    let error = read(&x).unwrap_err();
    assert_eq!(error.code, Code::Internal);
    assert!(error.message.contains("test_broken"), "{error}");
    assert!(error.message.contains("did not compile"), "{error}");
}

#[test]
fn a_compile_error_fails_only_dependent_work() {
    let Some(device) = open_device(None) else { return };
    let context = make_context(&device);
    let (x, y) = (upload_f32(&context, &[1.0]), upload_f32(&context, &[2.0]));
    let broken = || Launch { kernel: &BROKEN, scalars: Default::default(), ..make_busy(&x, 1) };
    // A second launch uses the cached failure.
    context.push(Command::Launch(broken()));
    context.push(Command::Launch(broken()));
    let first = read(&x).unwrap_err();
    assert!(first.message.contains("test_broken"), "{first}");
    // Dependent work fails alike; other work before and after it runs.
    context.launch(make_busy(&x, 1));
    assert_eq!(read(&x).unwrap_err().message, first.message);
    context.launch(make_busy(&y, 1));
    assert!((read_f32(&y)[0] - 2.998).abs() < 1e-5);
    fence(&context).unwrap();
}

#[test]
fn preparing_a_recording_compiles_its_kernels() {
    let Some(mut gpu) = open_gpu() else { return };
    let range = create_buffer(&mut gpu, 1);
    let launch = |kernel| {
        Command::Launch(Launch {
            kernel,
            params: [0; 4],
            bindings: [range].into_iter().collect(),
            scalars: Busy { n: 1, rounds: 1 }.words(),
            groups: 1,
            threads: 64,
            work: 2,
        })
    };
    let commands = [launch(&BUSY), launch(&BROKEN), launch(&BUSY)];
    gpu.prepare(&commands).unwrap();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    assert_eq!(gpu.pipelines.len(), if threads > 1 { 2 } else { 0 });
    // The failure is reported by the launch.
    let [_, broken, _] = commands;
    assert!(gpu.run(broken).unwrap_err().message.contains("test_broken"));
}

#[test]
fn a_range_past_its_buffer_is_an_error() {
    let Some(device) = open_device(None) else { return };
    let context = make_context(&device);
    let x = upload_f32(&context, &[1.0; 8]);
    context.push(Command::Zero { to: Range { bytes: 1 << 20, ..x.range() } });
    assert_eq!(read(&x).unwrap_err().code, Code::Internal);
}

#[test]
fn stopping_a_busy_device_takes_less_than_two_seconds() {
    let Some(device) = open_device(None) else { return };
    let context = make_context(&device);
    let x = upload_f32(&context, &make_ramp(1 << 16));
    context.launch(make_busy(&x, 1));
    fence(&context).unwrap();
    let start = Instant::now();
    for _ in 0..10 {
        context.launch(make_busy(&x, 1000));
    }
    fence(&context).unwrap();
    // At least ten seconds of work, regardless of the device's speed.
    let times = Duration::from_millis(50).as_nanos() / start.elapsed().as_nanos();
    let rounds = 1000 * times.max(1) as u32;
    let (sender, receiver) = channel();
    for _ in 0..2000 {
        context.launch(make_busy(&x, rounds));
    }
    context.fence(Box::new(move |bytes| drop(sender.send(bytes))));
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    assert!(device.stop(Duration::from_secs(2)));
    let answer = receiver.recv_timeout(Duration::from_secs(1)).expect("the fence is answered");
    assert_eq!(answer.unwrap_err().code, Code::Aborted);
    println!("stopped in {:?}", start.elapsed());
}

/// A GPU on the test's own thread.
pub fn open_gpu() -> Option<Gpu> {
    open_device(None)?;
    Some(Gpu::open_with(None, Some(u64::MAX)).unwrap().1)
}

pub fn wait_until_idle(gpu: &mut Gpu) {
    while gpu.idle().unwrap() {}
}

pub fn create_buffer(gpu: &mut Gpu, n: usize) -> Range {
    let range = Range { buffer: BufferId::next(), offset: 0, bytes: 4 * n as u64, dtype: DType::F32 };
    gpu.run(Command::Create { buffer: range.buffer, bytes: range.bytes }).unwrap();
    range
}

/// `submit/budget.rs` tests the duration itself with a simulated clock.
#[test]
fn a_submission_ends_when_its_budget_is_spent() {
    let Some(mut gpu) = open_gpu() else { return };
    let n = 1 << 14;
    let x = create_buffer(&mut gpu, n);
    let scalars = Busy { n, rounds: 2000 }.words();
    let launch = Launch {
        kernel: &BUSY,
        params: [0; 4],
        bindings: [x].into_iter().collect(),
        scalars,
        groups: n as u32 / 64,
        threads: 64,
        work: 6e7 as u64,
    };
    gpu.run(Command::Zero { to: x }).unwrap();
    for _ in 0..2 {
        assert_eq!(gpu.submitter.submitted(), 0);
        gpu.run(Command::Launch(launch.clone())).unwrap();
    }
    assert_eq!(gpu.submitter.submitted(), 1);
    wait_until_idle(&mut gpu);
}

/// Work that arrives while the GPU is busy is batched into one submission, made on a read or when no more work arrives.
#[test]
fn work_that_arrives_in_parts_is_batched_into_one_submission() {
    let Some(mut gpu) = open_gpu() else { return };
    // So little work that it never fills a submission.
    let n = 64;
    let x = create_buffer(&mut gpu, n);
    let run = |gpu: &mut Gpu, count: usize| {
        for _ in 0..count {
            gpu.run(Command::Launch(Launch {
                kernel: &BUSY,
                params: [0; 4],
                bindings: [x].into_iter().collect(),
                scalars: Busy { n, rounds: 1 }.words(),
                groups: n as u32 / 64,
                threads: 64,
                work: 1,
            }))
            .unwrap();
        }
    };
    gpu.run(Command::Zero { to: x }).unwrap();
    wait_until_idle(&mut gpu);
    let before = gpu.submitter.submitted();
    // The GPU is idle: it is submitted at once.
    run(&mut gpu, 1);
    gpu.idle().unwrap();
    assert_eq!(gpu.submitter.submitted() - before, 1);
    wait_until_idle(&mut gpu);

    let done = gpu.submitter.keep_busy();
    let before = gpu.submitter.submitted();
    for _ in 0..3 {
        run(&mut gpu, 128);
        gpu.idle().unwrap();
        assert_eq!(gpu.submitter.submitted() - before, 0);
    }
    let (send, receive) = channel();
    gpu.run(Command::Read { from: x, reply: Box::new(move |bytes| drop(send.send(bytes))) }).unwrap();
    gpu.idle().unwrap();
    assert_eq!(gpu.submitter.submitted() - before, 1);
    // Work without a pending reply is submitted after a nap.
    run(&mut gpu, 1);
    gpu.idle().unwrap();
    assert_eq!(gpu.submitter.submitted() - before, 1);
    gpu.idle().unwrap();
    assert_eq!(gpu.submitter.submitted() - before, 2);
    done.set(Instant::now()).unwrap();
    wait_until_idle(&mut gpu);
    assert_eq!(receive.try_recv().unwrap().unwrap().len(), 4 * n);
    assert!(!gpu.submitter.has_commands());
}

#[test]
fn destroyed_buffers_are_freed() {
    let Some(mut gpu) = open_gpu() else { return };
    let n = 1 << 20;
    let allocated = |gpu: &Gpu| gpu.device.generate_allocator_report().map(|r| r.total_allocated_bytes);
    for i in 0..200 {
        let x = create_buffer(&mut gpu, n);
        gpu.run(Command::Upload { to: Range { bytes: 256, ..x }, bytes: vec![i as u8; 256] }).unwrap();
        let bindings = [x].into_iter().collect();
        let scalars = Busy { n: 64, rounds: 1 }.words();
        let launch =
            Launch { kernel: &BUSY, params: [0; 4], bindings, scalars, groups: 1, threads: 64, work: 1 };
        gpu.run(Command::Launch(launch)).unwrap();
        gpu.run(Command::Destroy { buffer: x.buffer }).unwrap();
        if let Some(allocated) = allocated(&gpu) {
            assert!(allocated < 160 << 20, "{allocated} bytes after {i} buffers");
        }
    }
    wait_until_idle(&mut gpu);
    gpu.submitter.poll().unwrap();
    println!("{:?} bytes at the end", allocated(&gpu));
    assert!(gpu.bind_groups.is_empty());
    assert!(allocated(&gpu).is_none_or(|bytes| bytes < 16 << 20));
}
