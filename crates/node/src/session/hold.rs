//! Named locks of this process's environments, such as the lock of a run's folder, until they are released.
//!
//! A busy thread answers no question, and a terminated one sends no message. So the locks are kept here, shared by all
//! threads, and the end of an environment releases its locks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use napi_derive::napi;

use super::Session;

/// The holder (an environment's number) of each lock.
static HOLDERS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

fn lock_held() -> MutexGuard<'static, BTreeMap<String, u64>> {
    HOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a number that no other environment of this process has.
pub(super) fn number_environment() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Releases all locks of an environment that has ended.
pub(super) fn release_all(environment: u64) {
    lock_held().retain(|_, holder| *holder != environment);
}

#[napi]
impl Session {
    /// Acquires the lock `name` for this environment until it is released or the environment ends.
    #[napi(catch_unwind)]
    pub fn hold(&self, name: String) {
        lock_held().insert(name, self.environment);
    }

    #[napi(catch_unwind)]
    pub fn let_go(&self, name: String) {
        lock_held().remove(&name);
    }

    /// Whether an environment of this process holds the lock.
    #[napi(catch_unwind)]
    pub fn is_held(&self, name: String) -> bool {
        lock_held().contains_key(&name)
    }

    /// Identifies this copy of the library. Copies within one process do not see each other's locks.
    #[napi(catch_unwind)]
    pub fn copy_of_library(&self) -> String {
        format!("{:p}", &HOLDERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_environment_releases_its_own_locks() {
        let [one, other] = [number_environment(), number_environment()];
        assert_ne!(one, other);
        for (name, environment) in [("hold a", one), ("hold b", other), ("hold c", one)] {
            lock_held().insert(name.into(), environment);
        }
        release_all(one);
        let left: Vec<String> =
            lock_held().keys().filter(|name| name.starts_with("hold ")).cloned().collect();
        assert_eq!(left, ["hold b"]);
        release_all(other);
    }
}
