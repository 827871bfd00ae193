//! How the help of every command is laid out: its flags in groups, the same flag under the same heading everywhere.
//!
//! What a flag does is said where it is defined. Here stands only where its line is shown, so that two commands do
//! not group the same flag in two ways.

use clap::{Arg, ArgAction, Command};

const IN: &str = "What goes in";
const OUT: &str = "What comes out";
const LEARNING: &str = "How it learns";
const LAYERS: &str = "The head and the layers";
const MEASURED: &str = "How it is measured";
const TEXTS: &str = "How the texts are written";
const SERVER: &str = "A server that writes";
const ASKED: &str = "What is asked, and of whom";
const PAGE: &str = "The page";
const ADDRESS: &str = "The address";
const LIMITS: &str = "How much it takes";
const MACHINE: &str = "Machine";

/// The order of the headings; flags of every command come last.
const ORDER: [&str; 12] = [IN, ASKED, PAGE, ADDRESS, OUT, LEARNING, LAYERS, MEASURED, TEXTS, SERVER, LIMITS, MACHINE];

/// Every flag, by its name on the command line.
const GROUPS: [(&str, &[&str]); 12] = [
    (
        IN,
        &[
            "adapter",
            "base",
            "check-judge",
            "columns",
            "dir",
            "eval",
            "file",
            "force",
            "group-by",
            "judge",
            "labels",
            "max-length",
            "model",
            "prompt",
            "prompts",
            "rank",
            "rating",
            "response",
            "revision",
        ],
    ),
    (IN, &["literal", "strict", "suite", "system", "truncation", "raw", "steps", "question", "template", "tokens"]),
    (
        OUT,
        &[
            "format",
            "merge",
            "allow-training-data",
            "analysis",
            "by",
            "calibrate",
            "json",
            "k",
            "min-score",
            "n",
            "output",
        ],
    ),
    (
        OUT,
        &[
            "overwrite",
            "pipe",
            "prefix",
            "print-settings",
            "quiet",
            "report",
            "restart",
            "resume",
            "save-every",
            "show",
            "top-percent",
        ],
    ),
    (
        LEARNING,
        &[
            "accumulate",
            "algorithm",
            "attributes",
            "attribute-weights",
            "batch-size",
            "center-coefficient",
            "ensemble",
            "epochs",
            "group-size",
            "kl",
            "learning-rate",
            "loss",
            "max-grad-norm",
            "max-kl",
            "max-steps",
            "memory",
            "no-shuffle",
            "recipe",
            "schedule",
            "seed",
            "teacher",
            "warmup-steps",
            "weight-decay",
        ],
    ),
    (
        LAYERS,
        &[
            "freeze",
            "head-first",
            "head-from",
            "keep-layers",
            "layer-decay",
            "lora",
            "lora-alpha",
            "lora-dropout",
            "lora-targets",
            "new-head",
            "renew-layers",
            "rslora",
        ],
    ),
    (IN, &["add", "database"]),
    (OUT, &["shard", "unit-size"]),
    (ASKED, &["flags", "name", "next", "overlap", "people", "repeats"]),
    (PAGE, &["host", "no-open", "port", "terminal", "token"]),
    (MEASURED, &["bootstrap", "early-stop", "eval-every", "eval-fraction", "folds", "held-out", "held-out-samples"]),
    (MACHINE, &["help", "precision", "sequences", "threads", "version"]),
];

