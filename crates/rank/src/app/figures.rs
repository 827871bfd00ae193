//! What the results page asks: figures, the rankings of one item, and the training.

use super::App;
use super::error::Refusal;
use super::routes::{Answer, Known, with_store};
use crate::{ItemId, Store, StoreError, Vote};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use kudos::data::Content;
use rusqlite::OptionalExtension;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// `GET /api/results`
pub async fn results(State(app): State<Arc<App>>, _: Known) -> Answer {
    with_store(&app, |store, app| {
        let overlap = app.settings.queue.overlap;
        let results = store.results(&crate::results::ResultSettings { overlap, ..Default::default() })?;
        let mut answer = json!(results);
        answer["overlap"] = json!(overlap);
        Ok(Json(answer))
    })
    .await
}

/// `GET /api/items/ITEM`: its texts in the order of the file, and what each person said of them.
pub async fn item(State(app): State<Arc<App>>, _: Known, Path(item): Path<i64>) -> Answer {
    let found = with_store(&app, move |store, _| ranked_item(store, item)).await?;
    found.map(Json).ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "there is no such prompt in this database"))
}

fn ranked_item(store: &Store, item: i64) -> Result<Option<Value>, StoreError> {
    let texts = store.query(|connection| {
        let prompt = "SELECT prompt FROM item WHERE item = ?1";
        let prompt: Option<Option<String>> = connection.query_row(prompt, [item], |row| row.get(0)).optional()?;
        let mut responses = connection.prepare("SELECT content FROM response WHERE item = ?1 ORDER BY place")?;
        let responses: Vec<String> = responses.query_map([item], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(prompt.map(|prompt| (prompt, responses)))
    })?;
    let Some((prompt, responses)) = texts else { return Ok(None) };
    let names: HashMap<_, _> = store.annotators()?.into_iter().collect();
    let votes = store.standing()?;
    let ranked: Vec<Value> = votes
        .iter()
        .filter(|vote| vote.item == ItemId(item) && vote.skipped.is_none())
        .map(|vote| ranking(vote, names.get(&vote.annotator).map_or("", String::as_str)))
        .collect();
    let responses: Vec<Content> = responses.iter().map(|text| content(text)).collect();
    Ok(Some(json!({ "prompt": prompt.as_deref().map(content), "responses": responses, "rankings": ranked })))
}

/// JSON that the store wrote itself.
fn content(text: &str) -> Content {
    serde_json::from_str(text).unwrap_or_else(|_| Content::Text(text.to_owned()))
}

fn ranking(vote: &Vote, name: &str) -> Value {
    json!({ "name": name, "ranks": vote.ranks, "repeat": vote.repeat, "comment": vote.comment, "flags": vote.flags })
}

/// From which byte of the output on.
#[derive(Deserialize)]
pub struct From {
    #[serde(default)]
    from: usize,
}

/// `GET /api/train`: the command, and the output of the training that runs or ran last.
pub async fn training(State(app): State<Arc<App>>, _: Known, Query(From { from }): Query<From>) -> Answer {
    Ok(Json(json!(app.training.standing(from))))
}

/// `POST /api/train`: starts it, on this machine alone.
pub async fn start_training(State(app): State<Arc<App>>, _: Known) -> Answer {
    check_may_train(&app)?;
    let fault =
        |error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the training cannot be started: {error}"));
    app.training.start().map_err(fault)?;
    Ok(Json(json!(app.training.standing(0))))
}

/// `DELETE /api/train`: ends it.
pub async fn stop_training(State(app): State<Arc<App>>, _: Known) -> Answer {
    check_may_train(&app)?;
    app.training.stop();
    Ok(Json(json!(app.training.standing(0))))
}

fn check_may_train(app: &App) -> Result<(), Refusal> {
    let elsewhere = "training is started on the server's own machine: type the command there";
    if app.settings.is_local() { Ok(()) } else { Err(Refusal::new(StatusCode::FORBIDDEN, elsewhere)) }
}
