//! Forms of kernels, found on the device: see the engine's `tune`.

use lowrank_engine::device::registry::{self, Opened};
use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_engine::kernels::TUNED;
use lowrank_engine::tune::{self, Outcome, Setting, Tried, Verdict};
use napi::Env;
use napi::bindgen_prelude::{Either, Object};
use napi_derive::napi;

use crate::background;
use crate::error::Result;
use crate::session::failure;

/// A form, and what was found.
#[napi(object)]
pub struct TriedForm {
    pub form: String,
    /// right, wrong (other numbers than the first form's), refused (by the device) or slow (past what may be tried)
    pub verdict: String,
    /// Why it was refused.
    pub reason: Option<String>,
    /// The shortest that one run took.
    pub milliseconds: Option<f64>,
}

/// A class of shapes, and the form that is used for it.
#[napi(object)]
pub struct TunedClass {
    pub family: String,
    pub class: String,
    pub chosen: String,
    /// Floating-point operations of the run that was timed.
    pub flops: f64,
    /// The form that is used as long as nothing is known first.
    pub forms: Vec<TriedForm>,
}

/// What was found on a device.
#[napi(object)]
pub struct TuneReport {
    pub device: String,
    pub name: String,
    /// Whether runs on it use what was found.
    pub used: bool,
    /// The file that it is kept in.
    pub file: Option<String>,
    pub classes: Vec<TunedClass>,
    /// Classes that could not be tried, and why.
    pub failures: Vec<String>,
}

/// Has devices that are opened from now on keep in that folder which forms are the fastest.
#[napi(catch_unwind)]
pub fn keep_tuning_in(folder: String) {
    tune::keep_in(folder.into());
}

/// Tries the forms of usual shapes on a GPU now, whatever was found before.
#[napi(catch_unwind, ts_return_type = "Promise<TuneReport | Failure>")]
pub fn tune_device(env: &Env, device: String) -> Result<Object<'_>> {
    background::promise(
        env,
        "tune",
        move || tuned(&device),
        |_, report| Ok(report.map_or_else(|error| Either::B(failure(error)), Either::A)),
    )
}

fn tuned(label: &str) -> engine::Result<TuneReport> {
    if Setting::of_environment()? == Setting::Off {
        return Err(fail_code(Code::Option, "LOWRANK_TUNE is off, so that no form is tried"));
    }
    let device = match registry::open(label)? {
        Opened::Device(device) => device,
        Opened::Meta(_) => return Err(no_gpu(label)),
    };
    let found = device.tune(TUNED)?.ok_or_else(|| no_gpu(label))?;
    Ok(TuneReport {
        device: label.into(),
        name: device.profile.name.clone(),
        used: found.used,
        file: found.file.map(|path| path.display().to_string()),
        classes: found.outcomes.iter().map(class).collect(),
        failures: found.failures.iter().map(|(class, error)| format!("{class}: {error}")).collect(),
    })
}

fn no_gpu(label: &str) -> engine::Error {
    fail_code(Code::Option, format!("{label} is no GPU: forms are tried on GPUs alone"))
}

fn class(outcome: &Outcome) -> TunedClass {
    let family = outcome.class.family;
    TunedClass {
        family: family.name.into(),
        class: (family.class)(&outcome.class.words),
        chosen: (family.form)(outcome.chosen),
        flops: outcome.work as f64,
        forms: outcome.forms.iter().map(|tried| form(tried, family)).collect(),
    }
}

fn form(tried: &Tried, family: &tune::Family) -> TriedForm {
    let (verdict, reason) = match &tried.verdict {
        Verdict::Sound => ("right", None),
        Verdict::Wrong => ("wrong", None),
        Verdict::Refused(reason) => ("refused", Some(reason.clone())),
        Verdict::Slow => ("slow", None),
    };
    TriedForm {
        form: (family.form)(tried.form),
        verdict: verdict.into(),
        reason,
        milliseconds: tried.took.map(|took| took.as_secs_f64() * 1e3),
    }
}
