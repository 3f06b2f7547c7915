//! Records the variants that a test launches on a GPU, and compares them with the variants that its kernels list.

use std::cell::RefCell;
use std::collections::HashSet;

use crate::kernel::{Kernel, Launch, Variant};
use crate::profile::Kind;

/// A kernel's name and one of its variants.
pub type Form = (&'static str, Variant);

thread_local! {
    /// The variants that this thread's contexts launched on GPUs while `launched_in` runs.
    static LAUNCHED: RefCell<Option<HashSet<Form>>> = const { RefCell::new(None) };
}

/// Records a launch on a device of `kind`, while `launched_in` runs.
pub fn note(kind: Kind, launch: &Launch) {
    if kind != Kind::Gpu || launch.groups == 0 {
        return;
    }
    LAUNCHED.with_borrow_mut(|launched| {
        if let Some(launched) = launched {
            let dtypes = launch.bindings.iter().map(|b| b.dtype).collect();
            let form = Variant { params: launch.params, dtypes, threads: launch.threads };
            launched.insert((launch.kernel.name, form));
        }
    });
}

/// The variants that `test` launches on GPUs, by contexts of this thread.
pub fn launched_in(test: impl FnOnce()) -> HashSet<Form> {
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
pub fn list_variants(kernels: &[&Kernel]) -> Vec<Form> {
    kernels.iter().flat_map(|k| (k.variants)().into_iter().map(|v| (k.name, v))).collect()
}

/// Requires that `launched` has all variants of the kernels that this device is `given`, and no other variant of them.
/// Without a GPU (`LOWRANK_NO_GPU`) it does nothing.
pub fn assert_all(kernels: &[&Kernel], launched: &HashSet<Form>, given: impl Fn(&Form) -> bool) {
    if std::env::var_os("LOWRANK_NO_GPU").is_some() {
        println!("not run: whether all forms are launched (LOWRANK_NO_GPU is set)");
        return;
    }
    match compare_launched(kernels, launched, given) {
        Ok(count) => println!("{count} forms of {} kernels launched: all", kernels.len()),
        Err(differences) => panic!("{differences}"),
    }
}

/// The number of listed variants, if they equal the launched ones.
fn compare_launched(
    kernels: &[&Kernel],
    launched: &HashSet<Form>,
    given: impl Fn(&Form) -> bool,
) -> Result<usize, String> {
    let mut listed = list_variants(kernels);
    listed.retain(|form| given(form));
    let once: HashSet<_> = listed.iter().collect();
    let twice = listed.len() - once.len();
    let missing: Vec<_> = listed.iter().filter(|form| !launched.contains(form)).collect();
    let of_these = |form: &&Form| kernels.iter().any(|k| k.name == form.0);
    let unlisted: Vec<_> = launched.iter().filter(of_these).filter(|form| !once.contains(form)).collect();
    if twice == 0 && missing.is_empty() && unlisted.is_empty() {
        return Ok(listed.len());
    }
    let told = |forms: &[&Form]| forms.iter().map(|f| format!("\n  {} {:?}", f.0, f.1)).collect::<String>();
    Err(format!(
        "of {} forms that are listed, {twice} are listed twice, {} were not launched:{}\n{} were launched that no \
         kernel lists:{}",
        listed.len(),
        missing.len(),
        told(&missing),
        unlisted.len(),
        told(&unlisted)
    ))
}

/// A test that launches every listed variant and compares each with its plain form. The constant `COVERED` lists
/// the covered kernels for `kernels::tests`; all such tests are in modules `every_form`.
macro_rules! every_form {
    ($kernels:expr; $(#[$meta:meta])* fn $name:ident() $body:block) => {
        $crate::kernel::forms::every_form! { $kernels, if |_| true; $(#[$meta])* fn $name() $body }
    };
    // For variants that only some devices are given.
    ($kernels:expr, if $given:expr; $(#[$meta:meta])* fn $name:ident() $body:block) => {
        pub(crate) const COVERED: &[&$crate::kernel::Kernel] = $kernels;

        mod every_form {
            #[allow(unused_imports)]
            use super::*;

            $(#[$meta])*
            #[test]
            fn $name() {
                let launched = $crate::kernel::forms::launched_in(|| $body);
                $crate::kernel::forms::assert_all(COVERED, &launched, $given);
            }
        }
    };
}
pub(crate) use every_form;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::kernel::{Params, Twin};

    const FORMS: [Params; 2] = [[0; 4], [1, 0, 0, 0]];

    fn form(params: Params) -> Variant {
        Variant { params, dtypes: vec![DType::F32], threads: 64 }
    }

    static TWO: Kernel = Kernel {
        name: "test_two",
        bindings: &[],
        scalars: Vec::new,
        twin: Twin::Gpu(|_| String::new()),
        variants: || FORMS.map(form).into(),
    };

    fn launch(params: Params) -> Launch {
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

    fn launches(params: &[Params]) -> HashSet<Form> {
        launched_in(|| params.iter().for_each(|p| note(Kind::Gpu, &launch(*p))))
    }

    #[test]
    fn launches_on_gpus_are_kept_within() {
        note(Kind::Gpu, &launch(FORMS[0]));
        let mut inner = HashSet::new();
        let outer = launched_in(|| {
            note(Kind::Cpu, &launch(FORMS[0]));
            note(Kind::Gpu, &Launch { groups: 0, ..launch(FORMS[0]) });
            inner = launches(&[FORMS[1]]);
        });
        assert_eq!(inner, HashSet::from([("test_two", form(FORMS[1]))]));
        assert_eq!(outer, inner);
        assert!(launches(&[]).is_empty());
    }

    #[test]
    fn a_form_that_is_missing_or_not_listed_is_told() {
        let told = |params: &[Params]| compare_launched(&[&TWO], &launches(params), |_| true);
        assert_eq!(told(&FORMS), Ok(2));
        let missing = told(&FORMS[..1]).unwrap_err();
        assert!(missing.contains(" 1 were not launched:\n  test_two"), "{missing}");
        let other = told(&[FORMS[0], FORMS[1], [7; 4]]).unwrap_err();
        assert!(other.contains("1 were launched that no kernel lists:\n  test_two"), "{other}");
        let twice = compare_launched(&[&TWO, &TWO], &launches(&FORMS), |_| true).unwrap_err();
        assert!(twice.contains("2 are listed twice"), "{twice}");
    }
}
