use super::*;

fn candidate(source: &str, path: &str) -> Candidate {
    Candidate { source: source.into(), path: absolute(path) }
}

/// Returns an absolute path on the system that runs the tests.
fn absolute(name: &str) -> PathBuf {
    std::env::temp_dir().join(name)
}

/// A probe that determines each file's fault from its name.
fn by_name(path: &Path) -> Result<String, String> {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("valid.dll") => Ok("1.8".into()),
        Some("valid-too.dll") => Ok("1.9".into()),
        Some("missing.dll") => Err("does not exist".into()),
        Some("old.dll") => Err("is older than 1.8.2502".into()),
        Some("unsigned.dll") => Err("does not sign shaders".into()),
        other => panic!("no such file in this test: {other:?}"),
    }
}

fn dxc(path: &str, version: &str) -> Compiler {
    Compiler::Dxc { path: absolute(path), version: version.into() }
}

#[test]
fn the_variable_comes_before_the_package_and_the_program() {
    let others = [candidate("the package webgpu", "valid-too.dll"), candidate("the program", "old.dll")];
    let choice = choose(Some(absolute("valid.dll")), &others, by_name);
    assert_eq!(choice, Choice { compiler: dxc("valid.dll", "1.8"), warnings: Vec::new() });
    let choice = choose(None, &others, by_name);
    assert_eq!(choice, Choice { compiler: dxc("valid-too.dll", "1.9"), warnings: Vec::new() });
}

#[test]
fn each_candidate_that_fails_is_named_and_the_next_is_used() {
    let others = [candidate("the package webgpu", "unsigned.dll"), candidate("the program", "valid.dll")];
    for (named, reason) in [("missing.dll", "does not exist"), ("old.dll", "is older than 1.8.2502")] {
        let choice = choose(Some(absolute(named)), &others, by_name);
        assert_eq!(choice.compiler, dxc("valid.dll", "1.8"));
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
fn fxc_is_last_and_the_last_warning_says_what_to_do() {
    let choice = choose(Some(absolute("missing.dll")), &[candidate("the program", "old.dll")], by_name);
    assert_eq!(choice.compiler, Compiler::Fxc);
    assert_eq!(choice.warnings.len(), 2);
    assert!(!choice.warnings[0].contains(REMEDY), "{}", choice.warnings[0]);
    assert!(choice.warnings[1].contains("FXC") && choice.warnings[1].contains(REMEDY));
    // Without candidates there is nothing to warn about.
    assert_eq!(choose(None, &[], by_name), Choice { compiler: Compiler::Fxc, warnings: Vec::new() });
}

#[test]
fn a_relative_path_is_refused_without_loading_it() {
    let choice = choose(Some("dxcompiler.dll".into()), &[], |path| panic!("{} was loaded", path.display()));
    assert_eq!(choice.compiler, Compiler::Fxc);
    assert!(choice.warnings[0].contains("is not an absolute path"), "{}", choice.warnings[0]);
}

#[test]
fn files_that_are_not_there_are_no_candidates_unless_the_variable_names_them() {
    look_in(vec![candidate("the program", "lowrank-has-no-such-file.dll")]);
    assert!(OTHERS.lock().unwrap().is_empty());
}
