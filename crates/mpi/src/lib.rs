//! The addon of the package `lowrank-mpi`: the ranks of an MPI job, for JavaScript.
//!
//! A thread initialises MPI and runs all of its operations, one by one, in the order in which they are asked for. Windows
//! has no such package: there the crate is empty.

#![cfg(unix)]

mod communicator;
mod library;

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use napi::Env;
use napi::bindgen_prelude::{
    Float32Array, Float32ArraySlice, Object, ToNapiValue, Uint8Array, Uint8ArraySlice,
};
use napi_derive::napi;

use communicator::{AbortRequest, Communicator, RankInfo};
use library::{AnyMpi, Result};

/// The seconds that `abort` waits for the library to end the process.
const ABORT_SECONDS: u64 = 5;

type Settle<V> = Box<dyn FnOnce(Env) -> napi::Result<V>>;
type Done<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// An operation, and the receiver of its result.
enum Job {
    Gather(Vec<u8>, Done<Vec<Vec<u8>>>),
    Exchange(Vec<Vec<u8>>, Done<Vec<Vec<u8>>>),
    Sum {
        values: Vec<f32>,
        in_order: bool,
        done: Done<Vec<f32>>,
    },
    Finish(Done<()>),
    /// Looks at the request to abort.
    Abort,
}

/// The ranks of the job that this process belongs to.
#[napi]
pub struct Communication {
    info: RankInfo,
    jobs: Mutex<Sender<Job>>,
    abort: AbortRequest,
}

/// Opens the first MPI library of `paths` that exists and initialises it.
#[napi(catch_unwind, ts_return_type = "Promise<Communication>")]
pub fn connect<'env>(env: &'env Env, paths: Vec<String>) -> napi::Result<Object<'env>> {
    let keep = |_: &Env, made| Ok(made);
    make_promise(env, keep, |done| {
        let work = move || {
            let abort = AbortRequest::default();
            match library::open(&paths) {
                Ok((AnyMpi::Mpich(mpi), _)) => serve(Communicator::new(mpi, abort.clone()), abort, done),
                Ok((AnyMpi::OpenMpi(mpi), _)) => serve(Communicator::new(mpi, abort.clone()), abort, done),
                Err(error) => done(Err(error)),
            }
        };
        std::thread::Builder::new()
            .name("lowrank-mpi".into())
            .spawn(work)
            .map(drop)
            .map_err(|e| napi::Error::from_reason(format!("no thread was given: {e}")))
    })
}

/// Answers `connected`, then runs jobs until the last one.
fn serve<H: Copy>(made: Result<Communicator<H>>, abort: AbortRequest, connected: Done<Communication>) {
    let (send, receive) = channel();
    let communicator = match made {
        Ok(communicator) => communicator,
        Err(error) => return connected(Err(error)),
    };
    let info = communicator.info.clone();
    connected(Ok(Communication { info, jobs: Mutex::new(send), abort }));
    run(communicator, &receive);
}

fn run<H: Copy>(communicator: Communicator<H>, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        communicator.abort_if_requested();
        match job {
            Job::Gather(own, done) => done(communicator.gather(&own)),
            Job::Exchange(parts, done) => done(communicator.exchange(&parts)),
            Job::Sum { mut values, in_order, done } => {
                let summed = match in_order {
                    true => communicator.sum_in_order(&mut values),
                    false => communicator.sum_in_any_order(&mut values),
                };
                done(summed.map(|()| values));
            }
            Job::Finish(done) => return done(communicator.finish()),
            Job::Abort => {}
        }
    }
}

#[napi]
impl Communication {
    #[napi(getter, catch_unwind)]
    pub fn rank(&self) -> u32 {
        self.info.rank as u32
    }

    #[napi(getter, catch_unwind)]
    pub fn size(&self) -> u32 {
        self.info.size as u32
    }

    /// The rank among the ranks of this machine.
    #[napi(getter, catch_unwind)]
    pub fn local_rank(&self) -> u32 {
        self.info.local_rank as u32
    }

    /// The number of ranks of this machine.
    #[napi(getter, catch_unwind)]
    pub fn local_size(&self) -> u32 {
        self.info.local_size as u32
    }

