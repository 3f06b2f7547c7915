//! The number of threads and the priority of work outside of devices, such as tokenisation.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use lowrank_engine::device::cpu::system::lower_priority;
use lowrank_engine::device::registry;
use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_engine::recording::CpuUse;

thread_local! {
    /// The CPU use of this thread's work. The JavaScript thread has its session's; a background thread inherits the CPU
    /// use of the thread that started it.
    static CPU_USE: Cell<CpuUse> = const { Cell::new(CpuUse { threads: 0, background: false }) };
}

/// The CPU use of the work that this thread starts.
pub fn current_cpu_use() -> CpuUse {
    CPU_USE.get()
}

/// Sets the CPU use of the work that this thread starts from now on.
pub fn set_cpu_use(cpu_use: CpuUse) {
    CPU_USE.set(cpu_use);
}

/// The newest pool for a CPU use other than the default, which has rayon's own pool.
static POOL: Mutex<Option<(CpuUse, Arc<rayon::ThreadPool>)>> = Mutex::new(None);

/// Runs `work` so that its parallel iterators follow this thread's CPU use.
///
/// # Errors
/// `ERR_INTERNAL` if the system starts no threads.
pub fn run_parallel<T: Send>(work: impl FnOnce() -> T + Send) -> engine::Result<T> {
    let cpu_use = CPU_USE.get();
    if cpu_use == CpuUse::default() {
        return Ok(work());
    }
    let pool = {
        let mut newest = POOL.lock().unwrap_or_else(|broken| broken.into_inner());
        match &*newest {
            Some((its, pool)) if *its == cpu_use => pool.clone(),
            _ => {
                let builder = rayon::ThreadPoolBuilder::new()
                    .num_threads(cpu_use.count_threads(registry::count_threads()))
                    .thread_name(|i| format!("lowrank-pool-{i}"))
                    .start_handler(move |_| {
                        if cpu_use.background {
                            lower_priority();
                        }
                    });
                let pool = Arc::new(builder.build().map_err(|e| {
                    fail_code(Code::Internal, format!("no threads for work in parallel: {e}"))
                })?);
                *newest = Some((cpu_use, pool.clone()));
                pool
            }
        }
    };
    Ok(pool.install(work))
}
