//! A remote store against a small server of our own that answers as told.

use super::env::Env;
use super::limits::{Limits, Way};
use super::refusal::Trouble;
use super::server::{Asked, BUCKET, Fault, Server};
use super::wire::Wire;
use super::*;
use crate::base::clock::{Clock, SimClock, SystemClock};
use crate::base::random::OsRandom;
use crate::store::{Created, FailureKind, RequestKind, Store, StoreError, StoreFigures, probe_create};
use bytes::Bytes;
use futures_util::FutureExt;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

const DENIED: Fault = Fault::Status(403, "<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>");
const BUSY: Fault = Fault::Status(503, "<Error><Code>SlowDown</Code><Message>Please.</Message></Error>");

/// Short enough for tests, and long enough for a slow machine to answer within.
const SOON: Duration = Duration::from_secs(1);

fn env(words: &[(&str, &str)]) -> Env {
    Env::new(words.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn keys() -> Env {
    env(&[("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")])
}

fn place() -> RemotePlace {
    RemotePlace::parse("s3", &format!("{BUCKET}/some/prefix")).expect("a place")
}

fn at(endpoint: &str) -> RemoteOptions {
    RemoteOptions { endpoint: Some(endpoint.into()), ..RemoteOptions::default() }
}

fn open(options: &RemoteOptions) -> RemoteStore {
    RemoteStore::open_in(&place(), options, &keys(), Arc::new(SystemClock::new())).expect("opens")
}

/// A server and a store there.
pub fn served() -> (Server, RemoteStore) {
    let server = Server::start();
    let store = open(&at(server.url()));
    (server, store)
}

/// The same where nothing may last.
fn served_soon() -> (Server, RemoteStore) {
    let server = Server::start();
    let store = open(&RemoteOptions { request_timeout: SOON, ..at(server.url()) });
    (server, store)
}

fn figures(store: &RemoteStore) -> StoreFigures {
    store.counters().expect("a remote store counts").figures()
}

fn many(len: usize) -> Bytes {
    (0..len).map(|n| (n % 251) as u8).collect::<Vec<_>>().into()
}

fn words(result: Result<impl std::fmt::Debug, StoreError>) -> String {
    let words = result.expect_err("refused").to_string();
    assert!(!words.contains('\n') && !words.contains("secret"), "{words}");
    words
}

#[test]
fn a_busy_store_is_asked_again_and_each_request_counts() {
    let (server, store) = served();
    store.put("a", many(10)).expect("put");
    server.fail(&[BUSY, BUSY]);
    assert_eq!(store.get("a").expect("in the end"), many(10));
    let figures = figures(&store);
    assert_eq!((figures.of(RequestKind::Get).begun, figures.of(RequestKind::Put).begun), (3, 1));
    assert_eq!((figures.retries, figures.failed(FailureKind::Busy)), (2, 2));
    assert_eq!(figures.of(RequestKind::Get).latency.count(), 3);
    assert_eq!((figures.bytes_up, figures.bytes_down >= 10), (10, true));
    assert_eq!(figures.last_failure.expect("one").words, "get: 503 SlowDown Please");
}

#[test]
fn a_store_that_stays_busy_is_away() {
    let (server, store) = served_soon();
    server.fail(&[BUSY; 20]);
    let refused = store.put("a", many(10));
    assert!(matches!(refused, Err(StoreError::Away { .. })), "{refused:?}");
    assert!(words(refused).ends_with("no answer: the store answers 503 SlowDown Please"));
}

#[test]
fn a_store_that_denies_is_asked_once_and_says_so_in_one_sentence() {
    let (server, store) = served();
    for _ in 0..2 {
        server.fail(&[DENIED]);
        let refused = store.get("a");
        assert!(matches!(refused, Err(StoreError::Failed { .. })), "{refused:?}");
        let expected =
            "store: get a: access denied to bucket bucket (403 AccessDenied Access Denied); check the credentials";
        assert_eq!(words(refused), expected);
    }
    assert_eq!((server.asked().len(), figures(&store).failed(FailureKind::Refused)), (2, 2));
}

#[test]
fn what_a_store_refuses_is_one_sentence_with_what_to_do() {
    let (server, store) = served();
    for (status, body, expected) in [
        (404, "<Error><Code>NoSuchBucket</Code></Error>", "there is no bucket bucket; make it, or correct the name"),
        (400, "<Error><Code>EntityTooLarge</Code><Message>Too big.</Message></Error>", "400 EntityTooLarge Too big"),
        (403, "<Error><Code>RequestTimeTooSkewed</Code></Error>", "set this machine's clock"),
        (301, "<Error><Code>PermanentRedirect</Code></Error>", "correct the region or the endpoint"),
    ] {
        server.fail(&[Fault::Status(status, body)]);
        let refused = words(store.put("a", many(1)));
        assert!(refused.starts_with("store: put a: ") && refused.ends_with(expected), "{refused}");
    }
    let missing = "<Error><Code>Unknown</Code></Error>";
    server.fail(&[Fault::Status(404, missing)]);
    assert!(words(store.list("gen")).ends_with("there is no bucket bucket; make it, or correct the name"));
    server.fail(&[Fault::Status(404, missing)]);
    assert!(words(store.put("a", many(1))).ends_with("the store lost the upload (Unknown)"));
    for (status, code) in [(400, "RequestTimeout"), (425, "TooEarly")] {
        let body = if status == 400 { "<Error><Code>RequestTimeout</Code></Error>" } else { "" };
        server.fail(&[Fault::Status(status, body)]);
        assert!(store.put("a", many(1)).expect_err(code).is_away(), "{code}");
    }
    let (server, soon) = served_soon();
    server.fail(&[Fault::Status(507, ""); 20]);
    assert!(matches!(soon.put("a", many(1)), Err(StoreError::Full { .. })));
}

#[test]
fn a_server_that_accepts_and_never_answers_is_away_and_nobody_hangs() {
    let (server, store) = served_soon();
    server.fail(&[Fault::Silence; 20]);
    for refused in [store.get("a").map(drop), store.put("a", many(3)), store.create("a", many(3)).map(drop)] {
        assert!(matches!(refused, Err(StoreError::Away { .. })), "{refused:?}");
        assert!(words(refused).contains("nothing moved for"));
    }
    assert!(figures(&store).failed(FailureKind::Timeout) >= 3);
}

#[test]
fn who_stands_in_a_call_when_the_store_is_abandoned_is_let_go() {
    let (server, store) = served();
    let store = Arc::new(store);
    server.fail(&[Fault::Silence]);
    let (tell, told) = channel();
    let held = store.clone();
    thread::spawn(move || tell.send(held.get("a")));
    while server.asked().is_empty() {
        thread::yield_now();
    }
    store.abandon();
    let let_go = told.recv_timeout(Duration::from_secs(20)).expect("let go long before the deadline of the call");
    assert!(words(let_go).contains("the mount ends"));
    assert!(store.put("b", many(10)).expect_err("nor is it asked again").is_away());
    assert!(server.asked().is_empty());
}

#[test]
fn a_refused_connection_is_away() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let store = open(&RemoteOptions { request_timeout: SOON, ..at(&format!("http://127.0.0.1:{port}")) });
    let refused = store.get("a");
    assert!(matches!(refused, Err(StoreError::Away { .. })), "{refused:?}");
    assert!(words(refused).contains("no connection to 127.0.0.1: Connection refused"));
    let figures = figures(&store);
    assert_eq!(figures.failed(FailureKind::Connect), figures.requests_begun());
    assert_eq!(figures.retries + 1, figures.requests_begun());
}

#[test]
fn a_body_that_was_cut_is_fetched_to_its_end() {
    let (server, store) = served();
    let object = many(1 << 20);
    store.put("a", object.clone()).expect("put");
    server.fail(&[Fault::Cut, Fault::Cut]);
    assert_eq!(store.get_range("a", 1000..900_000).expect("in the end"), object.slice(1000..900_000));
    let figures = figures(&store);
    assert_eq!((figures.retries, figures.failed(FailureKind::Cut)), (2, 2));
}

#[test]
fn fewer_bytes_than_promised_are_an_error() {
    let (server, store) = served();
    store.put("a", many(1000)).expect("put");
    server.fail(&[Fault::Short]);
    let refused = store.get_some("a", 100..200);
    assert!(words(refused).ends_with("100 bytes were promised, and 50 came"));
}

#[test]
fn a_create_whose_answer_was_lost_finds_its_own_object() {
    let (server, store) = served();
    server.fail(&[Fault::AnswerLost]);
    assert_eq!(store.create("gen/1", many(5)).expect("an answer"), Created::Exists);
    assert_eq!(store.get("gen/1").expect("there"), many(5));
    assert_eq!(figures(&store).retries, 1);
    server.fail(&[Fault::AnswerLost]);
    probe_create(&store, &OsRandom).expect("the probe knows its own object");
}

#[test]
fn two_creates_at_once_are_no_object_until_there_is_one() {
    const CONFLICT: Fault = Fault::Status(409, "<Error><Code>ConditionalRequestConflict</Code></Error>");
    let (server, store) = served();
    server.fail(&[CONFLICT]);
    assert_eq!(store.create("gen/1", many(5)).expect("an answer"), Created::New);
    server.fail(&[CONFLICT]);
    assert_eq!(store.create("gen/1", many(6)).expect("an answer"), Created::Exists);
    assert_eq!(store.get("gen/1").expect("there"), many(5));
    server.fail(&[CONFLICT, Fault::None, CONFLICT, Fault::None, CONFLICT, Fault::None, CONFLICT]);
    assert!(matches!(store.create("gen/2", many(5)), Err(StoreError::Away { .. })));
}

#[test]
fn promise_x4_a_store_that_ignores_conditions_is_refused_with_a_clear_sentence() {
    let (server, store) = served();
    server.ignore_conditions();
    let refused = probe_create(&store, &OsRandom).expect_err("refused");
    assert_eq!(refused, "the store does not refuse to create an object twice; it cannot keep writers apart");
    assert_eq!(store.list("").expect("listed"), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn a_large_object_goes_up_in_parts_and_comes_back_whole() {
    let (server, store) = served();
    let object = many((16 << 20) + 1);
    store.put("seg/1", object.clone()).expect("put");
    assert!(server.object("some/prefix/seg/1").is_some_and(|there| there == object));
    let figures = figures(&store);
    assert_eq!((figures.of(RequestKind::Put).begun, figures.of(RequestKind::Post).begun, figures.retries), (3, 2, 0));
    let one_less = object.slice(1..);
    store.put("seg/2", one_less.clone()).expect("put");
    assert!(server.object("some/prefix/seg/2").is_some_and(|there| there == one_less));
    assert_eq!(server.asked().last().expect("asked").method, "PUT", "as one");
}

#[test]
fn an_upload_that_fails_takes_its_parts_back() {
    let (server, store) = served();
    server.fail(&[Fault::None, Fault::None, DENIED]);
    let refused = store.put("seg/1", many((16 << 20) + 1));
    assert!(words(refused).contains("access denied to bucket bucket"));
    // Not the last, maybe: a part that nobody waits for any more may come after it.
    let is_abort = |asked: &Asked| asked.method == "DELETE" && asked.target.contains("uploadId=");
    assert!(server.asked().iter().any(is_abort));
    assert_eq!(server.object("some/prefix/seg/1"), None);
}

#[test]
fn bytes_both_ways_go_at_their_pace() {
    let server = Server::start();
    let clock = Arc::new(SimClock::default());
    clock.advance(Duration::from_secs(10));
    let limited = |up: Option<u64>, down: Option<u64>| RemoteOptions {
        upload_bytes_per_second: up.and_then(NonZeroU64::new),
        download_bytes_per_second: down.and_then(NonZeroU64::new),
        ..at(server.url())
    };
    // By a clock that stands still: what went beyond a burst is owed, and is still to be seen.
    let rate = Some(64 << 20);
    for (options, is_limited) in [(limited(rate, None), [true, false]), (limited(None, rate), [false, true])] {
        let store = RemoteStore::open_in(&place(), &options, &keys(), clock.clone()).expect("opens");
        let object = many(8 << 20);
        store.put("a", object.clone()).expect("put");
        assert_eq!(store.get("a").expect("there"), object);
        // Each piece's time was rounded down.
        let owed = store.paces().map(|pace| (pace.take(0) + Duration::from_micros(1)).as_millis());
        assert_eq!(owed, is_limited.map(|is_limited| if is_limited { 25 } else { 0 }));
    }
}

#[test]
fn no_more_requests_run_at_once_than_may() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let two = NonZeroUsize::new(2).expect("not zero");
    let options =
        RemoteOptions { uploads: two, request_timeout: Duration::from_millis(50), ..RemoteOptions::default() };
    let wire = Wire::new(clock, &options, None);
    let limits = Limits::new(&options, &wire);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let never = || Box::pin(limits.run(Way::Up, 0, std::future::pending::<Result<(), object_store::Error>>()));
        let (mut first, mut second) = (never(), never());
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        let at_once = || limits.run(Way::Up, 0, async { Ok(()) });
        assert!(at_once().now_or_never().is_none(), "the third waits for its turn");
        assert!(limits.run(Way::Down, 0, async { Ok(()) }).now_or_never().is_some(), "the other way is free");
        // Nobody ends, and nothing moves.
        assert!(matches!(at_once().await, Err(Trouble::Queue(_))));
        drop(first);
        assert!(at_once().now_or_never().is_some());
        assert!(matches!(second.await, Err(Trouble::Deadline(_))));
    });
}

