use lowrank_cpu::simd::Level;

use super::{CLASS, load_or_measure};
use crate::tune::{Choices, Owner, Store};

fn store(name: &str) -> Store {
    let owner = Owner { adapter: "a processor".into(), driver: "AVX-512".into(), package: "0.1.0".into() };
    let folder = std::env::temp_dir().join(format!("lowrank-choice-{name}-{}", std::process::id()));
    std::fs::remove_dir_all(&folder).ok();
    Store::in_folder(&folder, owner)
}

const LEVELS: &[Level] = &[
    Level::Baseline,
    #[cfg(target_arch = "x86_64")]
    Level::Avx512Bf16,
    #[cfg(target_arch = "aarch64")]
    Level::NeonBf16,
];

#[test]
fn what_was_found_is_taken_again_without_a_trial() {
    let store = store("rounded");
    let found = load_or_measure(Some(&store), LEVELS, || LEVELS[1]);
    assert_eq!(found, LEVELS[1]);
    let again = load_or_measure(Some(&store), LEVELS, || panic!("it is known"));
    assert_eq!(again, found);
    // Without a file each process measures again.
    assert_eq!(load_or_measure(None, LEVELS, || LEVELS[0]), LEVELS[0]);
    std::fs::remove_dir_all(store.path().parent().unwrap()).unwrap();
}

#[test]
fn a_name_that_is_none_of_them_is_found_anew() {
    let store = store("unknown");
    store
        .add(&Choices::from([(CLASS.into(), "avx1024".into()), ("another".into(), "variant".into())]).into());
    assert_eq!(load_or_measure(Some(&store), LEVELS, || LEVELS[0]), LEVELS[0]);
    let read = store.read().variants;
    assert_eq!(read[CLASS], LEVELS[0].name());
    assert_eq!(read["another"], "variant");
    std::fs::remove_dir_all(store.path().parent().unwrap()).unwrap();
}
