//! The tensor engine of lowrank: operations, their gradients, and the devices that run them.

pub mod context;
pub mod device;
pub mod drawn;
pub mod dtype;
pub mod error;
pub mod format;
pub mod kernel;
pub mod kernels;
pub mod launch;
pub mod mapped_file;
pub mod op;
pub mod ops;
pub mod optim;
pub mod panic;
pub mod pool;
pub mod probe;
pub mod problem;
pub mod profile;
pub mod recording;
pub mod shape;
pub mod staged_file;
pub mod tape;
pub mod trace;
pub mod tune;
