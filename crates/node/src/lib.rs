//! The Node-API binding of lowrank: it converts, and decides nothing.

mod devices;
// In test builds nothing registers the exports.
#![cfg_attr(test, allow(dead_code))]

mod background;
mod error;
mod files;
mod ops;
mod session;
mod tokenizer;
