//! The fault proxy of `tests/stores` as a program, for scripts and by hand.
//!
//! `s3_proxy --upstream 127.0.0.1:9000 [--listen 127.0.0.1:0] [--seed N] [NAME=NUMBER…]`; the words are those of `set` below.
//! The first line printed is the address it listens on. Then it takes a command a line and answers with a line, until its
//! standard input ends:
//!
//! - `counts`: requests, bytes and faults since the start, as JSON;
//! - `set latency-ms=50 503=100 flip=20`: what happens from now on; a fault takes the thousandths of requests that meet it;
//!   `set refuse=1000` and nobody listens; `set` alone and nothing happens;
//! - `settle`: waits until the store has got what `late` held back.

#[path = "../tests/stores/proxy/mod.rs"]
mod proxy;

use proxy::{Counts, Plan, Proxy};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::process::exit;

fn main() {
    let mut listen: SocketAddr = ([127, 0, 0, 1], 0).into();
    let (mut upstream, mut seed, mut plan) = (None, 1, String::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--listen" => listen = value(&word, words.next()),
            "--upstream" => upstream = Some(value(&word, words.next())),
            "--seed" => seed = value(&word, words.next()),
            _ => plan = format!("{plan} {word}"),
        }
    }
    let plan: Plan = plan.parse().unwrap_or_else(|why: String| fail(&why));
    let upstream = upstream.unwrap_or_else(|| fail("--upstream ADDRESS is needed"));
    let proxy =
        Proxy::start(listen, upstream, seed).unwrap_or_else(|e| fail(&format!("cannot listen on {listen}: {e}")));
    proxy.set(plan);
    say(&proxy.address().to_string());
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        say(&command(&proxy, &line));
    }
}

/// Does what a line asks; the answer.
fn command(proxy: &Proxy, line: &str) -> String {
    let (verb, words) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    match verb {
        "counts" => return json(&proxy.counts()),
        "settle" => proxy.settle(),
        "set" => match words.parse() {
            Ok(plan) => proxy.set(plan),
            Err(why) => return format!("error: {why}"),
        },
        _ => return format!("error: {line:?} is no command"),
    }
    "ok".into()
}

fn json(counts: &Counts) -> String {
    let answers: BTreeMap<_, _> = counts.answers.iter().map(|(status, n)| (status.to_string(), *n)).collect();
    serde_json::json!({
        "requests": counts.requests,
        "all": counts.of("", ""),
        "PUT": counts.of("PUT", ""),
        "GET": counts.of("GET", ""),
        "answers": answers,
        "injected": counts.injected,
        "faults": counts.faults(),
        "bytes_up": counts.bytes_up,
        "bytes_down": counts.bytes_down,
    })
    .to_string()
}

fn value<T: std::str::FromStr>(name: &str, text: Option<String>) -> T {
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| fail(&format!("{name} needs a value")))
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap_or_else(|e| fail(&format!("standard output: {e}")));
}

fn fail(why: &str) -> ! {
    eprintln!("s3_proxy: {why}");
    exit(2)
}
