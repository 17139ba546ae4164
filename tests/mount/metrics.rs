//! What a mount counts, as monitoring reads it: by a command, on a port, on a socket.

use super::exposition::Samples;
use super::scratch::{Scratch, skylog, words};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;

fn metrics(scratch: &Scratch) -> Samples {
    Samples::read(&skylog(&["metrics", words(&scratch.mnt)]).succeeds())
}

/// The status line and the body of an answer.
fn ask(mut stream: impl Read + Write, request: &str) -> (String, String) {
    stream.write_all(request.as_bytes()).expect("it takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer of text, and its end");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.lines().next().expect("a status").to_owned(), body.to_owned())
}

#[test]
fn requests_are_counted_and_timed_by_their_kind() {
    let scratch = Scratch::mounted();
    let mkdir = |samples: &Samples| {
        let count = samples.get("skylog_fuse_requests_total{kind=\"mkdir\"}");
        (count, samples.get("skylog_fuse_request_seconds_count{kind=\"mkdir\"}"))
    };
    assert_eq!(mkdir(&metrics(&scratch)), (None, None));
    for name in ["one", "two", "three"] {
        fs::create_dir(scratch.mnt.join(name)).expect("it is mounted");
    }
    let samples = metrics(&scratch);
    assert_eq!(mkdir(&samples), (Some(3.0), Some(3.0)));
    assert!(samples.of("skylog_fuse_request_seconds_sum{kind=\"mkdir\"}") > 0.0);
    fs::write(scratch.mnt.join("file"), vec![7; 100_000]).expect("it is mounted");
    skylog(&["sync", words(&scratch.mnt)]).succeeds();
    let samples = metrics(&scratch);
    assert_eq!(samples.of("skylog_fuse_written_bytes_total"), 100_000.0);
    assert!(samples.of("skylog_journal_sync_seconds_count") > 0.0);
    assert_eq!(samples.of("skylog_journal_sync_seconds_count"), samples.of("skylog_journal_syncs_total"));
    assert_eq!(samples.of("skylog_state{state=\"active\"}"), 1.0);
    assert_eq!(samples.of("skylog_state{state=\"fenced\"}"), 0.0);
    // A directory of this machine is asked for nothing over a wire, and has no copies.
    assert_eq!(samples.get("skylog_store_retries_total"), None);
    assert_eq!(samples.get("skylog_cache_hits_total"), None);
    let status = scratch.status();
    assert!(status["store_requests"].is_null() && status["cache_hit_percent"].is_null(), "{status}");
}

#[test]
fn a_port_serves_what_the_command_prints() {
    let mut scratch = Scratch::new();
    scratch.make();
    scratch.mount_with(&["--metrics", "0", "--cache-size", "32MiB"]);
    let address = scratch.status()["metrics"].as_str().expect("it says where").to_owned();
    let address = address.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/metrics")).expect("a URL");
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let connect = || TcpStream::connect(address).expect("it listens");
    let (status, body) = ask(connect(), "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(Samples::read(&body).of("skylog_cache_limit_bytes"), f64::from(32 << 20));
    assert_eq!(ask(connect(), "GET / HTTP/1.1\r\n\r\n").0, "HTTP/1.1 404 Not Found");
    // Who says nothing keeps the others waiting for a while only.
    let _silent = connect();
    assert_eq!(ask(connect(), "GET /metrics HTTP/1.1\r\n\r\n").0, "HTTP/1.1 200 OK");

    let mut other = Scratch::new();
    other.make();
    let taken = ["mount", "--metrics", address, other.store(), words(&other.mnt)];
    let said = skylog(&taken).fails();
    assert!(said.contains("metrics cannot be served") && said.contains(address), "{said}");
    other.mount();
}

#[test]
fn a_socket_serves_until_the_mount_is_gone() {
    let mut scratch = Scratch::new();
    scratch.make();
    let socket = scratch.root.join("metrics");
    let option = format!("metrics=unix:{}", words(&socket));
    scratch.mount_with(&["-o", &option]);
    let stream = UnixStream::connect(&socket).expect("it listens");
    let (status, body) = ask(stream, "GET /metrics HTTP/1.0\r\n\r\n");
    assert_eq!(status, "HTTP/1.1 200 OK");
    Samples::read(&body);
    scratch.umount();
    assert!(!socket.exists());
    // One that a killed daemon left is taken over.
    scratch.mount_with(&["-o", &option]);
    scratch.kill();
    assert!(socket.exists());
    Command::new("umount").arg("-l").arg(&scratch.mnt).output().expect("umount starts");
    scratch.mount_with(&["-o", &option]);
    UnixStream::connect(&socket).expect("it listens");
}

#[test]
fn an_address_that_is_none_is_refused() {
    let scratch = Scratch::new();
    let said = skylog(&["mount", "-o", "metrics=here", scratch.store(), words(&scratch.mnt)]).fails_with(2);
    assert!(said.contains("metrics=here") && said.contains("9190"), "{said}");
}
