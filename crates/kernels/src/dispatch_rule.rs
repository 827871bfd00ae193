//! A rule of this crate, checked on its sources: fused multiply-adds stand where `dispatch!` compiles them.
//!
//! For the baseline of x86-64 `mul_add` is a call of the library's `fmaf`, 25 to 50 times slower than the instruction.
//! So it may stand in a body that `dispatch!` builds for every instruction set, or in an `#[inline(always)]` function
//! that such bodies call. Functions of the second kind must not be called from anywhere else either.

use std::collections::BTreeSet;
use std::path::Path;

/// A function: its name, whether it may hold fused multiply-adds, and its code without comments.
struct Function {
    name: String,
    dispatched: bool,
    inlined: bool,
    code: String,
}

/// Code before its tests, without comments.
fn code_of(source: &str) -> String {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    let code = code.split("#[cfg(test)]\npub(crate) mod tests").next().unwrap();
    let code = code.split("#[cfg(test)]\npub(super) mod tests").next().unwrap();
    let without = |line: &str| line.split("//").next().unwrap().to_string();
    code.lines().map(without).collect::<Vec<_>>().join("\n")
}

/// Whether `name` is used in `code` as a whole word. A method of that name is another function.
fn calls(code: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (code[..at].chars().next_back(), code[at + name.len()..].chars().next());
        before.is_none_or(|c| !part(c) && c != '.') && after.is_none_or(|c| !part(c))
    })
}

/// Cuts a file at each `fn`, and remembers what stands above it.
fn functions(source: &str) -> Vec<Function> {
    let code = code_of(source);
    let mut found = Vec::new();
    let mut dispatched = false;
    let mut above = "";
    for line in code.lines() {
        let start = line.trim_start();
        if line.starts_with("dispatch! {") {
            dispatched = true;
        } else if line.starts_with('}') {
            dispatched = false;
        }
        let words =
            start.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ").trim_start_matches("pub ");
        if let Some(name) = words.trim_start_matches("unsafe ").strip_prefix("fn ") {
            let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_string();
            found.push(Function { name, dispatched, inlined: above == "#[inline(always)]", code: String::new() });
        } else if let Some(own) = found.last_mut() {
            own.code.push_str(line);
            own.code.push('\n');
        }
        above = start;
    }
    found
}

/// Names of the functions that hold a fused multiply-add, or call one that does, where nothing compiles it.
fn violations(sources: &[String]) -> Vec<String> {
    let all: Vec<Function> = sources.iter().flat_map(|source| functions(source)).collect();
    let mut fused: BTreeSet<String> = BTreeSet::new();
    let uses = |f: &Function, fused: &BTreeSet<String>| {
        f.code.contains("mul_add") || fused.iter().any(|name| calls(&f.code, name))
    };
    loop {
        let found = all.iter().filter(|f| f.inlined && uses(f, &fused)).map(|f| f.name.clone());
        let found: BTreeSet<String> = found.collect();
        if found.len() == fused.len() {
            break;
        }
        fused = found;
    }
    let outside = all.iter().filter(|f| !f.dispatched && !f.inlined && uses(f, &fused));
    outside.map(|f| f.name.clone()).collect()
}

fn sources(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| match path.is_dir() {
        true => sources(&path),
        false => vec![std::fs::read_to_string(path).unwrap()],
    };
    entries.filter(|path| !path.ends_with("dispatch_rule.rs")).flat_map(read).collect()
}

#[test]
fn p1_fused_multiply_adds_stand_where_dispatch_compiles_them() {
    let all = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(all.len() > 15, "the sources lie where this test reads them");
    assert_eq!(violations(&all), Vec::<String>::new(), "put these functions into `dispatch!`");
}

#[test]
fn p1_planted_violations_are_found() {
    let helper = "#[inline(always)]\nfn exp(x: f32) -> f32 {\n    x.mul_add(x, x)\n}\n";
    let slope = "fn slope(z: f32) -> f32 {\n    1.0 / exp(-z)\n}\n";
    let found = |code: &[&str]| violations(&[code.concat()]);
    assert_eq!(found(&[helper, slope]), ["slope"]);
    assert_eq!(found(&["fn direct(x: f32) -> f32 {\n    x.mul_add(x, x)\n}\n"]), ["direct"]);
    let dispatched = format!("dispatch! {{\n    {}\n}}\n", slope.trim_end().replace('\n', "\n    "));
    assert!(found(&[helper, &dispatched]).is_empty());
    assert_eq!(found(&[helper, &dispatched, slope]), ["slope"]);
    // A method of that name, a comment and a test are none.
    assert!(found(&[helper, "fn other(x: f64) -> f64 {\n    x.exp() // exp(x)\n}\n"]).is_empty());
    assert!(found(&[helper, "#[cfg(test)]\nmod tests {\n    fn t() {\n        exp(1.0)\n    }\n}\n"]).is_empty());
}
