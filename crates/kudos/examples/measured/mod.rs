//! The protocol of programs that measure on demand, so that several take turns: each line `run` on standard input is answered
//! with `{"ms": …}`, the end of input with `{"maxrss_kib": …}`.

use std::io::BufRead;

/// Answers until the input ends; `run` does the work once and returns its milliseconds.
pub fn answer(mut run: impl FnMut() -> f64) {
    for line in std::io::stdin().lock().lines() {
        if line.expect("text").trim() == "run" {
            println!("{{\"ms\": {}}}", run());
        }
    }
    println!("{{\"maxrss_kib\": {}}}", resident_peak());
}

/// `VmHWM` of this process.
fn resident_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
