//! The roofline of a device, derived from the probe's operations.

use super::{Cost, Event};

/// The names of the probe's operations.
pub const PRODUCT: &str = "probe of products";
pub const MEMORY: &str = "probe of memory";

/// The peak rates of the device, as `crate::probe` measures them.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeakRates {
    /// Floating-point operations per second, in a matrix product of f32.
    pub flops: f64,
    /// Bytes per second, read and written.
    pub bytes: f64,
}

impl PeakRates {
    /// The time of `cost` at the roofline, in seconds.
    pub(super) fn estimate_seconds(&self, cost: &Cost) -> f64 {
        let at = |amount: u64, rate: f64| if rate > 0.0 { amount as f64 / rate } else { 0.0 };
        at(cost.flops, self.flops).max(at(cost.read + cost.written, self.bytes))
    }

    /// Whether the event belongs to the probe; a device event of the probe may raise the roof.
    pub(super) fn learn(&mut self, event: &Event) -> bool {
        let seconds = event.took.as_secs_f64();
        match event.mark.operation {
            PRODUCT if event.cost.flops > 0 => self.flops = self.flops.max(event.cost.flops as f64 / seconds),
            MEMORY if event.kernel != "zero" => {
                let bytes = event.cost.read + event.cost.written;
                self.bytes = self.bytes.max(bytes as f64 / seconds);
            }
            operation => return operation == PRODUCT || operation == MEMORY,
        }
        true
    }
}
