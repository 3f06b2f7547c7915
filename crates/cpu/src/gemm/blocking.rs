//! Cache blocking: how much of a product's factors a task keeps in L2. It changes speed, never bits.

use std::sync::OnceLock;

/// The blocking parameters of a processor.
#[derive(Clone, Copy)]
pub struct Blocking {
    /// Elements of packed B per task.
    pub workspace: usize,
    /// Most panels of B per task, for convolutions and for an A that was packed for all tasks.
    pub panels: usize,
    /// Most panels of B per task otherwise, for tiles of two vectors (`WIDE_PANELS` for three): each task reads the
    /// rows of A itself, so fewer tasks read them fewer times.
    pub panels_uncopied: usize,
    /// Tiles of rows per group: they use a panel before the next panel is packed.
    pub group: usize,
    /// Whether f32 tiles of three vectors are used where they exist.
    pub wide: bool,
}

/// Blocking for an L2 of 1 MiB per core; the workspace has half of it.
pub const USUAL: Blocking =
    Blocking { workspace: 128 * 1024, panels: 4, panels_uncopied: 4, group: 4, wide: false };
/// Blocking for an L2 of 2 MiB per core or more.
pub const LARGE: Blocking =
    Blocking { workspace: 256 * 1024, panels: 8, panels_uncopied: 24, group: 8, wide: true };

/// Most panels of B per task for tiles of three vectors when A was not packed for all tasks: with 576 terms they take
/// less than half of L2, which other data shares.
pub const WIDE_PANELS: usize = 4;

/// Most terms that are summed in registers before they are added to C.
pub const MAX_REGISTER_KC: usize = 1024;
/// Most terms for a narrow gradient product: Aᵀ·B of two row-major factors where C has few rows or columns, as for
/// low-rank factors. The part of a factor that is read then spans few pages and is read once, sequentially.
const MAX_NARROW_REGISTER_KC: usize = 64;
/// Most threads for deep blocks of K: an estimate, measured with two threads, of how many a shared cache can feed.
const MAX_DEEP_THREADS: usize = 8;

/// The blocking of this processor.
#[inline]
pub fn blocking() -> &'static Blocking {
    static BLOCKING: OnceLock<&'static Blocking> = OnceLock::new();
    BLOCKING.get_or_init(|| choose_blocking(detect_l2_cache()))
}

fn choose_blocking(cache: Option<Cache>) -> &'static Blocking {
    // Two hardware threads of a core count as one.
    let of_a_core = cache.map_or(0, |cache| 2 * cache.bytes / cache.threads.max(2));
    if of_a_core >= 2 << 20 { &LARGE } else { &USUAL }
}

/// Terms of K that are summed in registers: equal parts, as few as possible.
#[inline]
pub fn choose_register_kc(k: usize) -> usize {
    split_evenly(k, MAX_REGISTER_KC)
}

/// As for `choose_register_kc`, for a narrow gradient product.
pub fn choose_narrow_register_kc(k: usize) -> usize {
    split_evenly(k, MAX_NARROW_REGISTER_KC)
}

/// Terms per block of K for tiles of three vectors: a multiple of `register_kc`, at most `room`, in as few equal blocks
/// as possible. A tile then adds its partial sums to elements of C that are still in L1. A streams past each panel once
/// per block, at 7 GB/s per thread, so deep blocks are used for up to `MAX_DEEP_THREADS` threads.
pub fn choose_deep_kc(k: usize, register_kc: usize, room: usize, threads: usize) -> usize {
    if threads > MAX_DEEP_THREADS {
        return register_kc;
    }
    register_kc * split_evenly(k.div_ceil(register_kc), (room / register_kc).max(1))
}

fn split_evenly(k: usize, most: usize) -> usize {
    k.div_ceil(k.div_ceil(most))
}

/// A cache and the number of hardware threads that share it.
#[derive(Clone, Copy)]
struct Cache {
    bytes: usize,
    threads: usize,
}

/// The L2 cache, if the processor describes it.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn detect_l2_cache() -> Option<Cache> {
    use std::arch::x86_64::__cpuid_count;
    // Leaves that describe caches, Intel's and AMD's, of the same layout; before each, the leaf that holds the highest
    // leaf.
    const LEAVES: [[u32; 2]; 2] = [[0, 4], [0x8000_0000, 0x8000_001d]];
    // Whether this call is unsafe differs between supported versions of Rust.
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 processor has cpuid, and only leaves up to the highest are read.
    let leaf = |leaf, sub| unsafe { __cpuid_count(leaf, sub) };
    let caches = LEAVES.iter().filter(|[last, at]| leaf(*last, 0).eax >= *at).flat_map(|[_, at]| {
        let listed = (0..16).map(move |i| leaf(*at, i));
        listed.take_while(|cache| cache.eax & 0x1f != 0)
    });
    let field = |word: u32, from: u32, bits: u32| (word >> from & ((1 << bits) - 1)) as usize + 1;
    caches
        .filter(|cache| cache.eax >> 5 & 7 == 2)
        .map(|cache| {
            let (lines, ways) =
                (field(cache.ebx, 0, 12) * field(cache.ebx, 12, 10), field(cache.ebx, 22, 10));
            Cache { bytes: lines * ways * (cache.ecx as usize + 1), threads: field(cache.eax, 14, 12) }
        })
        .next()
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn detect_l2_cache() -> Option<Cache> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blocking_needs_two_mebibytes_of_l2_per_core() {
        let workspace_for = |cache| choose_blocking(cache).workspace;
        assert_eq!(workspace_for(None), USUAL.workspace);
        for (mebibytes, threads, large) in
            [(1, 1, false), (1, 2, false), (2, 1, true), (2, 2, true), (4, 8, false), (4, 4, true)]
        {
            let cache = Cache { bytes: mebibytes << 20, threads };
            let expected = if large { LARGE.workspace } else { USUAL.workspace };
            assert_eq!(workspace_for(Some(cache)), expected, "{mebibytes} MiB of {threads} threads");
        }
    }

    #[test]
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
    fn the_detected_l2_size_is_the_one_in_sysfs() {
        // Cores may have different sizes, and a virtual machine may hide the cache from cpuid or from the system.
        let read_size = |cpu: usize| {
            std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/cache/index2/size"))
        };
        let reported: Vec<String> = (0..).map_while(|cpu| read_size(cpu).ok()).collect();
        if let (Some(found), false) = (detect_l2_cache(), reported.is_empty()) {
            let found = format!("{}K", found.bytes >> 10);
            assert!(
                reported.iter().any(|size| size.trim() == found),
                "detected {found}, but sysfs reports {reported:?}"
            );
        }
    }
}
