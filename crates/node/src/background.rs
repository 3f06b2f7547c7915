//! Work on a thread of its own, behind a promise: files, and tokenizing whole data sets.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lowrank_engine::error::{Code, Result as EngineResult, fail_code};
use napi::bindgen_prelude::{Either, Object, ToNapiValue};
use napi::{Env, bindgen_prelude::TypeName};

use crate::error::{Result, internal, thrown};
use crate::session::{Failure, failure};

type Settle<T> = Box<dyn FnOnce(Env) -> napi::Result<Either<T, Failure>>>;

/// A promise of what `work` gives, or of its failure, which the façade makes a rejection of.
/// `work` runs on a new thread named `name`; a panic in it is `ERR_INTERNAL`.
pub fn promise<'env, T>(
    env: &'env Env,
    name: &'static str,
    work: impl FnOnce() -> EngineResult<T> + Send + 'static,
) -> Result<Object<'env>>
where
    T: TypeName + ToNapiValue + Send + 'static,
{
    let (deferred, promise) = env.create_deferred::<Either<T, Failure>, Settle<T>>().map_err(internal)?;
    let run = move || {
        let result = guarded(name, work);
        deferred.resolve(Box::new(move |_| {
            Ok(match result {
                Ok(value) => Either::A(value),
                Err(error) => Either::B(failure(error)),
            })
        }));
    };
    std::thread::Builder::new()
        .name(format!("lowrank-{name}"))
        .spawn(run)
        .map_err(|e| thrown(fail_code(Code::Internal, format!("{name}: no thread was given: {e}"))))?;
    Ok(promise)
}

/// Runs `work`; a panic becomes `ERR_INTERNAL`.
pub fn guarded<T>(name: &str, work: impl FnOnce() -> EngineResult<T>) -> EngineResult<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("unknown");
        Err(fail_code(Code::Internal, format!("{name}: {what}")))
    })
}
