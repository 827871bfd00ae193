//! Whole requests through tokenisers, queue and batches, with a scorer that follows a rule.

use super::*;
use crate::ask::Cut;
use crate::testing::{Bytes, Random, Sums, ask, expected, facts};
use std::time::{Duration, Instant};

fn service(change: impl FnOnce(&mut Settings), scorer: Sums) -> Arc<Service> {
    let mut settings =
        Settings { max_batch_tokens: 100, tokenise_time: Duration::from_secs(20), ..Settings::default() };
    change(&mut settings);
    let service = Service::new(settings);
    service.install(facts("a"), Arc::new(Bytes::default()), Box::new(scorer));
    service
}

fn scores(answer: &Answer) -> Vec<Option<f32>> {
    answer.items.iter().map(|item| item.as_ref().ok().map(|item| item.rated.scored.score)).collect()
}

fn faults(answer: &Answer) -> Vec<Option<FaultKind>> {
    answer.items.iter().map(|item| item.as_ref().err().map(|fault| fault.kind)).collect()
}

/// Nothing is left of any request.
fn is_idle(service: &Service) -> bool {
    let lanes = service.lanes.read().unwrap();
    lanes.iter().all(|lane| lane.load() == Load::default()) && service.in_flight() == 0
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn each_item_has_its_result_in_its_place() {
    let service = service(|_| {}, Sums::default());
    let invalid = Err(ItemFault::new(FaultKind::Invalid, "no response"));
    let mut asked = ask(&["one", "!refuse", "three", "!panic", "", "X six", "N seven"]);
    asked.items.insert(0, invalid);
    let answer = service.score(asked).await.unwrap();
    let kinds = [
        Some(FaultKind::Invalid),
        None,
        Some(FaultKind::Tokenise),
        None,
        Some(FaultKind::Panicked),
        Some(FaultKind::Tokenise),
        Some(FaultKind::Panicked),
        Some(FaultKind::NotFinite),
    ];
    assert_eq!(faults(&answer), kinds);
    assert_eq!((scores(&answer)[1], scores(&answer)[3]), (Some(expected("one")), Some(expected("three"))));
    assert!(is_idle(&service));
}

#[tokio::test]
async fn a_request_without_items_is_answered_at_once() {
    let service = service(|_| {}, Sums::default());
    assert!(service.score(ask(&[])).await.unwrap().items.is_empty());
    let only_faults = Ask { judge: None, items: vec![Err(ItemFault::new(FaultKind::Invalid, "x"))] };
    assert_eq!(faults(&service.score(only_faults).await.unwrap()), [Some(FaultKind::Invalid)]);
}

#[tokio::test]
async fn one_poisoned_text_among_many_costs_itself_alone() {
    let service = service(|settings| settings.max_batch_tokens = 4096, Sums::default());
    for place in [0, 1, 31, 62, 63] {
        let texts: Vec<String> = (0..64).map(|i| if i == place { "X".into() } else { format!("text {i}") }).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let answer = service.score(ask(&texts)).await.unwrap();
        for (i, item) in answer.items.iter().enumerate() {
            match item {
                Ok(item) => assert_eq!(item.rated.scored.score, expected(texts[i])),
                Err(fault) => assert_eq!((i, fault.kind), (place, FaultKind::Panicked)),
            }
        }
        assert_eq!(answer.items.iter().filter(|item| item.is_err()).count(), 1);
    }
}

#[tokio::test]
async fn texts_beyond_the_token_limit_are_cut_or_refused_as_asked() {
    let service = service(|_| {}, Sums::default());
    let long = "x".repeat(100);
    let mut asked = ask(&[&long, &long, "short"]);
    for item in asked.items.iter_mut().skip(1) {
        item.as_mut().unwrap().cut = Cut::Refuse;
    }
    let answer = service.score(asked).await.unwrap();
    assert_eq!(faults(&answer), [None, Some(FaultKind::TooLong), None]);
    let first = answer.items[0].as_ref().unwrap();
    assert!(first.rated.scored.truncated && first.rated.scored.tokens == 64 && first.characters == 100);
    let message = &answer.items[1].as_ref().unwrap_err().message;
    assert!(message.contains("100 tokens") && message.contains("at most 64"), "{message}");
}

#[tokio::test]
async fn limits_hold_at_their_edge_and_not_before() {
    let limits = |settings: &mut Settings| {
        (settings.max_items, settings.max_item_characters, settings.max_request_characters) = (3, 10, 20);
    };
    let service = service(limits, Sums::default());
    let ten = "é".repeat(10);
    assert_eq!(faults(&service.score(ask(&[&ten, &ten])).await.unwrap()), [None, None]);
    let refusal = service.score(ask(&[&ten, &ten, "x"])).await.unwrap_err();
    assert_eq!(refusal, Refusal::TooLarge { unit: "characters", found: 21, limit: 20 });
    let refusal = service.score(ask(&["a", "b", "c", "d"])).await.unwrap_err();
    assert_eq!(refusal, Refusal::TooManyItems { found: 4, limit: 3 });
    let eleven = "é".repeat(11);
    assert_eq!(faults(&service.score(ask(&[&eleven, "x"])).await.unwrap()), [Some(FaultKind::Characters), None]);
    // A prompt counts for each response to it.
    let prompt = Some(Arc::new(Content::Text("12345678".into())));
    let mut asked = ask(&["a", "b", "c"]);
    asked.items.iter_mut().flatten().for_each(|item| item.prompt = prompt.clone());
    assert!(matches!(service.score(asked).await, Err(Refusal::TooLarge { found: 27, .. })));
}

#[tokio::test]
async fn judges_are_found_by_name_and_reloaded_without_a_break() {
    let service = service(|_| {}, Sums::default());
    service.install(facts("b"), Arc::new(Bytes::default()), Box::new(Sums::default()));
    let named = |judge: &str| Ask { judge: Some(judge.into()), ..ask(&["x"]) };
    assert_eq!(service.score(ask(&["x"])).await.unwrap().judge.name, "a");
    assert_eq!(service.score(named("b")).await.unwrap().judge.name, "b");
    let known = vec!["a".to_owned(), "b".to_owned()];
    let refusal = service.score(named("c")).await.unwrap_err();
    assert_eq!(refusal, Refusal::NoSuchJudge { asked: "c".into(), known });
    // Requests that are on their way when the judge is replaced are answered by the one that took them.
    let slow = Sums { time: Duration::from_millis(40), ..Sums::default() };
    service.install(facts("a"), Arc::new(Bytes::default()), Box::new(slow));
    let running: Vec<_> = (0..20)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { service.score(ask(&["x", "y", "z"])).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let anew = JudgeFacts { sha256: "11".repeat(32), ..facts("a") };
    service.install(anew, Arc::new(Bytes::default()), Box::new(Sums::default()));
    for answer in running {
        assert_eq!(scores(&answer.await.unwrap().unwrap()), ["x", "y", "z"].map(|text| Some(expected(text))));
    }
    assert_eq!(service.score(ask(&["x"])).await.unwrap().judge.sha256, "11".repeat(32));
    assert_eq!(service.judges().len(), 2);
}

#[tokio::test]
async fn a_full_queue_refuses_all_of_a_request_and_says_when_to_come_back() {
    let slow = Sums { time: Duration::from_millis(50), ..Sums::default() };
    let service = service(|settings| settings.queue_tokens = 400, slow);
    let text = "x".repeat(60);
    let running: Vec<_> = (0..40)
        .map(|_| {
            let (service, text) = (service.clone(), text.clone());
            tokio::spawn(async move { service.score(ask(&[&text, &text])).await })
        })
        .collect();
    let (mut served, mut refused) = (0, 0);
    for answer in running {
        match answer.await.unwrap() {
            Ok(answer) => {
                assert_eq!(scores(&answer), [Some(expected(&text)); 2]);
                served += 1;
            }
            Err(Refusal::Overloaded { retry_after }) => {
                assert!(retry_after > Duration::ZERO && retry_after < Duration::from_secs(10), "{retry_after:?}");
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(served >= 3 && refused >= 10, "{served} served, {refused} refused");
    assert!(is_idle(&service));
    assert!(service.score(ask(&[&text])).await.is_ok());
}

#[tokio::test]
async fn more_requests_than_connections_allow_are_refused_though_the_queue_has_room() {
    let slow = Sums { time: Duration::from_millis(100), ..Sums::default() };
    let service = service(|settings| (settings.connections, settings.queue_tokens) = (8, 1_000_000), slow);
    let ask_one = |_| {
        let service = service.clone();
        tokio::spawn(async move { service.score(ask(&["some text"])).await })
    };
    let running: Vec<_> = (0..20).map(ask_one).collect();
    let (mut served, mut refused) = (0, 0);
    for answer in running {
        match answer.await.unwrap() {
            Ok(_) => served += 1,
            Err(Refusal::Overloaded { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((served, refused), (6, 14), "three quarters of 8 are served");
    assert!(is_idle(&service));
    assert!(service.score(ask(&["some text"])).await.is_ok());
}

#[tokio::test]
async fn a_request_larger_than_the_queue_is_split_and_served_while_small_ones_pass() {
    let slow = Sums { time: Duration::from_millis(2), ..Sums::default() };
    let service = service(|settings| (settings.queue_tokens, settings.queue_items) = (1000, 100), slow);
    let texts: Vec<String> = (0..2000).map(|i| format!("a text of some length, number {i}")).collect();
    let large = {
        let (service, texts) = (service.clone(), texts.clone());
        tokio::spawn(async move { service.score(ask(&texts.iter().map(String::as_str).collect::<Vec<_>>())).await })
    };
    eventually("the large request is in", || service.in_flight() == 1 && !is_idle(&service)).await;
    for _ in 0..5 {
        service.score(ask(&["small"])).await.unwrap();
    }
    assert!(!large.is_finished(), "the large request has more than 600 batches of 2 ms");
    let answer = large.await.unwrap().unwrap();
    assert_eq!(scores(&answer), texts.iter().map(|text| Some(expected(text))).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place() {
    let slow = Sums { time: Duration::from_millis(30), ..Sums::default() };
    let service = service(|settings| settings.queue_tokens = 1_000_000, slow);
    let texts = vec!["some text of some length"; 2000];
    let leaving: Vec<_> = (0..8)
        .map(|_| {
            let (service, texts) = (service.clone(), texts.clone());
            tokio::spawn(async move { service.score(ask(&texts)).await })
        })
        .collect();
    eventually("all are in", || service.in_flight() == 8).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    leaving.iter().for_each(|task| task.abort());
    // 16,000 texts would take more than two minutes.
    eventually("nothing is left", || is_idle(&service)).await;
    let start = Instant::now();
    service.score(ask(&["x"])).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(service.metrics_page().matches("kudos_dropped_requests_total{judge=\"a\"} 8").count(), 1);
}

#[tokio::test]
#[allow(clippy::await_holding_lock, reason = "the tokenisers wait for it on threads of their own")]
async fn a_text_that_never_ends_costs_itself_and_its_thread_is_replaced() {
    let lock = Arc::new(std::sync::RwLock::new(()));
    let tokeniser = Bytes { slow: lock.clone() };
    let service = Service::new(Settings { tokenise_time: Duration::from_millis(300), ..Settings::default() });
    service.install(facts("a"), Arc::new(tokeniser), Box::new(Sums::default()));
    let held = lock.write().unwrap_or_else(PoisonError::into_inner);
    let running: Vec<_> = (0..4)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { service.score(ask(&["before", "!slow", "after", "last"])).await })
        })
        .collect();
    for answer in running {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(faults(&answer), [None, Some(FaultKind::TimedOut), None, None]);
        assert_eq!(scores(&answer)[2], Some(expected("after")));
    }
    // More than may be stuck: further texts wait until one of those comes back, and are then answered.
    let many: Vec<_> = (0..12)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { service.score(ask(&["!slow"])).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    drop(held);
    for answer in many {
        assert!(matches!(faults(&answer.await.unwrap().unwrap())[..], [None | Some(FaultKind::TimedOut)]));
    }
    assert_eq!(scores(&service.score(ask(&["!slow"])).await.unwrap()), [Some(expected("!slow"))]);
    assert!(is_idle(&service));
}

#[tokio::test]
async fn no_request_is_taken_before_a_judge_is_there_or_when_the_server_ends() {
    let service = Service::new(Settings::default());
    assert_eq!(service.score(ask(&["x"])).await.unwrap_err(), Refusal::NotReady);
    assert!(!service.is_ready());
    service.install(facts("a"), Arc::new(Bytes::default()), Box::new(Sums::default()));
    assert!(service.is_ready());
    service.drain();
    assert!(!service.is_ready());
    assert_eq!(service.score(ask(&["x"])).await.unwrap_err(), Refusal::Draining);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_get_the_scores_of_their_own_texts() {
    let service = service(|settings| settings.queue_tokens = 1_000_000, Sums::default());
    let clients: Vec<_> = (0..32)
        .map(|seed| {
            let service = service.clone();
            tokio::spawn(async move {
                let mut random = Random::new(seed);
                for _ in 0..20 {
                    let length = 1 + random.below(20);
                    let texts: Vec<String> =
                        (0..length).map(|_| format!("{seed} {}", "y".repeat(random.below(70)))).collect();
                    let answer =
                        service.score(ask(&texts.iter().map(String::as_str).collect::<Vec<_>>())).await.unwrap();
                    assert_eq!(scores(&answer), texts.iter().map(|text| Some(expected(text))).collect::<Vec<_>>());
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert!(is_idle(&service));
}

/// Writes its name down for each batch.
struct Named {
    name: &'static str,
    batches: Arc<std::sync::Mutex<Vec<&'static str>>>,
    sums: Sums,
}

impl Scorer for Named {
    fn run(&mut self, texts: &[&kudos::text::Encoded]) -> Vec<Result<kudos::models::Rated, ItemFault>> {
        self.batches.lock().unwrap().push(self.name);
        self.sums.run(texts)
    }
}

#[tokio::test]
async fn judges_take_turns_on_the_processor() {
    let service = Service::new(Settings { max_batch_tokens: 1, ..Settings::default() });
    let batches = Arc::default();
    for name in ["a", "b"] {
        let sums = Sums { time: Duration::from_millis(5), ..Sums::default() };
        let scorer = Named { name, batches: Arc::clone(&batches), sums };
        service.install(facts(name), Arc::new(Bytes::default()), Box::new(scorer));
    }
    let to = |judge: &str, texts: usize| {
        let asked = Ask { judge: Some(judge.into()), ..ask(&vec!["x"; texts]) };
        let service = service.clone();
        tokio::spawn(async move { service.score(asked).await })
    };
    let (large, small) = (to("a", 100), to("b", 20));
    small.await.unwrap().unwrap();
    large.await.unwrap().unwrap();
    let batches = batches.lock().unwrap();
    let place = |number: usize| batches.iter().enumerate().filter(|(_, name)| **name == "b").nth(number).unwrap().0;
    // From the first batch of the small one to its last, the other had as many.
    assert!(place(19) - place(0) <= 2 * 20, "{batches:?}");
}
