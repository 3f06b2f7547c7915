//! How much of a product's factors a task keeps in L2: what its size decides, and no bit hangs on.

use std::sync::OnceLock;

/// What tasks take of a product at a time.
#[derive(Clone, Copy)]
pub struct Blocking {
    /// Elements of B, packed.
    pub workspace: usize,
    /// Panels of B at most, of convolutions and where A was copied for all tasks.
    pub panels: usize,
    /// Where it was not, by tiles of two vectors (of three: `WIDE_PANELS`): each task reads A's rows by itself, and fewer tasks
    /// read them fewer times.
    pub panels_uncopied: usize,
    /// Tiles of rows that go past a panel before the next is packed.
    pub group: usize,
    /// Tiles of f32 are of three vectors where there are such.
    pub wide: bool,
}

/// For a cache of a mebibyte, half of which is the workspace's: half of that takes A past half as many panels at a time
/// where K is long, 190 instead of 200 GFLOP/s at 512 × 4096 × 4096.
pub const USUAL: Blocking =
    Blocking { workspace: 128 * 1024, panels: 4, panels_uncopied: 4, group: 4, wide: false };
/// For one of two. On two cores of a Xeon (Granite Rapids) by AVX-512, GFLOP/s with the usual blocking, with twice the
/// workspace and panels, and with twice the group besides:
///
/// | m × n × k          | usual | panels | group |
/// |--------------------|-------|--------|-------|
/// | 512 × 1536 × 576   | 330   | 341    | 350   |
/// | 512 × 576 × 1536   | 332   | 330    | 343   |
/// | 512 × 4096 × 4096  | 324   | 319    | 350   |
/// | 2048 × 4096 × 4096 | 333   | 342    | 347   |
/// | 512 × 49152 × 576  | 335   | 344    | 353   |
/// | 1024 × 768 × 3072  | 323   | 341    | 343   |
///
/// As many panels as the workspace holds, up to 24, instead of 8 where A was not copied for all tasks: by AVX2, whose panels
/// are narrow, 210 to 220 GFLOP/s at 512 × 576 × 1536 and 220 to 226 at 512 × 576 × 576 if A comes from memory, nothing to
/// 1% if it does not, and 0.7% of a step of SmolLM2; by AVX-512 nothing. Where A was copied, a layer of 4096 × 4096 takes 1%
/// more by AVX2 with it, 512 rows.
pub const LARGE: Blocking =
    Blocking { workspace: 256 * 1024, panels: 8, panels_uncopied: 24, group: 8, wide: true };

/// Panels of B at most by tiles of three vectors where A was not copied for all tasks: of 576 terms they take less than half
/// of L2, which others share. Times by turns in one process, those of 9 panels being 1, two cores of a Xeon
/// (Emerald Rapids) in an hour in which they differed by a third, and in a quieter one:
///
/// | m × n × k         |      | 3    | 4    | 6    |
/// |-------------------|------|------|------|------|
/// | 512 × 1536 × 576  | x·Wᵀ | 0.94 | 0.97 | 0.97 |
/// | 512 × 49152 × 576 | x·Wᵀ | 0.98 | 0.98 | 0.99 |
/// | 512 × 576 × 1536  | x·Wᵀ | 0.95 | 0.97 | 0.98 |
/// | 512 × 1536 × 576  | x·W  | 0.99 | 1.00 | 1.00 |
/// | 512 × 49152 × 576 | x·W  | 0.98 | 1.00 | 1.00 |
pub const WIDE_PANELS: usize = 4;

/// That of this processor.
pub fn blocking() -> &'static Blocking {
    static BLOCKING: OnceLock<&'static Blocking> = OnceLock::new();
    BLOCKING.get_or_init(|| of_cache(l2_cache()))
}

fn of_cache(cache: Option<Cache>) -> &'static Blocking {
    // Two threads of one core count as one.
    let of_a_core = cache.map_or(0, |cache| 2 * cache.bytes / cache.threads.max(2));
    if of_a_core >= 2 << 20 { &LARGE } else { &USUAL }
}

/// A cache, and the threads of the processor that share it.
#[derive(Clone, Copy)]
struct Cache {
    bytes: usize,
    threads: usize,
}

/// L2, where the processor tells of it.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn l2_cache() -> Option<Cache> {
    use std::arch::x86_64::__cpuid_count;
    // The leaves that describe caches, Intel's and AMD's, which have one layout, each with the leaf that tells the last.
    const LEAVES: [[u32; 2]; 2] = [[0, 4], [0x8000_0000, 0x8000_001d]];
    // Its safety differs between the versions of Rust that this compiles with.
    #[allow(unused_unsafe)]
    // SAFETY: every processor of 64 bits has the instruction, and a leaf above the last is asked for by none.
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
fn l2_cache() -> Option<Cache> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mebibytes_a_core_take_twice_as_much_and_what_is_not_told_the_usual() {
        let taken = |cache| of_cache(cache).workspace;
        assert_eq!(taken(None), USUAL.workspace);
        for (mebibytes, threads, large) in
            [(1, 1, false), (1, 2, false), (2, 1, true), (2, 2, true), (4, 8, false), (4, 4, true)]
        {
            let cache = Cache { bytes: mebibytes << 20, threads };
            let expected = if large { LARGE.workspace } else { USUAL.workspace };
            assert_eq!(taken(Some(cache)), expected, "{mebibytes} MiB of {threads} threads");
        }
    }

    #[test]
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
    fn the_l2_cache_has_the_size_that_the_system_says() {
        // One core's may be another's size; virtual machines may hide it, from either.
        let told = |cpu: usize| {
            std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/cache/index2/size"))
        };
        let told: Vec<String> = (0..).map_while(|cpu| told(cpu).ok()).collect();
        if let (Some(found), false) = (l2_cache(), told.is_empty()) {
            let found = format!("{}K", found.bytes >> 10);
            assert!(told.iter().any(|told| told.trim() == found), "{found}, and the system says {told:?}");
        }
    }
}
