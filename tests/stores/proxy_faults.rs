//! What each fault of the proxy looks like from both sides.

use super::proxy::{Plan, Proxy};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

/// What the server of this test answers.
const BODY: [u8; 1000] = [b'x'; 1000];

/// A server that says what it was asked, and gives [`BODY`] in chunks.
fn server() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, questions) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let asked = asked.clone();
            std::thread::spawn(move || answer(stream, |question| drop(asked.send(question))));
        }
    });
    (address, questions)
}

fn answer(stream: TcpStream, tell: impl Fn(String)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut head, mut length) = (String::new(), 0);
        while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
        if head.is_empty() {
            return;
        }
        for line in head.lines() {
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        tell(format!("{head}{length} bytes"));
        let chunks = [&BODY[..300], &BODY[300..]]
            .map(|part| format!("{:x}\r\n{}\r\n", part.len(), String::from_utf8_lossy(part)));
        write!(&stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}{}0\r\n\r\n", chunks[0], chunks[1])
            .unwrap();
    }
}

/// What a client sees that sends one request with a body of 1000 bytes: the answer as it came, and how the connection ended.
fn ask(proxy: &Proxy, method: &str) -> (String, std::io::Result<()>) {
    let stream = match TcpStream::connect(proxy.address()) {
        Ok(stream) => stream,
        Err(e) => return (String::new(), Err(e)),
    };
    let head = format!(
        "{method} /bucket/seg/1 HTTP/1.1\r\nif-none-match: *\r\nconnection: close\r\ncontent-length: 1000\r\n\r\n"
    );
    let mut request = head.into_bytes();
    request.extend_from_slice(&BODY);
    // A connection that is reset may say so while the request is sent; the answer tells the same.
    (&stream).write_all(&request).ok();
    let (mut answer, mut ended) = (Vec::new(), Ok(()));
    let mut part = [0; 4096];
    loop {
        match (&stream).read(&mut part) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&part[..n]),
            Err(e) => {
                ended = Err(e);
                break;
            }
        }
    }
    (String::from_utf8_lossy(&answer).into_owned(), ended)
}

fn plan(words: &str) -> Plan {
    words.parse().unwrap()
}

/// The body of an answer and the length it announced.
fn body(answer: &str) -> (&str, usize) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    (body, length.parse().unwrap())
}

fn started() -> (Proxy, Receiver<String>) {
    let (upstream, questions) = server();
    (Proxy::start(([127, 0, 0, 1], 0).into(), upstream, 1).unwrap(), questions)
}

#[test]
fn without_faults_requests_and_answers_pass_and_are_counted() {
    let (proxy, questions) = started();
    let (answer, ended) = ask(&proxy, "PUT");
    assert_eq!(body(&answer), (std::str::from_utf8(&BODY).unwrap(), 1000));
    assert!(ended.is_ok());
    let asked = questions.recv().unwrap();
    assert!(
        asked.starts_with("PUT /bucket/seg/1") && asked.contains("if-none-match: *") && asked.ends_with("1000 bytes"),
        "{asked}"
    );
    let counts = proxy.counts();
    assert_eq!((counts.of("PUT", "seg"), counts.of("GET", ""), counts.faults()), (1, 0, 0));
    assert!(counts.bytes_up > 1000 && counts.bytes_down > 1000);

    proxy.set(plan("ignore-conditions=1"));
    ask(&proxy, "PUT").1.unwrap();
    assert!(!questions.recv().unwrap().contains("if-none-match"));
}

#[test]
fn what_never_reaches_the_store() {
    let (proxy, questions) = started();
    for (words, seen) in [("500=1000", "HTTP/1.1 500 "), ("503=1000", "HTTP/1.1 503 "), ("429=1000", "HTTP/1.1 429 ")] {
        proxy.set(plan(words));
        let (answer, _) = ask(&proxy, "GET");
        assert!(answer.starts_with(seen), "{words}: {answer}");
    }
    for words in ["refuse=999", "cut-request=1000"] {
        proxy.set(plan(words));
        let (answer, ended) = ask(&proxy, "PUT");
        assert!(answer.is_empty() && ended.is_err(), "{words}: {answer} {ended:?}");
    }
    proxy.set(plan("refuse=1000"));
    let (_, ended) = ask(&proxy, "GET");
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(proxy.counts().faults(), 5);
    assert!(questions.try_recv().is_err());
    proxy.set(plan(""));
    assert!(ask(&proxy, "GET").0.starts_with("HTTP/1.1 200"));
}

#[test]
fn answers_that_are_cut_short_or_wrong() {
    let (proxy, _questions) = started();
    let half = &std::str::from_utf8(&BODY).unwrap()[..500];
    proxy.set(plan("short=1000"));
    let (answer, ended) = ask(&proxy, "GET");
    assert_eq!((body(&answer), ended.is_ok()), ((half, 1000), true));
    proxy.set(plan("lie=1000"));
    assert_eq!(body(&ask(&proxy, "GET").0), (half, 500));
    proxy.set(plan("cut-answer=1000"));
    assert!(ask(&proxy, "GET").1.is_err());
    proxy.set(plan("flip=1000"));
    let (answer, _) = ask(&proxy, "GET");
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.bytes().filter(|byte| *byte != b'x').count(), 1);
    assert_eq!(proxy.counts().faults(), 4);
}

#[test]
fn answers_that_never_come_though_the_store_did_it_then_or_later() {
    let (proxy, questions) = started();
    proxy.set(plan("lost=1000"));
    let (answer, ended) = ask(&proxy, "PUT");
    assert!(answer.is_empty() && ended.is_err());
    assert!(questions.try_recv().unwrap().starts_with("PUT"));

    proxy.set(plan("late=1000"));
    let (answer, ended) = ask(&proxy, "PUT");
    assert!(answer.is_empty() && ended.is_err());
    assert!(questions.try_recv().is_err(), "the client heard of it before the store");
    proxy.settle();
    assert!(questions.try_recv().unwrap().starts_with("PUT"));
    assert!(ask(&proxy, "GET").0.starts_with("HTTP/1.1 200"), "what changes nothing is never late");
}
