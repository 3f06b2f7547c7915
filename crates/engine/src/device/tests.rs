//! A device that runs out of memory and continues.

use std::rc::Rc;
use std::sync::mpsc::channel;

use super::cpu::{self, Cpu};
use super::*;
use crate::context::{Context, Value};
use crate::dtype::DType;

/// A cpu with a limited number of buffers.
struct LimitedCpu {
    cpu: Cpu,
    left: usize,
}

impl Runner for LimitedCpu {
    fn run(&mut self, command: Command) -> Result<()> {
        match &command {
            Command::Create { .. } if self.left == 0 => fail!(OutOfMemory, "no more buffers"),
            Command::Create { .. } => self.left -= 1,
            Command::Destroy { .. } => self.left += 1,
            _ => {}
        }
        self.cpu.run(command)
    }
}

fn start_limited(buffers: usize) -> Arc<Device> {
    Device::start(move || {
        let (profile, cpu) = Cpu::open(1)?;
        Ok((profile, LimitedCpu { cpu, left: buffers }))
    })
    .unwrap()
}

fn make_context(device: &Arc<Device>) -> Rc<Context> {
    Context::new(cpu::make_profile(1), Sink::Thread(device.clone()))
}

fn upload_filled(cx: &Rc<Context>, value: u8) -> Value {
    cx.upload([64], DType::F32, vec![value; 256]).unwrap()
}

fn read(value: &Value) -> Result<Vec<u8>> {
    let (send, receive) = channel();
    value.context().read(value, Box::new(move |bytes| drop(send.send(bytes))));
    receive.recv().unwrap()
}

fn fence(cx: &Context) -> Result<Vec<u8>> {
    let (send, receive) = channel();
    cx.fence(Box::new(move |done| drop(send.send(done))));
    receive.recv().unwrap()
}

fn expect_out_of_memory<T: std::fmt::Debug>(result: Result<T>) {
    assert_eq!(result.unwrap_err().code, Code::OutOfMemory);
}

#[test]
fn a_memory_shortage_poisons_only_dependent_values() {
    let device = start_limited(2);
    let (cx, neighbour) = (make_context(&device), make_context(&device));
    let kept = upload_filled(&cx, 7);
    let target = upload_filled(&cx, 1);
    let missing = upload_filled(&cx, 2);
    cx.copy(&missing, &target);
    expect_out_of_memory(read(&missing));
    expect_out_of_memory(read(&target));
    assert_eq!(read(&kept).unwrap(), [7; 256]);
    assert!(fence(&neighbour).is_ok(), "another environment is not affected");
    // A poisoned buffer is valid again for another value; a missing one is created then.
    drop(target);
    let again = upload_filled(&cx, 3);
    assert_eq!(read(&again).unwrap(), [3; 256]);
    drop((kept, again, missing));
    let three: Vec<Value> = (4..7).map(|v| upload_filled(&cx, v)).collect();
    let read: Vec<_> = three.iter().map(read).collect();
    assert_eq!(read.iter().filter(|r| r.is_ok()).count(), 2);
    drop(three);
    cx.restart_peak();
    assert_eq!(super::tests::read(&upload_filled(&cx, 9)).unwrap(), [9; 256]);
}

#[test]
fn a_fence_reports_a_memory_shortage_once() {
    let device = start_limited(0);
    let (cx, neighbour) = (make_context(&device), make_context(&device));
    let _missing = upload_filled(&cx, 1);
    cx.flush();
    assert!(fence(&neighbour).is_ok());
    expect_out_of_memory(fence(&cx));
    assert!(fence(&cx).is_ok());
}

#[test]
fn a_failed_transfer_does_not_end_the_receiving_device() {
    let (poor, rich) = (start_limited(0), start_limited(8));
    let (from, to) = (make_context(&poor), make_context(&rich));
    let missing = upload_filled(&from, 1);
    let target = upload_filled(&to, 2);
    to.receive(&missing, &target).unwrap();
    expect_out_of_memory(read(&target));
    assert_eq!(read(&upload_filled(&to, 3)).unwrap(), [3; 256]);
}

#[test]
fn a_cancelled_transfer_does_not_fail_the_receiver() {
    let (first, second) = (start_limited(8), start_limited(8));
    let (from, to) = (make_context(&first), make_context(&second));
    let (sent, target) = (upload_filled(&from, 1), upload_filled(&to, 2));
    let token = CancelToken::default();
    from.set_cancel_token(Some(token.clone()));
    token.cancel();
    to.receive(&sent, &target).unwrap();
    assert!(fence(&to).is_ok());
    assert_eq!(read(&target).unwrap_err().code, Code::Aborted);
    assert_eq!(read(&upload_filled(&to, 3)).unwrap(), [3; 256]);
}

