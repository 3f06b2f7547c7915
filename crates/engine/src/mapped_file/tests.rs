//! Tensors whose file is unmapped.

use std::rc::Rc;
use std::sync::mpsc::channel;

use super::*;
use crate::context::{Context, Value};
use crate::device::cpu::{self, Cpu};
use crate::device::{Device, Runner, Sink};
use crate::dtype::DType;
use crate::format::Access;
use crate::format::safetensors::{Dtype, Reader, TensorData, write};
use crate::format::test_folder::TestFolder;
use crate::kernels::elementwise::Function;
use crate::op::run1;
use crate::ops::binary::Binary;
use crate::ops::checks::{Array, contexts, read};
use crate::recording::Command;

/// Writes a file with one tensor; returns its path and the tensor.
fn write_tensor(folder: &TestFolder, file: &str) -> (PathBuf, Array) {
    let array = Array::random(file, &[321, 67]);
    let (path, bytes) = (folder.join(file), array.bytes());
    write(&path, &[TensorData { name: "w", dtype: Dtype::F32, shape: &[321, 67], bytes: &bytes }], None)
        .unwrap();
    (path, array)
}

fn load(cx: &Rc<Context>, path: &Path) -> Value {
    Reader::open(path).unwrap().value(cx, "w", None).unwrap()
}

fn double(value: &Value) -> Value {
    run1(value.context(), &Binary(Function::Add), &[value, value]).unwrap()
}

/// Whether the process has a file of that name mapped, according to the system.
fn is_mapped(path: &Path) -> bool {
    let name = path.to_str().unwrap();
    std::fs::read_to_string("/proc/self/maps").unwrap().contains(name)
}

#[test]
fn tensors_of_a_released_file_keep_their_values() {
    let folder = TestFolder::new();
    for (i, cx) in contexts().iter().enumerate() {
        let (path, array) = write_tensor(&folder, &format!("{i}"));
        let bytes = array.bytes().len() as u64;
        let (first, before) = (load(cx, &path), cx.memory());
        // Recorded before the release and read after it, with much earlier work.
        let mut sum = double(&first);
        for _ in 0..200 {
            sum = run1(cx, &Binary(Function::Add), &[&sum, &first]).unwrap();
        }
        let second = load(cx, &path);
        if cfg!(target_os = "linux") && cx.profile.maps_files {
            assert!(is_mapped(&path));
        }
        let in_place = cx.profile.maps_files;
        assert!(release(&path).unwrap() > 0 || !in_place);
        if cfg!(target_os = "linux") {
            assert!(!is_mapped(&path));
        }
        let after = cx.memory();
        assert_eq!((before.mapped, after.mapped), (if in_place { bytes } else { 0 }, 0));
        if in_place {
            let grown = after.live - before.live;
            assert_eq!(grown, 3 * bytes, "two copies and the sum");
            assert!(after.reserved >= after.live && after.peak >= after.reserved);
        }
        assert_eq!(read(&first).data, array.data);
        assert_eq!(read(&second).data, array.data);
        assert_eq!(read(&double(&second)).data, array.map(|v| 2.0 * v).data);
        let expected = run1(
            cx,
            &Binary(Function::Sub),
            &[&sum, &{
                let mut sum = double(&array.upload(cx));
                for _ in 0..200 {
                    sum = run1(cx, &Binary(Function::Add), &[&sum, &array.upload(cx)]).unwrap();
                }
                sum
            }],
        );
        assert!(read(&expected.unwrap()).data.iter().all(|v| *v == 0.0));
        assert_eq!(release(&path).unwrap(), 0, "the second release finds no map");
        drop((first, second, sum));
        assert_eq!((cx.memory().live, cx.memory().mapped), (0, 0));
    }
}

#[test]
fn all_environments_release_a_file() {
    let folder = TestFolder::new();
    let (path, array) = write_tensor(&folder, "x");
    let contexts = contexts();
    let device = contexts[0].clone();
    let here = load(&device, &path);
    let ((loaded, is_loaded), (resume, wait)) = (channel(), channel::<()>());
    std::thread::scope(|scope| {
        // Dropped if this thread panics, so that the other thread continues.
        let resume = resume;
        let (profile, sink, path, array) = (device.profile.clone(), device.sink(), &path, &array);
        scope.spawn(move || {
            // An environment with a busy thread: its recorded commands are pending.
            let cx = Context::new(profile, sink);
            let value = load(&cx, path);
            let sum = double(&value);
            loaded.send(()).unwrap();
            wait.recv().ok();
            assert_eq!(read(&sum).data, array.map(|v| 2.0 * v).data);
            assert_eq!(read(&value).data, array.data);
        });
        is_loaded.recv().unwrap();
        assert_eq!(release(path).unwrap(), 2);
        if cfg!(target_os = "linux") {
            assert!(!is_mapped(path));
        }
        resume.send(()).unwrap();
    });
    assert_eq!(read(&here).data, array.data);
}

