//! Lines about many small files. `create` makes them, the others find them, `unlink` ends them.

use super::{Measured, Random, Sizes};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::thread;

/// Bytes of a small file.
const SMALL: usize = 4096;
/// Files in a folder.
const FOLDER: u64 = 1000;

fn folder(dir: &Path, n: u64) -> PathBuf {
    dir.join(format!("folder {}", n / FOLDER))
}

fn all(dir: &Path, sizes: &Sizes) -> Vec<PathBuf> {
    (0..sizes.get("files", 10_000)).map(|n| folder(dir, n).join(format!("file {n}"))).collect()
}

/// The same in an order that no directory has.
fn anyhow(dir: &Path, sizes: &Sizes) -> Vec<PathBuf> {
    let mut paths = all(dir, sizes);
    Random(3).shuffle(&mut paths);
    paths
}

/// Does something with each path; says how many there were, and with `bytes` of data each.
fn each(paths: &[PathBuf], bytes: usize, mut act: impl FnMut(&Path)) -> Measured {
    Measured::of(|| {
        paths.iter().for_each(|path| act(path));
        (paths.len() as u64, (paths.len() * bytes) as u64)
    })
}

fn write(mut file: File) {
    file.write_all(&[0x5a; SMALL]).expect("written");
}

pub fn create(dir: &Path, threads: usize, sizes: &Sizes) -> Measured {
    let root = |n| if threads == 1 { dir.to_owned() } else { dir.join(format!("of {n}")) };
    let roots: Vec<PathBuf> = (0..threads).map(root).collect();
    let mut lists: Vec<Vec<PathBuf>> = roots.iter().map(|root| all(root, sizes)).collect();
    for (list, root) in lists.iter_mut().zip(&roots) {
        list.truncate(list.len() / threads);
        for n in (0..list.len() as u64).step_by(FOLDER as usize) {
            fs::create_dir_all(folder(root, n)).expect("made");
        }
    }
    let make = |path: &PathBuf| write(OpenOptions::new().write(true).create_new(true).open(path).expect("created"));
    Measured::of(|| {
        thread::scope(|scope| {
            for list in &lists {
                scope.spawn(move || list.iter().for_each(make));
            }
        });
        let files: usize = lists.iter().map(Vec::len).sum();
        (files as u64, (files * SMALL) as u64)
    })
}

pub fn stat(dir: &Path, sizes: &Sizes) -> Measured {
    each(&anyhow(dir, sizes), 0, |path| {
        fs::symlink_metadata(path).expect("there");
    })
}

/// Lists every folder and looks at every entry; the second time counts.
pub fn list(dir: &Path) -> Measured {
    let look = || {
        let mut entries = 0;
        for folder in fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                fs::symlink_metadata(entry.expect("an entry").path()).expect("there");
                entries += 1;
            }
        }
        (entries, 0)
    };
    look();
    Measured::of(look)
}

pub fn open_and_read(dir: &Path, sizes: &Sizes) -> Measured {
    let mut contents = vec![0; SMALL];
    each(&anyhow(dir, sizes), SMALL, |path| {
        File::open(path).expect("opened").read_exact(&mut contents).expect("read");
    })
}

pub fn overwrite(dir: &Path, sizes: &Sizes) -> Measured {
    each(&anyhow(dir, sizes), SMALL, |path| {
        write(OpenOptions::new().write(true).truncate(true).open(path).expect("opened"));
    })
}

/// Gives every file another name in its folder.
pub fn rename(dir: &Path, sizes: &Sizes) -> Measured {
    let pairs: Vec<(PathBuf, PathBuf)> = anyhow(dir, sizes).into_iter().map(|p| (p.with_extension("new"), p)).collect();
    Measured::of(|| {
        pairs.iter().for_each(|(new, old)| fs::rename(old, new).expect("renamed"));
        (pairs.len() as u64, 0)
    })
}

/// Removes every file, whatever it is called by now.
pub fn unlink(dir: &Path, sizes: &Sizes) -> Measured {
    let names = |folder: u64| fs::read_dir(dir.join(format!("folder {folder}"))).expect("a folder");
    let folders = sizes.get("files", 10_000) / FOLDER;
    let mut paths: Vec<PathBuf> = (0..folders).flat_map(names).map(|entry| entry.expect("an entry").path()).collect();
    Random(3).shuffle(&mut paths);
    each(&paths, 0, |path| fs::remove_file(path).expect("removed"))
}
