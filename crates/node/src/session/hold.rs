//! What the threads of this process hold by name, such as the lock of a run's folder, until they let go or end.
//!
//! A thread that is busy answers no question, and one that is terminated says no word; so what they hold is kept here,
//! beside them all, and an environment's end takes it back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use napi_derive::napi;

use super::Session;

/// Environments by what they hold.
static HELD: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

fn held() -> MutexGuard<'static, BTreeMap<String, u64>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that no other environment of this process has.
pub(super) fn next_environment() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The environment has ended, whichever way.
pub(super) fn let_all_go(environment: u64) {
    held().retain(|_, holder| *holder != environment);
}

#[napi]
impl Session {
    /// This environment holds what goes by `name`, until it lets go or ends.
    #[napi(catch_unwind)]
    pub fn hold(&self, name: String) {
        held().insert(name, self.environment);
    }

    #[napi(catch_unwind)]
    pub fn let_go(&self, name: String) {
        held().remove(&name);
    }

    /// Whether an environment of this process that lives holds it.
    #[napi(catch_unwind)]
    pub fn is_held(&self, name: String) -> bool {
        held().contains_key(&name)
    }

    /// Tells copies of this library within one process apart: each knows what was held through it alone.
    #[napi(catch_unwind)]
    pub fn copy_of_library(&self) -> String {
        format!("{:p}", &HELD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_that_ends_lets_its_own_go() {
        let [one, other] = [next_environment(), next_environment()];
        assert_ne!(one, other);
        for (name, environment) in [("hold a", one), ("hold b", other), ("hold c", one)] {
            held().insert(name.into(), environment);
        }
        let_all_go(one);
        let left: Vec<String> = held().keys().filter(|name| name.starts_with("hold ")).cloned().collect();
        assert_eq!(left, ["hold b"]);
        let_all_go(other);
    }
}
