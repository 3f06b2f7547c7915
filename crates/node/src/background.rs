//! Work on a background thread behind a promise, such as writing files or tokenizing whole data sets.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lowrank_engine::device::cpu::system::lower_priority;
use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_engine::panic::describe;
use napi::Env;
use napi::bindgen_prelude::{Object, ToNapiValue};

use crate::cpu_use::{current_cpu_use, set_cpu_use};
use crate::error::{Result, to_js_error, wrap_napi_error};
use crate::session::{Failure, to_failure};

type Settle<V> = Box<dyn FnOnce(Env) -> napi::Result<V>>;

/// Runs `work` on a new thread named `lowrank-{name}` and returns a promise. `convert` makes the promise's value
/// from the result, on the JavaScript thread. A panic in `work` becomes `ERR_INTERNAL`.
pub fn run_as_promise<'env, T, V>(
    env: &'env Env,
    name: &'static str,
    work: impl FnOnce() -> engine::Result<T> + Send + 'static,
    convert: impl FnOnce(Env, engine::Result<T>) -> napi::Result<V> + Send + 'static,
) -> Result<Object<'env>>
where
    T: Send + 'static,
    V: ToNapiValue + 'static,
{
    let (deferred, promise) = env.create_deferred::<V, Settle<V>>().map_err(wrap_napi_error)?;
    let allowed = current_cpu_use();
    let run = move || {
        set_cpu_use(allowed);
        if allowed.background {
            lower_priority();
        }
        let result = catch_panic(name, work);
        deferred.resolve(Box::new(move |env| convert(env, result)));
    };
    std::thread::Builder::new()
        .name(format!("lowrank-{name}"))
        .spawn(run)
        .map_err(|e| to_js_error(fail_code(Code::Internal, format!("{name}: no thread was given: {e}"))))?;
    Ok(promise)
}

/// Returns a promise of an object that `fill` fills with the result of `work`, or of a `Failure`.
pub fn run_for_object<'env, T: Send + 'static>(
    env: &'env Env,
    name: &'static str,
    work: impl FnOnce() -> engine::Result<T> + Send + 'static,
    fill: impl FnOnce(&Env, &mut Object, T) -> napi::Result<()> + Send + 'static,
) -> Result<Object<'env>> {
    run_as_promise(env, name, work, move |env, made| {
        let mut object = Object::new(&env)?;
        match made {
            Ok(made) => fill(&env, &mut object, made)?,
            Err(error) => {
                let failure = to_failure(error);
                object.set("code", failure.code)?;
                object.set("message", failure.message)?;
            }
        }
        Ok(object)
    })
}

/// Returns a promise of null, or of a `Failure`, which the façade turns into a rejection.
pub fn run_for_null<'env>(
    env: &'env Env,
    name: &'static str,
    work: impl FnOnce() -> engine::Result<()> + Send + 'static,
) -> Result<Object<'env>> {
    run_as_promise(env, name, work, |_, done| Ok::<Option<Failure>, _>(done.err().map(to_failure)))
}

/// Runs `work`; a panic becomes `ERR_INTERNAL`.
pub fn catch_panic<T>(name: &str, work: impl FnOnce() -> engine::Result<T>) -> engine::Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(fail_code(Code::Internal, format!("{name}: {}", describe(&*panic)))))
}
