//! Records the variants that a test launches on a GPU, and compares them with the variants that its kernels list.

use std::cell::RefCell;
use std::collections::HashSet;

use crate::kernel::{Kernel, Launch, Variant};
use crate::profile::Kind;

/// A kernel's name and one of its variants.
pub type NamedVariant = (&'static str, Variant);

thread_local! {
    /// The variants that this thread's contexts launched on GPUs while `record_launches` runs.
    static LAUNCHED: RefCell<Option<HashSet<NamedVariant>>> = const { RefCell::new(None) };
}

/// Records a launch on a device of `kind`, while `record_launches` runs.
pub fn record(kind: Kind, launch: &Launch) {
    if kind != Kind::Gpu || launch.groups == 0 {
        return;
    }
    LAUNCHED.with_borrow_mut(|launched| {
        if let Some(launched) = launched {
            let dtypes = launch.bindings.iter().map(|b| b.dtype).collect();
            let variant = Variant { params: launch.params, dtypes, threads: launch.threads };
            launched.insert((launch.kernel.name, variant));
        }
    });
}

/// The variants that `test` launches on GPUs, by contexts of this thread.
pub fn record_launches(test: impl FnOnce()) -> HashSet<NamedVariant> {
    let outer = LAUNCHED.replace(Some(HashSet::new()));
    test();
    let launched = LAUNCHED.replace(outer).expect("a set was put there");
    LAUNCHED.with_borrow_mut(|outer| {
        if let Some(outer) = outer {
            outer.extend(launched.iter().cloned());
        }
    });
    launched
}

/// The variants that kernels list. A kernel that only runs on the CPU has none.
pub fn list_variants(kernels: &[&Kernel]) -> Vec<NamedVariant> {
    kernels.iter().flat_map(|k| (k.variants)().into_iter().map(|v| (k.name, v))).collect()
}

/// Requires that `launched` has all variants of the kernels that this device is expected to run, and no other variant of them.
/// Without a GPU (`LOWRANK_NO_GPU`) it does nothing.
pub fn assert_all(
    kernels: &[&Kernel],
    launched: &HashSet<NamedVariant>,
    is_expected: impl Fn(&NamedVariant) -> bool,
) {
    if std::env::var_os("LOWRANK_NO_GPU").is_some() {
        println!("not run: whether all variants are launched (LOWRANK_NO_GPU is set)");
        return;
    }
    match compare_launched(kernels, launched, is_expected) {
        Ok(count) => println!("{count} variants of {} kernels launched: all", kernels.len()),
        Err(differences) => panic!("{differences}"),
    }
}

/// The number of listed variants, if they equal the launched ones.
fn compare_launched(
    kernels: &[&Kernel],
    launched: &HashSet<NamedVariant>,
    is_expected: impl Fn(&NamedVariant) -> bool,
) -> Result<usize, String> {
    let mut listed = list_variants(kernels);
    listed.retain(|variant| is_expected(variant));
    let unique: HashSet<_> = listed.iter().collect();
    let duplicates = listed.len() - unique.len();
    let missing: Vec<_> = listed.iter().filter(|variant| !launched.contains(variant)).collect();
    let is_covered = |variant: &&NamedVariant| kernels.iter().any(|k| k.name == variant.0);
    let unlisted: Vec<_> =
        launched.iter().filter(is_covered).filter(|variant| !unique.contains(variant)).collect();
    if duplicates == 0 && missing.is_empty() && unlisted.is_empty() {
        return Ok(listed.len());
    }
    let describe = |variants: &[&NamedVariant]| {
        variants.iter().map(|f| format!("\n  {} {:?}", f.0, f.1)).collect::<String>()
    };
    Err(format!(
        "of {} variants that are listed, {duplicates} are listed twice, {} were not launched:{}\n{} were launched that no \
         kernel lists:{}",
        listed.len(),
        missing.len(),
        describe(&missing),
        unlisted.len(),
        describe(&unlisted)
    ))
}

/// A test that launches every listed variant and compares each with the reference. The constant `COVERED` lists
/// the covered kernels for `kernels::tests`; all such tests are in modules `every_variant`.
macro_rules! every_variant {
    ($kernels:expr; $(#[$meta:meta])* fn $name:ident() $body:block) => {
        $crate::kernel::coverage::every_variant! { $kernels, if |_| true; $(#[$meta])* fn $name() $body }
    };
    // For variants that only some devices are given.
    ($kernels:expr, if $is_expected:expr; $(#[$meta:meta])* fn $name:ident() $body:block) => {
        pub(crate) const COVERED: &[&$crate::kernel::Kernel] = $kernels;

        mod every_variant {
            #[allow(unused_imports)]
            use super::*;

            $(#[$meta])*
            #[test]
            fn $name() {
                let launched = $crate::kernel::coverage::record_launches(|| $body);
                $crate::kernel::coverage::assert_all(COVERED, &launched, $is_expected);
            }
        }
    };
}
pub(crate) use every_variant;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::kernel::{Implementations, Params};

    const PARAMS: [Params; 2] = [[0; 4], [1, 0, 0, 0]];

    fn make_variant(params: Params) -> Variant {
        Variant { params, dtypes: vec![DType::F32], threads: 64 }
    }

    static TWO: Kernel = Kernel {
        name: "test_two",
        bindings: &[],
        scalars: Vec::new,
        implementations: Implementations::Gpu(|_| String::new()),
        variants: || PARAMS.map(make_variant).into(),
    };

    fn make_launch(params: Params) -> Launch {
        let range = crate::kernel::Range {
            buffer: crate::kernel::BufferId(0),
            offset: 0,
            bytes: 4,
            dtype: DType::F32,
        };
        Launch {
            kernel: &TWO,
            params,
            bindings: [range].into_iter().collect(),
            scalars: Default::default(),
            groups: 1,
            threads: 64,
            work: 1,
        }
    }

    fn record_params(params: &[Params]) -> HashSet<NamedVariant> {
        record_launches(|| params.iter().for_each(|p| record(Kind::Gpu, &make_launch(*p))))
    }

    #[test]
    fn only_nonempty_gpu_launches_are_recorded() {
        record(Kind::Gpu, &make_launch(PARAMS[0]));
        let mut inner = HashSet::new();
        let outer = record_launches(|| {
            record(Kind::Cpu, &make_launch(PARAMS[0]));
            record(Kind::Gpu, &Launch { groups: 0, ..make_launch(PARAMS[0]) });
            inner = record_params(&[PARAMS[1]]);
        });
        assert_eq!(inner, HashSet::from([("test_two", make_variant(PARAMS[1]))]));
        assert_eq!(outer, inner);
        assert!(record_params(&[]).is_empty());
    }

    #[test]
    fn a_missing_or_unlisted_variant_is_reported() {
        let compare = |params: &[Params]| compare_launched(&[&TWO], &record_params(params), |_| true);
        assert_eq!(compare(&PARAMS), Ok(2));
        let missing = compare(&PARAMS[..1]).unwrap_err();
        assert!(missing.contains(" 1 were not launched:\n  test_two"), "{missing}");
        let other = compare(&[PARAMS[0], PARAMS[1], [7; 4]]).unwrap_err();
        assert!(other.contains("1 were launched that no kernel lists:\n  test_two"), "{other}");
        let duplicates = compare_launched(&[&TWO, &TWO], &record_params(&PARAMS), |_| true).unwrap_err();
        assert!(duplicates.contains("2 are listed twice"), "{duplicates}");
    }
}
