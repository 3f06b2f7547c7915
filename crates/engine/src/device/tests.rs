//! A device that runs out of memory and continues.

use std::rc::Rc;
use std::sync::mpsc::channel;

use super::cpu::{self, Cpu};
use super::*;
use crate::context::{Context, Value};
use crate::dtype::DType;

/// A cpu with a limited number of buffers.
struct Short {
    cpu: Cpu,
    left: usize,
}

impl Runner for Short {
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

fn short(buffers: usize) -> Arc<Device> {
    Device::start(move || {
        let (profile, cpu) = Cpu::open(1)?;
        Ok((profile, Short { cpu, left: buffers }))
    })
    .unwrap()
}

fn context(device: &Arc<Device>) -> Rc<Context> {
    Context::new(cpu::profile(1), Sink::Thread(device.clone()))
}

fn filled(cx: &Rc<Context>, value: u8) -> Value {
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

fn out_of_memory<T: std::fmt::Debug>(result: Result<T>) {
    assert_eq!(result.unwrap_err().code, Code::OutOfMemory);
}

#[test]
fn running_out_of_memory_poisons_what_depends_on_it_and_nothing_else() {
    let device = short(2);
    let (cx, neighbour) = (context(&device), context(&device));
    let kept = filled(&cx, 7);
    let target = filled(&cx, 1);
    let missing = filled(&cx, 2);
    cx.copy(&missing, &target);
    out_of_memory(read(&missing));
    out_of_memory(read(&target));
    assert_eq!(read(&kept).unwrap(), [7; 256]);
    assert!(fence(&neighbour).is_ok(), "another environment is not affected");
    // A poisoned buffer is valid again for another value; a missing one is created then.
    drop(target);
    let again = filled(&cx, 3);
    assert_eq!(read(&again).unwrap(), [3; 256]);
    drop((kept, again, missing));
    let three: Vec<Value> = (4..7).map(|v| filled(&cx, v)).collect();
    let read: Vec<_> = three.iter().map(read).collect();
    assert_eq!(read.iter().filter(|r| r.is_ok()).count(), 2);
    drop(three);
    cx.restart_peak();
    assert_eq!(super::tests::read(&filled(&cx, 9)).unwrap(), [9; 256]);
}

#[test]
fn a_fence_tells_once_of_memory_that_ran_out() {
    let device = short(0);
    let (cx, neighbour) = (context(&device), context(&device));
    let _missing = filled(&cx, 1);
    cx.flush();
    assert!(fence(&neighbour).is_ok());
    out_of_memory(fence(&cx));
    assert!(fence(&cx).is_ok());
}

#[test]
fn what_a_device_failed_to_send_does_not_end_the_one_that_waits() {
    let (poor, rich) = (short(0), short(8));
    let (from, to) = (context(&poor), context(&rich));
    let missing = filled(&from, 1);
    let target = filled(&to, 2);
    to.receive(&missing, &target).unwrap();
    out_of_memory(read(&target));
    assert_eq!(read(&filled(&to, 3)).unwrap(), [3; 256]);
}

#[test]
fn a_transfer_whose_read_was_cancelled_is_not_a_failure_of_the_receiver() {
    let (first, second) = (short(8), short(8));
    let (from, to) = (context(&first), context(&second));
    let (sent, target) = (filled(&from, 1), filled(&to, 2));
    let token = CancelToken::default();
    from.under(Some(token.clone()));
    token.cancel();
    to.receive(&sent, &target).unwrap();
    assert!(fence(&to).is_ok());
    assert_eq!(read(&target).unwrap_err().code, Code::Aborted);
    assert_eq!(read(&filled(&to, 3)).unwrap(), [3; 256]);
}

#[test]
fn a_stand_in_of_the_gpu_opens_no_device() {
    let Ok(registry::Opened::Meta(profile)) = registry::open("meta:gpu") else {
        // Without an adapter it is an error, as for gpu.
        return assert_eq!(registry::open("gpu").err().unwrap().code, Code::NoGpu);
    };
    assert_eq!(profile.label, "meta:gpu");
    assert_eq!(profile.kind, Kind::Gpu);
}

#[test]
fn constants_lie_together_and_a_full_page_goes_with_its_last() {
    // One page is kept, one is filled.
    let device = short(2);
    let cx = context(&device);
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
fn what_waits_in_the_pool_is_given_back_and_counted() {
    let device = short(1);
    let cx = context(&device);
    drop(filled(&cx, 1));
    assert_eq!((cx.trim(), cx.trim()), (256, 0));
    // A buffer of another size class fits.
    let larger = cx.upload([1024], DType::F32, vec![2; 4096]).unwrap();
    assert_eq!(read(&larger).unwrap(), [2; 4096]);
    assert_eq!(cx.trim(), 0, "buffers in use are kept");
    assert_eq!(read(&larger).unwrap(), [2; 4096]);
}

#[test]
fn memory_that_is_short_is_looked_for_once() {
    let device = short(8);
    let profile = Profile { memory: 1024, ..cpu::profile(1) };
    let cx = Context::new(profile, Sink::Thread(device));
    let held = Rc::new(std::cell::RefCell::new(vec![filled(&cx, 1), filled(&cx, 2), filled(&cx, 3)]));
    let lets_go = held.clone();
    cx.on_shortage(move || lets_go.borrow_mut().clear());
    let large = cx.empty([192], DType::F32).unwrap();
    assert!(held.borrow().is_empty());
    let error = cx.empty([192], DType::F32).unwrap_err();
    assert_eq!(error.code, Code::OutOfMemory);
    for said in ["768 bytes are asked for", "256 are free", "scope()", "dispose()"] {
        assert!(error.message.contains(said), "{error}");
    }
    drop(large);
    assert!(cx.empty([192], DType::F32).is_ok());
}

#[test]
fn a_device_without_work_says_so_to_those_who_are_there() {
    let device = short(4);
    let cx = context(&device);
    // Keeps the device busy until both callbacks are registered.
    let (go_on, waits) = channel::<()>();
    cx.fence(Box::new(move |_| {
        waits.recv().ok();
    }));
    let (send, rests) = channel();
    let (here, gone) = (CancelToken::default(), CancelToken::default());
    for (name, owner) in [("here", &here), ("gone", &gone)] {
        let send = send.clone();
        device.on_rest(
            owner.clone(),
            Arc::new(move || {
                let _ = send.send(name);
            }),
        );
    }
    gone.cancel();
    go_on.send(()).unwrap();
    let value = filled(&cx, 1);
    assert!(read(&value).is_ok());
    assert_eq!(rests.recv_timeout(REST * 5).unwrap(), "here");
    // It is called once, until there was work again.
    assert!(rests.recv_timeout(REST + REST / 2).is_err());
    assert!(read(&value).is_ok());
    assert_eq!(rests.recv_timeout(REST * 5).unwrap(), "here");
}

#[test]
fn a_gpu_that_converts_no_halves_refuses_them() {
    let profile = Profile { f16: false, name: "a GPU".into(), backend: "Vulkan".into(), ..cpu::profile(1) };
    let cx = Context::new(profile, Sink::Meta);
    let error = cx.upload([2], DType::F16, vec![0; 4]).unwrap_err();
    assert_eq!(error.code, Code::Dtype);
    for said in ["a GPU (Vulkan)", "SHADER_F16_IN_F32", "use f32 or bf16"] {
        assert!(error.message.contains(said), "{error}");
    }
    assert!(cx.upload([2], DType::BF16, vec![0; 4]).is_ok());
    // A driver that claims to convert f16 is trusted.
    for adapter in crate::device::gpu::adapters() {
        println!("{}: f16 {}, subgroups of {}", adapter.name, adapter.f16, adapter.subgroup);
    }
}

/// Returns the names of a device's thread and its workers, and their nice values, during a recording.
#[cfg(target_os = "linux")]
struct Noting(Cpu, Arc<Mutex<Vec<(String, i32)>>>);

#[cfg(target_os = "linux")]
impl Runner for Noting {
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
fn nice_of(name: &str) -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let stat = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    let named = stat.filter(|stat| stat.contains(&format!("({name}-")));
    named.map(|stat| stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().to_string()).collect()
}

/// An unprivileged process cannot raise a priority again: normal work must not run on lowered threads.
#[cfg(target_os = "linux")]
#[test]
fn only_recordings_in_the_background_run_at_low_priority() {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let notes = noted.clone();
    let device = Device::start(move || {
        let (profile, cpu) = Cpu::open(3)?;
        Ok((profile, Noting(cpu, notes)))
    })
    .unwrap();
    let (run, call) = (context(&device), context(&device));
    run.use_cpu(CpuUse { threads: 0, background: true });
    let (of_run, of_call) = (filled(&run, 1), filled(&call, 2));
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
    while nice_of("lowrank-low") != expected && start.elapsed() < Duration::from_secs(60) {
        std::thread::yield_now();
    }
    assert_eq!(nice_of("lowrank-low"), expected);
    assert!(nice_of("lowrank-cpu").iter().all(|nice| *nice == own.to_string()));
}

#[test]
fn a_limit_of_threads_holds_for_the_recordings_that_have_it() {
    let (profile, mut cpu) = Cpu::open(4).unwrap();
    let mut counted = Vec::new();
    for (threads, background) in [(0, false), (1, false), (3, false), (9, false), (0, false)] {
        cpu.use_cpu(CpuUse { threads, background }).unwrap();
        counted.push(cpu.threads_in_use());
    }
    assert_eq!(counted, [4, 1, 3, 4, 4]);
    assert_eq!(profile.threads, 4);
    let [one, two] = [1, 2].map(|all| CpuUse { threads: 0, background: true }.count(all));
    assert_eq!((one, two), (1, 1), "one core is left free where there are several");
}

#[test]
fn a_panic_in_the_background_is_told_and_ends_nothing_else() {
    struct Panics(Cpu);
    impl Runner for Panics {
        fn run(&mut self, command: Command) -> Result<()> {
            assert!(!matches!(command, Command::Zero { .. }), "on purpose");
            self.0.run(command)
        }
    }
    let device = Device::start(|| Cpu::open(1).map(|(profile, cpu)| (profile, Panics(cpu)))).unwrap();
    let cx = context(&device);
    cx.use_cpu(CpuUse { threads: 1, background: true });
    let value = filled(&cx, 1);
    cx.zero(&value);
    assert_eq!(read(&value).unwrap_err().code, Code::DeviceLost);
    drop(value);
    drop(cx);
    assert!(device.stop(Duration::from_secs(5)), "both threads end");
}
