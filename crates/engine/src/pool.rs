//! Buffers by size class. All decisions are made when commands are recorded, so memory use is the same in every run.
//!
//! A class wastes at most an eighth. Before the pool would hold more than an eighth above the peak of live bytes (or 16
//! MiB, if that is more), idle buffers are freed, so varying lengths never make it grow. The rest of that bound is room
//! for idle buffers, which keeps the sizes of forward and backward from displacing each other in every step.
//!
//! The buffer that has been idle longest is freed first: a step needs the same sizes as the last one, so the buffers
//! that it does not use come from an unusual step, such as an epoch's short last batch. docs/design/measurements.md has
//! the figures.

use std::collections::{BTreeMap, VecDeque};

use crate::kernel::BufferId;

const SMALLEST_CLASS: u64 = 256;
/// Most bytes for idle buffers above the peak of live size classes.
const MIN_IDLE_BYTES: u64 = 16 << 20;

/// The size class for a request of `bytes`: eight steps per power of two, and at most the buffer `limit` unless the
/// request is larger.
pub fn size_class(bytes: u64, limit: u64) -> u64 {
    if bytes <= SMALLEST_CLASS {
        return SMALLEST_CLASS;
    }
    let power = 1u64 << (63 - bytes.leading_zeros());
    let step = (power / 8).max(SMALLEST_CLASS);
    // Whole words, since copies and clears work on words.
    (bytes.div_ceil(step) * step).min(limit / 4 * 4).max(bytes)
}

#[derive(Default)]
pub struct Pool {
    /// Most bytes of a buffer.
    limit: u64,
    /// By class, ordered by the time at which they were freed.
    idle: BTreeMap<u64, VecDeque<Idle>>,
    /// The class of each idle buffer, by the time at which it was freed.
    waiting: BTreeMap<u64, u64>,
    /// Buffers freed so far.
    freed: u64,
    idle_bytes: u64,
    live: u64,
    live_classes: u64,
    highest_live_classes: u64,
    highest_live: u64,
    peak: u64,
}

struct Idle {
    buffer: BufferId,
    /// The number of buffers freed before it.
    since: u64,
}

/// The commands that an allocation needs on the device, in this order.
pub struct Allocation {
    pub buffer: BufferId,
    pub class: u64,
    pub destroyed: Vec<BufferId>,
    pub create: bool,
}

impl Pool {
    pub fn new(limit: u64) -> Pool {
        Pool { limit, ..Pool::default() }
    }

    /// The size class for a request of `bytes`.
    pub fn size_class(&self, bytes: u64) -> u64 {
        size_class(bytes, self.limit)
    }

    pub fn allocate(&mut self, bytes: u64) -> Allocation {
        let class = self.size_class(bytes);
        self.live += bytes;
        self.live_classes += class;
        self.highest_live_classes = self.highest_live_classes.max(self.live_classes);
        self.highest_live = self.highest_live.max(self.live);
        if let Some(buffer) = self.take_idle(class) {
            return Allocation { buffer, class, destroyed: Vec::new(), create: false };
        }
        let mut destroyed = Vec::new();
        let limit = self.reserve_limit();
        while self.idle_bytes > 0 && self.reserved_bytes() > limit {
            destroyed.push(self.take_longest_idle());
        }
        self.peak = self.peak.max(self.reserved_bytes());
        Allocation { buffer: BufferId::next(), class, destroyed, create: true }
    }

    /// Whether a request of `class` bytes can reuse an idle buffer.
    pub fn has_idle(&self, class: u64) -> bool {
        self.idle.get(&class).is_some_and(|idle| !idle.is_empty())
    }

    /// The bound above which idle buffers are freed.
    fn reserve_limit(&self) -> u64 {
        let above = self.highest_live + (self.highest_live / 8).max(MIN_IDLE_BYTES);
        above.clamp(self.highest_live_classes, self.highest_live_classes + MIN_IDLE_BYTES)
    }

    pub fn free(&mut self, buffer: BufferId, bytes: u64) {
        let class = self.size_class(bytes);
        self.live -= bytes;
        self.live_classes -= class;
        self.idle_bytes += class;
        self.idle.entry(class).or_default().push_back(Idle { buffer, since: self.freed });
        self.waiting.insert(self.freed, class);
        self.freed += 1;
    }

    /// Counts bytes that the device allocated itself.
    pub fn count_held(&mut self, bytes: u64) {
        self.live += bytes;
        self.live_classes += bytes;
        self.highest_live_classes = self.highest_live_classes.max(self.live_classes);
        self.highest_live = self.highest_live.max(self.live);
        self.peak = self.peak.max(self.reserved_bytes());
    }

    /// Uncounts such bytes.
    pub fn uncount_held(&mut self, bytes: u64) {
        self.live -= bytes;
        self.live_classes -= bytes;
    }

