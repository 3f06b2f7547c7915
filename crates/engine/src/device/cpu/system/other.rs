//! Other systems: no information.

pub fn read_total_memory() -> Option<u64> {
    None
}

pub fn read_free_memory() -> Option<u64> {
    None
}

pub fn read_processor_name() -> Option<String> {
    None
}

pub fn lower_priority() {}
