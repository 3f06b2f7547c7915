//! The setting `LOWRANK_TUNE`, and the folder of results.

use std::path::PathBuf;
use std::sync::Mutex;

use crate::error::Result;
use crate::fail;

/// Whether variants are measured during runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// On hardware GPUs only: the speed of a software GPU matters to no user.
    Hardware,
    /// On every GPU.
    On,
    /// Never; earlier results are not read either.
    Off,
}

impl Setting {
    /// The setting of `LOWRANK_TUNE`.
    ///
    /// # Errors
    /// `ERR_OPTION` if it is neither `on` nor `off`.
    pub fn from_environment() -> Result<Setting> {
        match std::env::var("LOWRANK_TUNE").unwrap_or_default().as_str() {
            "" => Ok(Setting::Hardware),
            "on" => Ok(Setting::On),
            "off" => Ok(Setting::Off),
            other => fail!(
                Option,
                "LOWRANK_TUNE is {other:?}; it may be on or off, and unset it is on for GPUs of silicon"
            ),
        }
    }

    /// Whether a GPU, in software or not, is tuned during runs.
    pub fn is_on(self, software: bool) -> bool {
        match self {
            Setting::Hardware => !software,
            Setting::On => true,
            Setting::Off => false,
        }
    }
}

static FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Sets the folder in which devices opened from now on keep their results; it need not exist. Without it, nothing is
/// kept.
pub fn set_folder(folder: PathBuf) {
    *FOLDER.lock().unwrap_or_else(|e| e.into_inner()) = Some(folder);
}

pub(super) fn folder() -> Option<PathBuf> {
    FOLDER.lock().unwrap_or_else(|e| e.into_inner()).clone()
}
