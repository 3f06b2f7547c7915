//! Tensors by number, and which of them JavaScript can no longer reach.
//!
//! What a scope frees, or `dispose`, is none of V8's business. Every other tensor is watched: its bytes are reported
//! to V8, which collects by what it is told, and a weak reference to its object says when that was collected. Such a
//! reference is empty as soon as V8 has let go, so it can be looked at in the midst of a call; a FinalizationRegistry
//! and a WeakRef wait for the event loop, which a synchronous loop never comes to.
//!
//! Cost of a watched tensor: a reference made, looked at once or twice, deleted (0.3 µs). References are looked at
//! when as much as is watched has been added since, so that a look's cost is spread over what was added.

use lowrank_engine::tape::Tensor;
use napi::sys;

/// V8 is told when what is watched has changed by this many bytes.
const REPORT: u64 = 8 << 20;
/// Bytes watched, and how many, from which references are looked at.
const LOOK: u64 = 32 << 20;
const LOOK_COUNT: usize = 1 << 12;
/// Bytes that are watched since V8 collected, at least and at most, before it is made to. It collects by itself
/// long before in a program that comes to its event loop.
const COLLECT: std::ops::RangeInclusive<u64> = 96 << 20..=1 << 30;
/// What V8 is told that it collects at once: more than any heap of it may hold.
const PRESSURE: i64 = 1 << 42;
/// References that one scope of V8's handles may hold.
const SCOPE: usize = 1 << 10;

struct Handle {
    tensor: Tensor,
    /// Null while its object is not watched.
    object: sys::napi_ref,
    /// What was reported for it.
    bytes: u64,
}

/// Call all of it from the thread that made it.
pub struct Handles {
    env: sys::napi_env,
    slots: Vec<Option<Handle>>,
    free: Vec<u32>,
    /// How many are watched, and their bytes.
    watched: usize,
    bytes: u64,
    reported: u64,
    /// Added since references were looked at.
    new: usize,
    new_bytes: u64,
    /// Bytes that were left when V8 was last made to collect, and those added since.
    survived: u64,
    uncollected: u64,
}

impl Handles {
    pub fn new(env: sys::napi_env) -> Self {
        Handles {
            env,
            slots: Vec::new(),
            free: Vec::new(),
            watched: 0,
            bytes: 0,
            reported: 0,
            new: 0,
            new_bytes: 0,
            survived: 0,
            uncollected: 0,
        }
    }

    pub fn get(&self, id: u32) -> Option<&Tensor> {
        self.slots.get(id as usize)?.as_ref().map(|handle| &handle.tensor)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.slots.iter().flatten().map(|handle| &handle.tensor)
    }

    pub fn insert(&mut self, tensor: Tensor) -> u32 {
        let handle = Some(Handle { tensor, object: std::ptr::null_mut(), bytes: 0 });
        match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = handle;
                id
            }
            None => {
                self.slots.push(handle);
                self.slots.len() as u32 - 1
            }
        }
    }

    /// Takes a handle out; nothing where its number is gone already.
    pub fn remove(&mut self, id: u32) -> Option<Tensor> {
        let handle = self.slots.get_mut(id as usize)?.take()?;
        self.free.push(id);
        if !handle.object.is_null() {
            // SAFETY: the reference was made in this environment and is deleted once.
            unsafe { sys::napi_delete_reference(self.env, handle.object) };
            self.watched -= 1;
            self.bytes -= handle.bytes;
        }
        Some(handle.tensor)
    }

    /// Takes all of them out.
    pub fn clear(&mut self) -> Vec<Tensor> {
        (0..self.slots.len() as u32).filter_map(|id| self.remove(id)).collect()
    }

    /// From now on the handle is dropped once V8 has collected `object`.
    pub fn watch(&mut self, id: u32, object: sys::napi_value) {
        let Some(Some(handle)) = self.slots.get_mut(id as usize) else { return };
        if !handle.object.is_null() {
            return;
        }
        // SAFETY: called by JavaScript of this environment, whose object it is.
        let status = unsafe { sys::napi_create_reference(self.env, object, 0, &mut handle.object) };
        if status != sys::Status::napi_ok {
            handle.object = std::ptr::null_mut();
            return;
        }
        handle.bytes = handle.tensor.value().storage.held();
        self.watched += 1;
        self.new += 1;
        self.bytes += handle.bytes;
        self.new_bytes += handle.bytes;
        self.uncollected += handle.bytes;
    }

    /// Tells V8 of what has changed, and drops what it has collected. Returns what was dropped, for the caller to
    /// let go of once nothing is borrowed.
    pub fn look(&mut self) -> Vec<Tensor> {
        if self.bytes.abs_diff(self.reported) >= REPORT {
            self.report();
        }
        // Whoever asks what is in use looks, too: that must not put the collection off.
        if self.uncollected >= (self.survived / 2).clamp(*COLLECT.start(), *COLLECT.end()) {
            return self.collect();
        }
        if self.new_bytes < LOOK.max(self.bytes / 8) && self.new < LOOK_COUNT.max(self.watched / 2) {
            return Vec::new();
        }
        self.dead()
    }

    /// Has V8 collect now; returns what it let go.
    pub fn collect(&mut self) -> Vec<Tensor> {
        self.adjust(PRESSURE);
        self.adjust(-PRESSURE);
        let dead = self.dead();
        (self.survived, self.uncollected) = (self.bytes, 0);
        dead
    }

    /// Bytes that a collection may free, as far as is known.
    pub fn uncollected(&self) -> u64 {
        self.uncollected.min(self.bytes)
    }

    fn report(&mut self) {
        self.adjust(self.bytes as i64 - self.reported as i64);
        self.reported = self.bytes;
    }

    fn adjust(&self, bytes: i64) {
        let mut total = 0;
        // SAFETY: the environment lives while the table does.
        unsafe { sys::napi_adjust_external_memory(self.env, bytes, &mut total) };
    }

    /// Takes out the handles whose objects V8 has collected.
    pub fn dead(&mut self) -> Vec<Tensor> {
        (self.new, self.new_bytes) = (0, 0);
        let mut ids = Vec::new();
        for (start, slots) in self.slots.chunks(SCOPE).enumerate() {
            let mut scope = std::ptr::null_mut();
            // SAFETY: called on the environment's thread, outside of a pending exception.
            if unsafe { sys::napi_open_handle_scope(self.env, &mut scope) } != sys::Status::napi_ok {
                break;
            }
            for (i, handle) in slots.iter().enumerate() {
                let Some(handle) = handle.as_ref().filter(|handle| !handle.object.is_null()) else {
                    continue;
                };
                let mut object = std::ptr::null_mut();
                // SAFETY: the reference was made in this environment and has not been deleted.
                let status = unsafe { sys::napi_get_reference_value(self.env, handle.object, &mut object) };
                if status == sys::Status::napi_ok && object.is_null() {
                    ids.push((start * SCOPE + i) as u32);
                }
            }
            // SAFETY: it is the scope opened above, and the innermost.
            unsafe { sys::napi_close_handle_scope(self.env, scope) };
        }
        let dead = ids.into_iter().filter_map(|id| self.remove(id)).collect();
        if self.bytes.abs_diff(self.reported) >= REPORT {
            self.report();
        }
        dead
    }
}