#[test]
fn meta_gpu_opens_no_device() {
    let Ok(registry::Opened::Meta(profile)) = registry::open("meta:gpu") else {
        // Without an adapter it is an error, as for gpu.
        return assert_eq!(registry::open("gpu").err().unwrap().code, Code::NoGpu);
    };
    assert_eq!(profile.label, "meta:gpu");
    assert_eq!(profile.kind, Kind::Gpu);
}

#[test]
fn constants_share_pages_that_are_freed_with_their_last_constant() {
    // One page is kept, one is filled.
    let device = start_limited(2);
    let cx = make_context(&device);
    let kept = cx.constant(0.5);
    let again = cx.constant(0.5);
    assert_eq!(kept.range(), again.range());
    for value in 0..5000 {
        let constant = cx.constant(value as f32);
        if value % 997 == 0 {
            assert_eq!(read(&constant).unwrap(), (value as f32).to_le_bytes());
        }
    }
    assert!(fence(&cx).is_ok(), "no third page");
    assert_eq!(read(&kept).unwrap(), 0.5f32.to_le_bytes());
    assert!(!cx.constant(0.5).is_unshared(), "nothing is written over a constant");
    assert_eq!((cx.memory().live, cx.memory().reserved), (0, 0));
}

#[test]
fn trim_frees_idle_buffers_and_returns_their_bytes() {
    let device = start_limited(1);
    let cx = make_context(&device);
    drop(upload_filled(&cx, 1));
    assert_eq!((cx.trim(), cx.trim()), (256, 0));
    // A buffer of another size class fits.
    let larger = cx.upload([1024], DType::F32, vec![2; 4096]).unwrap();
    assert_eq!(read(&larger).unwrap(), [2; 4096]);
    assert_eq!(cx.trim(), 0, "buffers in use are kept");
    assert_eq!(read(&larger).unwrap(), [2; 4096]);
}

#[test]
fn a_memory_shortage_releases_tensors_before_it_is_an_error() {
    let device = start_limited(8);
    let profile = Profile { memory: 1024, ..cpu::make_profile(1) };
    let cx = Context::new(profile, Sink::Thread(device));
    let held = Rc::new(std::cell::RefCell::new(vec![
        upload_filled(&cx, 1),
        upload_filled(&cx, 2),
        upload_filled(&cx, 3),
    ]));
    let released = held.clone();
    cx.on_shortage(move || released.borrow_mut().clear());
    let large = cx.empty([192], DType::F32).unwrap();
    assert!(held.borrow().is_empty());
    let error = cx.empty([192], DType::F32).unwrap_err();
    assert_eq!(error.code, Code::OutOfMemory);
    for part in ["768 bytes are asked for", "256 are free", "scope()", "dispose()"] {
        assert!(error.message.contains(part), "{error}");
    }
    drop(large);
    assert!(cx.empty([192], DType::F32).is_ok());
}

#[test]
fn an_idle_device_calls_only_the_live_listeners() {
    let device = start_limited(4);
    let cx = make_context(&device);
    // Keeps the device busy until both callbacks are registered.
    let (resume, blocked) = channel::<()>();
    cx.fence(Box::new(move |_| {
        blocked.recv().ok();
    }));
    let (send, idle_events) = channel();
    let (live, ended) = (CancelToken::default(), CancelToken::default());
    for (name, owner) in [("live", &live), ("ended", &ended)] {
        let send = send.clone();
        device.on_idle(
            owner.clone(),
            Arc::new(move || {
                let _ = send.send(name);
            }),
        );
    }
    ended.cancel();
    resume.send(()).unwrap();
    let value = upload_filled(&cx, 1);
    assert!(read(&value).is_ok());
    assert_eq!(idle_events.recv_timeout(IDLE_TIME * 5).unwrap(), "live");
    // It is called once, until there was work again.
    assert!(idle_events.recv_timeout(IDLE_TIME + IDLE_TIME / 2).is_err());
    assert!(read(&value).is_ok());
    assert_eq!(idle_events.recv_timeout(IDLE_TIME * 5).unwrap(), "live");
}

#[test]
fn a_gpu_without_f16_conversion_refuses_f16() {
    let profile =
        Profile { f16: false, name: "a GPU".into(), backend: "Vulkan".into(), ..cpu::make_profile(1) };
    let cx = Context::new(profile, Sink::Meta);
    let error = cx.upload([2], DType::F16, vec![0; 4]).unwrap_err();
    assert_eq!(error.code, Code::Dtype);
    for part in ["a GPU (Vulkan)", "SHADER_F16_IN_F32", "use f32 or bf16"] {
        assert!(error.message.contains(part), "{error}");
    }
    assert!(cx.upload([2], DType::BF16, vec![0; 4]).is_ok());
    // A driver that claims to convert f16 is trusted.
    for adapter in crate::device::gpu::list_adapters() {
        println!("{}: f16 {}, subgroups of {}", adapter.name, adapter.f16, adapter.subgroup);
    }
}

