//! Syncs that the simulated disk knows nothing of: those of a real disk, and of a store in a folder. Each story is told on ext4 in a file,
//! which the kernel stops at its end without writing anything more, and looks afterwards what is there. `tests/cuts` does so with all
//! of skylog; here it is one call, so that each sync can be taken away alone.

use crate::scenes::Told;
use skylog::media::{LocalDisk, Media};
use skylog::store::{Created, ObjectStoreBackend, Place, Store};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BYTES: usize = 100_000;
/// How scratch folders are called.
pub const SCRATCH: &str = "skylog-canary.";

fn command(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}: {errors}", output.status);
}

fn words(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

/// Unmounts whatever happens.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whether it helps is not asked: a test that failed says so itself.
        let _ = Command::new("umount").args(["-l", words(&self.0)]).status();
    }
}

/// Does something on a new filesystem, cuts its power, and looks what is left.
fn cut(act: impl FnOnce(&Path), look: impl FnOnce(&Path) -> Result<(), String>) -> Told {
    let scratch = tempfile::Builder::new().prefix(SCRATCH).tempdir_in("/var/tmp").expect("a scratch folder");
    let (image, at) = (scratch.path().join("image"), scratch.path().join("disk"));
    fs::create_dir(&at).expect("a mount point");
    command("truncate", &["-s", "64M", words(&image)]);
    command("mkfs.ext4", &["-q", "-F", words(&image)]);
    // Its own log is written when it is asked to, and not by the clock.
    let mount = || command("mount", &["-o", "loop,commit=1000", words(&image), words(&at)]);
    mount();
    let mounted = Mounted(at.clone());
    act(&at);
    command("xfs_io", &["-x", "-c", "shutdown", words(&at)]);
    command("umount", &[words(&at)]);
    mount();
    let looked = look(&at);
    drop(mounted);
    looked.map(|()| 1).map_err(|what| (1, what))
}

fn has(file: &Path) -> Result<(), String> {
    match fs::read(file) {
        Ok(bytes) if bytes == [7; BYTES] => Ok(()),
        Ok(bytes) => Err(format!("{} has {} bytes of {BYTES}", file.display(), bytes.len())),
        Err(e) => Err(format!("{}: {e}", file.display())),
    }
}

fn put(disk: &LocalDisk, name: &str) {
    let file = disk.create(name).expect("made");
    file.write_at(&[7; BYTES], 0).expect("written");
    file.sync().expect("synced");
    disk.sync_dir("").expect("synced");
}

fn store_in(root: &Path) -> ObjectStoreBackend {
    ObjectStoreBackend::in_folder(root).expect("a folder")
}

/// A file that was synced is whole.
pub fn file_sync() -> Told {
    cut(|root| put(&LocalDisk::new(root), "file"), |root| has(&root.join("file")))
}

/// A file that was renamed, and its folder synced, has its new name.
pub fn dir_sync() -> Told {
    let act = |root: &Path| {
        let disk = LocalDisk::new(root);
        put(&disk, "old");
        disk.rename("old", "new").expect("renamed");
        disk.sync_dir("").expect("synced");
    };
    cut(act, |root| has(&root.join("new")))
}

/// What a store said it has is there.
pub fn folder_put() -> Told {
    let act = |root: &Path| {
        let store = store_in(root);
        store.put("seg/one", vec![7; BYTES].into()).expect("put");
        assert_eq!(store.create("gen/two", vec![7; BYTES].into()).expect("created"), Created::New);
    };
    cut(act, |root| has(&root.join("seg/one")).and(has(&root.join("gen/two"))))
}

/// The same of what it linked.
pub fn folder_link() -> Told {
    let act = |root: &Path| {
        let store = store_in(root);
        put(&LocalDisk::new(root), "local");
        assert!(store.publish_local(&root.join("local"), "seg/linked").expect("linked"));
    };
    cut(act, |root| has(&root.join("seg/linked")))
}

/// What is found in a store is there, also if its maker died before it had synced the name.
pub fn folder_exists() -> Told {
    let act = |root: &Path| {
        let store = store_in(root);
        store.put("gen/before", vec![7; BYTES].into()).expect("put");
        put(&LocalDisk::new(root), "upload");
        fs::hard_link(root.join("upload"), root.join("gen/theirs")).expect("linked");
        assert_eq!(store.create("gen/theirs", vec![1; 10].into()).expect("answered"), Created::Exists);
    };
    cut(act, |root| has(&root.join("gen/theirs")))
}

/// What a store said is gone stays gone.
pub fn folder_delete() -> Told {
    let act = |root: &Path| {
        let store = store_in(root);
        store.put("seg/dead", vec![7; BYTES].into()).expect("put");
        store.delete("seg/dead").expect("deleted");
    };
    let look = |root: &Path| match root.join("seg/dead").exists() {
        true => Err("what was deleted is there again".to_owned()),
        false => Ok(()),
    };
    cut(act, look)
}

/// The folder of a new store is there.
pub fn store_made() -> Told {
    let act = |root: &Path| Place::Folder(root.join("above/store")).make().expect("made");
    let look = |root: &Path| match root.join("above/store").is_dir() {
        true => Ok(()),
        false => Err("the folder of the store is gone".to_owned()),
    };
    cut(act, look)
}

#[test]
fn what_is_synced_on_a_real_disk_survives_a_power_cut() {
    let stories: [fn() -> Told; 7] =
        [file_sync, dir_sync, folder_put, folder_link, folder_exists, folder_delete, store_made];
    for story in stories {
        story().unwrap_or_else(|(_, what)| panic!("{what}"));
    }
}
