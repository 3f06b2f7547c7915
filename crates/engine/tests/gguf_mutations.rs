//! Damaged GGUF files, ten thousand of them: each is read, or is one clear error, and none makes the reader take memory
//! that its own bytes would not account for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use lowrank_engine::error::Code;
use lowrank_engine::format::gguf::Reader;

/// Counts what is held, and the most that was.
struct Counting;
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(held, Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Splitmix64.
struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

/// A small file with a value of each kind, and tensors plain and in blocks.
fn valid(alignment: u32) -> Vec<u8> {
    let word = |n: u32| n.to_le_bytes().to_vec();
    let long = |n: u64| n.to_le_bytes().to_vec();
    let mut bytes = [b"GGUF".to_vec(), word(3), long(3), long(5)].concat();
    for (key, value) in [
        ("general.alignment", [word(4), word(alignment)].concat()),
        ("general.architecture", [word(8), text("llama")].concat()),
        ("tokens", [word(9), word(8), long(3), text("a"), text("b"), text("ü")].concat()),
        ("scores", [word(9), word(6), long(3), vec![0; 12]].concat()),
        ("truth", [word(7), vec![1]].concat()),
    ] {
        bytes.extend(text(key));
        bytes.extend(value);
    }
    let mut data = Vec::new();
    for (name, dims, kind, size) in
        [("a", vec![4u64, 2], 0u32, 32), ("b", vec![32, 3], 2, 54), ("c", vec![256], 12, 144)]
    {
        bytes.extend(text(name));
        bytes.extend(word(dims.len() as u32));
        dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
        bytes.extend([word(kind), long(data.len() as u64)].concat());
        data.resize((data.len() + size as usize).next_multiple_of(alignment as usize), 1);
    }
    bytes.resize(bytes.len().next_multiple_of(alignment as usize), 0);
    bytes.extend(data);
    bytes
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    const EXTREMES: [u64; 9] = [0, 1, 2, 0xff, 1 << 20, 1 << 31, 1 << 60, i64::MAX as u64, u64::MAX];
    let at = random.below(bytes.len());
    match random.below(7) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes.truncate(at.max(1)),
        3 | 4 => {
            let value = EXTREMES[random.below(EXTREMES.len())].to_le_bytes();
            let width = [4, 8][random.below(2)];
            let end = (at + width).min(bytes.len());
            bytes[at..end].copy_from_slice(&value[..end - at]);
        }
        5 => {
            let end = (at + 1 + random.below(24)).min(bytes.len());
            let part: Vec<u8> = bytes[at..end].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, part);
        }
        _ => {
            let end = (at + 1 + random.below(24)).min(bytes.len());
            bytes.drain(at..end);
            bytes.push(0);
        }
    }
}

#[test]
fn damaged_files_are_read_or_refused_in_little_memory() {
    let path = std::env::temp_dir().join(format!("lowrank-mutations-{}.gguf", std::process::id()));
    let (mut random, mut loaded, mut refused) = (Random(1), 0, 0);
    for i in 0..10_000 {
        let mut bytes = valid([32, 64, 8][i % 3]);
        if i >= 3 {
            (0..=random.below(3)).for_each(|_| damage(&mut bytes, &mut random));
        }
        std::fs::write(&path, &bytes).unwrap();
        let before = HELD.load(Relaxed);
        MOST.store(before, Relaxed);
        match Reader::open(&path) {
            Ok(reader) => {
                loaded += 1;
                for entry in reader.entries() {
                    let length = reader.read(entry, <[u8]>::len).unwrap();
                    assert!(length as u64 == entry.bytes && length <= bytes.len());
                }
                for key in reader.keys() {
                    assert!(reader.metadata(key).unwrap().is_some());
                }
            }
            Err(error) => {
                refused += 1;
                assert!(i >= 3, "{error}");
                assert_eq!(error.code, Code::FileFormat, "{error}");
                assert_eq!(error.message.lines().count(), 1, "{error}");
                assert!(error.message.contains(": at byte "), "{error}");
            }
        }
        // A few names and values, of which there are no more than bytes.
        let taken = MOST.load(Relaxed) - before;
        assert!(taken < 16_384 + 32 * bytes.len(), "{taken} bytes for a file of {}", bytes.len());
    }
    std::fs::remove_file(&path).unwrap();
    assert!(loaded > 500 && refused > 2000, "{loaded} loaded, {refused} refused");
}
