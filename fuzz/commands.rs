//! Fuzz targets of the program: what comes over its control socket, and what stands after `-o`. They see no more of it than the
//! program's own crate does, so their tests are here, and are run with that crate's.

use crate::cli::control;
use crate::cli::mount_options::{self, MountOptions};
use crate::cli::store_arg::StoreArg;
use std::path::Path;

#[cfg(test)]
#[expect(clippy::print_stdout, reason = "a test says what it did")]
#[path = "mutate.rs"]
mod mutate;

/// A request to a daemon, or its answer.
pub fn control(data: &[u8]) -> usize {
    let mut understood = 0;
    if let Ok(ask) = control::read_request(data) {
        let again = serde_json::to_vec(&ask).expect("a request is plain data");
        assert_eq!(control::read_request(&again[..]).expect("what was read can be written"), ask);
        understood += 1;
    }
    if let Ok(say) = control::read_answer(data) {
        let again = serde_json::to_vec(&say).expect("an answer is plain data");
        assert!(control::read_answer(&again).is_ok());
        understood += 1;
    }
    understood
}

/// The lists after `-o`, a line each.
pub fn mount_options(data: &[u8]) -> usize {
    let Ok(text) = std::str::from_utf8(data) else { return 0 };
    let lists: Vec<String> = text.lines().map(str::to_owned).collect();
    let known = mount_options::known(&lists);
    let mut understood = 0;
    for lists in [lists, vec![known.clone()]] {
        match MountOptions::parse(&lists) {
            Ok(options) => {
                used(&options);
                understood += 1;
            }
            Err(e) => assert!(lists[..] != [known.clone()] || !e.sentence().contains("unknown mount option"), "{e}"),
        }
    }
    understood
}

/// What becomes of words that were read: they are noted for whoever asks about the mount, and lead to what the kernel is told.
fn used(options: &MountOptions) {
    let noted = serde_json::to_vec(options).expect("options are plain data");
    let again: MountOptions = serde_json::from_slice(&noted).expect("what is noted can be read");
    assert_eq!(serde_json::to_vec(&again).expect("options are plain data"), noted);
    let store: StoreArg = "memory://".parse().expect("a store");
    let config = options.config(Path::new("/mnt"), &store);
    assert_eq!(config.read_only, options.flag("ro"));
    options.first_of_writer();
    let _ = options.remote.options();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::control::{Ask, Say};
    use skylog::volume::Copies;
    use std::path::PathBuf;

    /// Executions of each, unless told otherwise.
    const READ: u64 = 5000;

    type Body = fn(&[u8]) -> usize;

    const TARGETS: [(&str, Body); 2] = [("control", control), ("mount_options", mount_options)];

    fn line<T: serde::Serialize>(value: &T) -> Vec<u8> {
        let mut line = serde_json::to_vec(value).expect("plain data");
        line.push(b'\n');
        line
    }

    /// Every request and every answer.
    fn conversations() -> Vec<Vec<u8>> {
        let asks = [
            Ask::Status,
            Ask::Metrics,
            Ask::Warm { inodes: vec![1, 2, u64::MAX] },
            Ask::Evict { inodes: Vec::new() },
            Ask::Sync,
            Ask::Set { sync: "everysec".into() },
            Ask::Durability { word: "store".into() },
            Ask::ShipInterval { seconds: 30 },
            Ask::WhenFull { word: "wait".into() },
            Ask::Limit { size: Some(1 << 30), inodes: None, on_limit: Some("edquot".into()) },
            Ask::Umount { now: true },
        ];
        let says = [
            Say::Progress { done: 1, total: 2, waiting: Some("the store".into()) },
            Say::Waiting { why: "files are open".into() },
            Say::Status { status: serde_json::json!({"journal": {"bytes": 4096}, "ratio": 0.5, "error": null}) },
            Say::Metrics { text: "skylog_bytes 1\n".into() },
            Say::Copies { before: Copies::default(), after: Copies::default() },
            Say::Done { unshipped_bytes: 7, fenced: Some("another writer".into()) },
            Say::Failed { why: "no room".into() },
        ];
        asks.iter().map(line).chain(says.iter().map(line)).collect()
    }

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let options = [
            "rw,sync=everysec,durability=store,grace=3600,ship_interval=5,state=/var/lib/skylog,journal_size=2GiB",
            "ro,nosuid,nodev,noexec,relatime,fsname=a b,nonempty,allow_other,uid=0,gid=root,umask=027,writeback",
            "cache_size=64MiB,cache_dir=/var/cache,cache_free=1G,when_full=enospc,read_timeout=60,metrics=127.0.0.1:9190",
            "endpoint=http://127.0.0.1:9000/,region=eu-1,path_style,virtual_hosted,profile=me,uploads=8,downloads=16",
            "upload_limit=1MiB/s,download_limit=9K,request_timeout=30,remount,takeover,metrics=unix:/run/x\ndefaults,x-y=z",
        ];
        match target {
            "control" => conversations(),
            _ => options.map(|list| list.as_bytes().to_vec()).into(),
        }
    }

    #[test]
    fn no_target_of_the_program_panics_on_what_a_fuzzer_would_try() {
        for (name, body) in TARGETS {
            let seeds = seeds(name);
            for seed in &seeds {
                assert!(body(seed) > 0, "{name}: {:?}", String::from_utf8_lossy(seed));
            }
            let (executions, reached) = mutate::run(name, body, &seeds, READ);
            assert!(executions > 0 && reached > 0, "{name} did nothing");
        }
    }

    /// A fuzzer begins with these. `SKYLOG_BLESS=1` writes them anew.
    #[test]
    fn the_seeds_of_a_fuzzer_are_those_of_the_test() {
        for (name, _) in TARGETS {
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
            let seeds = seeds(name);
            if std::env::var_os("SKYLOG_BLESS").is_some() {
                std::fs::create_dir_all(&folder).expect("a folder");
                for (n, seed) in seeds.iter().enumerate() {
                    std::fs::write(folder.join(format!("{n:02}")), seed).expect("written");
                }
            }
            let mut kept: Vec<PathBuf> =
                std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("a name").path()).collect();
            kept.sort();
            let kept: Vec<Vec<u8>> = kept.iter().map(|file| std::fs::read(file).expect("read")).collect();
            assert!(kept == seeds, "fuzz/seeds/{name} is not what the test begins with");
        }
    }

    #[test]
    fn every_target_of_the_program_has_a_fuzz_target() {
        for (name, _) in TARGETS {
            let target = format!("{}/fuzz/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(&target).unwrap_or_else(|e| panic!("{target}: {e}"));
            assert!(text.contains(&format!("commands::{name}(data)")), "{target}");
        }
    }
}
