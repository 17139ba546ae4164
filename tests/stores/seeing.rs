//! What can be seen of a mount on a remote store.

use super::exposition::Samples;
use super::load::Load;
use super::scratch::{Scratch, words};
use std::fs;
use std::path::{Path, PathBuf};

const FILES: usize = 12;
const BYTES: usize = 300_000;

/// A mount whose local state was wiped after so many files were written.
fn cold() -> (Scratch, Load) {
    let mut scratch = Scratch::mounted(1, &[]);
    let mut load = Load::new(&scratch.mnt.join("load"), 1);
    load.fill(FILES, BYTES);
    scratch.umount();
    scratch.wipe();
    scratch.mount(&["--read-timeout", "1"]);
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
    fs::write(scratch.mnt.join("more"), vec![1; 10_000]).expect("it is mounted");
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

/// Drops the copies of what lies there until there are none: what was on its way may have come after the first time.
fn evict(scratch: &Scratch, path: &Path) -> String {
    loop {
        let said = scratch.skylog(&["evict", words(&scratch.mnt), words(path)]).succeeds();
        if said.contains(": 0 bytes") {
            return said;
        }
    }
}

#[test]
fn what_was_warmed_is_read_without_the_store_and_what_was_evicted_is_not() {
    let (scratch, mut load) = cold();
    let (mnt, folder) = (words(&scratch.mnt), scratch.mnt.join("load"));
    let all = FILES * BYTES;
    let said = scratch.skylog(&["warm", mnt, words(&folder)]).succeeds();
    assert!(
        said.starts_with(&format!("{FILES} files: {all} bytes (")) && said.contains(" 0 bytes (0 bytes) were"),
        "{said}"
    );
    let said = scratch.skylog(&["warm", mnt, words(&folder)]).succeeds();
    assert!(said.contains(": 0 bytes (0 bytes) fetched") && said.contains(&format!(" {all} bytes (")), "{said}");
    scratch.plan("refuse=1000");
    assert_eq!(load.verify(), Ok(FILES));
    let files: Vec<PathBuf> = fs::read_dir(&folder).expect("it is here").map(|e| e.expect("it is").path()).collect();
    for file in &files {
        assert_eq!(fs::read(file).expect("it is here").len(), BYTES, "and the kernel keeps it");
    }

    let late = scratch.mnt.join("late");
    fs::write(&late, vec![5; 50_000]).expect("the journal takes it");
    let said = evict(&scratch, &late);
    assert!(said.starts_with("1 file: ") && said.contains("50000 bytes stay: only the journal has them"), "{said}");
    assert!(fs::read(&late).expect("it is in the journal") == vec![5; 50_000]);

    let first = scratch.skylog(&["evict", mnt, words(&folder)]).succeeds();
    assert!(first.starts_with(&format!("{FILES} files: ")) && !first.contains(": 0 bytes"), "{first}");
    evict(&scratch, &folder);
    for file in &files[..2] {
        let error = fs::read(file).map(|data| data.len()).expect_err("only the store has it");
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }
    let said = scratch.skylog(&["warm", mnt, words(&folder)]).fails();
    assert!(said.contains("store") && said.contains("run it again"), "{said}");
    scratch.plan("");
    scratch.skylog(&["sync", mnt]).succeeds();
    while scratch.status()["store_state"] != "ok" {}
    assert_eq!(load.verify(), Ok(FILES));
}
