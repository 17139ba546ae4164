//! The same promises for a store in a folder, one in memory, the simulated one, and a remote one.

use super::*;
use crate::base::random::{OsRandom, SeededRandom};
use crate::media::sim::CallLog;
use crate::store::probe_create;
use crate::store::remote::tests::served;
use crate::store::sim::SimStore;
use std::sync::atomic::{AtomicUsize, Ordering};

fn folder() -> (tempfile::TempDir, ObjectStoreBackend) {
    let root = tempfile::tempdir().expect("a folder for the test");
    let store = ObjectStoreBackend::in_folder(root.path()).expect("opens");
    (root, store)
}

fn on_all(test: impl Fn(&dyn Store)) {
    let (_root, store) = folder();
    test(&store);
    test(&ObjectStoreBackend::in_memory().expect("opens"));
    test(&SimStore::new(&CallLog::new()));
    let (_server, remote) = served();
    test(&remote);
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn an_object_is_read_back_whole_and_in_ranges() {
    on_all(|store| {
        store.put("seg/1/a", bytes("0123456789")).expect("put");
        assert_eq!(store.get("seg/1/a").expect("there"), bytes("0123456789"));
        assert_eq!(store.get_range("seg/1/a", 3..6).expect("there"), bytes("345"));
        assert_eq!(store.get_range("seg/1/a", 10..10).expect("there"), bytes(""));
        assert_eq!(store.size("seg/1/a").expect("there"), 10);
        store.put("seg/1/a", bytes("new")).expect("replaced");
        assert_eq!(store.get("seg/1/a").expect("there"), bytes("new"));
    });
}

#[test]
fn a_range_beyond_the_end_is_an_error_and_not_fewer_bytes() {
    on_all(|store| {
        store.put("a", bytes("0123")).expect("put");
        for (from, to) in [(2, 5), (4, 5), (9, 12), (5, 5)] {
            assert!(matches!(store.get_range("a", from..to), Err(StoreError::Failed { .. })), "{from}..{to}");
        }
    });
}

#[test]
fn what_there_is_of_a_range_is_given() {
    on_all(|store| {
        store.put("a", bytes("0123")).expect("put");
        store.put("empty", bytes("")).expect("put");
        for (from, to, there) in
            [(0, 9, "0123"), (2, 5, "23"), (3, 4, "3"), (4, 5, ""), (9, 12, ""), (2, 2, ""), (7, 7, "")]
        {
            assert_eq!(store.get_some("a", from..to).expect("there"), bytes(there), "{from}..{to}");
        }
        assert_eq!(store.get_some("empty", 0..5).expect("there"), bytes(""));
        assert!(matches!(store.get_some("b", 0..5), Err(StoreError::NotFound { .. })));
        assert!(matches!(store.get_some("b", 3..3), Err(StoreError::NotFound { .. })));
    });
}

#[test]
fn what_is_not_there_is_not_found() {
    on_all(|store| {
        assert!(matches!(store.get("a/b"), Err(StoreError::NotFound { .. })));
        assert!(matches!(store.get_range("a/b", 0..1), Err(StoreError::NotFound { .. })));
        assert!(matches!(store.size("a/b"), Err(StoreError::NotFound { .. })));
        store.delete("a/b").expect("no error if it is not there");
        assert_eq!(store.list("a").expect("empty"), Vec::<String>::new());
    });
}

#[test]
fn create_gives_an_object_to_one_writer_only() {
    on_all(|store| {
        let winners = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let winners = &winners;
                scope.spawn(move || {
                    for number in 0..20 {
                        let name = format!("gen/1/{number:010}");
                        if store.create(&name, vec![writer].into()).expect("an answer") == Created::New {
                            winners.fetch_add(1, Ordering::Relaxed);
                            assert_eq!(store.get(&name).expect("there"), vec![writer]);
                        }
                    }
                });
            }
        });
        assert_eq!(winners.into_inner(), 20);
    });
}

#[test]
fn promise_x4_the_probe_accepts_a_store_that_refuses_a_second_create_and_leaves_nothing() {
    on_all(|store| {
        probe_create(store, &OsRandom).expect("a good store");
        probe_create(store, &SeededRandom::new(1)).expect("a good store");
        assert_eq!(store.list("").expect("listed"), Vec::<String>::new());
    });
}

#[test]
fn a_list_is_sorted_and_below_its_folder() {
    on_all(|store| {
        for name in ["gen/2/1", "gen/1/10", "gen/1/2", "skylog.json", "gen/10/0"] {
            store.put(name, bytes("x")).expect("put");
        }
        assert_eq!(store.list("gen/1").expect("listed"), ["gen/1/10", "gen/1/2"]);
        assert_eq!(store.list("gen/1/").expect("listed"), ["gen/1/10", "gen/1/2"]);
        assert_eq!(store.list("").expect("listed"), ["gen/1/10", "gen/1/2", "gen/10/0", "gen/2/1", "skylog.json"]);
    });
}

