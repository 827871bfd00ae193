//! How long one short pair takes, encoding and scoring alone: what `bench/python/run.py` compares a call from Python with.
//!
//! `one_pair JUDGE ROUNDS`, on one thread; prints the median in seconds.

use kudos::data::Content;
use kudos::models::Scorer;
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [judge, rounds] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "expected JUDGE ROUNDS")?;
    kernels::parallel::set_threads(1)?;
    let mut judge = Scorer::load(&PathBuf::from(judge), None)?;
    let (prompt, response) = (Content::Text("Why?".into()), Content::Text("Because.".into()));
    let mut seconds = Vec::new();
    for _ in 0..rounds.parse::<usize>()? + 1 {
        let start = Instant::now();
        judge.score(&[(Some(&prompt), &response)])?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.remove(0); // It takes the memory.
    seconds.sort_by(f64::total_cmp);
    println!("{}", seconds[seconds.len() / 2]);
    Ok(())
}
