//! Buffers by size class, decided when recorded: the same memory in every run.
//!
//! A class wastes at most an eighth. Before the pool would hold more than an eighth above the highest that
//! was ever live, idle buffers are given back, so varying lengths never make it grow. What classes leave
//! of that eighth is room for buffers that wait: without it, forward's sizes and backward's push one another
//! out each step, and a new buffer's pages are cleared by the system (a block of SmolLM2 alone, 512 tokens
//! forward and backward: 3,000 pages a pass, 30 ms, against 24).

use std::collections::BTreeMap;

use crate::recording::BufferId;

const SMALLEST: u64 = 256;
/// Most bytes of room for idle buffers above the highest classes that were live.
const ROOM: u64 = 16 << 20;

/// The size that a request of `bytes` is served with: eight steps to each power of two.
pub fn class_of(bytes: u64) -> u64 {
    if bytes <= SMALLEST {
        return SMALLEST;
    }
    let power = 1u64 << (63 - bytes.leading_zeros());
    let step = (power / 8).max(SMALLEST);
    bytes.div_ceil(step) * step
}

#[derive(Default)]
pub struct Pool {
    idle: BTreeMap<u64, Vec<BufferId>>,
    idle_bytes: u64,
    live: u64,
    live_classes: u64,
    highest_live_classes: u64,
    highest_live: u64,
    peak: u64,
}

/// What an allocation needs done on the device, in this order.
pub struct Allocation {
    pub buffer: BufferId,
    pub class: u64,
    pub give_back: Vec<BufferId>,
    pub create: bool,
}

impl Pool {
    pub fn allocate(&mut self, bytes: u64) -> Allocation {
        let class = class_of(bytes);
        self.live += bytes;
        self.live_classes += class;
        self.highest_live_classes = self.highest_live_classes.max(self.live_classes);
        self.highest_live = self.highest_live.max(self.live);
        if let Some(buffer) = self.take(class) {
            return Allocation { buffer, class, give_back: Vec::new(), create: false };
        }
        let mut give_back = Vec::new();
        let most = self.most();
        while self.idle_bytes > 0 && self.reserved() > most {
            give_back.push(self.drop_idle(self.reserved() - most));
        }
        self.peak = self.peak.max(self.reserved());
        Allocation { buffer: BufferId::next(), class, give_back, create: true }
    }

    /// What may be held before idle buffers are given back.
    fn most(&self) -> u64 {
        let eighth_above = self.highest_live + self.highest_live / 8;
        eighth_above.clamp(self.highest_live_classes, self.highest_live_classes + ROOM)
    }

    pub fn free(&mut self, buffer: BufferId, bytes: u64) {
        let class = class_of(bytes);
        self.live -= bytes;
        self.live_classes -= class;
        self.idle_bytes += class;
        self.idle.entry(class).or_default().push(buffer);
    }

    /// Every idle buffer, for giving back.
    pub fn drain(&mut self) -> Vec<BufferId> {
        self.idle_bytes = 0;
        std::mem::take(&mut self.idle).into_values().flatten().collect()
    }

    /// Bytes asked for and not yet freed.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// Bytes of the buffers in use.
    pub fn live_classes(&self) -> u64 {
        self.live_classes
    }

    /// Bytes that the device holds: live classes and idle buffers.
    pub fn reserved(&self) -> u64 {
        self.live_classes + self.idle_bytes
    }

    /// The highest that `live` has been.
    pub fn highest_live(&self) -> u64 {
        self.highest_live
    }

    /// The highest that `reserved` has been.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    pub fn reset_peak(&mut self) {
        self.peak = self.reserved();
        self.highest_live_classes = self.live_classes;
        self.highest_live = self.live;
    }

    fn take(&mut self, class: u64) -> Option<BufferId> {
        let list = self.idle.get_mut(&class)?;
        let buffer = list.pop();
        if list.is_empty() {
            self.idle.remove(&class);
        }
        self.idle_bytes -= class;
        buffer
    }

    /// Takes out the smallest idle buffer that makes up for `excess`, or else the largest: what is
    /// given back has to be made anew when its size is asked for again.
    fn drop_idle(&mut self, excess: u64) -> BufferId {
        let fitting = self.idle.range(excess..).next();
        let class = *fitting.or(self.idle.last_key_value()).expect("idle bytes are counted by class").0;
        self.take(class).expect("empty classes are removed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for bytes in (1..200_000).step_by(37).chain([257, 4096, 4097, 1 << 30, (1 << 30) + 1]) {
            let class = class_of(bytes);
            assert!(class >= bytes);
            assert!(bytes < 2048 || class - bytes <= bytes / 8, "{bytes} in {class}");
        }
    }

    #[test]
    fn varying_sizes_never_hold_more_than_the_highest_live() {
        let mut pool = Pool::default();
        let mut state = 1u64;
        let mut highest = 0;
        for _ in 0..2000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let n = 1 + (state >> 33) % 512;
            let held: Vec<_> = (1..6).map(|i| (pool.allocate(n * i * 1000).buffer, n * i * 1000)).collect();
            highest = highest.max(pool.live());
            held.into_iter().for_each(|(b, n)| pool.free(b, n));
            assert_eq!(pool.live(), 0);
            assert!(pool.reserved() <= highest + highest / 8);
        }
    }
}
