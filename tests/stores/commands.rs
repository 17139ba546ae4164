//! What the commands do on a bucket: where the local state lies, whose it is, and what each of them touches.

use super::scratch::{Scratch, words};
use super::server;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All names in a bucket.
fn names(scratch: &Scratch) -> Vec<String> {
    let answer = server::request(scratch.upstream, "GET", &format!("/{}?list-type=2", scratch.bucket));
    let keys = answer.split("<Key>").skip(1);
    keys.filter_map(|rest| rest.split_once("</Key>")).map(|(name, _)| name.to_owned()).collect()
}

/// Puts an empty object of somebody else's.
fn put(scratch: &Scratch, name: &str) {
    let answer = server::request(scratch.upstream, "PUT", &format!("/{}/{name}", scratch.bucket));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// The usual state directory of the filesystem of a store.
fn usual_state(scratch: &Scratch) -> PathBuf {
    let status = scratch.skylog(&["status", "--json", &scratch.url]).succeeds();
    let status: serde_json::Value = serde_json::from_str(&status).expect("status prints JSON");
    Path::new("/var/lib/skylog").join(status["uuid"].as_str().expect("a UUID"))
}

/// Takes a usual state directory away, also when the test has failed.
struct Usual(PathBuf);

impl Drop for Usual {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn the_state_lies_in_its_usual_place_and_goes_with_the_filesystem() {
    let scratch = Scratch::new(1);
    scratch.make();
    let state = Usual(usual_state(&scratch));
    let mnt = words(&scratch.mnt);
    for command in [&["check"][..], &["break-lock"], &["status"]] {
        scratch.skylog(&[command, &[&scratch.url]].concat()).succeeds();
        assert!(!state.0.exists(), "{command:?} made a state directory");
    }
    scratch.skylog(&["mount", "--journal-size", "64MiB", &scratch.url, mnt]).succeeds();
    fs::write(scratch.mnt.join("file"), "contents").expect("it is mounted");
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&state.0), mode(&state.0.join("store"))), (0o700, 0o600), "for its owner alone");
    let said = scratch.skylog(&["destroy", "--yes", &scratch.url]).fails();
    assert!(said.contains("in use by") && said.contains(mnt), "{said}");
    scratch.skylog(&["umount", mnt]).succeeds();
    scratch.skylog(&["check", "--data", &scratch.url]).succeeds();
    assert!(state.0.join("MANIFEST").exists());
    scratch.skylog(&["destroy", "--yes", &scratch.url]).succeeds();
    assert!(!state.0.exists());
    assert!(names(&scratch).is_empty());
}

