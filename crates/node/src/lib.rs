//! The Node-API binding of lowrank: it converts, and decides nothing.

mod devices;
mod background;
mod error;
mod files;
mod ops;
mod session;
mod tokenizer;
