//! What trainers of language models post to a remote reward model: OpenRLHF's `/get_reward`, slime's `/reward` and
//! LLaMA-Factory's `/v1/score/evaluation`. Scores are raw.

use super::form::*;
use super::json::{self, Fields};
use crate::ask::{Answer, Ask, Cut, Item, ItemFault, Refusal};
use serde_json::{Map, Value, json};

/// `POST /get_reward`. A trainer with several servers sends empty lists to some of them, which are answered with empty
/// lists. Where `prompts` are given, each `query` must begin with its own: what follows is the response.
pub fn get_reward(incoming: &Incoming) -> Result<Asked, Reply> {
    worded(json::object(incoming.body).and_then(|body| get_reward_fields(incoming, &body)), plain)
}

fn get_reward_fields(incoming: &Incoming, body: &Map<String, Value>) -> Result<Asked, Refusal> {
    let queries = body.list("query", "a list of texts")?;
    let prompts = body.field("prompts").map(|_| body.list("prompts", "a list of texts")).transpose()?;
    let prompts = prompts.filter(|prompts| !prompts.is_empty());
    if let Some(prompts) = prompts.filter(|prompts| prompts.len() != queries.len()) {
        let (queries, prompts) = (queries.len(), prompts.len());
        return Err(Refusal::malformed(format!(
            "`query` has {queries} texts and `prompts` {prompts}; expected as many"
        )));
    }
    let one = |(at, query): (usize, &Value)| split(at, query, prompts.map(|prompts| &prompts[at]));
    let items = queries.iter().enumerate().map(one).collect::<Result<_, _>>()?;
    let ask = Ask { judge: incoming.judge(None), items };
    Ok(Asked { ask, answer: Box::new(rewards), fault: plain })
}

/// The prompt and the response of a query.
fn split(at: usize, query: &Value, prompt: Option<&Value>) -> Result<Result<Item, ItemFault>, Refusal> {
    let whole = text(query, || format!("query[{at}]"))?;
    let Some(prompt) = prompt else { return Ok(item(None, whole, Cut::AsTrained)) };
    let start = text(prompt, || format!("prompts[{at}]"))?;
    // Decoding what was encoded may drop white space at the start, and nothing else.
    let (query, begin) = (query.as_str().unwrap_or_default(), prompt.as_str().unwrap_or_default());
    let rest = query.strip_prefix(begin).or_else(|| query.trim_start().strip_prefix(begin.trim_start()));
    let Some(response) = rest else {
        return Err(Refusal::malformed(format!(
            "`query[{at}]` does not begin with `prompts[{at}]`, so its response cannot be found; \
             send queries without `prompts` to have them scored as whole transcripts"
        )));
    };
    Ok(item(Some(start), text(&json!(response), || format!("query[{at}]"))?, Cut::AsTrained))
}

fn rewards(answer: &Answer) -> Result<Reply, Fault> {
    let scored = scores(answer)?;
    let rewards: Vec<Value> = scored.iter().map(|item| number(item.rated.scored.score)).collect();
    let tokens: Vec<usize> = scored.iter().map(|item| item.rated.scored.tokens).collect();
    let truncated: Vec<u8> = scored.iter().map(|item| u8::from(item.rated.scored.truncated)).collect();
    let logs = json!({ "reward_tokens": tokens, "reward_truncated": truncated });
    Ok(Reply::ok(json!({ "rewards": rewards, "scores": rewards, "extra_logs": logs })))
}

/// `POST /reward`: one sample, whose answer is a bare number; `?key=NAME` gives an object with the number at that name.
pub fn reward(incoming: &Incoming) -> Result<Asked, Reply> {
    worded(json::object(incoming.body).and_then(|body| reward_fields(incoming, &body)), plain)
}

fn reward_fields(incoming: &Incoming, body: &Map<String, Value>) -> Result<Asked, Refusal> {
    let prompt = body.field("prompt").map(|prompt| content(prompt, || "prompt".into())).transpose()?;
    let expected = "a text or a list of {role, content} messages";
    let response = content(body.needed("response", expected)?, || "response".into())?;
    let ask = Ask { judge: incoming.judge(None), items: vec![item(prompt, response, Cut::AsTrained)] };
    let key = incoming.parameter("key").filter(|key| !key.is_empty());
    let answer = move |answer: &Answer| {
        let scored = scores(answer)?.first().map(|item| item.rated.scored).ok_or_else(|| Fault::empty("no sample"))?;
        let Some(key) = key else { return Ok(Reply::ok(number(scored.score))) };
        let mut body = json!({ "tokens": scored.tokens, "truncated": scored.truncated });
        body[key] = number(scored.score);
        Ok(Reply::ok(body))
    };
    Ok(Asked { ask, answer: Box::new(answer), fault: plain })
}

/// `POST /v1/score/evaluation`: each of the `messages` is a whole transcript.
pub fn evaluation(incoming: &Incoming) -> Result<Asked, Reply> {
    worded(json::object(incoming.body).and_then(|body| evaluation_fields(incoming, &body)), detailed)
}

fn evaluation_fields(incoming: &Incoming, body: &Map<String, Value>) -> Result<Asked, Refusal> {
    let judge = incoming.judge(body.text("model")?);
    if let Some(limit) = body.whole("max_length")? {
        limit_of("max_length", Some(limit), incoming.facts(judge.as_deref())?)?;
    }
    let messages = body.list("messages", "a list of texts")?;
    let read = |(at, one): (usize, &Value)| text(one, || format!("messages[{at}]"));
    let transcript = |one| read(one).map(|text| item(None, text, Cut::AsTrained));
    let items: Vec<_> = messages.iter().enumerate().map(transcript).collect::<Result<_, _>>()?;
    if items.is_empty() {
        return Err(Refusal::malformed("`messages` is empty"));
    }
    let id = format!("scoreval-{}", incoming.id);
    let answer = move |answer: &Answer| {
        let scores: Vec<Value> = scores(answer)?.iter().map(|item| number(item.rated.scored.score)).collect();
        let name = &answer.judge.name;
        Ok(Reply::ok(json!({ "id": id, "object": "score.evaluation", "model": name, "scores": scores })))
    };
    Ok(Asked { ask: Ask { judge, items }, answer: Box::new(answer), fault: detailed })
}

/// An error of OpenRLHF's and slime's routes, whose clients read the status alone. Both try again after any error.
pub fn plain(fault: &Fault) -> Reply {
    Reply::error(fault.status, json!({ "error": fault.message }), fault)
}

/// An error of LLaMA-Factory's route.
pub fn detailed(fault: &Fault) -> Reply {
    Reply::error(fault.status, json!({ "detail": fault.message }), fault)
}
