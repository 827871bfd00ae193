//! `kudos pull NAME`: fetch a model into the local cache, once, so that nothing else needs a network.
//!
//! Standard output carries the path alone, for `--model "$(kudos pull NAME)"`; everything said on
//! the way goes to standard error.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{DecimalBytes, HumanDuration, ProgressBar, ProgressState, ProgressStyle};
use kudos::hub::{Progress, PullOptions, Pulled, Settings, pull_with};

/// Fetch a model, once, so that nothing else needs a network.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// org/name or org/name@revision on the Hugging Face hub, or a short name: all-minilm-l6-v2,
    /// smollm2-135m-instruct, distilbert-base-uncased
    name: String,
    /// Branch, tag or commit on the hub [default: main]
    #[arg(long, value_name = "R")]
    revision: Option<String>,
    /// The GGUF file to take: its name, or a part that only one name has (q4_k_m)
    #[arg(long, value_name = "F")]
    file: Option<String>,
    /// Also put plain copies of the files into this folder
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Ask the server again, check every file, and fetch those that differ
    #[arg(long)]
    force: bool,
}

impl Args {
    /// A plain call for one name, for commands that fetch what they need.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), revision: None, file: None, dir: None, force: false }
    }
}

const EXAMPLES: &str = "\
Examples:
  kudos pull all-minilm-l6-v2
  kudos pull distilbert/distilbert-base-uncased --revision main
  kudos pull Qwen/Qwen2.5-0.5B-Instruct-GGUF --file q4_k_m
  kudos pull smollm2-135m-instruct --dir models/smollm2

It prints the path of the model.
Environment: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE,
HTTPS_PROXY, SSL_CERT_FILE, KUDOS_HOME";

/// Runs the command.
///
/// # Errors
///
/// Those of [`kudos::hub::pull`].
pub fn run(args: &Args, global: &super::Global) -> anyhow::Result<()> {
    let options = PullOptions {
        revision: args.revision.clone(),
        file: args.file.clone(),
        dir: args.dir.clone(),
        force: args.force,
    };
    let mut display = Display::new(global.quiet);
    let pulled = pull_with(&args.name, &options, &Settings::from_env(), &mut |progress| display.show(progress));
    display.bar.finish_and_clear();
    print(&pulled?, global);
    Ok(())
}

fn print(pulled: &Pulled, global: &super::Global) {
    if global.json {
        let result = serde_json::json!({
            "name": pulled.name,
            "path": pulled.path,
            "revision": pulled.revision,
            "files": pulled.files,
        });
        outln!("{result}");
        return;
    }
    if pulled.already && !global.quiet {
        say!("{} is already here (--force checks it again)", pulled.name);
    }
    outln!("{}", pulled.path.display());
}

/// A bar on a terminal; else a line a file.
struct Display {
    bar: ProgressBar,
    quiet: bool,
    is_terminal: bool,
}

impl Display {
    fn new(quiet: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { bar: ProgressBar::hidden(), quiet, is_terminal }
    }

    fn show(&mut self, progress: Progress) {
        match progress {
            _ if self.quiet => {}
            Progress::Bytes { done, total } if self.is_terminal => self.advance(done, total),
            Progress::File { name, .. } if self.is_terminal => self.bar.set_message(name),
            Progress::File { name, bytes } => match bytes {
                Some(bytes) => say!("{name} ({})", DecimalBytes(bytes)),
                None => say!("{name}"),
            },
            Progress::Note(note) => self.bar.suspend(|| say!("{note}")),
            _ => {}
        }
    }

    /// The bar appears with the first bytes, and its rate counts from there: what an earlier pull left
    /// on disk was not fetched now.
    fn advance(&mut self, done: u64, total: u64) {
        if self.bar.is_hidden() {
            let message = self.bar.message();
            self.bar = ProgressBar::new(total).with_style(style(done)).with_position(done);
            self.bar.set_message(message);
        }
        self.bar.set_position(done);
    }
}

fn style(start: u64) -> ProgressStyle {
    let template = "{wide_msg} {bar:24} {decimal_bytes}/{decimal_total_bytes} {speed}";
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key(
        "speed",
        move |state: &ProgressState, out: &mut dyn Write| {
            let _ = write!(out, "{}", speed(state, start));
        },
    )
}

/// Bytes a second since `start`, and the time left at that rate.
fn speed(state: &ProgressState, start: u64) -> String {
    let rate = state.pos().saturating_sub(start) as f64 / state.elapsed().as_secs_f64().max(1e-3);
    if rate < 1.0 {
        return String::new();
    }
    let left = state.len().unwrap_or_default().saturating_sub(state.pos());
    let seconds = Duration::from_secs((left as f64 / rate).ceil() as u64);
    format!("{}/s {}", DecimalBytes(rate as u64), HumanDuration(seconds))
}
