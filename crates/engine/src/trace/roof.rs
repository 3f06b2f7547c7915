//! What a device reaches at most, learnt from the operations of a probe.

use super::{Cost, Event};

/// The probe's operations, by whose names their events are known.
pub const PRODUCT: &str = "probe of products";
pub const MEMORY: &str = "probe of memory";

/// What the device reaches at most, as `crate::probe` measures it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Roof {
    /// Floating-point operations a second, in a matrix product of f32.
    pub flops: f64,
    /// Bytes a second, read and written together.
    pub bytes: f64,
}

impl Roof {
    /// The seconds that `cost` takes at the roofline.
    pub(super) fn seconds(&self, cost: &Cost) -> f64 {
        let at = |amount: u64, rate: f64| if rate > 0.0 { amount as f64 / rate } else { 0.0 };
        at(cost.flops, self.flops).max(at(cost.read + cost.written, self.bytes))
    }

    /// Whether the event is a probe's; where it is the device's, it may raise the roof.
    pub(super) fn learn(&mut self, event: &Event) -> bool {
        let seconds = event.took.as_secs_f64();
        match event.mark.operation {
            PRODUCT if event.cost.flops > 0 => self.flops = self.flops.max(event.cost.flops as f64 / seconds),
            MEMORY if event.kernel != "zero" => {
                let moved = event.cost.read + event.cost.written;
                self.bytes = self.bytes.max(moved as f64 / seconds);
            }
            operation => return operation == PRODUCT || operation == MEMORY,
        }
        true
    }
}
