use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::tune::{Choices, Owner, Store, Stored};

/// The path of an empty folder.
pub fn make_folder(name: &str) -> PathBuf {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("lowrank-tune-{name}-{}-{number}", std::process::id()));
    fs::remove_dir_all(&folder).ok();
    folder
}

fn make_owner(driver: &str) -> Owner {
    Owner { adapter: "Model 7 Vulkan".into(), driver: driver.into(), package: "0.1.0".into() }
}

fn make_variants(pairs: &[(&str, &str)]) -> Stored {
    pairs.iter().map(|(class, variant)| (class.to_string(), variant.to_string())).collect::<Choices>().into()
}

#[test]
fn wrong_variants_are_added_to_the_stored_ones() {
    let folder = make_folder("wrong");
    let store = Store::in_folder(&folder, make_owner("Mesa 22"));
    let wrong = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    store.add(&Stored { wrong: wrong(&["gemm: a"]), ..make_variants(&[("a", "1")]) });
    store.add(&Stored { wrong: wrong(&["gemm: b"]), ..Stored::default() });
    store.add(&make_variants(&[("b", "2")]));
    let all = Stored { wrong: wrong(&["gemm: a", "gemm: b"]), ..make_variants(&[("a", "1"), ("b", "2")]) };
    assert_eq!(store.read(), all);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn added_results_are_read_and_extended() {
    let folder = make_folder("added");
    let store = Store::in_folder(&folder, make_owner("Mesa 22"));
    assert_eq!(store.read(), Stored::default());
    store.add(&make_variants(&[("a", "1"), ("b", "2")]));
    store.add(&make_variants(&[("b", "3"), ("c", "4")]));
    assert_eq!(store.read(), make_variants(&[("a", "1"), ("b", "3"), ("c", "4")]));
    assert_eq!(store.path().file_name().unwrap(), "model_7_vulkan-mesa_22-0.1.0.json");
    // No other file is left in the folder.
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_file_of_another_owner_is_ignored_and_replaced() {
    let folder = make_folder("foreign");
    let store = Store::in_folder(&folder, make_owner("Mesa 22"));
    store.add(&make_variants(&[("a", "1")]));
    for other in [
        Store::in_folder(&folder, make_owner("Mesa 25")),
        Store::in_folder(&folder, Owner { package: "0.2.0".into(), ..make_owner("Mesa 22") }),
        Store::in_folder(&folder, Owner { adapter: "Model 8".into(), ..make_owner("Mesa 22") }),
    ] {
        assert_eq!(other.read(), Stored::default());
        // Even under its name.
        fs::copy(store.path(), other.path()).unwrap();
        assert_eq!(other.read(), Stored::default());
        other.add(&make_variants(&[("z", "9")]));
        assert_eq!(other.read(), make_variants(&[("z", "9")]));
    }
    assert_eq!(store.read(), make_variants(&[("a", "1")]));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_damaged_file_is_ignored_and_replaced() {
    let folder = make_folder("damaged");
    let store = Store::in_folder(&folder, make_owner("Mesa 22"));
    store.add(&make_variants(&[("a", "1")]));
    let good = fs::read_to_string(store.path()).unwrap();
    let damaged = [
        Vec::new(),
        b"{".to_vec(),
        b"[1, 2]".to_vec(),
        vec![0xff; 100],
        good.replace("\"format\": 2", "\"format\": 3").into_bytes(),
        good.replace("\"1\"", "1").into_bytes(),
        good.replace("\"variants\"", "\"more\": 0, \"variants\"").into_bytes(),
        good.as_bytes()[..good.len() / 2].to_vec(),
        "[".repeat(100_000).into_bytes(),
        // Valid, but too large.
        format!("{}{}", " ".repeat(1 << 20), good).into_bytes(),
    ];
    for bytes in damaged {
        let excerpt = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert_ne!(bytes, good.as_bytes());
        fs::write(store.path(), &bytes).unwrap();
        assert_eq!(store.read(), Stored::default(), "{excerpt}");
        store.add(&make_variants(&[("b", "2")]));
        assert_eq!(store.read(), make_variants(&[("b", "2")]), "{excerpt}");
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_unwritable_store_keeps_nothing() {
    let folder = make_folder("unwritable");
    // A file where the folder should be, and a folder where the file should be.
    fs::write(&folder, "a file").unwrap();
    let store = Store::in_folder(&folder, make_owner("Mesa 22"));
    store.add(&make_variants(&[("a", "1")]));
    assert_eq!(store.read(), Stored::default());
    assert_eq!(fs::read_to_string(&folder).unwrap(), "a file");
    fs::remove_file(&folder).unwrap();
    fs::create_dir_all(store.path()).unwrap();
    store.add(&make_variants(&[("a", "1")]));
    assert_eq!(store.read(), Stored::default());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "a staging file is left over");
    fs::remove_dir_all(folder).unwrap();
}

#[cfg(unix)]
#[test]
fn a_pipe_in_place_of_the_file_does_not_block() {
    let folder = make_folder("pipe");
    let store = Store::in_folder(&folder, make_owner("Mesa 22"));
    fs::create_dir_all(&folder).unwrap();
    assert!(Command::new("mkfifo").arg(store.path()).status().unwrap().success());
    assert_eq!(store.read(), Stored::default());
    store.add(&make_variants(&[("a", "1")]));
    assert_eq!(store.read(), make_variants(&[("a", "1")]));
    fs::remove_dir_all(folder).unwrap();
}

/// The part of the next test that runs in separate processes.
const PART: &str = "LOWRANK_TEST_TUNE_STORE";

#[test]
fn two_processes_write_at_once() {
    if let Ok(part) = std::env::var(PART) {
        let (name, folder) = part.split_once(' ').unwrap();
        let store = Store::in_folder(folder.as_ref(), make_owner("Mesa 22"));
        for i in 0..200 {
            store.add(&make_variants(&[(&format!("{name}{i}"), "1")]));
            // Complete at any moment, and with the earlier entries.
            let read = store.read().variants;
            assert_eq!(
                read.get("before").map(String::as_str),
                Some("0"),
                "{name}{i}: {} classes",
                read.len()
            );
        }
        return;
    }
    let folder = make_folder("two");
    let store = Store::in_folder(&folder, make_owner("Mesa 22"));
    store.add(&make_variants(&[("before", "0")]));
    let this = std::env::current_exe().unwrap();
    let children: Vec<_> = ["x", "y"]
        .map(|name| {
            Command::new(&this)
                .args(["--exact", "tune::tests::store::two_processes_write_at_once"])
                .env(PART, format!("{name} {}", folder.display()))
                // Its test result must not count as this process's.
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .into_iter()
        .collect();
    for child in children {
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    }
    let read = store.read().variants;
    // The later of two concurrent writers wins, and its entries are complete.
    assert!(read.contains_key("x199") || read.contains_key("y199"), "{} classes", read.len());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "a staging file is left over");
    fs::remove_dir_all(folder).unwrap();
}
