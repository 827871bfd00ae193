//! `kudos.toml`: settings that stand in for flags, in two steps: typed → decided.
//!
//! A table for each command, keys named as its flags; keys outside tables hold for every command. What
//! the file says is appended to the command line wherever the flag was not typed, so clap checks both
//! alike and flags win.

use anyhow::{Context, bail};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use std::ffi::OsString;
use std::fmt::Write;
use toml::{Table, Value};

const FILE: &str = "kudos.toml";

/// The command line with the settings file's values for the flags that were not typed. A file that is named by
/// `--config` comes before the one of the working directory.
pub fn with_settings_file(cli: &Command, typed: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    let typed = match named_file(cli, &typed) {
        None => typed,
        Some((command, file)) => {
            let text = std::fs::read_to_string(&file).with_context(|| format!("--config {file}"))?;
            merge(cli, typed, &of_command(&text, command)?).with_context(|| file.clone())?
        }
    };
    match std::fs::read_to_string(FILE) {
        Ok(text) => merge(cli, typed, &text).with_context(|| FILE.to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(typed),
        Err(error) => Err(error).context(FILE),
    }
}

/// The command that is called, and what its `--config` names, where it has that flag.
fn named_file<'a>(cli: &'a Command, typed: &[OsString]) -> Option<(&'a str, String)> {
    let words: Vec<&str> = typed.iter().skip(1).filter_map(|word| word.to_str()).collect();
    let command = words.iter().find_map(|word| cli.find_subcommand(word))?;
    command.get_arguments().find(|argument| argument.get_long() == Some("config"))?;
    let joined = words.iter().find_map(|word| word.strip_prefix("--config="));
    let apart = || words.iter().position(|word| *word == "--config").and_then(|at| words.get(at + 1).copied());
    Some((command.get_name(), joined.or_else(apart)?.to_owned()))
}

/// The settings of one command alone, as a settings file of all commands would hold them; a table of the command's name
/// is accepted too.
fn of_command(text: &str, command: &str) -> anyhow::Result<String> {
    let table: Table = text.parse()?;
    let whole = match table.get(command) {
        Some(Value::Table(_)) => table,
        _ => Table::from_iter([(command.to_owned(), Value::Table(table))]),
    };
    Ok(whole.to_string())
}

fn merge(cli: &Command, typed: Vec<OsString>, text: &str) -> anyhow::Result<Vec<OsString>> {
    let table: Table = text.parse()?;
    let Some(command) = typed.iter().skip(1).find_map(|a| cli.find_subcommand(a.to_str()?)) else {
        return Ok(typed);
    };
    let mut arguments = typed.clone();
    // The table of `rank` holds for ranking, and not for what its own commands do with the rankings.
    let is_part = typed.iter().filter_map(|a| a.to_str()).any(|word| command.find_subcommand(word).is_some());
    let own = table.get(command.get_name()).and_then(Value::as_table).filter(|_| !is_part);
    let shared = table.iter().filter(|(_, value)| !value.is_table());
    for (key, value) in own.into_iter().flatten() {
        let known = command.get_arguments().chain(cli.get_arguments()).find(|a| a.get_long() == Some(key));
        let Some(argument) = known else { bail!("[{}]: `{key}` is not a flag of this command", command.get_name()) };
        if !is_typed(&typed, key, argument.get_short()) {
            append(&mut arguments, key, value)?;
        }
    }
    for (key, value) in shared {
        let Some(argument) = cli.get_arguments().find(|a| a.get_long() == Some(key)) else {
            bail!("`{key}` is not a flag of every command; put it under the command's table");
        };
        let in_own = own.is_some_and(|own| own.contains_key(key));
        if !in_own && !is_typed(&typed, key, argument.get_short()) {
            append(&mut arguments, key, value)?;
        }
    }
    for flag in TABLES {
        let takes = command.get_arguments().any(|argument| argument.get_long() == Some(flag));
        let said = is_typed(&typed, flag, None) || own.is_some_and(|own| own.contains_key(flag));
        if let Some(entries) = table.get(flag).and_then(Value::as_table).filter(|_| takes && !said) {
            entries.iter().try_for_each(|(key, value)| append_entry(&mut arguments, flag, key, value))?;
        }
    }
    let known = |name: &str| TABLES.contains(&name) || cli.find_subcommand(name).is_some();
    if let Some((name, _)) = table.iter().find(|(name, value)| value.is_table() && !known(name)) {
        bail!("[{name}] is not a command");
    }
    Ok(arguments)
}

/// Tables that stand for a flag of every command that has it: `[columns]` with `prompt = 'question'` is
/// `--columns prompt=question`.
const TABLES: [&str; 2] = ["columns", "labels"];

fn append_entry(arguments: &mut Vec<OsString>, flag: &str, key: &str, value: &Value) -> anyhow::Result<()> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Array(items) => {
            return items.iter().try_for_each(|item| append_entry(arguments, flag, key, item));
        }
        other => bail!("[{flag}]: `{key}` is {other}, expected a text or a number"),
    };
    arguments.push(format!("--{flag}={key}={text}").into());
    Ok(())
}

fn is_typed(typed: &[OsString], long: &str, short: Option<char>) -> bool {
    typed.iter().filter_map(|a| a.to_str()).any(|argument| match argument.strip_prefix("--") {
        Some(name) => name.split('=').next() == Some(long),
        None => short.is_some_and(|s| argument.strip_prefix('-').is_some_and(|rest| rest.starts_with(s))),
    })
}

