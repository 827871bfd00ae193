//! Says which instructions the tests of this run used. libtest hides what passing tests print, so this one runs
//! without it.

fn main() {
    kernels::check_isa().unwrap_or_else(|error| panic!("{error}"));
    println!("\n{}\n", kernels::description());
}