#[test]
fn promise_g12_a_walk_hands_out_one_name_at_a_time_and_ends_when_told() {
    on_all(|store| {
        for n in 0..50 {
            store.put(&format!("seg/1/{n}"), bytes("x")).expect("put");
        }
        let mut seen = Vec::new();
        let mut walk = |most: usize| {
            seen.clear();
            let each = &mut |name: &str| {
                seen.push(name.to_owned());
                if seen.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            store.walk("seg", each).expect("walked");
            seen.len()
        };
        assert_eq!((walk(7), walk(1), walk(usize::MAX)), (7, 1, 50));
        seen.sort_unstable();
        assert_eq!(seen, store.list("seg").expect("listed"));
    });
}

#[test]
fn a_file_in_the_place_of_a_folder_is_no_folder() {
    let (root, store) = folder();
    std::fs::write(root.path().join("seg"), "mine").expect("written");
    for _ in 0..2 {
        let folder = store.folder.as_ref().expect("a store in a folder");
        assert!(folder.make_durable("seg/1/2").is_err());
        assert!(store.put("seg/1/2", bytes("x")).is_err());
    }
    std::fs::remove_file(root.path().join("seg")).expect("removed");
    store.put("seg/1/2", bytes("x")).expect("put");
}

#[test]
fn an_upload_that_was_cut_short_is_no_object() {
    let (root, store) = folder();
    store.put("gen/1/2", bytes("x")).expect("put");
    std::fs::write(root.path().join("gen/1/3#1"), "half").expect("written");
    assert_eq!(store.list("gen").expect("listed"), ["gen/1/2"]);
    store.put("gen/1/3", bytes("y")).expect("put");
    assert_eq!(store.get("gen/1/3").expect("there"), bytes("y"));
}

#[test]
fn a_name_that_leads_out_of_the_store_is_refused() {
    on_all(|store| {
        for bad in ["", "/a", "../a", "a/../b", "a//b", "a#1", "a b", "a/"] {
            assert!(matches!(store.put(bad, bytes("x")), Err(StoreError::Failed { .. })), "{bad:?}");
            assert!(matches!(store.get(bad), Err(StoreError::Failed { .. })), "{bad:?}");
        }
    });
}

#[test]
fn a_local_file_is_published_by_a_link_and_again_after_a_crash() {
    let (root, store) = folder();
    std::fs::create_dir(root.path().join("state")).expect("made");
    let file = root.path().join("state/1-7");
    std::fs::write(&file, "nodes").expect("written");
    for _ in 0..2 {
        assert!(store.publish_local(&file, "seg/1/7").expect("published"));
    }
    assert_eq!(store.get("seg/1/7").expect("there"), bytes("nodes"));

    store.put("seg/1/8", bytes("another length")).expect("put");
    assert!(store.publish_local(&file, "seg/1/8").is_err());
    std::fs::remove_file(&file).expect("removed");
    assert_eq!(store.get("seg/1/7").expect("the object stays"), bytes("nodes"));
}

#[test]
fn a_store_that_cannot_link_says_so() {
    let (_root, store) = folder();
    let memory = ObjectStoreBackend::in_memory().expect("opens");
    let elsewhere = Path::new("/proc/self/status");
    assert!(!memory.publish_local(elsewhere, "seg/1/7").expect("answered"));
    assert!(!store.publish_local(elsewhere, "seg/1/7").expect("answered"));
}

#[test]
fn a_removed_folder_is_made_again() {
    let (root, store) = folder();
    store.put("seg/1/1", bytes("x")).expect("put");
    std::fs::remove_dir_all(root.path().join("seg")).expect("removed");
    store.put("seg/1/2", bytes("y")).expect("put");
    assert_eq!(store.list("seg").expect("listed"), ["seg/1/2"]);
}

#[test]
fn an_object_that_was_read_is_read_again_without_waiting_until_it_is_another_one() {
    let root = tempfile::tempdir_in("/var/tmp").expect("a folder on a disk");
    let store = ObjectStoreBackend::in_folder(root.path()).expect("opens");
    store.put("seg/a", Bytes::from_static(b"first one")).expect("written");
    assert_eq!(store.get_resident("seg/a", 0..5), None, "opening it might wait");
    assert_eq!(store.get_range("seg/a", 0..5).expect("there"), "first");
    assert_eq!(store.get_resident("seg/a", 6..9).expect("open, and in memory"), "one");
    assert_eq!(store.get_resident("seg/a", 6..10), None, "beyond the end");

    store.put("seg/a", Bytes::from_static(b"other one")).expect("replaced");
    assert_eq!(store.get_resident("seg/a", 0..5), None, "the open file is the old object");
    assert_eq!(store.get_range("seg/a", 0..5).expect("there"), "other");
    store.delete("seg/a").expect("removed");
    assert_eq!(store.get_resident("seg/a", 0..5), None);
    assert!(matches!(store.get_range("seg/a", 0..5), Err(StoreError::NotFound { .. })));
}

#[test]
fn a_folder_that_is_gone_is_away_and_nothing_is_written_where_it_was() {
    let (root, _) = folder();
    let (here, there) = (root.path().join("store"), root.path().join("aside"));
    std::fs::create_dir(&here).expect("made");
    std::fs::write(here.join("skylog.json"), "a filesystem").expect("written");
    let store = ObjectStoreBackend::in_folder(&here).expect("opens");
    store.put("seg/1/1", bytes("x")).expect("put");
    std::fs::rename(&here, &there).expect("moved away");
    // As the folder below a mount point.
    std::fs::create_dir(&here).expect("made");
    let away = |done: Result<(), StoreError>| assert!(matches!(done, Err(StoreError::Away { .. })), "{done:?}");
    away(store.put("seg/1/2", bytes("y")));
    away(store.create("seg/1/2", bytes("y")).map(drop));
    away(store.delete("seg/1/1"));
    away(store.get("seg/1/1").map(drop));
    away(store.get_range("seg/1/1", 0..1).map(drop));
    away(store.size("seg/1/1").map(drop));
    away(store.list("seg").map(drop));
    away(store.publish_local(&there.join("skylog.json"), "seg/1/2").map(drop));
    assert!(std::fs::read_dir(&here).expect("there").next().is_none());
    std::fs::remove_dir(&here).expect("removed");
    std::fs::rename(&there, &here).expect("moved back");
    assert_eq!(store.list("seg").expect("back"), ["seg/1/1"]);
    // One that is being removed is no longer a filesystem's.
    store.delete("skylog.json").expect("deleted");
    store.delete("seg/1/1").expect("deleted");
}
