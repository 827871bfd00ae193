//! One line a request on standard error, and a line for what happens to the server.
//!
//! Lines are written by a thread of their own from a queue of bounded length. A full disk, a closed standard error or a
//! reader that does not read costs log lines, which are counted, and never a request. No line holds a key or a text.

use crate::metrics::Metrics;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogForm {
    /// Short lines for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
    /// No lines.
    Off,
}

/// Lines that may wait to be written.
const WAITING: usize = 1024;

/// Where lines go.
pub(crate) struct Logs {
    form: LogForm,
    lines: Option<SyncSender<Line>>,
    metrics: Arc<Metrics>,
}

enum Line {
    Write(String),
    /// Answered when all before it is written.
    Flush(SyncSender<()>),
}

/// What is said of a request.
pub(crate) struct Entry<'a> {
    pub(crate) id: &'a str,
    pub(crate) method: &'a str,
    pub(crate) route: &'static str,
    pub(crate) status: u16,
    pub(crate) time: Duration,
    pub(crate) bytes_in: usize,
}

impl Logs {
    /// Lines of this form to `output`.
    pub(crate) fn start(form: LogForm, metrics: Arc<Metrics>, output: impl Write + Send + 'static) -> Logs {
        let (sender, receiver) = sync_channel(WAITING);
        let lost = metrics.clone();
        let write = move || write_all(&receiver, output, &lost);
        let is_started = std::thread::Builder::new().name("log".into()).spawn(write).is_ok();
        Logs { form, lines: (form != LogForm::Off && is_started).then_some(sender), metrics }
    }

    /// A request was answered.
    pub(crate) fn request(&self, entry: &Entry) {
        let Entry { id, method, route, status, time, bytes_in } = entry;
        let milliseconds = time.as_secs_f64() * 1e3;
        match self.form {
            LogForm::Off => {}
            LogForm::Text => self.write(format!("{method} {route} {status} {milliseconds:.1} ms  {id}")),
            LogForm::Json => {
                let milliseconds = (milliseconds * 1e3).round() / 1e3;
                self.write_json(
                    "request",
                    json!({"id": id, "method": method, "route": route, "status": status, "milliseconds": milliseconds,
                        "bytes_in": bytes_in}),
                );
            }
        }
    }

    /// Something happened to the server.
    pub(crate) fn event(&self, event: &'static str, sentence: &str) {
        match self.form {
            LogForm::Off => {}
            LogForm::Text => self.write(sentence.to_owned()),
            LogForm::Json => self.write_json(event, json!({"message": sentence})),
        }
    }

    fn write_json(&self, event: &'static str, facts: Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = Map::from_iter([
            ("time".to_owned(), json!(now.as_millis() as f64 / 1e3)),
            ("event".to_owned(), json!(event)),
        ]);
        if let Value::Object(facts) = facts {
            line.extend(facts);
        }
        self.write(Value::Object(line).to_string());
    }

    fn write(&self, mut line: String) {
        line.push('\n');
        let Some(lines) = &self.lines else { return };
        if lines.try_send(Line::Write(line)).is_err() {
            self.metrics.lost_log_lines.add(1);
        }
    }

    /// Waits until what was said is written, for at most `time`.
    pub(crate) fn flush(&self, time: Duration) {
        let (done, written) = sync_channel(1);
        let is_sent = self.lines.as_ref().is_some_and(|lines| lines.try_send(Line::Flush(done)).is_ok());
        if is_sent {
            let _ = written.recv_timeout(time);
        }
    }
}

fn write_all(lines: &Receiver<Line>, mut output: impl Write, metrics: &Metrics) {
    while let Ok(line) = lines.recv() {
        match line {
            Line::Flush(done) => drop(done.try_send(())),
            Line::Write(line) => {
                if output.write_all(line.as_bytes()).is_err() {
                    metrics.lost_log_lines.add(1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn said(form: LogForm) -> String {
        let kept = Kept::default();
        let logs = Logs::start(form, Arc::default(), kept.clone());
        let time = Duration::from_micros(12_345);
        logs.request(&Entry { id: "a-1", method: "POST", route: "/v1/score", status: 200, time, bytes_in: 7 });
        logs.event("reload", "a judge was loaded");
        logs.flush(Duration::from_secs(10));
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn each_form() {
        assert_eq!(said(LogForm::Text), "POST /v1/score 200 12.3 ms  a-1\na judge was loaded\n");
        assert_eq!(said(LogForm::Off), "");
        let lines: Vec<Value> = said(LogForm::Json).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!([&lines[0]["event"], &lines[1]["event"]], ["request", "reload"]);
        assert_eq!((&lines[0]["milliseconds"], &lines[0]["status"]), (&json!(12.345), &json!(200)));
    }

    /// Neither ends nor takes anything until it is released; then it fails.
    struct Stuck(Arc<AtomicBool>);

    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            while !self.0.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(std::io::Error::other("the disk is full"))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_is_stuck_or_full_costs_lines_and_no_time() {
        let (metrics, release) = (Arc::<Metrics>::default(), Arc::new(AtomicBool::new(false)));
        let logs = Logs::start(LogForm::Text, metrics.clone(), Stuck(release.clone()));
        let lines = WAITING + 500;
        (0..lines).for_each(|_| logs.event("x", "a line"));
        let lost = metrics.lost_log_lines.get();
        assert!((499..=500).contains(&lost), "one line may be in the output: {lost}");
        release.store(true, Ordering::SeqCst);
        let is_done = || metrics.lost_log_lines.get() == lines as u64;
        (0..1000).take_while(|_| !is_done()).for_each(|_| std::thread::sleep(Duration::from_millis(5)));
        assert!(is_done(), "a line that cannot be written is counted, and the next is tried");
    }
}
