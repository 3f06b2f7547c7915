mod store;
mod tuner;