#[test]
fn writes_to_a_mapped_tensor_survive_a_release() {
    let folder = TestFolder::new();
    let (path, array) = write_tensor(&folder, "x");
    for cx in contexts() {
        let value = load(&cx, &path);
        let new = array.map(|v| v / 2.0);
        cx.write(&value, new.bytes());
        release(&path).unwrap();
        assert_eq!(read(&value).data, new.data);
        assert_eq!(read(&load(&cx, &path)).data, array.data);
    }
}

#[test]
fn reading_a_released_file_is_refused() {
    let folder = TestFolder::new();
    let (path, array) = write_tensor(&folder, "x");
    for cx in contexts() {
        let reader = Reader::open(&path).unwrap();
        assert!(release(&path).unwrap() >= 1);
        for dtype in [None, Some(DType::F16)] {
            let error = reader.value(&cx, "w", dtype).unwrap_err();
            assert_eq!(error.code, Code::FileNotFound);
            assert!(
                error.message.ends_with("replaced or removed after it was opened; open it again"),
                "{error}"
            );
            assert_eq!(error.message.lines().count(), 1);
        }
        assert!(reader.entry("w").is_some(), "its header is still known");
        assert_eq!(read(&load(&cx, &path)).data, array.data);
    }
}

#[test]
fn a_file_is_released_by_any_of_its_names_and_no_other_file() {
    let folder = TestFolder::new();
    let cx = &contexts()[0];
    let below = folder.join("below");
    std::fs::create_dir(&below).unwrap();
    let (path, array) = write_tensor(&folder, "below/x");
    let (other, _) = write_tensor(&folder, "other");
    std::fs::hard_link(&path, folder.join("linked")).unwrap();
    let mut names = vec![path.clone(), folder.join("linked"), below.join("../below/./x"), below.clone()];
    if cfg!(windows) {
        names.push(folder.join("BELOW").join("X"));
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&path, folder.join("symbolic")).unwrap();
        std::os::unix::fs::symlink(&below, folder.join("folder")).unwrap();
        names.extend([folder.join("symbolic"), folder.join("folder/x"), folder.join("folder")]);
    }
    // Last, since it releases the other file, too.
    names.push(folder.to_path_buf());
    let other_value = load(cx, &other);
    for name in names {
        let value = load(cx, &path);
        assert!(cx.memory().mapped > other_value.bytes() as u64);
        let all = if name == folder.to_path_buf() { 2 } else { 1 };
        assert_eq!(release(&name).unwrap(), all, "{}", name.display());
        assert_eq!(read(&value).data, array.data);
        assert_eq!(cx.memory().mapped > 0, all == 1);
    }
    for name in [folder.join("none"), below.join("none/x")] {
        assert_eq!(release(&name).unwrap(), 0);
    }
}

/// A cpu without memory for copies.
struct CpuWithoutCopies(Cpu);

impl Runner for CpuWithoutCopies {
    fn run(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Unmap { reply, .. } => {
                reply(Err(Error::new(Code::OutOfMemory, "3 bytes are free")));
                Ok(())
            }
            command => self.0.run(command),
        }
    }
}

#[test]
fn a_release_without_memory_for_copies_changes_nothing() {
    let device =
        Device::start(|| Cpu::open(1).map(|(profile, cpu)| (profile, CpuWithoutCopies(cpu)))).unwrap();
    let cx = Context::new(cpu::make_profile(1), Sink::Thread(device));
    let folder = TestFolder::new();
    let (path, array) = write_tensor(&folder, "x");
    let reader = Reader::open(&path).unwrap();
    let value = reader.value(&cx, "w", None).unwrap();
    let before = cx.memory();
    let error = release(&path).unwrap_err();
    assert_eq!(error.code, Code::OutOfMemory);
    assert!(error.message.ends_with("x: what lies in it cannot be copied: 3 bytes are free"), "{error}");
    assert_eq!(cx.memory(), before);
    assert_eq!(read(&value).data, array.data);
    assert_eq!(read(&reader.value(&cx, "w", None).unwrap()).data, array.data);
}

/// A sparse file that is larger than the memory.
#[cfg(target_os = "linux")]
#[test]
fn a_release_that_exceeds_the_system_memory_is_refused() {
    let folder = TestFolder::new();
    let path = folder.file("x", "");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    // The size of one tensor.
    let part = 4u64 << 30;
    let bytes = (2 * cpu::system::read_total_memory()).next_multiple_of(part);
    file.set_len(bytes).unwrap();
    let mapped = MappedFile::new(&path, &file).unwrap();
    let cx = &contexts()[0];
    let map = |i| cx.map([part as usize / 4], DType::F32, &mapped, i * part).unwrap();
    let values: Vec<_> = (0..bytes / part).map(map).collect();
    let error = release(&path).unwrap_err();
    assert_eq!(error.code, Code::OutOfMemory);
    assert!(error.message.contains(&format!("copied: its tensors take {bytes} bytes, and ")), "{error}");
    assert!(!mapped.is_released());
    let start = values[0].sub_range(0, [4]);
    assert_eq!(read(&start).data, [0.0; 4]);
}

