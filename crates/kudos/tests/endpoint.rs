//! Drawing responses from a real server on loopback, one that is busy, breaks down, drips, lies and redirects.
#![cfg(feature = "hub")]

mod loopback;
#[path = "endpoint/server.rs"]
mod server;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kudos::data::Content;
use kudos::generate::{
    Attempt, Distinct, Endpoint, EndpointSettings, Event, FinishReason, Generated, Journal, Prompt, Sampling, Schedule,
    Task, Wanted, seed_of, write_output,
};
use serde_json::json;
use server::{Reply, Request, Server, completion};

const SAMPLING: Sampling = Sampling { repetition_penalty: 1.0, temperature: 0.7, top_k: 0, top_p: 1.0, min_p: 0.0 };
const KEY: &str = "sk-very-secret";

/// Settings with the patience of a test.
fn settings(server: &Server) -> EndpointSettings {
    EndpointSettings {
        timeout: Duration::from_secs(5),
        first_delay: Duration::from_millis(5),
        max_retries: 2,
        ..EndpointSettings::new(&server.url(), "m")
    }
}

fn prompts(count: usize) -> Vec<Prompt> {
    let prompt = |at| Prompt { content: Content::Text(format!("ask {at}")), place: format!("p.txt:{}", at + 1) };
    (0..count).map(prompt).collect()
}

fn task(prompts: &[Prompt], attempt: Attempt) -> Task<'_> {
    let prompt = &prompts[attempt.prompt];
    Task { attempt, prompt, sampling: SAMPLING, seed: seed_of(1, attempt), stop: &[], max_new_tokens: 16 }
}

/// One response, and the notes on the way.
fn ask(settings: EndpointSettings) -> (Generated, Vec<String>) {
    let prompts = prompts(1);
    let (mut done, mut notes) = (Vec::new(), Vec::new());
    let endpoint = Endpoint::with_key(settings, Some(KEY.to_owned())).unwrap();
    let flow = endpoint.run([task(&prompts, Attempt { prompt: 0, index: 0, retry: 0 })], |event| {
        match event {
            Event::Done(one) => done.push(one),
            Event::Note(note) => notes.push(note),
            _ => {}
        }
        ControlFlow::Continue(Vec::new())
    });
    assert_eq!((flow, done.len()), (ControlFlow::Continue(()), 1));
    (done.remove(0), notes)
}

/// The error of one response, which must be none else's business.
fn error_of(settings: EndpointSettings) -> String {
    let (one, notes) = ask(settings);
    assert_eq!((one.finish_reason, one.text.as_str(), one.tokens), (FinishReason::Error, "", 0));
    let error = one.error.unwrap();
    assert!(!error.contains(KEY) && !notes.concat().contains(KEY), "{error} {notes:?}");
    error
}

