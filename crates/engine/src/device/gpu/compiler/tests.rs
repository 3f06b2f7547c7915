use super::*;

fn make_candidate(source: &str, path: &str) -> Candidate {
    Candidate { source: source.into(), path: make_absolute(path) }
}

/// Returns an absolute path on the system that runs the tests.
fn make_absolute(name: &str) -> PathBuf {
    std::env::temp_dir().join(name)
}

/// A probe that determines each file's fault from its name.
fn probe_by_name(path: &Path) -> Result<String, String> {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("valid.dll") => Ok("1.8".into()),
        Some("valid-too.dll") => Ok("1.9".into()),
        Some("missing.dll") => Err("does not exist".into()),
        Some("old.dll") => Err("is older than 1.8.2502".into()),
        Some("unsigned.dll") => Err("does not sign shaders".into()),
        other => panic!("no such file in this test: {other:?}"),
    }
}

fn make_dxc(path: &str, version: &str) -> Compiler {
    Compiler::Dxc { path: make_absolute(path), version: version.into() }
}

#[test]
fn the_variable_has_priority_over_the_package_and_the_program() {
    let others =
        [make_candidate("the package webgpu", "valid-too.dll"), make_candidate("the program", "old.dll")];
    let choice = choose(Some(make_absolute("valid.dll")), &others, probe_by_name);
    assert_eq!(choice, Choice { compiler: make_dxc("valid.dll", "1.8"), warnings: Vec::new() });
    let choice = choose(None, &others, probe_by_name);
    assert_eq!(choice, Choice { compiler: make_dxc("valid-too.dll", "1.9"), warnings: Vec::new() });
}

#[test]
fn each_failing_candidate_gives_a_warning_and_the_next_is_tried() {
    let others =
        [make_candidate("the package webgpu", "unsigned.dll"), make_candidate("the program", "valid.dll")];
    for (named, reason) in [("missing.dll", "does not exist"), ("old.dll", "is older than 1.8.2502")] {
        let choice = choose(Some(make_absolute(named)), &others, probe_by_name);
        assert_eq!(choice.compiler, make_dxc("valid.dll", "1.8"));
        let [first, second] = &choice.warnings[..] else { panic!("{:?}", choice.warnings) };
        for part in [VARIABLE, named, reason, "trying that of the package webgpu"] {
            assert!(first.contains(part), "{first}: {part}");
        }
        for part in
            ["the package webgpu", "unsigned.dll", "does not sign shaders", "trying that of the program"]
        {
            assert!(second.contains(part), "{second}: {part}");
        }
    }
}

#[test]
fn fxc_is_the_fallback_and_the_last_warning_names_the_remedy() {
    let choice = choose(
        Some(make_absolute("missing.dll")),
        &[make_candidate("the program", "old.dll")],
        probe_by_name,
    );
    assert_eq!(choice.compiler, Compiler::Fxc);
    assert_eq!(choice.warnings.len(), 2);
    assert!(!choice.warnings[0].contains(REMEDY), "{}", choice.warnings[0]);
    assert!(choice.warnings[1].contains("FXC") && choice.warnings[1].contains(REMEDY));
    // Without candidates there is nothing to warn about.
    assert_eq!(choose(None, &[], probe_by_name), Choice { compiler: Compiler::Fxc, warnings: Vec::new() });
}

#[test]
fn a_relative_path_is_refused_without_loading_it() {
    let choice = choose(Some("dxcompiler.dll".into()), &[], |path| panic!("{} was loaded", path.display()));
    assert_eq!(choice.compiler, Compiler::Fxc);
    assert!(choice.warnings[0].contains("is not an absolute path"), "{}", choice.warnings[0]);
}

#[test]
fn missing_files_are_candidates_only_if_the_variable_names_them() {
    set_candidates(vec![make_candidate("the program", "lowrank-has-no-such-file.dll")]);
    assert!(CANDIDATES.lock().unwrap().is_empty());
}
