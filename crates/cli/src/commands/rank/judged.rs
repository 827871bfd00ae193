//! What a judge says of the responses, for the order of the queue alone: nobody who ranks sees it.

use super::super::{Global, load_judge};
use crate::boxed;
use crate::display::Progress;
use crate::interrupt;
use kudos::data::Content;
use kudos::models::{Input, JudgeError, Scorer};
use rank::informative::Features;
use rank::{Order, ResponseId, Store};
use std::collections::HashMap;

/// Responses that are read between two looks at Ctrl-C.
const CHUNK: usize = 256;

/// Lets the judge read all responses, where the order asks for that.
pub fn prepare(store: &Store, order: Order, judge: Option<&str>, global: &Global) -> anyhow::Result<()> {
    match (order, judge) {
        (Order::Judge, Some(judge)) => {
            let (responses, scores) = read(store, judge, "responses scored", global, |judge, inputs| {
                Ok(judge.score(inputs)?.iter().map(|scored| scored.score).collect())
            })?;
            let scores: HashMap<_, _> = responses.into_iter().zip(scores.into_iter().map(f64::from)).collect();
            Ok(store.set_judge_scores(&scores)?)
        }
        (Order::Informative, judge) => {
            let judge = judge.unwrap_or(boxed::NAME);
            let (responses, rows) = read(store, judge, "responses read", global, Scorer::features)?;
            let width = rows.len() / responses.len().max(1);
            Ok(store.set_features(&Features { width, responses, rows })?)
        }
        _ => Ok(()),
    }
}

/// What the judge makes of each response, end to end.
fn read(
    store: &Store,
    judge: &str,
    what: &'static str,
    global: &Global,
    mut make: impl FnMut(&mut Scorer, &[Input]) -> Result<Vec<f32>, JudgeError>,
) -> anyhow::Result<(Vec<ResponseId>, Vec<f32>)> {
    let mut judge = load_judge(judge, None)?;
    let contents = store.contents()?;
    let each: Vec<(Option<&Content>, &rank::Shown)> =
        contents.iter().flat_map(|(_, prompt, shown)| shown.iter().map(|one| (prompt.as_ref(), one))).collect();
    let mut progress = Progress::new(Some(each.len() as u64), what, global.quiet);
    let (mut responses, mut made) = (Vec::with_capacity(each.len()), Vec::new());
    for chunk in each.chunks(CHUNK) {
        let inputs: Vec<Input> = chunk.iter().map(|(prompt, shown)| (*prompt, &shown.content)).collect();
        made.extend(make(&mut judge, &inputs)?);
        responses.extend(chunk.iter().map(|(_, shown)| shown.response));
        interrupt::check()?;
        progress.set(responses.len() as u64, "");
    }
    progress.finish();
    Ok((responses, made))
}
