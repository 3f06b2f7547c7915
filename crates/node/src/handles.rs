//! Tensors by number, and which of them JavaScript can no longer reach.
//!
//! A tensor that a scope or `dispose` frees needs no help from V8. Every other tensor is tracked: its bytes are
//! reported to V8, whose garbage collector is driven by external memory, and a weak reference to its object becomes
//! empty when V8 collects the object. The reference can be checked in the middle of a call. A FinalizationRegistry and
//! a WeakRef wait for the event loop, which a synchronous loop never reaches.
//!
//! Cost of a tracked tensor: one reference is created, checked once or twice, and deleted (0.3 µs). References are
//! checked after additions in proportion to the tracked tensors, so that the cost of a check is amortised over them.

use lowrank_engine::tape::Tensor;
use napi::sys;

/// A change of the tracked bytes by this much is reported to V8.
const REPORT: u64 = 8 << 20;
/// The minimum of new bytes, and of new tensors, before references are checked.
const SWEEP_BYTES: u64 = 32 << 20;
const SWEEP_COUNT: usize = 1 << 12;
/// Bounds, in bytes, of the memory tracked since the last collection at which V8 is made to collect. In a program
/// that reaches its event loop, V8 collects by itself long before.
const COLLECT: std::ops::RangeInclusive<u64> = 96 << 20..=1 << 30;
/// External memory, in bytes, that makes V8 collect at once when it is reported: larger than any V8 heap.
const PRESSURE: i64 = 1 << 42;
/// References that are checked in one V8 handle scope.
const SCOPE: usize = 1 << 10;

struct Handle {
    tensor: Tensor,
    /// Null if its object is not tracked.
    object: sys::napi_ref,
    /// Bytes of the tensor that are counted while it is tracked.
    bytes: u64,
}

/// The table of an environment's tensors. Use it only on the thread that created it.
pub struct Handles {
    env: sys::napi_env,
    slots: Vec<Option<Handle>>,
    free: Vec<u32>,
    /// Number of tracked tensors, and their bytes.
    tracked: usize,
    bytes: u64,
    reported: u64,
    /// Tensors and bytes added since references were last checked.
    new: usize,
    new_bytes: u64,
    /// Bytes left after the last forced collection, and bytes added since.
    survived: u64,
    uncollected: u64,
}

impl Handles {
    pub fn new(env: sys::napi_env) -> Self {
        Handles {
            env,
            slots: Vec::new(),
            free: Vec::new(),
            tracked: 0,
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

    /// Removes a handle; returns none if its number is already free.
    pub fn remove(&mut self, id: u32) -> Option<Tensor> {
        let handle = self.slots.get_mut(id as usize)?.take()?;
        self.free.push(id);
        if !handle.object.is_null() {
            // SAFETY: the reference was made in this environment and is deleted once.
            unsafe { sys::napi_delete_reference(self.env, handle.object) };
            self.tracked -= 1;
            self.bytes -= handle.bytes;
        }
        Some(handle.tensor)
    }

    /// Removes all handles.
    pub fn clear(&mut self) -> Vec<Tensor> {
        (0..self.slots.len() as u32).filter_map(|id| self.remove(id)).collect()
    }

    /// Tracks `object`: the handle is dropped once V8 has collected it.
    pub fn track(&mut self, id: u32, object: sys::napi_value) {
        let Some(Some(handle)) = self.slots.get_mut(id as usize) else { return };
        if !handle.object.is_null() {
            return;
        }
        // SAFETY: JavaScript of this environment calls this with an object of the environment.
        let status = unsafe { sys::napi_create_reference(self.env, object, 0, &mut handle.object) };
        if status != sys::Status::napi_ok {
            handle.object = std::ptr::null_mut();
            return;
        }
        handle.bytes = handle.tensor.value().storage.owned_bytes();
        self.tracked += 1;
        self.new += 1;
        self.bytes += handle.bytes;
        self.new_bytes += handle.bytes;
        self.uncollected += handle.bytes;
    }

    /// Reports changes to V8 and removes the handles whose objects it has collected. Returns their tensors, which the
    /// caller must drop when nothing is borrowed.
    pub fn sweep(&mut self) -> Vec<Tensor> {
        if self.bytes.abs_diff(self.reported) >= REPORT {
            self.report();
        }
        // A query for memory in use checks references, too, and must not delay this collection.
        if self.uncollected >= (self.survived / 2).clamp(*COLLECT.start(), *COLLECT.end()) {
            return self.collect();
        }
        if self.new_bytes < SWEEP_BYTES.max(self.bytes / 8) && self.new < SWEEP_COUNT.max(self.tracked / 2) {
            return Vec::new();
        }
        self.take_dead()
    }

    /// Makes V8 collect now; returns the tensors of the collected objects.
    pub fn collect(&mut self) -> Vec<Tensor> {
        self.adjust(PRESSURE);
        self.adjust(-PRESSURE);
        let dead = self.take_dead();
        (self.survived, self.uncollected) = (self.bytes, 0);
        dead
    }

    /// An upper bound of the bytes that a collection may free.
    pub fn uncollected_bytes(&self) -> u64 {
        self.uncollected.min(self.bytes)
    }

    fn report(&mut self) {
        self.adjust(self.bytes as i64 - self.reported as i64);
        self.reported = self.bytes;
    }

    fn adjust(&self, bytes: i64) {
        let mut total = 0;
        // SAFETY: the environment outlives the table.
        unsafe { sys::napi_adjust_external_memory(self.env, bytes, &mut total) };
    }

    /// Removes the handles whose objects V8 has collected.
    pub fn take_dead(&mut self) -> Vec<Tensor> {
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
            // SAFETY: it is the scope opened above, and no scope inside it is open.
            unsafe { sys::napi_close_handle_scope(self.env, scope) };
        }
        let dead = ids.into_iter().filter_map(|id| self.remove(id)).collect();
        if self.bytes.abs_diff(self.reported) >= REPORT {
            self.report();
        }
        dead
    }
}