#[test]
fn both_kinds_of_request() {
    let server = Server::start(|_, request| Reply::echo(request));
    let (one, _) = ask(settings(&server));
    assert_eq!((one.text, one.tokens, one.finish_reason), (format!("ask 0 {}", one.seed), 7, FinishReason::Stop));
    let raw = EndpointSettings { chat: false, ..settings(&server) };
    assert_eq!(ask(raw).0.finish_reason, FinishReason::Length);

    let requests = server.requests();
    assert_eq!((&*requests[0].path, &*requests[1].path), ("/v1/chat/completions", "/v1/completions"));
    assert_eq!(requests[0].headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(requests[0].headers["content-type"], "application/json");
    assert_eq!(requests[0].body["messages"], json!([{"role": "user", "content": "ask 0"}]));
    assert_eq!(requests[1].body["prompt"], "ask 0");
}

#[test]
fn without_a_key_none_is_sent() {
    let server = Server::start(|_, _| Reply::json(200, json!({"data": [{"id": "a"}, {"id": "b"}]})));
    let settings = EndpointSettings { key_variable: "KUDOS_TEST_NO_SUCH_KEY".into(), ..settings(&server) };
    assert_eq!(Endpoint::new(settings).unwrap().models().unwrap(), ["a", "b"]);
    assert!(!server.requests()[0].headers.contains_key("authorization"));
    assert_eq!(server.requests()[0].path, "/v1/models");
}

#[test]
fn a_server_that_breaks_down_is_asked_again() {
    for status in [408, 409, 425, 429, 500, 502, 503, 504] {
        let server = Server::start(move |at, request| match at {
            0 | 1 => Reply::json(status, json!({"error": {"message": "one moment"}})),
            _ => Reply::echo(request),
        });
        let (one, notes) = ask(settings(&server));
        assert_eq!((one.error, notes.len(), server.requests().len()), (None, 2, 3), "{status}");
        let expected = format!("HTTP status {status}: one moment; trying again in 1 s");
        assert!(notes[0].contains(&expected), "{notes:?}");
    }
}

#[test]
fn one_that_stays_broken_is_an_error_of_that_response() {
    let server = Server::start(|_, _| Reply::json(503, json!({"detail": "loading"})));
    let error = error_of(settings(&server));
    assert!(error.ends_with("/v1/chat/completions: HTTP status 503: loading (tried 3 times)"), "{error}");
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn retry_after_is_obeyed() {
    let server = Server::start(|at, request| match at {
        0 => Reply::json(429, json!({"message": "slowly"})).with("Retry-After", 1),
        1 => Reply::json(503, json!({}))
            .with("Date", "Sun, 06 Nov 1994 08:49:36 GMT")
            .with("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"),
        _ => Reply::echo(request),
    });
    assert_eq!(ask(settings(&server)).0.error, None);
    let at: Vec<Instant> = server.requests().iter().map(|request| request.at).collect();
    for pair in at.windows(2) {
        let pause = pair[1] - pair[0];
        assert!((Duration::from_millis(990)..Duration::from_secs(3)).contains(&pause), "{pause:?}");
    }
}

#[test]
fn refusals_are_final_and_in_the_servers_words() {
    let cases = [
        (401, "HTTP status 401: wrong [key]; check the key in OPENAI_API_KEY"),
        (404, "HTTP status 404: wrong [key]; check the address"),
        (400, "HTTP status 400: wrong [key]"),
        (422, "HTTP status 422: wrong [key]"),
    ];
    for (status, expected) in cases {
        let server =
            Server::start(move |_, _| Reply::json(status, json!({"error": {"message": format!("wrong {KEY}")}})));
        let error = error_of(settings(&server));
        assert!(error.contains(expected), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn a_hanging_server_times_out() {
    let server = Server::start(|_, _| Reply::Hang);
    let started = Instant::now();
    let error = error_of(EndpointSettings { timeout: Duration::from_millis(300), ..settings(&server) });
    assert!(error.contains("expected a whole answer within 0.3 s, found none (tried 3 times)"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[test]
fn a_dripping_server_times_out_in_the_body() {
    let server = Server::start(|_, request| Reply::Drip(completion(request).to_string().into_bytes()));
    let started = Instant::now();
    let patience = EndpointSettings { timeout: Duration::from_millis(300), max_retries: 0, ..settings(&server) };
    let error = error_of(patience);
    assert!(error.contains("expected a whole answer within 0.3 s, found none") && !error.contains("tried"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn a_cut_answer_is_asked_for_again() {
    for has_length in [true, false] {
        let server = Server::start(move |at, request| match at {
            0 => Reply::Half(completion(request).to_string().into_bytes(), has_length),
            1 => Reply::Close,
            _ => Reply::echo(request),
        });
        let (one, notes) = ask(settings(&server));
        assert_eq!(one.error, None);
        assert!(notes[0].contains("expected a whole answer, found its end too early"), "{notes:?}");
    }
    let server = Server::start(|_, request| Reply::Half(completion(request).to_string().into_bytes(), true));
    assert!(error_of(settings(&server)).ends_with("found its end too early (tried 3 times)"));
}

#[test]
fn nobody_there_is_an_error() {
    let server = Server::start(|_, _| Reply::Close);
    let settings = settings(&server);
    drop(server);
    let error = error_of(settings);
    assert!(
        error.to_lowercase().contains("connection refused (os error 111) (tried 3 times)")
            || cfg!(not(target_os = "linux")),
        "{error}"
    );
}

#[test]
fn what_is_no_answer_is_an_error_at_once() {
    let cases: [(Reply, &str); 4] = [
        (Reply::Answer(200, Vec::new(), b"<html>hello</html>".to_vec()), "expected JSON, found <html>hello</html>"),
        (Reply::json(200, json!({"choices": []})), "expected text in `choices[0].message.content`"),
        (Reply::json(200, json!({"error": {"message": KEY}})), "the server reports: [key]"),
        (Reply::Answer(200, Vec::new(), vec![b' '; (64 << 20) + 2]), "expected an answer of at most 64 MiB"),
    ];
    for (reply, expected) in cases {
        let server = Server::start(move |_, _| reply.clone());
        let error = error_of(settings(&server));
        assert!(error.contains(expected), "{error}\n{expected}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn a_redirect_to_another_host_does_not_carry_the_key() {
    let other = Arc::new(Server::start(|_, request| Reply::echo(request)));
    let target = other.clone();
    let server = Server::start(move |_, request| {
        let path = request.path.trim_start_matches("/v1");
        Reply::json(307, json!({})).with("Location", format!("{}{path}", target.url()))
    });
    assert_eq!(ask(settings(&server)).0.error, None);
    assert!(server.requests()[0].headers.contains_key("authorization"));
    let there: Vec<Request> = other.requests();
    assert_eq!((there.len(), there[0].headers.get("authorization")), (1, None));
    assert_eq!(there[0].body, server.requests()[0].body, "the request is the same");
}

#[test]
fn a_redirect_within_the_host_does() {
    let server = Server::start(|_, request| match request.path.strip_prefix("/v1/") {
        Some(rest) => Reply::json(308, json!({})).with("Location", format!("/api/v1/{rest}")),
        None => Reply::echo(request),
    });
    assert_eq!(ask(settings(&server)).0.error, None);
    assert!(server.requests().iter().all(|request| request.headers.contains_key("authorization")));
}

#[test]
fn redirects_that_change_the_request_or_do_not_end_are_errors() {
    let moved = Server::start(|_, _| Reply::json(301, json!({})).with("Location", "https://elsewhere.example/v1"));
    let error = error_of(settings(&moved));
    assert!(error.contains("found a redirect to https://elsewhere.example/v1 (HTTP status 301)"), "{error}");
    let circle = Server::start(|_, request| Reply::json(307, json!({})).with("Location", request.path.clone()));
    assert!(error_of(settings(&circle)).contains("more than 4 redirects"));
    let other = Server::start(|_, _| Reply::json(401, json!({"message": "who?"})));
    let there = other.url();
    let server = Server::start(move |_, _| Reply::json(307, json!({})).with("Location", there.clone()));
    let error = error_of(settings(&server));
    assert!(
        error.contains("HTTP status 401: who?; a redirect led to another server, which does not get the key"),
        "{error}"
    );
}

#[test]
fn as_many_at_a_time_as_asked() {
    let (now, most): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let (running, peak) = (now.clone(), most.clone());
    let server = Server::start(move |_, request| {
        peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        running.fetch_sub(1, Ordering::SeqCst);
        Reply::echo(request)
    });
    let prompts = prompts(12);
    let endpoint = Endpoint::with_key(EndpointSettings { concurrency: 3, ..settings(&server) }, None).unwrap();
    let work = (0..12).map(|prompt| task(&prompts, Attempt { prompt, index: 0, retry: 0 }));
    let mut texts = Vec::new();
    let _ = endpoint.run(work, |event| {
        if let Event::Done(one) = event {
            texts.push(one.text);
        }
        ControlFlow::Continue(Vec::new())
    });
    texts.sort();
    texts.dedup();
    let most = most.load(Ordering::SeqCst);
    assert!(texts.len() == 12 && (2..=3).contains(&most), "{most} at a time");
}

#[test]
fn a_break_ends_the_run_within_a_moment() {
    for reply in [Reply::Hang, Reply::json(503, json!({})).with("Retry-After", 500)] {
        let server = Server::start(move |at, request| if at == 0 { Reply::echo(request) } else { reply.clone() });
        let prompts = prompts(9);
        let endpoint = Endpoint::with_key(settings(&server), None).unwrap();
        let work = (0..9).map(|prompt| task(&prompts, Attempt { prompt, index: 0, retry: 0 }));
        let started = Instant::now();
        let flow = endpoint.run(work, |event| match event {
            Event::Waiting => ControlFlow::Break(()),
            _ => ControlFlow::Continue(Vec::new()),
        });
        assert_eq!(flow, ControlFlow::Break(()));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        // The endpoint itself is whole.
        let again = Server::start(|_, _| Reply::json(200, json!({"data": []})));
        assert!(Endpoint::with_key(settings(&again), None).unwrap().models().unwrap().is_empty());
    }
}

/// Text by seed, with few different ones, so that duplicates are drawn again.
fn few(request: &Request) -> Reply {
    let text = format!("answer {}", request.body["seed"].as_u64().unwrap() % 6);
    let choice = json!({"message": {"content": text}, "finish_reason": "stop"});
    Reply::json(200, json!({"choices": [choice], "usage": {"completion_tokens": 2}}))
}

/// A whole command: continues, draws (at most `limit` responses), writes if all is there.
fn generate(server: &Server, output: &std::path::Path, limit: usize) -> bool {
    let prompts = prompts(4);
    let (mut journal, finished) = Journal::open(output, &json!({"seed": 1})).unwrap();
    let wanted = Wanted { n: 4, distinct: Distinct::Exact, max_retries: 5 };
    let mut schedule = Schedule::new(prompts.len(), wanted, finished);
    let endpoint = Endpoint::with_key(settings(server), None).unwrap();
    let (mut count, needed) = (0, schedule.needed());
    let _ = endpoint.run(needed.map(|attempt| task(&prompts, attempt)), |event| {
        let Event::Done(one) = event else { return ControlFlow::Continue(Vec::new()) };
        if count == limit {
            return ControlFlow::Break(());
        }
        count += 1;
        journal.append(&one).unwrap();
        ControlFlow::Continue(schedule.finish(one).into_iter().map(|attempt| task(&prompts, attempt)).collect())
    });
    if !schedule.is_complete() {
        return false;
    }
    write_output(output, &prompts, &schedule.answers(), "m").unwrap();
    journal.finish().unwrap();
    true
}

#[test]
fn an_interrupted_run_gives_the_same_file() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| few(request));
    let whole = directory.path().join("whole.csv");
    assert!(generate(&server, &whole, usize::MAX));
    let expected = std::fs::read_to_string(&whole).unwrap();
    assert_eq!(expected.lines().count(), 17);
    for limit in [1, 3, 7] {
        let output = directory.path().join(format!("{limit}.csv"));
        let runs = (0..99).find(|_| generate(&server, &output, limit)).unwrap();
        assert!(runs > 0, "it was interrupted");
        assert_eq!(std::fs::read_to_string(&output).unwrap(), expected);
        assert!(!Journal::path_of(&output).exists());
    }
}

#[test]
fn what_failed_is_drawn_by_the_next_run() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("a.jsonl");
    let broken = Server::start(|at, request| if at % 3 == 1 { Reply::json(400, json!({})) } else { few(request) });
    let prompts = prompts(2);
    let wanted = Wanted { n: 2, distinct: Distinct::Off, max_retries: 0 };
    let run = |server: &Server| {
        let (mut journal, finished) = Journal::open(&output, &json!({})).unwrap();
        let mut schedule = Schedule::new(2, wanted, finished);
        let endpoint = Endpoint::with_key(EndpointSettings { concurrency: 1, ..settings(server) }, None).unwrap();
        let _ = endpoint.run(schedule.needed().map(|attempt| task(&prompts, attempt)), |event| {
            if let Event::Done(one) = event {
                journal.append(&one).unwrap();
                schedule.finish(one);
            }
            ControlFlow::Continue(Vec::new())
        });
        write_output(&output, &prompts, &schedule.answers(), "m").unwrap();
        std::fs::read_to_string(&output).unwrap()
    };
    let first = run(&broken);
    assert_eq!((first.lines().count(), first.matches("\"error\":\"http").count()), (4, 1), "{first}");
    let whole = Server::start(|_, request| few(request));
    let second = run(&whole);
    assert_eq!((second.lines().count(), second.matches("\"error\"").count()), (4, 0), "{second}");
    assert_eq!(whole.requests().len(), 1);
}