#[test]
fn a_mount_finds_its_state_while_the_store_is_away() {
    let scratch = Scratch::new(1);
    scratch.make();
    let state = Usual(usual_state(&scratch));
    let (url, mnt) = (scratch.url.as_str(), words(&scratch.mnt));
    let mount = || scratch.skylog(&["mount", "--journal-size", "64MiB", url, mnt]);
    let umount = || scratch.skylog(&["umount", mnt]).succeeds();
    mount().succeeds();
    umount();
    scratch.plan("refuse=1000");
    let said = mount().succeeds();
    assert!(said.contains("does not answer") && said.contains(words(&state.0)), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    fs::write(scratch.mnt.join("file"), "contents").expect("it is mounted");
    scratch.plan("");
    umount();
    fs::remove_dir_all(&state.0).expect("there was local state");
    assert_eq!(mount().succeeds(), "");
    assert_eq!(fs::read_to_string(scratch.mnt.join("file")).expect("it was shipped"), "contents");
    umount();
}

#[test]
fn a_bucket_of_the_same_name_at_another_service_is_not_mounted_from_this_ones_state() {
    let scratch = Scratch::new(1);
    scratch.make();
    let _state = Usual(usual_state(&scratch));
    let (url, mnt) = (scratch.url.as_str(), words(&scratch.mnt));
    scratch.skylog(&["mount", "--journal-size", "64MiB", url, mnt]).succeeds();
    scratch.skylog(&["umount", mnt]).succeeds();
    let nobody = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port");
    let elsewhere = format!("http://{nobody}");
    let said = scratch.skylog(&["mount", "--endpoint", &elsewhere, url, mnt]).fails();
    assert!(said.contains("no local state of") && said.contains(&elsewhere), "{said}");
}

#[test]
fn without_the_store_and_without_a_state_there_is_one_sentence() {
    let mut scratch = Scratch::mounted(1, &[]);
    scratch.umount();
    scratch.plan("refuse=1000");
    let said = scratch.skylog(&["check", &scratch.url]).fails();
    assert!(said.contains("does not answer"), "{said}");
    let nothing = scratch.root.join("nothing");
    let said = scratch.skylog(&["mount", "--state", words(&nothing), &scratch.url, words(&scratch.mnt)]).fails();
    assert!(said.contains("does not answer") && said.contains("no state of"), "{said}");
    assert!(!nothing.exists());
}

#[test]
fn a_filesystem_that_was_made_anew_is_told_from_the_one_before() {
    let mut scratch = Scratch::mounted(1, &[]);
    scratch.umount();
    let elsewhere = scratch.root.join("elsewhere");
    // Destroyed from another machine, whose state is another.
    scratch.skylog(&["mount", "--state", words(&elsewhere), &scratch.url, words(&scratch.mnt)]).succeeds();
    scratch.skylog(&["umount", words(&scratch.mnt)]).succeeds();
    scratch.skylog(&["destroy", "--yes", "--state", words(&elsewhere), &scratch.url]).succeeds();
    scratch.make();
    let said = scratch.try_mount(&[]).fails();
    assert!(said.contains("was made anew") && said.contains(words(&scratch.state)), "{said}");
    scratch.wipe();
    scratch.mount(&[]);
    scratch.umount();
}

#[test]
fn a_state_is_not_used_for_another_place() {
    let mut scratch = Scratch::mounted(1, &[]);
    scratch.umount();
    let other = format!("s3://{}/other", scratch.bucket);
    // A copy of the bucket holds the same filesystem.
    for name in names(&scratch) {
        let copied = name.replacen("some/prefix/", "other/", 1);
        server::copy(scratch.upstream, &scratch.bucket, &name, &copied);
    }
    let said = scratch.skylog(&["mount", "--state", words(&scratch.state), &other, words(&scratch.mnt)]).fails();
    assert!(said.contains(&scratch.url) && said.contains("not of"), "{said}");
    scratch.mount(&[]);
    scratch.umount();
}

#[test]
fn promise_g11_nothing_is_made_over_something_and_only_ours_is_removed() {
    let scratch = Scratch::new(1);
    let theirs =
        ["some/prefix/letter.txt", "some/prefix/seg/letter.txt", "some/prefixes", "some/gen/0000000001/0000000000"];
    put(&scratch, theirs[0]);
    let said = scratch.skylog(&["mkfs", &scratch.url]).fails();
    assert!(said.contains("other objects (letter.txt)"), "{said}");
    assert_eq!(names(&scratch), theirs[..1]);
    server::request(scratch.upstream, "DELETE", &format!("/{}/{}", scratch.bucket, theirs[0]));
    scratch.make();
    theirs.iter().for_each(|name| put(&scratch, name));
    scratch.skylog(&["destroy", "--yes", &scratch.url]).succeeds();
    let mut left = theirs;
    left.sort_unstable();
    assert_eq!(names(&scratch), left);
    let said = scratch.skylog(&["destroy", "--yes", &scratch.url]).fails();
    assert!(said.contains("is not a skylog store"), "{said}");
}

#[test]
fn a_probe_that_stayed_in_a_store_is_in_nobodys_way() {
    let scratch = Scratch::new(1);
    put(&scratch, "some/prefix/probe-0123456789abcdef0123456789abcdef");
    scratch.make();
    scratch.skylog(&["destroy", "--yes", &scratch.url]).succeeds();
    assert!(names(&scratch).is_empty());
}

#[test]
fn a_destruction_that_was_interrupted_is_gone_on_with() {
    let scratch = Scratch::new(1);
    scratch.make();
    server::request(scratch.upstream, "DELETE", &format!("/{}/some/prefix/skylog.json", scratch.bucket));
    assert!(!names(&scratch).is_empty());
    let said = scratch.skylog(&["mkfs", &scratch.url]).fails();
    assert!(said.contains(&format!("`skylog destroy {}`", scratch.url)), "{said}");
    let said = scratch.skylog(&["destroy", &scratch.url]).fails_after_asking();
    assert!(said.contains("no filesystem any more"), "{said}");
    scratch.skylog(&["destroy", "--yes", &scratch.url]).succeeds();
    assert!(names(&scratch).is_empty());
    // A probe whose answer was lost may stay, and is no reason to take another place.
    put(&scratch, "some/prefix/probe-00000000000000000000000000000017");
    scratch.make();
}

#[test]
fn mount_makes_a_filesystem_on_demand_and_takes_options_after_o() {
    let mut scratch = Scratch::new(1);
    let endpoint = format!("endpoint=http://{},region=us-east-1,path_style", scratch.proxy.address());
    scratch.set_variable("AWS_ENDPOINT_URL", None);
    scratch.mount(&["--create", "--segment-size", "1MiB", "-o", &endpoint]);
    let registered = scratch.status();
    assert_eq!(registered["store"], scratch.url.as_str());
    fs::write(scratch.mnt.join("file"), "contents").expect("it is mounted");
    scratch.umount();
    scratch.mount(&["--create", "-o", &endpoint]);
    assert_eq!(fs::read_to_string(scratch.mnt.join("file")).expect("it is there"), "contents");
    scratch.umount();
}

#[test]
fn mount_8_mounts_a_line_of_fstab() {
    let mut scratch = Scratch::new(1);
    scratch.make();
    let options = format!("rw,_netdev,journal_size=64MiB,uploads=2,state={}", words(&scratch.state));
    let mut command = scratch.command(&[&scratch.url, words(&scratch.mnt), "-o", &options]);
    let output = command.arg0("mount.skylog").output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let source =
        Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&scratch.mnt).output().expect("findmnt starts");
    assert_eq!(String::from_utf8_lossy(&source.stdout).trim(), scratch.url);
    let said = scratch.skylog(&["mount", "-o", "remount,uploads=3", &scratch.url, words(&scratch.mnt)]).fails_with(2);
    assert!(said.contains("uploads cannot change in a remount"), "{said}");
    scratch.skylog(&["mount", "-o", "remount,ro,uploads=2", &scratch.url, words(&scratch.mnt)]).succeeds();
    scratch.adopt();
    scratch.umount();
}

