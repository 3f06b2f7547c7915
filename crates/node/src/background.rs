//! Work on a background thread behind a promise, such as writing files or tokenizing whole data sets.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lowrank_engine::device::cpu::system::lower_priority;
use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_engine::panic::describe;
use napi::Env;
use napi::bindgen_prelude::{Object, ToNapiValue};

use crate::cpu_use::{cpu_use, use_cpu};
use crate::error::{Result, internal, thrown};
use crate::session::{Failure, failure};

type Settle<V> = Box<dyn FnOnce(Env) -> napi::Result<V>>;

/// Runs `work` on a new thread named `lowrank-{name}` and returns a promise. `convert` makes the promise's value
/// from the result, on the JavaScript thread. A panic in `work` becomes `ERR_INTERNAL`.
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
    let allowed = cpu_use();
    let run = move || {
        use_cpu(allowed);
        if allowed.background {
            lower_priority();
        }
        let result = catch_panic(name, work);
        deferred.resolve(Box::new(move |env| convert(env, result)));
    };
    std::thread::Builder::new()
        .name(format!("lowrank-{name}"))
        .spawn(run)
        .map_err(|e| thrown(fail_code(Code::Internal, format!("{name}: no thread was given: {e}"))))?;
    Ok(promise)
}

/// Returns a promise of an object that `fill` fills with the result of `work`, or of a `Failure`.
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

/// Returns a promise of null, or of a `Failure`, which the façade turns into a rejection.
pub fn done<'env>(
    env: &'env Env,
    name: &'static str,
    work: impl FnOnce() -> engine::Result<()> + Send + 'static,
) -> Result<Object<'env>> {
    promise(env, name, work, |_, done| Ok::<Option<Failure>, _>(done.err().map(failure)))
}

/// Runs `work`; a panic becomes `ERR_INTERNAL`.
pub fn catch_panic<T>(name: &str, work: impl FnOnce() -> engine::Result<T>) -> engine::Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(fail_code(Code::Internal, format!("{name}: {}", describe(&*panic)))))
}