    /// The name of this machine.
    #[napi(getter, catch_unwind)]
    pub fn host(&self) -> String {
        self.info.host.clone()
    }

    /// The name and version of the MPI library.
    #[napi(getter, catch_unwind)]
    pub fn library(&self) -> String {
        self.info.library.clone()
    }

    /// Returns the bytes of every rank, in rank order.
    #[napi(catch_unwind, ts_return_type = "Promise<Uint8Array[]>")]
    pub fn gather<'env>(&self, env: &'env Env, bytes: Uint8Array) -> napi::Result<Object<'env>> {
        make_promise(env, copy_to_js, |done| self.send(Job::Gather(bytes.to_vec(), done)))
    }

    /// Sends `parts[r]` to each rank `r`, and returns what each rank sent to this one.
    #[napi(catch_unwind, ts_return_type = "Promise<Uint8Array[]>")]
    pub fn exchange<'env>(&self, env: &'env Env, parts: Vec<Uint8Array>) -> napi::Result<Object<'env>> {
        let parts = parts.iter().map(|part| part.to_vec()).collect();
        make_promise(env, copy_to_js, |done| self.send(Job::Exchange(parts, done)))
    }

    /// Returns the sums of the values over all ranks, added in rank order or in an order that the library chooses.
    #[napi(catch_unwind, ts_return_type = "Promise<Float32Array>")]
    pub fn sum<'env>(
        &self,
        env: &'env Env,
        values: Float32Array,
        in_order: bool,
    ) -> napi::Result<Object<'env>> {
        let values = values.to_vec();
        let copy = |env: &Env, sums: Vec<f32>| Float32ArraySlice::copy_from(env, &sums[..]);
        make_promise(env, copy, |done| self.send(Job::Sum { values, in_order, done }))
    }

    /// Ends MPI; all ranks call it. Nothing may follow.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn finish<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        make_promise(env, |_, ()| Ok(()), |done| self.send(Job::Finish(done)))
    }

    /// Ends the processes of all ranks, this one too, with `status`.
    #[napi(catch_unwind)]
    pub fn abort(&self, status: i32) {
        self.abort.request(status);
        // An idle thread waits for a job; a busy one looks at the request between polls.
        let _ = self.send(Job::Abort);
        std::thread::sleep(std::time::Duration::from_secs(ABORT_SECONDS));
        std::process::exit(status);
    }
}

impl Communication {
    fn send(&self, job: Job) -> napi::Result<()> {
        let jobs = self.jobs.lock().unwrap_or_else(|e| e.into_inner());
        jobs.send(job).map_err(|_| napi::Error::from_reason("MPI has ended in this process"))
    }
}

type Arrays = Vec<Uint8ArraySlice<'static>>;

/// Copies into memory that JavaScript owns.
fn copy_to_js(env: &Env, parts: Vec<Vec<u8>>) -> napi::Result<Arrays> {
    parts.iter().map(|part| Uint8ArraySlice::copy_from(env, &part[..])).collect()
}

/// Returns a promise, which the receiver given to `start` settles with the value that `convert` makes.
fn make_promise<'env, T, V>(
    env: &'env Env,
    convert: impl FnOnce(&Env, T) -> napi::Result<V> + Send + 'static,
    start: impl FnOnce(Done<T>) -> napi::Result<()>,
) -> napi::Result<Object<'env>>
where
    T: Send + 'static,
    V: ToNapiValue + 'static,
{
    let (deferred, promise) = env.create_deferred::<V, Settle<V>>()?;
    start(Box::new(move |result| match result {
        Ok(value) => deferred.resolve(Box::new(move |env| convert(&env, value))),
        Err(error) => deferred.reject(napi::Error::from_reason(error)),
    }))?;
    Ok(promise)
}

/// Ends all ranks at a panic of the thread, which would leave the others waiting.
#[cfg(not(test))]
#[napi_derive::module_init]
fn abort_on_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        if std::thread::current().name() == Some("lowrank-mpi") {
            std::process::exit(1);
        }
    }));
}
