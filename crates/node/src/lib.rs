//! The Node-API binding of lowrank. It only converts arguments and results.

// In test builds nothing registers the exports.
#![cfg_attr(test, allow(dead_code))]

mod background;
mod blocks;
mod cpu_use;
mod decode_stream;
mod devices;
mod direct;
mod error;
mod exchange;
mod files;
mod gguf;
mod handles;
mod linalg;
mod offload;
mod ops;
mod optimizer;
mod random;
mod replica;
mod session;
mod tokenizer;
mod trace;
mod tune;

/// A panic in an exported call becomes an error of that call; `last_panic` returns its location.
#[cfg(not(test))]
#[napi_derive::module_init]
fn install_panic_hook() {
    lowrank_engine::panic::install_hook();
}

#[cfg(test)]
mod tests {
    /// A panic in a call that does not catch it ends the process.
    #[test]
    fn every_exported_call_catches_panics() {
        let mut calls = 0;
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let marks: Vec<usize> = text.match_indices("\n    #[napi").map(|(at, _)| at).collect();
                let free = text.match_indices("\n#[napi").map(|(at, _)| at);
                for at in marks.into_iter().chain(free) {
                    // The annotated item: up to the first line that is neither an attribute nor a comment.
                    let marked = &text[at + 1..];
                    let end = marked.find(" fn ").unwrap_or(marked.len());
                    let head = &marked[..end];
                    let marks_a_call = head.starts_with("    #[napi")
                        || head.starts_with("#[napi(")
                        || head.starts_with("#[napi]");
                    if !marks_a_call
                        || head.contains("struct")
                        || head.contains("impl ")
                        || end == marked.len()
                    {
                        continue;
                    }
                    calls += 1;
                    assert!(head.contains("catch_unwind"), "{}: {head}", path.display());
                }
            }
        }
        assert!(calls > 100, "{calls}");
    }
}
