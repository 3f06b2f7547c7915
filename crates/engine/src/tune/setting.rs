//! What `LOWRANK_TUNE` says, and where results are kept.

use std::path::PathBuf;
use std::sync::Mutex;

use crate::error::Result;
use crate::fail;

/// Whether forms are tried while a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// On GPUs of silicon: the speed of one in software is nobody's goal.
    Hardware,
    /// On every GPU.
    On,
    /// Nowhere, and what was found before is not read.
    Off,
}

impl Setting {
    /// What `LOWRANK_TUNE` says.
    ///
    /// # Errors
    /// `ERR_OPTION` where it is neither `on` nor `off`.
    pub fn of_environment() -> Result<Setting> {
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

    /// Whether a GPU of that kind is tuned while it is used.
    pub fn tunes(self, software: bool) -> bool {
        match self {
            Setting::Hardware => !software,
            Setting::On => true,
            Setting::Off => false,
        }
    }
}

static FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Has devices that are opened from now on keep what they find in `folder`, which need not be there; as long as none
/// was named, nothing is kept.
pub fn keep_in(folder: PathBuf) {
    *FOLDER.lock().unwrap_or_else(|e| e.into_inner()) = Some(folder);
}

pub(super) fn folder() -> Option<PathBuf> {
    FOLDER.lock().unwrap_or_else(|e| e.into_inner()).clone()
}
