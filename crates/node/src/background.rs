//! Work on a thread of its own, behind a promise: writing files, tokenizing whole data sets.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use lowrank_engine::device::cpu::system::lower_priority;
use lowrank_engine::device::registry;
use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_engine::panic::told;
use lowrank_engine::recording::CpuUse;
use napi::Env;
use napi::bindgen_prelude::{Object, ToNapiValue};

use crate::error::{Result, internal, thrown};
use crate::session::{Failure, failure};

thread_local! {
    /// How this thread's work may use the processor: on JavaScript's thread as its session says, on a thread that was
    /// started here as that said when it was started.
    static CPU_USE: Cell<CpuUse> = const { Cell::new(CpuUse { threads: 0, background: false }) };
}

/// Sets how the work that this thread starts from now on may use the processor.
pub fn use_cpu(cpu_use: CpuUse) {
    CPU_USE.set(cpu_use);
}

/// The newest pool of a use other than the default, which has rayon's own.
static POOL: Mutex<Option<(CpuUse, Arc<rayon::ThreadPool>)>> = Mutex::new(None);

/// Runs `work`, whose parallel iterators use as many threads, at the priority, as this thread's work may.
pub fn parallel<T: Send>(work: impl FnOnce() -> T + Send) -> engine::Result<T> {
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
                    .num_threads(cpu_use.count(registry::threads()))
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

type Settle<V> = Box<dyn FnOnce(Env) -> napi::Result<V>>;

/// A promise of what `convert` makes, on JavaScript's thread, of what `work` gave on a new thread
/// named `name`. A panic in `work` is `ERR_INTERNAL`.
pub fn promise<'env, T, V>(
    env: &'env Env,
    name: &'static str,
    work: impl FnOnce() -> engine::Result<T> + Send + 'static,
    convert: impl FnOnce(Env, engine::Result<T>) -> napi::Result<V> + Send + 'static,
) -> Result<Object<'env>>
where
    T: Send + 'static,
    V: ToNapiValue + 'static,
{
    let (deferred, promise) = env.create_deferred::<V, Settle<V>>().map_err(internal)?;
    let cpu_use = CPU_USE.get();
    let run = move || {
        use_cpu(cpu_use);
        if cpu_use.background {
            lower_priority();
        }
        let result = guarded(name, work);
        deferred.resolve(Box::new(move |env| convert(env, result)));
    };
    std::thread::Builder::new()
        .name(format!("lowrank-{name}"))
        .spawn(run)
        .map_err(|e| thrown(fail_code(Code::Internal, format!("{name}: no thread was given: {e}"))))?;
    Ok(promise)
}

/// A promise of an object that `fill` fills with what `work` gave, or of what went wrong.
pub fn object<'env, T: Send + 'static>(
    env: &'env Env,
    name: &'static str,
    work: impl FnOnce() -> engine::Result<T> + Send + 'static,
    fill: impl FnOnce(&Env, &mut Object, T) -> napi::Result<()> + Send + 'static,
) -> Result<Object<'env>> {
    promise(env, name, work, move |env, made| {
        let mut object = Object::new(&env)?;
        match made {
            Ok(made) => fill(&env, &mut object, made)?,
            Err(error) => {
                let failure = failure(error);
                object.set("code", failure.code)?;
                object.set("message", failure.message)?;
            }
        }
        Ok(object)
    })
}

/// A promise of null, or of what went wrong: the façade makes a rejection of that.
pub fn done<'env>(
    env: &'env Env,
    name: &'static str,
    work: impl FnOnce() -> engine::Result<()> + Send + 'static,
) -> Result<Object<'env>> {
    promise(env, name, work, |_, done| Ok::<Option<Failure>, _>(done.err().map(failure)))
}

/// Runs `work`; a panic becomes `ERR_INTERNAL`.
pub fn guarded<T>(name: &str, work: impl FnOnce() -> engine::Result<T>) -> engine::Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(fail_code(Code::Internal, format!("{name}: {}", told(&*panic)))))
}
