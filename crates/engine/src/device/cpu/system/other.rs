//! Other systems: no information.

pub fn memory() -> Option<u64> {
    None
}

pub fn free() -> Option<u64> {
    None
}

pub fn processor() -> Option<String> {
    None
}

pub fn lower_priority() {}
