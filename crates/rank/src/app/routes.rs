//! What each request does: who asks is found out, the store is called on a thread of its own, and the answer is JSON.

use super::App;
use super::error::Refusal;
use super::session::{HEADER, Session};
use crate::{AnnotatorId, Ballot, Order, Progress, Revealed, Store, StoreError, TaskId};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) type Answer = Result<Json<Value>, Refusal>;

/// Why a task may be skipped: what is stored, and what the page says.
const SKIP_REASONS: [(&str, &str); 5] = [
    ("unclear prompt", "The prompt is unclear"),
    ("cannot judge", "I cannot judge this"),
    ("all unusable", "All responses are unusable"),
    ("unpleasant", "I do not want to read this"),
    ("other", "Another reason"),
];

/// Whoever has a session.
pub struct Known(pub(super) Session);

impl FromRequestParts<Arc<App>> for Known {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let secret = parts.headers.get(HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let unknown = || Refusal::new(StatusCode::UNAUTHORIZED, "the session is not known; open the page again");
        app.sessions.find(secret).map(Known).ok_or_else(unknown)
    }
}

/// Whoever has a session in which to rank.
pub struct Person(AnnotatorId);

impl FromRequestParts<Arc<App>> for Person {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let Known(session) = Known::from_request_parts(parts, app).await?;
        session
            .annotator
            .map(Person)
            .ok_or_else(|| Refusal::new(StatusCode::FORBIDDEN, "say who you are before you rank"))
    }
}

/// Calls the store where it may wait for the disk.
pub(super) async fn with_store<T: Send + 'static>(
    app: &Arc<App>,
    call: impl FnOnce(&Store, &App) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Refusal> {
    let app = app.clone();
    let done = tokio::task::spawn_blocking(move || call(&app.store, &app)).await;
    let lost = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed; nothing was stored: try again");
    Ok(done.map_err(lost)??)
}

fn body<T>(posted: Result<Json<T>, JsonRejection>) -> Result<T, Refusal> {
    posted.map(|Json(body)| body).map_err(|rejection| Refusal::new(rejection.status(), rejection.body_text()))
}

/// `GET /api/about`: what those may know who have no session.
pub async fn about(State(app): State<Arc<App>>) -> Json<Value> {
    let settings = &app.settings;
    Json(json!({
        "needs_token": settings.token.is_some(),
        "suggested": settings.suggested_name,
        "review": settings.queue.order == Order::Review,
    }))
}

/// Who wants to rank.
#[derive(Deserialize)]
pub struct Asking {
    name: Option<String>,
    token: Option<String>,
}

/// `POST /api/session`: by the token of one's own link, or by a name and, where one is set, the server's token.
pub async fn open_session(State(app): State<Arc<App>>, posted: Result<Json<Asking>, JsonRejection>) -> Answer {
    let Asking { name, token } = body(posted)?;
    let found = with_store(&app, move |store, app| identify(store, app, name.as_deref(), token.as_deref())).await?;
    let Some((annotator, name)) = found else {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await; // guesses are slow
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "the token is not right; ask for the link again"));
    };
    let settings = &app.settings;
    Ok(Json(json!({
        "session": app.sessions.open(Session { annotator }),
        "annotator": name,
        "database": app.database,
        "attributes": settings.attributes,
        "flags": settings.flags,
        "review": settings.queue.order == Order::Review,
        "skip_reasons": SKIP_REASONS,
        "can_train": settings.is_local(),
    })))
}

/// A person and their name; neither for those who look at results alone.
type Whoever = (Option<AnnotatorId>, Option<String>);

/// The person and their name; `None` if the token is not right. Without a name, one may look at results.
fn identify(store: &Store, app: &App, name: Option<&str>, token: Option<&str>) -> Result<Option<Whoever>, StoreError> {
    if let Some(annotator) = token.map(|token| store.by_token(token)).transpose()?.flatten() {
        let name = store.annotators()?.into_iter().find(|(id, _)| *id == annotator).map(|(_, name)| name);
        return Ok(Some((Some(annotator), name)));
    }
    let given = token.unwrap_or_default().as_bytes();
    let is_let_in = app.settings.token.as_ref().is_none_or(|token| web::same_secret(given, token.as_bytes()));
    match name.filter(|name| !name.trim().is_empty()) {
        _ if !is_let_in => Ok(None),
        Some(name) => Ok(Some((Some(store.annotator(name)?), Some(name.trim().to_owned())))),
        None => Ok(Some((None, None))),
    }
}

/// `GET /api/task`: what to rank next; `null` when nothing waits.
pub async fn task(State(app): State<Arc<App>>, Person(annotator): Person) -> Answer {
    with_store(&app, move |store, app| {
        let more_to_come = (app.more_to_come)(); // asked first: what comes in between is then found
        let task = store.next(annotator, &app.settings.queue)?;
        let progress = store.progress(annotator, &app.settings.queue);
        let task = task.map(|task| shown(&task));
        Ok(Json(json!({ "task": task, "more_to_come": more_to_come, "progress": counts(&progress, app) })))
    })
    .await
}