/// Returns the names of a device's thread and its workers, and their nice values, during a recording.
#[cfg(target_os = "linux")]
struct PriorityRecorder(Cpu, Arc<Mutex<Vec<(String, i32)>>>);

#[cfg(target_os = "linux")]
impl Runner for PriorityRecorder {
    fn run(&mut self, command: Command) -> Result<()> {
        if let Command::Zero { .. } = &command {
            let name = std::thread::current().name().unwrap_or_default().to_string();
            // SAFETY: its arguments are numbers.
            let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
            self.1.lock().unwrap().push((name, nice));
        }
        self.0.run(command)
    }
    fn use_cpu(&mut self, cpu_use: CpuUse) -> Result<()> {
        self.0.use_cpu(cpu_use)
    }
}

/// Returns the nice values of this process's threads with a given name.
#[cfg(target_os = "linux")]
fn read_nice_values(name: &str) -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let stat = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    let named = stat.filter(|stat| stat.contains(&format!("({name}-")));
    named.map(|stat| stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().to_string()).collect()
}

/// An unprivileged process cannot raise a priority again: normal work must not run on lowered threads.
#[cfg(target_os = "linux")]
#[test]
fn only_background_recordings_run_at_low_priority() {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let notes = noted.clone();
    let device = Device::start(move || {
        let (profile, cpu) = Cpu::open(3)?;
        Ok((profile, PriorityRecorder(cpu, notes)))
    })
    .unwrap();
    let (run, call) = (make_context(&device), make_context(&device));
    run.use_cpu(CpuUse { threads: 0, background: true });
    let (of_run, of_call) = (upload_filled(&run, 1), upload_filled(&call, 2));
    for _ in 0..3 {
        for cx in [&run, &call] {
            let value = if Rc::ptr_eq(cx, &run) { &of_run } else { &of_call };
            cx.zero(value);
            assert_eq!(read(value).unwrap(), [0; 256]);
        }
    }
    // SAFETY: its arguments are numbers.
    let own = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let low = ("lowrank-low".to_string(), own.max(10));
    let usual = ("lowrank-device".to_string(), own);
    assert_eq!(*noted.lock().unwrap(), [low.clone(), usual.clone(), low.clone(), usual.clone(), low, usual]);
    // Two of three threads: lowrank-low itself and one worker, which names itself and lowers its priority as it starts.
    let (expected, start) = ([own.max(10).to_string()], Instant::now());
    while read_nice_values("lowrank-low") != expected && start.elapsed() < Duration::from_secs(60) {
        std::thread::yield_now();
    }
    assert_eq!(read_nice_values("lowrank-low"), expected);
    assert!(read_nice_values("lowrank-cpu").iter().all(|nice| *nice == own.to_string()));
}

#[test]
fn a_thread_limit_applies_only_to_its_recordings() {
    let (profile, mut cpu) = Cpu::open(4).unwrap();
    let mut counted = Vec::new();
    for (threads, background) in [(0, false), (1, false), (3, false), (9, false), (0, false)] {
        cpu.use_cpu(CpuUse { threads, background }).unwrap();
        counted.push(cpu.threads_in_use());
    }
    assert_eq!(counted, [4, 1, 3, 4, 4]);
    assert_eq!(profile.threads, 4);
    let [one, two] = [1, 2].map(|all| CpuUse { threads: 0, background: true }.count_threads(all));
    assert_eq!((one, two), (1, 1), "one core is left free where there are several");
}

#[test]
fn a_background_panic_fails_its_reads_and_both_threads_can_stop() {
    struct Panics(Cpu);
    impl Runner for Panics {
        fn run(&mut self, command: Command) -> Result<()> {
            assert!(!matches!(command, Command::Zero { .. }), "on purpose");
            self.0.run(command)
        }
    }
    let device = Device::start(|| Cpu::open(1).map(|(profile, cpu)| (profile, Panics(cpu)))).unwrap();
    let cx = make_context(&device);
    cx.use_cpu(CpuUse { threads: 1, background: true });
    let value = upload_filled(&cx, 1);
    cx.zero(&value);
    assert_eq!(read(&value).unwrap_err().code, Code::DeviceLost);
    drop(value);
    drop(cx);
    assert!(device.stop(Duration::from_secs(5)), "both threads end");
}