/// Flags that mean something else, and so stand elsewhere, in one command.
const EXCEPTIONS: [(&str, &str, &[&str]); 11] = [
    ("rank", ASKED, &["attributes", "judge"]),
    ("eval", MEASURED, &["seed"]),
    (
        "generate",
        TEXTS,
        &["distinct", "max-new-tokens", "min-p", "repetition-penalty", "seed", "stop", "temperature", "top-k", "top-p"],
    ),
    ("improve", LEARNING, &["steps"]),
    ("improve", MEASURED, &["eval"]),
    ("improve", TEXTS, &["max-new-tokens", "n", "temperature"]),
    ("serve", IN, &["config"]),
    ("serve", ADDRESS, &["api-key-file", "host", "insecure", "port"]),
    ("serve", OUT, &["log"]),
    (
        "serve",
        LIMITS,
        &[
            "connections",
            "drain",
            "max-batch-tokens",
            "max-body",
            "max-characters",
            "max-items",
            "queue",
            "tokenise-limit",
        ],
    ),
    ("generate", SERVER, &["concurrency", "key-variable", "model-name", "retries", "timeout"]),
];

/// The command line with its help in groups.
pub fn grouped(cli: Command) -> Command {
    let help = Arg::new("help").long("help").short('h').global(true).action(ArgAction::Help).help("Print this help");
    let help = help.display_order(LAST);
    let names: Vec<String> = cli.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let version = Arg::new("version").long("version").short('V').action(ArgAction::Version).help("Print the version");
    let version = version.display_order(LAST);
    let cli = cli.disable_help_flag(true).disable_version_flag(true).max_term_width(100).args([help, version]);
    let cli = cli.mut_args(|argument| under_its_heading("", argument));
    names.iter().fold(cli, |cli, name| cli.mut_subcommand(name, in_order))
}

/// Place of `--help` and `--version` under their heading.
const LAST: usize = 999;

/// The command with its flags in the order of their headings, which is the order in which clap shows these.
fn in_order(command: Command) -> Command {
    let name: &'static str = command.get_name().to_owned().leak(); // once a process
    let mut arguments: Vec<Arg> = command.get_arguments().map(|a| under_its_heading(name, a.clone())).collect();
    arguments.sort_by_key(|argument| ORDER.iter().position(|heading| Some(*heading) == argument.get_help_heading()));
    let about = command.get_about().cloned().unwrap_or_default();
    let after = command.get_after_help().cloned().unwrap_or_default();
    let groups: Vec<_> = command.get_groups().cloned().collect();
    let place = command.get_display_order();
    let alone = command.is_args_conflicts_with_subcommands_set();
    let parts: Vec<Command> = command.get_subcommands().cloned().collect();
    let ordered = Command::new(name).display_order(place).about(about).after_help(after).args(arguments).groups(groups);
    ordered.subcommands(parts).args_conflicts_with_subcommands(alone)
}

fn under_its_heading(command: &str, argument: Arg) -> Arg {
    match heading(command, &name_of(&argument)) {
        Some(heading) => argument.help_heading(heading),
        None => argument,
    }
}

/// The name of a flag; empty for what has none.
fn name_of(argument: &Arg) -> String {
    let short = argument.get_short().map(String::from);
    argument.get_long().map(str::to_owned).or(short).unwrap_or_default()
}

fn heading(command: &str, flag: &str) -> Option<&'static str> {
    let exception = EXCEPTIONS.iter().find(|(name, _, flags)| *name == command && flags.contains(&flag));
    let usual = || GROUPS.iter().find(|(_, flags)| flags.contains(&flag)).map(|(heading, _)| *heading);
    exception.map(|(_, heading, _)| *heading).or_else(usual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn no_example_is_wider_than_a_terminal() {
        let cli = crate::Cli::command();
        for command in cli.get_subcommands().chain([&cli]) {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let wide = after.lines().find(|line| line.chars().count() > 80);
            assert_eq!(wide, None, "{}", command.get_name());
        }
    }

    #[test]
    fn every_flag_of_every_command_has_a_heading() {
        let cli = grouped(crate::Cli::command());
        for command in cli.get_subcommands() {
            for flag in command.get_arguments().filter(|argument| !argument.is_positional()) {
                let (command, flag_name) = (command.get_name(), name_of(flag));
                assert!(flag.get_help_heading().is_some(), "help.rs: no heading for --{flag_name} of {command}");
            }
        }
    }
}