/// A task as the page gets it: texts in their order, and nothing of who wrote them.
fn shown(task: &crate::Task) -> Value {
    let responses: Vec<_> = task.responses.iter().map(|shown| &shown.content).collect();
    json!({ "task": task.task, "prompt": task.prompt, "responses": responses })
}

fn counts(progress: &Progress, app: &App) -> Value {
    json!({
        "own_done": progress.mine + progress.skipped,
        "own_left": progress.left,
        "all_done": progress.rankings,
        "all_target": (progress.items * app.settings.queue.overlap).max(progress.rankings),
    })
}

/// A ballot as the page sends it; lists are in the order shown.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Posted {
    vote: String,
    task: TaskId,
    ranks: Vec<Option<u32>>,
    #[serde(default)]
    ratings: Vec<BTreeMap<String, f64>>,
    #[serde(default)]
    flags: Vec<Vec<String>>,
    #[serde(default)]
    comment: String,
    skipped: Option<String>,
    seconds: Option<f64>,
}

impl Posted {
    fn ballot(self, annotator: AnnotatorId) -> Ballot {
        let mut ratings: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
        let count = self.ratings.len();
        for (place, of_response) in self.ratings.into_iter().enumerate() {
            for (attribute, rating) in of_response {
                ratings.entry(attribute).or_insert_with(|| vec![None; count])[place] = Some(rating);
            }
        }
        let Posted { vote, task, ranks, flags, comment, skipped, seconds, .. } = self;
        let comment = Some(comment).filter(|text| !text.trim().is_empty());
        Ballot { vote, task, annotator, ranks, ratings, flags, comment, skipped, seconds }
    }
}

/// `POST /api/votes`: answered when the vote is on the disk, also if it was there already.
pub async fn submit(
    State(app): State<Arc<App>>,
    Person(annotator): Person,
    posted: Result<Json<Posted>, JsonRejection>,
) -> Answer {
    let ballot = body(posted)?.ballot(annotator);
    with_store(&app, move |store, app| {
        let receipt = store.submit(&ballot)?;
        let is_review = app.settings.queue.order == Order::Review && ballot.skipped.is_none();
        let revealed = if is_review { store.reveal(&receipt.vote, annotator)? } else { None };
        let mut answer = json!(receipt);
        answer["reveal"] = json!(revealed.as_ref().and_then(label));
        Ok(Json(answer))
    })
    .await
}

/// What the file had said: the places on the page that it holds best, and whether the vote agrees.
fn label(revealed: &Revealed) -> Option<Value> {
    let Revealed { ranks, judgements, agrees, .. } = revealed;
    let mut best: Vec<usize> = match judgements.as_slice() {
        [] => best_of(ranks),
        judgements => judgements.iter().filter(|(_, _, share)| *share != 0.5).map(preferred).collect(),
    };
    best.sort_unstable();
    best.dedup();
    let is_label = !best.is_empty() || !judgements.is_empty();
    is_label.then(|| json!({ "best": best, "agrees": agrees }))
}

fn preferred((first, second, share): &(usize, usize, f64)) -> usize {
    if *share > 0.5 { *first } else { *second }
}

fn best_of(ranks: &[Option<f64>]) -> Vec<usize> {
    let best = ranks.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    (0..ranks.len()).filter(|place| ranks[*place] == Some(best)).collect()
}

/// `DELETE /api/votes/ID`: the vote no longer stands; its task and its ballot, to be ranked again.
pub async fn withdraw(State(app): State<Arc<App>>, Person(annotator): Person, Path(vote): Path<String>) -> Answer {
    with_store(&app, move |store, app| {
        store.withdraw(&vote, annotator)?;
        let (task, ballot) = store.task_of(&vote, &app.settings.queue)?;
        let progress = store.progress(annotator, &app.settings.queue);
        let ballot = returned(&ballot, task.responses.len());
        Ok(Json(json!({ "task": shown(&task), "ballot": ballot, "progress": counts(&progress, app) })))
    })
    .await
}

/// A ballot in the form of the page's own state.
fn returned(ballot: &Ballot, count: usize) -> Value {
    let rating = |place: usize| -> BTreeMap<&String, f64> {
        ballot.ratings.iter().filter_map(|(name, values)| Some((name, (*values.get(place)?)?))).collect()
    };
    let rank = |place: usize| ballot.ranks.get(place).copied().flatten();
    let flags = |place: usize| ballot.flags.get(place).cloned().unwrap_or_default();
    json!({
        "ranks": (0..count).map(rank).collect::<Vec<_>>(),
        "ratings": (0..count).map(rating).collect::<Vec<_>>(),
        "flags": (0..count).map(flags).collect::<Vec<_>>(),
        "comment": ballot.comment.clone().unwrap_or_default(),
        "rest": ballot.skipped.is_none() && (0..count).any(|place| rank(place).is_none()),
        "seconds": ballot.seconds.unwrap_or(0.0),
    })
}

/// `GET /api/progress`
pub async fn progress(State(app): State<Arc<App>>, Known(session): Known) -> Answer {
    with_store(&app, move |store, app| {
        let annotator = session.annotator.unwrap_or(AnnotatorId(0));
        Ok(Json(counts(&store.progress(annotator, &app.settings.queue), app)))
    })
    .await
}
