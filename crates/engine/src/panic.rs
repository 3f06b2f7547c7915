//! What a panic says, and where it was. A panic is a fault of this library; whoever catches one tells it as an error.

use std::any::Any;
use std::sync::{Mutex, Once};

/// Where the last panic was that nobody has told yet. One place for all threads: a task's panic goes on in the
/// thread that waits for the task.
static PLACE: Mutex<Option<String>> = Mutex::new(None);

/// From now on panics keep their place for whoever tells them, and print nothing unless LOWRANK_DEBUG=1.
pub fn listen() {
    static LISTENS: Once = Once::new();
    LISTENS.call_once(|| {
        let prints = std::panic::take_hook();
        let debug = std::env::var("LOWRANK_DEBUG").is_ok_and(|v| v == "1");
        std::panic::set_hook(Box::new(move |panic| {
            *PLACE.lock().unwrap_or_else(|e| e.into_inner()) = panic.location().map(|at| at.to_string());
            if debug {
                prints(panic);
            }
        }));
    });
}

/// Takes the place of the last panic: `file:line:column`.
pub fn place() -> Option<String> {
    PLACE.lock().unwrap_or_else(|e| e.into_inner()).take()
}

/// A caught panic's message and place.
pub fn told(panic: &(dyn Any + Send)) -> String {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    match place() {
        Some(place) => format!("{message} ({place})"),
        None => message.into(),
    }
}
