use lowrank_cpu::simd::Level;

use super::{CLASS, load_or_measure};
use crate::tune::{Choices, Owner, Store};

fn create_store(name: &str) -> Store {
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
fn a_stored_choice_is_reused_without_a_measurement() {
    let store = create_store("rounded");
    let found = load_or_measure(Some(&store), LEVELS, || LEVELS[1]);
    assert_eq!(found, LEVELS[1]);
    let again = load_or_measure(Some(&store), LEVELS, || panic!("it is known"));
    assert_eq!(again, found);
    // Without a file each process measures again.
    assert_eq!(load_or_measure(None, LEVELS, || LEVELS[0]), LEVELS[0]);
    std::fs::remove_dir_all(store.path().parent().unwrap()).unwrap();
}

#[test]
fn an_unknown_stored_name_is_measured_again() {
    let store = create_store("unknown");
    store
        .add(&Choices::from([(CLASS.into(), "avx1024".into()), ("another".into(), "variant".into())]).into());
    assert_eq!(load_or_measure(Some(&store), LEVELS, || LEVELS[0]), LEVELS[0]);
    let read = store.read().variants;
    assert_eq!(read[CLASS], LEVELS[0].name());
    assert_eq!(read["another"], "variant");
    std::fs::remove_dir_all(store.path().parent().unwrap()).unwrap();
}
