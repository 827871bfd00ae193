//! What a process holds, read from /proc.

use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Readings of a run.
const READINGS: u32 = 40;

/// Reads a process's memory and open files again and again, on a thread of its own.
pub struct Watch {
    readings: Arc<Mutex<Vec<(u64, usize)>>>,
    done: Arc<AtomicBool>,
}

impl Watch {
    pub fn start(pid: u32, time: Duration) -> Watch {
        let watch = Watch { readings: Arc::default(), done: Arc::default() };
        let (readings, done) = (watch.readings.clone(), watch.done.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                readings.lock().expect("no thread panics").extend(reading(pid));
                std::thread::sleep(time / READINGS);
            }
        });
        watch
    }

    /// Resident KiB and open files: at first, at their most, and at last; and the memory at each tenth.
    pub fn stop(self) -> Value {
        self.done.store(true, Ordering::Relaxed);
        let readings = self.readings.lock().expect("no thread panics");
        let (Some(first), Some(last)) = (readings.first(), readings.last()) else { return Value::Null };
        let memory = readings.iter().map(|(kib, _)| *kib);
        let files = readings.iter().map(|(_, files)| *files);
        json!({
            "rss_kib": {"first": first.0, "most": memory.clone().max(), "last": last.0},
            "files": {"first": first.1, "most": files.max(), "last": last.1},
            "rss_kib_by_tenth": memory.step_by(readings.len().div_ceil(10)).collect::<Vec<_>>(),
        })
    }
}

fn reading(pid: u32) -> Option<(u64, usize)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())?;
    Some((kib, std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()))
}
