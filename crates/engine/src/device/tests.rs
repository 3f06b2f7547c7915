//! A device that runs out of memory, and goes on.

use std::rc::Rc;
use std::sync::mpsc::channel;

use super::cpu::{self, Cpu};
use super::*;
use crate::dtype::DType;
use crate::tensor::{Context, Value};

/// A cpu that gives no more than so many buffers.
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
fn running_out_of_memory_spoils_what_depends_on_it_and_nothing_else() {
    let device = short(2);
    let (cx, neighbour) = (context(&device), context(&device));
    let kept = filled(&cx, 7);
    let target = filled(&cx, 1);
    let missing = filled(&cx, 2);
    cx.copy(&missing, &target);
    out_of_memory(read(&missing));
    out_of_memory(read(&target));
    assert_eq!(read(&kept).unwrap(), [7; 256]);
    assert!(fence(&neighbour).is_ok(), "another environment goes on");
    // What was spoilt serves again once it is another value's; what was missing is made then.
    drop(target);
    let again = filled(&cx, 3);
    assert_eq!(read(&again).unwrap(), [3; 256]);
    drop((kept, again, missing));
    let three: Vec<Value> = (4..7).map(|v| filled(&cx, v)).collect();
    let read: Vec<_> = three.iter().map(read).collect();
    assert_eq!(read.iter().filter(|r| r.is_ok()).count(), 2);
    drop(three);
    cx.trim();
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
fn a_stand_in_of_the_gpu_opens_no_device() {
    let Ok(registry::Opened::Meta(profile)) = registry::open("meta:gpu") else {
        // Without an adapter it is refused, as gpu is.
        return assert_eq!(registry::open("gpu").err().unwrap().code, Code::NoGpu);
    };
    assert_eq!(profile.label, "meta:gpu");
    assert_eq!(profile.kind, Kind::Gpu);
}
