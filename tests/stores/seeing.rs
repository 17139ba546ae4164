//! What can be seen of a mount on a remote store.

use super::exposition::Samples;
use super::load::Load;
use super::scratch::{Scratch, words};

const FILES: usize = 12;
const BYTES: usize = 300_000;

/// A mount whose local state was wiped after so many files were written.
fn cold() -> (Scratch, Load) {
    let mut scratch = Scratch::mounted(1, &[]);
    let mut load = Load::new(&scratch.mnt.join("load"), 1);
    load.fill(FILES, BYTES);
    scratch.umount();
    scratch.wipe();
    scratch.mount(&[]);
    (scratch, load)
}

fn metrics(scratch: &Scratch) -> Samples {
    Samples::read(&scratch.skylog(&["metrics", words(&scratch.mnt)]).succeeds())
}

#[test]
fn status_and_metrics_show_requests_failures_and_hits() {
    let (mut scratch, mut load) = cold();
    load.verify().expect("the store is there");
    let requests = scratch.status()["store_requests"].clone();
    let of = |name: &str| requests[name].as_u64().unwrap_or_else(|| panic!("{name} in {requests}"));
    let seen = scratch.counts();
    assert!(of("get") > 0 && of("received_bytes") as usize > FILES * BYTES, "{requests}");
    assert_eq!(of("total"), ["get", "head", "list", "put", "post", "delete"].map(of).iter().sum::<u64>());
    assert!(of("get") <= seen.of("GET", "") && of("failures") == 0 && requests["last_failure"].is_null(), "{requests}");
    let samples = metrics(&scratch);
    let gets = samples.of("skylog_store_requests_total{method=\"get\"}");
    assert!(gets >= of("get") as f64 && samples.of("skylog_store_request_seconds_count{method=\"get\"}") > 0.0);
    assert!(samples.of("skylog_reader_fetches_total") > 0.0);
    assert_eq!(samples.of("skylog_store_away"), 0.0);

    scratch.umount();
    scratch.mount(&[]);
    load.verify().expect("it is in the cache files");
    let status = scratch.status();
    assert!(status["cache"]["hits"].as_u64() > Some(0) && status["cache_hit_percent"].as_u64() > Some(0), "{status}");
    assert!(status["reading"].is_object() && metrics(&scratch).of("skylog_cache_hits_total") > 0.0, "{status}");

    scratch.plan("refuse=1000");
    std::fs::write(scratch.mnt.join("more"), vec![1; 10_000]).expect("it is mounted");
    let failed = loop {
        let status = scratch.status();
        if status["store_requests"]["failures"].as_u64() > Some(0) && status["store_state"] != "ok" {
            break status;
        }
    };
    let requests = &failed["store_requests"];
    assert!(requests["last_failure"].as_str().is_some_and(|last| last.starts_with("connect: ")), "{requests}");
    assert!(requests["last_failure_age_s"].is_u64(), "{requests}");
    let lines = scratch.skylog(&["status", words(&scratch.mnt)]).succeeds();
    assert!(lines.contains("store requests:\n") && lines.contains("  last failure age s: "), "{lines}");
    let samples = metrics(&scratch);
    assert!(samples.of("skylog_store_failures_total{reason=\"connect\"}") > 0.0);
    scratch.plan("");
}
