//! Memory of the GGUF reader: no more than the size of the file, plus a constant for paths and error texts. Checked on
//! ten thousand damaged files, which are read or give one clear error, and on files with as many small items as
//! fit.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};

use lowrank_engine::error::{Code, Result};
use lowrank_engine::format::gguf::{MetaValue, Reader};

/// An allocator that counts each thread's allocated bytes and their peak.
struct Counting;
thread_local! {
    static ALLOCATED: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: forwards to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + layout.size() as isize);
        PEAK.set(PEAK.get().max(ALLOCATED.get()));
        // SAFETY: guaranteed by the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.set(ALLOCATED.get() - layout.size() as isize);
        // SAFETY: guaranteed by the caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes for paths and an error's text.
const CONSTANT: usize = 4096;

/// Runs `work` and requires that its peak memory is at most `bytes` plus the constant.
fn run_within<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let before = ALLOCATED.get();
    PEAK.set(before);
    let result = work();
    let used = PEAK.get() - before;
    assert!(used <= (CONSTANT + bytes) as isize, "{used} bytes for a file of {bytes}");
    result
}

/// Opens a file and reads everything in its header. Returns the numbers of tensors, of keys, and of values at any
/// depth.
fn read_everything(path: &Path) -> Result<[usize; 3]> {
    let reader = Reader::open(path)?;
    let mut count = [0; 3];
    for entry in reader.entries() {
        let entry = entry?;
        assert_eq!(reader.entry(&entry.name)?, entry);
        assert_eq!(reader.read(&entry, <[u8]>::len)? as u64, entry.bytes);
        count[0] += 1;
    }
    for key in reader.keys() {
        count[1] += 1;
        count[2] += reader.read_metadata(&key?, count_values)?.expect("a value of each key");
    }
    Ok(count)
}

/// Returns the number of values in a value.
fn count_values(value: MetaValue) -> Result<usize> {
    match value {
        MetaValue::List(list) => {
            let stated = list.len();
            let mut found = 0;
            let mut count = 0;
            for value in list {
                found += 1;
                count += count_values(value?)?;
            }
            assert_eq!(found, stated);
            Ok(count)
        }
        _ => Ok(1),
    }
}

/// A file for a test, removed afterwards.
struct Scratch(PathBuf);
impl Scratch {
    fn new(name: &str) -> Scratch {
        Scratch(std::env::temp_dir().join(format!("lowrank-{name}-{}.gguf", std::process::id())))
    }

    /// Writes a new file: on some systems truncating and rewriting a file waits for the disk.
    fn write(&self, bytes: &[u8]) {
        let _ = std::fs::remove_file(&self.0);
        std::fs::write(&self.0, bytes).unwrap();
    }
}
impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Splitmix64.
struct Random(u64);
impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn draw_below(&mut self, n: usize) -> usize {
        (self.draw() % n as u64) as usize
    }
}

fn encode_text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

