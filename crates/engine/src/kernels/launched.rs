//! A GPU that keeps what is launched on it: that tests launch each form that a kernel lists.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::context::Context;
use crate::device::gpu::Gpu;
use crate::device::{Device, Runner, Sink};
use crate::error::Result;
use crate::kernel::{Kernel, Variant};
use crate::recording::Command;
use crate::trace::Note;

type Seen = Arc<Mutex<HashSet<(&'static str, Variant)>>>;

struct Recorder {
    gpu: Gpu,
    seen: Seen,
}

impl Runner for Recorder {
    fn run(&mut self, command: Command) -> Result<()> {
        if let Command::Launch(launch) = &command {
            let variant = Variant {
                params: launch.params,
                dtypes: launch.bindings.iter().map(|range| range.dtype).collect(),
                threads: launch.threads,
            };
            self.seen.lock().unwrap().insert((launch.kernel.name, variant));
        }
        self.gpu.run(command)
    }

    fn patience(&self) -> Duration {
        self.gpu.patience()
    }

    fn idle(&mut self) -> Result<bool> {
        self.gpu.idle()
    }

    fn rest(&mut self) -> Result<()> {
        self.gpu.rest()
    }

    fn note(&mut self, note: Option<Note>) {
        self.gpu.note(note);
    }
}

/// Calls `run` with a GPU's context, then holds what it launched of `kernels` to what they list, but for forms that
/// are another's: those `others` names, and what this GPU cannot run. Without a GPU nothing is run.
pub fn launches_every_form(
    kernels: &[&Kernel],
    others: impl Fn(&Context, &Variant) -> bool,
    run: impl FnOnce(&Rc<Context>),
) {
    if std::env::var_os("LOWRANK_NO_GPU").is_some() {
        eprintln!("not run: forms of the gpu (LOWRANK_NO_GPU is set)");
        return;
    }
    let seen = Seen::default();
    let kept = seen.clone();
    let open = move || Gpu::open(None).map(|(profile, gpu)| (profile, Recorder { gpu, seen: kept }));
    let device =
        Device::start(open).unwrap_or_else(|e| panic!("{e}\nInstall a driver, or set LOWRANK_NO_GPU=1."));
    let cx = Context::new(device.profile.clone(), Sink::Thread(device.clone()));
    run(&cx);
    let seen = seen.lock().unwrap();
    let (mut forms, mut missing) = (0, Vec::new());
    for kernel in kernels {
        for variant in (kernel.variants)().into_iter().filter(|variant| !others(&cx, variant)) {
            forms += 1;
            if !seen.contains(&(kernel.name, variant.clone())) {
                missing.push(format!("{} {variant:?}", kernel.name));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "{} of {forms} forms were not launched:\n{}",
        missing.len(),
        missing.join("\n")
    );
    let launched = seen.iter().filter(|(name, _)| kernels.iter().any(|kernel| kernel.name == *name)).count();
    assert_eq!(launched, forms, "forms were launched that are not listed");
    eprintln!("{forms} forms launched on {}", cx.profile.name);
}
