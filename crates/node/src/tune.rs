//! Autotuning of kernel variants: see the engine's `tune`.

use lowrank_engine::device::registry::{self, Opened};
use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_engine::kernels::TUNED;
use lowrank_engine::tune::{self, MeasuredVariant, Outcome, Setting, Verdict};
use napi::Env;
use napi::bindgen_prelude::{Either, Object};
use napi_derive::napi;

use crate::background;
use crate::error::Result;
use crate::session::to_failure;

/// A variant and its result.
#[napi(object)]
pub struct TriedForm {
    pub form: String,
    /// right, wrong (its values differ from the first variant's), refused (by the device) or slow (over the time limit)
    pub verdict: String,
    /// The reason of a refusal.
    pub reason: Option<String>,
    /// The shortest measured time of one run.
    pub milliseconds: Option<f64>,
}

/// A class of shapes and the variant in use for it.
#[napi(object)]
pub struct TunedClass {
    pub family: String,
    pub class: String,
    pub chosen: String,
    /// Floating-point operations of the timed run.
    pub flops: f64,
    /// All variants; the first is the default before autotuning.
    pub forms: Vec<TriedForm>,
}

/// The results for a device.
#[napi(object)]
pub struct TuneReport {
    pub device: String,
    pub name: String,
    /// Whether the device uses the results.
    pub used: bool,
    /// The file that stores them.
    pub file: Option<String>,
    pub classes: Vec<TunedClass>,
    /// Classes that could not be tried, with the reasons.
    pub failures: Vec<String>,
}

/// Sets the folder in which devices opened after this call store their fastest variants.
#[napi(catch_unwind)]
pub fn keep_tuning_in(folder: String) {
    tune::set_folder(folder.into());
}

/// Tries all variants of the usual shapes on a GPU now, regardless of stored results.
#[napi(catch_unwind, ts_return_type = "Promise<TuneReport | Failure>")]
pub fn tune_device(env: &Env, device: String) -> Result<Object<'_>> {
    background::run_as_promise(
        env,
        "tune",
        move || tune_usual_classes(&device),
        |_, report| Ok(report.map_or_else(|error| Either::B(to_failure(error)), Either::A)),
    )
}

fn tune_usual_classes(label: &str) -> engine::Result<TuneReport> {
    if Setting::from_environment()? == Setting::Off {
        return Err(fail_code(Code::Option, "LOWRANK_TUNE is off, so nothing is tuned"));
    }
    let device = match registry::open(label)? {
        Opened::Device(device) => device,
        Opened::Meta(_) => return Err(no_gpu_error(label)),
    };
    let found = device.tune(TUNED)?.ok_or_else(|| no_gpu_error(label))?;
    Ok(TuneReport {
        device: label.into(),
        name: device.profile.name.clone(),
        used: found.used,
        file: found.file.map(|path| path.display().to_string()),
        classes: found.outcomes.iter().map(to_tuned_class).collect(),
        failures: found.failures.iter().map(|(class, error)| format!("{class}: {error}")).collect(),
    })
}

fn no_gpu_error(label: &str) -> engine::Error {
    fail_code(Code::Option, format!("{label} is not a GPU; only GPUs are autotuned"))
}

fn to_tuned_class(outcome: &Outcome) -> TunedClass {
    let family = outcome.class.family;
    TunedClass {
        family: family.name.into(),
        class: (family.class)(&outcome.class.words),
        chosen: (family.describe)(outcome.chosen),
        flops: outcome.work as f64,
        forms: outcome.variants.iter().map(|tried| describe_variant(tried, family)).collect(),
    }
}

fn describe_variant(measured: &MeasuredVariant, family: &tune::Family) -> TriedForm {
    let (verdict, reason) = match &measured.verdict {
        Verdict::Sound => ("right", None),
        Verdict::Wrong => ("wrong", None),
        Verdict::Refused(reason) => ("refused", Some(reason.clone())),
        Verdict::Slow => ("slow", None),
    };
    TriedForm {
        form: (family.describe)(measured.variant),
        verdict: verdict.into(),
        reason,
        milliseconds: measured.took.map(|took| took.as_secs_f64() * 1e3),
    }
}
