//! `kudos rank results`: the figures of a database, in words or as JSON.

use super::super::Global;
use super::export::Merge;
use rank::Store;
use rank::agreement::Estimate;
use rank::results::{Person, ResultSettings, Results};
use std::path::PathBuf;

/// Print how far people agree, what may have steered them, and what they disagree on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos rank results answers.rankings.db
  kudos rank results answers.rankings.db --overlap 2 --json > results.json

Figures in brackets: 95 of 100 samples of as many prompts lie between them.")]
pub struct Args {
    /// The database of `kudos rank`
    #[arg(value_name = "DATABASE")]
    database: PathBuf,
    /// Rankings that each prompt should have
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    overlap: u16,
    #[command(flatten)]
    merge: Merge,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Disputed prompts that are printed.
const DISPUTED: usize = 5;
/// Characters of a prompt in a line.
const WIDTH: usize = 50;

/// Runs the command.
pub fn run(args: &Args, _: &Global) -> anyhow::Result<()> {
    let store = Store::read(&args.database)?;
    let overlap = args.overlap.into();
    let results =
        store.results(&ResultSettings { overlap, merge: args.merge.settings(), ..ResultSettings::default() })?;
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&results)?);
    } else {
        print(&results);
    }
    Ok(())
}

fn print(results: &Results) {
    let Results { items, ranked_items, complete, rankings, skips, withdrawn, repeats, .. } = results;
    outln!("{rankings} rankings of {ranked_items} of {items} prompts; {complete} have as many as they should");
    outln!("{skips} skipped, {withdrawn} withdrawn, {repeats} repeats");
    people(&results.people);
    outln!();
    let agreement = &results.agreement;
    const ALONE: &str = "no two people ranked the same prompt yet";
    const NONE: &str = "no response was preferred to another yet";
    line("Krippendorff's alpha", agreement.alpha, "1 perfect, 0 chance", ALONE);
    line("Kendall's W", agreement.kendall_w, "1 perfect, 0 none", ALONE);
    line("pairwise agreement", agreement.pairwise, "share of pairs on which two say the same", ALONE);
    line("shown earlier wins", results.bias.earlier, "0.5 without bias", NONE);
    line("longer wins", results.bias.longer, "share of preferences", NONE);
    if let Some([low, median, high]) = results.seconds {
        outln!("{:<22} {median:.0} s  [{low:.0}, {high:.0}]  half of all rankings lie between", "time a ranking");
    }
    if let Some(review) = &results.review {
        let (items, stand, turned, open) = (review.items, review.stand, review.turned, review.open);
        outln!("{:<22} {stand} of {items} stand, {turned} are turned round, {open} are open", "labels of the file");
    }
    disputed(results);
    outln!("\n{}", results.merging);
}

fn people(people: &[Person]) {
    for person in people.iter().filter(|person| person.rankings + person.skips > 0) {
        let mut said = vec![format!("{} rankings", person.rankings)];
        said.extend(person.seconds.map(|seconds| format!("{seconds:.0} s each")));
        said.extend(person.agreement.map(|share| format!("{:.0} % agreement with the others", 100.0 * share)));
        said.extend(person.consistency.map(|own| format!("{:.0} % with themselves", 100.0 * own.value)));
        outln!("  {}: {}", person.name, said.join(", "));
    }
}

fn line(name: &str, estimate: Option<Estimate>, meaning: &str, without: &str) {
    match estimate {
        None => outln!("{name:<22} -      {without}"),
        Some(Estimate { value, ci95: None, .. }) => outln!("{name:<22} {value:.2}   ({meaning})"),
        Some(Estimate { value, ci95: Some([low, high]), .. }) => {
            outln!("{name:<22} {value:.2}  [{low:.2}, {high:.2}]  {meaning}");
        }
    }
}

fn disputed(results: &Results) {
    if results.disputed.is_empty() {
        return;
    }
    outln!("\nMost disputed:");
    for item in results.disputed.iter().take(DISPUTED) {
        let prompt: String = item.prompt.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WIDTH).collect();
        outln!("  {:>3.0} % agreement of {} people: {prompt}", 100.0 * item.agreement, item.people);
    }
}