/// A small file with a value of each type, and with plain and quantised tensors.
fn make_valid_file(alignment: u32) -> Vec<u8> {
    let word = |n: u32| n.to_le_bytes().to_vec();
    let long = |n: u64| n.to_le_bytes().to_vec();
    let mut bytes = [b"GGUF".to_vec(), word(3), long(3), long(5)].concat();
    for (key, value) in [
        ("general.alignment", [word(4), word(alignment)].concat()),
        ("general.architecture", [word(8), encode_text("llama")].concat()),
        (
            "tokens",
            [word(9), word(8), long(3), encode_text("a"), encode_text("b"), encode_text("ü")].concat(),
        ),
        ("scores", [word(9), word(6), long(3), vec![0; 12]].concat()),
        ("truth", [word(7), vec![1]].concat()),
    ] {
        bytes.extend(encode_text(key));
        bytes.extend(value);
    }
    let mut data = Vec::new();
    for (name, dims, kind, size) in
        [("a", vec![4u64, 2], 0u32, 32), ("b", vec![32, 3], 2, 54), ("c", vec![256], 12, 144)]
    {
        bytes.extend(encode_text(name));
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
    let at = random.draw_below(bytes.len());
    match random.draw_below(7) {
        0 => bytes[at] ^= 1 << random.draw_below(8),
        1 => bytes[at] = random.draw() as u8,
        2 => bytes.truncate(at.max(1)),
        3 | 4 => {
            let value = EXTREMES[random.draw_below(EXTREMES.len())].to_le_bytes();
            let width = [4, 8][random.draw_below(2)];
            let end = (at + width).min(bytes.len());
            bytes[at..end].copy_from_slice(&value[..end - at]);
        }
        5 => {
            let end = (at + 1 + random.draw_below(24)).min(bytes.len());
            let part: Vec<u8> = bytes[at..end].to_vec();
            let to = random.draw_below(bytes.len());
            bytes.splice(to..to, part);
        }
        _ => {
            let end = (at + 1 + random.draw_below(24)).min(bytes.len());
            bytes.drain(at..end);
            bytes.push(0);
        }
    }
}

#[test]
fn damaged_files_are_read_or_refused() {
    let file = Scratch::new("mutations");
    let (mut random, mut loaded, mut refused) = (Random(1), 0, 0);
    for i in 0..10_000 {
        let mut bytes = make_valid_file([32, 64, 8][i % 3]);
        if i >= 3 {
            (0..=random.draw_below(3)).for_each(|_| damage(&mut bytes, &mut random));
        }
        file.write(&bytes);
        match run_within(bytes.len(), || read_everything(&file.0)) {
            Ok(count) => {
                loaded += 1;
                assert!(i >= 3 || count == [3, 5, 9], "{count:?}");
            }
            Err(error) => {
                refused += 1;
                assert!(i >= 3, "{error}");
                assert_eq!(error.code, Code::FileFormat, "{error}");
                assert_eq!(error.message.lines().count(), 1, "{error}");
                assert!(error.message.contains(": at byte "), "{error}");
            }
        }
    }
    assert!(loaded > 500 && refused > 2000, "{loaded} loaded, {refused} refused");
}

/// A header with the given counts of tensors and keys, followed by `rest`.
fn encode_header(tensors: u64, keys: u64, rest: &[u8]) -> Vec<u8> {
    [b"GGUF\x03\0\0\0", &tensors.to_le_bytes()[..], &keys.to_le_bytes(), rest].concat()
}

/// A key, and a list of `count` values of the type `kind`.
fn encode_list(kind: u32, count: u64, values: &[u8]) -> Vec<u8> {
    [&encode_text("k")[..], &9u32.to_le_bytes(), &kind.to_le_bytes(), &count.to_le_bytes(), values].concat()
}

/// Returns the `count` shortest ASCII names.
fn list_shortest_names(count: usize) -> Vec<String> {
    let letters: Vec<char> = (0..128).map(char::from).collect();
    let mut names = vec![String::new()];
    let mut from = 0;
    while names.len() < count {
        let to = names.len();
        let longer = (from..to).flat_map(|i| letters.iter().map(move |letter| (i, letter)));
        let longer: Vec<String> = longer.map(|(i, letter)| format!("{}{letter}", names[i])).collect();
        names.extend(longer);
        from = to;
    }
    names.truncate(count);
    names
}

#[test]
fn small_items_take_little_memory() {
    let file = Scratch::new("small");
    let check = |what: &str, bytes: Vec<u8>, expected: [usize; 3]| {
        file.write(&bytes);
        let count = run_within(bytes.len(), || read_everything(&file.0));
        assert_eq!(count.unwrap_or_else(|error| panic!("{what}: {error}")), expected, "{what}");
    };
    const MILLION: usize = 1_000_000;
    check("bytes", encode_header(0, 1, &encode_list(0, MILLION as u64, &vec![7; MILLION])), [0, 1, MILLION]);
    check("truths", encode_header(0, 1, &encode_list(7, MILLION as u64, &vec![1; MILLION])), [0, 1, MILLION]);
    check(
        "letters",
        encode_header(0, 1, &encode_list(8, 100_000, &encode_text("a").repeat(100_000))),
        [0, 1, 100_000],
    );
    check(
        "empty texts",
        encode_header(0, 1, &encode_list(8, 100_000, &encode_text("").repeat(100_000))),
        [0, 1, 100_000],
    );
    let inner = |kind: u32, count: u64, values: &[u8]| encode_list(kind, count, values)[9 + 4..].to_vec();
    check(
        "empty lists",
        encode_header(0, 1, &encode_list(9, 100_000, &inner(0, 0, &[]).repeat(100_000))),
        [0, 1, 0],
    );
    let deepest = inner(9, 10, &inner(9, 10, &inner(0, 10, &[3; 10]).repeat(10)).repeat(10));
    check("lists in lists", encode_header(0, 1, &encode_list(9, 100, &deepest.repeat(100))), [0, 1, 100_000]);
    let mut names = list_shortest_names(10_000);
    // The order in the file differs from the sorted order.
    names.reverse();
    let key = |name: &String| [&encode_text(name)[..], &0u32.to_le_bytes(), &[5]].concat();
    let keys: Vec<u8> = names.iter().flat_map(key).collect();
    check("keys", encode_header(0, 10_000, &keys), [0, 10_000, 10_000]);
    // Without dimensions, so with one element: 4 bytes at each multiple of 32.
    let scalar = |name: &String, place: u64| [&encode_text(name)[..], &[0; 8], &place.to_le_bytes()].concat();
    let places = names.iter().enumerate().flat_map(|(i, name)| scalar(name, 32 * (9_999 - i) as u64));
    let mut bytes = encode_header(10_000, 0, &places.collect::<Vec<u8>>());
    bytes.resize(bytes.len().next_multiple_of(32) + 32 * 10_000, 0);
    check("scalars", bytes, [10_000, 0, 0]);
    // Without elements, so all may start at the end of the file.
    let empty = |name: &String| [&encode_text(name)[..], &1u32.to_le_bytes(), &[0; 8 + 4 + 8]].concat();
    let mut bytes = encode_header(10_000, 0, &names.iter().flat_map(empty).collect::<Vec<u8>>());
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    check("empty tensors", bytes, [10_000, 0, 0]);
}

#[test]
fn counts_reserve_no_more_memory_than_the_file() {
    let file = Scratch::new("counts");
    let expect_refusal = |bytes: Vec<u8>, what: &str| {
        file.write(&bytes);
        let error = run_within(bytes.len(), || read_everything(&file.0).unwrap_err());
        assert!(error.message.contains(what), "{error}");
    };
    // The counts fit the file's size, but the data is invalid.
    let room = vec![0xff; 13 << 16];
    expect_refusal(
        encode_header(0, 1 << 16, &room),
        "the length of a metadata key says 18446744073709551615",
    );
    let room = vec![0xff; 24 << 16];
    expect_refusal(
        encode_header(1 << 16, 0, &room),
        "the length of a tensor's name says 18446744073709551615",
    );
    expect_refusal(
        encode_header(0, 1, &encode_list(0, 1 << 20, &[0; 1000])),
        "the length of a list says 1048576",
    );
}
