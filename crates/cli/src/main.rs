//! The `kudos` command: all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    kudos_cli::main_with(std::env::args_os().collect()).into()
}
