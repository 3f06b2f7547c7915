//! What a run's time goes into: see the engine's `trace`.

use std::path::Path;
use std::sync::{Arc, Mutex};

use lowrank_engine::error::{Code, fail_code};
use lowrank_engine::probe::probe;
use lowrank_engine::trace::Trace as Collected;
use lowrank_engine::whole_file::WholeFile;
use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;

use crate::background;
use crate::error::{Result, thrown};
use crate::session::{Session, failure};

/// A file that a trace goes to, opened beside its place.
#[napi]
pub struct TraceFile {
    file: Mutex<Option<WholeFile>>,
    trace: Mutex<Option<Arc<Collected>>>,
}

/// An operation in one of its passes.
#[napi(object)]
pub struct TraceTotal {
    pub operation: String,
    /// forward, replay, backward, update, other
    pub pass: String,
    pub calls: f64,
    pub host_ms: f64,
    pub device_ms: f64,
    pub bytes_read: f64,
    pub bytes_written: f64,
    pub flops: f64,
    /// Milliseconds that it would have taken at the roofline.
    pub attainable_ms: f64,
}

/// What a trace came to.
#[napi(object)]
pub struct TraceSummary {
    /// What the device reaches in a matrix product, and in moving memory.
    pub flops_per_second: f64,
    pub bytes_per_second: f64,
    pub left_out: f64,
    pub totals: Vec<TraceTotal>,
}

#[napi]
impl TraceFile {
    #[napi(catch_unwind, factory)]
    pub fn create(path: String) -> Result<TraceFile> {
        let path = Path::new(&path);
        if path.is_dir() {
            let message = format!("{}: cannot be written: it is a folder", path.display());
            return Err(thrown(fail_code(Code::Write, message)));
        }
        let file = WholeFile::create(path).map_err(thrown)?;
        Ok(TraceFile { file: Mutex::new(Some(file)), trace: Mutex::default() })
    }

    /// Leaves no file.
    #[napi(catch_unwind)]
    pub fn discard(&self) {
        self.file.lock().unwrap_or_else(|e| e.into_inner()).take();
    }
}

#[napi]
impl Session {
    /// Measures what the device reaches, then traces what is recorded on it.
    #[napi(catch_unwind)]
    pub fn start_trace(&self, file: &TraceFile, device: String) -> Result<()> {
        self.with(|s| {
            let context = s.context(&device)?;
            let trace = Arc::new(Collected::default());
            context.trace(Some(trace.clone()));
            probe(&context)?;
            *file.trace.lock().unwrap_or_else(|e| e.into_inner()) = Some(trace);
            Ok(())
        })
    }

    /// Traces no longer.
    #[napi(catch_unwind)]
    pub fn stop_trace(&self, device: String) -> Result<()> {
        self.with(|s| {
            s.context(&device)?.trace(None);
            Ok(())
        })
    }

    /// Traces no longer, and writes the file. What was recorded has run before.
    #[napi(catch_unwind, ts_return_type = "Promise<TraceSummary | Failure>")]
    pub fn finish_trace<'env>(
        &self,
        env: &'env Env,
        file: &TraceFile,
        device: String,
    ) -> Result<Object<'env>> {
        self.stop_trace(device)?;
        let taken = |what: &str| thrown(fail_code(Code::Internal, format!("trace: {what}")));
        let trace = file.trace.lock().unwrap_or_else(|e| e.into_inner()).take();
        let trace = trace.ok_or_else(|| taken("it was not started"))?;
        let written = file.file.lock().unwrap_or_else(|e| e.into_inner()).take();
        let written = written.ok_or_else(|| taken("it was written before"))?;
        background::promise(
            env,
            "trace",
            move || {
                trace.write(written)?;
                Ok(summary(&trace))
            },
            |_, done| Ok(done.map_or_else(|e| napi::Either::B(failure(e)), napi::Either::A)),
        )
    }
}

fn summary(trace: &Collected) -> TraceSummary {
    let ms = |d: std::time::Duration| d.as_secs_f64() * 1e3;
    let totals = trace.totals().into_iter().map(|(mark, total)| TraceTotal {
        operation: mark.operation.into(),
        pass: mark.pass.as_str().into(),
        calls: total.calls as f64,
        host_ms: ms(total.host),
        device_ms: ms(total.device),
        bytes_read: total.cost.read as f64,
        bytes_written: total.cost.written as f64,
        flops: total.cost.flops as f64,
        attainable_ms: total.attainable * 1e3,
    });
    let roof = trace.roof();
    TraceSummary {
        flops_per_second: roof.flops,
        bytes_per_second: roof.bytes,
        left_out: trace.left_out() as f64,
        totals: totals.collect(),
    }
}
