//! Messages and locations of panics. A panic is a bug of this library; the code that catches a panic reports it as an
//! error.

use std::any::Any;
use std::sync::{Mutex, Once};

/// The location of the last unreported panic; one for all threads, since a task's panic resumes in the thread that
/// waits for it.
static LOCATION: Mutex<Option<String>> = Mutex::new(None);

/// Installs a hook that records the location of panics, and prints nothing unless LOWRANK_DEBUG=1.
pub fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = std::panic::take_hook();
        let debug = std::env::var("LOWRANK_DEBUG").is_ok_and(|v| v == "1");
        std::panic::set_hook(Box::new(move |panic| {
            *LOCATION.lock().unwrap_or_else(|e| e.into_inner()) = panic.location().map(|at| at.to_string());
            if debug {
                previous(panic);
            }
        }));
    });
}

/// Takes the location of the last panic: `file:line:column`.
pub fn take_location() -> Option<String> {
    LOCATION.lock().unwrap_or_else(|e| e.into_inner()).take()
}

/// The message and location of a caught panic.
pub fn describe(panic: &(dyn Any + Send)) -> String {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    match take_location() {
        Some(location) => format!("{message} ({location})"),
        None => message.into(),
    }
}
