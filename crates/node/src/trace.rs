//! Time profiles of a run: see the engine's `trace`.

use std::path::Path;
use std::sync::{Arc, Mutex};

use lowrank_engine::error::{Code, fail_code};
use lowrank_engine::probe::probe;
use lowrank_engine::staged_file::StagedFile;
use lowrank_engine::trace::Trace as Collected;
use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;

use crate::background;
use crate::error::{Result, to_js_error};
use crate::session::{Session, to_failure};

/// The staging file of a trace.
#[napi]
pub struct TraceFile {
    file: Mutex<Option<StagedFile>>,
    trace: Mutex<Option<Arc<Collected>>>,
}

/// Totals of an operation in one of its passes.
#[napi(object)]
pub struct TraceTotal {
    pub operation: String,
    /// forward, replay, backward, update or other
    pub pass: String,
    pub calls: f64,
    pub host_ms: f64,
    pub device_ms: f64,
    pub bytes_read: f64,
    pub bytes_written: f64,
    pub flops: f64,
    /// Time at the roofline, in milliseconds.
    pub attainable_ms: f64,
}

/// The summary of a trace.
#[napi(object)]
pub struct TraceSummary {
    /// The device's measured peak in a matrix product and in memory traffic.
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
            return Err(to_js_error(fail_code(Code::Write, message)));
        }
        let file = StagedFile::create(path).map_err(to_js_error)?;
        Ok(TraceFile { file: Mutex::new(Some(file)), trace: Mutex::default() })
    }

    /// Removes the staging file.
    #[napi(catch_unwind)]
    pub fn discard(&self) {
        self.file.lock().unwrap_or_else(|e| e.into_inner()).take();
    }
}

#[napi]
impl Session {
    /// Measures the device's peak performance, then starts the trace.
    #[napi(catch_unwind)]
    pub fn start_trace(&self, file: &TraceFile, device: String) -> Result<()> {
        self.with_state(|s| {
            let context = s.context(&device)?;
            let trace = Arc::new(Collected::default());
            context.set_trace(Some(trace.clone()));
            probe(&context)?;
            *file.trace.lock().unwrap_or_else(|e| e.into_inner()) = Some(trace);
            Ok(())
        })
    }

    /// Stops the trace.
    #[napi(catch_unwind)]
    pub fn stop_trace(&self, device: String) -> Result<()> {
        self.with_state(|s| {
            s.context(&device)?.set_trace(None);
            Ok(())
        })
    }

    /// Stops the trace and writes the file. The recorded work must have run.
    #[napi(catch_unwind, ts_return_type = "Promise<TraceSummary | Failure>")]
    pub fn finish_trace<'env>(
        &self,
        env: &'env Env,
        file: &TraceFile,
        device: String,
    ) -> Result<Object<'env>> {
        self.stop_trace(device)?;
        let misuse = |what: &str| to_js_error(fail_code(Code::Internal, format!("trace: {what}")));
        let trace = file.trace.lock().unwrap_or_else(|e| e.into_inner()).take();
        let trace = trace.ok_or_else(|| misuse("it was not started"))?;
        let staged = file.file.lock().unwrap_or_else(|e| e.into_inner()).take();
        let staged = staged.ok_or_else(|| misuse("it was written before"))?;
        background::run_as_promise(
            env,
            "trace",
            move || {
                trace.write(staged)?;
                Ok(summarise(&trace))
            },
            |_, done| Ok(done.map_or_else(|e| napi::Either::B(to_failure(e)), napi::Either::A)),
        )
    }
}

fn summarise(trace: &Collected) -> TraceSummary {
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
        left_out: trace.dropped_events() as f64,
        totals: totals.collect(),
    }
}
