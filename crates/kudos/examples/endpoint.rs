//! Draws responses from an endpoint: the whole path from a file of prompts to a file of answers.
//!
//! `endpoint URL MODEL PROMPTS N OUTPUT [chat|completions] [off|exact|near]`: interrupted, the same command goes on. The key
//! comes from `OPENAI_API_KEY`. Ends with a line of JSON about the answers.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

use kudos::generate::{
    Attempt, Distinct, Diversity, Endpoint, EndpointSettings, Event, FinishReason, Generated, Journal, MAX_RETRIES,
    PromptList, Sampling, Schedule, Task, Wanted, read_prompts, seed_of, write_output,
};
use serde_json::json;

const SAMPLING: Sampling = Sampling { repetition_penalty: 1.0, temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.0 };
const MAX_NEW_TOKENS: usize = 48;
const SEED: u64 = 42;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, model, prompts, n, output, rest @ ..] = arguments.as_slice() else {
        return Err("usage: endpoint URL MODEL PROMPTS N OUTPUT [chat|completions] [off|exact|near]".into());
    };
    let list = read_prompts(Path::new(prompts))?;
    let distinct: Distinct = serde_json::from_value(json!(rest.get(1).map_or("exact", String::as_str)))?;
    let wanted = Wanted { n: n.parse()?, distinct, max_retries: MAX_RETRIES };
    let chat = rest.first().is_none_or(|kind| kind == "chat");
    let endpoint = Endpoint::new(EndpointSettings { chat, ..EndpointSettings::new(url, model) })?;
    let settings = json!({
        "model": model, "url": url, "chat": chat, "prompts": list.sha256(), "n": wanted.n, "distinct": distinct,
        "seed": SEED, "sampling": SAMPLING, "max_new_tokens": MAX_NEW_TOKENS,
    });
    let output = Path::new(output);
    let (mut journal, finished) = Journal::open(output, &settings)?;
    eprintln!("{} prompts, {} responses are there", list.prompts.len(), finished.len());
    let mut schedule = Schedule::new(list.prompts.len(), wanted, finished);
    draw(&endpoint, &list, &mut schedule, &mut journal)?;
    let answers = schedule.answers();
    let rows = write_output(output, &list.prompts, &answers, model)?;
    let failed = answers.iter().filter(|one| one.finish_reason == FinishReason::Error).count();
    let left = schedule.repeats_left();
    println!(
        "{}",
        json!({"rows": rows, "failed": failed, "repeats_left": left, "diversity": diversity(&list, &answers)})
    );
    // What failed is tried again by the next run, which needs the rest.
    if failed == 0 { Ok(journal.finish()?) } else { Ok(()) }
}

fn draw(
    endpoint: &Endpoint,
    list: &PromptList,
    schedule: &mut Schedule,
    journal: &mut Journal,
) -> Result<(), Box<dyn Error>> {
    let task = |attempt: Attempt| {
        let (prompt, seed) = (&list.prompts[attempt.prompt], seed_of(SEED, attempt));
        Task { attempt, prompt, sampling: SAMPLING, seed, stop: &[], max_new_tokens: MAX_NEW_TOKENS }
    };
    let mut failure = None;
    let _ = endpoint.run(schedule.needed().map(task), |event| match event {
        Event::Done(one) => match journal.append(&one) {
            Ok(()) => ControlFlow::Continue(schedule.finish(one).into_iter().map(task).collect()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        },
        Event::Note(note) => {
            eprintln!("{note}");
            ControlFlow::Continue(Vec::new())
        }
        _ => ControlFlow::Continue(Vec::new()),
    });
    failure.map_or(Ok(()), |error| Err(error.into()))
}

fn diversity(list: &PromptList, answers: &[&Generated]) -> Diversity {
    let of = |prompt| {
        let texts = answers.iter().filter(|one| one.attempt.prompt == prompt && one.error.is_none());
        Diversity::of(&texts.map(|one| one.text.as_str()).collect::<Vec<_>>())
    };
    Diversity::over(&(0..list.prompts.len()).map(of).collect::<Vec<_>>())
}
