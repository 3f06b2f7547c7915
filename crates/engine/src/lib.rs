//! The tensor engine of lowrank: operations, their gradients, and the devices that run them.

pub mod device;
pub mod dtype;
pub mod error;
pub mod kernel;
pub mod op;
pub mod pool;
pub mod recording;
pub mod shape;
pub mod tensor;
pub mod wgsl;
