//! The Node-API binding of lowrank: it converts, and decides nothing.

// In test builds nothing registers the exports.
#![cfg_attr(test, allow(dead_code))]

mod background;
mod decode_stream;
mod devices;
mod error;
mod files;
mod linalg;
mod ops;
mod optimizer;
mod random;
mod session;
mod tokenizer;
mod trace;
