//! The Node-API binding of lowrank: it converts, and decides nothing.

mod devices;
mod error;
mod ops;
mod session;