/// Bytes of a mapped file that count as resident in this process, according to the system.
#[cfg(target_os = "linux")]
fn count_resident(path: &Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let lines = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
    let rss = lines.skip(1).find_map(|line| line.strip_prefix("Rss:")).unwrap();
    rss.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn copies_read_the_file_that_was_mapped() {
    let folder = TestFolder::new();
    let bytes: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let path = folder.file("mapped", &bytes);
    let mapped = MappedFile::new(&path, &File::open(&path).unwrap()).unwrap();
    for (offset, count) in [(0, 0), (0, bytes.len()), (12_345, 4_097), (299_999, 1)] {
        assert_eq!(mapped.copy(offset as u64, count).unwrap(), bytes[offset..][..count]);
    }
    #[cfg(target_os = "linux")]
    {
        assert_eq!(count_resident(&path), 0, "nothing was read through the map");
        mapped.read(|map| assert_eq!(map, bytes)).unwrap();
        assert!(count_resident(&path) >= bytes.len());
    }
    // Another file with the same name has no effect; on Windows a mapped file cannot be replaced.
    if cfg!(not(windows)) {
        let other = folder.file("other", vec![7; bytes.len()]);
        std::fs::rename(other, &path).unwrap();
        assert_eq!(mapped.copy(12_345, 4_097).unwrap(), bytes[12_345..][..4_097]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(mapped.copy(12_345, 4_097).unwrap(), bytes[12_345..][..4_097]);
    }
    mapped.release().unwrap();
    assert_eq!(mapped.copy(0, 1).unwrap_err().code, Code::FileNotFound);
}

#[cfg(unix)]
type Change = fn(&Path);

/// Changes of a file in place, each with a part of the error.
#[cfg(unix)]
const CHANGES: [(&str, Change); 3] = [
    ("bytes, before", |path| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes.extend([0; 9]);
        std::fs::write(path, bytes).unwrap();
    }),
    ("bytes as before, at another time", |path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, bytes.iter().map(|byte| byte ^ 1).collect::<Vec<_>>()).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(9)).unwrap();
    }),
    ("", |path| File::options().write(true).open(path).unwrap().set_len(0).unwrap()),
];

#[cfg(unix)]
#[test]
fn a_file_that_is_written_in_place_fails_what_depends_on_it_and_nothing_else() {
    let folder = TestFolder::new();
    for (i, (what, change)) in CHANGES.iter().enumerate() {
        let cx = &contexts()[0];
        let (path, _) = write_tensor(&folder, &format!("{i}"));
        let (other, array) = write_tensor(&folder, &format!("other {i}"));
        let (value, unchanged) = (load(cx, &path), load(cx, &other));
        let before = double(&value);
        read(&before);
        change(&path);
        // Reads lost pages.
        let after = double(&value);
        for value in [&after, &value] {
            let error = read_error(value);
            assert_eq!(error.code, Code::FileNotFound);
            assert!(error.message.starts_with(&path.display().to_string()), "{error}");
            assert!(error.message.contains("the file was changed while it was in use"), "{error}");
            assert!(error.message.contains(what), "{error}");
        }
        assert_eq!(read(&unchanged).data, array.data);
        drop((value, after));
        assert_eq!(read(&double(&unchanged)).data.len(), array.data.len());
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_is_replaced_or_removed_keeps_its_values() {
    let folder = TestFolder::new();
    let cx = &contexts()[0];
    let (path, array) = write_tensor(&folder, "x");
    let value = load(cx, &path);
    std::fs::write(folder.join("y"), "short").unwrap();
    std::fs::rename(folder.join("y"), &path).unwrap();
    assert_eq!(read(&value).data, array.data);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(read(&value).data, array.data);
}

#[test]
fn a_file_in_memory_may_be_written() {
    let folder = TestFolder::new();
    for cx in contexts() {
        let (path, array) = write_tensor(&folder, "x");
        let reader = Reader::open_with(&path, Access::InMemory).unwrap();
        std::fs::write(&path, "short").unwrap();
        let value = reader.value(&cx, "w", None).unwrap();
        drop(reader);
        assert_eq!(read(&value).data, array.data);
        assert_eq!(read(&double(&value)).data.len(), array.data.len());
    }
}

/// The error of a read.
#[cfg(unix)]
fn read_error(value: &Value) -> Error {
    let (send, receive) = channel();
    value.context().read(value, Box::new(move |bytes| drop(send.send(bytes))));
    receive.recv().unwrap().unwrap_err()
}