/// Answers every request in one way; where it listens.
fn answering(status: &'static str, body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().filter_map(Result::ok) {
            // No request of this test has a body that would come after the empty line.
            BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).ok();
        }
    });
    address
}

#[test]
fn what_a_service_says_reaches_the_user_in_one_sentence() {
    let scratch = Scratch::new(1);
    let denied = "<Error><Code>SignatureDoesNotMatch</Code><Message>The key is wrong.</Message></Error>";
    let newer = r#"{ "skylog": 9, "uuid": "x" }"#;
    for (status, body, expected) in [
        ("403 Forbidden", denied, &["access denied", "SignatureDoesNotMatch", "check the credentials"][..]),
        ("200 OK", newer, &["made by a newer skylog", "update skylog"]),
        ("200 OK", "<html>Welcome!</html>", &["skylog.json", "not JSON"]),
    ] {
        let endpoint = format!("http://{}", answering(status, body));
        for command in [&["check"][..], &["destroy", "--yes"], &["mount"]] {
            let place = [scratch.url.as_str(), words(&scratch.mnt)];
            let place = if command == ["mount"] { &place[..] } else { &place[..1] };
            let said = scratch.skylog(&[command, &["--endpoint", &endpoint], place].concat()).fails();
            for words in expected {
                assert!(said.contains(words), "{command:?} does not say {words:?}: {said}");
            }
        }
    }
}

#[test]
fn no_secret_is_in_the_command_line_of_the_daemon_its_log_or_its_status() {
    let mut scratch = Scratch::mounted(1, &[]);
    let status = scratch.status();
    let line = fs::read(format!("/proc/{}/cmdline", status["pid"])).expect("it runs");
    let line = String::from_utf8_lossy(&line).into_owned();
    fs::write(scratch.mnt.join("file"), "contents").expect("it is mounted");
    scratch.umount();
    let files =
        ["skylog.log", "store", "MANIFEST"].map(|name| fs::read_to_string(scratch.state.join(name)).expect(name));
    for text in files.into_iter().chain([line, status.to_string()]) {
        assert!(!text.contains(server::SECRET_KEY), "{text}");
    }
}

#[test]
fn what_is_in_memory_is_gone_after_the_unmount() {
    let scratch = Scratch::new(1);
    let mnt = words(&scratch.mnt);
    let file = scratch.mnt.join("file");
    for _ in 0..2 {
        scratch.skylog(&["mount", "--journal-size", "512MiB", "memory://", mnt]).succeeds();
        assert!(!file.exists());
        fs::write(&file, vec![7; 3 << 20]).expect("it is mounted");
        scratch.skylog(&["sync", mnt]).succeeds();
        let status = scratch.skylog(&["status", "--json", mnt]).succeeds();
        let status: serde_json::Value = serde_json::from_str(&status).expect("status prints JSON");
        let state = PathBuf::from(status["state_directory"].as_str().expect("a path"));
        assert!(state.join("MANIFEST").exists());
        scratch.skylog(&["umount", mnt]).succeeds();
        assert!(!state.exists(), "{} stays", state.display());
    }
}