#[test]
fn a_walk_asks_for_a_page_when_the_one_before_was_seen() {
    let (_server, store) = served();
    for n in 0..50 {
        store.put(&format!("seg/{n}"), many(1)).expect("put");
    }
    let mut seen = 0;
    let mut walk = |most: usize| {
        let before = figures(&store).of(RequestKind::List).begun;
        seen = 0;
        let each = &mut |_: &str| {
            seen += 1;
            if seen < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        store.walk("seg", each).expect("walked");
        (seen, figures(&store).of(RequestKind::List).begun - before)
    };
    assert_eq!(walk(usize::MAX), (50, 8), "seven names a page");
    let (seen, pages) = walk(3);
    assert!(seen == 3 && pages <= 2, "{pages} pages");
}

/// What the server sees of the keys, the region and the token of a store's first request.
fn asked_with(options: RemoteOptions, words: &[(&str, &str)]) -> (String, Option<String>) {
    let server = Server::start();
    let options = RemoteOptions { endpoint: options.endpoint.or(Some(server.url().into())), ..options };
    let store = RemoteStore::open_in(&place(), &options, &env(words), Arc::new(SystemClock::new())).expect("opens");
    assert!(matches!(store.size("a"), Err(StoreError::NotFound { .. })));
    let asked: Asked = server.asked().pop().expect("asked");
    let signed = asked.header("authorization").expect("signed").to_owned();
    let scope: Vec<&str> = signed.split(['=', '/']).collect();
    (format!("{} {}", scope[1], scope[3]), asked.header("x-amz-security-token").map(str::to_owned))
}

#[test]
fn keys_come_from_the_environment_before_the_profile_unless_the_user_names_one() {
    let root = tempfile::tempdir().expect("a folder for the test");
    let file = root.path().join("credentials");
    let text = "[default]\naws_access_key_id=file\naws_secret_access_key=s\nregion=file-1\n\
                [work]\naws_access_key_id=work\naws_secret_access_key=s\naws_session_token=t\n";
    std::fs::write(&file, text).expect("written");
    let file = ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().expect("plain"));
    let keys = [("AWS_ACCESS_KEY_ID", "env"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_SESSION_TOKEN", "e")];
    let none = RemoteOptions::default;
    let work = || RemoteOptions { profile: Some("work".into()), ..none() };
    let token = |token: &str| Some(token.to_owned());

    assert_eq!(asked_with(none(), &[file]), ("file file-1".into(), None));
    assert_eq!(asked_with(none(), &[file, keys[0], keys[1]]), ("env file-1".into(), None));
    assert_eq!(asked_with(none(), &keys), ("env us-east-1".into(), token("e")));
    assert_eq!(asked_with(none(), &[keys[0], keys[1], ("AWS_DEFAULT_REGION", "r-1")]), ("env r-1".into(), None));
    assert_eq!(asked_with(none(), &[file, ("AWS_PROFILE", "work")]), ("work us-east-1".into(), token("t")));
    let all = [file, keys[0], keys[1], keys[2]];
    assert_eq!(asked_with(work(), &all), ("work us-east-1".into(), token("t")));
    let region = RemoteOptions { region: Some("said-1".into()), ..work() };
    assert_eq!(asked_with(region, &[file, ("AWS_REGION", "env-1")]), ("work said-1".into(), token("t")));
}

#[test]
fn an_endpoint_comes_from_the_user_before_the_environment() {
    let server = Server::start();
    let nowhere = "http://127.0.0.1:1";
    for (options, words) in [
        (at(server.url()), vec![("AWS_ENDPOINT_URL_S3", nowhere), ("AWS_ENDPOINT_URL", nowhere)]),
        (RemoteOptions::default(), vec![("AWS_ENDPOINT_URL_S3", server.url()), ("AWS_ENDPOINT_URL", nowhere)]),
        (RemoteOptions::default(), vec![("AWS_ENDPOINT_URL", server.url())]),
        (RemoteOptions::default(), vec![("AWS_ENDPOINT", server.url())]),
    ] {
        let words = [words, vec![("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")]].concat();
        let clock = Arc::new(SystemClock::new());
        let store = RemoteStore::open_in(&place(), &options, &env(&words), clock).expect("opens");
        assert!(matches!(store.get("a"), Err(StoreError::NotFound { .. })));
        assert_eq!(server.asked().pop().expect("asked").target, "/bucket/some/prefix/a");
    }
}

#[test]
fn google_and_azure_are_asked_in_their_own_way() {
    let google = [("GOOGLE_BEARER_TOKEN", "token")];
    let azure = [("AZURE_STORAGE_ACCOUNT_NAME", "me"), ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")];
    for (scheme, words, condition) in
        [("gs", &google[..], ("x-goog-if-generation-match", "0")), ("az", &azure[..], ("if-none-match", "*"))]
    {
        let server = Server::start();
        let place = RemotePlace::parse(scheme, "bucket/some/prefix").expect("a place");
        let clock = Arc::new(SystemClock::new());
        let store = RemoteStore::open_in(&place, &at(server.url()), &env(words), clock).expect("opens");
        assert_eq!(store.create("a", many(5)).expect("created"), Created::New);
        let asked = server.asked().pop().expect("asked");
        assert_eq!((asked.method.as_str(), server.object("some/prefix/a")), ("PUT", Some(many(5))));
        assert_eq!(asked.header(condition.0), Some(condition.1));
        assert_eq!(store.get_some("a", 3..9).expect("there"), many(5).slice(3..));
        assert!(matches!(store.get("b"), Err(StoreError::NotFound { .. })));
    }
}

#[test]
fn settings_that_do_not_fit_are_refused_in_one_sentence() {
    let hosted = Some(Addressing::VirtualHosted);
    for (options, expected) in [
        (at("127.0.0.1:9000"), "the endpoint \"127.0.0.1:9000\" is no http:// or https:// URL"),
        (RemoteOptions { addressing: hosted, ..at("http://127.0.0.1:9000") }, "leave out virtual-hosted"),
        (RemoteOptions { profile: Some("x".into()), ..at("http://h") }, "there is no profile x in the AWS files"),
    ] {
        let refused = RemoteStore::open_in(&place(), &options, &keys(), Arc::new(SimClock::default())).err();
        let refused = refused.expect("refused").to_string();
        assert!(refused.contains(expected) && !refused.contains('\n'), "{refused}");
    }
}