/// Appends one setting as a flag.
fn append(arguments: &mut Vec<OsString>, key: &str, value: &Value) -> anyhow::Result<()> {
    let text = match value {
        Value::Boolean(true) => {
            arguments.push(format!("--{key}").into());
            return Ok(());
        }
        Value::Boolean(false) => return Ok(()),
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Array(items) => return items.iter().try_for_each(|item| append(arguments, key, item)),
        Value::Datetime(_) | Value::Table(_) => bail!("`{key}` is {value}, expected a number, a text, true or false"),
    };
    arguments.push(format!("--{key}={text}").into());
    Ok(())
}

/// The settings of a command as `kudos.toml` would hold them.
pub fn describe(matches: &ArgMatches) -> String {
    let Some((name, matches)) = matches.subcommand() else { return String::new() };
    let mut text = format!("[{name}]\n");
    for id in matches.ids().map(clap::Id::as_str).filter(|id| *id != "print_settings") {
        let Ok(Some(values)) = matches.try_get_raw(id) else { continue };
        let values: Vec<_> = values.map(|v| v.to_string_lossy().into_owned()).collect();
        let origin = match matches.value_source(id) {
            Some(ValueSource::DefaultValue) => "  # default",
            _ => "",
        };
        let _ = writeln!(text, "{} = {}{origin}", id.replace('_', "-"), toml_value(&values));
    }
    text
}

fn toml_value(values: &[String]) -> String {
    let one = |text: &String| match text.parse::<f64>() {
        Ok(_) => text.clone(),
        Err(_) if text == "true" || text == "false" => text.clone(),
        Err(_) => Value::String(text.clone()).to_string(),
    };
    match values {
        [value] => one(value),
        values => format!("[{}]", values.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgAction};

    fn cli() -> Command {
        let flag = |name: &'static str| Arg::new(name).long(name);
        let train = Command::new("train").arg(flag("base")).arg(flag("seed")).arg(flag("output").short('o'));
        let quiet = flag("quiet").global(true).action(ArgAction::SetTrue);
        Command::new("kudos").subcommand(train).subcommand(Command::new("eval")).arg(quiet)
    }

    fn merged(typed: &[&str], text: &str) -> Result<Vec<String>, String> {
        let typed = typed.iter().map(OsString::from).collect();
        let arguments = merge(&cli(), typed, text).map_err(|e| e.to_string())?;
        Ok(arguments.into_iter().map(|a| a.into_string().unwrap()).collect())
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let text = "quiet = true\n[train]\nbase = 'b'\nseed = 7\noutput = 'j'\n[eval]\n";
        let arguments = merged(&["kudos", "train", "--seed=1", "-oX"], text).unwrap();
        assert_eq!(arguments, ["kudos", "train", "--seed=1", "-oX", "--base=b", "--quiet"]);
        assert_eq!(merged(&["kudos", "eval"], text).unwrap(), ["kudos", "eval", "--quiet"]);
    }

    #[test]
    fn the_settings_of_a_command_are_not_those_of_its_parts() {
        let rank = Command::new("rank").arg(Arg::new("port").long("port")).arg(Arg::new("data"));
        let cli = cli().subcommand(rank.subcommand(Command::new("export")));
        let merged =
            |typed: &[&str]| merge(&cli, typed.iter().map(OsString::from).collect(), "[rank]\nport = 1").unwrap();
        assert_eq!(merged(&["kudos", "rank", "a.csv"]).last().unwrap(), "--port=1");
        assert_eq!(merged(&["kudos", "rank", "export"]), ["kudos", "rank", "export"]);
    }

    #[test]
    fn a_named_file_comes_after_flags_and_before_the_file_of_the_directory() {
        let serve =
            Command::new("serve").args(["config", "port", "host", "judge"].map(|name| Arg::new(name).long(name)));
        let cli = cli().subcommand(serve);
        let typed: Vec<OsString> = ["kudos", "serve", "--config", "s.toml", "--port=1"].map(OsString::from).into();
        assert_eq!(named_file(&cli, &typed), Some(("serve", "s.toml".into())));
        assert_eq!(named_file(&cli, &["kudos", "train", "--config=x"].map(OsString::from)), None);
        for text in
            ["port = 2\nhost = 'h'\njudge = ['a=x', 'b']", "[serve]\nport = 2\nhost = 'h'\njudge = ['a=x', 'b']"]
        {
            let arguments = merge(&cli, typed.clone(), &of_command(text, "serve").unwrap()).unwrap();
            let arguments = merge(&cli, arguments, "[serve]\nhost = 'other'").unwrap();
            assert_eq!(
                arguments[4..],
                ["--port=1", "--host=h", "--judge=a=x", "--judge=b"].map(OsString::from),
                "{text}"
            );
        }
        assert!(merge(&cli, typed, &of_command("prot = 2", "serve").unwrap()).is_err());
    }

    #[test]
    fn unknown_keys_are_errors() {
        let cases =
            [("[train]\nbas = 'b'", "`bas` is not a flag"), ("seed = 1", "put it under"), ("[x]", "[x] is not")];
        for (text, expected) in cases {
            let error = merged(&["kudos", "train"], text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