    /// Removes every idle buffer, to be freed, and returns their total bytes.
    pub fn drain(&mut self) -> (Vec<BufferId>, u64) {
        self.waiting.clear();
        let buffers = std::mem::take(&mut self.idle).into_values().flatten().map(|idle| idle.buffer);
        (buffers.collect(), std::mem::take(&mut self.idle_bytes))
    }

    /// Requested bytes that are in use.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// Bytes of the buffers in use.
    pub fn live_classes(&self) -> u64 {
        self.live_classes
    }

    /// Bytes that the device holds: buffers in use and idle buffers.
    pub fn reserved_bytes(&self) -> u64 {
        self.live_classes + self.idle_bytes
    }

    /// The peak of `live`.
    pub fn highest_live(&self) -> u64 {
        self.highest_live
    }

    /// The peak of `reserved_bytes`.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    pub fn reset_peak(&mut self) {
        self.peak = self.reserved_bytes();
        self.highest_live_classes = self.live_classes;
        self.highest_live = self.live;
    }

    /// The buffer of this class that was freed last: it is the most likely to be in a cache.
    fn take_idle(&mut self, class: u64) -> Option<BufferId> {
        let Idle { buffer, since } = self.idle.get_mut(&class)?.pop_back()?;
        self.waiting.remove(&since);
        self.idle_bytes -= class;
        Some(buffer)
    }

    fn take_longest_idle(&mut self) -> BufferId {
        let (_, class) = self.waiting.pop_first().expect("idle bytes are those of buffers that wait");
        let queue = self.idle.get_mut(&class).expect("a buffer that waits is in its class");
        let Idle { buffer, .. } = queue.pop_front().expect("a buffer that waits is in its class");
        self.idle_bytes -= class;
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_waste_at_most_an_eighth() {
        for bytes in (1..200_000).step_by(37).chain([257, 4096, 4097, 1 << 30, (1 << 30) + 1]) {
            let class = size_class(bytes, u64::MAX);
            assert!(class >= bytes);
            assert!(bytes < 2048 || class - bytes <= bytes / 8, "{bytes} in {class}");
        }
    }

    #[test]
    fn size_classes_respect_the_buffer_limit() {
        const LIMIT: u64 = (1 << 31) - 1;
        // The embedding of Llama 3 8B in f32: its class step of 128 MiB would end at 2^31.
        let embedding = 128_256 * 4096 * 4;
        assert_eq!(size_class(embedding, u64::MAX), 1 << 31);
        assert_eq!(size_class(embedding, LIMIT), (1 << 31) - 4);
        assert_eq!(size_class(1 << 31, LIMIT), 1 << 31);
        let mut pool = Pool::new(LIMIT);
        let buffer = pool.allocate(embedding).buffer;
        assert_eq!(pool.reserved_bytes(), (1 << 31) - 4);
        pool.free(buffer, embedding);
        assert_eq!((pool.live_classes(), pool.reserved_bytes()), (0, (1 << 31) - 4));
        assert!(!pool.allocate(embedding - 4096).create);
    }

    #[test]
    fn varying_sizes_reserve_little_more_than_the_peak() {
        // Up to 8 MB in use, and up to 800.
        for unit in [1000, 100_000] {
            let mut pool = Pool::new(u64::MAX);
            let mut state = 1u64;
            let mut highest = 0;
            for _ in 0..2000 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let n = unit * (1 + (state >> 33) % 512);
                let buffers: Vec<_> = (1..6).map(|i| (pool.allocate(n * i).buffer, n * i)).collect();
                highest = highest.max(pool.live());
                buffers.into_iter().for_each(|(b, n)| pool.free(b, n));
                assert_eq!(pool.live(), 0);
                assert!(pool.reserved_bytes() <= highest + (highest / 8).max(MIN_IDLE_BYTES));
            }
        }
    }

    #[test]
    fn the_longest_idle_buffer_is_freed_first() {
        const K: u64 = MIN_IDLE_BYTES;
        for order in [[4, 6, 8], [8, 6, 4], [6, 8, 4], [4, 8, 6]] {
            let mut pool = Pool::new(u64::MAX);
            let buffers = order.map(|n| (pool.allocate(n * K).buffer, n * K));
            buffers.into_iter().for_each(|(buffer, bytes)| pool.free(buffer, bytes));
            // 18 are idle where at most 19 may be held: 5 more require that 4 are freed, and each idle buffer is large
            // enough.
            let next = pool.allocate(5 * K);
            assert!(next.create);
            assert_eq!(next.destroyed, [buffers[0].0], "{order:?}");
            // The others are still reused.
            let others = [1, 2].map(|i| pool.allocate(buffers[i].1));
            assert!(others.iter().all(|allocation| !allocation.create));
        }
    }
}
